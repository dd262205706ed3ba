"""The statistics of drift against hand-worked figures, scipy's, and what they promise over many draws."""

from __future__ import annotations

from math import isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from inference.monitor_statistics import (
    adjusted,
    calibration_fit,
    chi_square_tail,
    dispersion_of,
    fisher_tails,
    kolmogorov_tail,
    normal_tails,
    odds_shift,
    psi,
    psi_by_chance,
    ratio_interval,
    shares_tail,
)


def test_the_index_by_hand():
    """Half and half against three quarters and one quarter, large counts: a quarter of ln 3, and nothing where nothing moved."""
    old, new = np.array([500_000, 500_000]), np.array([750_000, 250_000])
    assert psi(old, new) == pytest.approx(0.25 * log(1.5) + 0.25 * log(2.0), abs=1e-5)
    assert psi(old, old) == 0
    assert isnan(psi(np.zeros(2), new))


def test_the_index_by_chance_is_its_mean_where_nothing_moved():
    """Over five hundred draws of 300 and 2,000 cases the mean index lies within a tenth of (B - 1)(1/n + 1/m)."""
    random, shares = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
    drawn = [(random.multinomial(2000, shares), random.multinomial(300, shares)) for _ in range(500)]
    mean = np.mean([psi(old, new) for old, new in drawn])
    assert psi_by_chance(*drawn[0]) == pytest.approx(3 * (1 / 300 + 1 / 2000))
    assert mean == pytest.approx(psi_by_chance(*drawn[0]), rel=0.1)


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 61, 240])
@pytest.mark.parametrize("value", [0.3, 3.0, 20.0, 90.0])
def test_tails_are_scipys(degrees, value):
    """Chi-square for odd and even degrees, and the normal's two tails."""
    assert chi_square_tail(value, degrees) == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-9)
    assert normal_tails(value / 10) == pytest.approx(2 * stats.norm.sf(value / 10))


def test_two_samples_of_one_distribution_seldom_lie_far_apart():
    """The tail is uniform enough: of 2,000 pairs, about 5 % below 0.05 and 1 % below 0.01, and it is near scipy's."""
    random = np.random.default_rng(1)
    tails = []
    for _ in range(2000):
        one, two = random.normal(size=120), random.normal(size=400)
        tails.append(kolmogorov_tail(float(stats.ks_2samp(one, two).statistic), 120, 400))
    assert np.mean(np.array(tails) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(np.array(tails) < 0.01) == pytest.approx(0.01, abs=0.007)
    assert kolmogorov_tail(0.2, 120, 400) == pytest.approx(stats.kstwobign.sf(0.2 * 92.3**0.5), rel=0.2)
    assert kolmogorov_tail(0.0, 10, 10) == 1.0


def test_fisher_is_scipys_one_side_doubled():
    """A rare answer that became less rare, and one that stayed."""
    expected = 2 * stats.fisher_exact([[4, 596], [3, 4797]], alternative="greater")[1]
    assert fisher_tails(3, 4800, 4, 600) == pytest.approx(expected)
    assert fisher_tails(0, 100, 0, 50) == 1.0
    assert fisher_tails(100, 100, 50, 50) == 1.0


def test_rare_cells_raise_no_false_alarm_and_a_new_one_is_seen():
    """Of 3,000 pairs with four rare cells at most one in a hundred falls below 0.01; a new district of 20 of 500 cases does."""
    random, shares = np.random.default_rng(2), np.array([0.7, 0.28, 0.01, 0.005, 0.003, 0.002])
    tails = np.array([shares_tail(random.multinomial(4000, shares), random.multinomial(400, shares)) for _ in range(3000)])
    assert (tails < 0.01).mean() <= 0.01
    assert (tails < 0.001).mean() <= 0.002
    assert shares_tail(np.array([2000, 2000, 0]), np.array([240, 240, 20])) < 1e-9


def test_a_week_that_varies_more_than_chance_makes_later_weeks_less_alarming():
    """Shares that swing from 20 to 40 % by week have a dispersion above 5; steady ones have 1, and it divides the evidence."""
    steady, swinging = np.array([[80, 320]] * 6), np.array([[80, 320], [160, 240]] * 3)
    assert dispersion_of(steady) == 1.0
    assert dispersion_of(swinging) > 5
    old, new = np.array([720, 1680]), np.array([160, 240])
    assert shares_tail(old, new) < 0.001 < shares_tail(old, new, dispersion_of(swinging))


def test_holm_by_hand():
    """Two families share alpha: each family's smallest of three is worth six times its p, the next four times, and so on."""
    tails = np.array([0.001, 0.01, 0.5, 0.02, np.nan])
    families = np.array(["a", "a", "a", "b", "b"])
    assert adjusted(tails, families).tolist()[:4] == pytest.approx([0.006, 0.04, 1.0, 0.04])
    assert isnan(adjusted(tails, families)[4])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(tails):
    """Adjusted values are at least the p-values, at most 1, and in the same order."""
    found = adjusted(np.array(tails), np.array(["one"] * len(tails)))
    assert (found >= np.array(tails)).all()
    assert (found <= 1).all()
    order = np.argsort(tails, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_false_alarms_over_many_features_are_held():
    """Of 400 weeks in which 60 features did not move, at most 1 % or so have any adjusted p below 0.01."""
    random = np.random.default_rng(3)
    families = np.array(["few"] * 10 + ["many"] * 50)
    weeks = [np.nanmin(adjusted(random.random(60), families)) < 0.01 for _ in range(2000)]
    assert np.mean(weeks) <= 0.016


def test_calibration_is_told():
    """Right probabilities have intercept 0 and slope 1; twice the odds shift the one, halved logits the other."""
    random = np.random.default_rng(4)
    logit = random.normal(-1, 1.5, 20_000)
    outcome = (random.random(20_000) < 1 / (1 + np.exp(-logit))).astype(float)

    def fit(shown):
        return calibration_fit(1 / (1 + np.exp(-shown)), outcome)

    right = fit(logit)
    assert abs(right.intercept) < 3 * right.intercept_error
    assert abs(right.slope - 1) < 3 * right.slope_error
    assert fit(logit - log(2)).intercept == pytest.approx(log(2), abs=0.06)
    assert fit(logit * 2).slope == pytest.approx(0.5, abs=0.03)
    assert all(isnan(one) for one in calibration_fit(np.full(5, 0.2), np.zeros(5)))


def test_odds_at_the_same_probability_do_not_move_with_the_mix():
    """Of a model that was never right: weeks of other probabilities are quiet 95 times in 100, half the odds are seen."""
    random = np.random.default_rng(5)

    def week(n, centre, odds=1.0):
        logit = random.normal(centre, 1.5, n)
        return 1 / (1 + np.exp(-(2 * logit + 3))), (random.random(n) < 1 / (1 + np.exp(-logit) / odds)).astype(float)

    then = calibration_fit(*week(40_000, -1))
    gaps = [odds_shift(*week(400, random.uniform(-2, 0)), then.constant, then.slope) for _ in range(400)]
    assert np.mean([abs(shift) > 1.96 * error for shift, error in gaps]) == pytest.approx(0.05, abs=0.03)
    shift, error = odds_shift(*week(4000, -2, odds=0.5), then.constant, then.slope)
    assert shift == pytest.approx(log(0.5), abs=3 * error)


def test_observed_over_expected_by_hand():
    """Twenty observed, ten expected: twice as many, with an interval around it; nothing expected is undefined."""
    ratio, low, high = ratio_interval(20, 10, 16)
    assert ratio == 2
    assert low == pytest.approx(2 * np.exp(-1.96 * 4 / 20))
    assert high == pytest.approx(2 * np.exp(1.96 * 4 / 20))
    assert ratio_interval(0, 10, 9)[0] == 0
    assert isnan(ratio_interval(1, 0, 0)[0])
