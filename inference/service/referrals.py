"""Referrals as callers see them: scored, sealed, stored, read and changed. Every way in (API, FHIR) comes through here.

A referral is acknowledged after the commit. Nothing that goes wrong with a score, a photo or a field loses a case: it is stored
with a review reason. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import orjson

from inference.assessment import Assessment
from inference.case import Case, CaseReading, read_case
from inference.errors import ConflictError, NotFoundError, PhotoError, UnprocessableError
from inference.policy import Policy
from inference.service import store
from inference.service.access import Action, require
from inference.service.callers import Who
from inference.service.changes import merged, still_open, what_changed
from inference.service.database import Database, Unit
from inference.service.pages import Page, read_page
from inference.service.photo_store import PhotoStore, clean_photo
from inference.service.scoring import Scorer
from inference.service.tables import from_us
from inference.service.telemetry import Telemetry
from inference.service.vault import Vault

_SHOWN_COMPLAINT = 280
_SHOWN_REVIEW = 5
_SLOW_CLOCK = timedelta(minutes=5)
_OLD_CASE = timedelta(days=30)
_fields = attrgetter("__dict__")
ATTEMPTS = 5  # of a change that others get ahead of
_PATIENT_BYTES = 16 * 1024
_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Submission:
    """One case on its way in. `uploads` are photos by the name that the case calls them; `reasons` join the review reasons.

    `id` is the referral's, where it must be known before; `patient_id` names the FHIR Patient, where there is one.
    """

    raw: Any
    patient: Mapping[str, Any] | None = None
    uploads: Mapping[str, bytes] | None = None
    reasons: tuple[str, ...] = ()
    id: str | None = None
    patient_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored referral: its row, and its assessment as JSON. `is_replay` when an earlier answer was given again."""

    row: Mapping[str, Any]
    assessment: bytes
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A case that is ready to be stored."""

    id: str
    case: Case
    problems: tuple[str, ...]
    photos: dict[str, str]
    assessment: Assessment
    assessment_json: bytes


@dataclass(frozen=True, slots=True)
class Again:
    """A further assessment that is ready to be stored, and what it changes."""

    row: store.Reassessment
    scored: Scored
    changes: dict[str, Any]


class Referrals:
    """All that can be done with referrals."""

    def __init__(
        self, database: Database, vault: Vault, scorer: Scorer, policy: Policy, photos: PhotoStore, telemetry: Telemetry, *,
        photos_per_case: int = 8, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.database, self.vault, self.scorer, self.policy = database, vault, scorer, policy
        self.photos, self.telemetry, self.clock = photos, telemetry, clock
        self._photos_per_case = photos_per_case
        self._cursor_key, self._token_key = vault.mac_key("cursor"), vault.mac_key("case_id")
        self.swept_at: datetime | None = None  # when the caps were last swept
        self._one_photo = asyncio.Semaphore(1)  # a photo of 12 megapixels needs 40 MB while it is decoded

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
        marks = (_hash(who.subject, "referrals", key), hashlib.sha256(body).hexdigest()) if key else None
        has_photos = any(one.uploads for one in given)
        if marks and has_photos and (earlier := await self.database.run(lambda unit: self._replay(unit, *marks))):
            return earlier  # photos are costly; without them it is cheaper to score again than to ask first
        ready = await self.prepare(clinic, given, now)

        def work(unit: Unit) -> list[Stored]:
            if marks and not store.remember_answer(unit, *marks, [row.id for row, _ in ready], now):
                return self._replay(unit, *marks)
            return [Stored(store.insert_referral(unit, row, who, self.policy, now), one.assessment_json) for row, one in ready]

        try:
            stored = await self.database.run(work)
        except NotFoundError:  # a request with the same key was in the same transaction: it is committed now, and can be read
            stored = await self.database.run(work)
        self.count_reviews(one.assessment for _, one in ready)
        return stored

    async def prepare(self, clinic: str, given: Sequence[Submission], now: datetime) -> list[tuple[store.NewReferral, Scored]]:
        """Score and seal cases, ready to be stored."""
        scored = await self._score_new(given, now)
        return [(self._sealed(one, clinic, submission), one) for one, submission in zip(scored, given, strict=True)]

    def count_reviews(self, assessments: Iterable[Assessment]) -> None:
        """Count the review reasons of what was stored."""
        for assessment in assessments:
            self.telemetry.count_review(assessment)

    def _replay(self, unit: Unit, key: str, body: str) -> list[Stored]:
        """What was answered before; nothing for a new key."""
        answers = []
        for id_ in store.find_answer(unit, key, body) or ():
            row = store.find_referral(unit, id_)
            content = store.latest_version(unit, id_, 1).content
            assessment = orjson.dumps(self.opened(content, id_, 1)["assessment"]) if content else b"null"
            answers.append(Stored(dict(row._mapping), assessment, is_replay=True))
        return answers

    async def _score_new(self, given: Sequence[Submission], now: datetime) -> list[Scored]:
        ready = [await self._prepared(one, one.id or new_id(), now) for one in given]
        if len(ready) == 1:
            assessments = [await self.scorer.assess(ready[0][1], now, ready[0][3])]
        else:
            plain = await self.scorer.assess_many([reading for _, reading, photos, _ in ready if not photos], now)
            with_photos = [await self.scorer.assess(reading, now, pixels) for _, reading, photos, pixels in ready if photos]
            rest, pictured = iter(plain), iter(with_photos)
            assessments = [next(pictured) if photos else next(rest) for _, _, photos, _ in ready]
        return [
            Scored(id_, reading.case, reading.problems, photos, assessment, assessment_json(assessment))
            for (id_, reading, photos, _), assessment in zip(ready, assessments, strict=True)
        ]

    async def _prepared(self, given: Submission, id_: str, now: datetime) -> tuple[str, CaseReading, dict[str, str], dict[str, bytes]]:
        """The case as far as it can be read, its photos cleaned and kept, by name: content hashes, and content."""
        raw = given.raw
        if isinstance(raw, Mapping):
            raw = {"case_id": id_, **raw}
            raw = {**raw, "photos": self._named_photos(raw.get("photos"), given.uploads or {})} if given.uploads else raw
        hashes, content, problems = await self._kept_photos(given.uploads or {})
        reading = in_time(read_case(raw, id_), now)
        return id_, replace(reading, problems=(*given.reasons, *reading.problems, *problems)), hashes, content

    @staticmethod
    def _named_photos(listed: Any, uploads: Mapping[str, bytes]) -> list[Any]:
        """The case's photos, with those that were sent and not listed."""
        photos = list(listed) if isinstance(listed, list) else []
        named = {photo.get("path") for photo in photos if isinstance(photo, Mapping)}
        return [*photos, *({"path": name} for name in uploads if name not in named)]

    async def _kept_photos(self, uploads: Mapping[str, bytes]) -> tuple[dict[str, str], dict[str, bytes], list[str]]:
        hashes: dict[str, str] = {}
        content: dict[str, bytes] = {}
        problems = []
        for name, sent in uploads.items():
            if len(hashes) >= self._photos_per_case:
                problems.append(f"only the first {self._photos_per_case} photos were kept: send the others with another referral")
                break
            try:
                async with self._one_photo:
                    clean = await asyncio.to_thread(clean_photo, sent, name)
                    hashes[name] = await asyncio.to_thread(self.photos.put, clean)
                content[name] = clean.content
            except PhotoError as error:
                problems.append(f"photo not kept: {error}")
        return hashes, content, problems

    def _sealed(self, one: Scored, clinic: str, given: Submission) -> store.NewReferral:
        assessment, case = one.assessment, one.case
        return store.NewReferral(
            id=one.id,
            clinic=clinic,
            district=case.district.strip().casefold()[:_NAME_LENGTH] if case.district else None,
            specialty=assessment.specialty,
            level=assessment.level,
            floor_level=assessment.floor_level,
            scored_by=assessment.scored_by,
            needs_review=assessment.review.needed,
            risk=assessment.emergency_probability or 0.0,
            received_at=datetime.fromisoformat(assessment.received_at),
            summary=self._seal_summary(one),
            patient=self._seal_patient(one.id, given.patient),
            content=self._seal_content(one, 1, None),
            case_token=self.case_token(case.case_id),
            patient_id=given.patient_id,
            photos=tuple(dict.fromkeys(one.photos.values())),
        )

    def case_token(self, case_id: str) -> str:
        """The keyed hash by which a sender's case_id can be looked up, and not read."""
        return hmac.digest(self._token_key, case_id.encode(), hashlib.sha256).hex()

    def _seal_summary(self, one: Scored) -> bytes:
        return self.vault.seal(orjson.dumps(summary_of(one.case, one.assessment)), f"referrals.summary:{one.id}")

    def _seal_patient(self, id_: str, patient: Mapping[str, Any] | None) -> bytes | None:
        if not patient:
            return None
        content = orjson.dumps(dict(patient))
        if len(content) > _PATIENT_BYTES:
            raise UnprocessableError(f"patient: more than {_PATIENT_BYTES} bytes; send identifiers and contact only")
        return self.vault.seal(content, f"referrals.patient:{id_}")

    def _seal_content(self, one: Scored, version: int, changes: Mapping[str, Any] | None) -> bytes:
        """Case, problems, photos and changes as JSON, with the assessment's own JSON spliced in: it is not parsed again."""
        rest = orjson.dumps(
            {
                "case": one.case.model_dump(mode="json", exclude_defaults=True),
                "problems": one.problems,
                "photos": one.photos,
                "changes": changes,
            }
        )
        return self.vault.seal(rest[:-1] + b',"assessment":' + one.assessment_json + b"}", f"assessments:{one.id}:{version}")

    def opened(self, content: bytes, id_: str, version: int) -> dict[str, Any]:
        """A stored assessment with its case, problems, photos and changes."""
        return orjson.loads(self.vault.unseal(content, f"assessments:{id_}:{version}"))

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
        """Score and seal a referral with what is newly known, ready to be stored. Raises NotFoundError, ConflictError."""
        row, content = await self.database.run(lambda unit: self._current(unit, who, id_))
        hashes, pixels, problems = await self._kept_photos(uploads)
        if uploads:
            new = {**new, "photos": self._named_photos(new.get("photos"), uploads)}
        case = Case.model_validate(content["case"])
        reading = in_time(read_case(merged(case, new), id_), now)
        noted = dict.fromkeys((*still_open(content["problems"], new), *reasons, *reading.problems, *problems))
        reading = replace(reading, problems=tuple(noted))
        assessment = await self.scorer.assess(reading, now, {**await self._stored_pixels(content["photos"]), **pixels})
        scored = Scored(id_, reading.case, reading.problems, {**content["photos"], **hashes}, assessment, assessment_json(assessment))
        level = store.level_after(row, assessment.level)
        changes = what_changed(Assessment.model_validate(content["assessment"]), assessment, row.level, level)
        return Again(self._reassessment(scored, row.version, changes), scored, changes)

    def _reassessment(self, scored: Scored, was_version: int, changes: Mapping[str, Any]) -> store.Reassessment:
        assessment = scored.assessment
        return store.Reassessment(
            was_version=was_version,
            level=assessment.level,
            floor_level=assessment.floor_level,
            specialty=assessment.specialty,
            scored_by=assessment.scored_by,
            needs_review=assessment.review.needed,
            risk=assessment.emergency_probability or 0.0,
            received_at=datetime.fromisoformat(assessment.received_at),
            summary=self._seal_summary(scored),
            content=self._seal_content(scored, was_version + 1, changes),
            photos=tuple(dict.fromkeys(scored.photos.values())),
        )

    def _current(self, unit: Unit, who: Who, id_: str) -> tuple[store.Referral, dict[str, Any]]:
        row = store.find_referral(unit, id_, own_clinic(who))
        content = store.latest_version(unit, id_, row.version).content
        if content is None:
            raise ConflictError("what the patient sent was erased by the retention policy: nothing can be added")
        return row, self.opened(content, id_, row.version)

    async def _stored_pixels(self, photos: Mapping[str, str]) -> dict[str, bytes]:
        return {name: await asyncio.to_thread(self.photos.get, sha256) for name, sha256 in photos.items()}

    async def page(
        self, who: Who, filters: Mapping[str, Any], state: str, limit: int, cursor: str | None
    ) -> tuple[Page, list[dict[str, Any]]]:
        """One page of the worklist, with the summaries of its rows. A clinic sees its own referrals."""
        require(who, "worklist.read")
        now = self.clock()
        clinic = own_clinic(who)
        if clinic is not None:
            if filters.get("clinic", clinic) != clinic:
                raise NotFoundError("there is no such clinic")
            filters = {**filters, "clinic": clinic}

        def work(unit: Unit) -> Page:
            page = read_page(unit, filters, state, limit, cursor, now, self._cursor_key, self.swept_at)
            if page.rows:
                store.record_listed(unit, who, [row.id for row in page.rows], now)
            return page

        page = await self.database.run(work)
        return page, [self._listed(row, page.as_of) for row in page.rows]

    def _listed(self, row: store.Referral, now: datetime) -> dict[str, Any]:
        summary = orjson.Fragment(self.vault.unseal(row.summary, f"referrals.summary:{row.id}")) if row.summary else None
        return {**describe(row._mapping, self.policy, now), "summary": summary}

    async def read(self, who: Who, id_: str) -> dict[str, Any]:
        """One referral with its case, every assessment, and all that happened to it."""
        require(who, "referral.read")
        now = self.clock()

        def work(unit: Unit) -> tuple[store.Referral, list[Any], list[Any]]:
            row = store.find_referral(unit, id_, own_clinic(who))
            store.record(unit, who, "read", id_, now)
            return row, store.versions_of(unit, id_), store.history_of(unit, id_)

        row, versions, history = await self.database.run(work)
        opened = [(one, self.opened(one.content, id_, one.version)) for one in versions if one.content is not None]
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
        return await self._act(who, "claim", lambda unit, now: store.claim(unit, id_, who, self.policy, now), self._observe_wait)

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

    async def _act(
        self,
        who: Who,
        action: Action,
        work: Callable[[Unit, datetime], store.Referral],
        then: Callable[[store.Referral, datetime], None] | None = None,
    ) -> dict[str, Any]:
        require(who, action)
        now = self.clock()
        row = await self.database.run(lambda unit: work(unit, now))
        if then:
            then(row, now)
        return describe(row._mapping, self.policy, now)

    def _observe_wait(self, row: store.Referral, now: datetime) -> None:
        waited = (now - from_us(row.received_us)) / self.policy.levels[row.level].cap
        self.telemetry.observe_wait(row.level, waited)

    def _seal_detail(self, id_: str, detail: Mapping[str, Any]) -> bytes:
        return self.vault.seal(orjson.dumps(dict(detail)), f"events:{id_}")


def own_clinic(who: Who) -> str | None:
    """The clinic that a caller is confined to; None for who sees all."""
    return who.clinic if who.role == "clinic" else None


def in_time(reading: CaseReading, now: datetime) -> CaseReading:
    """The case with a time of arrival that can be: a clock that runs ahead must not hide a case at the end of the queue."""
    received = reading.case.received_at
    if received is None:
        return replace(reading, case=reading.case.model_copy(update={"received_at": now}))
    if received > now:
        noted = () if received - now <= _SLOW_CLOCK else ("received_at lies in the future: the time of arrival here was used",)
        return CaseReading(reading.case.model_copy(update={"received_at": now}), (*reading.problems, *noted))
    if now - received > _OLD_CASE:
        return replace(reading, problems=(*reading.problems, f"received_at lies more than {_OLD_CASE.days} days back: check it"))
    return reading


def summary_of(case: Case, assessment: Assessment) -> dict[str, Any]:
    """What a row of the worklist shows of a case."""
    first = assessment.differential[0] if assessment.differential else None
    return {
        "case_id": case.case_id,
        "complaint": case.complaint[:_SHOWN_COMPLAINT],
        "age_years": case.age_years,
        "sex": case.sex,
        "red_flags": assessment.red_flags,
        "emergency_probability": assessment.emergency_probability,
        "condition": {"name_en": first.name_en, "name_ur": first.name_ur, "probability": first.probability} if first else None,
        "photos": len(case.photos),
        "review": assessment.review.why[:_SHOWN_REVIEW],
    }


def describe(row: Mapping[Any, Any], policy: Policy, now: datetime) -> dict[str, Any]:
    """A referral's row as callers see it: nothing in it is the patient's."""
    level = policy.levels[row["level"]]
    lease = row.get("lease_us")
    is_held = row["state"] == store.CLAIMED and lease is not None and from_us(lease) >= now
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
        "received_at": _text(row["received_us"]),
        "stored_at": _text(row["stored_us"]),
        "due_at": _text(row["due_us"]),
        "cap_at": _text(row["cap_us"]),
        "past_cap": bool(row["is_open"]) and from_us(row["cap_us"]) < now,
        "holder": row.get("holder") if is_held else None,
        "lease_until": _text(lease) if is_held and lease is not None else None,
        "completed_at": _text(row["completed_us"]) if row.get("completed_us") else None,
        "version": row["version"],
        "revision": row["revision"],
    }


def assessment_json(assessment: Assessment) -> bytes:
    """The assessment's stable JSON, as UTF-8: the same bytes as pydantic's own, in half the time."""
    return orjson.dumps(assessment.__dict__, default=_fields)


def new_id() -> str:
    """A new referral's id: the time first, so that neighbours in time are neighbours in the index, then chance (as UUID version 7)."""
    milliseconds = time.time_ns() // 1_000_000
    return f"r-{milliseconds:012x}{os.urandom(10).hex()}"


def _hash(*parts: str | None) -> str:
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()


def _text(microseconds: int) -> str:
    return from_us(microseconds).isoformat()
