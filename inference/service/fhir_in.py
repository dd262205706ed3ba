"""FHIR R4 resources become a case as `read_case` takes it, the patient's identity, photos, and reasons for review.

Takes resources that fhir_validation has read, with references already resolved. Stores nothing and reads no clock.
Review reasons name fields and codes, never what a patient said.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from inference.case import Sex, Vitals
from inference.service.fhir_answers import FINDING, Answers, read_answers
from inference.service.fhir_problem import problem
from inference.service.fhir_vitals import Observed, earliest_moment, read_observations

Resource = Mapping[str, Any]

_SEX: Mapping[str, Sex] = {"female": "female", "male": "male"}
_CLOSED = ("revoked", "completed", "entered-in-error")
_STALE = timedelta(hours=24)
_YEAR_DAYS = 365.25
# A year of birth alone says too little of an infant, whose vitals depend on months.
_LEAST_AGE_BY_YEAR = 3.0
_CNIC = re.compile(r"\d{5}-?\d{7}-?\d")
_PHOTO_TYPES = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True, slots=True)
class FhirCase:
    """What FHIR resources say: `case` for `read_case`, `patient` for the sealed identity, `photos` by Photo.path."""

    case: dict[str, Any] = field(default_factory=dict)
    patient: dict[str, Any] = field(default_factory=dict)
    photos: dict[str, bytes] = field(default_factory=dict)
    review: tuple[str, ...] = ()


def read_referral(request: Resource, patient: Resource | None, others: Sequence[Resource], now: datetime) -> FhirCase:
    """A ServiceRequest with its patient and all that belongs to it. Raises FhirError when it does not ask for anything.

    `now` is the time of arrival, which counts when the request carries no moment.
    """
    _check_request(request)
    review: list[str] = []
    case: dict[str, Any] = {"received_at": _received_at(request, now).isoformat()}
    identity = _identity(patient) if patient else {}
    if request.get("status") in ("draft", "on-hold", "unknown"):
        review.append(f"the ServiceRequest's status is {request['status']}: check that it is meant to be seen")
    if patient is None:
        review.append("the ServiceRequest's patient cannot be found: age and sex are unknown")
    else:
        case |= _person(patient, _received_at(request, now), review)
    if request.get("priority"):
        case["priority"] = request["priority"]
    if (case_id := _case_id(request, identity, review)) is not None:
        case["case_id"] = case_id
    read = _read(others, 0, _received_at(request, now))
    complaint = [*_request_words(request), *([read.case.pop("complaint")] if "complaint" in read.case else [])]
    case["complaint"] = "\n".join(dict.fromkeys(complaint))
    return FhirCase({**case, **read.case}, identity, read.photos, (*review, *read.review))


def read_additions(new: Sequence[Resource], earlier: Sequence[Resource], received_at: datetime) -> FhirCase:
    """What `new` resources add to a referral that came with `earlier` ones: a measurement older than a known one adds nothing."""
    return _read([*earlier, *new], len(earlier), received_at)


def _read(resources: Sequence[Resource], first_new: int, received_at: datetime) -> FhirCase:
    """Everything but the request and the patient; only what comes from the place `first_new` on."""
    new = resources[first_new:]
    answers = read_answers([one for one in new if one["resourceType"] == "QuestionnaireResponse"])
    observations = [(place, one) for place, one in enumerate(resources) if one["resourceType"] == "Observation"]
    latest, _ = read_observations([one for _, one in observations])
    _, refused = read_observations([one for place, one in observations if place >= first_new])
    fresh = [one for one in latest.values() if observations[one.source][0] >= first_new]
    case, review = _fields(fresh, answers), [*answers.review, *refused]
    review += [
        f"{one.field} was measured more than {_STALE // timedelta(hours=1)} hours before the request: measure it again"
        for one in fresh
        if one.field in Vitals.model_fields and datetime.min.replace(tzinfo=UTC) < one.when < received_at - _STALE
    ]
    photos: dict[str, bytes] = {}
    listed = [entry for one in new if one["resourceType"] == "Media" and (entry := _photo(one, photos, review)) is not None]
    return FhirCase({**case, **({"photos": listed} if listed else {})}, {}, photos, tuple(dict.fromkeys(review)))


def _fields(observed: Sequence[Observed], answers: Answers) -> dict[str, Any]:
    vitals = {one.field: one.value for one in observed if one.field in Vitals.model_fields}
    findings = {**answers.findings, **{one.field: one.value for one in observed if FINDING.fullmatch(one.field)}}
    said = [*answers.complaint, *(one.value for one in observed if one.field == "complaint")]
    case: dict[str, Any] = {**answers.fields, **{one.field: one.value for one in observed if one.field == "pregnant"}}
    case |= {name: value for name, value in (("vitals", vitals), ("findings", findings)) if value}
    return {**case, "complaint": "\n".join(said)} if said else case


def _check_request(request: Resource) -> None:
    if request.get("doNotPerform"):
        raise problem("business-rule", "a request not to do something cannot be queued", "ServiceRequest.doNotPerform")
    if request.get("status") in _CLOSED:
        raise problem("business-rule", "only a request that is still open can be queued: send status active", "ServiceRequest.status")


def _received_at(request: Resource, now: datetime) -> datetime:
    """When it was written. A date alone is read as its end, so that nobody gains a day by leaving out the hour."""
    text = request.get("authoredOn")
    moment = earliest_moment(text) if isinstance(text, str) else None
    if moment is None or not isinstance(text, str):
        return now
    if "T" in text:
        return moment
    return min(now, moment + timedelta(days=1)) if text.count("-") == 2 else now


def _request_words(request: Resource) -> Iterator[str]:
    """The complaint in the request's own words; its code's text only where there is nothing else."""
    found = [_concept_words(concept) for concept in request.get("reasonCode", [])]
    found += [note.get("text") for note in request.get("note", [])]
    words = [text for text in found if text]
    fallback = (request.get("code") or {}).get("text")
    yield from words or ([fallback] if fallback else [])


def _concept_words(concept: Resource) -> str | None:
    return concept.get("text") or next((coding["display"] for coding in concept.get("coding", []) if coding.get("display")), None)


def _case_id(request: Resource, identity: Mapping[str, Any], review: list[str]) -> str | None:
    """The request's identifier, unless it is the patient's: a case id stands in lists and messages."""
    values = [one["value"] for one in request.get("identifier", []) if one.get("value")]
    personal = {one["value"] for one in identity.get("identifiers", [])}
    own = [value for value in values if value not in personal and not _CNIC.search(value)]
    if values and not own:
        review.append("the ServiceRequest's identifier is a person's: it was not used as the case's name")
    return own[0] if own else None


def _identity(patient: Resource) -> dict[str, Any]:
    """Name, phone, birth date and identifiers as given, with whatever system they carry."""
    names = sorted(patient.get("name", []), key=lambda name: name.get("use") != "official")
    phones = [one["value"] for one in patient.get("telecom", []) if one.get("system") in ("phone", "sms") and one.get("value")]
    found = {
        "name": next((text for name in names if (text := _name(name))), None),
        "phone": phones[0] if phones else None,
        "birth_date": patient.get("birthDate"),
        "identifiers": [
            {key: one[key] for key in ("system", "value") if one.get(key)} for one in patient.get("identifier", []) if one.get("value")
        ],
    }
    return {key: value for key, value in found.items() if value}


def _name(name: Resource) -> str:
    parts = [*name.get("prefix", []), *name.get("given", []), name.get("family"), *name.get("suffix", [])]
    return name.get("text") or " ".join(part for part in parts if part)


def _person(patient: Resource, at: datetime, review: list[str]) -> dict[str, Any]:
    person: dict[str, Any] = {"sex": _SEX.get(patient.get("gender", ""), "unknown")}
    if (age := _age_years(patient.get("birthDate"), at, review)) is not None:
        person["age_years"] = age
    if patient.get("deceasedBoolean") or patient.get("deceasedDateTime"):
        review.append("the Patient is marked as deceased: check that this is the right patient")
    addresses = [one for one in patient.get("address", []) if one.get("use") != "old"]
    for element, name in (("district", "district"), ("state", "province")):
        if (place := next((one[element] for one in addresses if one.get(element)), None)) is not None:
            person[name] = place
    return person


def _age_years(text: Any, at: datetime, review: list[str]) -> float | None:
    """Years from birth to `at`; a year or a month of birth is taken at its middle."""
    if not isinstance(text, str):
        return None
    padded = {4: f"{text}-07-01", 7: f"{text}-15"}.get(len(text), text)
    age = (at.date() - date.fromisoformat(padded)).days / _YEAR_DAYS
    if len(text) == 4 and age < _LEAST_AGE_BY_YEAR:
        review.append("birthDate: the year alone does not say how old a small child is: send the month")
        return None
    if age < 0 and len(text) == 10:
        review.append("birthDate lies after the request: the age is unknown, check it")
        return None
    return round(max(age, 0.0), 3)


def _photo(media: Resource, photos: dict[str, bytes], review: list[str]) -> dict[str, Any] | None:
    """The photo as the case lists it, its bytes put in `photos`; None and a reason when there is none to read."""
    content = media.get("content") or {}
    if media.get("status") in ("entered-in-error", "not-done"):
        review.append(f"a Media is marked {media['status']} and was not read")
        return None
    if content.get("contentType") not in _PHOTO_TYPES:
        review.append("a Media is not a JPEG, PNG or WebP photo, or does not say so: it was not read")
        return None
    if not content.get("data"):
        review.append("a Media has no data: photos are not fetched from elsewhere, send it as content.data")
        return None
    try:
        data = base64.b64decode("".join(str(content["data"]).split()), validate=True)
    except (binascii.Error, ValueError):
        review.append("a Media's data is not base64: it was not read, send the photo again")
        return None
    path = f"media-{media.get('id') or len(photos) + 1}"
    photos[path] = data
    site = _concept_words(media.get("bodySite") or {})
    return {"path": path, **({"body_site": site} if site else {})}
