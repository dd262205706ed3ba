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
    """One server under load. Every request was answered with success; `load_average` is the machine's just before."""

    name: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
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
    with serving(command, port, ready_path, environment):
        return measure(port, path, headers, bodies, name=name, connections=connections, seconds=seconds, unique_header=unique_header)


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
    port: int,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    name: str,
    connections: int = CONNECTIONS,
    seconds: float = SECONDS,
    unique_header: str | None = None,
) -> Measured:
    """Load a server that is already there, after a warm-up, from a client on the last core. Raises as `measure_service`."""
    _, client_core = _cores()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bodies.jsonl").write_bytes(b"".join(body + b"\n" for body in bodies))
        (Path(folder) / "headers.json").write_text(json.dumps(dict(headers)), encoding="utf-8")
        command = [sys.executable, "-m", "training.load_client", HOST, str(port), path, f"{folder}/bodies.jsonl"]
        command += ["--headers", f"{folder}/headers.json", "--core", str(client_core), "--connections", str(connections)]
        command += ["--seconds", str(seconds), "--warm-up-seconds", str(WARM_UP_SECONDS)]
        command += ["--unique-header", unique_header] if unique_header else []
        load_average = os.getloadavg()[0]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise BenchError(f"{name}: the load client failed: {ran.stderr[-_LAST_WORDS:].strip()}")
    result = json.loads(ran.stdout)
    refused = {status: count for status, count in result["statuses"].items() if not status.startswith("2")}
    if refused or result["errors"] or not result["requests"]:
        raise BenchError(f"{name}: expected only answers of success, found {result['errors']} errors and the statuses {result['statuses']}")
    per_second = result["requests"] / result["seconds"]
    return Measured(name, result["requests"], per_second, result["p50_ms"], result["p99_ms"], connections, load_average)


def ratio_rows(yardstick: Measured, ours: Sequence[Measured]) -> list[tuple[str, str]]:
    """Lines for `make bench`: each server of ours against the yardstick of the same run."""
    rows = []
    for one in ours:
        rows += [
            (f"{one.name} against {yardstick.name}: throughput ratio", f"{one.per_second / yardstick.per_second:.1f}"),
            ("the same: ratio of the 99th percentiles of the answer's time", f"{one.p99_ms / yardstick.p99_ms:.3f}"),
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
