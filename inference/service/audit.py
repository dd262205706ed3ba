"""The audit trail: append-only rows, each with a keyed hash over itself and the row before.

A row that was edited, deleted, moved or inserted breaks the chain at its place; a cut-off end is noticed because the head (where
the chain ends) is keyed too. A database put back to an older state as a whole is noticed by the anchors that the service writes
beside it. Rows hold actors, actions and referral ids, never anything of the patient's. Knows no routes and no roles.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from inference.errors import StorageError
from inference.service.anchors import end_mac, is_same, read_anchors
from inference.service.tables import audit, audit_head, events, facts, referrals

_START = "0" * 64
_HEAD = 1
_PAGE = 5000
_COLUMNS = ("sequence", "at_us", "actor", "role", "action", "referral_id", "detail")
# Built once: every change of anything runs them.
_INSERT = insert(audit)
_READ_HEAD = select(audit_head).where(audit_head.c.id == _HEAD)
_LOCK_HEAD = _READ_HEAD.with_for_update()
_MOVE_HEAD = (
    update(audit_head)
    .where(audit_head.c.id == _HEAD)
    .values(sequence=bindparam("sequence_"), hash=bindparam("hash_"), mac=bindparam("mac_"))
)
_ALTERED_HEAD = "the audit trail's head was altered: run `nabz audit verify`, and restore the database from a backup"
_Finding = tuple[int | None, str]  # the first bad row, and what is wrong with it
_NOTHING: _Finding = (None, "")

Result = TypeVar("Result")


class Reader(Protocol):
    """Reads something in a transaction and returns it."""

    def __call__(self, work: Callable[[Connection], Result], /) -> Result:
        """What `work` returns."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did, or read. `detail` is JSON without personal data."""

    at_us: int
    actor: str
    role: str
    action: str
    referral_id: str | None
    detail: str = "{}"


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What a verification found: `first_bad` is the sequence of the first row that is not as it was written.

    `warning` says what could not be checked.
    """

    rows: int
    first_bad: int | None
    problem: str
    warning: str = ""


def append(connection: Connection, entries: Sequence[AuditEntry], key: bytes, head: tuple[int, str]) -> None:
    """Chain `entries` to the end, `head`, as `lock_head` gave it in this transaction."""
    if not entries:
        return
    sequence, last = head
    rows = []
    for entry in entries:
        sequence += 1
        row = {
            "sequence": sequence, "at_us": entry.at_us, "actor": entry.actor, "role": entry.role, "action": entry.action,
            "referral_id": entry.referral_id, "detail": entry.detail,
        }  # fmt: skip
        last = _hash(key, last, [row[name] for name in _COLUMNS])
        rows.append({**row, "hash": last})
    connection.execute(_INSERT, rows)
    connection.execute(_MOVE_HEAD, {"sequence_": sequence, "hash_": last, "mac_": end_mac(key, sequence, last)})


def lock_head(connection: Connection, key: bytes) -> tuple[int, str]:
    """The end of the chain (sequence, hash), locked until the transaction ends, so that writers take turns.

    Raises StorageError when the head was tampered with.
    """
    return _end(connection, key, connection.execute(_LOCK_HEAD).first())


def read_head(connection: Connection, key: bytes) -> tuple[int, str]:
    """The same without a lock."""
    return _end(connection, key, _head(connection))


def _end(connection: Connection, key: bytes, head: Row[Any] | None) -> tuple[int, str]:
    if head is None:
        raise StorageError("the audit trail has no head: start the service once, which makes one, or restore the database from a backup")
    if _is_first(head) and _is_empty(connection):
        return 0, _START
    if not _is_signed(head, key):
        raise StorageError(_ALTERED_HEAD)
    return head.sequence, head.hash


def check_key(connection: Connection, key: bytes) -> None:
    """Raise StorageError when the trail was not written with `key`, or its head was altered."""
    head = _head(connection)
    if is_unused(connection) or (head is not None and _is_signed(head, key)):
        return
    first = connection.execute(select(audit).where(audit.c.sequence == 1)).first()
    if first is not None and not is_same(first.hash, _row_hash(key, _START, first)):
        raise StorageError(
            "this key file is not the one this database was written with: put the right one in its place (NABZ_KEY_FILE names it)"
        )
    raise StorageError(_ALTERED_HEAD)


def is_unused(connection: Connection) -> bool:
    """Whether nothing has ever happened in this database: the head is the first one, and no referral, event or fact is there."""
    head = _head(connection)
    return head is not None and _is_first(head) and _is_empty(connection)


def verify(connection: Connection, key: bytes, anchors: Path | None = None) -> AuditCheck:
    """Walk the whole chain and name the first row that is not as it was written."""
    return verify_in_pages(lambda work: work(connection), key, anchors)


def verify_in_pages(read: Reader, key: bytes, anchors: Path | None = None) -> AuditCheck:
    """The same, each page as `read` reads it, which may be a transaction of its own: rows may be added meanwhile.

    The head is read before the rows, and again after the last of them: what is added meanwhile lies between the two.
    """
    has_anchors = anchors is not None and anchors.is_file()
    wanted = list(read_anchors(anchors, key)) if anchors and has_anchors else []
    is_empty = read(_is_empty)  # before the head: what comes in between moves the head
    head = read(_head)
    is_right = head is not None and ((is_empty and _is_first(head)) or _is_signed(head, key))
    places, hashes = {place for place, _ in wanted}, dict[int, str]()
    last, rows = _START, 0
    for row in _rows(read, head.sequence if head is not None and is_right else None):
        if row.sequence != rows + 1:
            return AuditCheck(rows, rows + 1, f"row {rows + 1} is missing: the next one there is {row.sequence}")
        if not is_same(row.hash, _row_hash(key, last, row)):
            return AuditCheck(rows, row.sequence, f"row {row.sequence} was altered, or put in another row's place")
        if row.sequence in places:
            hashes[row.sequence] = row.hash
        last, rows = row.hash, rows + 1
    bad, problem = _check_head(head, is_right, rows, last)
    if not problem:
        bad, problem = _check_beyond(read, rows)
    unmet = [place for place, known in wanted if hashes.get(place) != known]
    if unmet and not problem:
        bad = min(unmet)
        problem = f"row {bad} is not the one that was anchored outside of the database: an older state was put back"
    warning = "" if has_anchors or not rows or anchors is None else f"{anchors.name} is missing: an older state put back goes unnoticed"
    return AuditCheck(rows, bad, problem, warning)


def _check_head(head: Row[Any] | None, is_right: bool, rows: int, last: str) -> _Finding:
    if head is None:
        return rows + 1, "the head of the chain is missing: rows may have been cut off its end"
    if isinstance(head.sequence, int) and head.sequence > rows:
        return rows + 1, f"rows {rows + 1} to {head.sequence} were cut off the end"
    if head.sequence != rows or head.hash != last or not is_right:
        return max(rows, 1), f"the head of the chain was altered: it does not name row {rows}, the last one there"
    return _NOTHING


def _check_beyond(read: Reader, rows: int) -> _Finding:
    """Rows behind the end as it was are those that came since, and the head names the last of them."""
    beyond = read(lambda connection: connection.execute(select(audit.c.sequence).order_by(audit.c.sequence.desc()).limit(1)).scalar())
    head = read(_head)
    if beyond is not None and (head is None or not isinstance(beyond, int) or beyond > head.sequence):
        return rows + 1, f"row {beyond} was put behind the end: the head of the chain does not name it"
    return _NOTHING


def _rows(read: Reader, end: int | None) -> Iterator[Row[Any]]:
    """The rows in order, up to `end` if there is one."""
    query = select(audit).order_by(audit.c.sequence).limit(_PAGE)
    query = query if end is None else query.where(audit.c.sequence <= end)
    last = None
    while True:
        page = read(_fetched(query if last is None else query.where(audit.c.sequence > last)))
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1].sequence


def _fetched(query: Select[Any]) -> Callable[[Connection], Sequence[Row[Any]]]:
    return lambda connection: connection.execute(query).fetchall()


def _head(connection: Connection) -> Row[Any] | None:
    return connection.execute(_READ_HEAD).first()


def _is_first(head: Row[Any]) -> bool:
    """Whether the head is as a new database has it."""
    return bool(head.sequence == 0 and head.hash == _START)


def _is_empty(connection: Connection) -> bool:
    """Whether there is nothing that a row of the trail would have been written for."""
    return all(connection.execute(select(table).limit(1)).first() is None for table in (events, referrals, facts))


def _is_signed(head: Row[Any], key: bytes) -> bool:
    return is_same(head.mac, end_mac(key, head.sequence, head.hash))


def _row_hash(key: bytes, before: str, row: Row[Any]) -> str:
    return _hash(key, before, [getattr(row, name) for name in _COLUMNS])


def _hash(key: bytes, before: str, fields: list[Any]) -> str:
    # `default`: SQLite stores any type in any column, and whoever alters a row may use that.
    return hmac.digest(key, f"{before}{json.dumps(fields, ensure_ascii=True, default=repr)}".encode(), hashlib.sha256).hex()
