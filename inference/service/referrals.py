"""Referrals as callers see them: scored, sealed, stored, read and changed. Every way in (API, FHIR) comes through here.

A referral is acknowledged after the commit. Nothing that goes wrong with a score, a photo or a field loses a case: it is stored
with a review reason. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from inference.assessment import Assessment
from inference.errors import ConflictError, NotFoundError, UnprocessableError
from inference.policy import Policy
from inference.service import store
from inference.service.access import Action, require
from inference.service.callers import Who
from inference.service.database import Database, Unit
from inference.service.intake import Again, Intake, Submission
from inference.service.pages import Page, read_page
from inference.service.photo_store import PhotoStore
from inference.service.scoring import Scorer
from inference.service.tables import from_us, to_us
from inference.service.telemetry import Telemetry
from inference.service.vault import Vault

_CURSOR_PERIOD_SECONDS = 1800
ATTEMPTS = 5  # of a change that others get ahead of


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored referral: its row, and its assessment as JSON. `is_replay` when an earlier answer was given again."""

    row: Mapping[str, Any]
    assessment: bytes
    is_replay: bool = False


class Referrals:
    """All that can be done with referrals."""

    def __init__(
        self, database: Database, vault: Vault, scorer: Scorer, policy: Policy, photos: PhotoStore, telemetry: Telemetry, *,
        photos_per_case: int = 8, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.database, self.vault, self.scorer, self.policy = database, vault, scorer, policy
        self.photos, self.telemetry, self.clock = photos, telemetry, clock
        self.intake = Intake(vault, scorer, photos, photos_per_case=photos_per_case)
        self._cursor_key = vault.mac_key("cursor")
        self.swept_at: datetime | None = None  # when the caps were last swept

    async def submit(self, who: Who, given: Submission, key: str | None = None, body: bytes = b"") -> Stored:
        """Score and store one case. `key` is the caller's idempotency key, `body` what it stands for.

        Raises UnprocessableError when the key was used for another body, StorageError when nothing was stored.
        """
        return (await self.submit_many(who, [given], key, body))[0]

    async def submit_many(self, who: Who, given: Sequence[Submission], key: str | None = None, body: bytes = b"") -> list[Stored]:
        """Score and store cases: all of them or, when storing fails, none."""
        require(who, "referral.create")
        clinic = who.clinic
        if not clinic:
            raise UnprocessableError("your token names no clinic: a referral needs one to come from")
        now = self.clock()
        marks = _marks(who, key, body) if key else None
        has_photos = any(one.uploads for one in given)
        if marks and has_photos and (earlier := await self.database.run(lambda unit: self._replay(unit, who, *marks, now))):
            return earlier  # photos are costly; without them it is cheaper to score again than to ask first
        ready = await self.intake.prepare(clinic, given, now)

        def work(unit: Unit) -> list[Stored]:
            if marks and not store.remember_answer(unit, *marks, [row.id for row, _ in ready], now):
                return self._replay(unit, who, *marks, now)
            return [Stored(store.insert_referral(unit, row, who, self.policy, now), one.assessment_json) for row, one in ready]

        try:
            stored = await self.database.run(work)
        except NotFoundError:  # a request with the same key was in the same transaction: it is committed now, and can be read
            stored = await self.database.run(work)
        if not any(one.is_replay for one in stored):
            self.count_reviews(one.assessment for _, one in ready)
        return stored

    async def answered_before(self, who: Who, key: str, body: bytes) -> Stored | None:
        """What `submit` has answered to this key; None for a new one. Raises UnprocessableError when it was used for another body."""
        require(who, "referral.create")
        now = self.clock()
        earlier = await self.database.run(lambda unit: self._replay(unit, who, *_marks(who, key, body), now))
        return earlier[0] if earlier else None

    def count_reviews(self, assessments: Iterable[Assessment]) -> None:
        """Count the review reasons of what was stored."""
        for assessment in assessments:
            self.telemetry.count_review(assessment)

    def _replay(self, unit: Unit, who: Who, key: str, body: str, now: datetime) -> list[Stored]:
        """What was answered before; nothing for a new key."""
        answers = []
        for id_ in store.find_answer(unit, key, body) or ():
            row = store.find_referral(unit, id_, who.clinic)
            content = store.latest_version(unit, id_, 1).content
            assessment = orjson.dumps(self.intake.opened(content, id_, 1)["assessment"]) if content else b"null"
            unit.audit_soon(store.entry(who, "replayed", id_, now))
            answers.append(Stored(dict(row._mapping), assessment, is_replay=True))
        return answers

    async def add_findings(
        self, who: Who, id_: str, new: Mapping[str, Any], uploads: Mapping[str, bytes] | None = None, reasons: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Assess a referral again with what is newly known. Returns the new version: what changed, and why."""
        require(who, "referral.update")
        now = self.clock()
        for _ in range(ATTEMPTS):
            ready = await self.prepare_again(who, id_, new, uploads or {}, reasons, now)
            changed = await self.database.run(lambda unit, ready=ready: store.reassess(unit, id_, ready.row, who, self.policy, now))  # type: ignore[misc]
            if changed is not None:
                self.count_reviews([ready.scored.assessment])
                row = describe(changed._mapping, self.policy, now)
                return {**row, "changes": ready.changes, "assessment": orjson.loads(ready.scored.assessment_json)}
        raise ConflictError("the referral is being changed by others: send it again")

    async def prepare_again(
        self, who: Who, id_: str, new: Mapping[str, Any], uploads: Mapping[str, bytes], reasons: tuple[str, ...], now: datetime
    ) -> Again:
        """A referral with what is newly known, ready to be stored. Raises NotFoundError, ConflictError."""
        row, content = await self.database.run(lambda unit: self._current(unit, who, id_))
        return await self.intake.prepare_again(row, content, new, uploads, reasons, now)

    def _current(self, unit: Unit, who: Who, id_: str) -> tuple[store.Referral, dict[str, Any]]:
        row = store.find_referral(unit, id_, own_clinic(who))
        content = store.latest_version(unit, id_, row.version).content
        if content is None:
            raise ConflictError("what the patient sent was erased by the retention policy: nothing can be added")
        return row, self.intake.opened(content, id_, row.version)

    async def page(
        self, who: Who, filters: Mapping[str, Any], state: str, limit: int, cursor: str | None, known: Collection[str] = ()
    ) -> tuple[Page, str, list[dict[str, Any]] | None]:
        """One page of the worklist, its ETag, and the summaries of its rows: None where the caller has them already (`known` ETags).

        A clinic sees its own referrals.
        """
        require(who, "worklist.read")
        now = self.clock()
        clinic = own_clinic(who)
        if clinic is not None:
            if filters.get("clinic", clinic) != clinic:
                raise NotFoundError("there is no such clinic")
            filters = {**filters, "clinic": clinic}

        def work(unit: Unit) -> tuple[Page, str]:
            page = read_page(unit, filters, state, limit, cursor, now, self._cursor_key, self.swept_at)
            etag = _etag(page, now)
            if page.rows and etag not in known:
                store.record_listed(unit, who, [row.id for row in page.rows], now)
            return page, etag

        page, etag = await self.database.run(work)
        return page, etag, None if etag in known else [self._listed(row, page.as_of) for row in page.rows]

    def _listed(self, row: store.Referral, now: datetime) -> dict[str, Any]:
        summary = orjson.Fragment(self.vault.unseal(row.summary, f"referrals.summary:{row.id}")) if row.summary else None
        return {**describe(row._asdict(), self.policy, now), "summary": summary}

    async def read(self, who: Who, id_: str) -> dict[str, Any]:
        """One referral with its case, every assessment, and all that happened to it."""
        require(who, "referral.read")
        now = self.clock()

        def work(unit: Unit) -> tuple[store.Referral, list[Any], list[Any]]:
            row = store.find_referral(unit, id_, own_clinic(who))
            store.record(unit, who, "read", id_, now)
            return row, store.versions_of(unit, id_), store.history_of(unit, id_)

        row, versions, history = await self.database.run(work)
        opened = [(one, self.intake.opened(one.content, id_, one.version)) for one in versions if one.content is not None]
        patient = orjson.loads(self.vault.unseal(row.patient, f"referrals.patient:{id_}")) if row.patient else None
        return {
            **describe(row._mapping, self.policy, now),
            "patient": patient,
            "case": opened[-1][1]["case"] if opened else None,
            "photos": [{"name": name, "sha256": sha256} for name, sha256 in opened[-1][1]["photos"].items()] if opened else [],
            "assessment": opened[-1][1]["assessment"] if opened else None,
            "assessments": [
                {"version": one.version, "at": _text(one.at_us), "assessment": content["assessment"], "changes": content["changes"]}
                for one, content in opened
            ],
            "history": [self._event(one) for one in history],
        }

    async def photo(self, who: Who, id_: str, sha256: str) -> bytes:
        """One stored photo of a referral, as JPEG."""
        require(who, "referral.read")
        now = self.clock()

        def work(unit: Unit) -> None:
            store.find_referral(unit, id_, own_clinic(who))
            if not store.has_photo(unit, id_, sha256):
                raise NotFoundError("the referral has no such photo")
            store.record(unit, who, "photo_read", id_, now)

        await self.database.run(work)
        return await asyncio.to_thread(self.photos.get, sha256)

    def _event(self, row: Any) -> dict[str, Any]:
        detail = orjson.loads(self.vault.unseal(row.detail, f"events:{row.referral_id}")) if row.detail else {}
        return {
            "at": _text(row.at_us), "kind": row.kind, "actor": row.actor, "role": row.role, "level_before": row.level_before,
            "level": row.level, "state": row.state, **detail,
        }  # fmt: skip

    async def claim(self, who: Who, id_: str) -> dict[str, Any]:
        """Hold a case for the policy's lease."""
        require(who, "claim")
        now = self.clock()

        def work(unit: Unit) -> tuple[store.Referral, bool]:
            before = describe(store.find_referral(unit, id_)._mapping, self.policy, now)
            return store.claim(unit, id_, who, self.policy, now), before["holder"] == who.subject

        row, was_mine = await self.database.run(work)
        if not was_mine:  # else the lease was renewed: nobody has waited
            self._observe_wait(row, now)
        return describe(row._mapping, self.policy, now)

    async def claim_next(self, who: Who, filters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Hold the first case that waits; None when none does."""
        require(who, "claim")
        now = self.clock()
        row = await self.database.run(lambda unit: store.claim_next(unit, who, self.policy, now, filters))
        if row is None:
            return None
        self._observe_wait(row, now)
        return describe(row._mapping, self.policy, now)

    async def release(self, who: Who, id_: str) -> dict[str, Any]:
        """Put a held case back."""
        return await self._act(who, "release", lambda unit, now: store.release(unit, id_, who, now))

    async def complete(self, who: Who, id_: str, detail: Mapping[str, Any]) -> dict[str, Any]:
        """Close a held case."""
        return await self._act(who, "complete", lambda unit, now: store.complete(unit, id_, who, now, self._seal_detail(id_, detail)))

    async def override(self, who: Who, id_: str, level: int, detail: Mapping[str, Any]) -> dict[str, Any]:
        """Set the level by a clinician's judgement."""
        before: list[int] = []

        def work(unit: Unit, now: datetime) -> store.Referral:
            before[:] = [store.find_referral(unit, id_).level]
            return store.override(unit, id_, who, level, self.policy, now, self._seal_detail(id_, detail))

        answer = await self._act(who, "override", work)
        self.telemetry.count_override(before[0], level)
        return answer

    async def note(self, who: Who, id_: str, detail: Mapping[str, Any]) -> dict[str, Any]:
        """Leave a note."""
        return await self._act(who, "note", lambda unit, now: store.add_note(unit, id_, who, now, self._seal_detail(id_, detail)))

    async def agree(self, who: Who, id_: str) -> dict[str, Any]:
        """Agree with the level as it is."""
        return await self._act(
            who, "agree", lambda unit, now: store.add_note(unit, id_, who, now, self._seal_detail(id_, {}), store.AGREED)
        )

    async def impression(self, who: Who, id_: str, level: int) -> dict[str, Any]:
        """Record the level that a clinician gives a case before they see the machine's."""
        detail = self._seal_detail(id_, {"impression_level": level})
        return await self._act(who, "impression", lambda unit, now: store.add_note(unit, id_, who, now, detail, store.IMPRESSION))

    async def _act(self, who: Who, action: Action, work: Callable[[Unit, datetime], store.Referral]) -> dict[str, Any]:
        require(who, action)
        now = self.clock()
        row = await self.database.run(lambda unit: work(unit, now))
        return describe(row._mapping, self.policy, now)

    def _observe_wait(self, row: store.Referral, now: datetime) -> None:
        waited = (now - from_us(row.received_us)) / self.policy.levels[row.level].cap
        self.telemetry.observe_wait(row.level, waited)

    def _seal_detail(self, id_: str, detail: Mapping[str, Any]) -> bytes:
        return self.vault.seal(orjson.dumps(dict(detail)), f"events:{id_}")


def _etag(page: Page, now: datetime) -> str:
    """Names what a page shows. With a next page it changes every half hour, so that nobody is left with a cursor that has expired."""
    shown = [(row.id, row.revision, row.on_time, store.is_held(row, now)) for row in page.rows]
    period = int(now.timestamp() // _CURSOR_PERIOD_SECONDS) if page.cursor else 0
    return f'"{hashlib.sha256(orjson.dumps([shown, period])).hexdigest()[:32]}"'


def own_clinic(who: Who) -> str | None:
    """The clinic that a caller is confined to; None for who sees all."""
    return who.clinic if who.role == "clinic" else None


def describe(row: Mapping[Any, Any], policy: Policy, now: datetime) -> dict[str, Any]:
    """A referral's row as callers see it, for orjson to write out: nothing in it is the patient's."""
    now_us = to_us(now)
    level = policy.levels[row["level"]]
    lease = row.get("lease_us")
    is_held = row["state"] == store.CLAIMED and lease is not None and lease >= now_us
    return {
        "id": row["id"],
        "state": store.WAITING if row["state"] == store.CLAIMED and not is_held else row["state"],
        "level": row["level"],
        "level_name": level.name,
        "level_name_ur": level.name_ur,
        "machine_level": row["machine_level"],
        "floor_level": row["floor_level"],
        "override_level": row.get("override_level"),
        "clinic": row["clinic"],
        "district": row["district"],
        "specialty": row["specialty"],
        "scored_by": row["scored_by"],
        "needs_review": bool(row["needs_review"]),
        "received_at": from_us(row["received_us"]),
        "stored_at": from_us(row["stored_us"]),
        "due_at": from_us(row["due_us"]),
        "cap_at": from_us(row["cap_us"]),
        "past_cap": bool(row["is_open"]) and row["cap_us"] < now_us,
        "holder": row.get("holder") if is_held else None,
        "lease_until": from_us(lease) if is_held and lease is not None else None,
        "completed_at": from_us(row["completed_us"]) if row.get("completed_us") else None,
        "version": row["version"],
        "revision": row["revision"],
    }


def _marks(who: Who, key: str, body: bytes) -> tuple[str, str]:
    """By what a caller's idempotency key is remembered, and by what the request that it stands for."""
    return _hash(who.subject, who.clinic, "referrals", key), hashlib.sha256(body).hexdigest()


def _hash(*parts: str | None) -> str:
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()


def _text(microseconds: int) -> str:
    return from_us(microseconds).isoformat()
