"""Erasure: what the patient sent goes, the row stays. By policy, some days after completion, or for one referral on request.

The audit trail holds nothing of the patient's, so it stays whole and valid. Photos that no other referral has are deleted, and
so is a FHIR Patient. A photo that was sent within the last hour may be another referral's that is on its way: it goes with the
next hourly sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, tuple_, update

from inference.errors import ConflictError, StorageError
from inference.service import store
from inference.service.access import require
from inference.service.callers import Who
from inference.service.database import Database, Unit, read
from inference.service.photo_store import PhotoStore
from inference.service.tables import assessments, events, fhir_identifiers, fhir_resources, idempotency, photo_links, referrals, to_us

_AT_ONCE = 100
_PATIENT = "Patient"
_EMPTY = {"summary": None, "patient": None, "case_token": ""}
_KEYS_KEPT = timedelta(days=7)
_log = logging.getLogger("nabz.retention")


async def erase(database: Database, photos: PhotoStore, who: Who, id_: str, now: datetime) -> None:
    """Erase one completed referral's content. Raises ConflictError while it is open: nobody may lose a waiting case."""
    require(who, "retention.erase")
    await sweep_photos(database, photos, now, await database.run(lambda unit: _erase(unit, who, id_, now)))


async def run_retention(database: Database, photos: PhotoStore, who: Who, days: int, now: datetime) -> int:
    """Erase what was completed more than `days` days ago (0: nothing), and forget old idempotency keys. Returns how many.

    One that cannot be erased does not keep the others from it: it is counted in the log, and tried again the next time.
    """
    await database.run(lambda unit: unit.write(delete(idempotency).where(idempotency.c.at_us < to_us(now - _KEYS_KEPT))))
    if not days:
        return 0
    total, failed, before_us = 0, 0, to_us(now - timedelta(days=days))
    after: tuple[int, str] | None = None
    while page := await database.run(lambda unit, after=after: _old(unit, before_us, after)):  # type: ignore[misc]
        unlinked: list[str] = []
        for _, id_ in page:
            try:
                unlinked += await database.run(lambda unit, id_=id_: _erase(unit, who, id_, now))  # type: ignore[misc]
                total += 1
            except Exception as error:  # noqa: BLE001 (whatever is wrong with one, the others are due)
                failed += 1
                _log.warning("a completed referral could not be erased: %s", type(error).__name__)
        await sweep_photos(database, photos, now, unlinked)
        after = page[-1]
    if failed:
        _log.warning("%d completed referrals could not be erased by policy; they are tried again in an hour", failed)
    while await database.run(lambda unit: _erase_unlinked(unit, who, before_us, now)):
        pass
    return total


async def sweep_photos(database: Database, photos: PhotoStore, now: datetime, among: Iterable[str] | None = None) -> int:
    """Delete the photos, of those `among` or of all, that no referral has and that no referral on its way may be about to have.

    Returns how many went. Whatever fails is logged, and left to the next sweep: nothing that was asked for depends on it.
    """

    def referenced(names: Sequence[str]) -> Collection[str]:
        query = select(photo_links.c.sha256).where(photo_links.c.sha256.in_(names))
        return read(database.engine, lambda connection: connection.execute(query).scalars().all())

    try:
        return await asyncio.to_thread(photos.delete_unreferenced, referenced, now.timestamp(), among)
    except StorageError as error:
        _log.warning("photos that no referral has are left for the next sweep: %s", error)
        return 0


def _old(unit: Unit, before_us: int, after: tuple[int, str] | None) -> list[tuple[int, str]]:
    """When they were completed, and their ids: the next ones to erase."""
    place = referrals.c.completed_us, referrals.c.id
    query = select(*place).where(
        referrals.c.state == store.COMPLETED, referrals.c.completed_us < before_us, referrals.c.erased_us.is_(None)
    )
    query = query.order_by(*place).limit(_AT_ONCE)
    found = unit.connection.execute(query if after is None else query.where(tuple_(*place) > tuple_(*after)))
    return [(completed_us, id_) for completed_us, id_ in found]


def _erase(unit: Unit, who: Who, id_: str, now: datetime) -> list[str]:
    """Empty every sealed column of a referral. Returns the photos that it had."""
    row = store.find_referral(unit, id_, lock=True)
    if row.state != store.COMPLETED:
        raise ConflictError("the referral is still open: it can be erased once it is completed")
    run = unit.write
    run(update(referrals).where(referrals.c.id == id_).values(**_EMPTY, erased_us=to_us(now), revision=row.revision + 1))
    run(update(assessments).where(assessments.c.referral_id == id_).values(content=None))
    run(update(events).where(events.c.referral_id == id_).values(detail=None))
    for kind, resource_id in _resources_of(unit, row):
        _erase_resource(unit, kind, resource_id)
    linked = list(run(select(photo_links.c.sha256).where(photo_links.c.referral_id == id_)).scalars())
    run(delete(photo_links).where(photo_links.c.referral_id == id_))
    store.record(unit, who, "erased", id_, now)
    return linked


def _resources_of(unit: Unit, row: store.Referral) -> list[tuple[str, str]]:
    """Type and id of the FHIR resources that go with a referral: its own, and its Patient unless another referral needs it."""
    own = fhir_resources.c.referral_id == row.id
    patient = (fhir_resources.c.type == _PATIENT) & (fhir_resources.c.id == row.patient_id)
    query = select(fhir_resources.c.type, fhir_resources.c.id).where(own | patient, fhir_resources.c.content.is_not(None))
    found = unit.connection.execute(query.with_for_update()).fetchall()
    return [(one.type, one.id) for one in found if one.type != _PATIENT or not _is_needed(unit, one.id, row.id)]


def _is_needed(unit: Unit, patient_id: str, but_id: str) -> bool:
    others = select(referrals.c.id).where(referrals.c.patient_id == patient_id, referrals.c.id != but_id, referrals.c.erased_us.is_(None))
    return unit.connection.execute(others.limit(1)).first() is not None


def _erase_resource(unit: Unit, kind: str, id_: str) -> None:
    unit.write(delete(fhir_identifiers).where(fhir_identifiers.c.type == kind, fhir_identifiers.c.id == id_))
    unit.write(update(fhir_resources).where(fhir_resources.c.type == kind, fhir_resources.c.id == id_).values(content=None))


def _erase_unlinked(unit: Unit, who: Who, before_us: int, now: datetime) -> int:
    """Erase FHIR resources that came before then and never belonged to a referral; not a Patient that a referral needs."""
    needed = select(referrals.c.id).where(referrals.c.patient_id == fhir_resources.c.id, referrals.c.erased_us.is_(None)).exists()
    query = select(fhir_resources.c.type, fhir_resources.c.id).where(
        fhir_resources.c.referral_id.is_(None),
        fhir_resources.c.content.is_not(None),
        fhir_resources.c.at_us < before_us,
        (fhir_resources.c.type != _PATIENT) | ~needed,
    )
    found = unit.connection.execute(query.limit(_AT_ONCE).with_for_update()).fetchall()
    for one in found:
        _erase_resource(unit, one.type, one.id)
        store.record(unit, who, "fhir_erased", None, now, type=one.type, id=one.id)
    return len(found)
