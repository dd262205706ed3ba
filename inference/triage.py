"""The way of a case: read, rules, models, level, reasons. Every case that goes in comes out, in the queue's order.

The only module that knows all the parts. It reads no file but photos, and no clock: `now` is an argument.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from inference.acuity import AcuityModel
from inference.assessment import Assessment, BundleName, CalibrationBand
from inference.case import Case, CaseReading, case_sha256
from inference.errors import BundleError
from inference.findings import Reading
from inference.lesions import LesionFailure, LesionRequest, LesionScore
from inference.models import Models
from inference.photo import PhotoSource, shown_name
from inference.photo_checks import CheckedPhoto, check_photo
from inference.policy import Policy, load_policy
from inference.priors import Priors
from inference.prospects import Asked
from inference.questions import Questions, best_questions
from inference.queue import Waiting, order_key
from inference.rules import RuleFloor, assess_floor
from inference.symptoms import Differential, Read, SymptomModel
from inference.urgency import (
    Raise,
    Urgency,
    decide_level,
    raise_from_priority,
    raises_from_acuity,
    raises_from_darker_skin,
    raises_from_differential,
    raises_from_lesion,
    raises_from_unbelieved_photo,
)

BATCH = 1024
DEFAULT_SPECIALTY = "family_medicine"
SILENT = "the complaint is empty and no finding was given: ask what brings the patient"
# What every health worker can measure; the others are asked for when a finding points at them.
_USUAL_VITALS = frozenset(
    {"respiratory_rate_per_minute", "spo2_percent", "systolic_mmhg", "pulse_per_minute", "consciousness", "temperature_celsius"}
)
_REASON_KINDS = {"rule": "rule", "referrer": "referrer", "policy": "policy"}  # of a raise's source; the others are models
_Plain = dict[str, Any]  # the fields of one of the assessment's inner objects
Score = TypeVar("Score")
Acuity = tuple[float, float]


@dataclass
class _Parts:
    """What became of one case on its way; review reasons gather here."""

    read: Read
    floor: RuleFloor
    review: list[str]
    differential: Differential | None = None
    acuity: Acuity | None = None
    lesions: list[tuple[str, LesionScore]] = field(default_factory=list)  # of photos that are believed
    photos: list[CheckedPhoto] = field(default_factory=list)
    unscored_photos: int = 0


class Triage:
    """Rules, models and policy, ready for cases."""

    def __init__(self, models: Models, policy: Policy | None = None, priors: Priors | None = None) -> None:
        """`priors`: local ones for the symptom model. Raises PolicyError when they were estimated with another bundle."""
        if priors is not None and models.symptoms is not None:
            models = replace(models, symptoms=models.symptoms.with_priors(priors))
        self.models = models
        self.policy = policy or load_policy()
        self._version, self._runtime = package_version(), runtime_name()

    def assess(self, reading: CaseReading, now: datetime, photos: PhotoSource | None = None) -> Assessment:
        """One case; its rank is 1. `photos` is the folder that photo paths start from (default: here), or the files by path."""
        return self.assess_each([reading], [now], photos)[0]

    def rank(
        self,
        readings: Sequence[CaseReading],
        now: datetime,
        photos: PhotoSource | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Assessment]:
        """All cases, most urgent first. `progress` is told how many more are done, batch by batch."""
        assessments: list[Assessment] = []
        for start in range(0, len(readings), BATCH):
            batch = readings[start : start + BATCH]
            parts = self._scored(batch, Path() if photos is None else photos)
            assessments += [self._assessment(part, now, rank=0) for part in parts]
            if progress:
                progress(len(batch))
        waiting = [
            Waiting(a.case_id, a.level, datetime.fromisoformat(a.received_at), a.emergency_probability or 0.0, place)
            for place, a in enumerate(assessments)
        ]
        order = sorted(range(len(waiting)), key=lambda place: order_key(waiting[place], self.policy, now))
        return [assessments[place].model_copy(update={"rank": rank}) for rank, place in enumerate(order, start=1)]

    def assess_each(
        self, readings: Sequence[CaseReading], received: Sequence[datetime], photos: PhotoSource | None = None
    ) -> list[Assessment]:
        """Each case as `assess` gives it, in the order given; scored together, because a batch costs less than its cases.

        `received` has a time for each case; it counts where the case names none.
        """
        parts = self._scored(readings, Path() if photos is None else photos)
        return [self._assessment(part, now, rank=1) for part, now in zip(parts, received, strict=True)]

    def by_rules(self, readings: Sequence[CaseReading], now: datetime, why: str) -> list[Assessment]:
        """Each case by its findings, rules, priority and policy, in the order given; no model runs, not even on photos.

        `why` says what kept the models out; it becomes the last review reason of every case.
        """
        parts = [self._read(reading) for reading in readings]
        for part in parts:
            part.review.append(why)
        reader = {task: name for task, name in self.models.bundles.items() if task == "symptoms"}
        return [self._assessment(part, now, rank=1, bundles=reader) for part in parts]

    def ask(self, reading: CaseReading, now: datetime, count: int = 3) -> Questions:
        """The `count` next best questions for a case, or the reason to stop; its photos are left out of the level."""
        part = self._read(reading)
        self._score_symptoms([part])
        self._score_acuity([part])
        bundles = {task: name for task, name in self.models.bundles.items() if task != "lesions"}
        assessment = self._assessment(part, now, rank=1, bundles=bundles)
        asked = Asked(part.read, part.floor, assessment.level, self.models.symptoms, self.policy)
        return best_questions(asked, assessment.provenance, count)

    def _scored(self, readings: Sequence[CaseReading], photos: PhotoSource) -> list[_Parts]:
        parts = [self._read(reading) for reading in readings]
        self._score_symptoms(parts)
        self._score_acuity(parts)
        self._score_photos(parts, photos)
        return parts

    def _read(self, reading: CaseReading) -> _Parts:
        case = reading.case
        review = list(reading.problems)
        symptoms = self.models.symptoms
        read = symptoms.read(case) if symptoms else Read(case, dict(case.findings), dict(case.findings), Reading((), ()))
        if symptoms and (unknown := symptoms.encoder.unknown(case.findings)):
            review.append(f"findings {', '.join(sorted(unknown)[:5])} are not in the catalogue: enter them again")
        review += self._reading_problems(read)
        return _Parts(read, assess_floor(case, read.findings), review)

    def _reading_problems(self, read: Read) -> Iterator[str]:
        complaint = read.case.complaint.strip()
        if not complaint and not read.case.findings and not read.case.photos:
            yield SILENT
        elif complaint and self.models.symptoms is None:
            yield "the complaint was not read, because the symptom model is not in use: read it"
        elif complaint and not read.reading.findings:
            yield "nothing in the complaint was understood: read it"

    def _score_symptoms(self, parts: list[_Parts]) -> None:
        model = self.models.symptoms
        if model is None:
            return
        telling = [part for part in parts if part.read.findings]
        for part, score in zip(telling, _each_or_none(model.score, [part.read for part in telling]), strict=True):
            part.differential = score
            if score is None:
                part.review.append("the symptom model failed on this case: ranked without a differential")
            elif score.is_outside_scope:
                part.review.append(outside_scope(len(model.labels)))

    def _score_acuity(self, parts: list[_Parts]) -> None:
        model = self.models.acuity
        if model is None:
            return
        telling = [part for part in parts if _has_vitals(part.read.case) or part.read.findings]
        pairs = [(part.read.case, part.read.findings) for part in telling]
        for part, score in zip(telling, _each_or_none(model.score_cases, pairs), strict=True):
            part.acuity = score
            if score is None:
                part.review.append("the acuity model failed on this case: ranked without its risk")

    def _score_photos(self, parts: list[_Parts], photos: PhotoSource) -> None:
        wanted = [(part, photo) for part in parts for photo in part.read.case.photos]
        model = self.models.lesions
        if model is None:
            for part, photo in wanted:
                part.unscored_photos += 1
                part.review.append(f"photo {shown_name(photo.path)} was not scored, because the lesion model is not in use")
            return
        requests = [LesionRequest(photo, photos, part.read.case.age_years) for part, photo in wanted]
        for (part, photo), answer in zip(wanted, model.score(requests), strict=True):
            name = shown_name(photo.path)
            if isinstance(answer, LesionFailure):
                part.unscored_photos += 1
                part.review.append(f"photo not scored: {answer.reason}")
                continue
            checked = check_photo(photo, name, answer, model.malignancy_threshold)
            part.photos.append(checked)
            part.review += checked.review
            if checked.is_believed:
                part.lesions.append((name, answer))

    def _assessment(self, part: _Parts, now: datetime, rank: int, bundles: dict[str, BundleName] | None = None) -> Assessment:
        """The whole in one validation: pydantic builds the inner objects from plain dicts at half the price of one by one."""
        case, floor, differential = part.read.case, part.floor, part.differential
        urgency = decide_level(self._raises(part))
        level = self.policy.levels[urgency.level]
        emergency_probability, calibration = self._emergency(part)
        return Assessment.model_validate(
            {
                "case_id": case.case_id,
                "rank": rank,
                "level": urgency.level,
                "level_name": level.name,
                "wait_cap_minutes": level.cap_minutes,
                "received_at": (case.received_at or now).isoformat(),
                "emergency_probability": emergency_probability,
                "critical_probability": part.acuity[0] if part.acuity else None,
                "floor_level": floor.level,
                "scored_by": _scored_by(part),
                "red_flags": floor.red_flags,
                "differential": _differential(differential),
                "prediction_set": differential.prediction_set if differential else (),
                "specialty": self._specialty(part),
                "lesion": _worst_lesion(part.lesions),
                "news2": _news2(floor),
                "unknown_vitals": tuple(vital.name for vital in floor.unknown_vitals),
                "findings": part.read.findings,
                "not_understood": tuple(case.complaint[a:b] for a, b in part.read.reading.not_understood),
                "review": {"needed": bool(part.review), "why": tuple(part.review)},
                "reasons": tuple(_reasons(part, urgency)),
                "provenance": {
                    "nabz_version": self._version,
                    "rule_version": floor.rule_version,
                    "policy_sha256": self.policy.sha256,
                    "bundles": self.models.bundles if bundles is None else bundles,
                    "input_sha256": case_sha256(case),
                    "priors_sha256": self._priors_sha256(part),
                    "runtime": self._runtime,
                },
                "calibration": calibration,
                "photos": tuple(checked.line for checked in part.photos),
                "is_outside_scope": differential is not None and differential.is_outside_scope,
            }
        )

    def _priors_sha256(self, part: _Parts) -> str | None:
        """The local priors that had a part in the assessment; None where the differential knows none."""
        priors = self.models.symptoms.priors if self.models.symptoms and part.differential else None
        return priors.sha256 if priors else None

    def _emergency(self, part: _Parts) -> tuple[float | None, CalibrationBand | None]:
        """The larger of the acuity model's and the differential's probability (severities 1 and 2), with that model's band.

        None when neither scored. Of two that are equal the acuity model's counts: it learned from real visits.
        """
        acuity, symptoms = self.models.acuity, self.models.symptoms
        found: list[tuple[float, AcuityModel | SymptomModel]] = []
        if part.acuity and acuity:
            found.append((part.acuity[1], acuity))
        if part.differential and symptoms:
            mass = part.differential.severity_mass
            found.append((mass[1] + mass[2], symptoms))
        if not found:
            return None, None
        probability, model = max(found, key=_probability_of)
        probability = min(probability, 1.0)
        return probability, model.calibration_band(probability)

    def _raises(self, part: _Parts) -> list[Raise]:
        """Everything that holds the level up: rules, the referrer, the models, and what is missing."""
        raises = [Raise(rule.level, f"rule {rule.table}", rule.text_en, rule.text_ur) for rule in part.floor.fired]
        raises += raise_from_priority(part.read.case.priority, self.policy)
        models = self.models
        if part.acuity and models.acuity:
            raises += raises_from_acuity(*part.acuity, models.acuity.thresholds)
        if part.differential and models.symptoms:
            raises += raises_from_differential(
                part.differential.severity_mass, models.symptoms.thresholds, is_certain=self._is_certain(part.differential)
            )
        for _, lesion in part.lesions:
            if models.lesions:
                raises += raises_from_lesion(lesion.malignancy_probability, models.lesions.malignancy_threshold)
        raises += _raises_from_photos(part)
        if _is_unread(part):
            raises.append(
                Raise(
                    self.policy.unscored.unreadable,
                    "policy",
                    "what was sent could not be read: a person must look",
                    "جو بھیجا گیا وہ پڑھا نہ جا سکا: کسی فرد کا دیکھنا ضروری ہے",
                )
            )
        elif _scored_by(part) == "rules alone":
            raises.append(Raise(self.policy.unscored.rules_only, "policy", "no model scored this case", "کسی ماڈل نے یہ کیس نہیں جانچا"))
        return raises

    def _is_certain(self, differential: Differential) -> bool:
        rule = self.policy.differential
        return differential.deciding_set_size <= rule.largest_set_that_raises and differential.n_present >= rule.least_findings_that_raise

    def _specialty(self, part: _Parts) -> str:
        """The specialty with the largest share of the differential; dermatology for a worrying lesion alone."""
        threshold = self.models.lesions.malignancy_threshold if self.models.lesions else 1.0
        worrying = any(lesion.malignancy_probability >= threshold for _, lesion in part.lesions)
        if part.differential is None or (worrying and not part.read.reading.findings):
            return "dermatology" if part.lesions else DEFAULT_SPECIALTY
        shares: dict[str, float] = {}
        for possible in part.differential.leading:
            name = possible.label.specialty or DEFAULT_SPECIALTY
            shares[name] = shares.get(name, 0.0) + possible.probability
        return max(shares, key=lambda name: (shares[name], name))


Item = TypeVar("Item")


def _each_or_none(score: Callable[[Sequence[Item]], Sequence[Score]], items: Sequence[Item]) -> list[Score | None]:
    """Score all items at once; if that fails, one by one, so that one bad case costs no other its score."""
    try:
        return list(score(items))
    except BundleError:
        results: list[Score | None] = []
        for item in items:
            try:
                results += score([item])
            except BundleError:
                results.append(None)
        return results


def _probability_of(found: tuple[float, object]) -> float:
    return found[0]


def _has_vitals(case: Case) -> bool:
    return any(value is not None for value in case.vitals.__dict__.values())  # a vital given as null was not measured


def _scored_by(part: _Parts) -> Literal["models and rules", "rules alone", "nothing"]:
    if part.differential is not None or part.acuity is not None or part.lesions:
        return "models and rules"
    return "rules alone" if _has_vitals(part.read.case) or part.read.findings else "nothing"


def _is_unread(part: _Parts) -> bool:
    """Whether neither an answer nor a vital is there, and a scored photo does not stand alone: words were lost, or nothing came."""
    case = part.read.case
    return not part.read.findings and not _has_vitals(case) and (bool(case.complaint.strip()) or not part.lesions)


def _raises_from_photos(part: _Parts) -> list[Raise]:
    """What photos support whose lesion nobody has judged yet: unscored ones, bad ones, and benign results on darker skin."""
    raises = []
    if part.unscored_photos or not all(checked.is_believed for checked in part.photos):
        raises += raises_from_unbelieved_photo()
    if any(checked.is_darker_and_benign for checked in part.photos):
        raises += raises_from_darker_skin()
    return raises


def _differential(differential: Differential | None) -> tuple[_Plain, ...]:
    return tuple(
        {
            "condition": possible.label.name,
            "name_en": possible.label.name_en,
            "name_ur": possible.label.name_ur,
            "icd10": possible.label.icd10,
            "probability": possible.probability,
            "severity": possible.label.severity,
        }
        for possible in (differential.leading if differential else ())
    )


def _worst_lesion(lesions: list[tuple[str, LesionScore]]) -> _Plain | None:
    if not lesions:
        return None
    name, worst = max(lesions, key=lambda pair: pair[1].malignancy_probability)
    return {
        "photo": name,
        "label": worst.label,
        "probabilities": worst.probabilities,
        "malignancy_probability": worst.malignancy_probability,
        "quality_problems": tuple(problem.code for problem in worst.quality.problems),
    }


def _news2(floor: RuleFloor) -> dict[str, object] | None:
    if floor.news2 is None:
        return None
    return {"lower": floor.news2.lower, "upper": floor.news2.upper, "points": dict(floor.news2.points)}


def _reasons(part: _Parts, urgency: Urgency) -> Iterator[_Plain]:
    """What supports the level, most urgent first; findings for and against the leading condition; what could change."""
    for one in urgency.raises:
        kind = _REASON_KINDS.get(one.source.split(" ")[0], "model")
        yield {"kind": kind, "direction": "for", "text": one.text_en, "text_ur": one.text_ur}
    if part.differential and part.differential.leading:
        name = part.differential.leading[0].label.name_en
        for found in part.differential.contributions:
            direction = "for" if found.log_odds > 0 else "against"
            yield {
                "kind": "finding",
                "direction": direction,
                "text": f"{found.text_en} ({direction} {name})",
                "text_ur": found.text_ur,
            }
    yield from _could_change(part.floor)


def _could_change(floor: RuleFloor) -> Iterator[_Plain]:
    """One line for the usual vitals that were not measured, with the most urgent level that one of them could reach."""
    unknown = [vital for vital in floor.unknown_vitals if vital.name in _USUAL_VITALS]
    if unknown:
        names, level = ", ".join(vital.name for vital in unknown), min(vital.could_reach_level for vital in unknown)
        yield {
            "kind": "could_change",
            "direction": "open",
            "text": f"not measured, and could raise the level up to {level}: {names}",
            "text_ur": f"ناپا نہیں گیا، درجہ {level} تک بڑھ سکتا ہے: {names}",
        }


def package_version(name: str = "nabz") -> str:
    """The version of this installation, for every assessment's provenance."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


@cache
def runtime_name() -> str:
    """The libraries and the kind of processor that do the arithmetic, on which the last digits of a probability can depend."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    libraries = [f"{name} {package_version(name)}" for name in ("numpy", "onnxruntime", "pillow")]
    return ", ".join([*libraries, " ".join([platform.machine(), *found[-1:]])])


def outside_scope(n_conditions: int) -> str:
    """Why a case needs review whose findings no condition fits."""
    return f"none of the {n_conditions} conditions fits these findings: a person must look"
