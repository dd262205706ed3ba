"""What happens to referrals, as statements on the database: every change writes its event and its audit row in the same transaction.

Takes sealed bytes and hands them back; knows no keys, no HTTP, no models. Time is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, literal_column, select, update

from inference.errors import ConflictError, NotFoundError, UnprocessableError
from inference.policy import Policy
from inference.queue import Waiting, cap_at, due_at, order_key
from inference.service.access import NO_SUCH_REFERRAL
from inference.service.audit import AuditEntry
from inference.service.callers import Who
from inference.service.database import Unit, insert_sql
from inference.service.tables import ORDER_COLUMNS, assessments, events, from_us, idempotency, photo_links, referrals, to_us

WAITING, CLAIMED, COMPLETED = "waiting", "claimed", "completed"
NOTED, AGREED, IMPRESSION = "noted", "agreed", "impression"  # what a clinician says of a case and leaves as it is
# Written out, not bound: only so do the databases see that the partial indexes apply.
ONE: Any = literal_column("1")
CLAIMED_TEXT: Any = literal_column("'claimed'")
_LEASES_AT_ONCE = 200
_POLICY_ROWS_AT_ONCE = 1000

# Built once: building a statement costs more than running it.
_FIND_ANSWER = select(idempotency).where(idempotency.c.key == bindparam("wanted"))

Referral = Row[Any]


@dataclass(frozen=True, slots=True)
class NewReferral:
    """A referral to be stored. Sealed: `summary`, `patient`, `content`. `risk` in [0, 1]."""

    id: str
    clinic: str
    district: str | None
    specialty: str
    level: int
    floor_level: int
    scored_by: str
    needs_review: bool
    risk: float
    received_at: datetime
    summary: bytes
    patient: bytes | None
    content: bytes
    case_token: str
    patient_id: str | None = None
    photos: tuple[str, ...] = ()


def order_values(id_: str, level: int, received_at: datetime, risk: float, policy: Policy, now: datetime) -> dict[str, Any]:
    """The columns by which the queue is sorted, from the pure order."""
    waiting = Waiting(id_, level, received_at, risk)
    key = order_key(waiting, policy, now)
    return {
        "level": level,
        "on_time": int(key[1]),
        "order_us": to_us(key[2]),
        "neg_risk": key[3],
        "received_us": to_us(received_at),
        "due_us": to_us(due_at(waiting, policy)),
        "cap_us": to_us(cap_at(waiting, policy)),
    }


def insert_referral(unit: Unit, new: NewReferral, who: Who, policy: Policy, now: datetime) -> dict[str, Any]:
    """Store a referral with its first assessment. Returns its row."""
    at_us = to_us(now)
    row = {
        "id": new.id,
        "clinic": new.clinic,
        "district": new.district,
        "specialty": new.specialty,
        "state": WAITING,
        "is_open": 1,
        "machine_level": new.level,
        "floor_level": new.floor_level,
        "scored_by": new.scored_by,
        "needs_review": int(new.needs_review),
        "stored_us": at_us,
        "updated_us": at_us,
        "version": 1,
        "revision": 1,
        "summary": new.summary,
        "patient": new.patient,
        "case_token": new.case_token,
        "patient_id": new.patient_id,
        **order_values(new.id, new.level, new.received_at, new.risk, policy, now),
    }
    unit.add(referrals, **row)
    unit.add(assessments, referral_id=new.id, version=1, at_us=at_us, content=new.content)
    for sha256 in new.photos:
        unit.add(photo_links, referral_id=new.id, sha256=sha256)
    unit.add(
        events,
        at_us=at_us,
        referral_id=new.id,
        kind="created",
        actor=who.subject,
        role=who.role,
        clinic=new.clinic,
        district=new.district,
        specialty=new.specialty,
        level_before=None,
        level=new.level,
        state=WAITING,
        revision=1,
        detail=None,
    )
    record(unit, who, "created", new.id, now)
    return row


def record_listed(unit: Unit, who: Who, ids: Sequence[str], now: datetime) -> None:
    """Append to the audit trail, soon, that a page was read."""
    unit.audit_soon(entry(who, "listed", None, now, referrals=list(ids)))


def record(unit: Unit, who: Who, action: str, referral_id: str | None, now: datetime, **detail: Any) -> None:
    """Append to the audit trail. `detail` must not hold anything of the patient's."""
    unit.audit(entry(who, action, referral_id, now, **detail))


def entry(who: Who, action: str, referral_id: str | None, now: datetime, **detail: Any) -> AuditEntry:
    """A row of the audit trail. `detail` must not hold anything of the patient's."""
    text = json.dumps(detail, separators=(",", ":"), sort_keys=True) if detail else "{}"
    return AuditEntry(to_us(now), who.subject, who.role, action, referral_id, text)


def find_referral(unit: Unit, id_: str, clinic: str | None = None, *, lock: bool = False) -> Referral:
    """One referral; with `clinic`, only that clinic's. Raises NotFoundError: missing and foreign look the same."""
    query = select(referrals).where(referrals.c.id == id_)
    if clinic is not None:
        query = query.where(referrals.c.clinic == clinic)
    row = unit.connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFoundError(NO_SUCH_REFERRAL)
    return row


def versions_of(unit: Unit, id_: str) -> list[Row[Any]]:
    """Every assessment of a referral, the first one first."""
    return list(unit.connection.execute(select(assessments).where(assessments.c.referral_id == id_).order_by(assessments.c.version)))


def latest_version(unit: Unit, id_: str, version: int) -> Row[Any]:
    """One assessment of a referral."""
    query = select(assessments).where(assessments.c.referral_id == id_, assessments.c.version == version)
    return unit.connection.execute(query).one()


def history_of(unit: Unit, id_: str) -> list[Row[Any]]:
    """All that happened to a referral, in order."""
    return list(unit.connection.execute(select(events).where(events.c.referral_id == id_).order_by(events.c.sequence)))


def claim(unit: Unit, id_: str, who: Who, policy: Policy, now: datetime) -> Referral:
    """Give the case to `who` for the policy's lease; who holds it already gets a new lease. Raises ConflictError."""
    before = find_referral(unit, id_, lock=True)
    if before.state == COMPLETED:
        raise ConflictError("the case is completed")
    if _is_held_by_another(before, who, now):
        raise ConflictError("another clinician holds this case: take the next one, or wait until its lease ends")
    if not is_held_by(before, who, now):
        _check_capacity(unit, who, policy, to_us(now))
    values: dict[str, Any] = {"state": CLAIMED, "holder": who.subject, "lease_us": to_us(now + policy.queue.lease)}
    return _change(unit, before, who, "claimed", now, claimed_us=to_us(now), **values)


def is_held(row: Referral, now: datetime) -> bool:
    """Whether somebody holds the case just now."""
    return bool(row.state == CLAIMED and row.lease_us >= to_us(now))


def is_held_by(row: Referral, who: Who, now: datetime) -> bool:
    """Whether `who` holds the case just now."""
    return is_held(row, now) and row.holder == who.subject


def claim_next(unit: Unit, who: Who, policy: Policy, now: datetime, filters: Mapping[str, Any]) -> Referral | None:
    """Claim the first case that waits; None when none does. Cases that others are claiming just now are passed over."""
    sweep_caps(unit, now)
    query = select(referrals.c.id).where(referrals.c.is_open == ONE, referrals.c.state == WAITING)
    for name, value in filters.items():
        query = query.where(referrals.c[name] == value)
    found = unit.connection.execute(
        query.order_by(*(referrals.c[name] for name in ORDER_COLUMNS)).limit(1).with_for_update(skip_locked=True)
    ).first()
    return claim(unit, found.id, who, policy, now) if found else None


def _check_capacity(unit: Unit, who: Who, policy: Policy, now_us: int) -> None:
    if unit.connection.dialect.name == "postgresql":  # two processes at once must not both find the last place free
        unit.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(who.subject, 0))))
    held = unit.connection.execute(
        select(func.count()).where(referrals.c.state == CLAIMED_TEXT, referrals.c.holder == who.subject, referrals.c.lease_us >= now_us)
    ).scalar_one()
    if held >= policy.queue.capacity_per_clinician:
        raise ConflictError(f"you hold {held} cases already, which is the most that the policy allows: complete or release one first")


def release(unit: Unit, id_: str, who: Who, now: datetime) -> Referral:
    """Put a case that `who` holds back in the queue, at its place. Raises ConflictError when they do not hold it."""
    before = _held(unit, id_, who, now)
    return _change(unit, before, who, "released", now, state=WAITING, holder=None, lease_us=None)


def complete(unit: Unit, id_: str, who: Who, now: datetime, detail: bytes | None) -> Referral:
    """Close a case that `who` holds. Raises ConflictError when they do not hold it."""
    before = _held(unit, id_, who, now)
    values = {"state": COMPLETED, "is_open": 0, "holder": None, "lease_us": None, "completed_us": to_us(now)}
    return _change(unit, before, who, "completed", now, detail=detail, **values)


def override(unit: Unit, id_: str, who: Who, level: int, policy: Policy, now: datetime, detail: bytes) -> Referral:
    """Set the level that a clinician decided on, in place of the machine's. Raises ConflictError when another holds the case."""
    before = find_referral(unit, id_, lock=True)
    _refuse_completed(before)
    if _is_held_by_another(before, who, now):
        raise ConflictError("another clinician holds this case: leave a note, or ask them to release it")
    order = order_values(id_, level, from_us(before.received_us), -before.neg_risk, policy, now)
    return _change(unit, before, who, "overridden", now, detail=detail, override_level=level, **order)


def add_note(unit: Unit, id_: str, who: Who, now: datetime, detail: bytes, kind: str = NOTED) -> Referral:
    """Add what a clinician says: a note, an agreement with the level, a first impression."""
    return _change(unit, find_referral(unit, id_, lock=True), who, kind, now, detail=detail)


@dataclass(frozen=True, slots=True)
class Reassessment:
    """A further assessment of a referral. `was_version` and `was_level` are those that it was made from."""

    was_version: int
    was_level: int
    level: int
    is_worse: bool
    floor_level: int
    district: str | None
    specialty: str
    scored_by: str
    needs_review: bool
    risk: float
    received_at: datetime
    summary: bytes
    content: bytes
    photos: tuple[str, ...] = ()


def level_after(before: Referral, machine_level: int, *, is_worse: bool) -> int:
    """The queue's level after a new assessment: it may rise and never falls by itself.

    After a clinician's override only an assessment that is worse than the one that they saw raises it again.
    """
    if before.override_level is not None and not is_worse:
        return int(before.level)
    return min(int(before.level), machine_level)


def reassess(unit: Unit, id_: str, new: Reassessment, who: Who, policy: Policy, now: datetime) -> Referral | None:
    """Store a new assessment; None when somebody else stored one, or changed the level, since then."""
    before = find_referral(unit, id_, lock=True)
    _refuse_completed(before)
    if before.version != new.was_version or before.level != new.was_level:
        return None
    version, level = before.version + 1, level_after(before, new.level, is_worse=new.is_worse)
    unit.write(assessments.insert().values(referral_id=id_, version=version, at_us=to_us(now), content=new.content))
    known = set(unit.connection.execute(select(photo_links.c.sha256).where(photo_links.c.referral_id == id_)).scalars())
    for sha256 in set(new.photos) - known:
        unit.write(photo_links.insert().values(referral_id=id_, sha256=sha256))
    return _change(
        unit,
        before,
        who,
        "reassessed",
        now,
        machine_level=new.level,
        floor_level=new.floor_level,
        district=new.district,
        specialty=new.specialty,
        scored_by=new.scored_by,
        needs_review=int(new.needs_review),
        version=version,
        summary=new.summary,
        override_level=before.override_level if level == before.level else None,
        **order_values(id_, level, new.received_at, new.risk, policy, now),
    )


def sweep_caps(unit: Unit, now: datetime) -> int:
    """Move the cases whose wait cap has ended to the front of their level. Each case moves once, so this stays cheap."""
    moved = unit.connection.execute(
        update(referrals)
        .where(referrals.c.is_open == ONE, referrals.c.on_time == ONE, referrals.c.cap_us < to_us(now))
        .values(on_time=0, order_us=referrals.c.cap_us)
    )
    return moved.rowcount


def sweep_leases(unit: Unit, now: datetime, clock: Who) -> int:
    """Return the cases whose lease has ended to the queue."""
    ended = unit.connection.execute(
        select(referrals)
        .where(referrals.c.state == CLAIMED_TEXT, referrals.c.lease_us < to_us(now))
        .limit(_LEASES_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).fetchall()
    for row in ended:
        _change(unit, row, clock, "lease_expired", now, state=WAITING, holder=None, lease_us=None)
    return len(ended)


def requeue(unit: Unit, policy: Policy, now: datetime, after: str) -> str | None:
    """Compute the order of the next open referrals after id `after` again, for a new policy. Returns the last one's id."""
    rows = unit.connection.execute(
        select(referrals)
        .where(referrals.c.is_open == 1, referrals.c.id > after)
        .order_by(referrals.c.id)
        .limit(_POLICY_ROWS_AT_ONCE)
        .with_for_update()
    ).fetchall()
    for row in rows:
        values = order_values(row.id, row.level, from_us(row.received_us), -row.neg_risk, policy, now)
        unit.write(update(referrals).where(referrals.c.id == row.id).values(**values))
    return rows[-1].id if rows else None


def find_answer(unit: Unit, key: str, body: str) -> list[str] | None:
    """The referrals that were stored under an idempotency key; None when it is new. Raises when the body was another one."""
    row = unit.connection.execute(_FIND_ANSWER, {"wanted": key}).first()
    if row is None:
        return None
    if row.body != body:
        raise UnprocessableError("this Idempotency-Key was used for another request: use a new key for a new case")
    return list(json.loads(row.referral_ids))


def remember_answer(unit: Unit, key: str, body: str, referral_ids: Iterable[str], now: datetime) -> bool:
    """Remember what a key is answered with, at once, so that the next one in the same transaction sees it. False for a key that is known."""
    sql = insert_sql(unit.connection.dialect.name, idempotency.name, ("key", "body", "referral_ids", "at_us"))
    values = (key, body, json.dumps(list(referral_ids)), to_us(now))
    return unit.connection.exec_driver_sql(f"{sql} ON CONFLICT (key) DO NOTHING", values).rowcount == 1


def _held(unit: Unit, id_: str, who: Who, now: datetime) -> Referral:
    row = find_referral(unit, id_, lock=True)
    _refuse_completed(row)
    if not is_held_by(row, who, now):
        raise ConflictError("you do not hold this case, or your lease has ended: claim it first")
    return row


def _refuse_completed(row: Referral) -> None:
    if row.state == COMPLETED:
        raise ConflictError("the case is completed: it can be read, and nothing about it changes any more")


def _is_held_by_another(row: Referral, who: Who, now: datetime) -> bool:
    return is_held(row, now) and row.holder != who.subject


def _change(unit: Unit, before: Referral, who: Who, kind: str, now: datetime, *, detail: bytes | None = None, **values: Any) -> Referral:
    changed = unit.write(
        update(referrals)
        .where(referrals.c.id == before.id)
        .values(revision=before.revision + 1, updated_us=to_us(now), **values)
        .returning(referrals)
    ).one()
    _note_change(unit, before, changed, who, kind, now, detail)
    return changed


def _note_change(unit: Unit, before: Referral, after: Referral, who: Who, kind: str, now: datetime, detail: bytes | None = None) -> None:
    unit.add(
        events,
        at_us=to_us(now),
        referral_id=after.id,
        kind=kind,
        actor=who.subject,
        role=who.role,
        clinic=after.clinic,
        district=after.district,
        specialty=after.specialty,
        level_before=before.level,
        level=after.level,
        state=after.state,
        revision=after.revision,
        detail=detail,
    )
    record(unit, who, kind, after.id, now, level_before=before.level, level=after.level, revision=after.revision)


def has_photo(unit: Unit, id_: str, sha256: str) -> bool:
    """Whether a photo belongs to a referral."""
    query = select(photo_links.c.sha256).where(photo_links.c.referral_id == id_, photo_links.c.sha256 == sha256)
    return unit.connection.execute(query).first() is not None
