"""Paired differences: hand-counted rates, and what must always hold of them."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import auc, mean
from training.paired import Measure, compared, holm, mcnemar, rate

EVERYBODY = np.ones(8, dtype=bool)
CHAMPION = np.array([1, 0, 0, 0, 1, 0, 0, 0])
CHALLENGER = np.array([0, 1, 1, 1, 1, 0, 0, 0])


def test_a_rate_s_change_is_counted_case_by_case():
    """Two of eight missed before and four after; three only by the challenger, one only by the champion: exact p is 10/16."""
    found = compared(rate(CHAMPION, EVERYBODY), rate(CHALLENGER, EVERYBODY), np.arange(8))
    assert (found.champion.value, found.challenger.value, found.change.value) == (0.25, 0.5, 0.25)
    assert (found.worse, found.improved, found.p_value) == (3, 1, pytest.approx(0.625))
    assert found.change.low <= 0.25 <= found.change.high


def test_more_is_worse_or_better_as_the_figure_says():
    """Of a figure that should be high, the same change is a harm with the opposite sign, and its bounds change places."""
    low = compared(rate(CHAMPION, EVERYBODY), rate(CHALLENGER, EVERYBODY), np.arange(8))
    high = compared(rate(CHAMPION, EVERYBODY, "higher"), rate(CHALLENGER, EVERYBODY, "higher"), np.arange(8))
    assert low.harm == low.change
    assert (high.harm.value, high.harm.low, high.harm.high) == (-high.change.value, -high.change.high, -high.change.low)
    assert (high.worse, high.improved) == (1, 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_swapping_nothing_changes_nothing_and_swapping_sides_turns_the_sign(pairs):
    """Equal models have no difference at all; champion and challenger exchanged have the opposite one."""
    before, after = np.array(pairs, dtype=float).T
    rows, patients = np.ones(len(before), dtype=bool), np.arange(len(before))
    same = compared(rate(before, rows), rate(before, rows), patients)
    assert (same.change.value, same.change.low, same.change.high, same.worse, same.improved, same.p_value) == (0, 0, 0, 0, 0, 1)
    there, back = compared(rate(before, rows), rate(after, rows), patients), compared(rate(after, rows), rate(before, rows), patients)
    assert there.change.value == pytest.approx(-back.change.value)
    assert (there.worse, there.improved) == (back.improved, back.worse)
    assert there.p_value == pytest.approx(back.p_value)


def test_cases_of_one_patient_are_drawn_together():
    """Eight photos of two patients say less than of eight patients: the interval is wider."""
    before, after = rate(np.zeros(8), EVERYBODY), rate(np.array([1, 1, 1, 1, 0, 0, 0, 0]), EVERYBODY)
    alone = compared(before, after, np.arange(8)).change
    together = compared(before, after, np.array([1, 1, 1, 1, 2, 2, 2, 2])).change
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0.0, 1.0)
    assert alone.high - alone.low < 1.0


def test_the_quick_interval_of_a_rate_is_that_of_drawing_cases():
    """Drawing how many are discordant and drawing cases are the same experiment: the bounds agree within their own chance."""
    random = np.random.default_rng(1)
    before, after = random.random(400) < 0.2, random.random(400) < 0.25
    rows = np.ones(400, dtype=bool)
    quick = compared(rate(before, rows), rate(after, rows), np.arange(400)).change
    drawn = compared(
        Measure(mean, (before.astype(float),), rows, "lower"), Measure(mean, (after.astype(float),), rows, "lower"), np.arange(400)
    ).change
    assert quick.value == pytest.approx(drawn.value)
    assert quick.low == pytest.approx(drawn.low, abs=0.015) and quick.high == pytest.approx(drawn.high, abs=0.015)


def test_other_figures_are_drawn_on_the_same_cases_for_both():
    """An area under the curve of 1 against one of 0.75 differs by 0.25; McNemar's test is not for it."""
    truth = np.array([0, 0, 1, 1])
    rows = np.ones(4, dtype=bool)
    champion = Measure(auc, (truth, np.array([0.1, 0.2, 0.8, 0.9])), rows, "higher")
    challenger = Measure(auc, (truth, np.array([0.1, 0.5, 0.4, 0.9])), rows, "higher")
    found = compared(champion, challenger, np.arange(4))
    assert found.change.value == pytest.approx(-0.25)
    assert found.harm.value == pytest.approx(0.25) and isnan(found.p_value)
    assert found.as_json()["mcnemar_p"] is None


def test_nobody_has_no_difference():
    """Without a case everything is undefined, with its count, and JSON holds null."""
    found = compared(rate(CHAMPION, EVERYBODY), rate(CHALLENGER, EVERYBODY), np.arange(8), rows=~EVERYBODY)
    assert isnan(found.change.value) and found.change.n == 0
    assert found.as_json()["change"] == {"value": None, "low": None, "high": None, "n": 0}


def test_mcnemar_s_exact_test_by_hand():
    """Nothing discordant says nothing; five to none is 2/32."""
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)


def test_holm_s_correction_by_hand():
    """0.01 times 3, 0.03 times 2, and 0.04 that may not fall below the one before."""
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
