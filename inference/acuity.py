"""The acuity model over cases: the probability of a critical outcome and of an expert's call "emergency".

One implementation turns a case and its findings into a row of features, for training and for inference. A vital enters as
how far it lies below and above the age's usual value, so that a model whose weights on those are not negative can never
answer a worse vital with a lower probability; a vital that was not measured is a state of its own. Knows no rules and no
levels.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.assessment import CalibrationBand
from inference.bundle import Bundle
from inference.calibration import band_of, calibration_bands
from inference.case import ABSENT, Case, Consciousness, Sex, Vitals
from inference.errors import BundleError
from inference.evidence import FindingMap

Row = NDArray[np.float32]

# Usual pulse and breathing rate by age: medians of Fleming et al., Lancet 2011;377:1011-18; adults as from 18 years on.
AGE_STARTS_YEARS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 15.0, 18.0)
USUAL_PULSE = (143, 140, 134, 128, 123, 116, 110, 104, 98, 91, 84, 78, 73, 75)
USUAL_BREATHS = (43, 41, 39, 37, 35, 31, 28, 25, 23, 21, 19, 18, 16, 16)
ADULT_YEARS = 16.0
ADULT_SYSTOLIC = 125.0
DIASTOLIC_SHARE = 0.6  # the usual diastolic pressure, as a share of the usual systolic
USUAL_CELSIUS = 37.0
FULL_SPO2 = 100.0
UNKNOWN_AGE_YEARS = 40.0

CONSCIOUSNESS: Mapping[Consciousness, int] = {"A": 0, "C": 1, "V": 2, "P": 3, "U": 4}
NOT_ALERT_GROUP = "altered_consciousness"  # the complaint group that a measured level below alert opens
AGE_HINGES_YEARS = (20, 45, 65, 80)
STRAIN_NOT_ALERT = 2.0  # as much as one vital that is as far off as its ramps reach
STRAIN_ON_OXYGEN = 1.0
CHRONIC_ASKED_FROM = 3  # so many chronic conditions denied: the rest was asked too

_VITALS = ("breaths", "spo2", "systolic", "diastolic", "pulse", "celsius")
DEVIATIONS = tuple(f"{vital}_{side}" for vital in _VITALS for side in ("below", "above") if (vital, side) != ("spo2", "above"))
# Ramps from 0 at the first deviation to 1 at the second, flat on either side: where risk begins to rise, and where it is full.
RAMPS = (
    ("breaths_below", 20.0, 50.0), ("breaths_above", 10.0, 40.0), ("breaths_above", 40.0, 100.0),
    ("spo2_below", 3.0, 7.0), ("spo2_below", 7.0, 12.0),
    ("systolic_below", 5.0, 20.0), ("systolic_below", 20.0, 40.0), ("systolic_above", 20.0, 60.0),
    ("diastolic_below", 10.0, 30.0), ("diastolic_below", 30.0, 50.0), ("diastolic_above", 20.0, 60.0),
    ("pulse_below", 20.0, 45.0), ("pulse_above", 20.0, 50.0), ("pulse_above", 50.0, 90.0),
    ("celsius_below", 0.5, 1.5), ("celsius_above", 0.5, 1.5), ("celsius_above", 1.5, 3.0),
)  # fmt: skip
# Ramps of the pain score. From 4 on pain is moderate, from 8 on severe, and it weighs more where it comes from within the body
# ("central"): Bullard et al., Revisions to the Canadian Emergency Department Triage and Acuity Scale (CTAS) Guidelines 2016,
# CJEM 2017. Which complaint groups count as central is our own reading.
PAIN_RAMPS = ((0, 3), (3, 4), (4, 6), (6, 8))
CENTRAL_PAIN_GROUPS = frozenset({"abdominal_pain", "back_pain", "chest_pain", "flank_pain", "genital", "headache"})
# Columns that say who the patient is and what was not measured, then those that grow with a worse vital.
BASE_COLUMNS = (
    "age_years", *(f"age_over_{years}" for years in AGE_HINGES_YEARS), "child", "age_unknown", "female", "sex_unknown",
    "ambulance", "arrival_unknown", "age_in_ambulance", "chronic", "chronic_asked", "chronic_by_age", "chronic_in_ambulance",
    "any_chronic",
    *(f"{vital}_unmeasured" for vital in _VITALS), "consciousness_unmeasured", "unmeasured", "unmeasured_by_age",
    "unmeasured_in_ambulance", "pain_unmeasured",
)  # fmt: skip
VITAL_COLUMNS = (
    *(f"{name}_log_{who}" for who in ("adult", "child") for name in DEVIATIONS),
    *(f"{name}_from_{start:g}" for name, start, _ in RAMPS),
    "shock_log", "strain_adult", "strain_child", "strain_squared", "strain_to_1", "strain_1_to_3", "strain_3_to_6",
    "strain_by_age", "strain_by_chronic", "strain_in_ambulance",
    "not_alert", "consciousness", "on_oxygen",
    *(f"{where}pain_from_{start}" for where in ("", "central_") for start, _ in PAIN_RAMPS),
)  # fmt: skip
UNKNOWN_CENTRAL_PAIN = "central_pain_unmeasured"  # pain from within the body, and nobody asked how bad
_GROUP_TERMS = ("", "_by_age", "_by_chronic", "_in_ambulance", "_by_strain")


class AcuityEncoder:
    """Turns cases into rows of features: the columns, in order, are `names`; those in `rising` grow with a worse vital."""

    def __init__(self, groups: Mapping[str, str], chronic: Iterable[str], codes: Iterable[str] = ()) -> None:
        """`groups` maps a finding's code to its complaint group; `chronic` are the codes of chronic conditions;
        `codes` are findings with a column of their own."""
        self.group_of = dict(groups)
        self.chronic = frozenset(chronic)
        self.groups = tuple(sorted(set(self.group_of.values())))
        self.codes = tuple(codes)
        self.names = (
            *BASE_COLUMNS, *VITAL_COLUMNS,
            *(f"{group}{term}" for group in self.groups for term in _GROUP_TERMS),
            *self.codes, UNKNOWN_CENTRAL_PAIN,
        )  # fmt: skip
        start = len(BASE_COLUMNS) + len(VITAL_COLUMNS)
        self.place_of_group = {group: start + len(_GROUP_TERMS) * index for index, group in enumerate(self.groups)}
        codes_start = start + len(_GROUP_TERMS) * len(self.groups)
        self.place_of_code = {code: codes_start + index for index, code in enumerate(self.codes)}
        self.rising = frozenset(VITAL_COLUMNS) | {f"{group}_by_strain" for group in self.groups} | {UNKNOWN_CENTRAL_PAIN}

    def case_row(self, case: Case, findings: FindingMap) -> list[float]:
        """The row of a case; `findings` are merged from its form, measurements and complaint."""
        return self._full(*self._case_parts(case, findings))

    def case_rows(self, cases: Sequence[tuple[Case, FindingMap]]) -> NDArray[np.float32]:
        """The rows of cases, [n, features]: as `case_row`, without writing out the zeros that most of a row consists of."""
        rows = np.zeros((len(cases), len(self.names)), dtype=np.float32)
        fronts: list[list[float]] = []
        places: list[int] = []
        values: list[float] = []
        for index, (case, findings) in enumerate(cases):
            front, after = self._case_parts(case, findings)
            fronts.append(front)
            places += [index * len(self.names) + place for place in after]
            values += after.values()
        rows[:, : len(fronts[0])] = fronts
        rows.put(places, values)
        return rows

    def _case_parts(self, case: Case, findings: FindingMap) -> tuple[list[float], dict[int, float]]:
        groups, chronic, denied = set(), 0, 0
        codes = []
        for code, value in findings.items():
            if value == ABSENT:
                denied += code in self.chronic
                continue
            chronic += code in self.chronic
            group = self.group_of.get(code)
            if group is not None:
                groups.add(group)
            if code in self.place_of_code:
                codes.append(code)
        asked = denied >= CHRONIC_ASKED_FROM
        return self._parts(case.age_years, case.sex, _arrived(case), chronic, asked, case.vitals, groups, codes)

    def row(
        self,
        age_years: float | None,
        sex: Sex,
        by_ambulance: bool | None,
        chronic: int,
        is_chronic_asked: bool,
        vitals: Vitals,
        groups: Iterable[str],
        codes: Iterable[str] = (),
    ) -> list[float]:
        """One row, in the order of `names`. `chronic` counts the conditions known; None is unknown elsewhere."""
        return self._full(*self._parts(age_years, sex, by_ambulance, chronic, is_chronic_asked, vitals, groups, codes))

    def _full(self, front: list[float], after: Mapping[int, float]) -> list[float]:
        row = front + [0.0] * (len(self.names) - len(front))
        for place, value in after.items():
            row[place] = value
        return row

    def _parts(
        self,
        age_years: float | None,
        sex: Sex,
        by_ambulance: bool | None,
        chronic: int,
        is_chronic_asked: bool,
        vitals: Vitals,
        groups: Iterable[str],
        codes: Iterable[str],
    ) -> tuple[list[float], dict[int, float]]:
        """The columns of patient and vitals, and what is not 0 after them by its place."""
        age = UNKNOWN_AGE_YEARS if age_years is None else age_years
        decades, is_child, ambulance = age / 10, age < ADULT_YEARS, float(by_ambulance is True)
        deviations, unmeasured = _deviations(vitals, age)
        level = CONSCIOUSNESS[vitals.consciousness] if vitals.consciousness else 0
        ramps, missing = _ramps(deviations), sum(unmeasured)
        # How much the vitals deviate together: a sum as in an early warning score, but continuous.
        strain = sum(ramps) + STRAIN_NOT_ALERT * (level > 0) + STRAIN_ON_OXYGEN * (vitals.on_oxygen is True)
        logs = [math.log1p(value) for value in deviations]
        groups = {*groups, NOT_ALERT_GROUP} if level and NOT_ALERT_GROUP in self.place_of_group else set(groups)
        is_central = not CENTRAL_PAIN_GROUPS.isdisjoint(groups)
        pain = _pain_ramps(vitals.pain_score)
        nothing = [0.0] * len(logs)
        front = [
            age, *(max(0.0, age - years) for years in AGE_HINGES_YEARS), float(is_child), float(age_years is None),
            float(sex == "female"), float(sex == "unknown"), ambulance, float(by_ambulance is None), ambulance * decades,
            float(chronic), float(is_chronic_asked), chronic * decades, chronic * ambulance, float(chronic > 0),
            *unmeasured, float(vitals.consciousness is None), missing, missing * decades, missing * ambulance,
            float(vitals.pain_score is None), *(nothing if is_child else logs), *(logs if is_child else nothing), *ramps,
            math.log1p(deviations[PULSE_ABOVE] + deviations[SYSTOLIC_BELOW]),
            0.0 if is_child else strain, strain if is_child else 0.0, strain * strain,
            min(strain, 1.0), min(max(strain - 1.0, 0.0), 2.0), min(max(strain - 3.0, 0.0), 3.0), strain * decades, strain * chronic,
            strain * ambulance, float(level > 0), float(level), float(vitals.on_oxygen is True),
            *pain, *(pain if is_central else _NO_PAIN),
        ]  # fmt: skip
        after: dict[int, float] = {}
        if is_central and vitals.pain_score is None:
            after[len(self.names) - 1] = 1.0
        for group in groups:
            after.update(enumerate((1.0, decades, float(chronic), ambulance, strain), start=self.place_of_group[group]))
        for code in codes:
            after[self.place_of_code[code]] = 1.0
        return front, after


class AcuityModel:
    """A verified acuity bundle with its encoder. Load the bundle with one thread: the model is small."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError when the bundle's vocabulary or features are not those of this version."""
        contract = bundle.contract
        self._bundle = bundle
        self.thresholds: Mapping[str, float] = contract.thresholds
        self._calibration = calibration_bands(contract)
        try:
            vocabulary = contract.vocabulary
            self.encoder = AcuityEncoder(vocabulary["groups"], vocabulary["chronic"], vocabulary["codes"])
            promised = tuple(vocabulary["features"])
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{contract.task} {contract.version}: the vocabulary is incomplete; export again") from error
        if promised != self.encoder.names:
            raise BundleError(
                f"{contract.task} {contract.version} was trained on other features than this version encodes; "
                "use the version that it was trained with, or train it again"
            )

    def calibration_band(self, probability: float) -> CalibrationBand | None:
        """The held-out visits to which the model gave an emergency probability like this one; see `band_of`."""
        return band_of(self._calibration, probability)

    def features(self, case: Case, findings: FindingMap) -> Row:
        """The model's input for one case, [features]. Findings that the model does not know are left out."""
        return np.array(self.encoder.case_row(case, findings), dtype=np.float32)

    def score(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities in [0, 1] of a critical outcome and of an expert's level 1-3, each [n], for rows [n, features].

        Raises BundleError when the model fails or answers with something that is no number.
        """
        outputs = self._bundle.run({"features": rows})
        critical, emergency = outputs["critical_probability"], outputs["emergency_probability"]
        if not (np.isfinite(critical).all() and np.isfinite(emergency).all()):
            raise BundleError(f"{self._bundle.contract.task}: the model gave no finite probability for this batch")
        return critical, emergency

    @property
    def limits(self) -> tuple[str, ...]:
        """What the contract says that the model is not good for."""
        return self._bundle.contract.limits

    def score_cases(self, cases: Sequence[tuple[Case, FindingMap]]) -> list[tuple[float, float]]:
        """Both probabilities of each case with its merged findings. Raises BundleError when the model fails."""
        if not cases:
            return []
        critical, emergency = self.score(self.encoder.case_rows(cases))
        return list(zip(critical.tolist(), emergency.tolist(), strict=True))


def _arrived(case: Case) -> bool | None:
    return None if case.arrival is None else case.arrival == "ambulance"


def _deviations(vitals: Vitals, age_years: float) -> tuple[list[float], list[float]]:
    """In the order of DEVIATIONS, how far each vital lies below and above the usual; and which were not measured.

    Rates and pressures in percent of the usual value, SpO2 in points, temperature in degrees; 0 where not measured.
    """
    band = bisect_right(AGE_STARTS_YEARS, age_years) - 1
    systolic = min(ADULT_SYSTOLIC, 90.0 + 2.0 * age_years)
    diastolic = DIASTOLIC_SHARE * systolic
    deviations: list[float] = []
    unmeasured: list[float] = []
    for value, usual, scale in (
        (vitals.respiratory_rate_per_minute, USUAL_BREATHS[band], 100.0 / USUAL_BREATHS[band]),
        (vitals.spo2_percent, FULL_SPO2, 1.0),
        (vitals.systolic_mmhg, systolic, 100.0 / systolic),
        (vitals.diastolic_mmhg, diastolic, 100.0 / diastolic),
        (vitals.pulse_per_minute, USUAL_PULSE[band], 100.0 / USUAL_PULSE[band]),
        (vitals.temperature_celsius, USUAL_CELSIUS, 1.0),
    ):
        if value is None:
            deviations += (0.0, 0.0)
            unmeasured.append(1.0)
        else:
            difference = (value - usual) * scale
            deviations += (-difference, 0.0) if difference < 0 else (0.0, difference)
            unmeasured.append(0.0)
    del deviations[3]  # SpO2 has no "above"
    return deviations, unmeasured


_NO_PAIN = [0.0] * len(PAIN_RAMPS)
RAMP_TERMS = tuple((DEVIATIONS.index(name), start, 1 / (full - start)) for name, start, full in RAMPS)
PULSE_ABOVE, SYSTOLIC_BELOW = DEVIATIONS.index("pulse_above"), DEVIATIONS.index("systolic_below")


def _pain_ramps(score: int | None) -> list[float]:
    """The pain's ramps, in order, each in [0, 1]; 0 where it was not asked."""
    return _NO_PAIN if score is None else [min(max((score - start) / (full - start), 0.0), 1.0) for start, full in PAIN_RAMPS]


def _ramps(deviations: Sequence[float]) -> list[float]:
    """The ramps, in order, each in [0, 1]."""
    return [0.0 if deviations[place] <= start else min(1.0, (deviations[place] - start) * slope) for place, start, slope in RAMP_TERMS]
