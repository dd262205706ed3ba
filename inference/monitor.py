"""Drift: recent cases against a reference, window by window, and which of the changes are alarms.

An alarm must be large (LEAST_EFFECT beyond chance) and unlikely by chance among all that is tested: within one window at
ALARM_LEVEL, or in two of three windows at WATCH_LEVEL. Samples in, a report out; it reads no file, runs no model and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from inference.monitor_features import FINDING, MODEL, Column, Sample, counts_of, family_of
from inference.monitor_reference import (
    FEW,
    LEAST_CELL,
    SMALL_CELL_FEATURES,
    Calibration,
    Numbers,
    Reference,
    Shares,
    known_outcomes,
    shares_without,
)
from inference.monitor_statistics import (
    adjusted,
    calibration_fit,
    kolmogorov_tail,
    normal_tails,
    psi,
    psi_by_chance,
    ratio_interval,
    shares_tail,
)
from inference.monitor_words import Evidence, advice_on, group_of, title_of, whereabouts

Array = NDArray[Any]
State = Literal["quiet", "watch", "alarm"]
ALARM_LEVEL = 0.01  # chance of any false alarm among all features of one window
WATCH_LEVEL = 0.05  # of any false watch; the same feature twice in three windows is an alarm
WATCHED_WINDOWS = 2  # windows before this one that count for that
LEAST_EFFECT = 0.02  # of the stability index beyond chance: about a seventh of a standard deviation
LEAST_VALUES = 30  # of a feature in a window, below which it is not tested
LEAST_INTERCEPT, LEAST_SLOPE = 0.25, 0.2  # smallest change of calibration that matters: a quarter more or fewer emergencies
LEAST_OUTCOMES = 50
DEFAULT_DAYS = 7
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN_CELLS = 6
_ECE_BINS, _ECE_DRAWS = 10, 200


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Frozen):
    """One label's share in [0, 1] then and now; `change` is what it adds to the stability index."""

    label: str
    reference: float
    recent: float
    change: float


class Change(_Frozen):
    """One feature then and now. NaN (null in JSON) is what could not be told.

    `psi_by_chance` is what the index is on average when nothing moved, `excess` the index beyond it; `p` is of this feature
    alone, `p_adjusted` among all. `since` counts the windows in a row in which it was at least a watch, this one included.
    """

    feature: str
    title: str
    family: str
    group: str
    kind: Literal["shares", "numbers", "calibration"]
    n_reference: int
    n_recent: int
    psi: float
    psi_by_chance: float
    excess: float
    p: float
    p_adjusted: float = nan
    state: State = "quiet"
    since: int = 0
    cells: tuple[Cell, ...] = ()
    reference_quantiles: tuple[float, ...] = ()
    recent_quantiles: tuple[float, ...] = ()
    where: str = ""
    meaning: str = ""
    advice: str = ""


class CalibrationNow(_Frozen):
    """How emergency probabilities fit the known outcomes of a window. Pairs are 95 % intervals."""

    n: int
    events: int
    expected: float
    observed_to_expected: float
    ratio_interval: tuple[float, float]
    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    ece: float
    ece_interval: tuple[float, float]


class WindowReport(_Frozen):
    """One window: [start, end), its cases, every feature's index, and what was at least a watch."""

    start: datetime | None
    end: datetime | None
    n: int
    changes: tuple[Change, ...]
    calibration: CalibrationNow | None = None

    @property
    def alarms(self) -> tuple[Change, ...]:
        """The alarms, largest first."""
        found = [one for one in self.changes if one.state == "alarm"]
        return tuple(sorted(found, key=lambda one: (-one.excess if one.excess == one.excess else -1.0, one.feature)))


class Report(_Frozen):
    """What `nabz monitor` found. The last window is the one that is judged; the others lead up to it."""

    format: Literal[1] = 1
    reference_source: str
    reference_is_synthetic: bool
    reference_n: int
    windows: tuple[WindowReport, ...]
    not_compared: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def last(self) -> WindowReport:
        """The window that is judged."""
        return self.windows[-1]


@dataclass(frozen=True)
class Window:
    """Cases of [start, end)."""

    sample: Sample
    start: datetime | None = None
    end: datetime | None = None


def windows_of(sample: Sample, days: int = DEFAULT_DAYS, last_end: datetime | None = None, most: int = 12) -> list[Window]:
    """The sample in windows of `days`, oldest first, the last one up to its newest case (or `last_end`, UTC); empty ones are left out."""
    if not sample.n:
        return []
    newest = np.datetime64(last_end.astimezone(UTC).replace(tzinfo=None), "s") if last_end else sample.received.max()
    end = newest + np.timedelta64(1, "s")  # times are whole seconds, rounded down
    length = np.timedelta64(days, "D")
    found = []
    for place in range(most - 1, -1, -1):
        upper = end - place * length
        chosen = (sample.received >= upper - length) & (sample.received < upper)
        if chosen.any():
            found.append(Window(sample.of_cases(chosen), (upper - length).astype(datetime), upper.astype(datetime)))
    return found


def monitor(
    reference: Reference, windows: Sequence[Window], *, names: Mapping[str, str] | None = None, outcomes: Mapping[str, bool] | None = None,
    notes: Sequence[str] = (),
) -> Report:  # fmt: skip
    """Compare each window with the reference. `names` are findings' and conditions' names by code; `outcomes` by case_id."""
    reports: list[WindowReport] = []
    for window in windows:
        reports.append(judged(reference, window, reports[-WATCHED_WINDOWS:], names or {}, outcomes or {}))
    seen = {name for window in windows for name in window.sample.columns if family_of(name)}
    missing = sorted(name for name in seen if name not in reference.features and not name.startswith((FINDING, "set_aside:")))
    return Report(
        reference_source=reference.source,
        reference_is_synthetic=reference.is_synthetic,
        reference_n=reference.n,
        windows=tuple(reports),
        not_compared=tuple(missing),
        notes=(*_notes_on(reference), *notes),
    )


def judged(
    reference: Reference, window: Window, before: Sequence[WindowReport], names: Mapping[str, str], outcomes: Mapping[str, bool]
) -> WindowReport:
    """One window, given the reports of the windows just before it."""
    changes = [change for name in _features(reference, window.sample) if (change := _change(reference, window.sample, name)) is not None]
    probability, outcome = known_outcomes(window.sample, outcomes)
    calibration = _calibration_now(probability, outcome)
    changes += _calibration_changes(reference.calibration, calibration)
    tails = adjusted(np.array([one.p for one in changes]), np.array([one.family for one in changes]))
    watched = [{one.feature for one in report.changes if one.state != "quiet"} for report in before]
    found = []
    for change, tail in zip(changes, tails.tolist(), strict=True):
        state = _state(change, tail, watched)
        update: dict[str, Any] = {"p_adjusted": tail, "state": state}
        if state != "quiet":
            update |= {"since": _since(change.feature, before), "title": title_of(change.feature, names)}
            update |= _explained(change, window.sample, names)
        found.append(change.model_copy(update=update))
    return WindowReport(start=window.start, end=window.end, n=window.sample.n, changes=tuple(found), calibration=calibration)


def _state(change: Change, tail: float, watched: Sequence[set[str]]) -> State:
    if not _is_large(change) or not tail <= WATCH_LEVEL:
        return "quiet"
    return "alarm" if tail <= ALARM_LEVEL or any(change.feature in names for names in watched) else "watch"


def _is_large(change: Change) -> bool:
    return change.excess >= LEAST_EFFECT


def _since(feature: str, before: Sequence[WindowReport]) -> int:
    count = 1
    for report in reversed(before):
        earlier = next((one for one in report.changes if one.feature == feature), None)
        if earlier is None or earlier.state == "quiet":
            break
        count = max(count + 1, earlier.since + 1)
        break
    return count


def _features(reference: Reference, sample: Sample) -> list[str]:
    """Every feature that the reference has, and findings that it never saw."""
    return [*reference.features, *(name for name in sample.columns if name.startswith(FINDING) and name not in reference.features)]


def _change(reference: Reference, sample: Sample, name: str) -> Change | None:
    then = reference.features.get(name) or shares_without(name, reference.n)
    column = sample.columns.get(name)
    if column is None and name.startswith(FINDING):
        column = Column(np.zeros(sample.n, dtype=np.int8), np.arange(sample.n), ("unknown", "present", "absent"))
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
        name, int(old.sum()), int(new.sum()), *rows, then.dispersion, tail, kind="shares", cells=_cells(list(old_counts), old, new)
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


def _cells(labels: Sequence[str], old: Array, new: Array) -> tuple[Cell, ...]:
    p, q = old / max(old.sum(), 1), new / max(new.sum(), 1)
    floor = 0.5 / max(new.sum(), 1)
    worth = (q - p) * np.log(np.maximum(q, floor) / np.maximum(p, floor))
    order = np.argsort(-worth, kind="stable")[:_SHOWN_CELLS]
    return tuple(Cell(label=labels[at], reference=float(p[at]), recent=float(q[at]), change=float(worth[at])) for at in order)


def _explained(change: Change, sample: Sample, names: Mapping[str, str]) -> dict[str, str]:
    column = sample.columns.get(change.feature)
    risen = next((cell.label for cell in change.cells if cell.recent > cell.reference), "")
    where = (
        whereabouts(sample, column, risen, change.reference_quantiles[2] if change.reference_quantiles else nan)
        if column is not None
        else ""
    )
    evidence = Evidence(
        change.feature, risen, {cell.label: (cell.reference, cell.recent) for cell in change.cells}, change.reference_quantiles,
        change.recent_quantiles, where, sample, names, change.excess,
    )  # fmt: skip
    meaning, advice = advice_on(evidence)
    return {"where": where, "meaning": meaning, "advice": advice}


def _calibration_now(probability: Array, outcome: Array) -> CalibrationNow | None:
    if not len(outcome):
        return None
    intercept, intercept_error, slope, slope_error = calibration_fit(probability, outcome) if len(outcome) >= LEAST_OUTCOMES else (nan,) * 4
    ratio, low, high = ratio_interval(float(outcome.sum()), float(probability.sum()), float((probability * (1 - probability)).sum()))
    random = np.random.default_rng(0)
    draws = [_ece(probability[rows], outcome[rows]) for rows in random.integers(0, len(outcome), (_ECE_DRAWS, len(outcome)))]
    return CalibrationNow(
        n=len(outcome), events=int(outcome.sum()), expected=float(probability.sum()), observed_to_expected=ratio, ratio_interval=(low, high),
        intercept=intercept, intercept_error=intercept_error, slope=slope, slope_error=slope_error, ece=_ece(probability, outcome),
        ece_interval=(float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))),
    )  # fmt: skip


def _ece(probability: Array, outcome: Array) -> float:
    """Expected calibration error, ten bins of equal width (Guo et al. 2017)."""
    places = np.minimum((probability * _ECE_BINS).astype(int), _ECE_BINS - 1)
    return float(np.abs(np.bincount(places, outcome - probability, minlength=_ECE_BINS)).sum() / len(outcome))


def _calibration_changes(then: Calibration | None, now: CalibrationNow | None) -> list[Change]:
    """The change of intercept and slope, each against what the reference had (or 0 and 1 where it knows no outcomes)."""
    if now is None or now.n < LEAST_OUTCOMES:
        return []
    pairs = (
        ("calibration:in_the_large", now.intercept, now.intercept_error, then.intercept if then else 0.0, then.intercept_error if then else 0.0, LEAST_INTERCEPT),
        ("calibration:slope", now.slope, now.slope_error, then.slope if then else 1.0, then.slope_error if then else 0.0, LEAST_SLOPE),
    )  # fmt: skip
    found = []
    for name, value, error, old, old_error, least in pairs:
        gap, spread = value - old, sqrt(error**2 + old_error**2)
        tail = normal_tails(gap / spread) if spread > 0 else nan
        # The index knows no calibration: the gap is put on its scale, so that the smallest that matters is LEAST_EFFECT.
        excess = LEAST_EFFECT * abs(gap) / least
        found.append(
            Change(
                feature=name, title=name, family=MODEL, group=group_of(MODEL), kind="calibration", n_reference=then.n if then else 0,
                n_recent=now.n, psi=nan, psi_by_chance=nan, excess=excess, p=tail,
                reference_quantiles=(old,) * len(_QUANTILES), recent_quantiles=(value,) * len(_QUANTILES),
            )
        )  # fmt: skip
    return found


def _notes_on(reference: Reference) -> tuple[str, ...]:
    if not reference.is_synthetic:
        return ()
    return (
        "the reference is of invented cases, and any real clinic differs from it at once: make one of your own first weeks with "
        "`nabz monitor CASES --write-reference FILE`, and compare with that",
    )
