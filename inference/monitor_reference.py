"""The reference that drift is told from: how each feature was distributed, with its n. Shares and counts, never rows.

It lies in a bundle's contract (`reference`), or in a file that a service made of its own first weeks. It knows the format and
how to fill it; it compares nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.errors import BundleError, DataError
from inference.monitor_features import FINDING, SET_ASIDE, task_of
from inference.monitor_sample import Column, Sample, counts_of
from inference.monitor_statistics import calibration_fit, dispersion_of, odds_shift

Array = NDArray[Any]
BYTES_LIMIT = 200_000
KNOTS = 64  # values at which a distribution is kept
BINS = 10  # parts of a distribution that the stability index is taken over
FEW = "(few)"  # labels of less than LEAST_CELL cases, together
LEAST_CELL = 5
SMALL_CELL_FEATURES = frozenset({"district", "province"})  # free text of the sender
_LEAST_WEEKS, _LEAST_WEEK_CASES = 4, 50
_WEEK_DAYS = 7
_DIGITS = 6
_LARGEST_DISPERSION = 20.0
_LEAST_OUTCOMES = 30


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shares(_Frozen):
    """How many cases had each label. `dispersion`: how much more than by chance the shares vary from week to week, 1 or more."""

    kind: Literal["shares"] = "shares"
    counts: dict[str, int]
    dispersion: float = Field(default=1.0, ge=1)

    @property
    def n(self) -> int:
        """How many cases have a label."""
        return sum(self.counts.values())


class Numbers(_Frozen):
    """A distribution function: of `n` values `below[i]` are at most `knots[i]`; knots ascend, and the last is the largest value."""

    kind: Literal["numbers"] = "numbers"
    n: int = Field(ge=1)
    knots: tuple[float, ...] = Field(min_length=1)
    below: tuple[int, ...]
    dispersion: float = Field(default=1.0, ge=1)

    @model_validator(mode="after")
    def _ascends(self) -> Numbers:
        if len(self.knots) != len(self.below) or self.below[-1] != self.n:
            raise ValueError("below must have a count for each knot, the last one n")
        if any(a >= b for a, b in zip(self.knots, self.knots[1:], strict=False)) or list(self.below) != sorted(self.below):
            raise ValueError("knots must ascend, and below must not fall")
        return self

    def edges(self) -> Array:
        """The knots [at most BINS - 1] that part the values most evenly."""
        shares = np.array(self.below) / self.n
        wanted = np.arange(1, BINS) / BINS
        nearest = {int(np.abs(shares - one).argmin()) for one in wanted}
        return np.array([self.knots[place] for place in sorted(nearest) if self.below[place] < self.n])

    def binned(self) -> Array:
        """How many values lie between the edges, [edges + 1]."""
        place = dict(zip(self.knots, self.below, strict=True))
        return np.diff([0, *(place[edge] for edge in self.edges().tolist()), self.n])


class Calibration(_Frozen):
    """How emergency probabilities fitted the outcomes: calibration-in-the-large and slope with their standard errors.

    `constant` belongs to the slope; `shift_error` is the standard error of the log odds given both. See `monitor_statistics`.
    """

    n: int = Field(ge=1)
    events: int = Field(ge=0)
    expected: float
    intercept: float
    intercept_error: float
    constant: float
    slope: float
    slope_error: float
    shift_error: float


Feature = Annotated[Shares | Numbers, Field(discriminator="kind")]


class Reference(_Frozen):
    """Each feature's distribution over `n` cases. `source` says what they were, `is_synthetic` whether they were invented.

    `bundles` names the version of each model that scored them: scores of another version need not be alike.
    """

    format: Literal[1] = 1
    source: str
    is_synthetic: bool
    n: int = Field(ge=1)
    weeks: int = Field(default=0, ge=0)
    bundles: dict[str, str] = Field(default_factory=dict)
    features: dict[str, Feature]
    calibration: Calibration | None = None


def reference_of_sample(
    sample: Sample, source: str, *, is_synthetic: bool, task: str | None = None, outcomes: Mapping[str, bool] | None = None,
    bundles: Mapping[str, str] | None = None,
) -> Reference:  # fmt: skip
    """The reference of a sample; with `task` only the features that belong in that task's bundle.

    `outcomes` by case_id say which cases were emergencies. Week-to-week variation is measured where the sample spans at least
    four weeks of fifty cases. Raises DataError where nothing could be told.
    """
    weeks = _weeks(sample)
    wanted = {
        name: column
        for name, column in sample.columns.items()
        if not name.startswith(SET_ASIDE) and len(column.values) and (task is None or task_of(name) == task)
    }
    features = {name: _feature(name, column, weeks) for name, column in sorted(wanted.items())}
    if not features:
        raise DataError(f"{source}: none of the {sample.n} cases has anything that drift could be told from")
    return Reference(
        source=source,
        is_synthetic=is_synthetic,
        n=sample.n,
        weeks=int(weeks.max()) + 1 if weeks.max(initial=-1) >= 0 else 0,
        bundles=dict(bundles or {}),
        features=features,
        calibration=_calibration(sample, outcomes or {}) if task in (None, "acuity") else None,
    )


def _weeks(sample: Sample) -> Array:
    """The week of each case, [n], counted from the first day; -1 for all where there are too few of them."""
    if not sample.n:
        return np.empty(0, dtype=int)
    days = (sample.received - sample.received.min()).astype("timedelta64[D]").astype(int)
    found = days // _WEEK_DAYS
    is_enough = len(np.unique(found)) >= _LEAST_WEEKS and sample.n >= _LEAST_WEEK_CASES * (int(found.max()) + 1)
    return found if is_enough else np.full(sample.n, -1)


def _feature(name: str, column: Column, weeks: Array) -> Shares | Numbers:
    week = weeks[column.rows]
    if column.labels is not None:
        counts = {label: int(count) for label, count in zip(column.labels, counts_of(column, column.labels), strict=True)}
        if name in SMALL_CELL_FEATURES:
            counts = without_small_cells(counts)
        return Shares(counts=counts, dispersion=_dispersion(column.values, len(column.labels), week))
    numbers = numbers_of(column.values)
    places = np.searchsorted(numbers.edges(), column.values, side="left")
    return numbers.model_copy(update={"dispersion": _dispersion(places, len(numbers.edges()) + 1, week)})


def _dispersion(places: Array, cells: int, week: Array) -> float:
    if not len(week) or week.min() < 0:
        return 1.0
    table = np.zeros((int(week.max()) + 1, cells))
    np.add.at(table, (week, places), 1)
    return round(min(dispersion_of(table), _LARGEST_DISPERSION), 3)


def without_small_cells(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts with every label of fewer than LEAST_CELL cases in one cell: a few patients of one place can be known."""
    kept = {label: count for label, count in counts.items() if count >= LEAST_CELL and label != FEW}
    few = sum(counts.values()) - sum(kept.values())
    return kept | ({FEW: few} if few else {})


def numbers_of(values: Array) -> Numbers:
    """The distribution of values [n], n at least 1, at KNOTS places at most; values are rounded to six digits."""
    rounded = np.array([float(f"{value:.{_DIGITS}g}") for value in values.tolist()])
    unique = np.unique(rounded)
    if len(unique) > KNOTS:
        unique = np.unique(np.quantile(rounded, np.linspace(0, 1, KNOTS + 1)[1:], method="inverted_cdf"))
    below = np.searchsorted(np.sort(rounded), unique, side="right")
    return Numbers(n=len(rounded), knots=tuple(unique.tolist()), below=tuple(below.tolist()))


def _calibration(sample: Sample, outcomes: Mapping[str, bool]) -> Calibration | None:
    probability, outcome = known_outcomes(sample, outcomes)
    if len(outcome) < _LEAST_OUTCOMES:
        return None
    fit = calibration_fit(probability, outcome)
    _, shift_error = odds_shift(probability, outcome, fit.constant, fit.slope)
    if np.isnan([*fit, shift_error]).any():
        return None
    return Calibration(
        n=len(outcome), events=int(outcome.sum()), expected=float(probability.sum()), shift_error=shift_error, **fit._asdict()
    )  # fmt: skip


def known_outcomes(sample: Sample, outcomes: Mapping[str, bool]) -> tuple[Array, Array]:
    """Emergency probabilities and outcomes (0 or 1) of the cases that have both, [k] each."""
    column = sample.columns.get("emergency_probability")
    if column is None or not outcomes:
        return np.empty(0), np.empty(0)
    pairs = [
        (value, float(outcomes[sample.case_ids[row]]))
        for value, row in zip(column.values.tolist(), column.rows.tolist(), strict=True)
        if sample.case_ids[row] in outcomes
    ]
    found = np.array(pairs, dtype=float).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def reference_document(reference: Reference) -> dict[str, Any]:
    """The reference as plain JSON objects, for a contract or a file. Raises DataError beyond BYTES_LIMIT."""
    document: dict[str, Any] = reference.model_dump(mode="json")
    if (size := len(json.dumps(document, separators=(",", ":")))) > BYTES_LIMIT:
        raise DataError(f"the reference has {size} bytes, and at most {BYTES_LIMIT} go into a bundle: give it one task's features")
    return document


def read_reference(path: Path) -> Reference:
    """The reference in a file. Raises DataError when it cannot be read."""
    try:
        return Reference.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"the reference {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, one["loc"][:3])) or "the file" for one in error.errors()})[:3])
        raise DataError(f"the reference {path} cannot be used, at: {where}; write it with `nabz monitor --write-reference`") from error


def reference_of_contract(content: Mapping[str, Any], bundle: str) -> Reference:
    """The reference in a bundle's contract. Raises BundleError when there is none or it is not of this version."""
    if not content:
        raise BundleError(f"{bundle} carries no reference: make one of your own weeks with `nabz monitor --write-reference`")
    try:
        return Reference.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{bundle}: its reference is not of a version that is read here; make one of your own weeks") from error


def merged(references: Sequence[Reference]) -> Reference:
    """The references of several bundles as one: each carries its own features. Raises DataError for none."""
    if not references:
        raise DataError("no live bundle carries a reference: make one of your own weeks with `nabz monitor --write-reference`")
    if len(references) == 1:
        return references[0]
    return Reference(
        source="; ".join(dict.fromkeys(one.source for one in references)),
        is_synthetic=any(one.is_synthetic for one in references),
        n=min(one.n for one in references),
        bundles={task: version for one in references for task, version in one.bundles.items()},
        features={name: feature for one in references for name, feature in one.features.items()},
        calibration=next((one.calibration for one in references if one.calibration), None),
    )


def shares_without(code: str, n: int) -> Shares | None:
    """A finding that the reference never saw was unknown in all of its cases."""
    return Shares(counts={"unknown": n, "present": 0, "absent": 0}) if code.startswith(FINDING) else None
