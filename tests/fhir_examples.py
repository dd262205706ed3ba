"""Synthetic FHIR resources for the tests: nobody's, and small enough to check by hand."""

import base64
import io
from typing import Any

from PIL import Image

LOINC, UCUM, SNOMED = "http://loinc.org", "http://unitsofmeasure.org", "http://snomed.info/sct"
MRN = "urn:example:clinic-7:mrn"
REFERRALS = "urn:example:clinic-7:referral"
COMPLAINT = "سینے میں درد، پسینہ آ رہا ہے"
PATIENT_URL, REQUEST_URL = "urn:uuid:00000000-0000-4000-8000-000000000001", "urn:uuid:00000000-0000-4000-8000-000000000002"


def patient(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": MRN, "value": "mrn-0017"}],
        "name": [{"use": "official", "text": "نمونہ مریض"}],
        "telecom": [{"system": "phone", "value": "+92-300-0000000"}],
        "gender": "male",
        "birthDate": "1968-11-23",
        "address": [{"district": "Tharparkar", "state": "Sindh"}],
        **more,
    }


def request(subject: str = PATIENT_URL, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": REFERRALS, "value": "r-17"}],
        "status": "active",
        "intent": "order",
        "priority": "routine",
        "subject": {"reference": subject},
        "authoredOn": "2026-11-23T08:30:00+05:00",
        "reasonCode": [{"text": COMPLAINT}],
        **more,
    }


def coded(code: str, system: str = LOINC) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def observation(code: str, value: float | None = None, unit: str = "", /, **more: Any) -> dict[str, Any]:
    """A final Observation by LOINC code; without a value, `more` holds what it says."""
    measured = {} if value is None else {"valueQuantity": quantity(value, unit)}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": coded(code),
        "subject": {"reference": PATIENT_URL},
        "effectiveDateTime": "2026-11-23T08:20:00+05:00",
        **measured,
        **more,
    }


def vitals() -> list[dict[str, Any]]:
    pressure = [
        {"code": coded("8480-6"), "valueQuantity": quantity(96, "mm[Hg]")},
        {"code": coded("8462-4"), "valueQuantity": quantity(60, "mm[Hg]")},
    ]
    return [
        observation("8867-4", 118, "/min"),
        observation("9279-1", 24, "{breaths}/min"),
        observation("59408-5", 93, "%", component=[{"code": coded("3151-8"), "valueQuantity": quantity(0, "L/min")}]),
        observation("85354-9", component=pressure),
        observation("8310-5", 98.6, "[degF]"),
        observation("15074-8", 5.5, "mmol/L"),
        observation("67775-7", valueCodeableConcept=coded("LA9340-6")),
    ]


def answers(*items: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": {"reference": PATIENT_URL},
        "item": list(items) or [answer("F_012", valueBoolean=True), answer("F_013", valueBoolean=False)],
    }


def answer(link: str, **value: Any) -> dict[str, Any]:
    return {"linkId": link, "answer": [value]}


def jpeg(side: int = 24) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), (180, 120, 90)).save(content, "JPEG")
    return content.getvalue()


def media(photo: bytes | None = None, **more: Any) -> dict[str, Any]:
    data = base64.b64encode(jpeg() if photo is None else photo).decode()
    return {
        "resourceType": "Media",
        "status": "completed",
        "subject": {"reference": PATIENT_URL},
        "bodySite": {"text": "left forearm"},
        "content": {"contentType": "image/jpeg", "data": data},
        **more,
    }


def entry(resource: dict[str, Any], full_url: str | None = None, if_none_exist: str | None = None) -> dict[str, Any]:
    asked = {"method": "POST", "url": resource["resourceType"]}
    return {
        **({"fullUrl": full_url} if full_url else {}),
        "resource": resource,
        "request": {**asked, "ifNoneExist": if_none_exist} if if_none_exist else asked,
    }


def transaction(*others: dict[str, Any], **of_request: Any) -> dict[str, Any]:
    """A referral as a clinic sends it: patient and request with their identifiers as conditions, and what was observed."""
    resources = list(others) or [answers(), *vitals(), media()]
    return bundle(
        entry(patient(), PATIENT_URL, f"identifier={MRN}|mrn-0017"),
        entry(request(**of_request), REQUEST_URL, f"identifier={REFERRALS}|r-17"),
        *(entry(one, f"urn:uuid:00000000-0000-4000-8000-0000000001{place:02}") for place, one in enumerate(resources)),
    )


def bundle(*entries: dict[str, Any], kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
