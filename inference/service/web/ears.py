"""Unusual rises in daily counts: the C2 and C3 statistics of the Early Aberration Reporting System (EARS).

Hutwagner, Thompson, Seeman, Treadwell: "The bioterrorism preparedness and response Early Aberration Reporting System (EARS)",
J Urban Health 2003; 80(2 Suppl 1): i89-i96; written out in Fricker, Hegler, Dunfee, Stat Med 2008; 27: 3407-3429. Knows no
syndrome, no district and no clock: a series is a list of counts, one a day, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

BASELINE_DAYS, LAG_DAYS = 7, 2
C2_ALARM, C3_ALARM = 3.0, 2.0
# Two choices of ours for sparse series, in which seven days without a case would make a single case an infinite rise: the
# standard deviation is taken as 0.5 at least (as the R package `surveillance` advises for sparse data), and fewer than three
# cases are no alarm.
LEAST_DEVIATION, LEAST_CASES = 0.5, 3
_C2_DAYS = BASELINE_DAYS + LAG_DAYS + 1
HISTORY_DAYS = _C2_DAYS + 2  # C3 of a day needs C2 of the two days before


@dataclass(frozen=True, slots=True)
class Rise:
    """The last day of a series: its cases, how many its baseline leads to expect, both statistics and which of them alarm."""

    cases: int
    expected: float
    c2: float
    c3: float
    is_c2: bool
    is_c3: bool


def c2_of(counts: Sequence[int]) -> float:
    """C2 of the last day: (cases - mean) / standard deviation of the seven days that end three days before. NaN with fewer than 10 days."""
    if len(counts) < _C2_DAYS:
        return nan
    expected, deviation = _baseline(counts)
    return (counts[-1] - expected) / max(deviation, LEAST_DEVIATION)


def c3_of(counts: Sequence[int]) -> float:
    """C3 of the last day: the sum of max(0, C2 - 1) over it and the two days before. NaN with fewer than 12 days."""
    if len(counts) < HISTORY_DAYS:
        return nan
    return sum(max(0.0, c2_of(counts[: len(counts) - back]) - 1) for back in range(3))


def rise_of(counts: Sequence[int]) -> Rise | None:
    """What the last day of a series shows; None with fewer than 12 days, which no day is judged by."""
    if len(counts) < HISTORY_DAYS:
        return None
    c2, c3 = c2_of(counts), c3_of(counts)
    return Rise(
        counts[-1],
        _baseline(counts)[0],
        c2,
        c3,
        is_c2=c2 > C2_ALARM and counts[-1] >= LEAST_CASES,
        is_c3=c3 > C3_ALARM and sum(counts[-3:]) >= LEAST_CASES,
    )


def _baseline(counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample) of the seven days before the two days before the last one."""
    days = counts[-_C2_DAYS : -LAG_DAYS - 1]
    mean = sum(days) / BASELINE_DAYS
    return mean, sqrt(sum((count - mean) ** 2 for count in days) / (BASELINE_DAYS - 1))
