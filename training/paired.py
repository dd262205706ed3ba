"""Differences between two models on the same cases: paired bootstrap intervals, and McNemar's exact test for rates.

Arrays in, numbers out. Knows no tasks, files or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.metrics import Interval, Statistic, mean, percentile_interval, resamples, wilson_interval

Array = NDArray[Any]
Better = Literal["lower", "higher"]
REPEATS = 500


@dataclass(frozen=True)
class Measure:
    """One figure before it is computed: `statistic(*arrays)` over the cases of `rows` [n]; arrays are [n] or [n, k].

    A rate's only array is 0 or 1 for each case, and its statistic the mean.
    """

    statistic: Statistic
    arrays: tuple[Array, ...]
    rows: NDArray[np.bool_]
    better: Better
    is_rate: bool = False
    repeats: int = REPEATS


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure under both models, `change` = challenger - champion with its paired interval, and which way is better.

    For rates `worse` and `improved` count the cases that only the challenger, and only the champion, gets wrong, and `p_value`
    is McNemar's exact two-sided one (McNemar 1947); NaN for other figures.
    """

    champion: Interval
    challenger: Interval
    change: Interval
    better: Better
    worse: int = 0
    improved: int = 0
    p_value: float = nan

    @property
    def harm(self) -> Interval:
        """The change with its sign turned so that more is worse."""
        if self.better == "lower":
            return self.change
        return Interval(-self.change.value, -self.change.high, -self.change.low, self.change.n)

    def as_json(self) -> dict[str, Any]:
        """The difference as JSON holds it: null for what is undefined."""
        parts = {"champion": self.champion, "challenger": self.challenger, "change": self.change}
        p_value = None if isnan(self.p_value) else self.p_value
        return {
            **{name: interval.as_json() for name, interval in parts.items()},
            "better": self.better, "worse": self.worse, "improved": self.improved, "mcnemar_p": p_value,
        }  # fmt: skip


def rate(happened: Array, rows: NDArray[np.bool_], better: Better = "lower") -> Measure:
    """The share of the cases of `rows` for which it `happened` [n]."""
    return Measure(mean, (np.asarray(happened, dtype=np.float64),), rows, better, is_rate=True)


def compared(champion: Measure, challenger: Measure, patients: Array, rows: NDArray[np.bool_] | None = None) -> Difference:
    """Both models' figure on the same cases (of `rows` [n] only), whole patients drawn together. NaN with n = 0 where there are none."""
    chosen = champion.rows if rows is None else champion.rows & rows
    n = int(chosen.sum())
    if n == 0:
        nothing = Interval(nan, nan, nan, 0)
        return Difference(nothing, nothing, nothing, champion.better)
    before, after = ([array[chosen] for array in one.arrays] for one in (champion, challenger))
    groups = patients[chosen]
    is_alone = len(np.unique(groups)) == n
    if champion.is_rate and is_alone:
        return _rates_compared(before[0], after[0], champion)
    draws = np.array(
        [
            (champion.statistic(*(array[places] for array in before)), challenger.statistic(*(array[places] for array in after)))
            for places in resamples(n, None if is_alone else groups, champion.repeats)
        ]
    )
    old, new = champion.statistic(*before), challenger.statistic(*after)
    change = percentile_interval(new - old, draws[:, 1] - draws[:, 0], n)
    if champion.is_rate:
        return _of_rates(before[0], after[0], change, champion.better)
    return Difference(percentile_interval(old, draws[:, 0], n), percentile_interval(new, draws[:, 1], n), change, champion.better)


def _rates_compared(before: Array, after: Array, measure: Measure) -> Difference:
    """As resampling each case: how many of n drawn cases are discordant, and which way, is multinomial."""
    n = len(before)
    up, down = int((after > before).sum()), int((after < before).sum())
    counts = np.random.default_rng(0).multinomial(n, [up / n, down / n, max(0.0, 1 - (up + down) / n)], measure.repeats)
    change = percentile_interval((up - down) / n, (counts[:, 0] - counts[:, 1]) / n, n)
    return _of_rates(before, after, change, measure.better)


def _of_rates(before: Array, after: Array, change: Interval, better: Better) -> Difference:
    n = len(before)
    up, down = int((after > before).sum()), int((after < before).sum())
    worse, improved = (up, down) if better == "lower" else (down, up)
    old, new = (wilson_interval(round(float(rates.sum())), n) for rates in (before, after))
    return Difference(old, new, change, better, worse, improved, mcnemar(worse, improved))


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p-value that two discordant counts are of equal chance (McNemar 1947); 1 without any."""
    from scipy.stats import binomtest

    return 1.0 if one + other == 0 else float(binomtest(one, one + other, 0.5).pvalue)


def holm(p_values: Array) -> Array:
    """Holm's (1979) adjusted p-values, [n], in the order given."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(p_values[order] * np.arange(len(order), 0, -1), 1.0))
    adjusted = np.empty(len(order))
    adjusted[order] = stepped
    return adjusted
