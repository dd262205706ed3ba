"""JSON as FHIR allows it: an object, no key twice, no NaN, no half characters, not too deep. Knows no resource.

Python's own parser, because orjson keeps the last of two equal keys without a word.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from inference.service.fhir_problem import problem

_DEPTH = 40  # a questionnaire's groups nest; nothing sensible comes near
_LONGEST_NUMBER = 40
_LARGEST_INTEGER = 2**63 - 1  # what is sealed as JSON again holds no larger one
# FHIR's string: no control characters but tab, line feed and carriage return. PostgreSQL refuses NUL as well.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def parse_json(body: bytes) -> dict[str, Any]:
    """The request's body as an object. Raises FhirError for anything else."""
    try:
        parsed = json.loads(
            body.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise problem("structure", "the body is not UTF-8: send JSON in UTF-8") from error
    except json.JSONDecodeError as error:
        raise problem("structure", f"the body is not valid JSON (line {error.lineno}, column {error.colno}): correct it") from error
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(parsed, dict):
        raise problem("structure", "the body is not a JSON object: send one FHIR resource")
    _check_values(parsed)
    return parsed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise problem("structure", "an object has the same key twice: only one of them could be read, so send each once")
    return found


def _constant(_: str) -> float:
    raise problem("structure", "NaN and Infinity are no JSON: leave out a value that is not known")


def _float(digits: str) -> float:
    value = float(digits)
    if len(digits) > _LONGEST_NUMBER or math.isinf(value):
        raise _too_large()
    return value


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER or abs(int(digits)) > _LARGEST_INTEGER:
        raise _too_large()
    return int(digits)


def _too_large() -> Exception:
    return problem("structure", f"a number has more than {_LONGEST_NUMBER} digits, or is too large to hold: no measurement is")


def _too_deep() -> Exception:
    return problem("structure", f"the body nests more than {_DEPTH} levels deep: send it flatter")


def _check_values(parsed: dict[str, Any]) -> None:
    """Walk level by level, without recursion, refusing too many levels and text that cannot be stored."""
    level: list[Any] = [parsed]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                _check_text(value)
        level = inner
        if not level:
            return
    raise _too_deep()


def _check_text(text: str) -> None:
    if _CONTROL.search(text):
        raise problem("invalid", "a text has a control character: only tab and line ends are allowed")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise problem("invalid", "a text has half of a surrogate pair (\\ud800 to \\udfff): send whole characters") from error
