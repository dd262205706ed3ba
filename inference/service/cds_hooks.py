"""CDS Hooks 2.0: discovery, cards for `patient-view` and `order-select`, and feedback. Scores; stores nothing but feedback.

A card says the level and why. It never fetches: what the client did not send along is unknown.
Specification: https://cds-hooks.hl7.org/2.0/.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol

import orjson
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from inference.assessment import Assessment
from inference.errors import MalformedError, NotFoundError, UnprocessableError
from inference.service.access import require
from inference.service.callers import Who
from inference.service.cds_cards import cards_for
from inference.service.fhir_in import FhirCase, read_additions, read_referral
from inference.service.fhir_json import parse_json
from inference.service.fhir_problem import FhirError
from inference.service.fhir_references import target_of
from inference.service.fhir_validation import read_resource
from inference.service.fhir_vitals import moment_of
from inference.service.problems import problem as problem_response

PREFIX: Final = "/cds-services"
_MOST_CARDS = 10
_MOST_OBSERVATIONS = 200
_TEXT = 200
_RECENT = timedelta(hours=24)  # an older vital sign says how the patient was


class Service(NamedTuple):
    """One service as discovery describes it."""

    id: str
    hook: Literal["patient-view", "order-select"]
    title: str
    description: str


_PREFETCH: Final = {
    "patient": "Patient/{{context.patientId}}",
    "observations": "Observation?patient={{context.patientId}}&category=vital-signs&_sort=-date&_count=50",
}
SERVICES: Final[Mapping[str, Service]] = {
    one.id: one
    for one in (
        Service("nabz-patient-view", "patient-view", "Nabz triage", "How urgent the patient is by the vital signs on record, and why."),
        Service("nabz-order-select", "order-select", "Nabz referral priority", "How urgent a drafted referral is, and why."),
    )
}


class CdsBackend(Protocol):
    """What the hooks need of the service; the routes have asked whether the role may do it."""

    async def assess(self, who: Who, content: FhirCase) -> Assessment:
        """Score a case without storing anything of it."""
        ...

    async def store_feedback(self, who: Who, service_id: str, feedback: Mapping[str, Any]) -> None:
        """Keep what a clinician did with a card."""
        ...


class _Override(BaseModel):
    model_config = ConfigDict(extra="ignore")

    reason: dict[str, str] | None = None
    userComment: str | None = Field(default=None, max_length=2000)  # noqa: N815 (the specification's name)


class _Suggestion(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=_TEXT)


class _Feedback(BaseModel):
    """One card's feedback, in the specification's names."""

    model_config = ConfigDict(extra="ignore")

    card: str = Field(min_length=1, max_length=_TEXT)
    outcome: Literal["accepted", "overridden"]
    acceptedSuggestions: list[_Suggestion] | None = Field(default=None, max_length=_MOST_CARDS)  # noqa: N815
    overrideReason: _Override | None = None  # noqa: N815
    outcomeTimestamp: datetime  # noqa: N815


class _FeedbackBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    feedback: list[_Feedback] = Field(min_length=1, max_length=100)


def cds_router(
    backend: CdsBackend, caller: Callable[..., Awaitable[Who]], *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> APIRouter:
    """The routes. `caller` is the dependency that says who calls, or raises."""
    router = APIRouter(prefix=PREFIX, tags=["cds-hooks"])

    async def discover() -> Response:
        return _json({"services": [{**one._asdict(), "prefetch": _PREFETCH} for one in SERVICES.values()]})

    async def call(request: Request, service_id: str, who: Who = Depends(caller)) -> Response:  # noqa: B008 (how FastAPI declares what a route needs)
        require(who, "cds.call")
        service = _service(service_id)
        body = await request.body()
        asked = await run_in_threadpool(_read_call, service, body, clock())
        if isinstance(asked, str):
            return problem_response(412, "Prefetch is missing", asked)
        cards: list[dict[str, Any]] = []
        for draft, content in asked[:_MOST_CARDS]:
            cards += cards_for(await backend.assess(who, content), draft, content.review)
        return _json({"cards": cards})

    async def feedback(request: Request, service_id: str, who: Who = Depends(caller)) -> Response:  # noqa: B008
        require(who, "cds.feedback")
        service = _service(service_id)
        for one in _read_feedback(await request.body()).feedback:
            await backend.store_feedback(who, service.id, one.model_dump(mode="json", exclude_none=True))
        return _json({})

    router.add_api_route("", discover, methods=["GET"], response_class=Response, response_model=None, name="discovery")
    router.add_api_route(
        "/{service_id}", call, methods=["POST"], response_class=Response, response_model=None, name="cards", openapi_extra=_BODY
    )
    router.add_api_route(
        "/{service_id}/feedback",
        feedback,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        name="feedback",
        openapi_extra=_BODY,
    )
    return router


def _service(service_id: str) -> Service:
    if service_id not in SERVICES:
        raise NotFoundError(f"there is no such CDS service: GET {PREFIX} lists {' and '.join(SERVICES)}")
    return SERVICES[service_id]


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return parse_json(body)
    except FhirError as error:
        raise MalformedError(str(error)) from error


def _read_feedback(body: bytes) -> _FeedbackBody:
    try:
        return _FeedbackBody.model_validate(_parsed(body))
    except ValueError as error:
        raise UnprocessableError(
            "expected {feedback: [{card, outcome: accepted or overridden, outcomeTimestamp, …}]} as CDS Hooks 2.0 has it"
        ) from error


def _read_call(service: Service, body: bytes, now: datetime) -> list[tuple[Mapping[str, Any] | None, FhirCase]] | str:
    """What to score: each drafted request with its case, or the patient alone. A text says which prefetch is missing."""
    sent = _parsed(body)
    context = sent.get("context")
    if sent.get("hook") != service.hook or not isinstance(sent.get("hookInstance"), str) or not isinstance(context, dict):
        raise UnprocessableError(f"expected a call of the hook {service.hook} with hookInstance and context")
    prefetch = sent.get("prefetch")
    missing = [name for name in _PREFETCH if not isinstance(prefetch, dict) or name not in prefetch]
    if missing or not isinstance(prefetch, dict) or not isinstance(prefetch["patient"], dict):
        return f"send {' and '.join(missing or ['patient'])} in prefetch: nothing is fetched from here"
    try:
        patient = read_resource(prefetch["patient"], "prefetch.patient", "Patient")
        observations = _observations(prefetch["observations"], now)
        drafts = _drafts(context, patient.get("id")) if service.hook == "order-select" else []
    except FhirError as error:
        raise UnprocessableError(str(error)) from error
    if service.hook == "order-select":
        return [(draft, read_referral({**draft, "status": "active"}, patient, observations, now)) for draft in drafts]
    case = read_referral({"resourceType": "ServiceRequest"}, patient, observations, now)
    # A chart that holds no vital sign is no reason for a card.
    return [(None, case)] if read_additions(observations, [], now).case else []


def _observations(sent: Any, now: datetime) -> list[dict[str, Any]]:
    """The Observations of the last day in a searchset; an absent one (null) is none. One that cannot be read is passed over."""
    entries = sent.get("entry") if isinstance(sent, dict) else None
    resources = [one.get("resource") for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    found = []
    for one in resources[:_MOST_OBSERVATIONS]:
        if isinstance(one, dict) and one.get("resourceType") == "Observation":
            try:
                found.append(read_resource(one))
            except FhirError:
                # The chart is the client's: a resource of it that breaks FHIR's rules is as unknown as one that was not sent.
                continue
    return [one for one in found if (at := moment_of(one)) is not None and at > now - _RECENT]


def _drafts(context: Mapping[str, Any], patient_id: str | None) -> list[dict[str, Any]]:
    """The selected ServiceRequests among the draft orders."""
    orders, selections = context.get("draftOrders"), context.get("selections")
    entries = orders.get("entry") if isinstance(orders, dict) else None
    if not isinstance(entries, list) or not isinstance(selections, list):
        raise UnprocessableError("expected context.draftOrders, a Bundle with entries, and context.selections")
    drafts = [one["resource"] for one in entries if isinstance(one, dict) and isinstance(one.get("resource"), dict)]
    selected = [one for one in drafts if one.get("resourceType") == "ServiceRequest" and f"ServiceRequest/{one.get('id')}" in selections]
    if any(target_of(one.get("subject"), "Patient") not in (None, patient_id) for one in selected):
        raise UnprocessableError("a selected ServiceRequest is for another patient than prefetch.patient: send one patient's at a time")
    return [read_resource(one, "context.draftOrders") for one in selected]


_SCHEMA = {"application/json": {"schema": {"type": "object"}}}
_BODY = {"requestBody": {"required": True, "content": _SCHEMA}}
