"""The way of many cases at once, as arrays: the same level, scores and set, to the last bit, as `Triage.rank` gives one by one.

Only plain rows (see `inference.columns`) go this way; the others are left to `Triage`. Words and reasons are not made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import Case
from inference.columns import PRIORITIES, UNKNOWN_SEX, Bools, CaseColumns, Floats, Ints
from inference.columns_acuity import AcuityColumns
from inference.columns_findings import Answered, FindingColumns
from inference.columns_rules import FloorColumns
from inference.evidence import AGE_BAND_STARTS_YEARS, AGE_BANDS, SEXES
from inference.policy import LEAST_URGENT
from inference.rule_tables import rule_tables
from inference.symptoms import SHOWN_CONDITIONS
from inference.triage import DEFAULT_SPECIALTY, Triage
from inference.urgency import raises_from_differential

MODEL_ROWS = 512  # cases a call of the models: with their second rows, what fits the processor's cache
_NO_PLACE = -1
_ROUNDING = 1e-9  # more than any order of adding up a handful of probabilities can differ


@dataclass(frozen=True)
class Ragged:
    """Some places of a list of names for each case: those of case i are `places[offsets[i]:offsets[i + 1]]`."""

    offsets: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Assessed:
    """n cases. `emergency` and `critical` are NaN where nothing scored; `is_scored` says whether a model did.

    `fired` [rules, n]; `leading` [n, SHOWN_CONDITIONS] are places of conditions and `probability` theirs, -1 and NaN where there is
    no differential; `specialty` is a place in `ColumnTriage.specialties`. `is_silent`: neither a finding nor a word came.
    """

    level: Ints
    floor_level: Ints
    emergency: Floats
    critical: Floats
    is_scored: Bools
    fired: Bools
    leading: Ints
    probability: Floats
    prediction_set: Ragged
    specialty: Ints
    is_outside_scope: Bools
    is_silent: Bools


class ColumnTriage:
    """A triage's models, rules and policy, ready for columns of cases."""

    def __init__(self, triage: Triage) -> None:
        """Needs a symptom and an acuity model: see `is_possible`."""
        symptoms, acuity = triage.models.symptoms, triage.models.acuity
        assert symptoms is not None and acuity is not None  # noqa: PT018 (one fact: both models are there)
        self._symptoms, self._acuity, self._policy = symptoms.terse(), acuity, triage.policy
        encoder = acuity.encoder
        self.findings = FindingColumns(symptoms, (*encoder.group_of, *encoder.chronic, *encoder.codes))
        self.floors = FloorColumns(rule_tables(), self.findings.place_of)
        self._features = AcuityColumns(encoder, self.findings.place_of)
        names = [label.specialty or DEFAULT_SPECIALTY for label in symptoms.labels]
        # By name, so that a place breaks a tie as the name does.
        self.specialties = tuple(sorted({*names, DEFAULT_SPECIALTY, "dermatology"}))
        self._specialty_of = np.array([self.specialties.index(name) for name in names])
        self._default_specialty = self.specialties.index(DEFAULT_SPECIALTY)
        self._priority_level = np.array([triage.policy.priority.get(name, LEAST_URGENT) for name in PRIORITIES])  # type: ignore[call-overload]

    @staticmethod
    def is_possible(triage: Triage) -> bool:
        """Whether both models are there; without one of them every case goes its own way."""
        return triage.models.symptoms is not None and triage.models.acuity is not None

    def assess(self, columns: CaseColumns) -> Assessed:
        """All rows; only those that are `plain` afterwards mean anything. Raises BundleError when a model fails on the batch."""
        answered = self.findings.read(columns)
        floors = self.floors.assess(answered.merged, columns.facts)
        has_findings = (answered.merged != 0).any(axis=0)
        is_scored = has_findings | columns.has_vitals
        level = np.minimum(floors.level, LEAST_URGENT)
        asked = columns.facts["priority"]
        level = np.minimum(level, np.where(np.isnan(asked), LEAST_URGENT, self._priority_level[np.nan_to_num(asked).astype(np.int64)]))
        level = np.where(is_scored, level, np.minimum(level, self._policy.unscored.unreadable))
        critical, emergency = self._score_acuity(columns, answered, is_scored)
        level = np.minimum(level, _acuity_level(critical, emergency, self._acuity.thresholds))
        told = self._score_symptoms(columns, answered, has_findings)
        n_present = (answered.stated > 0).sum(axis=0)
        rule = self._policy.differential
        is_certain = (told.set_size <= rule.largest_set_that_raises) & (n_present >= rule.least_findings_that_raise)
        level = np.minimum(level, _differential_level(told.mass, is_certain, has_findings, self._symptoms.thresholds))
        return Assessed(
            level=level,
            floor_level=floors.level,
            emergency=np.minimum(np.fmax(emergency, np.where(has_findings, told.mass[:, 1] + told.mass[:, 2], np.nan)), 1.0),
            critical=critical,
            is_scored=is_scored,
            fired=floors.fired,
            leading=told.leading,
            probability=told.probability,
            prediction_set=told.prediction_set,
            specialty=self._specialty(told.leading, told.probability),
            is_outside_scope=told.is_outside,
            is_silent=~answered.is_given,
        )

    def _score_acuity(self, columns: CaseColumns, answered: Answered, is_scored: Bools) -> tuple[Floats, Floats]:
        critical, emergency = np.full(columns.n, np.nan), np.full(columns.n, np.nan)
        where = np.flatnonzero(is_scored & columns.plain)
        if len(where):
            features = self._features.rows(columns, answered.merged)
            for start in range(0, len(where), MODEL_ROWS):
                rows = where[start : start + MODEL_ROWS]
                critical[rows], emergency[rows] = self._acuity.score(features[rows])
        return critical, emergency

    def _score_symptoms(self, columns: CaseColumns, answered: Answered, has_findings: Bools) -> _Told:
        told = _Told.empty(columns.n, min(SHOWN_CONDITIONS, len(self._symptoms.labels)))
        shifts, shift_of = self._shifts(columns)
        who = _demographics(columns)
        sets: list[tuple[Ints, Ints]] = []
        whole, stated = (self.findings.evidence(answers, answered) for answers in (answered.merged, answered.stated))
        where = np.flatnonzero(has_findings & columns.plain)
        for start in range(0, len(where), MODEL_ROWS):
            rows = where[start : start + MODEL_ROWS]
            again = np.flatnonzero(answered.is_measured[rows])
            people = np.concatenate([rows, rows[again]])
            evidence = np.concatenate([whole[rows], stated[rows[again]]]).astype(np.float32)
            scores = self._symptoms.score_rows(evidence, who[people], shifts[shift_of[people]], again)
            told.mass[rows], told.set_size[rows] = scores.severity_mass, scores.deciding_set_size
            told.is_outside[rows] = scores.is_outside_scope
            told.leading[rows], told.probability[rows] = _leading(scores.probabilities)
            sets.append(_sorted_members(scores.probabilities, scores.members, rows))
        told.prediction_set = _ragged(sets, columns.n)
        return told

    def _shifts(self, columns: CaseColumns) -> tuple[NDArray[np.float32], Ints]:
        """The shifts of the priors that the rows need, one a month and place, and which of them is each row's."""
        pairs, shift_of = np.unique(columns.places * 13 + columns.month, return_inverse=True)
        shifts = []
        for pair in pairs.tolist():
            place, month = divmod(pair, 13)
            province, district = columns.place_names[place]
            fields = {
                "case_id": "anybody",
                "province": province,
                "district": district,
                "received_at": f"2000-{month:02d}-15" if month else None,
            }
            shifts.append(self._symptoms.shift(Case.model_validate(fields)))
        return np.array(shifts), shift_of

    def _specialty(self, leading: Ints, probability: Floats) -> Ints:
        """The specialty with the largest share of the leading conditions; of two that are equal the later by name."""
        names = self._specialty_of[leading]
        share = np.zeros(probability.shape)
        for place in range(leading.shape[1]):  # added up in the order of the conditions, as for a single case
            share += np.where(names == names[:, place : place + 1], probability[:, place : place + 1], 0.0)
        best = np.where(share == share.max(axis=1, keepdims=True), names, -1).max(axis=1)
        return np.where(leading[:, 0] == _NO_PLACE, self._default_specialty, best)


@dataclass
class _Told:
    """What the symptom model says of every row, filled batch by batch."""

    mass: Floats
    set_size: Ints
    is_outside: Bools
    leading: Ints
    probability: Floats
    prediction_set: Ragged

    @staticmethod
    def empty(n: int, shown: int) -> _Told:
        return _Told(
            mass=np.zeros((n, 6)),
            set_size=np.zeros(n, dtype=np.int64),
            is_outside=np.zeros(n, dtype=bool),
            leading=np.full((n, shown), _NO_PLACE),
            probability=np.full((n, shown), np.nan),
            prediction_set=Ragged(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)),
        )


def _demographics(columns: CaseColumns) -> Ints:
    """As `demographic_index`, [n]."""
    age, sex = columns.facts["age_years"], columns.facts["sex"]
    band = np.where(np.isnan(age), len(AGE_BANDS), np.searchsorted(AGE_BAND_STARTS_YEARS, age, side="right") - 1)
    return (band * len(SEXES) + np.where(np.isnan(sex), UNKNOWN_SEX, sex)).astype(np.int64)


def _acuity_level(critical: Floats, emergency: Floats, thresholds: Any) -> Ints:
    """As `raises_from_acuity`, [n]; NaN raises nothing."""
    return np.select(
        [
            critical >= thresholds["critical_level_2"],
            emergency >= thresholds["emergency_level_3"],
            emergency >= thresholds["routine_level_4"],
        ],
        [2, 3, 4],
        LEAST_URGENT,
    )


def _differential_level(mass: Floats, is_certain: Bools, is_told: Bools, thresholds: Any) -> Ints:
    """As `raises_from_differential`, [n]; where a mass lies on a threshold to within rounding, that itself is asked."""
    level = np.full(len(mass), LEAST_URGENT)
    is_near = np.zeros(len(mass), dtype=bool)
    for candidate in (4, 3, 2):
        total = mass[:, 1 : candidate + 1].sum(axis=1)
        threshold = thresholds[f"severity_level_{candidate}"]
        level[(total >= threshold) & (is_certain | (candidate == LEAST_URGENT - 1))] = candidate
        is_near |= np.abs(total - threshold) < _ROUNDING
    for row in np.flatnonzero(is_near & is_told):
        raises = raises_from_differential(dict(enumerate(mass[row].tolist())), thresholds, is_certain=bool(is_certain[row]))
        level[row] = raises[0].level if raises else LEAST_URGENT
    return np.where(is_told, level, LEAST_URGENT)


def _leading(probabilities: NDArray[Any]) -> tuple[Ints, Floats]:
    """The most probable conditions and their probabilities, [n, SHOWN_CONDITIONS]; of equals the first counts first."""
    rows, left = np.arange(len(probabilities)), probabilities.copy()
    places, found = [], []
    for _ in range(min(SHOWN_CONDITIONS, probabilities.shape[1])):
        places.append(left.argmax(axis=1))
        found.append(left[rows, places[-1]].astype(np.float64))
        left[rows, places[-1]] = -1.0
    return np.stack(places, axis=1), np.stack(found, axis=1)


def _sorted_members(probabilities: NDArray[Any], members: Bools, rows: Ints) -> tuple[Ints, Ints]:
    """Row and condition of every member of the sets, each row's most probable first; of equals the first counts first."""
    row, place = np.nonzero(members)
    order = np.lexsort((place, -probabilities[row, place], row))
    return rows[row[order]], place[order]


def _ragged(parts: list[tuple[Ints, Ints]], n: int) -> Ragged:
    """Parts with rising rows as one."""
    if not parts:
        return Ragged(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows = np.concatenate([row for row, _ in parts])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return Ragged(offsets, np.concatenate([place for _, place in parts]))
