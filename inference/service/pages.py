"""Pages of the worklist, in the queue's order as of one moment: a range of an index, however long the queue is.

The stored order changes in one way only: a case whose wait cap ends moves to the front of its level. A later page is read as of
the first one's moment, so cases that moved since are put back where they were; none is shown twice or left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Select, bindparam, literal_column, not_, select, tuple_

from inference.errors import ConflictError, MalformedError
from inference.policy import LEVELS
from inference.service.database import Unit
from inference.service.store import CLAIMED, COMPLETED, WAITING, sweep_caps
from inference.service.tables import ORDER_COLUMNS, from_us, referrals, to_us

STATES = ("open", WAITING, CLAIMED, COMPLETED, "review")
LARGEST_PAGE = 200
_CURSOR_LIFE = timedelta(hours=1)
_SWEEP_LIFE = timedelta(seconds=5)
_MOST_MOVED = 2000
_MAC_BYTES = 8
_CURSOR_LENGTH = 1000
# Written out, not bound, so that the databases see which partial index applies.
_CONDITIONS: Mapping[str, Any] = {
    "open": literal_column("is_open = 1"),
    WAITING: literal_column("is_open = 1 AND state = 'waiting'"),
    CLAIMED: literal_column("state = 'claimed'"),
    "review": literal_column("is_open = 1 AND needs_review = 1"),
    COMPLETED: literal_column("state = 'completed'"),
}
_COMPLETED_ORDER = (referrals.c.completed_us, referrals.c.id)
_ORDER = tuple(referrals.c[name] for name in ORDER_COLUMNS)
# All that a row of the list shows or is placed by; not the identity, which only the referral itself shows.
_SHOWN = tuple(column for column in referrals.c if column.name not in ("patient", "case_token", "claimed_us", "erased_us"))


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of `referrals`, the moment that they are ordered as of, and the cursor of the next page."""

    rows: list[Row[Any]]
    as_of: datetime
    cursor: str | None


def read_page(
    unit: Unit,
    filters: Mapping[str, Any],
    state: str,
    limit: int,
    cursor: str | None,
    now: datetime,
    key: bytes,
    swept_at: datetime | None = None,
) -> Page:
    """One page. `filters` maps columns (level, specialty, district, clinic) to values; `key` seals cursors.

    `swept_at`, a moment just now at which the caps were swept, makes the page one as of that moment, which needs no write.

    Raises MalformedError for a cursor that is not of this list, ConflictError for one that is too old.
    """
    scope = json.dumps([state, sorted(filters.items())])
    is_fresh = swept_at is not None and timedelta(0) <= now - swept_at <= _SWEEP_LIFE
    as_of, last = _open_cursor(cursor, scope, key) if cursor else (swept_at if swept_at is not None and is_fresh else now, None)
    if not timedelta(0) <= now - as_of <= _CURSOR_LIFE:
        raise ConflictError("this page of the list is too old: read it again from its start")
    wanted = _Wanted(unit, state, dict(filters), limit + 1, to_us(as_of), last)
    if state == COMPLETED:
        rows = wanted.read(is_moved=False)
        places = [[row.completed_us, row.id] for row in rows]
    else:
        if not is_fresh:
            sweep_caps(unit, now)
        rows = _ordered(wanted, is_later=as_of < now)
        places = [_place(row, to_us(as_of)) for row in rows]
    more = len(rows) > limit
    return Page(rows[:limit], as_of, _seal_cursor(as_of, places[limit - 1], scope, key) if more else None)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to read: the rows after the place `last`, `count` at most."""

    unit: Unit
    state: str
    filters: dict[str, Any]
    count: int
    as_of_us: int
    last: list[Any] | None

    def read(self, *, is_moved: bool | None = None, after: bool = True) -> list[Row[Any]]:
        """`is_moved`: only the rows that moved since the moment, or only the others; None for both alike."""
        has_last = after and self.last is not None
        values = {**self.filters, "count_": self.count, "as_of_us_": self.as_of_us}
        if has_last and self.last is not None:
            values |= {f"last_{place}": value for place, value in enumerate(self.last)}
        statement = _statement(self.state, tuple(sorted(self.filters)), is_moved, has_last=has_last)
        return list(self.unit.connection.execute(statement, values))


@lru_cache(maxsize=256)
def _statement(state: str, names: tuple[str, ...], is_moved: bool | None, *, has_last: bool) -> Select[Any]:
    """The query of a page. Building it costs more than running it, so it is built once for each kind of page."""
    order = _COMPLETED_ORDER if state == COMPLETED else _ORDER
    query = select(*_SHOWN).where(_CONDITIONS[state], *(referrals.c[name] == bindparam(name) for name in names))
    if "on_time" in names and "level" not in names:
        query = query.where(referrals.c.level.in_(LEVELS))  # else the whole index is walked for the few that are late
    if has_last:
        place = tuple_(*(bindparam(f"last_{number}", type_=column.type) for number, column in enumerate(order)))
        query = query.where(tuple_(*order) < place if state == COMPLETED else tuple_(*order) > place)
    if is_moved is not None and state != COMPLETED:
        moved = referrals.c.level.in_(LEVELS) & (referrals.c.on_time == 0) & (referrals.c.order_us >= bindparam("as_of_us_"))
        query = query.where(moved if is_moved else not_(moved))
    if is_moved:
        return query.limit(bindparam("count_"))  # few: put in order afterwards
    ordering = [column.desc() for column in order] if state == COMPLETED else order
    return query.order_by(*ordering).limit(bindparam("count_"))


def _ordered(wanted: _Wanted, *, is_later: bool) -> list[Row[Any]]:
    """Rows in the order as of the moment; when that has passed, rows that moved since are put back where they were."""
    if not is_later:
        return wanted.read()
    moved = replace(wanted, count=_MOST_MOVED + 1).read(is_moved=True, after=False)
    if len(moved) > _MOST_MOVED:
        raise ConflictError("the list has changed too much since its first page: read it again from its start")
    rows = wanted.read(is_moved=False)
    if not moved:
        return rows
    put_back = [row for row in moved if wanted.last is None or _place(row, wanted.as_of_us) > wanted.last]
    return sorted([*rows, *put_back], key=lambda row: _place(row, wanted.as_of_us))[: wanted.count]


def _place(row: Row[Any], as_of_us: int) -> list[Any]:
    """Where a row stood as of a moment: the order's columns."""
    on_time = row.cap_us >= as_of_us
    return [row.level, int(on_time), row.due_us if on_time else row.cap_us, row.neg_risk, row.received_us, row.id]


def _seal_cursor(as_of: datetime, place: list[Any], scope: str, key: bytes) -> str:
    content = json.dumps([to_us(as_of), place], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_mac(content, scope, key) + content).decode().rstrip("=")


def _open_cursor(cursor: str, scope: str, key: bytes) -> tuple[datetime, list[Any]]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)) if len(cursor) <= _CURSOR_LENGTH else b""
    except ValueError:
        raw = b""
    mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not content or not hmac.compare_digest(mac, _mac(content, scope, key)):
        raise MalformedError("the cursor is not one of this list with these filters: read the list again from its start")
    as_of_us, place = json.loads(content)
    return from_us(as_of_us), place


def _mac(content: bytes, scope: str, key: bytes) -> bytes:
    return hmac.digest(key, content + scope.encode(), hashlib.sha256)[:_MAC_BYTES]
