"""The routes under /fhir, on a FhirStore. Knows no database; what a resource means is read and written by its own modules.

Parsing and validation run in a thread: a transaction with photos has megabytes of JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import ConflictError, NabzError
from inference.service.access import require
from inference.service.callers import Who
from inference.service.fhir_capability import RESOURCES, Support, capability_statement, not_routed
from inference.service.fhir_http import (
    BODY,
    FhirRoute,
    answer,
    documented,
    is_unchanged,
    outcome,
    render_problem,
    status_of,
    version_headers,
)
from inference.service.fhir_json import parse_json
from inference.service.fhir_out import created, instant, refused, response_bundle, risk_assessment, searchset, stored, task
from inference.service.fhir_problem import FhirError, Issue, Severity, problem
from inference.service.fhir_search import read_search, search_url
from inference.service.fhir_store import Committed, FhirStore, ReferralView
from inference.service.fhir_transaction import ADMINISTRATIVE, Plan, Slot, plan_write
from inference.service.fhir_validation import Entry, parse_identifier, read_bundle, read_resource
from inference.service.problems import describe

PREFIX = "/fhir"
_ATTEMPTS = 3
_SHOWN: Mapping[str, Callable[[ReferralView], dict[str, Any]]] = {"RiskAssessment": risk_assessment, "Task": task}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_REASONS = {200: "OK", 201: "Created"}

Caller = Callable[..., Awaitable[Who]]


def fhir_router(store: FhirStore, caller: Caller, version: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> APIRouter:
    """The routes. `caller` is the dependency that says who calls, or raises; `version` is the software's."""
    router = APIRouter(prefix=PREFIX, tags=["fhir"], route_class=FhirRoute)
    fhir = _Fhir(store, clock)

    async def metadata(request: Request) -> Response:
        return answer(capability_statement(_base(request), version))

    async def bundle(request: Request, who: Who = Depends(caller)) -> Response:  # noqa: B008 (how FastAPI declares what a route needs)
        require(who, "fhir.write")
        return await fhir.carry_out(who, await request.body())

    add = partial(router.add_api_route, response_class=Response, response_model=None)
    add("/metadata", metadata, methods=["GET"], name="CapabilityStatement", responses=documented(200))
    add("", bundle, methods=["POST"], name="transaction or batch", responses=documented(200, 400, 412, 413, 422), openapi_extra=BODY)
    add("/", bundle, methods=["POST"], include_in_schema=False)
    for support in RESOURCES:
        _add_type(router, fhir, caller, support)

    async def elsewhere(request: Request, rest: str = "") -> Response:
        parts = [part for part in rest.split("/") if part]
        return not_routed(request.method, parts)

    add("", elsewhere, methods=_METHODS, include_in_schema=False)
    add("/{rest:path}", elsewhere, methods=_METHODS, include_in_schema=False)
    return router


def _add_type(router: APIRouter, fhir: _Fhir, caller: Caller, support: Support) -> None:
    """The routes of one type, as the capability table has them."""
    kind = support.kind
    add = partial(router.add_api_route, response_class=Response, response_model=None)

    async def create(request: Request, who: Who = Depends(caller)) -> Response:  # noqa: B008
        require(who, "fhir.write")
        return await fhir.create(who, kind, request, await request.body())

    async def read(request: Request, id: str, who: Who = Depends(caller)) -> Response:  # noqa: A002, B008 (FHIR's name)
        require(who, "fhir.read")
        return await fhir.read(who, kind, id, request)

    async def vread(request: Request, id: str, vid: str, who: Who = Depends(caller)) -> Response:  # noqa: A002, B008
        require(who, "fhir.read")
        return await fhir.read(who, kind, id, request, vid)

    async def search(request: Request, who: Who = Depends(caller)) -> Response:  # noqa: B008
        require(who, "fhir.read")
        return await fhir.search(who, support, request)

    if "create" in support.interactions:
        add(f"/{kind}", create, methods=["POST"], name=f"create {kind}", responses=documented(201, 400, 412, 413, 422), openapi_extra=BODY)
    if "search-type" in support.interactions:
        add(f"/{kind}", search, methods=["GET"], name=f"search {kind}", responses=documented(200, 400, 422))
    if "read" in support.interactions:
        add(f"/{kind}/{{id}}", read, methods=["GET"], name=f"read {kind}", responses=documented(200, 304, 404))
    if "vread" in support.interactions:
        add(f"/{kind}/{{id}}/_history/{{vid}}", vread, methods=["GET"], include_in_schema=False)


class _Fhir:
    """What the routes do, once they know who asks."""

    def __init__(self, store: FhirStore, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock

    async def carry_out(self, who: Who, body: bytes) -> Response:
        """A transaction in one go, or a batch entry by entry."""
        incoming = await run_in_threadpool(lambda: read_bundle(parse_json(body)))
        if incoming.type == "transaction":
            entries = [one for one in incoming.entries if isinstance(one, Entry)]
            return answer(response_bundle("transaction", await self._transaction(who, entries)))
        answers: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        for one in incoming.entries:
            try:
                if isinstance(one, FhirError):
                    raise one
                first, *rest = await self._transaction(who, [one])
            except FhirError as error:
                answers.append(refused(_status_line(status_of(error)), error.issues))
            except NabzError as error:
                answers.append(_refused_entry(error))
            else:
                answers.append(first)
                shown += rest
        return answer(response_bundle("batch", [*answers, *shown]))

    async def create(self, who: Who, kind: str, request: Request, body: bytes) -> Response:
        """One resource; with If-None-Exist only where nothing has that identifier."""
        if set(request.query_params) - {"_format"}:
            raise problem("not-supported", "a creation takes no parameters in its address: put the condition in If-None-Exist")
        resource = await run_in_threadpool(lambda: read_resource(parse_json(body), expected=kind))
        condition = request.headers.get("if-none-exist")
        found = parse_identifier(condition, "") if condition is not None else None
        plan, committed = await self._write(who, [Entry(kind, None, resource, found, "")])
        slot = plan.slots[0]
        location = f"{_base(request)}/{kind}/{slot.id}/_history/"
        if slot.is_new:
            kept = stored(plan.write.resources[0].resource, 1, committed.at)
            return _created(request, kept, version_headers(f"{location}1", 1, committed.at), 201)
        known = await self._store.fetch(who, kind, slot.id)
        if known is None:
            raise problem("conflict", "the resource that was found is gone: send it again")
        kept = stored(known.resource, known.version, known.updated_at)
        return _created(request, kept, version_headers(f"{location}{known.version}", known.version, known.updated_at), 200)

    async def read(self, who: Who, kind: str, id_: str, request: Request, version: str | None = None) -> Response:
        """One resource, as it is now. Its current version may be named; earlier ones are not kept."""
        found = await self._find(who, kind, id_)
        if found is None or version not in (None, found["meta"]["versionId"]):
            return outcome(404, [Issue("error", "not-found", f"there is no such {kind} for this caller")])
        current, at = int(found["meta"]["versionId"]), datetime.fromisoformat(found["meta"]["lastUpdated"])
        headers = version_headers(None, current, at)
        return Response(None, 304, headers) if is_unchanged(request, current) else answer(found, 200, headers)

    async def search(self, who: Who, support: Support, request: Request) -> Response:
        """One page of the referrals as Tasks or RiskAssessments."""
        parameters = request.query_params.multi_items()
        query = read_search(support, parameters)
        page = await self._store.referrals(who, query) if query is not None else None
        base = _base(request)
        links = {"self": search_url(base, support.kind, parameters)}
        if page is not None and page.cursor:
            links["next"] = search_url(base, support.kind, parameters, page.cursor)
        shown = [_SHOWN[support.kind](view) for view in (page.referrals if page else ())]
        return answer(searchset(base, shown, links))

    async def _find(self, who: Who, kind: str, id_: str) -> dict[str, Any] | None:
        if kind in _SHOWN:
            view = await self._store.referral(who, id_)
            return _SHOWN[kind](view) if view else None
        found = await self._store.fetch(who, kind, id_)
        return stored(found.resource, found.version, found.updated_at) if found else None

    async def _write(self, who: Who, entries: list[Entry]) -> tuple[Plan, Committed]:
        """Plan and store; planned again where another request has met a condition in the meantime."""
        for attempt in range(_ATTEMPTS):
            plan = await plan_write(self._store, who, entries, self._clock())
            try:
                return plan, await self._store.commit(who, plan.write)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _transaction(self, who: Who, entries: list[Entry]) -> list[dict[str, Any]]:
        """The answers to the entries, in their order, then what became of each referral."""
        plan, committed = await self._write(who, entries)
        answers = [await self._entry(who, slot, committed) for slot in plan.slots]
        new = {one.id for one in plan.write.referrals}
        for id_, view in committed.referrals.items():
            for show in _SHOWN.values():
                resource = show(view)
                line = _status_line(201 if id_ in new else 200)
                version = int(resource["meta"]["versionId"])
                answers.append({"resource": resource, **created(resource["resourceType"], id_, version, view.updated_at, line)})
        return answers

    async def _entry(self, who: Who, slot: Slot, committed: Committed) -> dict[str, Any]:
        kind = slot.entry.kind
        if slot.resource is None:
            severity: Severity = "information" if kind in ADMINISTRATIVE else "warning"
            return refused("200 OK", [Issue(severity, "not-supported", f"{kind} is neither read nor kept here", slot.entry.expression)])
        if not slot.is_new:
            known = await self._store.fetch(who, kind, slot.id)
            version, at = (known.version, known.updated_at) if known else (1, committed.at)
            return created(kind, slot.id, version, at, "200 OK")
        made = created(kind, slot.id, 1, committed.at)
        view = committed.referrals.get(slot.id)
        if view is not None and view.assessment.review.needed:
            issues = [Issue("warning", "processing", why) for why in view.assessment.review.why]
            made["response"]["outcome"] = refused("", issues)["response"]["outcome"]
        return made


def _created(request: Request, resource: Mapping[str, Any], headers: dict[str, str], status: int) -> Response:
    """The answer to a creation, as long as the caller prefers (Prefer: return=…)."""
    prefer = request.headers.get("prefer", "").replace(" ", "")
    if "return=minimal" in prefer:
        return Response(None, status, headers)
    if "return=OperationOutcome" in prefer:
        return outcome(status, [Issue("information", "informational", f"stored as of {instant(datetime.now(UTC))}")], headers)
    return answer(resource, status, headers)


def _refused_entry(error: NabzError) -> dict[str, Any]:
    """An entry of a batch that another part of the service refused."""
    found = describe(error)
    issues = [Issue("error", "transient" if found.status >= 500 else "processing", found.detail)]
    return refused(_status_line(found.status), issues)


def _status_line(status: int) -> str:
    return f"{status} {_REASONS.get(status, '')}".strip()


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


__all__ = ["PREFIX", "FhirRoute", "fhir_router", "render_problem"]
