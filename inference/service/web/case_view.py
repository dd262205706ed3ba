"""A referral as its page shows it: vitals with their points, what is not known, the set of conditions, what changed.

Pure: what `Referrals.read` gives, plus the live models' names, in; plain data out. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.assessment import Assessment, PhotoCheck
from inference.case import Case
from inference.models import Models
from inference.photo import shown_name
from inference.photo_checks import DARKER_SKIN_EN
from inference.rules import assess_floor
from inference.service.web.rates import Rate, rate
from inference.service.web.vocabulary import HISTORY, vital_names

# Shown only when they say something.
_UNUSUAL = frozenset({"glucose_mg_dl", "capillary_refill_seconds", "diastolic_mmhg", "on_oxygen", "pain_score"})


@dataclass(frozen=True, slots=True)
class VitalLine:
    """One vital: its value (None: not measured), its NEWS2 points, and the level that it could reach while it is unknown."""

    name: str
    value: Any
    points: int | None
    could_reach_level: int | None


@dataclass(frozen=True, slots=True)
class ConditionLine:
    """One condition; `probability` is None for one that is in the set and not among the leading ones."""

    name_en: str
    name_ur: str
    icd10: str | None
    probability: float | None
    severity: int | None
    is_in_set: bool


@dataclass(frozen=True, slots=True)
class PhotoLine:
    """One photo: its stored hash (None: not kept), what is said of it, and whether the lesion score is of this one.

    `advice` is on its quality, `notices` on what its result is worth; `check` is None for a photo that was not looked at.
    """

    name: str
    sha256: str | None
    body_site: str | None
    fitzpatrick: int | None
    answers: tuple[tuple[str, bool], ...]
    advice: tuple[str, ...]
    notices: tuple[str, ...]
    is_scored: bool
    check: PhotoCheck | None


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding in both languages: its name, `present`, `absent` or a value, and the value in words."""

    name_en: str
    name_ur: str
    value: str
    value_en: str
    value_ur: str


def vital_lines(case: Case, assessment: Assessment) -> list[VitalLine]:
    """Every usual vital, measured or not, and the others where they were measured or could matter."""
    floor = assess_floor(case, assessment.findings)
    reach = {unknown.name: unknown.could_reach_level for unknown in floor.unknown_vitals}
    points = (assessment.news2 or {}).get("points", {})
    lines = []
    for name in vital_names():
        value = getattr(case.vitals, name)
        if value is not None or name not in _UNUSUAL:
            lines.append(VitalLine(name, value, points.get(name), reach.get(name)))
    return lines


def condition_lines(assessment: Assessment, models: Models) -> list[ConditionLine]:
    """The leading conditions, then what else is in the 90 % set."""
    in_set = set(assessment.prediction_set)
    lines = [
        ConditionLine(one.name_en, one.name_ur, one.icd10, one.probability, one.severity, one.condition in in_set)
        for one in assessment.differential
    ]
    labels = {label.name: label for label in models.symptoms.labels} if models.symptoms else {}
    shown = {one.condition for one in assessment.differential}
    for name in [one for one in assessment.prediction_set if one not in shown]:
        label = labels.get(name)
        if label is None:
            lines.append(ConditionLine(name, "", None, None, None, is_in_set=True))
        else:
            lines.append(ConditionLine(label.name_en, label.name_ur, label.icd10, None, label.severity, is_in_set=True))
    return lines


def finding_lines(findings: Mapping[str, Any], models: Models) -> list[FindingLine]:
    """Findings by name; without the symptom model by their codes."""
    evidences = models.symptoms.vocabulary["evidences"] if models.symptoms else {}
    lines = []
    for code, value in findings.items():
        known = evidences.get(code, {})
        meanings = known.get("value_meaning", {})
        each = [value] if isinstance(value, str) else value
        english, urdu = (", ".join(str(meanings.get(one, {}).get(name, one)) for one in each) for name in ("en", "ur"))
        lines.append(FindingLine(known.get("name_en", code), known.get("name_ur", code), ", ".join(each), english, urdu))
    return lines


def photo_lines(case: Case, assessment: Assessment | None, stored: Sequence[Mapping[str, str]]) -> list[PhotoLine]:
    """The case's photos with what is known of them; advice is what the gate said of this very photo."""
    hashes = {one["name"]: one["sha256"] for one in stored}
    scored = assessment.lesion.photo if assessment and assessment.lesion else None
    why = assessment.review.why if assessment else ()
    checks = {check.photo: check for check in assessment.photos} if assessment else {}
    lines = []
    for photo in case.photos:
        name = shown_name(photo.path)
        answers = tuple((field, value) for field in HISTORY if (value := getattr(photo, field)) is not None)
        said = [reason for reason in why if name in reason]
        lines.append(
            PhotoLine(
                name,
                hashes.get(photo.path),
                photo.body_site,
                photo.fitzpatrick,
                answers,
                advice=tuple(reason for reason in said if DARKER_SKIN_EN not in reason),
                notices=tuple(reason for reason in said if DARKER_SKIN_EN in reason),
                is_scored=name == scored,
                check=checks.get(name),
            )
        )
    return lines


def calibration_rate(assessment: Assessment) -> Rate | None:
    """How many of the held-out patients with a probability like this one were emergencies, with its 95 % interval."""
    band = assessment.calibration
    return None if band is None or assessment.emergency_probability is None else rate(band.events, band.n)


def bundle_limits(models: Models) -> list[tuple[str, str]]:
    """What the live bundles are not good for, by task."""
    live = {"symptoms": models.symptoms, "acuity": models.acuity, "lesions": models.lesions}
    return [(task, limit) for task, model in live.items() if model is not None for limit in model.limits]
