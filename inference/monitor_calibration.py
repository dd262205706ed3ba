"""Emergency probabilities against known outcomes: how they fit now, and how that differs from the reference.

Knows no cases and no windows.
"""

from __future__ import annotations

from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.monitor_features import MODEL
from inference.monitor_reference import Calibration
from inference.monitor_report import CalibrationNow, Change
from inference.monitor_statistics import UNDEFINED_FIT, calibration_fit, normal_tails, odds_shift, ratio_interval
from inference.monitor_words import group_of

Array = NDArray[Any]
LEAST_SHIFT, LEAST_SLOPE = 0.25, 0.2  # smallest change of calibration that matters: a quarter more or fewer emergencies
LEAST_OUTCOMES = 50
_ECE_BINS, _ECE_DRAWS = 10, 200
_COPIES = 5  # a change shows five quantiles


def calibration_now(probability: Array, outcome: Array, then: Calibration | None) -> CalibrationNow | None:
    """The fit of probabilities [n] and outcomes 0 or 1 [n]; None without any, and no intercept or slope below LEAST_OUTCOMES.

    `then` is the reference's; without it, probabilities are taken to have been right.
    """
    if not len(outcome):
        return None
    fit, shift = UNDEFINED_FIT, (nan, nan)
    if len(outcome) >= LEAST_OUTCOMES:
        fit = calibration_fit(probability, outcome)
        shift = odds_shift(probability, outcome, then.constant if then else 0.0, then.slope if then else 1.0)
    ratio, low, high = ratio_interval(float(outcome.sum()), float(probability.sum()), float((probability * (1 - probability)).sum()))
    random = np.random.default_rng(0)
    draws = [_ece(probability[rows], outcome[rows]) for rows in random.integers(0, len(outcome), (_ECE_DRAWS, len(outcome)))]
    return CalibrationNow(
        n=len(outcome), events=int(outcome.sum()), expected=float(probability.sum()), observed_to_expected=ratio, ratio_interval=(low, high),
        intercept=fit.intercept, intercept_error=fit.intercept_error, slope=fit.slope, slope_error=fit.slope_error,
        ece=_ece(probability, outcome), ece_interval=(float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))),
        odds_shift=shift[0], odds_shift_error=shift[1],
    )  # fmt: skip


def _ece(probability: Array, outcome: Array) -> float:
    """Expected calibration error, ten bins of equal width (Guo et al. 2017)."""
    places = np.minimum((probability * _ECE_BINS).astype(int), _ECE_BINS - 1)
    return float(np.abs(np.bincount(places, outcome - probability, minlength=_ECE_BINS)).sum() / len(outcome))


def calibration_changes(then: Calibration | None, now: CalibrationNow | None, least_effect: float) -> list[Change]:
    """The change of the odds at the same probability, and of the slope (from 1 where the reference knows no outcomes).

    `least_effect` is the smallest change of the stability index that counts: the smallest gap that matters is put there.
    """
    if now is None or now.n < LEAST_OUTCOMES:
        return []
    pairs = (
        ("calibration:in_the_large", now.odds_shift, now.odds_shift_error, 0.0, then.shift_error if then else 0.0, LEAST_SHIFT),
        ("calibration:slope", now.slope, now.slope_error, then.slope if then else 1.0, then.slope_error if then else 0.0, LEAST_SLOPE),
    )  # fmt: skip
    found = []
    for name, value, error, old, old_error, least in pairs:
        gap, spread = value - old, sqrt(error**2 + old_error**2)
        tail = normal_tails(gap / spread) if spread > 0 else nan
        # The index knows no calibration: the gap is put on its scale, so that the smallest that matters is `least_effect`.
        excess = least_effect * abs(gap) / least
        found.append(
            Change(
                feature=name, title=name, family=MODEL, group=group_of(MODEL), kind="calibration", n_reference=then.n if then else 0,
                n_recent=now.n, psi=nan, psi_by_chance=nan, excess=excess, p=tail,
                reference_quantiles=(old,) * _COPIES, recent_quantiles=(value,) * _COPIES,
            )
        )  # fmt: skip
    return found
