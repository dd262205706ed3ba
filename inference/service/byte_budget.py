"""How many bytes of uploads the process may hold at a time: a place is taken before the first byte is read. Knows no request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.errors import OverloadedError


class ByteBudget:
    """So many bytes, given out in the order of asking. Belongs to one event loop at a time."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._most = self.free = most
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Hold so many bytes of the budget. Raises OverloadedError when they do not become free in time."""
        amount = min(amount, self._most)
        await self._take(amount)
        try:
            yield
        finally:
            self._give(amount)

    async def _take(self, amount: int) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, place))
        self._give(0)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await place
        except (TimeoutError, asyncio.CancelledError) as error:
            was_given = place.done() and not place.cancelled()
            self._give(amount if was_given else 0)
            if isinstance(error, TimeoutError):
                raise OverloadedError("too many photos are being received at this moment: send them again", 5) from error
            raise

    def _give(self, amount: int) -> None:
        """Take so many back, and serve those that wait, the first one first."""
        self.free += amount
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self.free):
            wanted, place = self._waiting.popleft()
            if not place.done():
                self.free -= wanted
                place.set_result(None)
