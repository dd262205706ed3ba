"""The dashboard's figures of waits, queue, overrides and review reasons, from what was read. Pure: no database, no page, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import nan
from typing import Final, TypeVar

from inference.policy import LEVELS, Policy
from inference.service.web.dashboard_history import Decision, History, Window
from inference.service.web.rates import Rate, quantile, rate

_MINUTE_US: Final = 60_000_000
SHOWN_DISTRICTS: Final = 10
REVIEWED_CASES: Final = 1000
_WEEK: Final = 7
Key = TypeVar("Key", int, str | None)


@dataclass(frozen=True, slots=True)
class WaitFigure:
    """Waits at one level. Median and 90th percentile are of the `n` cases that were claimed, in minutes; NaN of none.

    `in_time`: of the claimed cases and of those that wait past their cap, how many were claimed within it. A case that waits
    within its cap is not decided yet and does not count. `longest_late_minutes` is NaN where nobody waits past the cap.
    """

    level: int
    cap_minutes: int
    n: int
    median_minutes: float
    p90_minutes: float
    in_time: Rate
    late: int
    longest_late_minutes: float


def wait_figures(history: History, policy: Policy) -> list[WaitFigure]:
    """The waits, level 1 first."""
    return [_waits_of(history, level, policy.levels[level].cap_minutes) for level in LEVELS]


def _waits_of(history: History, level: int, cap_minutes: int) -> WaitFigure:
    waits = [max(wait_us, 0) / _MINUTE_US for wait_us in history.claims[level]]
    late = [wait_us / _MINUTE_US for wait_us in history.late[level]]
    within = sum(wait <= cap_minutes for wait in waits)
    return WaitFigure(
        level,
        cap_minutes,
        len(waits),
        quantile(waits, 0.5),
        quantile(waits, 0.9),
        rate(within, len(waits) + len(late)),
        len(late),
        max(late, default=nan),
    )


@dataclass(frozen=True, slots=True)
class QueueFigure:
    """Open cases at the end of each of `days` (of today: now), by level and for the districts with most of them.

    `districts` lists ten at most, the longest queue first; `n_districts` is how many have open cases.
    """

    days: tuple[int, ...]
    levels: Mapping[int, tuple[int, ...]]
    districts: tuple[tuple[str | None, tuple[int, ...]], ...]
    n_districts: int
    arrivals: tuple[int, ...]

    @property
    def open_now(self) -> int:
        """All open cases."""
        return sum(series[-1] for series in self.levels.values())


def queue_figure(history: History, window: Window) -> QueueFigure:
    """Back from how many are open now, by what came and went on each day."""
    days = window.all_days
    open_ = {district: n for district, n in history.open_by_district.items() if n > 0}
    longest = sorted(open_, key=lambda one: (-open_[one], one or ""))[:SHOWN_DISTRICTS]
    return QueueFigure(
        tuple(days),
        {level: walked_back(history.open_by_level.get(level, 0), days, history.change_by_level, level) for level in LEVELS},
        tuple((one, walked_back(open_[one], days, history.change_by_district, one)) for one in longest),
        len(open_),
        tuple(history.arrivals[day] for day in days),
    )


def walked_back(now: int, days: range, changes: Mapping[tuple[int, Key], int], key: Key) -> tuple[int, ...]:
    """The count at the end of each day. A case that changed its district counts where it is now, so that 0 is the least."""
    counts = []
    for day in reversed(days):
        counts.append(max(now, 0))
        now -= changes.get((day, key), 0)
    return tuple(reversed(counts))


@dataclass(frozen=True, slots=True)
class OverrideWeek:
    """Seven days or, for the oldest, what is left of the window: first and last day, and the cases whose last decision fell in it."""

    first_day: int
    last_day: int
    more_urgent: Rate
    less_urgent: Rate


def override_weeks(history: History, window: Window) -> list[OverrideWeek]:
    """Of the cases in which a clinician decided (override, agreement or completion), how many levels were changed, and which way."""
    by_case: dict[str, list[Decision]] = {}
    for one in sorted(history.decisions, key=lambda one: one.sequence):
        by_case.setdefault(one.referral_id, []).append(one)
    counted: Counter[tuple[int, int]] = Counter()
    for decisions in by_case.values():
        counted[(window.last_day - decisions[-1].day) // _WEEK, _direction(decisions)] += 1
    weeks = []
    for number in reversed(range(-(-window.days // _WEEK))):
        last = window.last_day - _WEEK * number
        n = sum(counted[number, direction] for direction in (-1, 0, 1))
        first = max(last - _WEEK + 1, window.first_day)
        weeks.append(OverrideWeek(first, last, rate(counted[number, -1], n), rate(counted[number, 1], n)))
    return weeks


def _direction(decisions: Iterable[Decision]) -> int:
    """-1: the clinician's level is more urgent than the one before the first override; 1: less urgent; 0: the same, or none."""
    overrides = [one for one in decisions if one.kind == "overridden"]
    if not overrides:
        return 0
    before, after = overrides[0].level_before, overrides[-1].level
    return (after > before) - (after < before)


@dataclass(frozen=True, slots=True)
class ReviewFigure:
    """Why people were asked to look: of the newest `n` cases, how many had any reason, and each kind, the most frequent first."""

    n: int
    any_reason: Rate
    kinds: tuple[tuple[str, Rate], ...]


def review_figure(history: History) -> ReviewFigure:
    """Of the newest cases of the window that can still be read, a thousand at most; a case may have several reasons."""
    newest = list(islice((case.review_kinds for case in history.cases if case.review_kinds is not None), REVIEWED_CASES))
    counted = Counter(kind for kinds in newest for kind in kinds)
    ranked = sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    return ReviewFigure(
        len(newest), rate(sum(bool(kinds) for kinds in newest), len(newest)), tuple((kind, rate(k, len(newest))) for kind, k in ranked)
    )
