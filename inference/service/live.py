"""Live updates: the events of the database, in order, to whoever listens. A listener that comes back resumes where it stopped.

Events name referrals, states and levels, nothing of the patient's. Knows no HTTP framing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from inference.errors import BusyError, OverloadedError
from inference.service.callers import Who
from inference.service.database import Database, Unit
from inference.service.referrals import own_clinic
from inference.service.tables import events, from_us

_PAGE = 200
_POLL_SECONDS = 2.0  # other processes commit too, and cannot wake this one
_PAUSE_SECONDS = 0.2  # between two looks, so that many listeners do not keep the database from its work
_MOST_LISTENERS, _MOST_OF_ONE = 200, 5
_LONGEST_SECONDS = 15 * 60  # then a listener must come back, with a token that is still good


@dataclass(frozen=True, slots=True)
class Update:
    """One event; `sequence` is what a listener resumes from."""

    sequence: int
    kind: str
    data: dict[str, Any]


class LiveUpdates:
    """Wakes listeners after commits. One per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._listeners = Counter[str]()  # by who listens
        self.closing = False

    def start(self) -> None:
        """Begin to be told of commits; call it within the event loop."""
        self._loop = asyncio.get_running_loop()
        self._database.on_commit(self._committed)

    def close(self) -> None:
        """End every listener, so that the service can stop."""
        self.closing = True
        self._notify()

    async def listen(self, who: Who, after: int | None) -> AsyncGenerator[Update | int, None]:
        """Events after sequence `after` (None: from now on) that `who` may see; now and then, as a sign of life, the sequence to
        resume from. Ends after a quarter of an hour.

        Raises, before anything else, OverloadedError when too many listen and BusyError when `who` does too often.
        """
        self._take_place(who)
        try:
            clock, clinic = asyncio.get_running_loop().time, own_clinic(who)
            ends = clock() + _LONGEST_SECONDS
            last = after if after is not None else await self._database.run(_newest)
            while not self.closing and clock() < ends:
                wake = self._wake
                newest, rows = await self._database.run(lambda unit, last=last: _next(unit, last, clinic))  # type: ignore[misc]
                for row in rows:
                    last = row.sequence
                    yield Update(row.sequence, row.kind, described(row))
                    if clock() >= ends:  # who reads slowly must not stay longer for it
                        return
                if len(rows) < _PAGE:
                    last = max(last, newest)  # a clinic's next look need not pass over the others' events again
                    yield last
                    await asyncio.sleep(_PAUSE_SECONDS)
                    await self._sleep(wake)
        finally:
            self._listeners[who.subject] -= 1
            self._listeners += Counter()  # forgets those that do not listen any more

    def _take_place(self, who: Who) -> None:
        if self._listeners[who.subject] >= _MOST_OF_ONE:
            raise BusyError(f"you listen to live updates {_MOST_OF_ONE} times already: end one of them first", 30)
        if self._listeners.total() >= _MOST_LISTENERS:
            raise OverloadedError("too many listen to live updates: read the worklist again from time to time", 30)
        self._listeners[who.subject] += 1

    async def _sleep(self, wake: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await wake.wait()

    def _committed(self) -> None:
        if self._listeners and self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        wake, self._wake = self._wake, asyncio.Event()
        wake.set()


def described(row: Row[Any]) -> dict[str, Any]:
    """An event as it is sent outside."""
    return {
        "sequence": row.sequence, "at": from_us(row.at_us).isoformat(), "kind": row.kind, "referral_id": row.referral_id,
        "level_before": row.level_before, "level": row.level, "state": row.state, "specialty": row.specialty,
        "district": row.district, "clinic": row.clinic, "revision": row.revision,
    }  # fmt: skip


def _newest(unit: Unit) -> int:
    return int(unit.connection.execute(select(func.coalesce(func.max(events.c.sequence), 0))).scalar_one())


def _next(unit: Unit, after: int, clinic: str | None) -> tuple[int, list[Row[Any]]]:
    """The newest event's sequence, and the next events up to it."""
    newest = _newest(unit)
    query = select(events).where(events.c.sequence > after, events.c.sequence <= newest)
    if clinic is not None:
        query = query.where(events.c.clinic == clinic)
    return newest, list(unit.connection.execute(query.order_by(events.c.sequence).limit(_PAGE)))
