"""How many requests a second a server answers, and how fast: the server on one core, the load client on another.

Prints and asserts nothing. Knows no route and no token: the caller names them.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from inference.errors import NabzError
from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.load_client import CONNECTIONS
from training.synthetic import draw_cases

HOST = "127.0.0.1"
SECONDS, WARM_UP_SECONDS = 10.0, 2.0
START_SECONDS, STOP_SECONDS = 120.0, 15.0
DISTINCT_CASES = 500
_LEAST_FINDINGS = 2
_LAST_WORDS = 1500


class BenchError(NabzError):
    """A server under measurement did not start, or answered something else than success."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One server under load. Every request was answered with success.

    `server_cpu_ms` is the processor time that a request costs the server, which other work on the machine hardly
    changes; `load_average` is the machine's just before, which says how far to trust the rest.
    """

    name: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    connections: int
    load_average: float


def structured_cases(catalogue: Path, n: int = DISTINCT_CASES, seed: int = 7) -> list[dict[str, Any]]:
    """Invented cases with findings by code and vitals, without complaint text or photos; the same for the same seed."""
    knowledge = load_knowledge(catalogue)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed)
    cases: list[dict[str, Any]] = []
    while len(cases) < n:
        drawn = draw_cases(knowledge, generator, generator.draw(n, random), random)
        cases += [case for case in drawn if len(case["findings"]) >= _LEAST_FINDINGS and case["vitals"]]
    return [{**case, "case_id": f"bench-{place + 1}", "complaint": ""} for place, case in enumerate(cases[:n])]


def as_body(content: Mapping[str, Any]) -> bytes:
    """A JSON body on one line, as short as a client would send it."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def measure_service(
    command: Sequence[str],
    ready_path: str,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    port: int,
    name: str,
    connections: int = CONNECTIONS,
    seconds: float = SECONDS,
    environment: Mapping[str, str] | None = None,
    unique_header: str | None = None,
) -> Measured:
    """Start `command` (which listens on `port`), wait until `ready_path` answers 200, post `bodies` to `path`, end it.

    `unique_header`, as Idempotency-Key, gets a new value for every request. Raises BenchError when the server does not
    start, ends early, or answers anything else than success: the speed of refusals is not what is asked for.
    """
    with serving(command, port, ready_path, environment) as server:
        return measure(
            server, port, path, headers, bodies, name=name, connections=connections, seconds=seconds, unique_header=unique_header
        )


@contextmanager
def serving(command: Sequence[str], port: int, ready_path: str, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """A server on the first core, ready to answer, for as long as the body runs; its process id. Its output is kept for errors."""
    server_core, _ = _cores()
    with tempfile.TemporaryFile() as log:
        with _pinned(server_core):
            variables = {**os.environ, **(environment or {})}
            process = subprocess.Popen(
                list(command), env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _await_ready(process, port, ready_path, lambda: _last_words(log))
            yield process.pid
            if process.poll() is not None:
                raise BenchError(f"{command[0]} ended with {process.returncode} under load: {_last_words(log)}")
        finally:
            _end(process)


def measure(
    server: int,
    port: int,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    name: str,
    connections: int = CONNECTIONS,
    seconds: float = SECONDS,
    warm_up_seconds: float = WARM_UP_SECONDS,
    unique_header: str | None = None,
) -> Measured:
    """Load what `serving` started (its process id is `server`) from a client on the last core. Raises as `measure_service`."""
    ask = partial(_ask, name, port, path, headers, bodies, connections=connections, unique_header=unique_header)
    if warm_up_seconds:
        ask(seconds=warm_up_seconds)
    load_average, cpu_before = os.getloadavg()[0], _cpu_seconds(server)
    result = ask(seconds=seconds)
    requests, cpu_seconds = result["requests"], _cpu_seconds(server) - cpu_before
    return Measured(
        name=name,
        requests=requests,
        per_second=requests / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        server_cpu_ms=1000 * cpu_seconds / requests,
        connections=connections,
        load_average=load_average,
    )


def _ask(
    name: str,
    port: int,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    unique_header: str | None,
) -> dict[str, Any]:
    """A run of the load client as a process of its own; what it printed."""
    _, client_core = _cores()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bodies.jsonl").write_bytes(b"".join(body + b"\n" for body in bodies))
        (Path(folder) / "headers.json").write_text(json.dumps(dict(headers)), encoding="utf-8")
        command = [sys.executable, "-m", "training.load_client", HOST, str(port), path, f"{folder}/bodies.jsonl"]
        command += ["--headers", f"{folder}/headers.json", "--core", str(client_core), "--connections", str(connections)]
        command += ["--seconds", str(seconds)]
        command += ["--unique-header", unique_header] if unique_header else []
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise BenchError(f"{name}: the load client failed: {ran.stderr[-_LAST_WORDS:].strip()}")
    result: dict[str, Any] = json.loads(ran.stdout)
    refused = {status: count for status, count in result["statuses"].items() if not status.startswith("2")}
    if refused or result["errors"] or not result["requests"]:
        raise BenchError(f"{name}: expected only answers of success, found {result['errors']} errors and the statuses {result['statuses']}")
    return result


def ratio_rows(yardstick: Measured, ours: Sequence[Measured]) -> list[tuple[str, str]]:
    """Lines for `make bench`: each server of ours against the yardstick of the same run."""
    rows = []
    for one in ours:
        rows += [
            (f"{one.name} against {yardstick.name}: throughput ratio", f"{one.per_second / yardstick.per_second:.1f}"),
            ("the same: ratio of the 99th percentiles of the answer's time", f"{one.p99_ms / yardstick.p99_ms:.3f}"),
            ("the same: ratio of the server's processor time a request", f"{one.server_cpu_ms / yardstick.server_cpu_ms:.3f}"),
        ]
    return rows


def write_raw(out: Path, measured: Sequence[Measured]) -> None:
    """The numbers behind the ratios, which hold for this machine and this hour only."""
    out.parent.mkdir(parents=True, exist_ok=True)
    server_core, client_core = _cores()
    content = {"server_core": server_core, "client_core": client_core, "measured": [asdict(one) for one in measured]}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _cores() -> tuple[int, int]:
    """The server's core and the client's: the first and the last that we may use (the same where there is one)."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Run on one core, so that a process started here stays on it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_seconds(server: int) -> float:
    """Processor time so far of the server's process and of those that it started (its process group), from Linux's process table."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, group, *rest = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(group) == server:
            ticks += int(rest[8]) + int(rest[9])
    return ticks / os.sysconf("SC_CLK_TCK")


def _await_ready(process: subprocess.Popen[bytes], port: int, ready_path: str, last_words: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the server on port {port} ended with {process.returncode} before it was ready: {last_words()}")
        if _answers(port, ready_path):
            return
        time.sleep(0.05)
    raise BenchError(f"nothing answered {ready_path} on port {port} within {START_SECONDS:.0f} s: {last_words()}")


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-_LAST_WORDS:].decode(errors="replace").strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server and what it started; SIGKILL for what does not listen."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
