"""QuestionnaireResponse: findings by their codes, the complaint, and what a questionnaire may say of the case besides.

A linkId is a finding's code (`F_012`), a name for the complaint, or a field of the case. Anything else is named for
review by its linkId alone: its answer may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.case import ABSENT, PRESENT
from inference.service.fhir_codes import ANSWERS, CASE_LINKS, COMPLAINT_LINKS, FINDING_SYSTEM
from inference.service.fhir_problem import token

FINDING = re.compile(r"[FE]_[A-Za-z0-9_]{1,38}", re.ASCII)
Value = str | float | bool
_WORDS = {"yes": True, "no": False, "true": True, "false": False, PRESENT: True, ABSENT: False}


@dataclass
class Answers:
    """What the questionnaires said; `complaint` has one text for each item that asked for it."""

    findings: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, bool] = field(default_factory=dict)
    complaint: list[str] = field(default_factory=list)
    review: list[str] = field(default_factory=list)


def read_answers(responses: Sequence[Mapping[str, Any]]) -> Answers:
    """All responses together, in their order; a later answer to the same question replaces an earlier one."""
    answers = Answers()
    for response in responses:
        if response.get("status") == "entered-in-error":
            answers.review.append("a QuestionnaireResponse is marked entered-in-error and was not read")
            continue
        for item in _items(response):
            _read_item(item, answers)
    return answers


def finding_value(value: Mapping[str, Any]) -> Value | None:
    """The value[x] of an answer or Observation as a finding's value; None for "asked, not known".

    Raises ValueError when it is neither yes, no, a number nor a code: free text is no value of a finding.
    """
    concept = value.get("valueCodeableConcept") or {}
    for coding in [*concept.get("coding", []), *([value["valueCoding"]] if "valueCoding" in value else [])]:
        known = (coding.get("system", ""), coding.get("code", ""))
        if known in ANSWERS:
            return ANSWERS[known]
        if coding.get("system") in (None, FINDING_SYSTEM) and (code := token(coding.get("code"))):
            return _WORDS.get(code.casefold(), code)
    for kind in ("valueBoolean", "valueInteger", "valueDecimal"):
        if isinstance(value.get(kind), bool | int | float):
            number: Value = value[kind]
            return number
    text = value.get("valueString")
    if isinstance(text, str) and (word := token(text.strip())):
        return _WORDS.get(word.casefold(), word)
    raise ValueError("no value that a finding can have")


def _items(inside: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every item, whether it stands in a group or below an answer."""
    for item in inside.get("item", []):
        yield item
        yield from _items(item)
        for answer in item.get("answer", []):
            yield from _items(answer)


def _read_item(item: Mapping[str, Any], answers: Answers) -> None:
    link, given = str(item.get("linkId", "")).removeprefix("/"), item.get("answer", [])
    given = [answer for answer in given if any(key.startswith("value") for key in answer)]
    if not given:
        return
    if link.casefold() in COMPLAINT_LINKS:
        answers.complaint += [text for answer in given if (text := _text(answer))]
    elif FINDING.fullmatch(link) or link in CASE_LINKS:
        _read_finding(link, given, answers)
    else:
        named = f"item {link}" if token(link) else "an item"
        answers.review.append(f"{named} of the questionnaire is not known here: its answer was not read")


def _text(answer: Mapping[str, Any]) -> str | None:
    if isinstance(answer.get("valueString"), str):
        return str(answer["valueString"])
    coding = answer.get("valueCoding") or {}
    return coding.get("display") or None


def _read_finding(link: str, given: Sequence[Mapping[str, Any]], answers: Answers) -> None:
    named = link if link in CASE_LINKS else f"findings.{link}"
    try:
        found = list(dict.fromkeys(value for answer in given if (value := finding_value(answer)) is not None))
    except ValueError:
        answers.review.append(f"{named}: its answer is no yes, no, number or code: set aside as unknown")
        return
    if True in found and False in found:
        answers.review.append(f"{named}: answered both yes and no, set aside as unknown, ask again")
    elif link in CASE_LINKS and len(found) == 1 and isinstance(found[0], bool):
        answers.fields[link] = found[0]
    elif link in CASE_LINKS and found:
        answers.review.append(f"{named}: expected yes or no: set aside as unknown")
    elif found:
        answers.findings[link] = found[0] if len(found) == 1 else tuple(str(value) for value in found)
