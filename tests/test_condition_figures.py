"""Figures condition by condition, on a few patients that can be counted by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from training.condition_figures import calibration_figures, condition_errors, set_figures, worst_calibrated, worst_conditions

# 40 patients of condition 0, of whom 36 are covered; 30 of condition 1, of whom 15 are; 5 of condition 2, of whom none is.
TRUTH = np.array([0] * 40 + [1] * 30 + [2] * 5)
MEMBERS = np.zeros((75, 3), dtype=bool)
MEMBERS[:36, 0] = True
MEMBERS[40:55, 1] = True


def test_the_worst_condition_is_one_with_enough_patients():
    """Fifteen of thirty; the condition with five patients, none covered, is too small to be called the worst."""
    figures = set_figures(TRUTH, MEMBERS)
    assert figures["coverage"].value == pytest.approx(51 / 75)
    assert figures["set_size"].value == pytest.approx(51 / 75)
    assert (figures["coverage_worst_condition"].value, figures["coverage_worst_condition"].n) == (0.5, 30)
    assert isnan(set_figures(TRUTH[-5:], MEMBERS[-5:])["coverage_worst_condition"].value)


def test_the_worst_conditions_are_named_in_order():
    """With their counts, least covered first."""
    found = worst_conditions(TRUTH, MEMBERS, ["flu", "cold", "gout"])
    assert list(found) == ["condition cold", "condition flu"]
    assert (found["condition flu"]["coverage"].value, found["condition flu"]["coverage"].n) == (0.9, 40)


def test_a_calibrated_condition_has_no_error():
    """Half of those with 0.5 have it; and twice as many as expected is an error of one half of its patients."""
    truth = np.array([0, 1] * 20)
    assert condition_errors(truth, np.full((40, 2), 0.5)) == pytest.approx([0, 0])
    assert condition_errors(truth, np.tile([0.25, 0.75], (40, 1))) == pytest.approx([0.5, 0.5])
    assert calibration_figures(truth, np.tile([0.25, 0.75], (40, 1)))["ece_by_condition"].value == pytest.approx(0.5)


def test_a_condition_that_nobody_has_has_no_figure():
    """NaN for it; the mean is over the others."""
    p = np.tile([0.5, 0.5, 0.0], (40, 1))
    errors = condition_errors(np.array([0, 1] * 20), p)
    assert isnan(errors[2])
    assert calibration_figures(np.array([0, 1] * 20), p)["ece_by_condition"].value == pytest.approx(0)


def test_the_worst_calibrated_say_how_many_were_expected():
    """Forty have it and thirty were expected."""
    p = np.tile([0.75, 0.25], (40, 1))
    found = worst_calibrated(np.zeros(40, dtype=int), p, ["flu", "cold"])
    assert list(found) == ["condition flu"]
    assert found["condition flu"]["expected_patients"].value == pytest.approx(30)
    assert found["condition flu"]["relative_ece"].value == pytest.approx(0.25)
