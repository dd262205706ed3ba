"""EARS C2 and C3 on series that a person can check by hand."""

from __future__ import annotations

from math import isnan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.service.web.ears import HISTORY_DAYS, LEAST_CASES, c2_of, c3_of, rise_of

WEEK = [2, 4, 2, 4, 2, 4, 3]  # mean 3; squared distances 1+1+1+1+1+1+0 = 6; sample standard deviation sqrt(6 / 6) = 1


def test_c2_is_the_distance_from_the_baseline_in_standard_deviations():
    """Seven days of mean 3 and deviation 1, two days that do not count, then 7 cases: (7 - 3) / 1."""
    assert c2_of([*WEEK, 90, 90, 7]) == 4


def test_the_two_days_before_do_not_hide_an_outbreak_that_has_begun():
    """Whatever they are, C2 of the last day is the same."""
    assert {c2_of([*WEEK, first, second, 7]) for first in (0, 50) for second in (0, 50)} == {4}


def test_days_before_the_baseline_do_not_count():
    """Only the last ten days are looked at."""
    assert c2_of([100, 100, *WEEK, 0, 0, 7]) == 4


def test_c3_adds_what_exceeds_one_over_three_days():
    """Twelve days: C2 of the last three is (4 - 3) / 0.5, each time over a baseline of 3 with the floor: 2, 2, 2; minus 1 each: 3."""
    counts = [3] * 9 + [4, 4, 4]
    assert [c2_of(counts[:-2]), c2_of(counts[:-1]), c2_of(counts)] == [2, 2, 2]
    assert c3_of(counts) == 3


def test_c3_ignores_days_below_one():
    """A fall does not make up for a rise: C2 is 4, -6 and -6 (over 0.5), so only 4 - 1 counts."""
    counts = [3] * 9 + [5, 0, 0]
    assert c3_of(counts) == 3


def test_a_slow_rise_alarms_c3_before_c2():
    """Two standard deviations on three days running: C3 = 3 > 2, C2 = 2 is no alarm."""
    rise = rise_of([3] * 9 + [4, 4, 4])
    assert rise is not None
    assert (rise.is_c2, rise.is_c3, rise.cases, rise.expected) == (False, True, 4, 3)


def test_a_jump_alarms_c2():
    """Four standard deviations."""
    rise = rise_of([3, 3, *WEEK, 3, 3, 7])
    assert rise is not None
    assert (rise.is_c2, rise.c2) == (True, 4)


def test_at_the_threshold_there_is_no_alarm():
    """More than 3, as the definition says: exactly 3 is none."""
    rise = rise_of([3, 3, *WEEK, 3, 3, 6])
    assert rise is not None
    assert (rise.c2, rise.is_c2) == (3, False)


def test_a_silent_baseline_neither_divides_by_zero_nor_alarms_at_a_single_case():
    """The floor on the deviation gives 2 / 0.5 = 4 for two cases; fewer than three cases are no alarm."""
    two, three = rise_of([0] * 11 + [2]), rise_of([0] * 11 + [3])
    assert two is not None
    assert three is not None
    assert (two.c2, two.is_c2, two.is_c3) == (4, False, False)
    assert (three.c2, three.is_c2, three.is_c3) == (6, True, True)
    assert LEAST_CASES == 3


def test_too_short_a_history_says_nothing():
    """Undefined is NaN, and no rise is reported either way."""
    assert isnan(c2_of([5] * 9))
    assert isnan(c3_of([5] * 11))
    assert rise_of([5] * 11) is None


def test_a_steady_series_never_alarms():
    """The same every day."""
    rise = rise_of([8] * HISTORY_DAYS)
    assert rise is not None
    assert (rise.c2, rise.c3, rise.is_c2, rise.is_c3) == (0, 0, False, False)


def test_the_deviation_is_the_samples():
    """Divided by n - 1: baseline 0 and 7 alternating gives sqrt(12 * 7 / 6) for 3 times 7 and 4 times 0."""
    baseline = [0, 7, 0, 7, 0, 7, 0]
    assert c2_of([*baseline, 0, 0, 17]) == pytest.approx((17 - 3) / sqrt((4 * 9 + 3 * 16) / 6))


@given(st.lists(st.integers(0, 50), min_size=HISTORY_DAYS, max_size=30), st.integers(1, 20))
def test_more_cases_today_never_lower_an_alarm(counts, more):
    """Monotone in the last day."""
    before, after = rise_of(counts), rise_of([*counts[:-1], counts[-1] + more])
    assert before is not None
    assert after is not None
    assert after.c2 > before.c2
    assert after.c3 >= before.c3
    assert after.is_c2 >= before.is_c2
    assert after.is_c3 >= before.is_c3
