"""The FHIR routes' store, on the database. A transaction of FHIR's is one of the database's: all of it is stored, or nothing.

Resources are sealed; their identifiers can be looked up by keyed hashes and not read. Knows no FHIR but the records of
fhir_store.py.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Row, func, select, update

from inference.assessment import Assessment
from inference.errors import ConflictError, UnprocessableError
from inference.service import store
from inference.service.access import require
from inference.service.callers import Who
from inference.service.database import Unit
from inference.service.fhir_pages import find, is_id
from inference.service.fhir_store import (
    Committed,
    FhirAddition,
    FhirWrite,
    NewFhirReferral,
    NewResource,
    ReferralPage,
    ReferralQuery,
    ReferralView,
    State,
    StoredResource,
)
from inference.service.fhir_validation import Identified
from inference.service.intake import Again, Submission, new_id
from inference.service.referrals import ATTEMPTS, Referrals, own_clinic
from inference.service.tables import fhir_identifiers, fhir_resources, from_us, to_us

_SEVERAL = 2


class DatabaseFhirStore:
    """Implements `FhirStore`."""

    def __init__(self, cases: Referrals) -> None:
        self._cases = cases
        self._database, self._vault = cases.database, cases.vault
        self._key = cases.vault.mac_key("fhir")

    def new_id(self) -> str:
        """An id that no resource has."""
        return new_id()

    async def find(self, who: Who, kind: str, identifier: Identified) -> tuple[str, ...]:
        """The ids of the stored resources with this identifier, two at most."""
        require(who, "fhir.read")
        return await self._database.run(lambda unit: self._matches(unit, who, kind, identifier))

    def _matches(self, unit: Unit, who: Who, kind: str, identifier: Identified) -> tuple[str, ...]:
        query = (
            select(fhir_identifiers.c.id)
            .join(fhir_resources, (fhir_resources.c.type == fhir_identifiers.c.type) & (fhir_resources.c.id == fhir_identifiers.c.id))
            .where(fhir_identifiers.c.type == kind, fhir_identifiers.c.token == self._token(kind, identifier))
        )
        return tuple(unit.connection.execute(_own(query, who).limit(_SEVERAL)).scalars())

    def _token(self, kind: str, identifier: Identified) -> str:
        parts = f"{kind}\0{'*' if identifier.system is None else '=' + identifier.system}\0{identifier.value}"
        return hmac.digest(self._key, parts.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

    async def fetch(self, who: Who, kind: str, id_: str) -> StoredResource | None:
        """One stored resource."""
        require(who, "fhir.read")
        if not is_id(id_):
            return None
        now = self._cases.clock()

        def work(unit: Unit) -> Row[Any] | None:
            query = select(fhir_resources).where(
                fhir_resources.c.type == kind, fhir_resources.c.id == id_, fhir_resources.c.content.is_not(None)
            )
            row = unit.connection.execute(_own(query, who)).first()
            if row is not None:
                store.record(unit, who, "fhir_read", row.referral_id, now, type=kind, id=id_)
            return row

        row = await self._database.run(work)
        return StoredResource(self._opened(row), row.version, from_us(row.at_us)) if row is not None else None

    async def linked(self, who: Who, referral_id: str) -> tuple[Mapping[str, Any], ...]:
        """The stored resources of a referral, in the order in which they came."""
        require(who, "fhir.read")
        query = (
            select(fhir_resources)
            .where(fhir_resources.c.referral_id == referral_id, fhir_resources.c.content.is_not(None))
            .order_by(fhir_resources.c.at_us, fhir_resources.c.id)
        )
        rows = await self._database.run(lambda unit: unit.connection.execute(_own(query, who)).fetchall())
        return tuple(self._opened(row) for row in rows)

    def _opened(self, row: Row[Any]) -> dict[str, Any]:
        opened: dict[str, Any] = orjson.loads(self._vault.unseal(row.content, f"fhir:{row.type}:{row.id}"))
        return opened

    async def commit(self, who: Who, write: FhirWrite) -> Committed:
        """Score, queue and store everything, or nothing."""
        require(who, "fhir.write")
        if not who.clinic:
            raise UnprocessableError("your token names no clinic: a referral needs one to come from")
        now = self._cases.clock()
        given = [
            Submission(one.content.case, one.content.patient, one.content.photos, one.content.review, one.id, one.patient_id)
            for one in write.referrals
        ]
        ready = await self._cases.intake.prepare(who.clinic, given, now) if given else []
        for _ in range(ATTEMPTS):
            again = [(one, await self._addition(who, one, now)) for one in write.additions]

            def work(unit: Unit, again: Sequence[tuple[FhirAddition, Again]] = tuple(again)) -> bool:
                self._lock_conditions(unit, who, write)
                for resource in write.resources:
                    self._store(unit, who, resource, now)
                for row, _ in ready:
                    self._hold_patient(unit, who, row.patient_id)
                    store.insert_referral(unit, row, who, self._cases.policy, now)
                for one in write.referrals:
                    self._adopt(unit, who, one)
                for addition, prepared in again:
                    if store.reassess(unit, addition.referral_id, prepared.row, who, self._cases.policy, now) is None:
                        raise _MovedError
                return True

            try:
                await self._database.run(work)
            except _MovedError:
                continue
            self._cases.count_reviews([one.assessment for _, one in ready] + [one.scored.assessment for _, one in again])
            ids = [row.id for row, _ in ready] + [one.referral_id for one, _ in again]
            views = [await self.referral(who, id_) for id_ in dict.fromkeys(ids)]
            return Committed(now, {view.id: view for view in views if view is not None})
        raise ConflictError("the referral is being changed by others: send it again")

    async def _addition(self, who: Who, one: FhirAddition, now: datetime) -> Again:
        content = one.content
        return await self._cases.prepare_again(who, one.referral_id, content.case, content.photos, content.review, now)

    def _lock_conditions(self, unit: Unit, who: Who, write: FhirWrite) -> None:
        """Let nobody else store what this write's conditions ask for, until it is committed.

        SQLite has one writer. On PostgreSQL two processes could both find nothing: the second waits here for the first, and then
        sees what it stored. By the value alone, because a condition need not name the system; in order, against deadlocks.
        """
        if unit.connection.dialect.name != "postgresql":
            return
        asked = [(one.kind, one.condition) for one in write.resources if one.condition is not None]
        for token in sorted({self._token(kind, Identified(None, found.value)) for kind, found in asked}):
            number = int.from_bytes(hashlib.sha256(f"{who.clinic}\0{token}".encode()).digest()[:8], signed=True)
            unit.connection.execute(select(func.pg_advisory_xact_lock(number)))

    @staticmethod
    def _hold_patient(unit: Unit, who: Who, id_: str | None) -> None:
        """See that the Patient was not erased since the referral was planned, and is not before it is stored."""
        if id_ is None:
            return
        query = select(fhir_resources.c.id).where(
            fhir_resources.c.type == "Patient", fhir_resources.c.id == id_, fhir_resources.c.content.is_not(None)
        )
        if unit.connection.execute(_own(query, who).with_for_update()).first() is None:
            raise ConflictError("the Patient was erased in the meantime: send it again")

    @staticmethod
    def _adopt(unit: Unit, who: Who, one: NewFhirReferral) -> None:
        """Earlier resources that the request names, and that no other has, belong to it from now on: they are erased with it."""
        for kind, id_ in one.adopted:
            mine = (fhir_resources.c.type == kind) & (fhir_resources.c.id == id_) & fhir_resources.c.referral_id.is_(None)
            unit.write(update(fhir_resources).where(mine, fhir_resources.c.clinic == who.clinic).values(referral_id=one.id))

    def _store(self, unit: Unit, who: Who, resource: NewResource, now: datetime) -> None:
        if resource.condition is not None and self._matches(unit, who, resource.kind, resource.condition):
            raise ConflictError("a resource with this identifier was created in the meantime: send it again")
        content = self._vault.seal(orjson.dumps(resource.resource), f"fhir:{resource.kind}:{resource.id}")
        unit.write(
            fhir_resources.insert().values(
                type=resource.kind, id=resource.id, clinic=who.clinic, referral_id=resource.referral_id, version=1,
                at_us=to_us(now), content=content,
            )
        )  # fmt: skip
        tokens = {self._token(resource.kind, form) for one in resource.identifiers for form in (one, Identified(None, one.value))}
        for token in tokens:
            unit.write(fhir_identifiers.insert().values(token=token, type=resource.kind, id=resource.id))
        store.record(unit, who, "fhir_created", resource.referral_id, now, type=resource.kind, id=resource.id)

    async def referral(self, who: Who, id_: str) -> ReferralView | None:
        """One referral."""
        page = await self.referrals(who, ReferralQuery(ids=frozenset({id_}), count=1))
        return page.referrals[0] if page.referrals else None

    async def referrals(self, who: Who, query: ReferralQuery) -> ReferralPage:
        """One page of referrals."""
        require(who, "fhir.read")
        now = self._cases.clock()
        tokens = tuple(self._cases.intake.case_token(value) for value in query.identifiers or ())

        def work(unit: Unit) -> tuple[list[tuple[Row[Any], Row[Any], bool]], str | None]:
            rows, cursor = find(unit, query, own_clinic(who), tokens, now, self._key)
            if rows:
                store.record_listed(unit, who, [row.id for row in rows], now)
            latest = {row.id: store.latest_version(unit, row.id, row.version) for row in rows}
            requests = set(
                unit.connection.execute(
                    select(fhir_resources.c.id).where(fhir_resources.c.type == "ServiceRequest", fhir_resources.c.id.in_([*latest]))
                ).scalars()
            )
            return [(row, latest[row.id], row.id in requests) for row in rows if latest[row.id].content is not None], cursor

        found, cursor = await self._database.run(work)
        return ReferralPage(tuple(self._view(*one, now) for one in found), cursor)

    def _view(self, row: Row[Any], version: Row[Any], is_fhir: bool, now: datetime) -> ReferralView:
        content = self._cases.intake.opened(version.content, row.id, version.version)
        is_held = row.state == store.CLAIMED and row.lease_us >= to_us(now)
        return ReferralView(
            id=row.id,
            state=_state(row, is_held=is_held),
            level=row.level,
            level_name=self._cases.policy.levels[row.level].name,
            priority=content["case"].get("priority") if row.override_level is None else None,
            received_at=from_us(row.received_us),
            cap_at=from_us(row.cap_us),
            updated_at=from_us(row.updated_us),
            version=row.revision,
            assessed_at=from_us(version.at_us),
            assessment_version=version.version,
            assessment=Assessment.model_validate(content["assessment"]),
            holder=row.holder if is_held else None,
            request_id=row.id if is_fhir else None,
            patient_id=row.patient_id,
        )


def _state(row: Row[Any], *, is_held: bool) -> State:
    if row.state == store.COMPLETED:
        return "completed"
    return "claimed" if is_held else "waiting"


class _MovedError(ConflictError):
    """Somebody else stored an assessment in the meantime."""

    def __init__(self) -> None:
        super().__init__("the referral is being changed by others: send it again")


def _own(query: Any, who: Who) -> Any:
    """A query of resources confined to what the caller may see."""
    clinic = own_clinic(who)
    return query if clinic is None else query.where(fhir_resources.c.clinic == clinic)
