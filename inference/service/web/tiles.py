"""How many open cases each level has: counted anew when that is cheap, a little old when the queue is long. Knows no page."""

from __future__ import annotations

import time
from dataclasses import dataclass

from inference.service.database import Database
from inference.service.parts import QueueCounts, count_queue
from inference.service.store import CLAIMED, WAITING

_LEAST_SECONDS = 1.0
_SHARE = 100  # counting may take one part in so many of the time


@dataclass(frozen=True, slots=True)
class Tile:
    """The open cases of one level: all, unclaimed, past their cap."""

    level: int
    count: int
    waiting: int
    late: int


class Tiles:
    """Counts by clinic (None: all of them), remembered for as long as counting them again would cost too much."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str | None, tuple[QueueCounts, float]] = {}

    async def read(self, clinic: str | None) -> list[Tile]:
        """The tiles, level 1 first."""
        now = time.monotonic()
        counts, good_until = self._known.get(clinic, (None, 0.0))
        if counts is None or now >= good_until:
            counts = await self._database.run(lambda unit: count_queue(unit, clinic))
            took = time.monotonic() - now
            self._known[clinic] = counts, now + max(_LEAST_SECONDS, _SHARE * took)
        levels = sorted({level for level, _ in counts.depth})
        return [
            Tile(
                level,
                counts.depth[level, WAITING] + counts.depth[level, CLAIMED],
                counts.depth[level, WAITING],
                counts.past_cap.get(level, 0),
            )
            for level in levels
        ]
