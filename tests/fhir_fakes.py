"""A FhirStore in memory, and assessments made by hand, for the tests of what stands on them."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import httpx
from fastapi import FastAPI

from inference.assessment import Assessment, BundleName, LesionAssessment, PossibleCondition, Provenance, Reason, Review
from inference.case import CaseReading, read_case
from inference.errors import ConflictError
from inference.policy import load_policy
from inference.service.fhir_store import Committed, FhirWrite, ReferralPage, ReferralQuery, ReferralView, StoredResource
from inference.service.fhir_validation import Identified

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
LEVELS = {"stat": 1, "asap": 2, "urgent": 3}


def assessment(reading: CaseReading | None = None, level: int = 2, **more) -> Assessment:
    """Level by hand: the given one, or more urgent where the referrer asks for it or the pulse is over 110."""
    reading = reading or read_case({"case_id": "r-17", "received_at": NOW.isoformat()}, "x")
    case = reading.case
    level = min(level, LEVELS.get(case.priority or "", 5), 1 if (case.vitals.pulse_per_minute or 0) > 150 else 5)
    policy = load_policy().levels[level]
    given = {
        "case_id": case.case_id,
        "rank": 1,
        "level": level,
        "level_name": policy.name,
        "wait_cap_minutes": policy.cap_minutes,
        "received_at": (case.received_at or NOW).isoformat(),
        "emergency_probability": 0.1234567,
        "critical_probability": 0.1,
        "floor_level": level,
        "scored_by": "models and rules",
        "red_flags": ("shock",),
        "differential": (
            PossibleCondition(condition="c", name_en="Angina", name_ur="انجائنا", icd10="I20.9", probability=1 / 3, severity=2),
            PossibleCondition(condition="d", name_en="Reflux", name_ur="تیزابیت", icd10=None, probability=0.25, severity=4),
        ),
        "prediction_set": ("c",),
        "specialty": "cardiology",
        "lesion": LesionAssessment(
            photo="p", label="nevus", probabilities={"nevus": 1.0}, malignancy_probability=0.02, quality_problems=()
        ),
        "news2": None,
        "unknown_vitals": (),
        "findings": {},
        "not_understood": (),
        "review": Review(needed=bool(reading.problems), why=reading.problems),
        "reasons": (
            Reason(kind="rule", direction="for", text="NEWS2 is 7"),
            Reason(kind="finding", direction="for", text="chest pain (for Angina)"),
        ),
        "provenance": Provenance(
            nabz_version="0.1.0",
            rule_version="1",
            policy_sha256="0" * 64,
            bundles={"acuity": BundleName(version="1", sha256="a" * 64)},
            input_sha256="0" * 64,
        ),
    }
    return Assessment(**{**given, **more})


def view(**more) -> ReferralView:
    """A waiting referral of level 2 that came by FHIR."""
    given = {
        "id": "ref-1",
        "state": "waiting",
        "level": 2,
        "level_name": "emergency",
        "priority": "routine",
        "received_at": NOW,
        "cap_at": NOW + timedelta(hours=1),
        "updated_at": NOW,
        "version": 1,
        "assessed_at": NOW,
        "assessment_version": 1,
        "assessment": assessment(),
        "holder": None,
        "request_id": "ref-1",
        "patient_id": "pat-1",
    }
    return ReferralView(**{**given, **more})


class MemoryStore:
    """Keeps everything in dictionaries, by clinic. `conflicts` makes so many commits fail."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], tuple[str, object]] = {}
        self.views: dict[str, tuple[str, ReferralView]] = {}
        self.cases: dict[str, dict] = {}
        self.photos: dict[str, dict[str, bytes]] = {}
        self.patients: dict[str, dict] = {}
        self.conflicts = 0

    def new_id(self) -> str:
        return uuid.uuid4().hex

    async def find(self, who, kind: str, identifier: Identified) -> tuple[str, ...]:
        def fits(one: Identified) -> bool:
            return one.value == identifier.value and identifier.system in (None, one.system or "")

        mine = [one for clinic, one in self.resources.values() if clinic == who.clinic and one.kind == kind]
        return tuple(one.id for one in mine if any(fits(known) for known in one.identifiers))

    async def fetch(self, who, kind: str, id_: str) -> StoredResource | None:
        clinic, found = self.resources.get((kind, id_), (None, None))
        return StoredResource(found.resource, 1, NOW) if found and self._sees(who, clinic) else None

    async def linked(self, who, referral_id: str):
        return tuple(one.resource for clinic, one in self.resources.values() if self._sees(who, clinic) and one.referral_id == referral_id)

    async def commit(self, who, write: FhirWrite) -> Committed:
        if self.conflicts:
            self.conflicts -= 1
            raise ConflictError("another request stored it first")
        done = {}
        for one in write.referrals:
            self.cases[one.id], self.photos[one.id] = dict(one.content.case), dict(one.content.photos)
            self.patients[one.id] = one.content.patient
            done[one.id] = self._scored(who, one.id, one.content.review, 1, one.patient_id)
        for one in write.additions:
            case, new = self.cases[one.referral_id], one.content.case
            case["vitals"] = {**case.get("vitals", {}), **new.get("vitals", {})}
            version = self.views[one.referral_id][1].version + 1
            done[one.referral_id] = self._scored(who, one.referral_id, one.content.review, version, None)
        for one in write.resources:
            self.resources[one.kind, one.id] = (who.clinic, one)
        return Committed(NOW, done)

    def _scored(self, who, id_: str, review: tuple[str, ...], version: int, patient_id: str | None) -> ReferralView:
        reading = read_case({"case_id": id_, **self.cases[id_]}, id_)
        result = assessment(CaseReading(reading.case, (*review, *reading.problems)), level=3)
        made = view(
            id=id_, level=result.level, level_name=result.level_name, priority=reading.case.priority, version=version,
            assessment_version=version, assessment=result, request_id=id_, patient_id=patient_id,
        )  # fmt: skip
        self.views[id_] = (who.clinic, made)
        return made

    async def referral(self, who, id_: str) -> ReferralView | None:
        clinic, found = self.views.get(id_, (None, None))
        return found if self._sees(who, clinic) else None

    async def referrals(self, who, query: ReferralQuery) -> ReferralPage:
        def fits(one: ReferralView) -> bool:
            return (
                (query.states is None or one.state in query.states)
                and (query.levels is None or one.level in query.levels)
                and (query.ids is None or one.id in query.ids)
                and (query.patient_ids is None or one.patient_id in query.patient_ids)
                and (query.identifiers is None or bool({one.id, one.assessment.case_id} & query.identifiers))
            )

        found = [one for clinic, one in self.views.values() if self._sees(who, clinic) and fits(one)]
        start = int(query.cursor or 0)
        more = start + query.count < len(found)
        return ReferralPage(tuple(found[start : start + query.count]), str(start + query.count) if more else None)

    @staticmethod
    def _sees(who, clinic: str | None) -> bool:
        return clinic is not None and (who.role == "clinician" or who.clinic == clinic)


class Client:
    """Sends requests to an app in this process, one at a time."""

    def __init__(self, app: FastAPI, headers: dict[str, str]) -> None:
        self._app, self._headers = app, headers

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **content) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                return await client.request(method, url, headers={**self._headers, **(headers or {})}, **content)

        return asyncio.run(send())

    def get(self, url: str, **given) -> httpx.Response:
        return self.request("GET", url, **given)

    def post(self, url: str, **given) -> httpx.Response:
        return self.request("POST", url, **given)
