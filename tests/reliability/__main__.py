"""Run the reliability table: `PYTHONPATH=tests python -m reliability [--only NAME] [--scale 0.1] [--resume]`.

Each row runs in a process of its own, within a time limit, and its result is written to runs/reliability.json at once; so
`--resume` goes on after an interruption, and `--only` repeats one row and keeps the others' results.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from postgres import NOT_INSTALLED, PostgresServer, find_binaries  # noqa: E402 (after the filter)

from reliability.outcome import Ground, Outcome  # noqa: E402
from reliability.rows import POSTGRES, ROWS, Row  # noqa: E402

RESULTS = Path("runs/reliability.json")
_SET_DEATH_SIGNAL = 1
_console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> int:
    """The command line. Exit status 1 when a row of this run has a violation or could not be run."""
    parser = argparse.ArgumentParser(prog="reliability", description="Faults, load and races against the running service, as a table.")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=[row.name for row in ROWS], help="this row alone; may be repeated"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full sizes, as 0.1")
    parser.add_argument("--resume", action="store_true", help="leave out the rows that have passed at this scale already")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # name, database, file of the result: the process of one row
    args = parser.parse_args()
    if args.row:
        _run_row(*args.row, args.scale)
        return 0
    results = _known() if args.only or args.resume else {}
    done: list[dict[str, Any]] = []
    for row in ROWS:
        for database in row.databases:
            known = results.get(f"{row.name}, {database}", {})
            is_done = args.resume and known.get("passed") and known.get("scale") == args.scale
            if not is_done and (not args.only or row.name in args.only):
                _console.print(f"{datetime.now(UTC):%H:%M:%S} {row.name}, {database}: {_size(row, args.scale):,.0f} {row.unit}")
                results[f"{row.name}, {database}"] = result = _in_process(row, database, args.scale)
                _console.print(f"         {'passed' if result['passed'] else result['skipped'] or result['violations'][:3]}", markup=False)
                _write(results)
                done.append(result)
    _print(results)
    return 0 if all(result["passed"] for result in done) else 1


def _size(row: Row, scale: float) -> float:
    return row.full if row.fixed else max(row.full * scale, row.short or 1)


def _in_process(row: Row, database: str, scale: float) -> dict[str, Any]:
    """One row in a process of its own, which ends with this one, and is ended when it takes too long."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nabz-reliability-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as another user where we are root
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "reliability", "--row", row.name, database, str(file), "--scale", str(scale)]
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(
                command, env={**os.environ, "TMPDIR": folder}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                process.wait(60 * row.minutes)
                why = f"it ended with {process.returncode}"
            except subprocess.TimeoutExpired:
                why = f"it did not end within {row.minutes:.0f} minutes"
            finally:
                _end(process)
            log.seek(0)
            words = log.read()[-1500:].decode(errors="replace")
        outcome = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if outcome is None:
        broken = Outcome(row.name)
        broken.require(False, f"{why}: {words}")
        outcome = {**asdict(broken), "passed": False, "done": {}}
    return {
        **outcome,
        "what": row.what,
        "size": _size(row, scale),
        "unit": row.unit,
        "scale": scale,
        "seconds": round(time.monotonic() - began, 1),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, so that it can clean up; then SIGKILL, after which its own processes end by themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                continue


def _run_row(name: str, database: str, file: str, scale: float) -> None:
    """The process of one row: its own folder and database, and the result in `file`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    row = next(row for row in ROWS if row.name == name)
    outcome = Outcome(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="row-", ignore_cleanup_errors=True)))
        binaries = find_binaries() if database == POSTGRES else None
        if database == POSTGRES and binaries is None:
            outcome.skipped = NOT_INSTALLED
        else:
            ground = Ground(folder, f"sqlite:///{folder}/nabz.db")
            if binaries:
                server = PostgresServer(binaries)
                stack.callback(server.close)
                server.start()
                ground = Ground(folder, stack.enter_context(server.fresh_database()), server)
            try:
                outcome = row.run(_size(row, scale), ground)
            except Exception as error:  # noqa: BLE001 (the others must run all the same, and the table says what happened)
                outcome.require(False, f"{type(error).__name__}: {error}"[:1500])
        Path(file).write_text(json.dumps({**asdict(outcome), "passed": outcome.passed}, default=str), encoding="utf-8")


def _known() -> dict[str, Any]:
    try:
        return dict(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])
    except (OSError, ValueError, KeyError):
        return {}


def _write(results: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"written": datetime.now(UTC).isoformat(), "cores": os.cpu_count(), "load": os.getloadavg(), "rows": results}
    beside = RESULTS.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(RESULTS)


def _print(results: dict[str, Any]) -> None:
    table = Table("row", "what", "done", "found", "minutes", title="Reliability")
    for name, result in results.items():
        size = f"{result['size']:,.0f} {result['unit']}"
        done = "; ".join([size, *(f"{word} {value}" for word, value in result["done"].items() if word != result["unit"])])
        found = (
            "passed"
            if result["passed"]
            else f"skipped: {result['skipped']}"
            if result["skipped"]
            else f"{result['violation_count']} violations"
        )
        table.add_row(name, result["what"], done, found, f"{result['seconds'] / 60:.1f}")
    _console.print(table, markup=False)
    for name, result in results.items():
        for violation in result["violations"]:
            _console.print(f"{name}: {violation}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
