"""How far each feature of a sample lies from the reference, and how likely that is by chance. Calls nothing an alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.monitor_features import FINDING, STATES, family_of
from inference.monitor_reference import FEW, LEAST_CELL, SMALL_CELL_FEATURES, Numbers, Reference, Shares, shares_without
from inference.monitor_report import Cell, Change
from inference.monitor_sample import Column, Sample, counts_of
from inference.monitor_statistics import kolmogorov_tail, psi, psi_by_chance, shares_tail
from inference.monitor_words import group_of

Array = NDArray[Any]
LEAST_VALUES = 30  # of a feature in a window, below which it is not tested
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN_CELLS = 6


def changes_of(reference: Reference, sample: Sample) -> list[Change]:
    """Every feature that the reference has or, of findings, that came new, with its index and its p-value alone."""
    return [change for name in _features(reference, sample) if (change := _change(reference, sample, name)) is not None]


def _features(reference: Reference, sample: Sample) -> list[str]:
    """Every feature that the reference has, and findings that it never saw."""
    return [*reference.features, *(name for name in sample.columns if name.startswith(FINDING) and name not in reference.features)]


def _change(reference: Reference, sample: Sample, name: str) -> Change | None:
    then = reference.features.get(name) or shares_without(name, reference.n)
    column = sample.columns.get(name)
    if column is None and name.startswith(FINDING):
        column = Column(np.zeros(sample.n, dtype=np.int8), np.arange(sample.n), STATES)
    if then is None or column is None or not len(column.values) or (column.labels is None) != isinstance(then, Numbers):
        return None
    return _numbers_change(name, then, column) if isinstance(then, Numbers) else _shares_change(name, then, column)


def _numbers_change(name: str, then: Numbers, column: Column) -> Change:
    recent = np.array([float(f"{value:.6g}") for value in column.values.tolist()])
    n, edges = len(recent), then.edges()
    old = then.binned()
    new = np.bincount(np.searchsorted(edges, recent, side="left"), minlength=len(edges) + 1)
    distance = np.abs(np.searchsorted(np.sort(recent), then.knots, side="right") / n - np.array(then.below) / then.n).max()
    spread = then.dispersion
    shares = np.array(then.below) / then.n
    quantiles = tuple(then.knots[min(int(np.searchsorted(shares, share - 1e-9)), len(then.knots) - 1)] for share in _QUANTILES)
    return _measured(
        name, then.n, n, old, new, spread, kolmogorov_tail(float(distance), n / spread, then.n / spread),
        kind="numbers", reference_quantiles=quantiles, recent_quantiles=tuple(np.quantile(recent, _QUANTILES).tolist()),
    )  # fmt: skip


def _shares_change(name: str, then: Shares, column: Column) -> Change:
    old_counts, new_counts = _on_one_list(
        name, then.counts, dict(zip(column.labels or (), counts_of(column, column.labels or ()), strict=True))
    )
    old, new = np.array(list(old_counts.values()), dtype=float), np.array(list(new_counts.values()), dtype=float)
    # More cells than about the root of the cases only add noise to the index: it is taken over the fullest, the rest together.
    rows = _fullest(old, new)
    tail = shares_tail(old, new, then.dispersion)
    return _measured(
        name,
        int(old.sum()),
        int(new.sum()),
        *rows,
        then.dispersion,
        tail,
        kind="shares",
        cells=_cells(list(old_counts), old, new, least=LEAST_CELL if name in SMALL_CELL_FEATURES else 0),
    )


def _measured(name: str, m: int, n: int, old: Array, new: Array, dispersion: float, tail: float, **more: Any) -> Change:
    index, chance = psi(old, new), psi_by_chance(old, new, dispersion)
    return Change(
        feature=name, title=name, family=family_of(name), group=group_of(family_of(name)), n_reference=m, n_recent=n,
        psi=index, psi_by_chance=chance, excess=index - chance, p=tail if n >= LEAST_VALUES else nan, **more,
    )  # fmt: skip


def _on_one_list(name: str, old: Mapping[str, int], new: Mapping[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Both counts over the same labels. Where small cells are hidden, a new label may have been one of them."""
    few = old.get(FEW, 0)
    hides = name in SMALL_CELL_FEATURES
    kept = {label: count for label, count in new.items() if not hides or label in old or count >= LEAST_CELL}
    lost = sum(new.values()) - sum(kept.values())
    labels = list(dict.fromkeys([*old, *kept, *([FEW] if lost else [])]))
    then = {label: float(old.get(label, min(few, LEAST_CELL - 1) if hides else 0)) for label in labels}
    if lost and FEW not in old:
        then[FEW] = 0.0
    now = {label: float(kept.get(label, 0) + (lost if label == FEW else 0)) for label in labels}
    return then, now


def _fullest(old: Array, new: Array, most: int = 20) -> tuple[Array, Array]:
    if len(old) <= most:
        return old, new
    weight = old / max(old.sum(), 1) + new / max(new.sum(), 1)
    order = np.argsort(-weight, kind="stable")
    kept, rest = order[: most - 1], order[most - 1 :]
    return np.append(old[kept], old[rest].sum()), np.append(new[kept], new[rest].sum())


def _cells(labels: Sequence[str], old: Array, new: Array, least: int) -> tuple[Cell, ...]:
    """The labels that moved most; one that has cases, but fewer than `least`, is not shown."""
    p, q = old / max(old.sum(), 1), new / max(new.sum(), 1)
    floor = 0.5 / max(new.sum(), 1)
    worth = (q - p) * np.log(np.maximum(q, floor) / np.maximum(p, floor))
    shown = [at for at in np.argsort(-worth, kind="stable").tolist() if new[at] == 0 or new[at] >= least or labels[at] == FEW]
    order = shown[:_SHOWN_CELLS]
    return tuple(Cell(label=labels[at], reference=float(p[at]), recent=float(q[at]), change=float(worth[at])) for at in order)
