"""Metrics with intervals. Arrays in, numbers out; an undefined metric is NaN with its count.

This module does not know tasks, files or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import isnan, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Array = NDArray[Any]
Statistic = Callable[..., float]
Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval and the number of cases behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        """The figure for metrics.json; NaN becomes null, because JSON has no NaN."""
        return {key: None if isnan(value) else value for key, value in asdict(self).items()}


def mean(values: Array) -> float:
    """The mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else nan


def bootstrap_interval(statistic: Statistic, *arrays: Array, groups: Array | None = None, repeats: int = 500, seed: int = 0) -> Interval:
    """Percentile bootstrap (Efron 1979) of `statistic(*arrays)`; whole groups are drawn where `groups` is given.

    All arrays share their first length, n. Draws for which the statistic is undefined (NaN) are left out; with
    fewer than half of the draws defined the bounds are NaN.
    """
    size = len(arrays[0])
    if size == 0:
        return Interval(nan, nan, nan, 0)
    draws = np.array([statistic(*(array[chosen] for array in arrays)) for chosen in resamples(size, groups, repeats, seed)])
    return percentile_interval(statistic(*arrays), draws, size)


def resamples(size: int, groups: Array | None = None, repeats: int = 500, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """The places of each bootstrap sample of `size` cases; whole groups are drawn where `groups` [size] is given."""
    generator = np.random.default_rng(seed)
    if groups is None:
        yield from (generator.integers(0, size, size) for _ in range(repeats))
        return
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.unique(np.asarray(groups)[order], return_index=True)[1][1:])
    for _ in range(repeats):
        yield np.concatenate([members[k] for k in generator.integers(0, len(members), len(members))])


def percentile_interval(value: float, draws: Array, n: int) -> Interval:
    """The middle 95 % of a bootstrap's draws around `value`; bounds are NaN with fewer than half of the draws defined."""
    defined = draws[~np.isnan(draws)]
    if 2 * len(defined) < len(draws):
        return Interval(value, nan, nan, n)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(value), float(low), float(high), n)


def wilson_interval(successes: int, n: int) -> Interval:
    """A proportion with its Wilson score interval (Wilson 1927); NaN with n = 0."""
    if n == 0:
        return Interval(nan, nan, nan, 0)
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def balanced_accuracy(truth: Array, predicted: Array) -> float:
    """Mean of the per-class sensitivities over the classes that occur in `truth` (ISIC 2018 Task 3's metric)."""
    classes = np.unique(truth)
    return float(np.mean([np.mean(predicted[truth == label] == label) for label in classes])) if len(truth) else nan


def auc(truth: Array, score: Array) -> float:
    """Area under the ROC curve; NaN unless both classes occur."""
    return float(roc_auc_score(truth, score)) if len(np.unique(truth)) == 2 else nan


def average_precision(truth: Array, score: Array) -> float:
    """Average precision; NaN when no positive occurs."""
    return float(average_precision_score(truth, score)) if np.any(truth) else nan


def macro_auc(truth: Array, probabilities: Array) -> float:
    """Mean one-against-rest AUC over the classes for which it is defined; `truth` holds class indices."""
    per_class = [auc(truth == label, probabilities[:, label]) for label in range(probabilities.shape[1])]
    defined = [value for value in per_class if not isnan(value)]
    return float(np.mean(defined)) if defined else nan


def sensitivity_at_specificity(truth: Array, score: Array, specificity: float) -> float:
    """Highest sensitivity of any threshold whose specificity is at least `specificity`."""
    if len(np.unique(truth)) < 2:
        return nan
    false_positive_rate, sensitivity, _ = roc_curve(truth, score, drop_intermediate=False)
    return float(np.max(sensitivity[false_positive_rate <= 1 - specificity + 1e-12]))


def specificity_at_sensitivity(truth: Array, score: Array, sensitivity: float) -> float:
    """Highest specificity of any threshold whose sensitivity is at least `sensitivity`."""
    if len(np.unique(truth)) < 2:
        return nan
    false_positive_rate, reached, _ = roc_curve(truth, score, drop_intermediate=False)
    return float(1 - np.min(false_positive_rate[reached >= sensitivity - 1e-12]))


def expected_calibration_error(correct: Array, confidence: Array, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al. 2017): mean |accuracy - confidence| by bin."""
    if len(correct) == 0:
        return nan
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(which, minlength=bins)
    gap = np.abs(np.bincount(which, weights=correct.astype(float), minlength=bins) - np.bincount(which, weights=confidence, minlength=bins))
    return float(gap.sum() / weight.sum())


def net_benefit(truth: Array, probability: Array, threshold: float) -> float:
    """True positives less false positives weighed by the threshold's odds, per case (Vickers and Elkin 2006)."""
    called = probability >= threshold
    odds = threshold / (1 - threshold)
    return float(np.mean(called & (truth == 1)) - odds * np.mean(called & (truth == 0)))


def metrics_document(
    task: str, bundle: str, n: int, metrics: dict[str, Interval], subgroups: dict[str, dict[str, Interval]]
) -> dict[str, Any]:
    """The JSON object that `nabz-train evaluate --json` prints and `metrics.json` holds."""
    return {
        "task": task,
        "bundle": bundle,
        "n": n,
        "metrics": {name: figure.as_json() for name, figure in metrics.items()},
        "subgroups": {group: {name: figure.as_json() for name, figure in figures.items()} for group, figures in subgroups.items()},
    }
