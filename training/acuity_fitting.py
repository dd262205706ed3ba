"""Logistic regression with a penalty and a sign for each column: the weights that must not be negative are not.

Arrays in, weights out. Knows no data, no features' meanings and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

Array = NDArray[Any]
_LOSS_SCALE = 1e3  # keeps the optimiser's stopping rule well above float32 noise


@dataclass(frozen=True)
class Linear:
    """A logit: `weights` [columns] and `intercept`."""

    weights: Array
    intercept: float

    def logit(self, rows: Array) -> Array:
        """The logit of each row, [n]."""
        return np.asarray(rows @ self.weights + self.intercept, dtype=np.float64)

    def rescaled(self, slope: float, shift: float) -> Linear:
        """This logit times `slope` plus `shift`."""
        return Linear(slope * self.weights, slope * self.intercept + shift)


def fit_logistic(
    rows: Array,
    truth: Array,
    penalty: Array,
    is_rising: Array,
    weights: Array | None = None,
    iterations: int = 300,
    start: Linear | None = None,
) -> Linear:
    """In the precision of `rows`, minimise the weighted log loss plus `penalty` / 2 times the squared weights of the standardised columns.

    `is_rising` marks the columns whose weight must be at least 0. A constant column gets no weight.
    `start` is where to begin, which saves iterations and moves nothing.
    """
    share = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = share.sum()
    mean = np.average(rows, axis=0, weights=share)
    centred = rows - mean.astype(rows.dtype)
    spread = np.sqrt(np.average(centred**2, axis=0, weights=share))
    spread = np.where(spread < 1e-6, np.inf, spread)
    centred /= spread.astype(rows.dtype)
    target, part = truth.astype(rows.dtype), (share / total).astype(rows.dtype)
    ridge = penalty / total

    def loss(point: Array) -> tuple[float, Array]:
        here = point.astype(rows.dtype)
        logit = centred @ here[1:] + here[0]
        miss = part * (sigmoid(logit) - target)
        value = float((part * (np.logaddexp(0, logit) - target * logit)).sum()) + 0.5 * float((ridge * point[1:]) @ point[1:])
        gradient = np.concatenate([[miss.sum()], miss @ centred + ridge * point[1:]])
        return _LOSS_SCALE * value, _LOSS_SCALE * gradient.astype(np.float64)

    rate = float(np.clip(np.average(truth, weights=share), 1e-6, 1 - 1e-6))
    first = np.zeros(rows.shape[1] + 1)
    first[0] = np.log(rate / (1 - rate))
    if start is not None:
        first[1:] = start.weights * np.where(np.isinf(spread), 0.0, spread)
        first[0] = start.intercept + float(mean @ start.weights)
    bounds = [(None, None), *((0.0, None) if rising else (None, None) for rising in is_rising)]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations, "maxcor": 20})
    slopes = found.x[1:] / spread
    return Linear(slopes, float(found.x[0] - mean @ slopes))


def fit_platt(logit: Array, truth: Array) -> tuple[float, float]:
    """Slope (at least 0) and shift of the sigmoid calibration of held-out logits (Platt 1999)."""
    line = fit_logistic(logit[:, None].astype(np.float32), truth, np.array([1e-3]), np.array([True]))
    return float(line.weights[0]), line.intercept


def folds(strata: Array, count: int, seed: int, groups: Sequence[str] = ()) -> Iterator[tuple[Array, Array]]:
    """Places to fit on and places held out, `count` times; each stratum is spread evenly, and a group stays together.

    A stratum too small to be spread joins its neighbour.
    """
    if not groups:
        yield from StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(strata)), strata)
        return
    spread = strata.copy()
    for stratum, following in pairwise(np.unique(strata)):
        if (spread == stratum).sum() < count:
            spread[spread == stratum] = following
    last, before = spread.max(), np.unique(spread)[-2:][0]
    if (spread == last).sum() < count:
        spread[spread == last] = before
    yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(strata)), spread, np.asarray(groups))


def sigmoid(logit: Array) -> Array:
    """Probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
