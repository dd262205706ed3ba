"""FHIR over HTTP: media types, statuses of issues, ETags, OperationOutcomes as answers. Knows no resource but that one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from inference.service.fhir_out import etag
from inference.service.fhir_problem import FhirError, Issue, operation_outcome
from inference.service.problems import Problem

MEDIA_TYPE: Final = "application/fhir+json"
_JSON: Final = frozenset({MEDIA_TYPE, "application/json", "text/json", "json", "application/*", "*/*"})
# https://hl7.org/fhir/R4/http.html: 400 for what breaks FHIR's own rules, 422 for what breaks this server's. What is not found
# here is what something sent refers to; reading what is not there is a 404 of its own.
STATUS: Final[Mapping[str, int]] = {
    "not-found": 422,
    "conflict": 409,
    "multiple-matches": 412,
    "too-costly": 413,
    "not-supported": 422,
    "business-rule": 422,
    "extension": 422,
}
# The nearest code of FHIR's issue types for the statuses of problem documents.
_CODE: Final[Mapping[int, str]] = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    408: "timeout",
    409: "conflict",
    413: "too-costly",
    415: "not-supported",
    422: "processing",
    429: "throttled",
    500: "exception",
    503: "transient",
}


_SCHEMA = {"schema": {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"type": "string"}}}}
BODY: Final = {"requestBody": {"required": True, "content": {MEDIA_TYPE: _SCHEMA, "application/json": _SCHEMA}}}


def status_of(error: FhirError) -> int:
    """The status of a problem: that of its first issue."""
    return STATUS.get(error.issues[0].code, 400) if error.issues else 400


def answer(resource: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A resource as the response."""
    return Response(orjson.dumps(resource), status, dict(headers or {}), MEDIA_TYPE)


def outcome(status: int, issues: Iterable[Issue], headers: Mapping[str, str] | None = None) -> Response:
    """An OperationOutcome as the response."""
    return answer(operation_outcome(issues), status, headers)


def render_problem(problem: Problem) -> Response:
    """A problem document as an OperationOutcome: what `problems.install` takes as the renderer of `/fhir`."""
    code = _CODE.get(problem.status, "exception" if problem.status >= 500 else "invalid")
    fields = [Issue("error", code, f"{problem.title}: {problem.detail}")]
    return outcome(problem.status, fields)


def version_headers(location: str | None, version: int, at: datetime) -> dict[str, str]:
    """ETag and Last-Modified, and Location where something was created."""
    headers = {"ETag": etag(version), "Last-Modified": format_datetime(at.astimezone(UTC), usegmt=True)}
    return {**headers, "Location": location} if location else headers


def is_unchanged(request: Request, version: int) -> bool:
    """Whether the caller has this version already (If-None-Match)."""
    known = [one.strip().removeprefix("W/").strip('"') for one in request.headers.get("if-none-match", "").split(",")]
    return str(version) in known or "*" in known


def check_acceptable(request: Request) -> Response | None:
    """A 406 where the caller takes no JSON. `_format` counts before Accept; a parameter such as fhirVersion is left aside."""
    asked = request.query_params.get("_format")
    # A plus sign in a URL is a space once it is decoded.
    given = asked.replace(" ", "+") if asked else request.headers.get("accept") or "*/*"
    types = [one.split(";") for one in given.casefold().split(",")]
    refused = ("q=0", "q=0.0", "q=0.00", "q=0.000")
    if any(one[0].strip() in _JSON and not any(part.strip() in refused for part in one[1:]) for one in types):
        return None
    return outcome(406, [Issue("error", "not-supported", f"only {MEDIA_TYPE} is written here: ask for it in Accept or _format")])


class FhirRoute(APIRoute):
    """A route whose FHIR problems are answered as OperationOutcomes, and which writes nothing but FHIR's JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, wrapped."""
        handle = super().get_route_handler()

        async def wrapped(request: Request) -> Response:
            if (refused := check_acceptable(request)) is not None:
                return refused
            try:
                return await handle(request)
            except FhirError as error:
                return outcome(status_of(error), error.issues)

        return wrapped


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's account of the answers; every error is an OperationOutcome."""
    every = {*statuses, 401, 403, 406, 413, 415, 429, 503}
    says = {200: "the resource", 201: "created", 304: "not changed"}
    return {
        status: {
            "description": says.get(status, "OperationOutcome"),
            **({} if status == 304 else {"content": {MEDIA_TYPE: _SCHEMA}}),
        }
        for status in sorted(every)
    }
