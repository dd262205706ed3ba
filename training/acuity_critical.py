"""The critical head: from visits' features to a calibrated logit of critical care, each year held out from the others.

Arrays in, weights out; it reads no file and writes none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.acuity import AcuityEncoder
from training import nhamcs
from training.acuity_fitting import Linear, fit_logistic, fit_platt

Array = NDArray[Any]
Tell = Callable[[str, float | None], None]
PRODUCTS = ("_by_age", "_by_chronic", "_in_ambulance", "_by_strain")


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters, chosen on each year up to 2018 held out from the others; nothing was chosen by the figures of 2019."""

    penalty: float = 100.0
    product_penalty: float = 10_000.0
    lossy_weight: float = 1.0
    iterations: int = 200


@dataclass(frozen=True)
class CriticalRows:
    """Features [2n, F] of n visits as they are and then as a telemedicine case might bring them, with outcome and year [2n].

    `is_rising` and `is_product` [F] say which columns may not lower the risk and which multiply two others.
    """

    rows: NDArray[np.float32]
    is_critical: NDArray[np.int64]
    year: NDArray[np.int64]
    is_rising: NDArray[np.bool_]
    is_product: NDArray[np.bool_]


@dataclass(frozen=True)
class CriticalHead:
    """The calibrated head, its `calibration` (slope and shift), and the log loss on each year by a head of the other years."""

    head: Linear
    calibration: dict[str, float]
    held_out_loss: float


def critical_rows(visits: nhamcs.Visits, encoder: AcuityEncoder, is_rising: NDArray[np.bool_], seed: int) -> CriticalRows:
    """Encode the visits, once as they are and once with losses drawn by `seed`."""
    full = nhamcs.encode(visits, encoder)
    rows = np.concatenate([full, nhamcs.encode_with_loss(visits, encoder, np.random.default_rng(seed))])
    is_product = np.array([_is_product(name, encoder) for name in encoder.names])
    return CriticalRows(rows, np.tile(visits.is_critical, 2), np.tile(visits.year, 2), is_rising, is_product)


def fit_critical(data: CriticalRows, recipe: Recipe, tell: Tell) -> CriticalHead:
    """Fit on all years, and on all but each one to calibrate; `tell` hears what was fitted and its held-out log loss so far."""
    half = len(data.rows) // 2
    weights = np.repeat([1.0, recipe.lossy_weight], half)
    penalty = np.where(data.is_product, recipe.product_penalty, recipe.penalty)

    def fit(chosen: Array, start: Linear | None = None) -> Linear:
        iterations = recipe.iterations if start is None else recipe.iterations // 3
        return fit_logistic(data.rows[chosen], data.is_critical[chosen], penalty, data.is_rising, weights[chosen], iterations, start)

    logit, losses = np.zeros(len(data.rows)), np.full(len(data.rows), np.nan)
    whole = fit(np.arange(len(data.rows)))
    tell("all years", None)
    for held_year in np.unique(data.year):
        held = data.year == held_year
        logit[held] = fit(np.flatnonzero(~held), whole).logit(data.rows[held])
        losses[held] = np.logaddexp(0, logit[held]) - data.is_critical[held] * logit[held]
        tell(f"without {held_year}", float(np.nanmean(losses)))
    slope, shift = fit_platt(logit[:half], data.is_critical[:half])
    return CriticalHead(whole.rescaled(slope, shift), {"slope": slope, "shift": shift}, float(losses.mean()))


def _is_product(name: str, encoder: AcuityEncoder) -> bool:
    return any(name == f"{group}{term}" for term in PRODUCTS if name.endswith(term) for group in encoder.groups)
