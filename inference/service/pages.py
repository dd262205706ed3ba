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
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, literal_column, not_, select, tuple_

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
    query = select(referrals).where(_CONDITIONS[state])
    for name, value in filters.items():
        query = query.where(referrals.c[name] == value)
    if state == COMPLETED:
        rows = _completed(unit, query, last, limit)
        places = [[row.completed_us, row.id] for row in rows]
    else:
        if not is_fresh:
            sweep_caps(unit, now)
        rows = _ordered(unit, query, last, limit, to_us(as_of), is_later=as_of < now)
        places = [_place(row, to_us(as_of)) for row in rows]
    more = len(rows) > limit
    return Page(rows[:limit], as_of, _seal_cursor(as_of, places[limit - 1], scope, key) if more else None)


def _completed(unit: Unit, query: Select[Any], last: list[Any] | None, limit: int) -> list[Row[Any]]:
    """Completed cases, the latest first."""
    if last:
        query = query.where(tuple_(*_COMPLETED_ORDER) < tuple_(*last))
    return list(unit.connection.execute(query.order_by(*(column.desc() for column in _COMPLETED_ORDER)).limit(limit + 1)))


def _ordered(unit: Unit, query: Select[Any], last: list[Any] | None, limit: int, as_of_us: int, *, is_later: bool) -> list[Row[Any]]:
    columns = [referrals.c[name] for name in ORDER_COLUMNS]
    page = query if last is None else query.where(tuple_(*columns) > tuple_(*last))
    moved: list[Row[Any]] = []
    if is_later:
        has_moved = referrals.c.level.in_(LEVELS) & (referrals.c.on_time == 0) & (referrals.c.order_us >= as_of_us)
        moved = list(unit.connection.execute(query.where(has_moved).limit(_MOST_MOVED + 1)))
        if len(moved) > _MOST_MOVED:
            raise ConflictError("the list has changed too much since its first page: read it again from its start")
        page = page.where(not_(has_moved))
    rows = list(unit.connection.execute(page.order_by(*columns).limit(limit + 1)))
    put_back = [row for row in moved if last is None or _place(row, as_of_us) > last]
    return sorted([*rows, *put_back], key=lambda row: _place(row, as_of_us))[: limit + 1]


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
