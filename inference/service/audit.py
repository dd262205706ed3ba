"""The audit trail: append-only rows, each with a keyed hash over itself and the row before.

A row that was edited, deleted, moved or inserted breaks the chain at its place; a cut-off end is noticed because the head (where
the chain ends) is keyed too. A database put back to an older state as a whole is noticed by the anchors that the service writes
beside it. Rows hold actors, actions and referral ids, never anything of the patient's. Knows no routes and no roles.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from inference.errors import StorageError
from inference.service.tables import audit, audit_head, events

_START = "0" * 64
_HEAD = 1
_PAGE = 5000
_ANCHOR_BYTES = 200  # more than a line has
_COLUMNS = ("sequence", "at_us", "actor", "role", "action", "referral_id", "detail")
# Built once: every change of anything runs them.
_INSERT = insert(audit)
_LOCK_HEAD = select(audit_head).where(audit_head.c.id == _HEAD).with_for_update()
_MOVE_HEAD = (
    update(audit_head)
    .where(audit_head.c.id == _HEAD)
    .values(sequence=bindparam("sequence_"), hash=bindparam("hash_"), mac=bindparam("mac_"))
)


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
    """What a verification found: `first_bad` is the sequence of the first row that is not as it was written."""

    rows: int
    first_bad: int | None
    problem: str


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
    connection.execute(_MOVE_HEAD, {"sequence_": sequence, "hash_": last, "mac_": _mac(key, sequence, last)})


def lock_head(connection: Connection, key: bytes) -> tuple[int, str]:
    """The end of the chain (sequence, hash), locked until the transaction ends, so that writers take turns.

    Raises StorageError when the head was tampered with.
    """
    head = connection.execute(_LOCK_HEAD).first()
    if head is None:
        raise StorageError("the audit trail has no head: start the service once, which makes one, or restore the database from a backup")
    if _is_fresh(connection, head):
        return 0, _START
    if not _same(head.mac, _mac(key, head.sequence, head.hash)):
        raise StorageError("the audit trail's head was altered: run `nabz audit verify`, and restore the database from a backup")
    return head.sequence, head.hash


def verify(connection: Connection, key: bytes, anchors: Path | None = None) -> AuditCheck:
    """Walk the whole chain and name the first row that is not as it was written."""
    expected, last, rows = 1, _START, 0
    hashes: dict[int, str] = {}
    wanted = list(_read_anchors(anchors, key)) if anchors else []
    places = {place for place, _ in wanted}
    for row in _rows(connection):
        if row.sequence != expected:
            return AuditCheck(rows, expected, f"row {expected} is missing: the next one there is {row.sequence}")
        if not _same(row.hash, _hash(key, last, [getattr(row, name) for name in _COLUMNS])):
            return AuditCheck(rows, row.sequence, f"row {row.sequence} was altered, or put in another row's place")
        if row.sequence in places:
            hashes[row.sequence] = row.hash
        last, rows, expected = row.hash, rows + 1, expected + 1
    return _check_end(connection, key, rows, last, [place for place, known in wanted if hashes.get(place) != known])


def _check_end(connection: Connection, key: bytes, rows: int, last: str, unmet: list[int]) -> AuditCheck:
    head = connection.execute(select(audit_head).where(audit_head.c.id == _HEAD)).first()
    if head is None:
        return AuditCheck(rows, rows + 1, "the head of the chain is missing: rows may have been cut off its end")
    if isinstance(head.sequence, int) and head.sequence > rows:
        return AuditCheck(rows, rows + 1, f"rows {rows + 1} to {head.sequence} were cut off the end")
    is_right = _is_fresh(connection, head) or _same(head.mac, _mac(key, rows, last))
    if head.sequence != rows or head.hash != last or not is_right:
        return AuditCheck(rows, max(rows, 1), f"the head of the chain was altered: it does not name row {rows}, the last one there")
    if unmet:
        first = min(unmet)
        return AuditCheck(rows, first, f"row {first} is not the one that was anchored outside of the database: an older state was put back")
    return AuditCheck(rows, None, "")


def anchor(connection: Connection, key: bytes, file: Path) -> None:
    """Write the end of the chain to a file outside of the database, one line each time it has moved."""
    sequence, last = lock_head(connection, key)
    line = f"{sequence} {last} {_mac(key, sequence, last)}\n".encode()
    with file.open("a+b") as out:
        out.seek(max(0, out.tell() - _ANCHOR_BYTES))
        end = out.read()
        if not sequence or end.endswith(line):
            return
        torn = len(end) - end.rfind(b"\n") - 1
        out.truncate(out.tell() - torn)  # the power failed while the last line was written
        out.write(line)
        out.flush()
        os.fsync(out.fileno())


def _is_fresh(connection: Connection, head: Row[Any]) -> bool:
    """Whether the head is the one that an empty database has: then nothing has happened yet either."""
    return head.sequence == 0 and head.hash == _START and connection.execute(select(events.c.sequence).limit(1)).first() is None


def _read_anchors(file: Path, key: bytes) -> Iterator[tuple[int, str]]:
    if not file.is_file():
        return
    *lines, _torn = file.read_text(encoding="ascii", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        parts = line.split(" ")
        if len(parts) != 3 or not parts[0].isdigit() or not _same(parts[2], _mac(key, int(parts[0]), parts[1])):
            raise StorageError(f"{file.name}, line {number}: this anchor was altered; compare the file with your copies of it")
        yield int(parts[0]), parts[1]


def _rows(connection: Connection) -> Iterator[Row[Any]]:
    last = None
    while True:
        query = select(audit).order_by(audit.c.sequence).limit(_PAGE)
        page = connection.execute(query if last is None else query.where(audit.c.sequence > last)).fetchall()
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1].sequence


def _hash(key: bytes, before: str, fields: list[Any]) -> str:
    # `default`: SQLite stores any type in any column, and whoever alters a row may use that.
    return hmac.digest(key, f"{before}{json.dumps(fields, ensure_ascii=True, default=repr)}".encode(), hashlib.sha256).hex()


def _same(stored: object, expected: str) -> bool:
    """Whether a stored value is the expected one; a value of another type is not."""
    return isinstance(stored, str) and hmac.compare_digest(stored.encode(), expected.encode())


def _mac(key: bytes, sequence: int, last: str) -> str:
    return hmac.digest(key, f"head {sequence} {last}".encode(), hashlib.sha256).hex()
