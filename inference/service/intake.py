"""A case on its way into the store: read, its photos cleaned and kept, scored, sealed. Stores nothing but photos.

Nothing that is wrong with a field, a photo or a score loses the case: it becomes a review reason. Knows no callers and no rights.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import orjson

from inference.assessment import Assessment
from inference.case import Case, CaseReading, read_case
from inference.errors import NabzError, PhotoError, UnprocessableError
from inference.service import store
from inference.service.changes import is_worse, merged, refused_priority, still_open, what_changed
from inference.service.photo_store import PhotoStore, clean_photo
from inference.service.scoring import Scorer
from inference.service.syndromes import syndromes_of
from inference.service.vault import Vault

_SHOWN_COMPLAINT = 280
_SHOWN_REVIEW = 5
_SLOW_CLOCK = timedelta(minutes=5)
_LATE_CASE, _OLD_CASE = timedelta(days=1), timedelta(days=30)
_PATIENT_BYTES = 16 * 1024
_NAME_LENGTH = 40
NEVER_RAISED = "a clinician's level was raised again, because what came since is worse: look at the case"
_fields = attrgetter("__dict__")


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
class Scored:
    """A case that is ready to be stored; `photos` maps names to content hashes."""

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


@dataclass(frozen=True, slots=True)
class _Photos:
    """Photos that were cleaned and kept: hashes and content by name, and what was wrong with others."""

    hashes: dict[str, str]
    content: dict[str, bytes]
    problems: list[str]


class Intake:
    """Reads, scores and seals cases."""

    def __init__(self, vault: Vault, scorer: Scorer, photos: PhotoStore, *, photos_per_case: int) -> None:
        self._vault, self._scorer, self._photos, self._photos_per_case = vault, scorer, photos, photos_per_case
        self._token_key = vault.mac_key("case_id")
        self._one_photo = asyncio.Semaphore(1)  # a photo of 12 megapixels needs 40 MB while it is decoded

    async def prepare(self, clinic: str, given: Sequence[Submission], now: datetime) -> list[tuple[store.NewReferral, Scored]]:
        """New cases, ready to be stored. Raises UnprocessableError for an identity that is too long."""
        for one in given:
            _check_patient(one.patient)
        ready = [await self._read(one, one.id or new_id(), now) for one in given]
        if len(ready) == 1:
            assessments = [await self._scorer.assess(ready[0][1], now, ready[0][2].content)]
        else:
            plain = await self._scorer.assess_many([reading for _, reading, photos in ready if not photos.hashes], now)
            pictured = [await self._scorer.assess(reading, now, photos.content) for _, reading, photos in ready if photos.hashes]
            rest, with_photos = iter(plain), iter(pictured)
            assessments = [next(with_photos) if photos.hashes else next(rest) for _, _, photos in ready]
        scored = [
            Scored(id_, reading.case, reading.problems, photos.hashes, assessment, assessment_json(assessment))
            for (id_, reading, photos), assessment in zip(ready, assessments, strict=True)
        ]
        return [(self._sealed(one, clinic, submission), one) for one, submission in zip(scored, given, strict=True)]

    async def _read(self, given: Submission, id_: str, now: datetime) -> tuple[str, CaseReading, _Photos]:
        photos = await self._keep(given.uploads or {}, self._photos_per_case)
        raw = given.raw
        if isinstance(raw, Mapping):
            raw = {"case_id": id_, **raw}
            raw = {**raw, "photos": _named_photos(raw.get("photos"), given.uploads, photos)} if given.uploads else raw
        reading = in_time(read_case(raw, id_), now)
        return id_, replace(reading, problems=(*given.reasons, *reading.problems, *photos.problems)), photos

    async def _keep(self, uploads: Mapping[str, bytes], room: int) -> _Photos:
        """Clean and store photos, `room` at most."""
        kept = _Photos({}, {}, [])
        for name, sent in uploads.items():
            if len(kept.hashes) >= room:
                kept.problems.append(
                    f"no more than {self._photos_per_case} photos of a referral are kept: send the others with another one"
                )
                break
            try:
                async with self._one_photo:
                    clean = await asyncio.to_thread(clean_photo, sent, name)
                    kept.hashes[name] = await asyncio.to_thread(self._photos.put, clean)
                kept.content[name] = clean.content
            except PhotoError as error:
                kept.problems.append(f"photo not kept: {error}")
        return kept

    async def prepare_again(
        self,
        row: store.Referral,
        content: Mapping[str, Any],
        new: Mapping[str, Any],
        uploads: Mapping[str, bytes],
        reasons: tuple[str, ...],
        now: datetime,
    ) -> Again:
        """A referral with what is newly known, ready to be stored. `content` is its latest assessment, opened."""
        before = Assessment.model_validate(content["assessment"])
        uploads = _renamed(uploads, content["photos"])
        kept = await self._keep(uploads, self._photos_per_case - len(content["photos"]))
        if uploads:
            new = {**new, "photos": _named_photos(new.get("photos"), uploads, kept)}
        stored, lost = await self._stored(content["photos"])
        case = Case.model_validate(content["case"])
        reading = in_time(read_case(merged(case, new), row.id), now)
        earlier = [problem for problem in still_open(content["problems"], new) if problem != NEVER_RAISED]
        noted = [*earlier, *refused_priority(new), *reasons, *reading.problems, *kept.problems, *lost]
        assessment = await self._scorer.assess(replace(reading, problems=tuple(dict.fromkeys(noted))), now, {**stored, **kept.content})
        worse = is_worse(before, assessment)
        level = store.level_after(row, assessment.level, is_worse=worse)
        if row.override_level is not None and level < row.level:
            noted.append(NEVER_RAISED)
            review = assessment.review.model_copy(update={"needed": True, "why": (*assessment.review.why, NEVER_RAISED)})
            assessment = assessment.model_copy(update={"review": review})
        photos = {**content["photos"], **kept.hashes}
        scored = Scored(row.id, reading.case, tuple(dict.fromkeys(noted)), photos, assessment, assessment_json(assessment))
        changes = what_changed(before, assessment, row.level, level)
        return Again(self._reassessment(scored, row, changes, is_worse=worse), scored, changes)

    async def _stored(self, photos: Mapping[str, str]) -> tuple[dict[str, bytes], list[str]]:
        """Photos that came earlier; one that cannot be read must not keep a worse vital from counting."""
        content, lost = {}, []
        for name, sha256 in photos.items():
            try:
                content[name] = await asyncio.to_thread(self._photos.get, sha256)
            except NabzError:
                lost.append("an earlier photo cannot be read from the store: ask for it again")
        return content, lost

    def _reassessment(self, scored: Scored, row: store.Referral, changes: Mapping[str, Any], *, is_worse: bool) -> store.Reassessment:
        assessment = scored.assessment
        return store.Reassessment(
            was_version=row.version,
            was_level=row.level,
            level=assessment.level,
            is_worse=is_worse,
            floor_level=assessment.floor_level,
            district=district_of(scored.case),
            specialty=assessment.specialty,
            scored_by=assessment.scored_by,
            needs_review=assessment.review.needed,
            risk=assessment.emergency_probability or 0.0,
            received_at=datetime.fromisoformat(assessment.received_at),
            summary=self._seal_summary(scored),
            content=self._seal_content(scored, row.version + 1, changes),
            photos=tuple(dict.fromkeys(scored.photos.values())),
        )

    def _sealed(self, one: Scored, clinic: str, given: Submission) -> store.NewReferral:
        assessment = one.assessment
        return store.NewReferral(
            id=one.id,
            clinic=clinic,
            district=district_of(one.case),
            specialty=assessment.specialty,
            level=assessment.level,
            floor_level=assessment.floor_level,
            scored_by=assessment.scored_by,
            needs_review=assessment.review.needed,
            risk=assessment.emergency_probability or 0.0,
            received_at=datetime.fromisoformat(assessment.received_at),
            summary=self._seal_summary(one),
            patient=self._vault.seal(orjson.dumps(dict(given.patient)), f"referrals.patient:{one.id}") if given.patient else None,
            content=self._seal_content(one, 1, None),
            case_token=self.case_token(one.case.case_id),
            patient_id=given.patient_id,
            photos=tuple(dict.fromkeys(one.photos.values())),
        )

    def case_token(self, case_id: str) -> str:
        """The keyed hash by which a sender's case_id can be looked up, and not read."""
        return hmac.digest(self._token_key, case_id.encode(), hashlib.sha256).hex()

    def _seal_summary(self, one: Scored) -> bytes:
        return self._vault.seal(orjson.dumps(summary_of(one.case, one.assessment)), f"referrals.summary:{one.id}")

    def _seal_content(self, one: Scored, version: int, changes: Mapping[str, Any] | None) -> bytes:
        """Case, problems, photos and changes as JSON, with the assessment's own JSON spliced in: it is not parsed again."""
        case = one.case.model_dump(mode="json", exclude_defaults=True)
        rest = orjson.dumps({"case": case, "problems": one.problems, "photos": one.photos, "changes": changes})
        return self._vault.seal(rest[:-1] + b',"assessment":' + one.assessment_json + b"}", f"assessments:{one.id}:{version}")

    def opened(self, content: bytes, id_: str, version: int) -> dict[str, Any]:
        """A stored assessment with its case, problems, photos and changes."""
        opened: dict[str, Any] = orjson.loads(self._vault.unseal(content, f"assessments:{id_}:{version}"))
        return opened


def in_time(reading: CaseReading, now: datetime) -> CaseReading:
    """The case with a time of arrival that can be: a wrong clock must neither hide a case nor put it before all others."""
    received = reading.case.received_at
    noted: tuple[str, ...] = ()
    if received is None or received > now or now - received > _OLD_CASE:
        if received is not None and received - now > _SLOW_CLOCK:
            noted = ("received_at lies in the future: the time of arrival here was used",)
        elif received is not None and received <= now:
            noted = (f"received_at lies more than {_OLD_CASE.days} days back: the time of arrival here was used",)
        return CaseReading(reading.case.model_copy(update={"received_at": now}), (*reading.problems, *noted))
    if now - received > _LATE_CASE:
        return replace(reading, problems=(*reading.problems, f"received_at lies {(now - received).days} days back: check it"))
    return reading


def district_of(case: Case) -> str | None:
    """The district as a filter's value: lower case, printable, one space between words; nothing for what is no district's name."""
    if not case.district:
        return None
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in case.district).split())
    is_name = len(words) <= _NAME_LENGTH and not any(letter.isdigit() for letter in words)
    return words.casefold() or None if is_name else None


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
        "syndromes": syndromes_of(assessment.findings),
    }


def assessment_json(assessment: Assessment) -> bytes:
    """The assessment's stable JSON, as UTF-8: the same bytes as pydantic's own, in half the time."""
    return orjson.dumps(assessment.__dict__, default=_fields)


def new_id() -> str:
    """A new referral's id: the time first, so that neighbours in time are neighbours in the index, then chance (as UUID version 7)."""
    milliseconds = time.time_ns() // 1_000_000
    return f"r-{milliseconds:012x}{os.urandom(10).hex()}"


def _check_patient(patient: Mapping[str, Any] | None) -> None:
    if patient and len(orjson.dumps(dict(patient))) > _PATIENT_BYTES:
        raise UnprocessableError(f"patient: more than {_PATIENT_BYTES} bytes; send identifiers and contact only")


def _named_photos(listed: Any, uploads: Mapping[str, bytes], kept: _Photos) -> list[Any]:
    """The case's photos but those that were sent and not kept, with those that were kept and not listed."""
    lost = uploads.keys() - kept.hashes.keys()
    photos = [one for one in listed if not (isinstance(one, Mapping) and one.get("path") in lost)] if isinstance(listed, list) else []
    named = {one.get("path") for one in photos if isinstance(one, Mapping)}
    return [*photos, *({"path": name} for name in kept.hashes if name not in named)]


def _renamed(uploads: Mapping[str, bytes], taken: Mapping[str, str]) -> dict[str, bytes]:
    """The uploads under names that no earlier photo has: phones call every photo alike."""
    free: dict[str, bytes] = {}
    for name, content in uploads.items():
        number = 2
        unique = name
        while unique in taken or unique in free:
            unique, number = f"{number}-{name}", number + 1
        free[unique] = content
    return free
