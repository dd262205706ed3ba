"""Labelled cases: a case as everywhere, with `labels` beside it, one JSON object a line. `nabz export` writes them; anybody may.

    {"case_id": "c-1", "age_years": 58, "vitals": {"pulse_per_minute": 118}, "labels": {"level": 2, "level_source": "override"}}

`nabz rank` reads the same file and passes over the labels. Knows the format; trains and measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.case import LABELS, Case, read_case
from inference.errors import DataError

FILE = "cases.jsonl"
Source = Literal["outcome", "override", "expert", "agreed", "accepted"]
Outcome = Literal["critical", "died", "admitted", "referred", "treated", "advised", "not_reached", "other"]
Split = Literal["train", "held_out"]
SOURCES: tuple[Source, ...] = get_args(Source)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SPLITS: tuple[Split, ...] = get_args(Split)
# `accepted` is the machine's own level that nobody spoke against: to learn from it is to learn from oneself.
TRUSTED: tuple[Source, ...] = ("outcome", "override", "expert", "agreed")
_LEVEL = Annotated[int, Field(ge=1, le=5, strict=True)]
_NAMED_AT_MOST = 5


class Labels(BaseModel):
    """What became known of a case. Every field may be missing or null.

    `level` 1-5 is the final one and `level_source` whose it is: `outcome` (given afterwards), `override` (against the machine),
    `expert` (by somebody who did not see the machine's), `agreed` (in sight of it), `accepted` (nobody said anything).
    `condition` is a catalogue slug, where it was confirmed. `patient` is a pseudonym: one patient stays on one side of a split.
    `machine_level` is what Nabz said then; `first_impression` what a clinician said before they saw it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: _LEVEL | None = None
    level_source: Source | None = None
    condition: str | None = None
    outcome: Outcome | None = None
    split: Split | None = None
    machine_level: _LEVEL | None = None
    first_impression: _LEVEL | None = None
    patient: str | None = None

    @property
    def is_critical(self) -> bool:
        """Whether it is known that the patient needed critical care, or died."""
        return self.outcome in ("critical", "died")


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """A case, its labels, its line in the file (from 1), and what could not be read of it (one sentence each)."""

    case: Case
    labels: Labels
    line: int
    problems: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Whose case it is: the patient where one is known, else the case."""
        return self.labels.patient or self.case.case_id


def is_labelled_cases(path: Path) -> bool:
    """Whether this is a file of cases, or a folder with one, rather than another kind of data."""
    return (path / FILE).is_file() if path.is_dir() else path.suffix in (".jsonl", ".ndjson")


def read_labelled_cases(path: Path) -> tuple[LabelledCase, ...]:
    """Every case of the file, or of `cases.jsonl` in the folder. A field that cannot be right is unknown, as in `nabz rank`.

    Raises DataError naming the lines whose labels cannot be used, or the ids that stand in the file twice.
    """
    file = path / FILE if path.is_dir() else path
    cases, wrong = [], []
    for line, raw in read_lines(file):
        if (case := _labelled(raw, line, file.stem)) is None:
            wrong.append(line)
        else:
            cases.append(case)
    if wrong:
        shown = ", ".join(map(str, wrong[:_NAMED_AT_MOST]))
        raise DataError(
            f"{file}: the labels of {len(wrong)} lines cannot be used (line {shown}): nabz-train data check {path} explains each"
        )
    ids = [one.case.case_id for one in cases]
    if twice := sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []:
        raise DataError(f"{file}: case_id stands there twice: {', '.join(twice[:_NAMED_AT_MOST])}; give each case its own")
    if not cases:
        raise DataError(f"{file} holds no case: expected one JSON object a line")
    return tuple(cases)


def read_lines(file: Path) -> list[tuple[int, Any]]:
    """The file's lines with their numbers from 1, parsed; a line that is no JSON is None. Raises DataError when it cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}): expected UTF-8 text, one JSON object a line") from error
    return [(number, _parsed(line)) for number, line in enumerate(lines, start=1) if line.strip()]


def in_split(cases: Sequence[LabelledCase], split: Split) -> tuple[LabelledCase, ...]:
    """The cases of that side. Where no case has a side, all of them: the file itself is the side."""
    if not any(one.labels.split for one in cases):
        return tuple(cases)
    return tuple(one for one in cases if one.labels.split == split)


def with_trusted_level(cases: Sequence[LabelledCase], sources: Sequence[str] = TRUSTED) -> tuple[LabelledCase, ...]:
    """The cases whose level was given by one of `sources`; a level without a source counts as an expert's."""
    return tuple(one for one in cases if one.labels.level is not None and (one.labels.level_source or "expert") in sources)


def _labelled(raw: Any, line: int, stem: str) -> LabelledCase | None:
    """None for what is no object, or whose labels are none."""
    if not isinstance(raw, dict):
        return None
    reading = read_case(raw, f"{stem}-{line}")
    try:
        return LabelledCase(reading.case, Labels.model_validate(raw.get(LABELS) or {}), line, reading.problems)
    except ValidationError:
        return None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
