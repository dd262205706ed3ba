"""Which referrals a FHIR search finds, page by page. Reads rows; knows no FHIR, opens nothing that is sealed.

Named ones (by id, patient or identifier) come in the order in which they came in; the others in the queue's order, open ones first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, or_, select

from inference.errors import MalformedError
from inference.service.database import Unit
from inference.service.fhir_store import ReferralQuery, State
from inference.service.pages import read_page
from inference.service.tables import referrals

_NAMED = "n"  # what the cursor of named referrals begins with; that of the queue begins with a number
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_STATES: tuple[State, ...] = ("waiting", "claimed", "completed")


class Found(NamedTuple):
    """Rows of `referrals`, and the cursor of the next page."""

    rows: list[Row[Any]]
    cursor: str | None


def is_id(text: str) -> bool:
    """Whether this can be a resource's id in FHIR. What cannot is not looked for: PostgreSQL takes no NUL even in a question."""
    return _ID.fullmatch(text) is not None


def find(unit: Unit, query: ReferralQuery, clinic: str | None, tokens: tuple[str, ...], now: datetime, key: bytes) -> Found:
    """One page; with `clinic`, of that clinic's alone. `tokens` are the keyed hashes of the query's identifiers.

    Raises MalformedError for a cursor that is not of this search, ConflictError for one that is too old.
    """
    if query.ids is None and query.patient_ids is None and query.identifiers is None:
        return _listed(unit, query, clinic, now, key)
    return _named(unit, query, clinic, tokens)


def _named(unit: Unit, query: ReferralQuery, clinic: str | None, tokens: tuple[str, ...]) -> Found:
    wanted: Select[Any] = select(referrals) if clinic is None else select(referrals).where(referrals.c.clinic == clinic)
    if query.ids is not None:
        wanted = wanted.where(referrals.c.id.in_(_ids(query.ids)))
    if query.patient_ids is not None:
        wanted = wanted.where(referrals.c.patient_id.in_(_ids(query.patient_ids)))
    if query.identifiers is not None:
        wanted = wanted.where(or_(referrals.c.id.in_(_ids(query.identifiers)), referrals.c.case_token.in_(tokens)))
    if query.states is not None:
        wanted = wanted.where(referrals.c.state.in_(query.states))
    if query.levels is not None:
        wanted = wanted.where(referrals.c.level.in_(query.levels))
    if query.cursor is not None:
        last = query.cursor.removeprefix(_NAMED)
        if not (query.cursor.startswith(_NAMED) and is_id(last)):
            raise _wrong_cursor()
        wanted = wanted.where(referrals.c.id > last)
    # An id begins with its time, and never changes: nothing is shown twice or left out while cases move in the queue.
    rows = list(unit.connection.execute(wanted.order_by(referrals.c.id).limit(query.count + 1)))
    page = rows[: query.count]
    return Found(page, f"{_NAMED}{page[-1].id}" if len(rows) > query.count else None)


def _listed(unit: Unit, query: ReferralQuery, clinic: str | None, now: datetime, key: bytes) -> Found:
    """A page of the queue; the cursor says which state and level it stands in."""
    parts = _parts(query)
    place, _, inner = (query.cursor or "0").partition(".")
    if not (place.isascii() and place.isdigit() and len(place) < 3 and int(place) < len(parts)):
        raise _wrong_cursor()
    number, rows = int(place), list[Row[Any]]()
    while number < len(parts):
        state, level = parts[number]
        filters: Mapping[str, Any] = {name: value for name, value in (("clinic", clinic), ("level", level)) if value is not None}
        page = read_page(unit, filters, state, query.count - len(rows), inner or None, now, key)
        rows += page.rows
        inner = page.cursor or ""
        if inner:
            break
        number += 1
        if len(rows) >= query.count:
            break
    return Found(rows, f"{number}.{inner}" if number < len(parts) else None)


def _ids(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if is_id(text)]


def _parts(query: ReferralQuery) -> list[tuple[State, int | None]]:
    """The lists that a search walks, one after the other."""
    levels: list[int | None] = [None] if query.levels is None else [*sorted(query.levels)]
    return [(state, level) for state in _STATES if query.states is None or state in query.states for level in levels]


def _wrong_cursor() -> MalformedError:
    return MalformedError("the cursor is not one of this search: read it again from its first page")
