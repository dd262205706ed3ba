"""What becomes of held-out cases under one bundle: the level through the whole triage, the reasons, and the figures' ingredients.

The bundle takes the place of its task's live one; the others stay. Measures one bundle at a time and compares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from inference.acuity import AcuityModel
from inference.assessment import Assessment, BundleName
from inference.bundle import Bundle
from inference.errors import DataError
from inference.lesions import LesionFailure, LesionModel, LesionRequest, LesionScore
from inference.models import Models
from inference.rules import assess_floor
from inference.symptoms import SymptomModel
from inference.triage import Triage
from inference.urgency import Raise, decide_level, raises_from_acuity
from training.comparison_cases import LEAST_URGENT_EMERGENCY, LEAST_URGENT_NEED, HeldOut
from training.metrics import auc, average_precision, balanced_accuracy, expected_calibration_error, mean
from training.nhamcs import encode
from training.paired import Measure, rate
from training.sentinels import Sentinel

NOW = datetime(2026, 1, 1, tzinfo=UTC)  # for cases that bring no time: the season is then unknown to none of the two
_BATCH = 250
_FEW_REPEATS = 200  # of what sorts all cases in every draw
_MODEL_REASONS = ("rule", "referrer", "model", "policy")
Told = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """One bundle's answers to n cases: levels [n], the rules' floor [n], red flags and reasons by case, and measures by name.

    The measures of safety come first. `sentinel_levels` [m] are those of the sentinel set; empty where it does not apply.
    `tones` are masks [n] of the skin tones that the photos themselves show; empty without photos.
    """

    level: NDArray[np.int64]
    floor: NDArray[np.int64]
    red_flags: tuple[frozenset[str], ...]
    reasons: tuple[tuple[str, ...], ...]
    measures: dict[str, Measure]
    sentinel_levels: NDArray[np.int64]
    tones: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def outcome_of(bundle: Bundle, cases: HeldOut, sentinels: Sequence[Sentinel], others: Models, threads: int, told: Told) -> Outcome:
    """Every case and sentinel under `bundle` in its task's place among the live models `others`. `told` hears of cases that are done.

    Raises DataError for a task that no triage knows.
    """
    live, lesions = _models_with(bundle, others, threads)
    triage = Triage(live)
    marked = triage.assess_each([one.reading for one in sentinels], [NOW] * len(sentinels))
    sentinel_levels = np.array([one.level for one in marked], dtype=np.int64)
    if cases.visits is not None and live.acuity is not None:
        return _of_visits(live.acuity, cases, sentinel_levels, told)
    assessments: list[Assessment] = []
    for start in range(0, len(cases), _BATCH):
        batch = cases.readings[start : start + _BATCH]
        assessments += triage.assess_each(batch, [NOW] * len(batch), cases.photos)
        told(len(batch))
    level = np.array([one.level for one in assessments], dtype=np.int64)
    return Outcome(
        level=level,
        floor=np.array([one.floor_level for one in assessments], dtype=np.int64),
        red_flags=tuple(frozenset(one.red_flags) for one in assessments),
        reasons=tuple(_reasons(one) for one in assessments),
        measures={**_level_measures(level, cases), **_own_measures(bundle.contract.task, live, lesions, assessments, cases)},
        sentinel_levels=sentinel_levels,
        tones={} if lesions is None else _tones(lesions.answers),
    )


class _Recording(LesionModel):
    """A lesion model that keeps its answers in the order of the photos."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        self.answers: list[LesionScore | LesionFailure] = []

    def score(self, requests: Sequence[LesionRequest]) -> list[LesionScore | LesionFailure]:
        """As the model, and remembered."""
        found = super().score(requests)
        self.answers += found
        return found


def _models_with(bundle: Bundle, live: Models, threads: int) -> tuple[Models, _Recording | None]:
    """The live models with the bundle in its task's place."""
    task = bundle.contract.task
    name = BundleName(version=bundle.contract.version, sha256=bundle.sha256)
    if task.startswith("symptoms"):
        return replace(live, symptoms=SymptomModel(bundle), bundles={**live.bundles, "symptoms": name}), None
    if task.startswith("acuity"):
        return replace(live, acuity=AcuityModel(bundle), bundles={**live.bundles, "acuity": name}), None
    if task.startswith("lesions"):
        recording = _Recording(bundle, threads)
        return replace(live, lesions=recording, bundles={**live.bundles, "lesions": name}), recording
    raise DataError(f"no comparison is known for the task {task}: expected a bundle of symptoms, acuity or lesions")


def _reasons(assessment: Assessment) -> tuple[str, ...]:
    """What holds the level up, the leading condition, and how large the set is: a large one raises nothing."""
    held = [one.text for one in assessment.reasons if one.kind in _MODEL_REASONS]
    first = assessment.differential[0] if assessment.differential else None
    seen = [f"first in the differential: {first.name_en}", f"conditions in the 90 % set: {len(assessment.prediction_set)}"] if first else []
    return (*held, *seen)


def _level_measures(level: NDArray[np.int64], cases: HeldOut) -> dict[str, Measure]:
    is_emergency = (cases.true_level > 0) & (cases.true_level <= LEAST_URGENT_EMERGENCY) & (cases.must_reach == LEAST_URGENT_NEED)
    measures = {
        "under_triage": rate(level > cases.must_reach, (cases.must_reach > 0) & cases.population),
        "emergencies_late": rate(level > LEAST_URGENT_EMERGENCY, is_emergency),
        "over_triage": rate(level <= cases.must_not_reach, (cases.must_not_reach > 0) & cases.population),
    }
    return {name: measure for name, measure in measures.items() if measure.rows.any()}


def _own_measures(
    task: str, live: Models, lesions: _Recording | None, assessments: Sequence[Assessment], cases: HeldOut
) -> dict[str, Measure]:
    """What the task's own model is measured by, besides the levels."""
    if lesions is not None:
        return _lesion_measures(lesions, cases)
    if task.startswith("symptoms") and any(cases.condition):
        return _symptom_measures(assessments, cases)
    if task.startswith("acuity") and live.acuity is not None:
        pairs = [(reading.case, one.findings) for reading, one in zip(cases.readings, assessments, strict=True)]
        emergency = np.array([score[1] for score in live.acuity.score_cases(pairs)])
        is_known = (cases.true_level > 0) & cases.population
        truth = (cases.true_level <= LEAST_URGENT_NEED).astype(np.int64)
        return _probability_measures("emergency", truth, emergency, is_known)
    return {}


def _symptom_measures(assessments: Sequence[Assessment], cases: HeldOut) -> dict[str, Measure]:
    """Of the leading conditions and the 90 % set as the clinician sees them."""
    rows = np.array([name is not None for name in cases.condition]) & cases.population
    pairs = list(zip(assessments, cases.condition, strict=True))
    places = np.array([_place(one, name) for one, name in pairs])
    confidence = np.array([one.differential[0].probability if one.differential else 0.0 for one in assessments])
    covered = np.array([name in one.prediction_set for one, name in pairs])
    size = np.array([float(len(one.prediction_set)) for one in assessments])
    return {
        **{f"gtpa@{k}": rate(places < k, rows, "higher") for k in (1, 3)},
        "ece": Measure(expected_calibration_error, ((places == 0).astype(float), confidence), rows, "lower"),
        "set_coverage": rate(covered, rows, "higher"),
        "set_size": Measure(mean, (size,), rows, "lower"),
    }


def _place(assessment: Assessment, condition: str | None) -> int:
    """The place of the true condition in the differential, from 0; 99 where it is not shown."""
    return next((place for place, one in enumerate(assessment.differential) if one.condition == condition), 99)


def _probability_measures(
    name: str, truth: NDArray[np.int64], probability: NDArray[np.float64], rows: NDArray[np.bool_]
) -> dict[str, Measure]:
    arrays = (truth, probability)
    return {
        f"{name}_auc": Measure(auc, arrays, rows, "higher", repeats=_FEW_REPEATS),
        f"{name}_average_precision": Measure(average_precision, arrays, rows, "higher", repeats=_FEW_REPEATS),
        f"{name}_ece": Measure(expected_calibration_error, (truth.astype(float), probability), rows, "lower"),
    }


def _of_visits(model: AcuityModel, cases: HeldOut, sentinel_levels: NDArray[np.int64], told: Told) -> Outcome:
    """NHAMCS visits: the rules on their vitals and the acuity model on their rows; see comparison_cases."""
    assert cases.visits is not None
    critical, emergency = model.score(encode(cases.visits, model.encoder))
    floors = [assess_floor(reading.case, {}) for reading in cases.readings]
    levels, reasons = [], []
    for floor, critical_risk, emergency_risk in zip(floors, critical.tolist(), emergency.tolist(), strict=True):
        raises = [Raise(rule.level, f"rule {rule.table}", rule.text_en, rule.text_ur) for rule in floor.fired]
        urgency = decide_level(raises + raises_from_acuity(critical_risk, emergency_risk, model.thresholds))
        levels.append(urgency.level)
        reasons.append(tuple(one.text_en for one in urgency.raises))
    told(len(cases))
    level, everybody = np.array(levels, dtype=np.int64), np.ones(len(cases), dtype=bool)
    return Outcome(
        level=level,
        floor=np.array([floor.level for floor in floors], dtype=np.int64),
        red_flags=tuple(frozenset(floor.red_flags) for floor in floors),
        reasons=tuple(reasons),
        measures={
            **_level_measures(level, cases),
            **_probability_measures("critical", cases.visits.is_critical, critical.astype(np.float64), everybody),
        },
        sentinel_levels=sentinel_levels,
    )


def _tones(answers: Sequence[LesionScore | LesionFailure]) -> dict[str, NDArray[np.bool_]]:
    """By the tone group that a photo's own light tells (inference/skin_tone.py), for data that know no skin types."""
    shown = np.array([a.quality.tone.group if isinstance(a, LesionScore) and a.quality.tone else "unknown" for a in answers])
    return {f"tone that the photo shows: {tone}": shown == tone for tone in np.unique(shown).tolist()}


def _lesion_measures(model: _Recording, cases: HeldOut) -> dict[str, Measure]:
    """Of the model's own answers, also on photos that the gate does not believe."""
    labels = list(model.labels)
    n = len(cases)
    probabilities, malignancy = np.zeros((n, len(labels))), np.zeros(n)
    for row, answer in enumerate(model.answers):
        if isinstance(answer, LesionScore):
            probabilities[row] = [answer.probabilities[label] for label in labels]
            malignancy[row] = answer.malignancy_probability
    truth = np.array([labels.index(str(name)) if name in labels else -1 for name in cases.condition])
    is_malignant, flagged = cases.must_reach > 0, malignancy >= model.malignancy_threshold
    predicted, known = probabilities.argmax(axis=1), truth >= 0
    correct = (predicted == truth).astype(float)
    return {
        "missed_malignant": rate(~flagged, is_malignant),
        "false_alarm": rate(flagged, ~is_malignant),
        "first_label_right": rate(correct, known, "higher"),
        "balanced_accuracy": Measure(balanced_accuracy, (truth, predicted), known, "higher"),
        **{
            name: one
            for name, one in _probability_measures("malignancy", is_malignant.astype(np.int64), malignancy, known).items()
            if "ece" not in name
        },
        "label_ece": Measure(expected_calibration_error, (correct, probabilities.max(axis=1)), known, "lower"),
    }
