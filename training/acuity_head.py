"""The emergency head: from a case's features and its critical risk to the probability that an expert says KTAS 1-3.

Fitted on the experts' levels of the KTAS visits, never on the nurses'. What was not measured is no input here: in these
visits it tells how ill the patient looked to the nurse. Nor is arrival, which a telemedicine case seldom knows.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.acuity import BASE_COLUMNS, VITAL_COLUMNS, AcuityEncoder
from inference.case import ABSENT, Case
from inference.evidence import FindingMap
from inference.findings import FindingsReader
from inference.rules import assess_floor
from training.acuity_fitting import Linear, fit_logistic, fit_platt, folds, sigmoid
from training.catalogue import Catalogue, compile_lexicon, load_catalogue
from training.ktas import LAST_EMERGENCY_LEVEL, is_emergency, ktas_cases

Array = NDArray[Any]
FOLDS = 10
PENALTY = 30.0
CRITICAL_PENALTY = 1.0
CODE_FROM = 10  # visits that must bring a finding before it gets a column of its own
UNDER_TRIAGE_TARGET = 0.05
ADVICE_TARGET = 0.01  # at most this share of emergencies may lie below the routine threshold
_WHO = frozenset(name for name in BASE_COLUMNS if name.startswith("age_over") or name in ("age_years", "child", "female"))


@dataclass(frozen=True)
class KtasVisits:
    """Cases with arrival unknown, their findings, the experts' level [n] and the rule floor's level [n]."""

    cases: tuple[Case, ...]
    findings: tuple[FindingMap, ...]
    level: NDArray[np.int64]
    floor: NDArray[np.int64]
    by_ambulance: tuple[bool | None, ...]

    @property
    def is_emergency(self) -> NDArray[np.bool_]:
        """Whether the experts' level is 1 to 3, [n]."""
        return np.array([is_emergency(int(level)) for level in self.level])

    def rows(self, encoder: AcuityEncoder) -> NDArray[np.float32]:
        """The features of every visit, [n, features]."""
        pairs = zip(self.cases, self.findings, strict=True)
        return np.array([encoder.case_row(case, findings) for case, findings in pairs], dtype=np.float32)


def read_ktas(path: Path, catalogue: Path) -> KtasVisits:
    """Read the visits and the findings in their complaints, with the catalogue's lexicon."""
    authored = load_catalogue(catalogue)
    reader = findings_reader(authored)
    pairs = ktas_cases(path)
    cases = tuple(case.model_copy(update={"arrival": None}) for case, _ in pairs)
    findings = tuple(reader.read_case(case)[0] for case in cases)
    return KtasVisits(
        cases,
        findings,
        np.array([level for _, level in pairs]),
        np.array([assess_floor(case, found).level for case, found in zip(cases, findings, strict=True)]),
        tuple(None if case.arrival is None else case.arrival == "ambulance" for case, _ in pairs),
    )


def findings_reader(catalogue: Catalogue) -> FindingsReader:
    """The reader that the catalogue's lexicon makes."""
    codes = {slug: table["code"] for slug, table in catalogue.findings.items()}
    parents = {table["code"]: codes[table["parent"]] for table in catalogue.findings.values() if "parent" in table}
    return FindingsReader(compile_lexicon(catalogue), parents)


def frequent_codes(visits: KtasVisits) -> list[str]:
    """The findings that are present in at least CODE_FROM visits."""
    counts = Counter(code for findings in visits.findings for code, value in findings.items() if value != ABSENT)
    return sorted(code for code, count in counts.items() if count >= CODE_FROM)


def head_columns(encoder: AcuityEncoder) -> list[int]:
    """Which features the head takes: age, sex, the vitals, the complaint groups and the frequent findings."""
    wanted = _WHO | frozenset(VITAL_COLUMNS) - {"strain_in_ambulance", "strain_by_chronic"}
    wanted |= frozenset(encoder.groups) | frozenset(encoder.codes)
    return [index for index, name in enumerate(encoder.names) if name in wanted]


def fit_head(rows: Array, critical_logit: Array, truth: Array, columns: list[int], is_rising: Array) -> tuple[Linear, float]:
    """The head over all features, and the weight, at least 0, of the critical outcome's logit."""
    inputs = np.column_stack([rows[:, columns].astype(np.float64), critical_logit])
    penalty = np.append(np.full(len(columns), PENALTY), CRITICAL_PENALTY)
    line = fit_logistic(inputs, truth, penalty, np.append(is_rising[columns], True))
    weights = np.zeros(rows.shape[1])
    weights[columns] = line.weights[:-1]
    return Linear(weights, line.intercept), float(line.weights[-1])


def out_of_fold(
    rows: Array, critical_logit: Array, visits: KtasVisits, columns: list[int], is_rising: Array, seed: int
) -> tuple[Array, tuple[float, float]]:
    """Each visit's calibrated probability by a head that never saw it, and the slope and shift of the calibration."""
    truth = visits.is_emergency
    logit = np.zeros(len(truth))
    for fitted, held in folds(visits.level, FOLDS, seed):
        head, weight = fit_head(rows[fitted], critical_logit[fitted], truth[fitted], columns, is_rising)
        logit[held] = head.logit(rows[held]) + weight * critical_logit[held]
    slope, shift = fit_platt(logit, truth)
    return sigmoid(slope * logit + shift), (slope, shift)


def highest_threshold(probability: Array, visits: KtasVisits, target: float) -> float:
    """The highest threshold at which at most `target` of the emergencies lie below it and are not raised by a rule."""
    emergency = visits.is_emergency
    allowed = int(target * emergency.sum())
    unruled = np.sort(probability[emergency & (visits.floor > LAST_EMERGENCY_LEVEL)])
    return math.floor(1e4 * float(unruled[min(allowed, len(unruled) - 1)])) / 1e4
