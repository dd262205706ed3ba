"""`nabz-train priors`: how often each condition is seen here now, from recent cases that nobody has labelled.

Expectation maximisation over the model's own probabilities (Saerens et al. 2002): P(findings | condition) is taken to be what
it was, only the conditions' frequencies move. Shrunk to the catalogue's priors by pseudo-cases of each condition, as many as
a gamma distribution of the multipliers around one stands for, with a floor on deadly ones.
Trains nothing, and cannot tell a new condition, another way of asking or findings that are not written down from a shift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import load_bundle
from inference.casefile import read_cases
from inference.errors import DataError
from inference.priors import LARGEST_MULTIPLIER, Multiplier, Priors
from inference.symptoms import SymptomModel

Array = NDArray[Any]
METHOD = "EM (Saerens et al. 2002), shrunk by {} pseudo-cases of each condition; intervals by bootstrap over cases"
PSEUDO_CASES = 10.0  # of each condition: one that ten cases are expected of, and none seen, falls by half
FLOOR_SHARE, FLOOR_SEVERITY = 0.5, 2
LEAST_CASES = 50
_STEPS, _DRAWS = 100, 100
_ENOUGH = 1e-4
_TOLD = 1.25


def estimate_priors(folder: Path, cases: Path, threads: int = 1) -> Priors:
    """The priors from the cases in a file, of which those count whose findings the bundle in `folder` reads.

    Raises DataError with fewer than LEAST_CASES of them, CaseError or BundleError when a file cannot be used.
    """
    bundle = load_bundle(folder, threads=threads)
    model = SymptomModel(bundle)
    reads = [read for one in read_cases(cases) if (read := model.read(one.case)).findings]
    if len(reads) < LEAST_CASES:
        raise DataError(
            f"{cases}: {len(reads)} cases have findings, and at least {LEAST_CASES} are needed to say how often a condition is seen"
        )
    before, after = model.beliefs(reads)
    severity = np.array([label.severity or 5 for label in model.labels])
    value, is_floored = with_floor(shift_of(after, before), before.mean(axis=0), severity <= FLOOR_SEVERITY)
    low, high = _interval(after, before)
    return Priors(
        version=bundle.contract.version,
        bundle_sha256=bundle.sha256,
        n=len(reads),
        method=METHOD.format(int(PSEUDO_CASES)),
        floor_share=FLOOR_SHARE,
        floor_severity=FLOOR_SEVERITY,
        multipliers={
            label.name: Multiplier(
                value=float(value[place]), low=float(low[place]), high=float(high[place]), is_floored=bool(is_floored[place])
            )
            for place, label in enumerate(model.labels)
        },
    )


def moved(priors: Priors) -> list[str]:
    """A line for each condition whose whole interval is a quarter away from the catalogue's prior, or that the floor held up, most moved first."""
    found = [(name, one) for name, one in priors.multipliers.items() if one.low > _TOLD or one.high < 1 / _TOLD or one.is_floored]
    found.sort(key=lambda entry: -abs(np.log(entry[1].value)))
    return [
        f"{name}: {one.value:.2f} times the catalogue's prior (95 % interval {one.low:.2f} to {one.high:.2f})"
        + (f", held at the floor of {priors.floor_share:g} for deadly conditions" if one.is_floored else "")
        for name, one in found
    ]


def shift_of(after: Array, before: Array, pseudo_cases: float = PSEUDO_CASES) -> Array:
    """How many times as often as before each condition is seen, [C].

    `after` [n, C] has the conditions' probabilities given each case's findings, `before` [n, C] those for somebody of the
    same age, sex, season and place of whom nothing is known.
    """
    weights = np.ones(after.shape[1])
    for _ in range(_STEPS):
        responsible = after * weights
        responsible /= responsible.sum(axis=1, keepdims=True)
        exposed = before / (before @ weights)[:, None]
        new = (responsible.sum(axis=0) + pseudo_cases) / (exposed.sum(axis=0) + pseudo_cases)
        has_settled = np.abs(np.log(new / weights)).max() < _ENOUGH
        weights = new
        if has_settled:
            break
    found: Array = weights / (before.mean(axis=0) @ weights)
    return found


def with_floor(multipliers: Array, prior: Array, is_deadly: Array) -> tuple[Array, Array]:
    """The multipliers [C] with the floor on deadly conditions, and which of them it held up, [C].

    What the floor adds is taken from the other conditions, so that all still add up to one.
    """
    is_floored = is_deadly & (multipliers < FLOOR_SHARE)
    found = np.where(is_floored, FLOOR_SHARE, multipliers)
    deadly, rest = (prior * found)[is_deadly].sum(), (prior * found)[~is_deadly].sum()
    if rest > 0 and deadly < 1:
        found = np.where(is_deadly, found, found * (1 - deadly) / rest)
    bounded: Array = np.clip(found, 1 / LARGEST_MULTIPLIER, LARGEST_MULTIPLIER)
    return bounded, is_floored


def _interval(after: Array, before: Array) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS):
        rows = random.integers(0, len(after), len(after))
        draws.append(shift_of(after[rows], before[rows]))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high
