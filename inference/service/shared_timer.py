"""A time limit for many short waits, with one timer for all of them.

A timer for each request (`asyncio.timeout`) costs as much as all other guards together. This one looks once in a while
at the waits that are in progress, so a wait ends up to `every_seconds` late. It knows nothing of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Wait:
    __slots__ = ("deadline", "late", "task")

    def __init__(self, task: asyncio.Task[Any], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.late = False


class SharedTimer:
    """Ends waits at their deadlines."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._waits: set[_Wait] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def by(self, deadline: float, wait_for: Callable[[], Awaitable[Result]]) -> Result:
        """What `wait_for()` gives. Raises TimeoutError at `deadline`, a time of the running loop's clock."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None or loop.time() >= deadline:
            raise TimeoutError
        wait = _Wait(task, deadline)
        self._waits.add(wait)
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._every, self._look)
        try:
            return await wait_for()
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may have cancelled the task as well, and that one goes first.
            if wait.late and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._waits.discard(wait)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wait in self._waits:
            if wait.deadline <= now and not wait.late and wait.task.get_loop() is loop:
                wait.late = True
                wait.task.cancel()
        if self._waits:
            loop.call_later(self._every, self._look)
        else:
            self._loop = None
