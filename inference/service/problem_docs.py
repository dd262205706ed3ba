"""How errors look in the OpenAPI document: one schema, an example for each status. It handles no error itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI

from inference import errors
from inference.service.field_errors import FieldError, InvalidInputError
from inference.service.problems import MEDIA_TYPE, Problem, TooSlowError, describe

_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
_EXAMPLES: Final[Mapping[int, Exception]] = {
    400: errors.MalformedError("the body is not JSON in UTF-8: send a JSON document (RFC 8259)"),
    401: errors.UnauthenticatedError("there is no token: send the header `Authorization: Bearer TOKEN`"),
    403: errors.NotAllowedError("the role clinic may not do claim: sign in as clinician"),
    404: errors.NotFoundError("there is no referral of that id for this caller: check the id, and that it is your clinic's"),
    408: TooSlowError("the body did not arrive within 30 seconds: send it again over a better connection"),
    409: errors.ConflictError("another clinician holds this referral: take the next one, or wait until the lease ends"),
    413: errors.TooLargeError("the body is larger than 1048576 bytes: send fewer cases at a time"),
    415: errors.WrongTypeError("this content type is not accepted here: send application/json"),
    422: InvalidInputError(
        [FieldError(pointer="/body/age_years", kind="greater_than_equal", message="Input should be greater than or equal to 0")]
    ),
    429: errors.BusyError("more than 1200 requests in a minute: send the next one after the time in Retry-After"),
    503: errors.OverloadedError("512 requests are in progress already: try again"),
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: a problem document with an example for each of these statuses."""
    return {status: _response(status) for status in statuses}


def describe_problems(app: FastAPI) -> None:
    """Put the problem's schema into the app's OpenAPI document, and problems where FastAPI expects its own 422."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = original()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"), Problem=problem)
        for path in document.get("paths", {}).values():
            for operation in path.values():
                if _is_fastapis_own(operation):
                    operation["responses"]["422"] = _response(422)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents


def _is_fastapis_own(operation: Any) -> bool:
    answers = operation.get("responses", {}) if isinstance(operation, dict) else {}
    return "HTTPValidationError" in str(answers.get("422"))


def _response(status: int) -> dict[str, Any]:
    problem = describe(_EXAMPLES[status])
    example = {**problem.model_dump(exclude_none=True), "request_id": "4f1c9a0be2d7-1a"}
    return {"description": problem.title, "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": example}}}
