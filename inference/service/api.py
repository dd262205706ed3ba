"""The routes of /v1: each one reads the request, asks `Referrals`, and answers. What may be done stands in access.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, HTTPException, Path, Query, Request
from fastapi.routing import APIRoute
from sqlalchemy import select
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.assessment import Assessment
from inference.case import read_case
from inference.errors import MalformedError
from inference.service import retention, store
from inference.service.access import require
from inference.service.api_models import (
    CASE_EXAMPLE,
    CASE_SCHEMA,
    EVENT_SCHEMA,
    FINDINGS_EXAMPLE,
    AuditRow,
    Claimed,
    CompleteRequest,
    FullReferral,
    NewWebhook,
    NoteRequest,
    OverrideRequest,
    ReassessedReferral,
    ReferralRow,
    Reloaded,
    StoredReferral,
    StoredReferrals,
    Webhook,
    WebhookRequest,
    Worklist,
)
from inference.service.bodies import as_json, case_and_photos, idempotency_key, json_object, submission_of
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.intake import assessment_json, in_time
from inference.service.live import Update
from inference.service.pages import LARGEST_PAGE
from inference.service.parts import Parts
from inference.service.problem_docs import responses
from inference.service.referrals import Stored, describe
from inference.service.tables import audit, from_us, to_us

BATCH_LIMIT = 500
_AUDIT_PAGE = 500
_QUESTIONS = 10
_JSON = "application/json"
_SECURED = (401, 403, 429, 503)
_ID = Annotated[str, Path(pattern=r"^r-[0-9a-f]{32}$", description="the referral's id", examples=["r-0193575fd5a2c0ffee00c0ffee00c0ff"])]
_SHA256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="the photo's content hash")]
_NAME = Annotated[str | None, Query(min_length=1, max_length=128)]


class _Route(APIRoute):
    """A route whose refusal of a method names every method of its address, not only its own."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose address fits."""
        if scope["method"] not in (self.methods or ()):
            here = (route for route in router.routes if isinstance(route, APIRoute) and route.path == self.path)
            allowed = {method for route in here for method in route.methods or ()}
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        await super().handle(scope, receive, send)


router = APIRouter(prefix="/v1", route_class=_Route)


def parts_of(request: Request) -> Parts:
    """The running service's parts."""
    parts: Parts = request.app.state.parts
    return parts


async def who_asks(request: Request) -> Who:
    """The verified caller, whom the guard has asked for where a path is not open. Raises UnauthenticatedError."""
    who: Who = request.scope.get(WHO) or await request.app.state.verifier.who(request.headers.get("authorization"))
    return who


def _body(schema: Mapping[str, Any], example: Any, *, with_photos: bool = False) -> dict[str, Any]:
    """A request body for the OpenAPI document, of a route that reads its body itself."""
    content: dict[str, Any] = {_JSON: {"schema": schema, "example": example}}
    if with_photos:
        properties = {
            "case": {**schema, "description": "the case as JSON"},
            "photos": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "JPEG, PNG or WebP files"},
        }
        content["multipart/form-data"] = {
            "schema": {"type": "object", "properties": properties, "required": ["case"], "additionalProperties": False},
            "encoding": {"case": {"contentType": _JSON}},
        }
    return {"requestBody": {"required": True, "content": content}}


def _idempotent(extra: dict[str, Any]) -> dict[str, Any]:
    key = {
        "name": "Idempotency-Key", "in": "header", "required": False,
        "description": "makes a repeated request harmless: the first answer is given again",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    }  # fmt: skip
    return {**extra, "parameters": [key]}


def _stored_json(stored: Stored, parts: Parts) -> bytes:
    return orjson.dumps(describe(stored.row, parts.policy, parts.clock()))[:-1] + b',"assessment":' + stored.assessment + b"}"


def _replayed(stored: Iterable[Stored]) -> dict[str, str]:
    """The header that marks an answer which was given before."""
    return {"Idempotency-Replayed": "true"} if any(one.is_replay for one in stored) else {}


@router.post(
    "/referrals",
    status_code=201,
    summary="Send a case",
    responses={201: {"model": StoredReferral, "description": "stored"}, **responses(400, 408, 409, 413, 415, 422, *_SECURED)},
    openapi_extra=_idempotent(_body(CASE_SCHEMA, CASE_EXAMPLE, with_photos=True)),
)
async def create_referral(request: Request) -> Response:
    """Score one case, store it and queue it. The answer comes after the commit: an acknowledged referral is durable."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "referral.create")
    async with case_and_photos(request) as (raw, uploads, body):
        stored = await parts.referrals.submit(who, submission_of(raw, uploads), idempotency_key(request), body)
    headers = {"Location": f"/v1/referrals/{stored.row['id']}", **_replayed([stored])}
    return Response(_stored_json(stored, parts), 201, headers, _JSON)


@router.post(
    "/referrals:batch",
    status_code=201,
    summary="Send cases",
    responses={201: {"model": StoredReferrals, "description": "all stored"}, **responses(400, 408, 409, 413, 415, 422, *_SECURED)},
    openapi_extra=_idempotent(
        _body(
            {"type": "array", "items": {}, "minItems": 1, "maxItems": BATCH_LIMIT, "description": "cases, as for /v1/referrals"},
            [CASE_EXAMPLE],
        )
    ),
)
async def create_referrals(request: Request) -> Response:
    """Score and store up to 500 cases without photos: all of them, or none. One that is no object is queued for review."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "referral.create")
    body = await request.body()
    cases = as_json(body)
    if not isinstance(cases, list) or not 1 <= len(cases) <= BATCH_LIMIT:
        raise MalformedError(f"the body is not a list of 1 to {BATCH_LIMIT} cases: split a longer one")
    given = [submission_of(case if isinstance(case, dict) else {"unreadable": case}) for case in cases]
    stored = await parts.referrals.submit_many(who, given, idempotency_key(request), body)
    listed = b'{"referrals":[' + b",".join(_stored_json(one, parts) for one in stored) + b"]}"
    return Response(listed, 201, _replayed(stored), _JSON)


@router.post(
    "/assess",
    summary="Score a case without storing it",
    responses={200: {"model": Assessment, "description": "assessed"}, **responses(400, 408, 413, 415, *_SECURED)},
    openapi_extra=_body(CASE_SCHEMA, CASE_EXAMPLE),
)
async def assess(request: Request) -> Response:
    """Rules, models and urgency for one case. Nothing is stored."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "assess")
    now = parts.clock()
    raw = {"case_id": "case", **(await json_object(request))}
    raw.pop("patient", None)
    assessment = await parts.scorer.assess(in_time(read_case(raw, "case"), now), now, {})
    return Response(assessment_json(assessment), media_type=_JSON)


@router.post(
    "/ask",
    summary="The next best questions",
    responses=responses(400, 408, 413, 415, 422, *_SECURED),
    openapi_extra=_body(CASE_SCHEMA, CASE_EXAMPLE),
)
async def ask(request: Request, count: Annotated[int, Query(ge=1, le=_QUESTIONS, description="most questions")] = 3) -> Response:
    """What to ask or measure next: what could make the case more urgent first, and why it is asked."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "ask")
    now = parts.clock()
    raw = {"case_id": "case", **(await json_object(request))}
    raw.pop("patient", None)
    questions = await parts.scorer.ask(in_time(read_case(raw, "case"), now), now, count)
    return Response(questions.model_dump_json(), media_type=_JSON)


@router.get(
    "/worklist",
    summary="Who is next",
    response_model=Worklist,
    responses={304: {"description": "nothing changed since the ETag that was sent"}, **responses(400, 404, 409, 422, *_SECURED)},
)
async def worklist(
    request: Request,
    state: Annotated[Literal["open", "waiting", "claimed", "completed", "review"], Query(description="open: waiting or claimed")] = "open",
    level: Annotated[int | None, Query(ge=1, le=5)] = None,
    specialty: _NAME = None,
    district: _NAME = None,
    clinic: _NAME = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The queue in its order: level first; within a level those past their wait cap, then by the time they are due."""
    parts, who = parts_of(request), await who_asks(request)
    given = {"level": level, "specialty": specialty, "district": district.casefold() if district else None, "clinic": clinic}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    filters = {name: value for name, value in given.items() if value is not None}
    page, etag, items = await parts.referrals.page(who, filters, state, limit, cursor, known)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if items is None:
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps({"as_of": page.as_of.isoformat(), "items": items, "next": page.cursor}), 200, headers, _JSON)


@router.post("/worklist:claim-next", summary="Take the next case", response_model=Claimed, responses=responses(409, 415, 422, *_SECURED))
async def claim_next(
    request: Request, level: Annotated[int | None, Query(ge=1, le=5)] = None, specialty: _NAME = None, district: _NAME = None
) -> Response:
    """Claim the first case that waits. Two clinicians who ask at once get two different cases."""
    parts, who = parts_of(request), await who_asks(request)
    given = {"level": level, "specialty": specialty, "district": district.casefold() if district else None}
    row = await parts.referrals.claim_next(who, {k: v for k, v in given.items() if v is not None})
    return Response(orjson.dumps({"referral": row}), media_type=_JSON)


@router.get(
    "/referrals/{id}", summary="A referral with its whole history", response_model=FullReferral, responses=responses(404, 422, *_SECURED)
)
async def read_referral(request: Request, id: _ID) -> Response:  # noqa: A002 (the path's own word)
    """The case, every assessment and what it changed, and all that happened. Every read is in the audit trail."""
    parts, who = parts_of(request), await who_asks(request)
    return Response(orjson.dumps(await parts.referrals.read(who, id)), media_type=_JSON)


@router.get(
    "/referrals/{id}/photos/{sha256}",
    summary="A photo",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}, **responses(404, 422, *_SECURED)},
)
async def read_photo(request: Request, id: _ID, sha256: _SHA256) -> Response:  # noqa: A002
    """The photo as it is stored: upright, at most 2048 pixels a side, without metadata."""
    parts, who = parts_of(request), await who_asks(request)
    return Response(await parts.referrals.photo(who, id, sha256), media_type="image/jpeg")


@router.post(
    "/referrals/{id}/findings",
    summary="Add what is newly known",
    response_model=ReassessedReferral,
    responses=responses(400, 404, 408, 409, 413, 415, 422, *_SECURED),
    openapi_extra=_body(CASE_SCHEMA, FINDINGS_EXAMPLE, with_photos=True),
)
async def add_findings(request: Request, id: _ID) -> Response:  # noqa: A002
    """Assess the case again with new findings, vitals, words or photos. Says what changed, and why. The level never falls by itself."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "referral.update")
    async with case_and_photos(request) as (new, uploads, _):
        return Response(orjson.dumps(await parts.referrals.add_findings(who, id, new, uploads)), media_type=_JSON)


@router.post("/referrals/{id}/claim", summary="Hold a case", response_model=ReferralRow, responses=responses(404, 409, 415, 422, *_SECURED))
async def claim(request: Request, id: _ID) -> Response:  # noqa: A002
    """Hold a case for the policy's lease. Exactly one clinician holds it; a lease that ends returns it to the queue."""
    return _row(await parts_of(request).referrals.claim(await who_asks(request), id))


@router.post(
    "/referrals/{id}/release", summary="Put a case back", response_model=ReferralRow, responses=responses(404, 409, 415, 422, *_SECURED)
)
async def release(request: Request, id: _ID) -> Response:  # noqa: A002
    """Put a case that you hold back in the queue, at its place."""
    return _row(await parts_of(request).referrals.release(await who_asks(request), id))


@router.post(
    "/referrals/{id}/complete", summary="Close a case", response_model=ReferralRow, responses=responses(400, 404, 409, 415, 422, *_SECURED)
)
async def complete(request: Request, id: _ID, body: CompleteRequest) -> Response:  # noqa: A002
    """Close a case that you hold."""
    return _row(await parts_of(request).referrals.complete(await who_asks(request), id, body.model_dump(exclude_none=True)))


@router.post(
    "/referrals/{id}/override",
    summary="Set the level yourself",
    response_model=ReferralRow,
    responses=responses(400, 404, 409, 415, 422, *_SECURED),
)
async def override(request: Request, id: _ID, body: OverrideRequest) -> Response:  # noqa: A002
    """Set the level by your judgement. The reason and both levels are kept."""
    return _row(await parts_of(request).referrals.override(await who_asks(request), id, body.level, {"reason": body.reason}))


@router.post("/referrals/{id}/note", summary="Leave a note", response_model=ReferralRow, responses=responses(400, 404, 415, 422, *_SECURED))
async def note(request: Request, id: _ID, body: NoteRequest) -> Response:  # noqa: A002
    """Add a note to the referral's history."""
    return _row(await parts_of(request).referrals.note(await who_asks(request), id, body.model_dump()))


@router.post(
    "/referrals/{id}/erase",
    summary="Erase what the patient sent",
    status_code=204,
    response_class=Response,
    responses=responses(404, 409, 415, 422, *_SECURED),
)
async def erase(request: Request, id: _ID) -> Response:  # noqa: A002
    """Erase the content of a completed referral. The row, its levels and the audit trail stay."""
    parts = parts_of(request)
    await retention.erase(parts.database, parts.photos, await who_asks(request), id, parts.clock())
    return Response(status_code=204)


@router.get(
    "/events",
    summary="Live updates",
    response_class=Response,
    responses={
        200: {"description": "events, one after another", "content": {"text/event-stream": {"schema": EVENT_SCHEMA}}},
        **responses(422, *_SECURED),
    },
)
async def listen(
    request: Request,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="sequence to resume after; default: from now on")] = None,
    last_event_id: Annotated[str, Header(pattern=r"^[0-9]{0,15}$", description="the last event's id; goes before `after`")] = "",
) -> Response:
    """Server-sent events: one for every change of a referral. `Last-Event-ID` resumes where a connection broke.

    An `id` without an event now and then says where to resume. The stream ends after a quarter of an hour: resume it.
    """
    return await stream_events(request, int(last_event_id) if last_event_id else after)


async def stream_events(request: Request, start: int | None) -> Response:
    """The events after sequence `start` (None: from now on), to whoever asks."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "events.read")
    updates = parts.live.listen(who, start)
    first = await anext(updates, None)  # the first look, before the answer begins: a refusal still has its status

    async def stream() -> AsyncIterator[ServerSentEvent]:
        async with aclosing(updates):
            if first is not None:
                yield _sent(first)
            async for update in updates:
                yield _sent(update)

    return EventSourceResponse(stream(), ping=3600, send_timeout=30)


def _sent(update: Update | int) -> ServerSentEvent:
    """An update as it is sent; of a mere place the id alone, by which a browser resumes and which it does not report."""
    if isinstance(update, int):
        return ServerSentEvent(comment="alive", id=str(update))
    return ServerSentEvent(orjson.dumps(update.data).decode(), event=update.kind, id=str(update.sequence))


@router.get("/webhooks", summary="Receivers of events", response_model=list[Webhook], responses=responses(*_SECURED))
async def list_webhooks(request: Request) -> Response:
    """The receivers, and how far each one is."""
    return _row(await parts_of(request).outbox.listed(await who_asks(request)))


@router.post(
    "/webhooks", summary="Add a receiver", status_code=201, response_model=NewWebhook, responses=responses(400, 415, 422, *_SECURED)
)
async def add_webhook(request: Request, body: WebhookRequest) -> Response:
    """Send every event from now on to an address, signed by the Standard Webhooks specification. The secret is shown this once."""
    parts = parts_of(request)
    answer = await parts.outbox.register(await who_asks(request), body.url, to_us(parts.clock()))
    return Response(orjson.dumps(answer), 201, media_type=_JSON)


@router.delete(
    "/webhooks/{id}", summary="Remove a receiver", status_code=204, response_class=Response, responses=responses(404, 422, *_SECURED)
)
async def remove_webhook(request: Request, id: Annotated[str, Path(pattern=r"^w-[0-9a-f]{32}$")]) -> Response:  # noqa: A002
    """Send nothing more to it."""
    parts = parts_of(request)
    await parts.outbox.remove(await who_asks(request), id, to_us(parts.clock()))
    return Response(status_code=204)


@router.post("/models:reload", summary="Use what serving.toml names now", response_model=Reloaded, responses=responses(415, *_SECURED))
async def reload_models(request: Request) -> Response:
    """Swap the bundles without an error: a new one that cannot be verified leaves the old one live and is named."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "models.reload")
    problems = await parts.scorer.reload()
    now, bundles = parts.clock(), {task: name.model_dump() for task, name in parts.scorer.health().bundles.items()}
    await parts.database.run(lambda unit: store.record(unit, who, "models_reloaded", None, now, bundles=bundles))
    return _row({"bundles": bundles, "problems": list(problems)})


@router.get("/audit", summary="Who read or changed what", response_model=list[AuditRow], responses=responses(422, *_SECURED))
async def read_audit(
    request: Request,
    referral: Annotated[str | None, Query(pattern=r"^r-[0-9a-f]{32}$")] = None,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Up to 500 rows of the audit trail after a sequence, oldest first. `nabz audit verify` proves that they are whole."""
    parts, who = parts_of(request), await who_asks(request)
    require(who, "audit.read")
    query = select(audit).where(audit.c.sequence > after)
    if referral:
        query = query.where(audit.c.referral_id == referral)
    rows = await parts.database.run(lambda unit: unit.connection.execute(query.order_by(audit.c.sequence).limit(_AUDIT_PAGE)).fetchall())
    return _row([_audit_row(row) for row in rows])


def _audit_row(row: Any) -> dict[str, Any]:
    return {
        "sequence": row.sequence, "at": from_us(row.at_us).isoformat(), "actor": row.actor, "role": row.role, "action": row.action,
        "referral_id": row.referral_id, "detail": orjson.loads(row.detail), "hash": row.hash,
    }  # fmt: skip


def _row(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=_JSON)
