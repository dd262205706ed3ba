"""Drives an HTTP service with many keep-alive connections, and says what came back and how fast.

Asyncio with httptools (and uvloop where it is installed), so that one core asks more than a service on another answers.
`python -m training.load_client --help` is the same as a process of its own. Knows nothing of what it asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import httptools
import numpy as np

CONNECTIONS = 32
TIMEOUT_SECONDS = 30.0
_PAUSE_AFTER_ERROR_SECONDS = 0.01  # a service that is down must not be asked in a tight loop
# What a connection that is lost, refused, silent or not HTTP raises.
_FAILURES = (OSError, TimeoutError, httptools.HttpParserError)

Result = TypeVar("Result")
Source = Sequence[bytes] | Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the place of its request in the order of asking, from 0, the status and the body."""

    place: int
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came back. `requests` were answered, with any status; `errors` were not (connection lost or refused, silence).

    Percentiles are of the answered requests' milliseconds, from the send to the answer's last byte; NaN without any.
    """

    requests: int
    seconds: float
    statuses: dict[int, int]
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answers: tuple[Answer, ...] = ()

    @property
    def per_second(self) -> float:
        """Answered requests a second."""
        return self.requests / self.seconds


def request_bytes(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, host: str = "127.0.0.1") -> bytes:
    """One request as it goes over the wire. The content type is JSON unless `headers` say otherwise."""
    named = {"Host": host, **({"Content-Type": "application/json"} if body else {}), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def run_load(
    host: str,
    port: int,
    requests: Source,
    *,
    connections: int = CONNECTIONS,
    seconds: float | None = None,
    count: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    keep_answers: bool = False,
) -> LoadResult:
    """Ask until `seconds` are over or `count` requests were made; a request that is out is waited for.

    `requests` are asked in turn, again from the first after the last; or it is a function of the place in the order
    of asking, whose None ends the run. A failed request is not repeated: who needs that looks at `answers`.
    """
    if seconds is None and count is None and not callable(requests):
        raise ValueError("a run over a fixed list of requests needs seconds or count, or it would never end")
    ends_at = None if seconds is None else time.perf_counter() + seconds
    load = _Load(requests, count, ends_at, keep_answers)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(connections):
            workers.create_task(_work(host, port, load, timeout_seconds))
    return load.result(time.perf_counter() - started)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """asyncio.run, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@dataclass(slots=True)
class _Load:
    """What all connections share: what to ask next, and what came back."""

    requests: Source
    count: int | None
    ends_at: float | None
    keep_answers: bool
    asked: int = 0
    errors: int = 0
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answers: list[Answer] = field(default_factory=list)

    def next(self) -> tuple[int, bytes] | None:
        """The next request with its place; None when the run is over."""
        place = self.asked
        if (self.count is not None and place >= self.count) or (self.ends_at is not None and time.perf_counter() >= self.ends_at):
            return None
        request = self.requests(place) if callable(self.requests) else self.requests[place % len(self.requests)]
        if request is None:
            return None
        self.asked += 1
        return place, request

    def add(self, place: int, status: int, body: bytes, seconds: float) -> None:
        """Note an answer."""
        self.seconds.append(seconds)
        self.statuses[status] += 1
        if self.keep_answers:
            self.answers.append(Answer(place, status, body))

    def result(self, seconds: float) -> LoadResult:
        """The summary, once all connections are done."""
        points = np.percentile(self.seconds, (50, 95, 99)) * 1000 if self.seconds else (float("nan"),) * 3
        p50, p95, p99 = (float(point) for point in points)
        statuses = dict(sorted(self.statuses.items()))
        return LoadResult(len(self.seconds), seconds, statuses, self.errors, p50, p95, p99, tuple(self.answers))


class _Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self.is_open = False

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; the status and body of its answer."""
        assert self._transport is not None
        self._waiting = self._loop.create_future()
        self._parts.clear()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, not the base class
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("closed before the answer was complete"))

    def on_body(self, body: bytes) -> None:
        """Called by the parser, as is the next."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # "100 Continue" and the like come before the answer
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((status, b"".join(self._parts)))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


async def _work(host: str, port: int, load: _Load, timeout_seconds: float) -> None:
    """One connection's share of the run; connects again after an error."""
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    while (item := load.next()) is not None:
        place, request = item
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_seconds):
                if connection is None or not connection.is_open:
                    _, connection = await loop.create_connection(_Connection, host, port)
                status, body = await connection.ask(request)
        except _FAILURES:
            load.errors += 1
            if connection is not None:
                connection.close()
            await asyncio.sleep(_PAUSE_AFTER_ERROR_SECONDS)
        else:
            load.add(place, status, body, time.perf_counter() - started)
    if connection is not None:
        connection.close()


def main() -> None:
    """Post the bodies of a file, one JSON a line, and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Post the bodies of a file, one JSON a line, in turn; print the result as JSON.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("bodies", type=Path, help="one JSON body a line")
    parser.add_argument("--headers", type=Path, help="a JSON object of headers (a file: a token is nobody's business in a process list)")
    parser.add_argument("--unique-header", help="the name of a header that is different for every request, as Idempotency-Key")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--core", type=int, help="run on this core alone")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    headers = json.loads(args.headers.read_text(encoding="utf-8")) if args.headers else {}
    bodies = [line for line in args.bodies.read_bytes().splitlines() if line]
    source = _posts(args.path, bodies, headers, args.unique_header, host=args.host)

    result = run(run_load(args.host, args.port, source, connections=args.connections, seconds=args.seconds))
    json.dump(asdict(result), sys.stdout)
    sys.stdout.write("\n")


def _posts(path: str, bodies: Sequence[bytes], headers: Mapping[str, str], unique_header: str | None, *, host: str) -> Source:
    requests = [request_bytes("POST", path, body, headers, host=host) for body in bodies]
    if unique_header is None:
        return requests
    run_id = os.urandom(8).hex()

    def request(place: int) -> bytes:
        first_line, _, rest = requests[place % len(requests)].partition(b"\r\n")
        return b"%s\r\n%s: %s-%d\r\n%s" % (first_line, unique_header.encode(), run_id.encode(), place, rest)

    return request


if __name__ == "__main__":
    main()
