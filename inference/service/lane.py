"""A lane: one worker thread that does what waits in batches, a time limit, and a breaker for when it does not answer.

All state belongs to the event loop's thread: a batch goes over in one step and comes back in one step, without locks. A
worker that takes too long cannot be stopped, so it is left behind; until a probe answers in a new one, nothing more is
accepted. Knows no cases and no models.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from inference.errors import OverloadedError

LOST_LIMIT = 4  # workers that may hang at a time; the breaker stays open until one of them comes back
_POLL_SECONDS = 0.005

Item = TypeVar("Item")
Result = TypeVar("Result")
_log = logging.getLogger("nabz.service")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how long. Times in seconds.

    `running_seconds`: the longest that one batch may run, besides what the lane allows an item; `waiting_seconds`: the
    longest from a request to its answer; `rest_seconds`: how long the breaker rests before it probes.
    """

    batch: int
    queue: int
    running_seconds: float
    waiting_seconds: float
    rest_seconds: float


@dataclass(slots=True)
class _Job(Generic[Item, Result]):
    item: Item
    since: float
    answer: asyncio.Future[Result | None]


@dataclass(slots=True)
class _Batch(Generic[Item, Result]):
    jobs: list[_Job[Item, Result]]
    due: float
    is_probe: bool


class Lane(Generic[Item, Result]):
    """`work` takes the items of a batch and gives as many results; it runs in the worker's thread."""

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        limits: Limits,
        probe: Item,
        allowance: Callable[[Item], float] = lambda _: 0.0,
    ) -> None:
        """`probe` is done to see whether a new worker answers; `allowance` is the time that an item may take besides."""
        self.name = name
        self._work, self._limits, self._probe_item, self._allowance = work, limits, probe, allowance
        self._shortest = min(limits.running_seconds, limits.waiting_seconds)
        self._waiting: deque[_Job[Item, Result]] = deque()
        self._running: _Batch[Item, Result] | None = None
        self._worker: _Worker[Item, Result] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.TimerHandle | None = None
        self._is_due = self._is_stopped = False
        self._lost = 0
        self.is_open = False  # in the breaker's sense: nothing passes

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._running is not None or bool(self._waiting)

    def put(self, item: Item, *, must: bool = False) -> asyncio.Future[Result | None]:
        """The result, or None when it did not come in time or the breaker is open. Cancel it freely.

        Raises OverloadedError when the queue is full, unless it `must` be taken.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result | None] = loop.create_future()
        if self.is_open:
            answer.set_result(None)
            return answer
        if len(self._waiting) >= self._limits.queue and not must:
            raise OverloadedError(f"{self._limits.queue} cases wait for {self.name} already: send this one again in a second")
        self._waiting.append(_Job(item, loop.time(), answer))
        if not self._is_due and self._running is None:
            self._is_due = True
            loop.call_soon(self._dispatch)  # what else arrives in this turn of the loop goes into the same batch
        if self._timer is None:
            self._timer = loop.call_later(self._shortest, self._check)
        return answer

    async def stop(self) -> None:
        """Wait for what runs and waits, at most as long as that may take; then let the worker go."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.waiting_seconds + self._limits.running_seconds
        while self.is_busy and loop.time() < end:
            await asyncio.sleep(_POLL_SECONDS)
        self.is_open = self._is_stopped = True
        for timer in (self._timer, self._probing):
            if timer is not None:
                timer.cancel()
        self._fail(self._running.jobs if self._running else ())
        self._fail(self._waiting)
        self._waiting.clear()
        if self._worker is not None:
            self._worker.inbox.put(None)
            self._worker = None

    def renew(self) -> None:
        """The work is done by something new from now on: forget the workers that hang, and probe at once."""
        self._lost = 0
        if self.is_open:
            self._schedule_probe(0.0)

    def _dispatch(self) -> None:
        self._is_due = False
        if self._running is not None or self.is_open:
            return
        jobs: list[_Job[Item, Result]] = []
        while self._waiting and len(jobs) < self._limits.batch:
            job = self._waiting.popleft()
            if not job.answer.done():  # else nobody waits for it any more
                jobs.append(job)
        if jobs:
            self._hand_over(jobs, is_probe=False)

    def _hand_over(self, jobs: list[_Job[Item, Result]], *, is_probe: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = _Worker(self.name, self._work, loop, self._finished)
            self._worker.start()
        due = loop.time() + self._limits.running_seconds + sum(self._allowance(job.item) for job in jobs)
        self._running = _Batch(jobs, due, is_probe)
        self._worker.inbox.put(self._running)

    def _finished(self, worker: _Worker[Item, Result], batch: _Batch[Item, Result], results: Sequence[Result] | None) -> None:
        if worker is not self._worker:  # one that was left behind came back after all
            worker.inbox.put(None)
            self._lost = max(0, self._lost - 1)
            if self.is_open:
                self._schedule_probe(0.0)
            return
        self._running = None
        if results is None:
            self._fail(batch.jobs)
        else:
            for job, result in zip(batch.jobs, results, strict=True):
                if not job.answer.done():
                    job.answer.set_result(result)
        if batch.is_probe and results is not None:
            self.is_open = False
            _log.warning("%s: the worker answers again", self.name)
        elif batch.is_probe:
            self._schedule_probe(self._limits.rest_seconds)
        self._dispatch()

    def _check(self) -> None:
        """Give up a batch that runs too long, and answer those who have waited too long."""
        loop, limits = asyncio.get_running_loop(), self._limits
        now, self._timer = loop.time(), None
        if self._running and self._running.due <= now:
            self._give_up()
        late = now - limits.waiting_seconds
        if self._running:
            self._fail([job for job in self._running.jobs if job.since <= late])
        while self._waiting and self._waiting[0].since <= late:
            self._fail([self._waiting.popleft()])
        due = [now + self._shortest] if self.is_busy else []
        if self._running:
            due.append(self._running.due)
            due += [job.since + limits.waiting_seconds for job in self._running.jobs if not job.answer.done()][:1]
        if self._waiting:
            due.append(self._waiting[0].since + limits.waiting_seconds)
        if due:
            self._timer = loop.call_at(min(due), self._check)

    def _give_up(self) -> None:
        batch, self._running, self._worker = self._running, None, None
        self._lost += 1
        self.is_open = True
        _log.warning("%s: no answer in %.1f s; the worker is left behind (%d hang)", self.name, self._limits.running_seconds, self._lost)
        self._fail(batch.jobs if batch else ())
        self._fail(self._waiting)
        self._waiting.clear()
        self._schedule_probe(self._limits.rest_seconds)

    def _schedule_probe(self, seconds: float) -> None:
        if self._probing is not None:
            self._probing.cancel()
        if not self._is_stopped:
            self._probing = asyncio.get_running_loop().call_later(seconds, self._probe)

    def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        self._probing = None
        if self._running is not None:
            return  # a probe is on its way
        if self._lost >= LOST_LIMIT:
            self._schedule_probe(self._limits.rest_seconds)
            return
        self._hand_over([_Job(self._probe_item, loop.time(), loop.create_future())], is_probe=True)
        if self._timer is None:
            self._timer = loop.call_later(self._shortest, self._check)

    @staticmethod
    def _fail(jobs: Sequence[_Job[Item, Result]] | deque[_Job[Item, Result]]) -> None:
        for job in jobs:
            if not job.answer.done():
                job.answer.set_result(None)


class _Worker(threading.Thread, Generic[Item, Result]):
    """Does one batch after the other. A daemon: one that hangs must not keep the process from ending."""

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[_Worker[Item, Result], _Batch[Item, Result], Sequence[Result] | None], None],
    ) -> None:
        super().__init__(name=f"nabz-{name}", daemon=True)
        self._work, self._loop, self._finished = work, loop, finished
        self.inbox: SimpleQueue[_Batch[Item, Result] | None] = SimpleQueue()

    def run(self) -> None:
        while (batch := self.inbox.get()) is not None:
            results: Sequence[Result] | None
            try:
                results = self._work([job.item for job in batch.jobs])
                if len(results) != len(batch.jobs):
                    _log.error("%s: %d results for %d items: none is used", self.name, len(results), len(batch.jobs))
                    results = None
            except Exception as error:  # noqa: BLE001 (whatever it is, those who wait get an answer)
                _log.error("%s: the work failed with %s", self.name, type(error).__name__)  # no message: it may hold a patient's words
                results = None
            try:
                self._loop.call_soon_threadsafe(self._finished, self, batch, results)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits
                return
