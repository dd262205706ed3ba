"""The orders that `nabz simulate` compares: given the waiting cases and the time, who is next.

- fifo       by arrival.
- strict     by level, then arrival.
- weighted   by score = points of the level + points per hour x hours waited, the highest first; the sum of points for
             urgency and points for waiting with which public waiting lists and ticket queues are commonly run. The points
             are the scenario's; they stand for no particular service.
- accumulating  by priority = rate of the level x time waited, the highest first: an accumulating priority queue (Stanford,
             Taylor & Ziedins 2014, "Waiting time distributions in the accumulating priority queue", Queueing Systems 77).
- nabz       `inference.queue.order_key` itself: the level first; inside a level, cases past their cap, then by due time.

All but fifo go by the same level, which the AI and the rule floor gave; only nabz uses the risk too, as its policy says.
Cases of the scenario's interrupting levels come first under every order. An order knows what the queue may know of a
case (its arrival, the level and risk it was given), never its true level, its service time or other cases' futures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Protocol

from inference.policy import LEVELS, Policy
from inference.queue import Waiting, cap_at, due_at, order_key
from inference.service.simulation_arrivals import Cohort
from inference.service.simulation_scenario import Scenario

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # any moment does: only differences count


class Order(Protocol):
    """A queue of case numbers. `preempts` is the class that counts where a more urgent case may stop a reader's work."""

    def put(self, case: int) -> None: ...  # noqa: D102
    def take(self, now_minutes: float) -> int | None: ...  # noqa: D102
    def preempts(self, case: int) -> int: ...  # noqa: D102


class FixedOrder:
    """An order whose keys never change with time: a heap. The smallest (class, key) is next; `classes` is what preempts."""

    def __init__(self, classes: list[int], keys: list[float]) -> None:
        self._classes, self._keys = classes, keys
        self._heap: list[tuple[int, float, int]] = []

    def put(self, case: int) -> None:
        """Let a case wait."""
        heappush(self._heap, (self._classes[case], self._keys[case], case))

    def take(self, now_minutes: float) -> int | None:  # noqa: ARG002
        """The next case, or None when nobody waits."""
        return heappop(self._heap)[2] if self._heap else None

    def preempts(self, case: int) -> int:
        """The smaller, the more urgent."""
        return self._classes[case]


class AccumulatingOrder:
    """Priority grows with the time waited, at the rate of the level. Within a level the first to arrive is next."""

    def __init__(self, cohort: Cohort, rates: Mapping[int, float]) -> None:
        self._arrival: list[float] = cohort.arrival_minutes.tolist()
        self._lane = _lanes(cohort)
        self._rates = {0: float("inf"), **rates}
        self._waiting: dict[int, list[tuple[float, int]]] = {lane: [] for lane in (0, *LEVELS)}

    def put(self, case: int) -> None:
        """Let a case wait."""
        heappush(self._waiting[self._lane[case]], (self._arrival[case], case))

    def take(self, now_minutes: float) -> int | None:
        """The next case, or None when nobody waits."""
        if self._waiting[0]:
            return heappop(self._waiting[0])[1]
        best, most = None, -1.0
        for level in LEVELS:
            waiting = self._waiting[level]
            if waiting and (priority := self._rates[level] * (now_minutes - waiting[0][0])) > most:
                best, most = waiting, priority
        return heappop(best)[1] if best else None

    def preempts(self, case: int) -> int:
        """Only interrupting cases stop a reader: a growing priority has no class."""
        return min(self._lane[case], 1)


class NabzOrder:
    """The order of `inference.queue`, by its own key.

    Within a level the next case is either the one whose cap ends first (if that has passed) or the one that is due first
    (if none has), so these two alone need the key that depends on the time: a test compares this with sorting everybody.
    """

    def __init__(self, cohort: Cohort, policy: Policy) -> None:
        self._policy = policy
        self._lane = _lanes(cohort)
        self._cases = [
            Waiting(str(case), level, _EPOCH + timedelta(minutes=arrival), risk, case)
            for case, (level, arrival, risk) in enumerate(
                zip(cohort.level.tolist(), cohort.arrival_minutes.tolist(), cohort.risk.tolist(), strict=True)
            )
        ]
        self._by_cap: dict[int, list[tuple[datetime, float, int]]] = {lane: [] for lane in (0, *LEVELS)}
        self._by_due: dict[int, list[tuple[datetime, float, int]]] = {lane: [] for lane in (0, *LEVELS)}
        self._waits = [False] * len(self._cases)
        self._count = dict.fromkeys((0, *LEVELS), 0)  # waiting in each lane; the heaps also hold cases that have gone

    def put(self, case: int) -> None:
        """Let a case wait."""
        lane, waiting = self._lane[case], self._cases[case]
        heappush(self._by_cap[lane], (cap_at(waiting, self._policy), -waiting.risk, case))
        heappush(self._by_due[lane], (due_at(waiting, self._policy), -waiting.risk, case))
        self._waits[case] = True
        self._count[lane] += 1

    def take(self, now_minutes: float) -> int | None:
        """The next case, or None when nobody waits."""
        for lane, count in self._count.items():
            if count:
                self._count[lane] -= 1
                case = self._first(lane, now_minutes)
                self._waits[case] = False
                return case
        return None

    def preempts(self, case: int) -> int:
        """The level; interrupting cases before all."""
        return self._lane[case]

    def _first(self, lane: int, now_minutes: float) -> int:
        first_capped, first_due = self._head(self._by_cap[lane]), self._head(self._by_due[lane])
        if first_capped == first_due:
            return first_due
        now = _EPOCH + timedelta(minutes=now_minutes)
        return min(first_capped, first_due, key=lambda case: order_key(self._cases[case], self._policy, now))

    def _head(self, heap: list[tuple[datetime, float, int]]) -> int:
        while not self._waits[heap[0][2]]:
            heappop(heap)  # it was taken through the other heap
        return heap[0][2]


def _lanes(cohort: Cohort) -> list[int]:
    """The level of every case, and 0 for those that interrupt."""
    return [0 if first else level for first, level in zip(cohort.interrupting.tolist(), cohort.level.tolist(), strict=True)]


def _fifo(cohort: Cohort, scenario: Scenario, policy: Policy) -> Order:  # noqa: ARG001
    return FixedOrder([min(lane, 1) for lane in _lanes(cohort)], cohort.arrival_minutes.tolist())


def _strict(cohort: Cohort, scenario: Scenario, policy: Policy) -> Order:  # noqa: ARG001
    return FixedOrder(_lanes(cohort), cohort.arrival_minutes.tolist())


def _weighted(cohort: Cohort, scenario: Scenario, policy: Policy) -> Order:  # noqa: ARG001
    # every score grows by the same points an hour, so the order is that of arrival minus the level's head start
    scores = scenario.scores
    head_start = [0.0, *(60 * scores.level_points[level] / scores.points_per_hour for level in LEVELS)]
    keys = [arrival - head_start[level] for arrival, level in zip(cohort.arrival_minutes.tolist(), cohort.level.tolist(), strict=True)]
    return FixedOrder([min(lane, 1) for lane in _lanes(cohort)], keys)


def _accumulating(cohort: Cohort, scenario: Scenario, policy: Policy) -> Order:  # noqa: ARG001
    return AccumulatingOrder(cohort, scenario.scores.accumulation_rates)


def _nabz(cohort: Cohort, scenario: Scenario, policy: Policy) -> Order:  # noqa: ARG001
    return NabzOrder(cohort, policy)


ORDERS: Mapping[str, Callable[[Cohort, Scenario, Policy], Order]] = {
    "fifo": _fifo,
    "strict": _strict,
    "weighted": _weighted,
    "accumulating": _accumulating,
    "nabz": _nabz,
}
