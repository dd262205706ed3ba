"""The acuity model's features of many cases at once: the same numbers, to the last bit, as `AcuityEncoder.case_rows` gives.

The order of additions is that of the single case, since a last digit could change a level. Knows no probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference import acuity as single
from inference.acuity import CONSCIOUSNESS, AcuityEncoder
from inference.columns import ARRIVALS, Bools, CaseColumns, Floats
from inference.evidence import SEXES

_ROUNDING = 1e-14  # many times the error of any implementation, relative
_NOT_ALERT_FROM = min(place for place in CONSCIOUSNESS.values() if place)


class AcuityColumns:
    """One acuity model's encoder for columns of cases."""

    def __init__(self, encoder: AcuityEncoder, place_of: Mapping[str, int]) -> None:
        """`place_of` has the row of each finding in the arrays of answers."""
        self._encoder = encoder
        self._groups = {
            group: np.array([place_of[code] for code, one in encoder.group_of.items() if one == group]) for group in encoder.groups
        }
        self._chronic = np.array(sorted(place_of[code] for code in encoder.chronic), dtype=np.int64)
        self._codes = [(encoder.place_of_code[code], place_of[code]) for code in encoder.codes]

    def rows(self, columns: CaseColumns, answers: NDArray[np.int8]) -> NDArray[np.float32]:
        """The model's input, [n, features]; `answers` [findings, n] are the merged ones."""
        encoder, facts, n = self._encoder, columns.facts, columns.n
        rows = np.zeros((n, len(encoder.names)), dtype=np.float32)
        age = np.where(np.isnan(facts["age_years"]), single.UNKNOWN_AGE_YEARS, facts["age_years"])
        decades = age / 10
        ambulance = (facts["arrival"] == ARRIVALS.index("ambulance")).astype(np.float64)
        chronic = (answers[self._chronic] > 0).sum(axis=0).astype(np.float64)
        denied = (answers[self._chronic] < 0).sum(axis=0)
        deviations, unmeasured = _deviations(facts, age)
        level = np.where(np.isnan(facts["consciousness"]), 0.0, facts["consciousness"])
        ramps = _ramps(deviations)
        on_oxygen = facts["on_oxygen"] == 1
        summed = np.array([sum(row) for row in ramps.T.tolist()])  # Python's own sum, which newer Pythons compensate
        strain = summed + single.STRAIN_NOT_ALERT * (level > 0) + single.STRAIN_ON_OXYGEN * on_oxygen
        groups = {group: (answers[places] > 0).any(axis=0) for group, places in self._groups.items()}
        if single.NOT_ALERT_GROUP in groups:
            groups[single.NOT_ALERT_GROUP] |= level >= _NOT_ALERT_FROM
        central = [groups[group] for group in groups if group in single.CENTRAL_PAIN_GROUPS]
        is_central = np.logical_or.reduce(central) if central else np.zeros(n, dtype=bool)
        self._front(
            rows, facts, age, decades, ambulance, chronic, denied, deviations, unmeasured, level, ramps, on_oxygen, strain, is_central
        )
        rows[is_central & np.isnan(facts["pain_score"]), -1] = 1.0
        for group, is_there in groups.items():
            place, whom = encoder.place_of_group[group], np.flatnonzero(is_there)
            for index, worth in enumerate((None, decades, chronic, ambulance, strain)):
                rows[whom, place + index] = 1.0 if worth is None else worth[whom]
        for place, finding in self._codes:
            rows[answers[finding] > 0, place] = 1.0
        return rows

    @staticmethod
    def _front(
        rows: NDArray[np.float32],
        facts: Mapping[str, Floats],
        age: Floats,
        decades: Floats,
        ambulance: Floats,
        chronic: Floats,
        denied: NDArray[np.int64],
        deviations: Floats,
        unmeasured: Bools,
        level: Floats,
        ramps: Floats,
        on_oxygen: Bools,
        strain: Floats,
        is_central: Bools,
    ) -> None:
        """The columns of patient and vitals, in the order of BASE_COLUMNS and VITAL_COLUMNS."""
        is_child = age < single.ADULT_YEARS
        logs = _log1p(deviations)
        missing = unmeasured.sum(axis=0).astype(np.float64)
        shock = _log1p(deviations[single.PULSE_ABOVE] + deviations[single.SYSTOLIC_BELOW])
        pain = _pain_ramps(facts["pain_score"])
        columns = [
            age, *(np.maximum(0.0, age - years) for years in single.AGE_HINGES_YEARS), is_child, np.isnan(facts["age_years"]),
            facts["sex"] == SEXES.index("female"), facts["sex"] == SEXES.index("unknown"),
            ambulance, np.isnan(facts["arrival"]), ambulance * decades,
            chronic, denied >= single.CHRONIC_ASKED_FROM, chronic * decades, chronic * ambulance, chronic > 0,
            *unmeasured, np.isnan(facts["consciousness"]), missing, missing * decades, missing * ambulance,
            np.isnan(facts["pain_score"]), *np.where(is_child, 0.0, logs), *np.where(is_child, logs, 0.0), *ramps,
            shock, np.where(is_child, 0.0, strain), np.where(is_child, strain, 0.0), strain * strain,
            np.minimum(strain, 1.0), np.minimum(np.maximum(strain - 1.0, 0.0), 2.0), np.minimum(np.maximum(strain - 3.0, 0.0), 3.0),
            strain * decades, strain * chronic, strain * ambulance, level > 0, level, on_oxygen,
            *pain, *np.where(is_central, pain, 0.0),
        ]  # fmt: skip
        for place, column in enumerate(columns):
            rows[:, place] = column


def _deviations(facts: Mapping[str, Floats], age: Floats) -> tuple[Floats, Bools]:
    """How far each vital lies below and above the usual, [DEVIATIONS, n], 0 where not measured; and which were not, [vitals, n]."""
    band = np.searchsorted(single.AGE_STARTS_YEARS, age, side="right") - 1
    breaths, pulse = np.array(single.USUAL_BREATHS)[band], np.array(single.USUAL_PULSE)[band]
    systolic = np.minimum(single.ADULT_SYSTOLIC, 90.0 + 2.0 * age)
    diastolic = single.DIASTOLIC_SHARE * systolic
    ones = np.ones(len(age))
    deviations, unmeasured = [], []
    for name, usual, scale in (
        ("respiratory_rate_per_minute", breaths, 100.0 / breaths),
        ("spo2_percent", single.FULL_SPO2 * ones, ones),
        ("systolic_mmhg", systolic, 100.0 / systolic),
        ("diastolic_mmhg", diastolic, 100.0 / diastolic),
        ("pulse_per_minute", pulse, 100.0 / pulse),
        ("temperature_celsius", single.USUAL_CELSIUS * ones, ones),
    ):
        unmeasured.append(np.isnan(facts[name]))
        difference = np.where(unmeasured[-1], 0.0, (facts[name] - usual) * scale)
        deviations += [np.where(difference < 0, -difference, 0.0), np.where(difference < 0, 0.0, difference)]
    del deviations[3]  # SpO2 has no "above"
    return np.array(deviations), np.array(unmeasured)


def _ramps(deviations: Floats) -> Floats:
    """The ramps, in order, each in [0, 1], [RAMPS, n]."""
    found = [
        np.where(deviations[place] <= start, 0.0, np.minimum(1.0, (deviations[place] - start) * slope))
        for place, start, slope in single.RAMP_TERMS
    ]
    return np.array(found)


def _pain_ramps(score: Floats) -> Floats:
    found = [np.minimum(np.maximum((score - start) / (full - start), 0.0), 1.0) for start, full in single.PAIN_RAMPS]
    return np.where(np.isnan(score), 0.0, np.array(found))


def _log1p(values: Floats) -> Floats:
    """The logarithm, right to the last bit of the 32 that the model is fed.

    numpy's may differ from the C library's, which single cases use, in the last bits of 64; where that could show in 32, the
    C library's is taken.
    """
    result = np.log1p(values)
    unsure = np.nonzero((result * (1 - _ROUNDING)).astype(np.float32) != (result * (1 + _ROUNDING)).astype(np.float32))
    result[unsure] = [math.log1p(value) for value in values[unsure].tolist()]
    return result
