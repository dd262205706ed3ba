"""Unusual rises by syndrome and district: EARS over the daily counts of the cases that were read. Pure; knows no page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inference.service.web.dashboard_history import RISE_DAYS, CaseFacts, History, Window
from inference.service.web.ears import C2_ALARM, C3_ALARM, HISTORY_DAYS, Rise, rise_of

ALL: Final = ""  # all districts together
_MOST_UNREADABLE: Final = 0.1  # of a day's cases: with more that cannot be read, the day's counts would be too low


@dataclass(frozen=True, slots=True)
class Alarm:
    """One series that alarmed on `days` of the latest days, at its strongest: `day`, and the counts of the twelve days up to it.

    `district` is "" for all together, None where none was named.
    """

    day: int
    syndrome: str
    district: str | None
    rise: Rise
    counts: tuple[int, ...]
    days: int

    @property
    def strength(self) -> float:
        """How far above its threshold the higher of the two statistics is."""
        return _strength(self.rise)


@dataclass(frozen=True, slots=True)
class RiseFigure:
    """The series that alarmed on the latest days, the strongest first; of `n_series` series with any case, judged on `n_days` days.

    With `n_days` = 0 there is no day yet that has eleven whole days before it; `whole_days` says how many there are so far.
    """

    alarms: tuple[Alarm, ...]
    n_series: int
    n_days: int
    whole_days: int

    @property
    def n_looks(self) -> int:
        """How many times a series was judged: the more, the more alarms are chance."""
        return self.n_series * self.n_days


def rise_figure(history: History, window: Window) -> RiseFigure:
    """Every syndrome in every district, and in all together, on the latest seven days that can be judged."""
    cases = [case for case in (*history.cases, *history.cases_before) if case.day >= window.first_for_rises]
    first = _first_whole_day(history, window, cases)
    counts: defaultdict[tuple[str, str | None], Counter[int]] = defaultdict(Counter)
    for case in cases:
        for syndrome in case.syndromes or ():
            for district in {case.district} if window.district is not None else {ALL, case.district}:
                counts[syndrome, district][case.day] += 1
    latest = range(window.last_day - RISE_DAYS + 1, window.last_day + 1)
    days = [day for day in latest if day - HISTORY_DAYS + 1 >= first]
    alarms = [alarm for key, by_day in counts.items() if (alarm := _alarm(*key, by_day, days)) is not None]
    alarms.sort(key=lambda one: (-one.strength, one.syndrome, one.district or ""))
    return RiseFigure(tuple(alarms), len(counts), len(days), max(window.last_day - first + 1, 0))


def _alarm(syndrome: str, district: str | None, by_day: Counter[int], days: Sequence[int]) -> Alarm | None:
    """The series at its strongest among the days on which it alarmed."""
    series = {day: tuple(by_day[one] for one in range(day - HISTORY_DAYS + 1, day + 1)) for day in days}
    rises = {day: rise for day, counts in series.items() if (rise := rise_of(counts)) is not None and (rise.is_c2 or rise.is_c3)}
    if not rises:
        return None
    day = max(rises, key=lambda one: (_strength(rises[one]), rises[one].cases, one))
    return Alarm(day, syndrome, district, rises[day], series[day], len(rises))


def _strength(rise: Rise) -> float:
    return max(rise.c2 / C2_ALARM if rise.is_c2 else 0.0, rise.c3 / C3_ALARM if rise.is_c3 else 0.0)


def _first_whole_day(history: History, window: Window, cases: Sequence[CaseFacts]) -> int:
    """The first day from which on every day's cases were read, all of them, with their syndromes."""
    total, unreadable = Counter(case.day for case in cases), Counter(case.day for case in cases if case.syndromes is None)
    first = max(window.first_for_rises, history.first_whole_day)
    if history.first_day_ever is not None:
        first = max(first, history.first_day_ever)
    broken = [day for day in total if unreadable[day] > _MOST_UNREADABLE * total[day]]
    return max([first, *(day + 1 for day in broken)])
