"""From waits to answers: intervals over replications, policies side by side, the readers needed to keep the caps.

A replication gives one figure per group of cases; the interval is Student's t over replications, 95 %, and of the
paired difference where two policies read the same cohort. Knows nothing of screens and files.

The groups are the true levels, and `EMERGENCIES`: levels 1 and 2 together, without the cases that interrupt anyway.
Waits are the patient's, so a case that was ranked too low counts with its long wait at its true level, against the
cap of its true level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import atan, cos, nan, pi, sin, sqrt

import numpy as np

from inference.policy import LEVELS, Policy
from inference.service.simulation import waits
from inference.service.simulation_arrivals import Bools, Cohort, Floats, draw_cohort
from inference.service.simulation_orders import ORDERS
from inference.service.simulation_scenario import Scenario

EMERGENCIES = 0  # the group's number; the others have their level's
GROUPS = (EMERGENCIES, *LEVELS)
MEASURES = ("mean", "p95", "past_cap", "known", "unknown", "cases")
_CONFIDENCE = 0.95
CRITERION = (
    "the smallest number of readers with which, at every true level, the 95th percentile of the wait (mean over replications) "
    "is within the level's cap"
)
_MOST_READERS_FACTOR, _MOST_READERS_MORE = 3, 12
_FEW, _FAR_BEYOND = 4, 1.5

Figures = dict[str, Floats]  # by policy: one row a group, one column a measure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over replications with its 95 % interval; NaN where `replications` that had such a case are fewer than 2."""

    value: float
    low: float
    high: float
    replications: int


def estimate(values: Sequence[float] | Floats) -> Estimate:
    """Student's t interval of the mean; replications without a case of the group (NaN) are left out and not counted."""
    there = np.asarray(values, dtype=float)
    there = there[np.isfinite(there)]
    if len(there) < 2:
        return Estimate(float(there[0]) if len(there) else nan, nan, nan, len(there))
    half = t_quantile(len(there) - 1) * float(there.std(ddof=1)) / sqrt(len(there))
    mean = float(there.mean())
    return Estimate(mean, mean - half, mean + half, len(there))


def t_quantile(freedom: int, confidence: float = _CONFIDENCE) -> float:
    """The two-sided quantile of Student's t: bisection of its distribution in closed form (Abramowitz & Stegun 26.7.3-4)."""
    low, high = 0.0, 1e4
    while high - low > 1e-10 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < confidence else (low, middle)
    return high


def _t_within(value: float, freedom: int) -> float:
    """P(|T| <= value)."""
    angle = atan(value / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(3 if odd else 2, freedom - 1, 2):
        term *= cos(angle) ** 2 * (step - 1) / step
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def replicate(scenario: Scenario, orders: Iterable[str], policy: Policy, seed: np.random.SeedSequence, readers: int) -> Figures:
    """One replication: the same cohort read under every order."""
    cohort = draw_cohort(scenario, seed)
    return {
        name: _figures(cohort, waits(cohort, ORDERS[name](cohort, scenario, policy), readers, preemptive=scenario.preemptive), policy)
        for name in orders
    }


def _figures(cohort: Cohort, wait: Floats, policy: Policy) -> Floats:
    cap = np.array([nan, *(policy.levels[level].cap_minutes for level in LEVELS)])[cohort.true_level]
    rows = []
    for group in GROUPS:
        of_group = (cohort.true_level <= 2) & ~cohort.interrupting if group == EMERGENCIES else cohort.true_level == group
        chosen = of_group & cohort.measured
        rows.append(
            (
                _mean(wait, chosen),
                float(np.quantile(wait[chosen], 0.95)) if chosen.any() else nan,
                _mean((wait > cap).astype(float), chosen),
                _mean(wait, chosen & cohort.known),
                _mean(wait, chosen & ~cohort.known),
                float(chosen.sum()),
            )
        )
    return np.array(rows)


def _mean(values: Floats, chosen: Bools) -> float:
    return float(values[chosen].mean()) if chosen.any() else nan


def readers_needed(
    scenario: Scenario, order: str, policy: Policy, seeds: Sequence[np.random.SeedSequence], figures: Sequence[Figures]
) -> int | None:
    """By CRITERION, searched upwards from what the work needs at least; None when even the most readers tried miss a cap.

    `figures` are the replications with the scenario's own readers, which need not be run again.
    """
    fewest = int(scenario.offered_readers) + 1
    for readers in range(fewest, _MOST_READERS_FACTOR * fewest + _MOST_READERS_MORE + 1):
        if readers == scenario.readers:
            kept = _keeps_caps([one[order] for one in figures], policy, 1.0)
        else:
            few = [replicate(scenario, (order,), policy, seed, readers)[order] for seed in seeds[:_FEW]]
            # far beyond a cap already: the other replications would not change the answer
            kept = _keeps_caps(few, policy, _FAR_BEYOND) and _keeps_caps(
                [*few, *(replicate(scenario, (order,), policy, seed, readers)[order] for seed in seeds[_FEW:])], policy, 1.0
            )
        if kept:
            return readers
    return None


def _keeps_caps(figures: Sequence[Floats], policy: Policy, factor: float) -> bool:
    """Whether every level's 95th percentile, averaged over replications that had such cases, is within factor x cap."""
    for level in LEVELS:
        p95 = np.array([one[GROUPS.index(level), MEASURES.index("p95")] for one in figures])
        there = p95[np.isfinite(p95)]
        if len(there) and there.mean() > factor * policy.levels[level].cap_minutes:
            return False
    return True


Pick = Callable[[str, int, str], Floats]


def picker(replications: Sequence[Figures]) -> Pick:
    """Looks up one figure's values over replications: (order, group, measure)."""

    def pick(order: str, group: int, measure: str) -> Floats:
        return np.array([figures[order][GROUPS.index(group), MEASURES.index(measure)] for figures in replications])

    return pick
