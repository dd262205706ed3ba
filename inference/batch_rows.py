"""The rows of a ranked batch: what a columnar worklist says of each case, from arrays and from single assessments alike.

docs/batch.md says what every column means. Words that explain (reasons, differential by name) stay with `nabz assess`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.assessment import Assessment
from inference.batch_order import OrderKeys, microseconds, order_keys
from inference.case import CaseReading
from inference.columns import CaseColumns
from inference.columns_rules import Rule
from inference.columns_triage import Assessed, ColumnTriage, Ragged
from inference.parquet import parquet_library
from inference.policy import LEVELS, Policy
from inference.rules import RED_LEVELS, assess_floor
from inference.triage import DEFAULT_SPECIALTY, SILENT, Triage, outside_scope

SCORED_BY = ("models and rules", "rules alone", "nothing")
# Columns that the merging needs and the output does not show.
KEYS = ("is_past_cap", "deadline")


class RowWriter:
    """Makes Arrow tables of ranked rows, all of one schema, with the names of one triage's models, rules and policy."""

    def __init__(self, triage: Triage, columns: ColumnTriage | None, rules: Sequence[Rule]) -> None:
        """`columns` is None where a model is missing, and no row goes the columnar way."""
        self._policy: Policy = triage.policy
        symptoms = triage.models.symptoms
        self._conditions = [label.name for label in symptoms.labels] if symptoms else []
        self._specialties = list(columns.specialties if columns else sorted({*self._labelled(triage), DEFAULT_SPECIALTY, "dermatology"}))
        self._rules = list(rules)
        self._outside = outside_scope(len(self._conditions))
        self._places: Mapping[str, Mapping[str, int]] = {
            name: {one: place for place, one in enumerate(names)}
            for name, names in (
                ("conditions", self._conditions),
                ("specialties", self._specialties),
                ("rules", [r.id for r in self._rules]),
            )
        }

    @staticmethod
    def _labelled(triage: Triage) -> set[str]:
        return {label.specialty or DEFAULT_SPECIALTY for label in triage.models.symptoms.labels} if triage.models.symptoms else set()

    def from_columns(self, columns: CaseColumns, found: Assessed, rows: NDArray[np.int64], sequence: int, now: datetime) -> Any:
        """The table of some plain rows of a batch whose first row is the input's `sequence`th."""
        library = parquet_library()
        received = np.where(columns.is_dated, columns.received, microseconds(now))[rows]
        emergency = found.emergency[rows]
        keys = order_keys(found.level[rows], np.nan_to_num(emergency), received, self._policy, now)
        why = _true_places(np.stack([found.is_silent[rows], found.is_outside_scope[rows]]))
        leading = found.leading[rows]
        is_told = leading[:, 0] >= 0
        return self._table(
            case_ids=columns.case_ids.take(library.array(rows)),
            sequence=sequence + rows,
            keys=keys,
            emergency=emergency,
            critical=found.critical[rows],
            floor_level=found.floor_level[rows],
            scored_by=np.where(found.is_scored[rows], 0, SCORED_BY.index("nothing")),
            rules=_true_places(found.fired[:, rows]),
            conditions=_rows_of(leading, is_told),
            probability=found.probability[rows][is_told].ravel(),
            prediction_set=_taken(found.prediction_set, rows),
            specialty=found.specialty[rows],
            is_outside=found.is_outside_scope[rows],
            why=library.ListArray.from_arrays(
                library.array(why.offsets, library.int32()), library.array([SILENT, self._outside]).take(library.array(why.places))
            ),
        )

    def from_assessments(
        self, readings: Sequence[CaseReading], told: Sequence[Assessment], sequence: NDArray[np.int64], now: datetime
    ) -> Any:
        """The table of cases that went their own way; `sequence` is each one's place in the input."""
        received = np.array([microseconds(datetime.fromisoformat(one.received_at)) for one in told], dtype=np.int64)
        emergency = np.array([_number(one.emergency_probability) for one in told], dtype=np.float64)
        level = np.array([one.level for one in told], dtype=np.int64)
        fired = [assess_floor(reading.case, one.findings).fired for reading, one in zip(readings, told, strict=True)]
        return self._table(
            case_ids=parquet_library().array([one.case_id for one in told], parquet_library().string()),
            sequence=sequence,
            keys=order_keys(level, np.nan_to_num(emergency), received, self._policy, now),
            emergency=emergency,
            critical=np.array([_number(one.critical_probability) for one in told], dtype=np.float64),
            floor_level=np.array([one.floor_level for one in told], dtype=np.int64),
            scored_by=np.array([SCORED_BY.index(one.scored_by) for one in told], dtype=np.int64),
            rules=self._ragged("rules", [[rule.id for rule in rules] for rules in fired]),
            conditions=self._ragged("conditions", [[one.condition for one in each.differential] for each in told]),
            probability=np.array([one.probability for each in told for one in each.differential], dtype=np.float64),
            prediction_set=self._ragged("conditions", [each.prediction_set for each in told]),
            specialty=np.array([self._places["specialties"][one.specialty] for one in told], dtype=np.int64),
            is_outside=np.array([one.is_outside_scope for one in told], dtype=bool),
            why=parquet_library().array([list(one.review.why) for one in told], parquet_library().list_(parquet_library().string())),
        )

    def _ragged(self, kind: str, names: Sequence[Sequence[str]]) -> Ragged:
        places = self._places[kind]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in names])]).astype(np.int64)
        return Ragged(offsets, np.array([places[name] for one in names for name in one], dtype=np.int64))

    def _table(
        self,
        *,
        case_ids: Any,
        sequence: NDArray[np.int64],
        keys: OrderKeys,
        emergency: NDArray[np.float64],
        critical: NDArray[np.float64],
        floor_level: NDArray[np.int64],
        scored_by: NDArray[np.int64],
        rules: Ragged,
        conditions: Ragged,
        probability: NDArray[np.float64],
        prediction_set: Ragged,
        specialty: NDArray[np.int64],
        is_outside: NDArray[np.bool_],
        why: Any,
    ) -> Any:
        library = parquet_library()
        levels = [self._policy.levels[one] for one in LEVELS]
        red = np.isin([rule.level for rule in self._rules], RED_LEVELS)
        return library.table(
            {
                "case_id": case_ids,
                "level": library.array(keys.level, library.int8()),
                "level_name": _named(keys.level - 1, [one.name for one in levels]),
                "wait_cap_minutes": library.array(np.array([one.cap_minutes for one in levels])[keys.level - 1], library.int32()),
                "received_at": library.array(keys.received, library.timestamp("us", "UTC")),
                "emergency_probability": library.array(emergency, library.float64(), mask=np.isnan(emergency)),
                "critical_probability": library.array(critical, library.float64(), mask=np.isnan(critical)),
                "floor_level": library.array(floor_level, library.int8()),
                "scored_by": _named(scored_by, SCORED_BY),
                "red_flags": _lists(_only(rules, red), [rule.text_en for rule in self._rules]),
                "rules": _lists(rules, [rule.id for rule in self._rules]),
                "conditions": _lists(conditions, self._conditions),
                "condition_probabilities": library.ListArray.from_arrays(
                    library.array(conditions.offsets, library.int32()), library.array(probability, library.float64())
                ),
                "prediction_set": _lists(prediction_set, self._conditions),
                "specialty": _named(specialty, self._specialties),
                "is_outside_scope": library.array(is_outside),
                "review_needed": library.compute.greater(library.compute.list_value_length(why), 0),
                "review_why": why,
                "sequence": library.array(sequence, library.int64()),
                "is_past_cap": library.array(keys.is_past_cap),
                "deadline": library.array(keys.deadline, library.int64()),
            }
        )


def keys_of(table: Any) -> OrderKeys:
    """The order's keys from the columns of a table of ranked rows."""
    risk = table["emergency_probability"].fill_null(0.0).to_numpy()
    received = table["received_at"].cast(parquet_library().int64()).to_numpy()
    return OrderKeys(table["level"].to_numpy(), table["is_past_cap"].to_numpy(), table["deadline"].to_numpy(), risk, received)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _named(places: NDArray[np.int64], names: Sequence[str]) -> Any:
    library = parquet_library()
    return library.DictionaryArray.from_arrays(library.array(places, library.int16()), library.array(list(names), library.string()))


def _lists(told: Ragged, names: Sequence[str]) -> Any:
    library = parquet_library()
    return library.ListArray.from_arrays(library.array(told.offsets, library.int32()), _named(told.places, names))


def _only(told: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    """The places that are kept."""
    is_kept = kept[told.places] if len(told.places) else np.zeros(0, dtype=bool)
    before = np.concatenate([[0], np.cumsum(is_kept)])
    return Ragged(before[told.offsets], told.places[is_kept])


def _true_places(table: NDArray[np.bool_]) -> Ragged:
    """Of each column of booleans [names, n] the places that are true."""
    places, rows = np.nonzero(table)
    order = np.argsort(rows, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=table.shape[1]))])
    return Ragged(offsets, places[order])


def _rows_of(places: NDArray[np.int64], is_told: NDArray[np.bool_]) -> Ragged:
    """A table of places [n, k] as lists of k, empty where nothing is told."""
    offsets = np.concatenate([[0], np.cumsum(is_told) * places.shape[1]])
    return Ragged(offsets, places[is_told].ravel())


def _taken(told: Ragged, rows: NDArray[np.int64]) -> Ragged:
    """The lists of some rows."""
    lengths = np.diff(told.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(told.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return Ragged(offsets, told.places[places])
