"""What the machine understands of a case while it is taken down: findings with their place in the words, and what to ask next.

Nothing is stored. Knows no form and no page; decides no level. Without the symptom model it reads nothing, and says so by an
empty list; the questions are then measurements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.case import ABSENT, PRESENT, CaseReading, read_case
from inference.errors import OverloadedError
from inference.findings import ReadFinding
from inference.questions import Question
from inference.service.intake import in_time
from inference.service.parts import Parts
from inference.symptoms import Read, SymptomModel

_MOST_SKIPPED = 12
_LONGEST_READ = 2000  # characters that are read while somebody types; all of them count once the case is sent
_SHOWN_WORDS = 12


@dataclass(frozen=True, slots=True)
class SeenFinding:
    """A finding that the case has: its names, its value in words, where it stands in the complaint (None: it was answered).

    `is_choice`: it has values of its own, so that "not there" is no answer to it.
    """

    code: str
    name_en: str
    name_ur: str
    value: str
    value_en: str
    value_ur: str
    span: tuple[int, int] | None
    is_choice: bool


@dataclass(frozen=True, slots=True)
class Understood:
    """What was understood; `question` is the next best one, or `stop` says in both languages why there is none."""

    findings: tuple[SeenFinding, ...]
    not_understood: tuple[str, ...]
    question: Question | None
    stop: tuple[str, str]


async def understand(parts: Parts, raw: Mapping[str, Any], skipped: Sequence[str] = ()) -> Understood:
    """Read a case as it stands, and find the next question that is not among the `skipped` codes."""
    now = parts.clock()
    given = {"case_id": "case", **raw}
    if isinstance(given.get("complaint"), str):
        given["complaint"] = given["complaint"][:_LONGEST_READ]
    reading = in_time(read_case(given, "case"), now)
    model = parts.scorer.models.symptoms
    read = await asyncio.to_thread(model.read, reading.case) if model else None
    question, stop = await _next_question(parts, reading, skipped)
    if model is None or read is None:
        return Understood((), (), question, stop)
    return Understood(_seen(read, model), _not_understood(read), question, stop)


async def _next_question(parts: Parts, reading: CaseReading, skipped: Sequence[str]) -> tuple[Question | None, tuple[str, str]]:
    """The best question that was not skipped; none while the service has too much to do."""
    left_out = set(skipped[-_MOST_SKIPPED:])
    try:
        asked = await parts.scorer.ask(reading, parts.clock(), len(left_out) + 1)
    except OverloadedError:
        return None, ("", "")
    question = next((one for one in asked.questions if one.code not in left_out), None)
    return question, (asked.stop_reason_en, asked.stop_reason_ur)


def _seen(read: Read, model: SymptomModel) -> tuple[SeenFinding, ...]:
    """What the form answered first, then what the complaint says, in its order."""
    found = [_finding(code, value, None, model) for code, values in read.case.findings.items() for value in _each(values)]
    spans: dict[tuple[str, str], ReadFinding] = {}
    for one in read.reading.findings:
        spans.setdefault((one.code, one.value), one)
    told = [one for (code, _), one in spans.items() if code not in read.case.findings]
    # Two mentions that disagree count as present, as they do when the case is scored.
    present = {one.code for one in told if one.value == PRESENT}
    told = [one for one in told if not (one.value == ABSENT and one.code in present)]
    return tuple(found + [_finding(one.code, one.value, (one.start, one.end), model) for one in told])


def _each(values: str | tuple[str, ...]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else values


def _finding(code: str, value: str, span: tuple[int, int] | None, model: SymptomModel) -> SeenFinding:
    evidence = model.vocabulary["evidences"].get(code, {})
    meaning = evidence.get("value_meaning", {}).get(value, {})
    is_choice = bool(evidence.get("value_meaning"))
    has_value = is_choice and value not in (PRESENT, ABSENT)
    return SeenFinding(
        code,
        evidence.get("name_en", code),
        evidence.get("name_ur", code),
        value,
        meaning.get("en", value) if has_value else "",
        meaning.get("ur", value) if has_value else "",
        span,
        is_choice,
    )


def _not_understood(read: Read) -> tuple[str, ...]:
    complaint = read.case.complaint
    return tuple(dict.fromkeys(complaint[start:end] for start, end in read.reading.not_understood))[:_SHOWN_WORDS]
