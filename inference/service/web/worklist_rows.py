"""Rows of the worklist, ready to be shown and sorted. Pure: stored rows, policy and a moment in, plain data out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inference.policy import Policy
from inference.service.callers import Who
from inference.service.web.language import script_of

_SHOWN_WORDS = 110
_SHOWN_FLAGS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One case as a line. `rank` is its place in the queue, whatever the lines are sorted by; waits in minutes.

    `is_hidden`: the reader wants to form an impression of their own first.
    """

    id: str
    rank: int
    level: int
    is_hidden: bool
    wait_minutes: float
    cap_minutes: int
    is_late: bool
    age_years: float | None
    sex: str
    complaint: str
    script: Mapping[str, str]
    red_flags: tuple[str, ...]
    more_flags: int
    photos: int
    holder: str
    is_mine: bool
    is_waiting: bool
    scored_by: str
    needs_review: bool
    specialty: str
    district: str

    @property
    def over_minutes(self) -> float:
        """How long the case is past its cap."""
        return self.wait_minutes - self.cap_minutes


def rows_of(
    items: Iterable[Mapping[str, Any]], policy: Policy, as_of: datetime, who: Who, first: int, seen: Collection[str] | None
) -> list[Row]:
    """The rows of a page whose first one has rank `first`; `seen`: cases whose level may be shown, None for all."""
    return [_row(item, rank, policy, as_of, who, seen) for rank, item in enumerate(items, first)]


def _row(item: Mapping[str, Any], rank: int, policy: Policy, as_of: datetime, who: Who, seen: Collection[str] | None) -> Row:
    summary: Mapping[str, Any] = item["summary"] or {}
    words = " ".join((summary.get("complaint") or "").split())
    flags = summary.get("red_flags") or ()
    ends = item["completed_at"] or as_of
    return Row(
        id=item["id"],
        rank=rank,
        level=item["level"],
        is_hidden=seen is not None and item["id"] not in seen,
        wait_minutes=max((ends - item["received_at"]).total_seconds() / 60, 0),
        cap_minutes=policy.levels[item["level"]].cap_minutes,
        is_late=item["past_cap"],
        age_years=summary.get("age_years"),
        sex=summary.get("sex") or "unknown",
        complaint=words if len(words) <= _SHOWN_WORDS else f"{words[: _SHOWN_WORDS - 1]}…",
        script=script_of(words),
        red_flags=tuple(flags[:_SHOWN_FLAGS]),
        more_flags=max(len(flags) - _SHOWN_FLAGS, 0),
        photos=summary.get("photos") or 0,
        holder=item["holder"] or "",
        is_mine=item["holder"] == who.subject,
        is_waiting=item["state"] == "waiting",
        scored_by=item["scored_by"],
        needs_review=item["needs_review"],
        specialty=item["specialty"],
        district=item["district"] or "",
    )


def sorted_rows(rows: Iterable[Row], sort: str, *, is_descending: bool) -> list[Row]:
    """The same rows in another order; equal ones stay in the queue's, and what is not known comes last."""
    kept = sorted(rows, key=lambda row: row.rank)
    if sort == "rank":
        return kept[::-1] if is_descending else kept
    known = [row for row in kept if _value(row, sort) not in (None, "")]
    rest = [row for row in kept if _value(row, sort) in (None, "")]
    return sorted(known, key=lambda row: _value(row, sort), reverse=is_descending) + rest


def _value(row: Row, sort: str) -> Any:
    return {
        "level": row.level,
        "wait": row.wait_minutes,
        "age": row.age_years,
        "complaint": row.complaint.casefold(),
        "place": row.district,
        "status": row.holder,
    }[sort]
