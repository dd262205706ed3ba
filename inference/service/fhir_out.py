"""What goes out in FHIR R4: RiskAssessment and Task of a referral, and Bundles. Builds plain JSON; decides nothing.

The tests hold everything built here against fhir.resources and the required value sets, so that it need not be loaded to answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from inference.assessment import Assessment, PossibleCondition
from inference.service.fhir_codes import (
    CASE_SYSTEM,
    ICD10,
    LEVEL_SYSTEM,
    REFERRAL_SYSTEM,
    RISK_PROBABILITY,
    TASK_CODE,
    USER_SYSTEM,
    priority_of,
)
from inference.service.fhir_problem import Issue, operation_outcome
from inference.service.fhir_store import ReferralView, State

TASK_STATUS: Mapping[State, str] = {"waiting": "requested", "claimed": "accepted", "completed": "completed"}
_QUALITATIVE = {1: "high", 2: "high", 3: "moderate", 4: "low", 5: "low"}
_DECIMALS = 4  # of a percentage: six of the probability
_MINUTES_PER_HOUR, _MINUTES_PER_DAY = 60, 1440


def risk_assessment(view: ReferralView) -> dict[str, Any]:
    """The latest assessment. R4 gives `probabilityDecimal` in percent (0 to 100)."""
    assessment = view.assessment
    resource: dict[str, Any] = {
        "resourceType": "RiskAssessment",
        "id": view.id,
        "meta": _meta(view.assessment_version, view.assessed_at),
        "identifier": _identifiers(view),
        "status": "final",
        "method": {"text": _method(assessment)},
        "code": {"text": "triage"},
        "subject": _subject(view),
        "occurrenceDateTime": instant(view.assessed_at),
        "performer": {"type": "Device", "display": f"Nabz {assessment.provenance.nabz_version}"},
        "prediction": _predictions(assessment),
        "mitigation": f"to be seen by a clinician within {_span(assessment.wait_cap_minutes)}; specialty: {assessment.specialty}",
        "note": [{"text": text} for text in _notes(assessment)],
    }
    return {**resource, "basedOn": _request(view)} if view.request_id else resource


def task(view: ReferralView) -> dict[str, Any]:
    """The referral's place in the queue: who is to see whom, and until when. Its priority is never below the human's."""
    resource: dict[str, Any] = {
        "resourceType": "Task",
        "id": view.id,
        "meta": _meta(view.version, view.updated_at),
        "identifier": _identifiers(view),
        "status": TASK_STATUS[view.state],
        "businessStatus": _level(view.level, f"level {view.level} {view.level_name}, {view.state}"),
        "intent": "order",
        "priority": priority_of(view.level, view.priority),
        "code": {"coding": [{"system": TASK_CODE, "code": "fulfill"}], "text": "see the patient"},
        "focus": _request(view),
        "for": _subject(view),
        "authoredOn": instant(view.received_at),
        "lastModified": instant(view.updated_at),
        "restriction": {"period": {"end": instant(view.cap_at)}},
        "output": [{"type": {"text": "triage"}, "valueReference": {"reference": f"RiskAssessment/{view.id}"}}],
    }
    if view.request_id:
        resource["basedOn"] = [_request(view)]
    if view.holder and view.state == "claimed":
        resource["owner"] = {"type": "Practitioner", "identifier": {"system": USER_SYSTEM, "value": view.holder}}
    if view.assessment.review.needed:
        resource["statusReason"] = {"text": "; ".join(view.assessment.review.why) or "for review"}
    return resource


def created(kind: str, id_: str, version: int, at: datetime, status: str = "201 Created") -> dict[str, Any]:
    """The answer to one entry that is now stored."""
    return {
        "response": {
            "status": status,
            "location": f"{kind}/{id_}/_history/{version}",
            "etag": etag(version),
            "lastModified": instant(at),
        }
    }


def refused(status: str, issues: Iterable[Issue]) -> dict[str, Any]:
    """The answer to one entry that was not stored."""
    return {"response": {"status": status, "outcome": operation_outcome(issues)}}


def response_bundle(kind: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer to a transaction or a batch."""
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": f"{kind}-response"}
    return {**bundle, "entry": list(entries)} if entries else bundle


def searchset(base: str, resources: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> dict[str, Any]:
    """One page of a search. The total is left out: counting a long queue costs more than reading a page of it."""
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": relation, "url": url} for relation, url in links.items()],
    }
    entries = [{"fullUrl": f"{base}/{one['resourceType']}/{one['id']}", "resource": one, "search": {"mode": "match"}} for one in resources]
    return {**bundle, "entry": entries} if entries else bundle


def stored(resource: Mapping[str, Any], version: int, at: datetime) -> dict[str, Any]:
    """A stored resource with its version."""
    return {**resource, "meta": {**resource.get("meta", {}), **_meta(version, at)}}


def etag(version: int) -> str:
    """A version as a weak ETag, as FHIR writes it."""
    return f'W/"{version}"'


def instant(moment: datetime) -> str:
    """A moment in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def percentage(probability: float) -> float:
    """A probability as R4 gives it."""
    return round(100 * probability, _DECIMALS)


def _meta(version: int, at: datetime) -> dict[str, str]:
    return {"versionId": str(version), "lastUpdated": instant(at)}


def _identifiers(view: ReferralView) -> list[dict[str, str]]:
    return [{"system": REFERRAL_SYSTEM, "value": view.id}, {"system": CASE_SYSTEM, "value": view.assessment.case_id}]


def _subject(view: ReferralView) -> dict[str, Any]:
    """The patient; where none is stored as a resource, the case stands for them."""
    if view.patient_id:
        return {"reference": f"Patient/{view.patient_id}", "type": "Patient"}
    return {"type": "Patient", "identifier": {"system": CASE_SYSTEM, "value": view.assessment.case_id}}


def _request(view: ReferralView) -> dict[str, Any]:
    if view.request_id:
        return {"reference": f"ServiceRequest/{view.request_id}", "type": "ServiceRequest"}
    return {"type": "ServiceRequest", "identifier": {"system": CASE_SYSTEM, "value": view.assessment.case_id}}


def _level(level: int, text: str) -> dict[str, Any]:
    return {"coding": [{"system": LEVEL_SYSTEM, "code": str(level)}], "text": text}


def _method(assessment: Assessment) -> str:
    bundles = ", ".join(f"{task} {name.version} ({name.sha256[:12]})" for task, name in sorted(assessment.provenance.bundles.items()))
    return f"scored by {assessment.scored_by}; rules {assessment.provenance.rule_version}; models: {bundles or 'none'}"


def _predictions(assessment: Assessment) -> list[dict[str, Any]]:
    level = assessment.level
    urgent: dict[str, Any] = {
        "outcome": {"text": "an emergency, or a critical outcome"},
        "qualitativeRisk": {
            "coding": [
                {"system": RISK_PROBABILITY, "code": _QUALITATIVE[level]},
                {"system": LEVEL_SYSTEM, "code": str(level), "display": assessment.level_name},
            ],
            "text": f"level {level} {assessment.level_name}",
        },
    }
    if assessment.emergency_probability is not None:
        urgent["probabilityDecimal"] = percentage(assessment.emergency_probability)
    if why := [reason.text for reason in assessment.reasons if reason.kind in ("rule", "referrer", "model", "policy")]:
        urgent["rationale"] = "; ".join(why)
    return [urgent, *(_condition(one) for one in assessment.differential), *_lesion(assessment)]


def _condition(one: PossibleCondition) -> dict[str, Any]:
    outcome: dict[str, Any] = {"text": one.name_en}
    if one.icd10:
        outcome["coding"] = [{"system": ICD10, "code": one.icd10, "display": one.name_en}]
    return {"outcome": outcome, "probabilityDecimal": percentage(one.probability)}


def _lesion(assessment: Assessment) -> list[dict[str, Any]]:
    if assessment.lesion is None:
        return []
    outcome = {"text": f"malignant skin lesion (the photo looks most like {assessment.lesion.label})"}
    return [{"outcome": outcome, "probabilityDecimal": percentage(assessment.lesion.malignancy_probability)}]


def _notes(assessment: Assessment) -> list[str]:
    notes = [assessment.notice, *(f"red flag: {flag}" for flag in assessment.red_flags)]
    notes += [reason.text for reason in assessment.reasons if reason.kind in ("finding", "could_change")]
    return notes + [f"for review: {why}" for why in assessment.review.why]


def _span(minutes: int) -> str:
    if minutes < 2 * _MINUTES_PER_HOUR:
        return f"{minutes} minutes"
    return f"{minutes // _MINUTES_PER_HOUR} hours" if minutes < 2 * _MINUTES_PER_DAY else f"{minutes // _MINUTES_PER_DAY} days"
