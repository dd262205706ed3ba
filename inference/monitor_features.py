"""What is watched for drift: each case and its assessment as a row of features, and the rows as columns.

One feature is one number or one label a case (or a photo). It knows no reference, no statistics and what nothing means; what
it keeps of a case are ages, vitals, answers, labels and scores, never words, names or pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from inference.assessment import Assessment
from inference.case import ABSENT, Case
from inference.lesions import LesionScore
from inference.monitor_sample import Column, Sample

STATES = ("unknown", "present", "absent")
FINDING, STATE_OF, SET_ASIDE = "finding:", "vital_state:", "set_aside:"
DATA, MIX, FINDINGS, MODEL = "data quality", "case mix", "findings", "model"
VITALS = (
    "respiratory_rate_per_minute", "spo2_percent", "systolic_mmhg", "diastolic_mmhg", "pulse_per_minute", "temperature_celsius",
)  # fmt: skip
_STATED = (*VITALS, "consciousness")
_HEAPED = ("respiratory_rate_per_minute", "systolic_mmhg", "diastolic_mmhg", "pulse_per_minute")
_URGENT_SEVERITY = 2
OUTCOME_FIELDS = ("emergency", "final_level")
_HOURS = 6
_HEAP_YEARS, _HEAPS_FROM_YEARS = 5, 15.0
# A problem as `inference.case` words it; the number is the vital's, and no text of the patient's is in it.
_SET_ASIDE = re.compile(r"^vitals\.(\w+) is (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?),")
_OUTCOME_FIELDS = tuple(f"unknown field {name} " for name in OUTCOME_FIELDS)
_CODE = re.compile(r"[A-Z]_\d{1,4}")  # what else a sender calls a finding may be a patient's words
_LATIN = re.compile(r"[A-Za-z]+")
_URDU = re.compile("[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]")
_LETTER = re.compile(r"[^\W\d_]")
_PROBLEM = "photo_problem"


def family_of(feature: str) -> str:
    """Which kind of drift a feature speaks of."""
    if feature.startswith(FINDING):
        return FINDINGS
    head = feature.split(":", maxsplit=1)[0]
    return next((family for family, names in _FAMILY_NAMES.items() if head in names), MODEL)


_FAMILY_NAMES = {
    DATA: {
        "vital", "vital_state", "digits", "pressures", "age_digit", "age_known", "complaint_words", "repeat", "hour", "field_set_aside",
        "photo_problem", "photo_light", "photo_detail", "photo_ita",
    },
    MIX: {"age_years", "sex", "script", "district", "province", "arrival", "priority", "photos", "findings_present", "photo_tone", "condition"},
}  # fmt: skip
# Which bundle's reference a feature belongs to; the rest is the symptom model's.
_LESION_HEADS = frozenset({"photo_problem", "photo_light", "photo_detail", "photo_ita", "photo_tone", "unfamiliarity", "lesion", "malignancy", "lesion_probability"})  # fmt: skip
_ACUITY_HEADS = frozenset(
    {"vital", "vital_state", "digits", "pressures", "critical_probability", "age_years", "age_digit", "age_known", "sex", "arrival"}
)


def task_of(feature: str) -> str:
    """The task whose bundle carries the feature's reference."""
    head = feature.split(":", maxsplit=1)[0]
    return "lesions" if head in _LESION_HEADS else "acuity" if head in _ACUITY_HEADS else "symptoms"


class Scripts:
    """Tells the script of a complaint: Urdu by its letters, Roman Urdu from English by the words that only one lexicon has."""

    def __init__(self, lexicon: Mapping[str, Any] | None) -> None:
        """`lexicon` as in the symptom contract's vocabulary; None leaves Latin letters untold ("latin")."""
        words: dict[str, set[str]] = {"en": set(), "roman": set()}
        for _, _, _, script, text in (lexicon or {}).get("phrases", ()):
            if script in words:
                words[script].update(_LATIN.findall(text.casefold()))
        self._english, self._roman = words["en"] - words["roman"], words["roman"] - words["en"]

    def of(self, complaint: str) -> str:
        """One of "none", "urdu", "mixed", "roman", "english" and "latin"."""
        urdu, letters = len(_URDU.findall(complaint)), len(_LETTER.findall(complaint))
        if not letters:
            return "none"
        if urdu > 0.2 * letters:
            return "urdu" if urdu > 0.8 * letters else "mixed"
        words = _LATIN.findall(complaint.casefold())
        roman, english = sum(word in self._roman for word in words), sum(word in self._english for word in words)
        return "roman" if roman > english else "english" if english else "latin"


Scored = tuple[Case, Assessment, Sequence[LesionScore]]


def sample_of(scored: Iterable[Scored], scripts: Scripts) -> Sample:
    """Cases with their assessments, and the scores of their photos as far as they are at hand, as columns."""
    gather = _Gather(scripts)
    for case, assessment, photos in scored:
        gather.add(case, assessment, photos)
    return gather.sample()


class _Gather:
    """Collects rows. A feature that no case has makes no column."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._numbers: dict[str, tuple[list[float], list[int]]] = {}
        self._labels: dict[str, tuple[list[str], list[int]]] = {}
        self._findings: list[dict[str, Any]] = []
        self._received: list[np.datetime64] = []
        self._ids: list[str] = []
        self._seen: set[int] = set()

    def add(self, case: Case, assessment: Assessment, photos: Sequence[LesionScore]) -> None:
        self._findings.append({code: value for code, value in assessment.findings.items() if _CODE.fullmatch(code)})
        self._ids.append(case.case_id)
        received = case.received_at or datetime.fromisoformat(assessment.received_at)
        self._received.append(np.datetime64(received.astimezone(UTC).replace(tzinfo=None), "s"))
        hour = received.astimezone(UTC).hour // _HOURS * _HOURS
        self._label("hour", f"{hour:02d}-{hour + _HOURS:02d} UTC")
        self._person(case)
        self._vitals(case, assessment.review.why)
        self._words(case, assessment)
        self._scores(assessment)
        for line in assessment.photos:
            self._label(_PROBLEM, line.problems[0] if line.problems else "none")
            self._label("photo_tone", line.tone or "not told")
            self._number("photo_ita", line.ita_degrees)
        for photo in photos:
            self._number("photo_light", photo.quality.light)
            self._number("photo_detail", photo.quality.detail)
            self._number("unfamiliarity", photo.unfamiliarity)

    def _number(self, name: str, value: float | None) -> None:
        if value is not None:
            values, rows = self._numbers.setdefault(name, ([], []))
            values.append(float(value))
            rows.append(len(self._ids) - 1)

    def _label(self, name: str, label: str) -> None:
        labels, rows = self._labels.setdefault(name, ([], []))
        labels.append(label)
        rows.append(len(self._ids) - 1)

    def _person(self, case: Case) -> None:
        self._number("age_years", case.age_years)
        self._label("age_known", "known" if case.age_years is not None else "not known")
        if case.age_years is not None and case.age_years >= _HEAPS_FROM_YEARS:
            self._label("age_digit", "0 or 5" if int(case.age_years) % _HEAP_YEARS == 0 else "other")
        self._label("sex", case.sex)
        self._label("district", " ".join((case.district or "not said").casefold().split())[:80])
        self._label("province", (case.province or "not said").casefold()[:40])
        self._label("arrival", case.arrival or "not said")
        self._label("priority", case.priority or "not said")
        self._label("photos", "some" if case.photos else "none")
        content = hash((case.age_years, case.sex, case.complaint, tuple(sorted(case.findings)), case.vitals))
        is_telling = bool(case.complaint or case.findings)
        self._label("repeat", "repeated" if is_telling and content in self._seen else "first")
        self._seen.add(content)

    def _vitals(self, case: Case, problems: Sequence[str]) -> None:
        found = [match for problem in problems if (match := _SET_ASIDE.match(problem))]
        set_aside = {match[1]: float(match[2]) for match in found}
        # Fields that hold an outcome are no fault of the case: see `inference.monitor_outcomes`.
        others = len([problem for problem in problems if "set aside" in problem and not problem.startswith(_OUTCOME_FIELDS)]) - len(found)
        self._label("field_set_aside", "some" if others > 0 else "none")
        for name in _STATED:
            value = getattr(case.vitals, name)
            self._label(STATE_OF + name, "measured" if value is not None else "set aside" if name in set_aside else "missing")
            self._number(SET_ASIDE + name, set_aside.get(name))
            if name in VITALS:
                self._number("vital:" + name, value)
        for name in _HEAPED:
            value = getattr(case.vitals, name)
            if value is not None:
                digit = int(value) % 10
                self._label("digits:" + name, str(digit) if digit in (0, 5) else "other")
        if (systolic := case.vitals.systolic_mmhg) is not None and (diastolic := case.vitals.diastolic_mmhg) is not None:
            self._label("pressures", "in order" if systolic > diastolic else "exchanged")

    def _words(self, case: Case, assessment: Assessment) -> None:
        script = self._scripts.of(case.complaint)
        self._label("script", script)
        self._number("complaint_words", len(case.complaint.split()))
        self._number("findings_present", sum(value != ABSENT for value in assessment.findings.values()))
        if letters := len(_LETTER.findall(case.complaint)):
            lost = sum(len(_LETTER.findall(words)) for words in assessment.not_understood)
            # Whether anything was lost, and how much: most complaints are understood whole, so that the share is one big tie.
            share = 1 - lost / letters
            self._label("understood:" + script, "all" if lost == 0 else "most" if share >= 0.5 else "less than half")

    def _scores(self, assessment: Assessment) -> None:
        self._label("level", str(assessment.level))
        self._label("floor_level", str(assessment.floor_level))
        self._label("scored_by", assessment.scored_by)
        self._label("review", "needed" if assessment.review.needed else "not needed")
        self._number("emergency_probability", assessment.emergency_probability)
        self._number("critical_probability", assessment.critical_probability)
        if assessment.differential:
            first = assessment.differential[0]
            self._label("condition", first.condition)
            self._label("outside_scope", "outside" if assessment.is_outside_scope else "inside")
            self._number("top_probability", first.probability)
            self._number("set_size", len(assessment.prediction_set))
            urgent = sum(one.probability for one in assessment.differential if (one.severity or 5) <= _URGENT_SEVERITY)
            self._number("urgent_mass", urgent)
        if assessment.lesion is not None:
            self._label("lesion", assessment.lesion.label)
            self._number("malignancy", assessment.lesion.malignancy_probability)
            for label, probability in assessment.lesion.probabilities.items():
                self._number("lesion_probability:" + label, probability)

    def sample(self) -> Sample:
        columns = {name: Column(np.array(values), np.array(rows)) for name, (values, rows) in self._numbers.items()}
        for name, (labels, rows) in self._labels.items():
            known = tuple(sorted(set(labels)))
            place = {label: at for at, label in enumerate(known)}
            columns[name] = Column(np.array([place[label] for label in labels]), np.array(rows), known)
        columns |= self._finding_columns()
        return Sample(len(self._ids), columns, np.array(self._received, dtype="datetime64[s]"), tuple(self._ids))

    def _finding_columns(self) -> dict[str, Column]:
        codes = sorted({code for findings in self._findings for code in findings})
        place = {code: at for at, code in enumerate(codes)}
        table = np.zeros((len(codes), len(self._findings)), dtype=np.int8)
        for row, findings in enumerate(self._findings):
            for code, value in findings.items():
                table[place[code], row] = 2 if value == ABSENT else 1
        rows = np.arange(len(self._findings))
        return {FINDING + code: Column(table[at], rows, STATES) for code, at in place.items()}
