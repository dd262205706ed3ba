"""Tests of the metrics against values worked out by hand."""

from __future__ import annotations

import json
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import (
    Interval,
    auc,
    average_precision,
    balanced_accuracy,
    bootstrap_interval,
    expected_calibration_error,
    macro_auc,
    metrics_document,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
    wilson_interval,
)

NONE = np.array([])
# Scores of 4 healthy and 4 ill people: 16 pairs.
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORE = np.array([0.1, 0.2, 0.5, 0.7, 0.3, 0.6, 0.8, 0.9])


def mean(values: np.ndarray) -> float:
    """The mean of an array."""
    return float(np.mean(values))


def test_auc_is_the_share_of_pairs_in_the_right_order():
    """0.3 beats two of four, 0.6 three, 0.8 and 0.9 four each: 13 of 16; a reversed score has the other 3."""
    assert auc(TRUTH, SCORE) == 13 / 16
    assert auc(TRUTH, -SCORE) == 3 / 16
    assert auc(TRUTH, np.zeros(8)) == 0.5


def test_balanced_accuracy_is_the_mean_sensitivity_of_the_classes():
    """Right in 3 of 4, 2 of 4 and 4 of 4: (3 + 2 + 4) / 12 = 9/12; a common class counts no more than a rare one."""
    truth = np.repeat([0, 1, 2], 4)
    predicted = np.array([0, 0, 0, 1, 1, 1, 2, 0, 2, 2, 2, 2])
    assert balanced_accuracy(truth, predicted) == 9 / 12
    assert balanced_accuracy(np.array([0] * 15 + [1]), np.zeros(16)) == 8 / 16


def test_macro_auc_leaves_out_classes_that_do_not_occur():
    """Class 0 against the rest is 1, class 1 is 1/2 (one pair right, one wrong), class 2 never occurs."""
    truth = np.array([0, 1, 1])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    assert macro_auc(truth, probabilities) == (1 + 0.5) / 2


def test_average_precision_is_the_mean_precision_at_each_hit():
    """Hits at ranks 1 and 3: (1/1 + 2/3) / 2 = 5/6."""
    assert average_precision(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6])) == pytest.approx(5 / 6)


def test_sensitivity_at_specificity_takes_the_best_threshold_that_keeps_it():
    """At specificity 3/4 one healthy person (0.7) may be called ill: then 0.6 and up, 3 of 4 ill, are found."""
    assert sensitivity_at_specificity(TRUTH, SCORE, 0.75) == 3 / 4
    assert sensitivity_at_specificity(TRUTH, SCORE, 1.0) == 2 / 4
    assert sensitivity_at_specificity(TRUTH, SCORE, 0.5) == 1


def test_specificity_at_sensitivity_takes_the_best_threshold_that_keeps_it():
    """To find 3 of 4 ill one calls one of 4 healthy ill; to find all, two."""
    assert specificity_at_sensitivity(TRUTH, SCORE, 0.75) == 3 / 4
    assert specificity_at_sensitivity(TRUTH, SCORE, 1.0) == 2 / 4
    assert specificity_at_sensitivity(TRUTH, SCORE, 0.5) == 1


def test_expected_calibration_error_weighs_each_bin_by_its_share():
    """Two bins: |1/2 - 0.9| for 2 of 4 cases and |1/2 - 0.3| for the others: (0.4 + 0.2) / 2 = 0.3."""
    correct = np.array([1.0, 0.0, 1.0, 0.0])
    confidence = np.array([0.9, 0.9, 0.3, 0.3])
    assert expected_calibration_error(correct, confidence, bins=2) == pytest.approx(0.3)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0


@pytest.mark.parametrize(
    "value",
    [
        balanced_accuracy(NONE, NONE),
        auc(np.ones(3), np.array([0.1, 0.2, 0.3])),
        auc(NONE, NONE),
        average_precision(np.zeros(3), np.array([0.1, 0.2, 0.3])),
        average_precision(NONE, NONE),
        macro_auc(np.zeros(3, dtype=int), np.ones((3, 1))),
        sensitivity_at_specificity(np.ones(3), np.array([0.1, 0.2, 0.3]), 0.9),
        specificity_at_sensitivity(np.zeros(3), np.array([0.1, 0.2, 0.3]), 0.9),
        expected_calibration_error(NONE, NONE),
    ],
)
def test_an_undefined_metric_is_nan(value):
    """Never 1 and never 0."""
    assert isnan(value)


def test_intervals_of_nothing_are_nan_with_a_count_of_zero():
    """The count says why."""
    for figure in (bootstrap_interval(mean, NONE), wilson_interval(0, 0)):
        assert figure.n == 0
        assert isnan(figure.value)
        assert isnan(figure.low)
        assert isnan(figure.high)


def test_a_metric_that_is_undefined_in_most_draws_has_a_value_without_bounds():
    """AUC needs both classes; a figure that needs all of 3 rows is defined in 6 of 27 draws."""
    one_class = bootstrap_interval(auc, np.ones(5), np.arange(5.0))
    assert one_class.n == 5
    assert isnan(one_class.value)
    assert isnan(one_class.low)
    rare = bootstrap_interval(lambda v: mean(v) if len(np.unique(v)) == 3 else nan, np.array([1.0, 2.0, 3.0]))
    assert (rare.value, rare.n) == (2, 3)
    assert isnan(rare.low)
    assert isnan(rare.high)


def test_nan_becomes_null_in_json():
    """JSON has no NaN."""
    assert json.dumps(Interval(0.5, nan, nan, 3).as_json(), allow_nan=False) == '{"value": 0.5, "low": null, "high": null, "n": 3}'


def test_wilson_interval_of_12_of_16():
    """The textbook formula gives 0.505 to 0.898 for 12/16."""
    figure = wilson_interval(12, 16)
    assert figure.value == 12 / 16
    assert figure.low == pytest.approx(0.5050, abs=5e-4)
    assert figure.high == pytest.approx(0.8982, abs=5e-4)
    assert figure.n == 16


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_its_value_and_stays_a_probability(counts):
    """Also at 0 of n and n of n, where rounding could leave the value just outside."""
    figure = wilson_interval(*counts)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1


@given(st.integers(0, 2**32 - 1))
def test_bootstrap_interval_of_a_mean_contains_it(seed):
    """12 successes of 16, for any seed."""
    figure = bootstrap_interval(mean, np.repeat([1.0, 0.0], [12, 4]), repeats=100, seed=seed)
    assert figure.value == 12 / 16
    assert figure.low < figure.value < figure.high


def test_bootstrap_interval_of_equal_values_is_a_point():
    """Whatever is drawn, the mean is 2."""
    assert bootstrap_interval(mean, np.full(9, 2.0)) == Interval(2.0, 2.0, 2.0, 9)


def test_bootstrap_interval_repeats_with_its_seed():
    """The same seed gives the same bounds, another seed others."""
    values = np.random.default_rng(0).random(50)
    first = bootstrap_interval(mean, values, seed=4)
    assert first == bootstrap_interval(mean, values, seed=4)
    assert first != bootstrap_interval(mean, values, seed=5)


def test_bootstrap_draws_rows_of_all_arrays_together():
    """The difference of equal arrays is 0 in every draw."""
    values = np.random.default_rng(0).random(30)
    figure = bootstrap_interval(lambda a, b: mean(a - b), values, values)
    assert (figure.low, figure.high) == (0, 0)


def test_grouped_bootstrap_is_wider_on_duplicated_rows():
    """Ten copies of each row add nothing: drawn by group the interval is as wide as without copies, else about 3 times too narrow."""
    values = np.random.default_rng(1).normal(size=40)
    copies, groups = np.repeat(values, 10), np.repeat(np.arange(40), 10)
    plain, grouped, single = (
        bootstrap_interval(mean, copies),
        bootstrap_interval(mean, copies, groups=groups),
        bootstrap_interval(mean, values),
    )
    assert grouped.n == 400
    assert grouped.value == pytest.approx(single.value)
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_groups_need_no_order():
    """Shuffled rows with their groups give the same groups."""
    values, groups = np.array([1.0, 5.0, 1.0, 5.0]), np.array(["b", "a", "b", "a"])
    figure = bootstrap_interval(lambda v: float(np.ptp(v)), values, groups=groups, repeats=200)
    assert (figure.low, figure.value, figure.high) == (0, 4, 4)


def test_metrics_document_has_every_figure_with_its_interval():
    """The shape that metrics.json and the command line share."""
    figure = Interval(0.75, 0.5, 0.9, 16)
    assert metrics_document("tiny", "models/tiny/1.0.0", 16, {"auc": figure}, {"sex female": {"auc": Interval(nan, nan, nan, 0)}}) == {
        "task": "tiny",
        "bundle": "models/tiny/1.0.0",
        "n": 16,
        "metrics": {"auc": {"value": 0.75, "low": 0.5, "high": 0.9, "n": 16}},
        "subgroups": {"sex female": {"auc": {"value": None, "low": None, "high": None, "n": 0}}},
    }
