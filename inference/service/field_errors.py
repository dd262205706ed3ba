"""Refused fields without their values: pydantic's errors as pointer, kind and message.

It knows no HTTP status. A caller's own words can get into a pydantic error in four ways: its `input`, its `ctx`, its
message (where a template quotes the input) and its `loc` (where an unknown key is a path segment). None gets through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field, ValidationError

from inference.errors import MalformedError, ServiceError, UnprocessableError

ERRORS_LIMIT: Final = 50
HIDDEN: Final = "*"
INDEX_LIMIT: Final = 100_000  # a larger number in a path is a caller's key, perhaps a telephone number
NOT_VALID: Final = "Input is not valid"
OTHER_KIND: Final = "invalid"
NOT_JSON: Final = "the request is nested too deeply or is not JSON in UTF-8: send a JSON document (RFC 8259)"
_PLACES: Final = frozenset({"body", "query", "path", "header", "cookie"})

# Kinds whose message shows facts of the model only (a bound, a pattern, the allowed words); a test holds pydantic's own list against it.
SHOWN: Final = frozenset(
    "json_type needs_python_object recursion_loop recursion_depth_exceeded missing frozen_field frozen_instance extra_forbidden invalid_key "
    "model_type model_attributes_type dataclass_type dataclass_exact_type named_tuple_type none_required greater_than greater_than_equal "
    "less_than less_than_equal multiple_of finite_number too_short too_long iterable_type string_type string_unicode string_too_short "
    "string_too_long string_pattern_mismatch string_not_ascii enum dict_type list_type tuple_type set_type set_item_not_hashable bool_type "
    "bool_parsing int_type int_parsing int_parsing_size int_from_float float_type float_parsing bytes_type bytes_too_short bytes_too_long "
    "literal_error date_type date_from_datetime_inexact date_past date_future time_type datetime_type datetime_past datetime_future "
    "timezone_naive timezone_aware time_delta_type frozen_set_type is_instance_of union_tag_not_found arguments_type missing_argument "
    "unexpected_keyword_argument url_type url_too_long url_scheme uuid_type uuid_version decimal_type decimal_parsing decimal_max_digits "
    "decimal_max_places decimal_whole_digits".split()
)
# Kinds whose message can quote the input, in words of our own.
REWORDED: Final[Mapping[str, str]] = {
    "value_error": "Input cannot be right",
    "assertion_error": "Input cannot be right",
    "mapping_type": "Input should be an object",
    "date_parsing": "Input should be a date as YYYY-MM-DD",
    "date_from_datetime_parsing": "Input should be a date as YYYY-MM-DD",
    "time_parsing": "Input should be a time as HH:MM:SS",
    "datetime_parsing": "Input should be a date and time with its offset (RFC 3339)",
    "datetime_from_date_parsing": "Input should be a date and time with its offset (RFC 3339)",
    "datetime_object_invalid": "Input should be a date and time with its offset (RFC 3339)",
    "timezone_offset": "Input has another time zone than is expected",
    "time_delta_parsing": "Input should be a duration (ISO 8601)",
    "union_tag_invalid": "Input is of a kind that is not expected here",
    "url_parsing": "Input should be a URL",
    "url_syntax_violation": "Input should be a URL",
    "uuid_parsing": "Input should be a UUID",
    "bytes_invalid_encoding": "Input is not in the expected encoding",
}


class FieldError(BaseModel):
    """One field that was refused."""

    pointer: str = Field(
        description="JSON pointer to the field, after where it came in: /body, /query, /path or /header", examples=["/body/age_years"]
    )
    kind: str = Field(description="pydantic's name of the error", examples=["greater_than_equal"])
    message: str = Field(description="what was expected", examples=["Input should be greater than or equal to 0"])


class InvalidInputError(UnprocessableError):
    """Fields of the request were refused; `fields` says which and why, without their values."""

    def __init__(self, fields: Sequence[FieldError]) -> None:
        super().__init__(f"{len(fields)} field{'' if len(fields) == 1 else 's'} cannot be right: see errors")
        self.fields = tuple(fields)


def invalid(error: ValidationError, model: type[BaseModel]) -> ServiceError:
    """The error to raise, from `error`, when a route has read a raw body with `model` itself."""
    raw = error.errors(include_url=False, include_context=False, include_input=False)
    if any(one["type"] == "json_invalid" for one in raw):
        return MalformedError(NOT_JSON)
    return InvalidInputError(field_errors([{**one, "loc": ("body", *one["loc"])} for one in raw], names_in_model(model)))


def field_errors(raw: Iterable[Mapping[str, Any]], names: frozenset[str]) -> list[FieldError]:
    """Pydantic's error dicts as field errors, at most ERRORS_LIMIT. Only `names` and small indices stand in pointers."""
    found = []
    for one in list(raw)[:ERRORS_LIMIT]:
        shown = one["type"] in SHOWN
        kind = one["type"] if shown or one["type"] in REWORDED else OTHER_KIND
        message = one["msg"] if shown else REWORDED.get(kind, NOT_VALID)
        found.append(FieldError(pointer="".join(f"/{_segment(part, names)}" for part in one["loc"]), kind=kind, message=message))
    return found


def _segment(part: object, names: frozenset[str]) -> str:
    if isinstance(part, int):
        return str(part) if 0 <= part < INDEX_LIMIT else HIDDEN
    return part.replace("~", "~0").replace("/", "~1") if isinstance(part, str) and part in names else HIDDEN


@cache
def names_in_model(model: type[BaseModel]) -> frozenset[str]:
    """The field names of a model and of the models inside it."""
    return _PLACES | _property_names(model.model_json_schema())


def names_in_openapi(app: FastAPI) -> frozenset[str]:
    """The names of all fields and parameters that the app describes; worked out once for each app."""
    found: frozenset[str] | None = getattr(app.state, "nabz_field_names", None)
    if found is None:
        found = app.state.nabz_field_names = _PLACES | _property_names(app.openapi())
    return found


def _property_names(schema: object) -> frozenset[str]:
    """The keys of every `properties`, and the `name` of every parameter, anywhere in a JSON schema or OpenAPI document."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            properties = part.get("properties")
            found.update(properties if isinstance(properties, dict) else ())
            if isinstance(part.get("name"), str) and "in" in part:
                found.add(part["name"])
            waiting.extend(value for key, value in part.items() if key not in {"example", "examples", "default"})
        elif isinstance(part, list):
            waiting.extend(part)
    return frozenset(found)
