"""The statistics of drift: how far two samples lie apart, how likely that is by chance, and which of many to believe.

Numbers in, numbers out, with numpy alone. It does not know cases, features, weeks or what an alarm should lead to.
"""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, inf, lgamma, log, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LEAST_EXPECTED = 5.0  # cases in a cell, below which the chi-square approximation is not trusted (Cochran 1954)
_SMOOTHING = 0.5  # a case added to each cell, so that an empty one has a logarithm (Jeffreys' prior)
_KOLMOGOROV_TERMS = 100
_TINY = 1e-12


def psi(reference: Array, recent: Array) -> float:
    """Population stability index of two rows of counts [cells]: sum of (q - p) ln(q / p); NaN where a row is empty.

    It is Jeffreys' divergence (1946). Credit scoring reads 0.1 as a moderate shift and 0.25 as a large one (Siddiqi 2006).
    """
    if reference.sum() <= 0 or recent.sum() <= 0:
        return nan
    p, q = (row + _SMOOTHING for row in (reference.astype(float), recent.astype(float)))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(reference: Array, recent: Array, dispersion: float = 1.0) -> float:
    """What the index is on average where nothing moved: (B - 1)(1/n + 1/m) over the B cells that any case is in.

    Where nothing moved, the index over (1/n + 1/m) is about chi-square with B - 1 degrees (Yurdakul and Naranjo 2020, J Risk
    Model Validation 14(4)). `dispersion` multiplies it: see `dispersion_of`.
    """
    m, n = float(reference.sum()), float(recent.sum())
    if m <= 0 or n <= 0:
        return nan
    cells = int(((reference + recent) > 0).sum())
    return (cells - 1) * (1 / n + 1 / m) * dispersion


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi-square with so many degrees of freedom >= value). A finite sum for whole degrees: Abramowitz and Stegun 26.4.4, 26.4.5."""
    if degrees < 1 or value <= 0:
        return 1.0
    half = value / 2
    if degrees % 2 == 0:
        logs = [k * log(half) - lgamma(k + 1) - half for k in range(degrees // 2)]
        return min(1.0, sum(exp(one) for one in logs))
    logs = [(k - 0.5) * log(half) - lgamma(k + 0.5) - half for k in range(1, (degrees - 1) // 2 + 1)]
    return min(1.0, erfc(sqrt(half)) + sum(exp(one) for one in logs))


def normal_tails(z: float) -> float:
    """P(|Z| >= |z|) of a standard normal."""
    return erfc(abs(z) / sqrt(2))


def kolmogorov_tail(distance: float, n: float, m: float) -> float:
    """P of a two-sample Kolmogorov-Smirnov distance at least so large, samples of n and m from one continuous distribution.

    Kolmogorov's series (Smirnov 1948) at (sqrt(e) + 0.12 + 0.11 / sqrt(e)) D with e = nm / (n + m): Stephens 1970, J R Stat
    Soc B 32:115-122. Ties, and a distance that is looked for at some places only, make it larger than it need be, never smaller.
    """
    if n <= 0 or m <= 0:
        return nan
    root = sqrt(n * m / (n + m))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    terms = np.arange(1, _KOLMOGOROV_TERMS + 1)
    return float(np.clip(2 * ((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2)).sum(), 0.0, 1.0))


def shares_tail(reference: Array, recent: Array, dispersion: float = 1.0) -> float:
    """P that two rows of counts [cells] of one distribution differ as much; NaN where a row is empty.

    Pearson's chi-square, rare cells together. Where there are rare cells, or more than three, each cell against all others as
    well by Fisher's exact test, and of both the smaller one, doubled (Bonferroni): a new district is one full cell among many.
    """
    reference, recent = (np.asarray(row, dtype=float) / dispersion for row in (reference, recent))
    m, n = reference.sum(), recent.sum()
    if m <= 0 or n <= 0:
        return nan
    filled = (reference + recent) > 0
    reference, recent = reference[filled], recent[filled]
    is_rare = (reference + recent) * min(n, m) / (n + m) < LEAST_EXPECTED
    chi = _pearson_tail(*_pooled(reference, recent, is_rare))
    if len(reference) <= 3 and not is_rare.any():
        return chi
    exact = min(fisher_tails(round(a), round(m), round(b), round(n)) for a, b in zip(reference, recent, strict=True))
    return min(1.0, 2 * min(chi, len(reference) * exact))


def fisher_tails(a: int, m: int, b: int, n: int) -> float:
    """P of `a` of m and `b` of n, or what is less likely on that side, doubled, where both shares are one (Fisher 1935)."""
    total, drawn = a + b, n
    if total == 0 or total == m + n:
        return 1.0
    counts = np.arange(max(0, total - m), min(total, drawn) + 1)
    logs = _choose(total, counts) + _choose(m + n - total, drawn - counts) - _choose(m + n, np.array([drawn]))
    weights = np.exp(logs)
    upper, lower = float(weights[counts >= b].sum()), float(weights[counts <= b].sum())
    return min(1.0, 2 * min(upper, lower))


def _choose(n: int, k: Array) -> Array:
    table = _log_factorials(1 << int(n + 1).bit_length())
    found: Array = table[n] - table[k] - table[n - k]
    return found


@lru_cache(maxsize=8)
def _log_factorials(size: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))])


def _pooled(reference: Array, recent: Array, is_rare: Array) -> tuple[Array, Array]:
    """The rows with their rare cells as one, which joins the fullest cell where it is still rare."""
    if not is_rare.any() or is_rare.all():
        return reference, recent
    kept, rest = [row[~is_rare] for row in (reference, recent)], [row[is_rare].sum() for row in (reference, recent)]
    n, m = recent.sum(), reference.sum()
    if sum(rest) * min(n, m) / (n + m) >= LEAST_EXPECTED:
        return np.append(kept[0], rest[0]), np.append(kept[1], rest[1])
    fullest = int(np.argmax(kept[0] + kept[1]))
    for row, extra in zip(kept, rest, strict=True):
        row[fullest] += extra
    return kept[0], kept[1]


def _pearson_tail(reference: Array, recent: Array) -> float:
    table = np.stack([reference, recent])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return chi_square_tail(float(((table - expected) ** 2 / np.maximum(expected, _TINY)).sum()), table.shape[1] - 1)


def dispersion_of(weeks: Array) -> float:
    """How many times as much the shares vary from week to week as chance alone would have it, 1 or more, of counts [weeks, cells].

    Pearson's chi-square over its degrees of freedom (McCullagh and Nelder 1989, 4.5), where it is more than chance explains
    (5 %); sample sizes are divided by it. Cells with few cases are left out, and so are weeks without any.
    """
    weeks = weeks[weeks.sum(axis=1) > 0].astype(float)
    if len(weeks) < 2:
        return 1.0
    expected = weeks.sum(axis=1, keepdims=True) * weeks.sum(axis=0) / weeks.sum()
    is_full = (expected >= LEAST_EXPECTED).all(axis=0)
    if is_full.sum() < 1 or len(is_full) < 2:
        return 1.0
    value = float(((weeks - expected) ** 2 / np.maximum(expected, _TINY))[:, is_full].sum())
    degrees = (len(weeks) - 1) * max(1, int(is_full.sum()) - int(is_full.all()))
    return value / degrees if value > degrees and chi_square_tail(value, degrees) < 0.05 else 1.0


def adjusted(tails: Array, families: Array) -> Array:
    """Holm's step-down p-values (1979) of p-values [tests] in families [tests]; the error rate is shared between the families.

    To call what is at most alpha keeps the chance of any false call among all tests at alpha, however they depend on one
    another. Each family has an equal part of alpha, so that a family of many tests costs one of few no power.
    NaN (not tested) stays NaN and costs nothing.
    """
    found = np.full(len(tails), nan)
    tested = ~np.isnan(tails)
    names = np.unique(families[tested])
    for name in names:
        rows = np.flatnonzero(tested & (families == name))
        order = rows[np.argsort(tails[rows], kind="stable")]
        steps = tails[order] * np.arange(len(order), 0, -1) * len(names)
        found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return found


class Fit(NamedTuple):
    """Calibration-in-the-large and slope with their standard errors; `constant` is the intercept beside the slope. NaN: undefined."""

    intercept: float
    intercept_error: float
    constant: float
    slope: float
    slope_error: float


UNDEFINED_FIT = Fit(nan, nan, nan, nan, nan)


def calibration_fit(probability: Array, outcome: Array) -> Fit:
    """How probabilities [n] fit outcomes 0 or 1 [n]; undefined where all outcomes are alike.

    Calibration-in-the-large is the intercept of a logistic fit with the logit as offset, 0 where as many fall ill as predicted;
    the slope is the coefficient of the logit, 1 where it is right, below 1 where the probabilities are too extreme (Cox 1958; Van
    Calster et al. 2019, BMC Med 17:230).
    """
    if not 0 < outcome.sum() < len(outcome):
        return UNDEFINED_FIT
    logit = _logit(probability)
    intercept, intercept_error = _newton(np.ones((len(logit), 1)), logit, outcome)
    both, errors = _newton(np.column_stack([np.ones(len(logit)), logit]), np.zeros(len(logit)), outcome)
    return Fit(float(intercept[0]), float(intercept_error[0]), float(both[0]), float(both[1]), float(errors[1]))


def odds_shift(probability: Array, outcome: Array, constant: float, slope: float) -> tuple[float, float]:
    """By how much the log odds of the outcome differ from constant + slope * logit, and the standard error.

    With the constant and slope of earlier cases: whether as many fall ill at the same probability as then. It does not move with
    the mix of probabilities, as the plain calibration-in-the-large of a model does that was never right.
    """
    if not 0 < outcome.sum() < len(outcome):
        return nan, nan
    value, error = _newton(np.ones((len(outcome), 1)), constant + slope * _logit(probability), outcome)
    return float(value[0]), float(error[0])


def _logit(probability: Array) -> Array:
    clipped = np.clip(probability.astype(float), 1e-4, 1 - 1e-4)
    found: Array = np.log(clipped / (1 - clipped))
    return found


def _newton(columns: Array, offset: Array, outcome: Array) -> tuple[Array, Array]:
    """A logistic regression by Newton's method: coefficients and standard errors; NaN where it does not settle.

    The errors hold where the probabilities are wrong in shape too (White 1982, Econometrica 50:1-25).
    """
    weights = np.zeros(columns.shape[1])
    nothing = np.full(columns.shape[1], nan)
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-np.clip(columns @ weights + offset, -30, 30)))
        information = (columns * (fitted * (1 - fitted))[:, None]).T @ columns + 1e-9 * np.eye(columns.shape[1])
        step = np.linalg.solve(information, columns.T @ (outcome - fitted))
        weights = weights + np.clip(step, -5, 5)
        if np.abs(weights).max() > 30:  # the outcomes are separated
            return nothing, nothing
        if np.abs(step).max() < 1e-9:
            scores = columns * (outcome - fitted)[:, None]
            inverse = np.linalg.inv(information)
            return weights, np.sqrt(np.diag(inverse @ (scores.T @ scores) @ inverse))
    return nothing, nothing


def ratio_interval(observed: float, expected: float, variance: float) -> tuple[float, float, float]:
    """Observed over expected with its 95 % interval on the log scale, by the variance of the observed (delta method)."""
    if observed <= 0 or expected <= 0:
        return (nan if expected <= 0 else 0.0), 0.0, inf if expected > 0 else nan
    half = 1.96 * sqrt(variance) / observed
    return observed / expected, observed / expected * exp(-half), observed / expected * exp(half)
