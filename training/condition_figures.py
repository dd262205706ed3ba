"""Figures condition by condition: coverage of the prediction set, and calibration against one condition at a time.

Arrays in, figures with their counts out. A mean over all patients can hide one condition that is always missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import Interval, bootstrap_interval, mean, wilson_interval

Array = NDArray[Any]
LEAST_PATIENTS = 30  # of a condition: a share of fewer says too little to be called the worst
SHOWN = 5
CALIBRATION_BINS = 10


def set_figures(truth: Array, members: Array) -> dict[str, Interval]:
    """`coverage` and `set_size` of the prediction sets, `members` [n, C], and the coverage of the worst condition.

    `coverage_worst_condition` is of conditions with LEAST_PATIENTS patients or more; NaN where there is none.
    """
    covered = members[np.arange(len(truth)), truth]
    by_condition = _coverages(truth, covered)
    worst = min(by_condition.values(), key=lambda figure: figure.value, default=Interval(nan, nan, nan, 0))
    return {
        "coverage": bootstrap_interval(mean, covered.astype(float)),
        "coverage_worst_condition": worst,
        "set_size": bootstrap_interval(mean, members.sum(axis=1).astype(float)),
    }


def worst_conditions(truth: Array, members: Array, names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """The coverage of the conditions that are covered least, as subgroups of a metrics document."""
    found = _coverages(truth, members[np.arange(len(truth)), truth])
    least = sorted(found, key=lambda label: (found[label].value, label))[:SHOWN]
    return {f"condition {names[label]}": {"coverage": found[label]} for label in least}


def _coverages(truth: Array, covered: Array) -> dict[int, Interval]:
    counts = np.bincount(truth)
    return {
        int(label): wilson_interval(int(covered[truth == label].sum()), int(counts[label]))
        for label in np.flatnonzero(counts >= LEAST_PATIENTS)
    }


def calibration_figures(truth: Array, probabilities: Array) -> dict[str, Interval]:
    """Calibration of each condition's own probability over all patients.

    `ece_by_condition` is the mean over the conditions that occur of each one's expected calibration error, divided by its
    own share of the patients: rare conditions, whose errors are small in absolute numbers, count like common ones.
    """
    errors = condition_errors(truth, probabilities)
    defined = errors[~np.isnan(errors)]
    value = float(defined.mean()) if len(defined) else nan
    return {"ece_by_condition": Interval(value, nan, nan, len(truth))}


def worst_calibrated(truth: Array, probabilities: Array, names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """The conditions whose probabilities are furthest from what happened, as subgroups of a metrics document."""
    errors, counts = condition_errors(truth, probabilities), np.bincount(truth, minlength=probabilities.shape[1])
    ranked = [int(label) for label in np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable") if counts[label] >= LEAST_PATIENTS]
    return {
        f"condition {names[label]}": {
            "relative_ece": Interval(float(errors[label]), nan, nan, int(counts[label])),
            "expected_patients": Interval(float(probabilities[:, label].sum()), nan, nan, int(counts[label])),
        }
        for label in ranked[:SHOWN]
    }


def condition_errors(truth: Array, probabilities: Array) -> Array:
    """Each condition's expected calibration error (Guo et al. 2017) over its share of the patients, [C]; NaN where it has none.

    The bins hold equal parts of the condition's expected patients, because nearly all patients have a probability near 0.
    """
    conditions = probabilities.shape[1]
    counts = np.bincount(truth, minlength=conditions)
    errors = np.full(conditions, nan)
    for label in np.flatnonzero(counts):
        p = probabilities[:, label].astype(np.float64)
        order = np.argsort(p, kind="stable")
        mass = np.cumsum(p[order]) - p[order] / 2
        bins = np.minimum((mass / max(p.sum(), 1e-12) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        observed = np.bincount(bins, weights=(truth[order] == label).astype(float), minlength=CALIBRATION_BINS)
        expected = np.bincount(bins, weights=p[order], minlength=CALIBRATION_BINS)
        errors[label] = np.abs(observed - expected).sum() / counts[label]
    return errors
