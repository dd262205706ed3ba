"""What this FHIR server does, as one table: the routes are made from it, and so is the CapabilityStatement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from starlette.responses import Response

from inference.assessment import NOTICE
from inference.service.fhir_http import MEDIA_TYPE, outcome
from inference.service.fhir_problem import Issue
from inference.service.fhir_validation import CREATED_TYPES, MOST_ENTRIES

FHIR_VERSION: Final = "4.0.1"
_PUBLISHED: Final = "2026-11-23"  # when this table last changed

Interaction = Literal["read", "vread", "create", "search-type"]


class Search(NamedTuple):
    """A search parameter. `says` is its documentation."""

    name: str
    type: Literal["token", "reference"]
    says: str


class Support(NamedTuple):
    """What is supported for one type of resource."""

    kind: str
    interactions: tuple[Interaction, ...]
    search: tuple[Search, ...] = ()
    says: str = ""

    @property
    def is_created(self) -> bool:
        """Whether clients may create it, and conditionally so."""
        return "create" in self.interactions


_ID = Search("_id", "token", "the resource's id, which is its referral's")
_IDENTIFIER = Search("identifier", "token", "the referral's id, or the case's id as the referrer gave it")
_PATIENT = Search("patient", "reference", "a Patient that was created here")
_BASED_ON = Search("based-on", "reference", "the ServiceRequest that was queued")
_SAYS = {
    "Patient": "age, sex, district and province are read for triage; identity is sealed",
    "ServiceRequest": "queues a referral; its priority may be raised and is never lowered",
    "QuestionnaireResponse": "linkIds are finding codes (F_…), or `complaint`",
    "Observation": "vital signs by LOINC code and UCUM unit; one that is basedOn a queued ServiceRequest has it assessed again",
    "Media": "photos in content.data (JPEG, PNG, WebP); what is read back has no data",
}
RESOURCES: Final[Sequence[Support]] = (
    *(Support(kind, ("read", "vread", "create"), (), _SAYS[kind]) for kind in CREATED_TYPES),
    Support("RiskAssessment", ("read", "vread", "search-type"), (_ID, _IDENTIFIER, _PATIENT, _BASED_ON), NOTICE),
    Support(
        "Task",
        ("read", "vread", "search-type"),
        (
            _ID,
            _IDENTIFIER,
            _PATIENT,
            _BASED_ON,
            Search("status", "token", "requested (waits), accepted (a clinician holds it), completed"),
            Search("priority", "token", "stat, asap, urgent or routine"),
        ),
        "the referral's place in the queue, in the queue's order",
    ),
)


def capability_statement(base: str, version: str) -> dict[str, Any]:
    """The CapabilityStatement of the server at `base`."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _PUBLISHED,
        "kind": "instance",
        "software": {"name": "Nabz", "version": version},
        "implementation": {"description": "Nabz triage service", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [MEDIA_TYPE, "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": f"Creations only: nothing is changed or deleted here. A transaction or batch may have {MOST_ENTRIES} "
                "entries, all of them POST; its answer ends with the RiskAssessment and Task of each referral. If-None-Exist, "
                "ifNoneExist and conditional references take identifier=system|value.",
                "security": {"cors": False, "description": "OAuth 2 bearer tokens (JWT)"},
                "resource": [_resource(one) for one in RESOURCES],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }


def _resource(one: Support) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "type": one.kind,
        "documentation": one.says,
        "interaction": [{"code": interaction} for interaction in one.interactions],
        "versioning": "versioned",
        "readHistory": False,
        "updateCreate": False,
        "conditionalCreate": one.is_created,
        "conditionalRead": "not-match",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
    }
    if one.search:
        resource["searchParam"] = [{"name": param.name, "type": param.type, "documentation": param.says} for param in one.search]
    return resource


def not_routed(method: str, parts: list[str]) -> Response:
    """Why nothing else took the request: an address that is not here, or a method that it does not take."""
    support = next((one for one in RESOURCES if parts and one.kind == parts[0]), None)
    if not parts:
        methods = ["POST"]
    elif parts == ["metadata"] or (support is not None and len(parts) in (2, 4)):
        methods = ["GET"]
    elif support is not None and len(parts) == 1:
        methods = ["POST"] * support.is_created + ["GET"] * bool(support.search)
    else:
        return outcome(404, [Issue("error", "not-found", "there is nothing at this address: GET /fhir/metadata lists what is supported")])
    if method in methods:  # such as GET /fhir/Task/x/history
        return outcome(404, [Issue("error", "not-found", "there is nothing at this address")])
    said = f"this address takes {' and '.join(methods)} alone: nothing is changed or deleted here"
    return outcome(405, [Issue("error", "not-supported", said)], {"Allow": ", ".join(methods)})
