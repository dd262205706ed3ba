"""Errors as answers: RFC 9457 problem documents, and the one table from kinds of error to HTTP statuses.

It knows no route. It shows the texts of Nabz's own errors, which hold no patient's words, and of nothing else: every
other exception gets a fixed sentence. `renderers` lets a part of the service answer in its own format (FHIR).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inference import errors
from inference.service.field_errors import NOT_JSON, FieldError, InvalidInputError, field_errors, names_in_openapi
from inference.service.request_log import REQUEST_ID, log_unexpected

MEDIA_TYPE: Final = "application/problem+json"
LOGGED: Final = "nabz.logged"  # in a request's scope: its unexpected exception is in the log already


class TooSlowError(errors.ServiceError):
    """The request's body came too slowly."""


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="names the kind of problem; stable")
    title: str = Field(description="the kind in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what was wrong, what was expected and what to do next")
    request_id: str = Field(description="names this request in the service's log")
    errors: list[FieldError] | None = Field(default=None, description="the fields that were refused, without their values")


Renderer = Callable[[Problem], Response]
NO_RENDERERS: Final[Mapping[str, Renderer]] = {}


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    slug: str
    title: str


_BROKEN: Final = _Kind(500, "unexpected", "Something broke")
_UNPARSED: Final = _Kind(400, "malformed", "The request cannot be read")
KINDS: Final[Mapping[type[Exception], _Kind]] = {
    errors.MalformedError: _UNPARSED,
    errors.UnauthenticatedError: _Kind(401, "unauthenticated", "Who are you?"),
    errors.NotAllowedError: _Kind(403, "not-allowed", "Your role may not do this"),
    errors.NotFoundError: _Kind(404, "not-found", "There is no such thing here"),
    TooSlowError: _Kind(408, "too-slow", "The request came too slowly"),
    errors.ConflictError: _Kind(409, "conflict", "It is in another state"),
    errors.BundleError: _Kind(409, "bundle", "The model bundle cannot be used"),
    errors.TooLargeError: _Kind(413, "too-large", "The request is too large"),
    errors.WrongTypeError: _Kind(415, "wrong-type", "This content type is not accepted here"),
    errors.UnprocessableError: _Kind(422, "unprocessable", "The request cannot be right"),
    errors.CaseError: _Kind(422, "case", "The case cannot be read"),
    errors.PhotoError: _Kind(422, "photo", "The photo cannot be used"),
    errors.BusyError: _Kind(429, "busy", "Too many requests"),
    errors.OverloadedError: _Kind(503, "overloaded", "The service is busy"),
    errors.StorageError: _Kind(503, "storage", "Nothing was stored"),
    RecursionError: _UNPARSED,
    UnicodeError: _UNPARSED,
    json.JSONDecodeError: _UNPARSED,
}
STORAGE_RETRY_SECONDS: Final = 5
_BROKEN_DETAIL: Final = "the service failed on this request: try again, and tell its operator the request id"
_STATUS_DETAILS: Final[Mapping[int, str]] = {
    400: "the request cannot be read: compare it with the description at /openapi.json",
    404: "there is nothing at this address: see /openapi.json for those that exist",
    405: "this address does not take that method: the header Allow names those that it takes",
    413: "the request is larger than is accepted",
}


def describe(error: Exception, names: frozenset[str] = frozenset()) -> Problem:
    """The problem document of any exception. `names` are the fields that a refused field's pointer may show."""
    if isinstance(error, HTTPException):
        return _of_status(error.status_code)
    if isinstance(error, RequestValidationError):
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return _problem(_UNPARSED, NOT_JSON)
        return describe(InvalidInputError(field_errors(error.errors(), names)))
    kind = next((KINDS[one] for one in type(error).__mro__ if one in KINDS), _BROKEN)
    own_words = kind is not _BROKEN and isinstance(error, errors.NabzError)
    detail = str(error) if own_words else (NOT_JSON if kind is _UNPARSED else _BROKEN_DETAIL)
    return _problem(kind, detail, list(error.fields) if isinstance(error, InvalidInputError) else None)


def answer_to(
    error: Exception, path: str, renderers: Mapping[str, Renderer] = NO_RENDERERS, names: frozenset[str] = frozenset()
) -> Response:
    """The response to an exception of a request to `path`; the first renderer whose prefix fits gives it its form."""
    problem = describe(error, names)
    render = next((one for prefix, one in renderers.items() if path == prefix or path.startswith(f"{prefix}/")), render_json)
    response = render(problem)
    response.headers.update(_headers(error))
    return response


def problem(status: int, title: str, detail: str, **extra: Any) -> Response:
    """A problem document of a route's own; `extra` members must be JSON and hold nothing of a patient."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": REQUEST_ID.get(), **extra}
    return Response(orjson.dumps(content), status, media_type=MEDIA_TYPE)


def install(app: FastAPI, renderers: Mapping[str, Renderer] = NO_RENDERERS) -> None:
    """Make the app answer every error with a problem document; `problem_docs.describe_problems` writes them into its OpenAPI."""

    async def handle(request: Request, error: Exception) -> Response:
        names = names_in_openapi(app) if isinstance(error, RequestValidationError) else frozenset[str]()
        return answer_to(error, request.scope["path"], renderers, names)

    async def handle_unexpected(request: Request, error: Exception) -> Response:
        if LOGGED not in request.scope:
            request.scope[LOGGED] = True
            log_unexpected(error)
        return answer_to(error, request.scope["path"], renderers)

    expected: tuple[type[Exception], ...] = (*KINDS, HTTPException, RequestValidationError)
    for kind in expected:
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(Exception, handle_unexpected)


def _of_status(status: int) -> Problem:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    kind = next((kind for kind in KINDS.values() if kind.status == status), None)
    return _problem(kind or _Kind(status, "http", phrase), _STATUS_DETAILS.get(status, f"the request was refused: {phrase}"))


def _problem(kind: _Kind, detail: str, fields: list[FieldError] | None = None) -> Problem:
    return Problem(
        type=f"urn:problem-type:nabz:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=REQUEST_ID.get(),
        errors=fields,
    )


def render_json(problem: Problem) -> Response:
    """The problem as a JSON document, which is how it is shown unless a part of the service has its own form."""
    return Response(orjson.dumps(problem.model_dump(exclude_none=True)), problem.status, media_type=MEDIA_TYPE)


def _headers(error: Exception) -> dict[str, str]:
    """The headers that belong to the status: when to come back, how to sign in, which methods there are."""
    if isinstance(error, errors.BusyError | errors.OverloadedError):
        return {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, errors.StorageError):
        return {"Retry-After": str(STORAGE_RETRY_SECONDS)}
    if isinstance(error, errors.UnauthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="nabz"'}
    given = getattr(error, "headers", None) if isinstance(error, HTTPException) else None
    return {name: value for name, value in (given or {}).items() if name.lower() in {"allow", "www-authenticate", "retry-after"}}
