"""A service that is asked to stop: what is in progress ends, what is new is sent away.

It counts requests and knows nothing else about them. Event streams are not waited for: they end by `until_begun`.
"""

from __future__ import annotations

import asyncio


class Drain:
    """Counts the requests in flight, and waits for their end. Belongs to one event loop."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.begun = False
        self._begun = asyncio.Event()
        self._empty = asyncio.Event()

    def enter(self) -> None:
        """A request began."""
        self.in_flight += 1

    def leave(self) -> None:
        """A request ended, or became an event stream."""
        self.in_flight -= 1
        if self.begun and self.in_flight == 0:
            self._empty.set()

    def begin(self) -> None:
        """From now on new requests are sent away; may be called again, and from a signal handler of the loop."""
        self.begun = True
        self._begun.set()
        if self.in_flight == 0:
            self._empty.set()

    async def until_begun(self) -> None:
        """Returns when the service has been asked to stop; an event stream ends then."""
        await self._begun.wait()

    async def wait(self, seconds: float) -> bool:
        """Whether all requests in flight have ended within so many seconds of this call."""
        if not self.begun:
            self.begin()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
