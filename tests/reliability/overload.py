"""Five times as much as the service can take: it says so (429, 503), keeps what it accepted, and its memory stays bounded."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from reliability.cases import cases
from reliability.live_service import HOST, LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.stored import check_stored
from training.load_client import _FAILURES, _Connection, request_bytes, run, run_load

SECONDS = 180.0
TIMES = 5
BOUND_MEGABYTES = 400.0
_CONNECTIONS = 800  # more than the service takes in at a time
_CAPACITY_SECONDS, _PATIENCE_SECONDS = 0.1, 20.0
_GIVES_UP_SECONDS = 10.0  # an arrival that finds no free connection for so long goes away
_SAMPLE_SECONDS = 0.25
_ALLOWED = {201, 429, 503}
_ID = re.compile(rb'"id":"(r-[0-9a-f]{32})"')


@dataclass
class _Load:
    """What was offered and what came back."""

    offered: int = 0
    gave_up: int = 0
    lost_connections: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    knocks: list[float] = field(default_factory=list)


def run_overload(seconds: float, ground: Ground) -> Outcome:
    """Measure the capacity, then offer `TIMES` as much for `seconds`."""
    outcome = Outcome("overload")
    with live_service(ground.folder, ground.database_url) as service:
        posts = _posts(service)
        with sampled_memory(service) as memory:
            measured = run(run_load(HOST, service.port, posts, seconds=max(2.0, _CAPACITY_SECONDS * seconds), keep_answers=True))
            capacity = measured.statuses.get(201, 0) / measured.seconds
            calm = max(memory)
            load = _Load()
            # Two seconds measure a fresh service too low now and then: no fewer come than connections stand.
            run(_offer(service.port, posts, max(TIMES * capacity, _CONNECTIONS), seconds, load))
        outcome.require(service.is_alive, "the process ended")
        after = service.wait_for("ready", seconds=15)
        outcome.require(load.statuses.keys() <= _ALLOWED, f"statuses {dict(load.statuses)}, expected 201, 429 and 503 alone")
        outcome.require(
            not load.lost_connections, f"{load.lost_connections} connections were lost, or silent for {_PATIENCE_SECONDS:.0f} s"
        )
        outcome.require(load.statuses[503] + load.statuses[429] > 0, "nothing was refused, so it was no overload")
        outcome.require(max(memory) <= BOUND_MEGABYTES, f"it held {max(memory):.0f} MB, expected at most {BOUND_MEGABYTES:.0f}")
        ids = [id_.decode() for answer in measured.answers for id_ in _ID.findall(answer.body)[:1]] + load.acknowledged
        check_stored(outcome, service, dict(enumerate(ids)))
        slowest = sorted(load.seconds)[int(len(load.seconds) * 0.99)] if load.seconds else 0.0
        outcome.done |= {
            "capacity a second": round(capacity), "offered": load.offered, "gave up": load.gave_up, **dict(sorted(load.statuses.items())),
            "p99 of any answer, s": round(slowest, 2), "slowest sign of life, s": round(max(load.knocks, default=0.0), 2),
            "MB before": round(calm), "MB at most": round(max(memory)), "ready after, s": round(after, 1),
        }  # fmt: skip
    return outcome


def _posts(service: LiveService) -> list[bytes]:
    headers = service.token("clinic", "mithi")
    return [
        request_bytes("POST", "/v1/referrals", json.dumps({k: v for k, v in case.items() if k != "case_id"}).encode(), headers)
        for case in cases()
    ]


async def _offer(port: int, posts: list[bytes], rate: float, seconds: float, load: _Load) -> None:
    """Arrivals come at `rate` a second, whatever becomes of those before them; their connections stand before the rush begins."""
    waiting: deque[tuple[float, bytes]] = deque()
    came, is_over = asyncio.Semaphore(0), False
    loop = asyncio.get_running_loop()
    standing = [(await loop.create_connection(_Connection, HOST, port))[1] for _ in range(_CONNECTIONS)]

    async def one_connection(connection: _Connection | None) -> None:
        while True:
            await came.acquire()
            if is_over and not waiting:
                break
            since, post = waiting.popleft()
            if time.monotonic() - since > _GIVES_UP_SECONDS:
                load.gave_up += 1
                continue
            connection = await _ask(port, connection, post, load)
        if connection is not None:
            connection.close()

    async with asyncio.TaskGroup() as tasks:
        for one in standing:
            tasks.create_task(one_connection(one))
        tasks.create_task(_knock(port, seconds, load))
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            while load.offered < passed * rate:
                waiting.append((time.monotonic(), posts[load.offered % len(posts)]))
                load.offered += 1
                came.release()
            await asyncio.sleep(0.005)
        is_over = True
        load.gave_up += len(waiting)
        waiting.clear()
        for _ in range(_CONNECTIONS + load.offered):
            came.release()


async def _knock(port: int, seconds: float, load: _Load) -> None:
    """Ask whether it is alive, over a new connection each time, as a supervisor does."""
    ends = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=60, trust_env=False) as client:
        while (began := time.monotonic()) < ends:
            answer = await client.get("/health/live", headers={"Connection": "close"})
            load.knocks.append(time.monotonic() - began if answer.status_code == 200 else 60.0)
            await asyncio.sleep(0.5)


async def _ask(port: int, connection: _Connection | None, post: bytes, load: _Load) -> _Connection | None:
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            if connection is None or not connection.is_open:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, HOST, port)
            status, body = await connection.ask(post)
    except _FAILURES:
        load.lost_connections += 1
        if connection is not None:
            connection.close()
        return None
    load.statuses[status] += 1
    load.seconds.append(time.monotonic() - began)
    if status == 201:
        load.acknowledged += [id_.decode() for id_ in _ID.findall(body)[:1]]
    return connection


@contextmanager
def sampled_memory(service: LiveService, seconds: float = _SAMPLE_SECONDS) -> Iterator[list[float]]:
    """The megabytes that the service holds, again and again while the body runs."""
    samples, is_over = [service.resident_megabytes()], threading.Event()

    def sample() -> None:
        while not is_over.wait(seconds):
            if service.is_alive:
                samples.append(service.resident_megabytes())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()
