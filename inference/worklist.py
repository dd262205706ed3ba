"""The worklist as a table for a terminal. Formats what assessments say; decides and sorts nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from inference.assessment import NOTICE, Assessment
from inference.case import Case

# Shape, word and colour all carry the level, so that none of them is needed alone.
_MARKS = {1: "■", 2: "▲", 3: "◆", 4: "●", 5: "○"}
_STYLES = {1: "bold red", 2: "red", 3: "yellow", 4: "green", 5: "dim"}
_COMPLAINT_LENGTH = 60
_REMOTE_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_SHOWN_REASONS = 2
_MINUTES_PER_HOUR, _MINUTES_PER_DAY = 60, 1440


def print_worklist(assessments: Sequence[Assessment], cases: Mapping[str, Case], now: datetime, console: Console) -> None:
    """One row a case, in rank order: level, wait against its cap, who, complaint, why, likely, review."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("wait / cap", no_wrap=True)
    table.add_column("case", no_wrap=True)
    table.add_column("patient", no_wrap=True)
    for name in ("complaint", "why", "likely", "review"):
        table.add_column(name, ratio=2, overflow="fold")
    for assessment in assessments:
        table.add_row(*_row(assessment, cases.get(assessment.case_id), now), style=_STYLES[assessment.level])
    console.print(table)
    console.print(NOTICE, style="italic", highlight=False)


def worklist_svg(assessments: Sequence[Assessment], cases: Mapping[str, Case], now: datetime, width: int) -> str:
    """The same table as an SVG picture, `width` characters wide, that asks no other host for a font."""
    console = Console(record=True, file=io.StringIO(), width=width)
    print_worklist(assessments, cases, now, console)
    return _REMOTE_FONTS.sub("", console.export_svg(title="nabz rank"))


def duration(minutes: float) -> str:
    """Minutes in the unit that a reader would use: `40 min`, `6 h`, `14 d`."""
    if minutes < _MINUTES_PER_HOUR:
        return f"{minutes:.0f} min"
    if minutes < 2 * _MINUTES_PER_DAY:
        return f"{minutes / _MINUTES_PER_HOUR:.0f} h"
    return f"{minutes / _MINUTES_PER_DAY:.0f} d"


def _row(assessment: Assessment, case: Case | None, now: datetime) -> list[str]:
    waited = max((now - datetime.fromisoformat(assessment.received_at)).total_seconds() / 60, 0)
    late = " PAST CAP" if waited > assessment.wait_cap_minutes else ""
    return [
        str(assessment.rank),
        f"{_MARKS[assessment.level]} {assessment.level} {assessment.level_name}",
        f"{duration(waited)} / {duration(assessment.wait_cap_minutes)}{late}",
        assessment.case_id,
        _who(case),
        _shortened(case.complaint if case else ""),
        _why(assessment),
        _likely(assessment),
        "; ".join(assessment.review.why) if assessment.review.needed else "",
    ]


def _who(case: Case | None) -> str:
    if case is None:
        return ""
    age = "age ?" if case.age_years is None else f"{case.age_years:.0f} y" if case.age_years >= 2 else f"{12 * case.age_years:.0f} mo"
    return f"{age} {case.sex[0].upper() if case.sex != 'unknown' else '?'}" + (" +photo" if case.photos else "")


def _why(assessment: Assessment) -> str:
    """The red flags, else what supports the level, else what is not known; two of them at most."""
    supports = [reason.text for reason in assessment.reasons if reason.kind in ("rule", "referrer", "model", "policy")]
    open_questions = [reason.text for reason in assessment.reasons if reason.kind == "could_change"]
    return "; ".join((list(assessment.red_flags) or supports or open_questions)[:_SHOWN_REASONS])


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _COMPLAINT_LENGTH else flat[: _COMPLAINT_LENGTH - 1] + "…"


def _likely(assessment: Assessment) -> str:
    parts = [f"{one.name_en} {100 * one.probability:.0f} %" for one in assessment.differential[:2]]
    if assessment.lesion:
        parts.append(f"photo: {assessment.lesion.label}, malignant {100 * assessment.lesion.malignancy_probability:.0f} %")
    return "; ".join(parts)
