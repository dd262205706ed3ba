"""A disk that is full or read-only, a database that is gone, stuck or locked: 503 meanwhile, no false 201, and it recovers by itself."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from hostile_photos import encoded
from service_app import CASE
from sqlalchemy.engine import make_url

from reliability.live_service import LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.posting import Posted, case_of, post_all
from reliability.stored import check_stored

GONE_SECONDS = 30.0
_CLIENTS = 8
_PATIENCE_SECONDS = 20.0  # longer than the service lets anybody wait for its database
_RECOVERY_SECONDS = 45.0
_PHOTO_EVERY = 5
_PAUSE_SECONDS = 0.05
_DISK_BYTES = 32 * 1024 * 1024
_ALLOWED = {201, 503}

Fault = Callable[[], None]


@dataclass
class _Tried:
    """Posts while something is wrong: each number once, with its key."""

    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: dict[int, str] = field(default_factory=dict)
    unanswered: int = 0
    asked: int = 0


def run_full_disk(seconds: float, ground: Ground) -> Outcome:
    """Files cannot grow for `seconds`; where mounting is allowed, also a small disk that is really full."""
    outcome = Outcome("full disk")
    with live_service(ground.folder, ground.database_url) as service:
        _try(outcome, service, "no file may grow", seconds, lambda: service.limit_files(0), lambda: service.limit_files(None))
    with _small_disk(ground.folder / "disk") as disk:
        if disk is None:
            outcome.done["small disk"] = "not done: needs the right to mount"
            return outcome
        filler = disk / "filler"
        with live_service(disk, f"sqlite:///{disk}/nabz.db") as service:
            _try(outcome, service, "full disk", seconds, lambda: _fill(filler), filler.unlink)
    return outcome


def run_read_only(seconds: float, ground: Ground) -> Outcome:
    """All folders of the service are read-only for `seconds`."""
    outcome = Outcome("read-only disk")
    folder = ground.folder / "service"
    with live_service(folder, f"sqlite:///{folder}/nabz.db", no_override=True) as service:
        _try(outcome, service, "read-only", seconds, lambda: _set_modes(folder, 0o500), lambda: _set_modes(folder, 0o700))
    return outcome


def run_gone(seconds: float, ground: Ground) -> Outcome:
    """The database is gone for `seconds`: PostgreSQL is stopped, then (not in the short form) frozen; SQLite's file is locked by another program."""
    outcome = Outcome("database gone")
    with live_service(ground.folder, ground.database_url) as service:
        if ground.postgres:
            _try(outcome, service, "stopped", seconds, ground.postgres.stop, ground.postgres.start, is_gone=True)
            if ground.is_timed:  # takes as long as the service lets anybody wait, and more
                _try(outcome, service, "frozen", seconds, ground.postgres.pause, ground.postgres.resume, is_gone=True)
        else:
            locker = _Locker(Path(str(make_url(ground.database_url).database)))
            _try(outcome, service, "locked", seconds, locker.lock, locker.unlock, is_gone=True)
    return outcome


def _try(outcome: Outcome, service: LiveService, kind: str, seconds: float, begin: Fault, end: Fault, *, is_gone: bool = False) -> None:
    """Post before, during and after; what was refused is asked again with the same key, and nothing may be there twice."""
    before, tried, pid = Posted(), _Tried(), service.pid
    asyncio.run(post_all(service, range(-40, 0), before, make=lambda n: case_of(1000 - n)))
    begin()
    try:
        asyncio.run(_post_meanwhile(service, kind, seconds, tried))
        status = service.status()
        outcome.require(not is_gone or status == "no database", f"{kind}: /health/ready says {status}, expected no database")
    finally:
        end()
    took = asyncio.run(_recover(service, kind, tried))
    outcome.require(tried.statuses.keys() <= _ALLOWED, f"{kind}: statuses {dict(tried.statuses)}, expected 201 and 503 alone")
    outcome.require(tried.statuses[503] > 0, f"{kind}: nothing was refused, so the fault was not felt: {dict(tried.statuses)}")
    outcome.require(tried.unanswered == 0, f"{kind}: {tried.unanswered} requests got no answer within {_PATIENCE_SECONDS:.0f} s")
    outcome.require(took is not None, f"{kind}: not every case could be stored within {_RECOVERY_SECONDS:.0f} s after the fault")
    outcome.require(service.is_alive and service.pid == pid, f"{kind}: the process ended")
    check_stored(outcome, service, {**before.acknowledged, **tried.acknowledged})
    outcome.done |= {f"{kind}: refused": tried.statuses[503], f"{kind}: everything stored after, s": took and round(took, 1)}


async def _post_meanwhile(service: LiveService, kind: str, seconds: float, tried: _Tried) -> None:
    ends = time.monotonic() + seconds
    headers = service.token("clinic", "mithi")

    async def one_client(client: httpx.AsyncClient) -> None:
        while time.monotonic() < ends:
            tried.asked += 1
            await _post(client, headers, kind, tried.asked, tried)
            await asyncio.sleep(_PAUSE_SECONDS)

    async with service.client(_CLIENTS, _PATIENCE_SECONDS) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(one_client(client))


async def _recover(service: LiveService, kind: str, tried: _Tried) -> float | None:
    """The seconds until everything that was refused has been stored; None when it is not."""
    began, headers = time.monotonic(), service.token("clinic", "mithi")
    async with service.client(_CLIENTS, _PATIENCE_SECONDS) as client:
        while missing := [n for n in range(1, tried.asked + 1) if n not in tried.acknowledged]:
            if time.monotonic() - began > _RECOVERY_SECONDS:
                return None
            await asyncio.sleep(_PAUSE_SECONDS)
            for start in range(0, len(missing), _CLIENTS):
                await asyncio.gather(*(_post(client, headers, kind, n, tried) for n in missing[start : start + _CLIENTS]))
    return time.monotonic() - began


async def _post(client: httpx.AsyncClient, headers: dict[str, str], kind: str, number: int, tried: _Tried) -> None:
    """One case, every fifth with a photo, which must be written to the disk before the case is."""
    case, key = {**CASE, "case_id": f"{kind}-{number}"}, {"Idempotency-Key": f"{kind}-{number}".replace(" ", "-")}
    try:
        if number % _PHOTO_EVERY:
            answer = await client.post("/v1/referrals", json=case, headers={**headers, **key})
        else:
            form = {"case": (None, httpx.Request("POST", client.base_url, json=case).content, "application/json")}
            files = {**form, "photos": (f"{number}.jpg", _photo(number), "image/jpeg")}
            answer = await client.post("/v1/referrals", files=files, headers={**headers, **key})
    except httpx.HTTPError:
        tried.unanswered += 1
        return
    tried.statuses[answer.status_code] += 1
    if answer.status_code == 201:
        tried.acknowledged[number] = answer.json()["id"]


def _photo(number: int) -> bytes:
    from PIL import Image

    return encoded("JPEG", Image.new("RGB", (128, 96), (number % 256, number // 256 % 256, 90)))


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own in memory; None where we may not mount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(filler: Path) -> None:
    """Write until nothing more fits."""
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def _set_modes(folder: Path, mode: int) -> None:
    for one in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        one.chmod(mode)


class _Locker:
    """Another program that has the SQLite file open and keeps everybody out."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lock(self) -> None:
        self._connection = sqlite3.connect(self._file, timeout=10, isolation_level=None)
        self._connection.execute("BEGIN EXCLUSIVE")

    def unlock(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()
