"""The queue's order: a pure function of cases, policy and `now`.

Class first. Within a level, cases past their wait cap come first, the longest overdue first; the others follow by
the time they are due, which a higher risk brings forward. A case past its cap therefore never passes a case of a
more urgent level. This module reads no clock and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from inference.policy import Policy


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the order needs to know of a case. `risk` in [0, 1]; `sequence` is its place of arrival, to break ties."""

    case_id: str
    level: int
    received_at: datetime
    risk: float
    sequence: int = 0


OrderKey = tuple[int, bool, datetime, float, datetime, str, int]


def order_key(waiting: Waiting, policy: Policy, now: datetime) -> OrderKey:
    """The key by which the queue is sorted; it differs for any two cases, so the order is total."""
    past_cap = waited(waiting, now) > policy.levels[waiting.level].cap
    deadline = cap_at(waiting, policy) if past_cap else due_at(waiting, policy)
    return (
        waiting.level,
        not past_cap,
        deadline,
        -waiting.risk,
        waiting.received_at,
        waiting.case_id,
        waiting.sequence,
    )


def ordered(cases: Iterable[Waiting], policy: Policy, now: datetime) -> list[Waiting]:
    """The cases as the next clinician should take them."""
    return sorted(cases, key=lambda waiting: order_key(waiting, policy, now))


def due_at(waiting: Waiting, policy: Policy) -> datetime:
    """When a case should be seen: at its cap, or earlier by the policy's share of it for its risk."""
    return _later(waiting.received_at, policy.levels[waiting.level].cap * (1 - policy.queue.risk_weight * waiting.risk))


def cap_at(waiting: Waiting, policy: Policy) -> datetime:
    """When the case's wait cap ends."""
    return _later(waiting.received_at, policy.levels[waiting.level].cap)


def waited(waiting: Waiting, now: datetime) -> timedelta:
    """The time since the case was received; zero for a case from the future (a clock that is wrong)."""
    return max(now - waiting.received_at, timedelta(0))


def _later(moment: datetime, span: timedelta) -> datetime:
    """`moment` plus `span`, or the last moment there is: a wrong clock must not cost anybody the queue."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)
