"""Stored assessments: read from the files that `nabz rank` and `nabz assess` write, matched with their cases, compared field by field.

Computes no assessment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference.assessment import Assessment
from inference.case import CaseReading, case_sha256
from inference.errors import CaseError

Plain = dict[str, Any]
ABSENT = "(absent)"
_SHOWN_LENGTH = 60


@dataclass(frozen=True)
class StoredAssessment:
    """An assessment as it was stored: its JSON, parsed, and what it means. `name` is the file and line, or the referral."""

    name: str
    plain: Plain
    assessment: Assessment

    @property
    def received_at(self) -> datetime:
        """When the case came: what its assessment rests on where the case itself names no time."""
        return datetime.fromisoformat(self.assessment.received_at)


@dataclass(frozen=True)
class Difference:
    """A field whose value is another one now; `where` as in `differential.0.probability`."""

    where: str
    stored: Any
    now: Any

    @property
    def is_of_words(self) -> bool:
        """Whether its values hold the patient's words, so that it shows the place alone."""
        return self.where.startswith("not_understood")

    def as_json(self) -> Plain:
        """For a program, without the patient's words."""
        return {"where": self.where} if self.is_of_words else {"where": self.where, "stored": self.stored, "now": self.now}

    def __str__(self) -> str:
        if self.is_of_words:
            return f"{self.where} differs"
        return f"{self.where}: stored {_shown(self.stored)}, now {_shown(self.now)}"


def read_assessments(path: Path) -> list[StoredAssessment]:
    """The assessments in a file as `nabz rank` and `nabz assess` write them: one JSON object, a list of them, or one a line.

    Raises CaseError naming the line that is no assessment.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(
            f"{path} cannot be read ({type(error).__name__}): name a file that `nabz rank --format json` wrote, or a referral's id (r-…)"
        ) from error
    try:
        whole = json.loads(text)
        found = whole if isinstance(whole, list) else [whole]
        places = [str(path)] if not isinstance(whole, list) else [f"{path}, item {number}" for number in range(1, len(whole) + 1)]
    except ValueError:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        found, places = (
            [_parsed(line, f"{path}, line {number}") for number, line in lines],
            [f"{path}, line {number}" for number, _ in lines],
        )
    if not found:
        raise CaseError(f"{path} holds no assessment: name a file that `nabz rank --format json` or `nabz assess --json` wrote")
    return [stored_assessment(plain, place) for plain, place in zip(found, places, strict=True)]


def stored_assessment(plain: Any, name: str) -> StoredAssessment:
    """What was stored under `name`, from its parsed JSON. Raises CaseError when it is no assessment."""
    try:
        found = StoredAssessment(name, plain, Assessment.model_validate(plain))
        _ = found.received_at
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, one["loc"])) or "the whole" for one in error.errors()})[:3])
        raise CaseError(f"{name} is no assessment of this or an earlier version, at: {where}; write it with --format json") from error
    except ValueError as error:
        raise CaseError(f"{name} is no assessment: its received_at is no time; write it with --format json") from error
    return found


def cases_of(stored: Sequence[StoredAssessment], readings: Sequence[CaseReading], path: Path) -> list[CaseReading]:
    """The case of each assessment: of its `case_id`, and of those the one with the hash that the provenance names.

    Raises CaseError when the file has no case of that name.
    """
    by_id: dict[str, list[CaseReading]] = {}
    for reading in readings:
        by_id.setdefault(reading.case.case_id, []).append(reading)
    found = []
    for one in stored:
        of_name = by_id.get(one.assessment.case_id)
        if of_name is None:
            raise CaseError(f"{path} has no case {one.assessment.case_id}: name the file that {one.name} was made from with --case")
        sha256 = one.assessment.provenance.input_sha256
        found.append(next((reading for reading in of_name if case_sha256(reading.case) == sha256), of_name[0]))
    return found


def differences(stored: Any, now: Any, where: str = "") -> Iterator[Difference]:
    """Every place at which two parsed JSON values differ, down to type, last digit and the order of keys."""
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*stored, *now)):
            yield from differences(stored.get(key, ABSENT), now.get(key, ABSENT), f"{where}.{key}" if where else key)
        if stored.keys() == now.keys() and list(stored) != list(now):
            yield Difference(f"{where or 'the whole'} (order of keys)", list(stored), list(now))
    elif isinstance(stored, list) and isinstance(now, list):
        for place, (one, other) in enumerate(zip_longest(stored, now, fillvalue=ABSENT)):
            yield from differences(one, other, f"{where}.{place}")
    elif json.dumps(stored) != json.dumps(now):
        yield Difference(where, stored, now)


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CaseError(f"{place} is not valid JSON: write it again with `nabz rank --format json`") from error


def _shown(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
