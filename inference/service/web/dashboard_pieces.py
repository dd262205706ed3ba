"""Reading much without being in anybody's way: short transactions whose size follows the time that they take. Knows events' numbers only.

A reader of SQLite keeps a writer from committing while it reads: so each piece is over in some milliseconds, also on a slow disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Row, Select, select

from inference.service.database import read
from inference.service.tables import events

_AIM_SECONDS: Final = 0.02
_LEAST, _FIRST, _MOST = 100, 1000, 4000

Result = TypeVar("Result")


class Pieces:
    """Runs reads on an engine. `size` is how many rows the next piece should look at."""

    def __init__(self, engine: Engine, size: int = _FIRST, most: int = _MOST) -> None:
        self._engine, self.size, self._most = engine, size, most

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """A read that is short by itself. Raises StorageError when the database cannot be read."""
        return read(self._engine, work)

    def run_sized(self, work: Callable[[Connection], Result]) -> Result:
        """A read of `size` rows: how long it takes decides how many the next one reads."""
        began = time.perf_counter()
        result = read(self._engine, work)
        fitting = self.size * _AIM_SECONDS / max(time.perf_counter() - began, 1e-6)
        self.size = int(min(max(fitting, min(_LEAST, self._most)), 2 * self.size, self._most))
        return result

    def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """All rows of a query that looks at `size` of them."""
        return self.run_sized(lambda connection: connection.execute(query).all())

    def number(self, query: Select[Any]) -> int:
        """What a query counts along an index."""
        return self.run(lambda connection: int(connection.execute(query).scalar_one()))

    def stretches(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The events from `first` to `last`, the newest first: those numbered above the first number given and up to the second."""
        high = last
        while high >= first:
            low = max(high - self.size, first - 1)
            yield low, high
            high = low


def first_sequence(connection: Connection, at_us: int, last: int) -> int:
    """The number of the first event at or after a moment, at most `last + 1`: found by halving, because numbers grow with time."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            select(events.c.sequence, events.c.at_us).where(events.c.sequence >= middle).order_by(events.c.sequence).limit(1)
        ).first()
        if row is None or row.at_us >= at_us:
            high = middle
        else:
            low = row.sequence + 1
    return low
