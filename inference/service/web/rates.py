"""Shares with their intervals, and quantiles, as the pages' figures need them. NaN where there is nothing to divide by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Final

import numpy as np

_Z95: Final = 1.959964  # of the normal distribution: two-sided 95 %


@dataclass(frozen=True, slots=True)
class Rate:
    """`k` of `n`: the share and its 95 % interval, all in [0, 1]; NaN when n is 0."""

    k: int
    n: int
    share: float
    low: float
    high: float


def rate(k: int, n: int) -> Rate:
    """A share with its Wilson score interval (Wilson, J Am Stat Assoc 1927; 22: 209-212), which also holds for 0 of n and n of n."""
    if n == 0:
        return Rate(k, n, nan, nan, nan)
    share, square = k / n, _Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * sqrt(share * (1 - share) / n + square / (4 * n**2))
    return Rate(k, n, share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def pooled(rates: Iterable[Rate]) -> Rate:
    """The rate of all of them together."""
    found = list(rates)
    return rate(sum(one.k for one in found), sum(one.n for one in found))


def quantile(values: Sequence[float], at: float) -> float:
    """The value below which the share `at` of the values lies, between two of them where none is there; NaN of nothing."""
    return float(np.quantile(values, at)) if len(values) else nan
