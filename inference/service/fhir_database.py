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
from sqlalchemy import Row, or_, select

from inference.assessment import Assessment
from inference.errors import ConflictError, UnprocessableError
from inference.service import store
from inference.service.access import require
from inference.service.callers import Who
from inference.service.database import Unit
from inference.service.fhir_store import (
    Committed,
    FhirAddition,
    FhirWrite,
    NewResource,
    ReferralPage,
    ReferralQuery,
    ReferralView,
    State,
    StoredResource,
)
from inference.service.fhir_validation import Identified
from inference.service.pages import read_page
from inference.service.referrals import ATTEMPTS, Again, Referrals, Submission, new_id, own_clinic
from inference.service.tables import fhir_identifiers, fhir_resources, from_us, referrals, to_us

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
        ready = await self._cases.prepare(who.clinic, given, now) if given else []
        for _ in range(ATTEMPTS):
            again = [(one, await self._addition(who, one, now)) for one in write.additions]

            def work(unit: Unit, again: Sequence[tuple[FhirAddition, Again]] = tuple(again)) -> bool:
                for resource in write.resources:
                    self._store(unit, who, resource, now)
                for row, _ in ready:
                    store.insert_referral(unit, row, who, self._cases.policy, now)
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
        """One page of referrals. Named ones come in one page; others in the queue's order, open ones first."""
        require(who, "fhir.read")
        now = self._cases.clock()

        def work(unit: Unit) -> tuple[list[tuple[Row[Any], Row[Any], bool]], str | None]:
            rows, cursor = self._named(unit, who, query), None
            if rows is None:
                rows, cursor = self._listed(unit, who, query, now)
            if rows:
                store.record(unit, who, "listed", None, now, referrals=[row.id for row in rows])
            latest = {row.id: store.latest_version(unit, row.id, row.version) for row in rows}
            requests = set(
                unit.connection.execute(
                    select(fhir_resources.c.id).where(fhir_resources.c.type == "ServiceRequest", fhir_resources.c.id.in_([*latest]))
                ).scalars()
            )
            return [(row, latest[row.id], row.id in requests) for row in rows if latest[row.id].content is not None], cursor

        found, cursor = await self._database.run(work)
        return ReferralPage(tuple(self._view(*one, now) for one in found), cursor)

    def _named(self, unit: Unit, who: Who, query: ReferralQuery) -> list[Row[Any]] | None:
        """The referrals that a query names; None for a query that names none."""
        if query.ids is None and query.patient_ids is None and query.identifiers is None:
            return None
        wanted = _own(select(referrals), who, referrals.c.clinic)
        if query.ids is not None:
            wanted = wanted.where(referrals.c.id.in_(query.ids))
        if query.patient_ids is not None:
            wanted = wanted.where(referrals.c.patient_id.in_(query.patient_ids))
        if query.identifiers is not None:
            tokens = [self._cases.case_token(value) for value in query.identifiers]
            wanted = wanted.where(or_(referrals.c.id.in_(query.identifiers), referrals.c.case_token.in_(tokens)))
        if query.states is not None:
            wanted = wanted.where(referrals.c.state.in_(query.states))
        if query.levels is not None:
            wanted = wanted.where(referrals.c.level.in_(query.levels))
        return list(unit.connection.execute(wanted.order_by(referrals.c.level, referrals.c.received_us, referrals.c.id).limit(query.count)))

    def _listed(self, unit: Unit, who: Who, query: ReferralQuery, now: datetime) -> tuple[list[Row[Any]], str | None]:
        """A page of the queue; the cursor says which state and level it stands in."""
        states = [one for one in (store.WAITING, store.CLAIMED, store.COMPLETED) if query.states is None or one in query.states]
        clinic = own_clinic(who)
        levels: list[int | None] = [None] if query.levels is None else [*sorted(query.levels)]
        parts = [(state, level) for state in states for level in levels]
        place, _, inner = (query.cursor or "0").partition(".")
        number = int(place) if place.isdigit() else len(parts)
        rows: list[Row[Any]] = []
        while number < len(parts):
            state, level = parts[number]
            filters = {name: value for name, value in (("clinic", clinic), ("level", level)) if value is not None}
            page = read_page(unit, filters, state, query.count - len(rows), inner or None, now, self._key)
            rows += page.rows
            inner = page.cursor or ""
            if inner:
                break
            number += 1
            if len(rows) >= query.count:
                break
        return rows, f"{number}.{inner}" if number < len(parts) else None

    def _view(self, row: Row[Any], version: Row[Any], is_fhir: bool, now: datetime) -> ReferralView:
        content = self._cases.opened(version.content, row.id, version.version)
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


def _own(query: Any, who: Who, column: Any = fhir_resources.c.clinic) -> Any:
    """A query confined to what the caller may see."""
    clinic = own_clinic(who)
    return query if clinic is None else query.where(column == clinic)
