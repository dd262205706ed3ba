"""The next best questions for a case: what could raise its level first, then what tells most about its conditions.

Pure: a read case, its floor and level, and the symptom model go in; questions or a reason to stop come out. Asking decides
nothing: it never changes an assessment. Knows no photos and not the acuity model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from inference.assessment import NOTICE, Provenance
from inference.case import ABSENT, PRESENT
from inference.errors import BundleError
from inference.measurements import limits_of, measurement_text, question_facts
from inference.prospects import LIKELY, Asked, Outlook, Prospect, outlook
from inference.rule_tables import FiredRule
from inference.rules import UnknownVital
from inference.settled import MOST_FINDINGS, StopRule, stop_rule
from inference.symptoms import SymptomModel

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_YES_NO = {PRESENT: ("yes", "ہاں"), ABSENT: ("no", "نہیں")}
_WITHOUT_MODEL = (
    "Without the symptom model only measurements can be asked for, and none that is missing could raise the level.",
    "علامات کے ماڈل کے بغیر صرف پیمائش پوچھی جا سکتی ہے، اور کوئی باقی پیمائش درجہ نہیں بڑھا سکتی۔",
)


class Answer(BaseModel):
    """One possible answer: the value that a case's `findings` or `vitals` take, its words, and how likely it is."""

    model_config = _FROZEN

    value: str
    text_en: str
    text_ur: str
    probability: float | None


class Question(BaseModel):
    """One question. `code` is a finding's code or a vital's name; where `answers` is empty a number is asked for.

    `information`: what the answer is expected to tell about the conditions, in bits, weighted by severity; for a
    measurement that of the finding which it would settle, 0 where there is none. `could_reach_level`: the more urgent
    level that an answer could lead to.
    """

    model_config = _FROZEN

    kind: Literal["finding", "measurement"]
    code: str
    text_en: str
    text_ur: str
    answers: tuple[Answer, ...]
    why_en: str
    why_ur: str
    information: float
    could_reach_level: int | None


class Questions(BaseModel):
    """The best questions in order, or `stop` with its reason. `set_size`: conditions in the 90 % set, None without a model."""

    model_config = _FROZEN

    case_id: str
    questions: tuple[Question, ...]
    stop: bool
    stop_reason_en: str
    stop_reason_ur: str
    level: int
    set_size: int | None
    provenance: Provenance
    notice: str = NOTICE


def best_questions(asked: Asked, provenance: Provenance, count: int = 3) -> Questions:
    """The `count` best questions for a case, best first.

    First what could raise the level by the rules, the most urgent level first and then the likelier sign; then findings by
    expected information. Once the differential is settled (`inference.settled`; by default the prediction set is as small
    as the policy's `largest_set_that_raises`), only what could raise the level is asked, and with `MOST_FINDINGS` known only what could by the rules. Without a symptom model, or when it fails, only measurements are asked for.
    """
    view = _outlook(asked)
    open_vitals = _open_vitals(asked, view)
    if view is None or asked.model is None:
        chosen = [_measurement(asked, vital) for vital in open_vitals[:count]]
        reason = _WITHOUT_MODEL if not chosen else ("", "")
    else:
        chosen = [
            _finding(asked, asked.model, one) if isinstance(one, Prospect) else _measurement(asked, one)
            for one in _in_order(asked, view, open_vitals)[:count]
        ]
        reason = _why_stop(asked, view) if not chosen else ("", "")
    return Questions(
        case_id=asked.read.case.case_id,
        questions=tuple(chosen),
        stop=not chosen,
        stop_reason_en=reason[0],
        stop_reason_ur=reason[1],
        level=asked.level,
        set_size=view.set_size if view else None,
        provenance=provenance,
    )


@dataclass(frozen=True, slots=True)
class _Vital:
    """A vital that was not measured: where it could lead, how likely a finding makes that, and what it would tell."""

    name: str
    could_reach_level: int
    chance: float
    information: float


def _outlook(asked: Asked) -> Outlook | None:
    try:
        return outlook(asked, asked.model) if asked.model else None
    except BundleError:
        return None  # the case's assessment says that the model failed; measurements can still be asked for


def _open_vitals(asked: Asked, view: Outlook | None) -> list[_Vital]:
    """The unmeasured vitals that could raise the level, the most urgent level first and then the likelier.

    The bundle knows of some vitals how likely their findings are. Any other usual one is taken to be out of range as
    often as a condition of severity 1 or 2 is there: it is in those that vitals fail. Without a model all are open.
    """
    found = []
    for unknown in asked.floor.unknown_vitals:
        if unknown.could_reach_level >= asked.level:
            continue
        chance, information = 1.0, 0.0
        if view is not None and asked.model is not None:
            chance, information = _chance(asked, asked.model, view, unknown)
        if chance >= LIKELY:
            found.append(_Vital(unknown.name, unknown.could_reach_level, chance, information))
    return sorted(found, key=lambda vital: (vital.could_reach_level, -vital.chance))


def _chance(asked: Asked, model: SymptomModel, view: Outlook, unknown: UnknownVital) -> tuple[float, float]:
    """How likely a vital is beyond the limit that counts, and what the finding tells that it would settle."""
    vocabulary, facts = model.vocabulary, question_facts()["measure"][unknown.name]
    slugs = facts.get("told_by", ())
    telling = [code for code, evidence in vocabulary["evidences"].items() if evidence.get("slug") in slugs]
    rules = [rule for rule in vocabulary["lexicon"].get("measured", []) if rule["vital"] == unknown.name]
    if any(_chance_of(rule["finding"], asked, view) >= LIKELY for rule in rules):
        # A finding speaks for the side that it measures: high blood sugar says nothing of a low one.
        limits = limits_of(asked.read.case, asked.read.findings, unknown.name, unknown.could_reach_level)
        sides = {"at_most": limits.below is not None, "at_least": limits.above is not None}
        rules = [rule for rule in rules if any(side in rule and counts for side, counts in sides.items())]
    telling += [rule["finding"] for rule in rules]
    if not telling:
        return (view.severe_probability if facts["usual"] else 0.0), 0.0
    told = [view.prospects[code].information for code in telling if code in view.prospects]
    return max(_chance_of(code, asked, view) for code in telling), max(told, default=0.0)


def _chance_of(code: str, asked: Asked, view: Outlook) -> float:
    """How likely a finding is there: surely when it is known to be, not at all when it is denied."""
    if code in view.prospects:
        return view.prospects[code].probabilities[0]
    return float(asked.read.findings.get(code, ABSENT) != ABSENT)


def _in_order(asked: Asked, view: Outlook, vitals: list[_Vital]) -> list[Prospect | _Vital]:
    """What is worth asking: signs and vitals that could raise the level, then what the model is waiting for."""
    signs = [one for one in view.prospects.values() if one.rule]
    ruled: list[tuple[int, float, Prospect | _Vital]] = [(one.rule.level, -one.chance_of_sign, one) for one in signs if one.rule]
    ruled += [(vital.could_reach_level, -vital.chance, vital) for vital in vitals]
    ruled.sort(key=lambda entry: entry[:2])
    others = [one for one in view.prospects.values() if not one.rule] if len(asked.read.findings) < MOST_FINDINGS else []
    if _is_settled(asked, view):
        others = [one for one in others if one.could_reach(asked.level)]
    told = [one for one in others if one.information >= _stop_rule(asked).least_information]
    return [one for *_, one in ruled] + sorted(told, key=lambda one: -one.information)


def _is_settled(asked: Asked, view: Outlook) -> bool:
    return bool(_stop_rule(asked).is_settled(np.array(view.set_size), np.array(view.leading_probability)))


def _stop_rule(asked: Asked) -> StopRule:
    thresholds = asked.model.thresholds if asked.model else {}
    return stop_rule(thresholds, asked.policy.differential.largest_set_that_raises)


def _finding(asked: Asked, model: SymptomModel, prospect: Prospect) -> Question:
    evidence = model.vocabulary["evidences"][prospect.code]
    values = model.encoder.values(prospect.code)
    why_en, why_ur = _why_sign(asked, prospect.rule) if prospect.rule else _why_told(asked, model, prospect)
    return Question(
        kind="finding",
        code=prospect.code,
        text_en=evidence.get("question_en", prospect.code),
        text_ur=evidence.get("question_ur", prospect.code),
        answers=tuple(_answer(value, evidence, chance) for value, chance in zip(values, prospect.probabilities, strict=True)),
        why_en=why_en,
        why_ur=why_ur,
        information=round(prospect.information, 4),
        could_reach_level=prospect.could_reach(asked.level),
    )


def _answer(value: str, evidence: Mapping[str, Any], chance: float) -> Answer:
    meaning = evidence.get("value_meaning", {}).get(value, {})
    text_en, text_ur = _YES_NO.get(value, (meaning.get("en", value), meaning.get("ur", value)))
    return Answer(value=value, text_en=text_en, text_ur=text_ur, probability=round(chance, 4))


def _measurement(asked: Asked, vital: _Vital) -> Question:
    level, reach = asked.level, vital.could_reach_level
    limits = limits_of(asked.read.case, asked.read.findings, vital.name, reach)
    text_en, text_ur = measurement_text(vital.name, limits, reach)
    choices = question_facts()["measure"][vital.name].get("choices", ())
    return Question(
        kind="measurement",
        code=vital.name,
        text_en=text_en,
        text_ur=text_ur,
        answers=tuple(Answer(value=one["value"], text_en=one["en"], text_ur=one["ur"], probability=None) for one in choices),
        why_en=f"It was not measured, and by the rules it could raise the level from {level} to {reach}.",
        why_ur=f"یہ ناپا نہیں گیا، اور اصولوں کے مطابق درجہ {level} سے {reach} تک بڑھ سکتا ہے۔",
        information=round(vital.information, 4),
        could_reach_level=reach,
    )


def _why_sign(asked: Asked, rule: FiredRule) -> tuple[str, str]:
    level, name_en, name_ur = asked.level, rule.text_en, rule.text_ur
    return (
        f"A yes is a sign of the triage rules ({name_en}) and raises the level from {level} to {rule.level}.",
        f"ہاں کا جواب اصولوں کی علامت ہے ({name_ur}) اور درجہ {level} سے {rule.level} تک بڑھاتا ہے۔",
    )


def _why_told(asked: Asked, model: SymptomModel, prospect: Prospect) -> tuple[str, str]:
    first, *rest = (model.labels[place] for place in np.argsort(-prospect.told, kind="stable")[:2])
    reach = prospect.could_reach(asked.level)
    text_en = f"It tells most about {first.name_en}" + "".join(f" and {label.name_en}" for label in rest)
    text_ur = f"اس سے سب سے زیادہ {first.name_ur}" + "".join(f" اور {label.name_ur}" for label in rest) + " کے بارے میں پتا چلتا ہے"
    if reach:
        text_en += f", and an answer could raise the level from {asked.level} to {reach}"
        text_ur += f"، اور جواب سے درجہ {asked.level} سے {reach} تک بڑھ سکتا ہے"
    return f"{text_en}.", f"{text_ur}۔"


def _why_stop(asked: Asked, view: Outlook) -> tuple[str, str]:
    """Why nothing is left to ask, when nothing likely could raise the level."""
    size = view.set_size
    conditions = "1 condition" if size == 1 else f"{size} conditions"
    if view.set_size <= _stop_rule(asked).largest_set:
        return (
            f"No likely answer could raise the level any more, and the 90 % set is small ({conditions}).",
            f"اب کوئی متوقع جواب درجہ نہیں بڑھا سکتا، اور ممکنہ بیماریوں کی فہرست مختصر ہے ({size})۔",
        )
    if _is_settled(asked, view):
        percent = int(100 * view.leading_probability)
        return (
            f"No likely answer could raise the level any more, and the leading condition is at {percent} %.",
            f"اب کوئی متوقع جواب درجہ نہیں بڑھا سکتا، اور پہلی بیماری {percent} فیصد پر ہے۔",
        )
    known = len(asked.read.findings)
    if known >= MOST_FINDINGS:
        return (
            f"{known} findings are known and the 90 % set still has {conditions}: a person must look, more questions will not settle it.",
            f"{known} علامات معلوم ہیں اور پھر بھی {size} بیماریاں ممکن ہیں: کسی فرد کا دیکھنا ضروری ہے، مزید سوال فیصلہ نہیں کریں گے۔",
        )
    return (
        f"No likely answer could raise the level any more, and none would tell much more about the {conditions} of the 90 % set.",
        f"اب کوئی متوقع جواب درجہ نہیں بڑھا سکتا، اور {size} ممکنہ بیماریوں کے بارے میں کچھ خاص نہیں بتائے گا۔",
    )
