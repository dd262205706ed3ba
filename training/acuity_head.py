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

from inference.acuity import BASE_COLUMNS, UNKNOWN_CENTRAL_PAIN, VITAL_COLUMNS, AcuityEncoder
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
PAIN_PENALTY = 5.0
CRITICAL_PENALTY = 1.0
LOST_PAIN_WEIGHT = 0.5  # of a visit's copy without its pain score: most telemedicine cases bring none
PAIN_UNMEASURED = frozenset({"pain_unmeasured", UNKNOWN_CENTRAL_PAIN})
CODE_FROM = 10  # visits that must bring a finding before it gets a column of its own
UNDER_TRIAGE_TARGET = 0.05
ADVICE_TARGET = 0.01  # at most this share of emergencies may lie below the routine threshold
_WHO = frozenset(name for name in BASE_COLUMNS if name.startswith("age_over") or name in ("age_years", "child", "female"))


@dataclass(frozen=True)
class KtasVisits:
    """Cases with arrival unknown, their findings, the experts' level [n] and the rule floor's level [n].

    `groups` names the patient of each visit, where that is known: all visits of one stay in one fold. Empty: each is its own.
    """

    cases: tuple[Case, ...]
    findings: tuple[FindingMap, ...]
    level: NDArray[np.int64]
    floor: NDArray[np.int64]
    by_ambulance: tuple[bool | None, ...]
    groups: tuple[str, ...] = ()

    @property
    def is_emergency(self) -> NDArray[np.bool_]:
        """Whether the experts' level is 1 to 3, [n]."""
        return np.array([is_emergency(int(level)) for level in self.level])

    def rows(self, encoder: AcuityEncoder, *, with_pain: bool = True) -> NDArray[np.float32]:
        """The features of every visit, [n, features]; without pain as if nobody had asked for a score."""
        cases = self.cases if with_pain else tuple(_without_pain(case) for case in self.cases)
        pairs = zip(cases, self.findings, strict=True)
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
    wanted = _WHO | PAIN_UNMEASURED | frozenset(VITAL_COLUMNS) - {"strain_in_ambulance", "strain_by_chronic"}
    wanted |= frozenset(encoder.groups) | frozenset(encoder.codes)
    return [index for index, name in enumerate(encoder.names) if name in wanted]


@dataclass(frozen=True)
class HeadRows:
    """The visits' features with and without their pain scores, [n, features] each, and the critical outcome's logit [n].

    The critical outcome's data know no pain, so that its logit is the same for both.
    """

    known: Array
    lost: Array
    critical_logit: Array

    def take(self, chosen: Array) -> HeadRows:
        """The visits at these places."""
        return HeadRows(self.known[chosen], self.lost[chosen], self.critical_logit[chosen])


def fit_head(rows: HeadRows, truth: Array, columns: list[int], is_rising: Array, is_pain: Array) -> tuple[Linear, float]:
    """The head over all features, and the weight, at least 0, of the critical outcome's logit.

    Every visit is learned from twice, the second time without its pain score and with half the weight.
    """
    inputs = np.concatenate([_inputs(rows.known, rows, columns), _inputs(rows.lost, rows, columns)])
    share = np.repeat([1.0, LOST_PAIN_WEIGHT], len(truth))
    penalty = np.append(np.where(is_pain[columns], PAIN_PENALTY, PENALTY), CRITICAL_PENALTY)
    line = fit_logistic(inputs, np.tile(truth, 2), penalty, np.append(is_rising[columns], True), share)
    weights = np.zeros(rows.known.shape[1])
    weights[columns] = line.weights[:-1]
    return Linear(weights, line.intercept), float(line.weights[-1])


@dataclass(frozen=True)
class HeldOut:
    """Each visit's calibrated probability by a head that never saw it, [n], with its pain score and without; the calibration."""

    probability: Array
    without_pain: Array
    slope: float
    shift: float


def out_of_fold(rows: HeadRows, visits: KtasVisits, encoder: AcuityEncoder, is_rising: Array, seed: int) -> HeldOut:
    """Score every visit by a head that was fitted on the other folds, and calibrate on these scores."""
    truth, columns, is_pain = visits.is_emergency, head_columns(encoder), pain_columns(encoder)
    logit, without = np.zeros(len(truth)), np.zeros(len(truth))
    for fitted, held in folds(visits.level, FOLDS, seed, visits.groups):
        head, weight = fit_head(rows.take(fitted), truth[fitted], columns, is_rising, is_pain)
        from_critical = weight * rows.critical_logit[held]
        logit[held] = head.logit(rows.known[held]) + from_critical
        without[held] = head.logit(rows.lost[held]) + from_critical
    slope, shift = fit_platt(logit, truth)
    return HeldOut(sigmoid(slope * logit + shift), sigmoid(slope * without + shift), slope, shift)


def pain_columns(encoder: AcuityEncoder) -> NDArray[np.bool_]:
    """Which features tell of pain, [features]."""
    return np.array(["pain_from_" in name or name in PAIN_UNMEASURED for name in encoder.names])


def _inputs(features: Array, rows: HeadRows, columns: list[int]) -> Array:
    return np.column_stack([features[:, columns].astype(np.float64), rows.critical_logit])


def _without_pain(case: Case) -> Case:
    return case.model_copy(update={"vitals": case.vitals.model_copy(update={"pain_score": None})})


def highest_threshold(probability: Array, visits: KtasVisits, target: float) -> float:
    """The highest threshold at which at most `target` of the emergencies lie below it and are not raised by a rule."""
    emergency = visits.is_emergency
    allowed = int(target * emergency.sum())
    unruled = np.sort(probability[emergency & (visits.floor > LAST_EMERGENCY_LEVEL)])
    return math.floor(1e4 * float(unruled[min(allowed, len(unruled) - 1)])) / 1e4
