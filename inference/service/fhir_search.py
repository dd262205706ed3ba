"""Searches over Task and RiskAssessment: query parameters become a ReferralQuery. Knows no store and no HTTP.

A parameter that is not known is refused: to leave out the part of a search that narrows it would show too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from inference.service.fhir_capability import Support
from inference.service.fhir_codes import PRIORITY_OF_LEVEL
from inference.service.fhir_out import TASK_STATUS
from inference.service.fhir_problem import problem
from inference.service.fhir_store import ReferralQuery, State

MOST_RESULTS = 200
USUAL_RESULTS = 50
CURSOR = "_cursor"
_CONTROL = ("_count", "_format", CURSOR)
_STATE_OF: dict[str, State] = {status: state for state, status in TASK_STATUS.items()}
Value = TypeVar("Value", str, State, int)


def read_search(support: Support, parameters: Sequence[tuple[str, str]]) -> ReferralQuery | None:
    """The query; None where nothing can match it. Raises FhirError for a parameter that this type does not have."""
    known = {param.name for param in support.search}
    given: dict[str, list[frozenset[str]]] = {}
    count, cursor = USUAL_RESULTS, None
    for name, text in parameters:
        if name == "_count":
            count = _count(text)
        elif name == CURSOR:
            cursor = text
        elif name in known:
            given.setdefault(name, []).append(frozenset(one for one in text.split(",") if one))
        elif name not in _CONTROL:
            raise problem("not-supported", f"{support.kind} is searched by {', '.join(sorted(known))} and _count alone")
    states = _narrowed((_STATE_OF[word] for word in _codes(words) if word in _STATE_OF) for words in given.get("status", []))
    levels = _narrowed(
        (level for level, priority in PRIORITY_OF_LEVEL.items() if priority in _codes(words)) for words in given.get("priority", [])
    )
    ids = _narrowed(
        [
            *(_codes(words) for words in given.get("_id", [])),
            *(_ids(words, "ServiceRequest") for words in given.get("based-on", [])),
        ]
    )
    patients = _narrowed(_ids(words, "Patient") for words in given.get("patient", []))
    identifiers = _narrowed(_codes(words) for words in given.get("identifier", []))
    if any(part is not None and not part for part in (states, levels, ids, patients, identifiers)):
        return None
    return ReferralQuery(states, levels, ids, patients, identifiers, count, cursor)


def search_url(base: str, kind: str, parameters: Sequence[tuple[str, str]], cursor: str | None = None) -> str:
    """The address of this search, or of its page at `cursor`."""
    kept = [(name, text) for name, text in parameters if cursor is None or name != CURSOR]
    query = urlencode([*kept, *([(CURSOR, cursor)] if cursor else [])])
    return f"{base}/{kind}?{query}" if query else f"{base}/{kind}"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise problem("value", "expected a number of results", "_count")
    return min(max(int(text), 1), MOST_RESULTS)


def _narrowed(choices: Iterable[Iterable[Value]]) -> frozenset[Value] | None:
    """What all repetitions of a parameter allow; None where it was not given."""
    sets = [frozenset(one) for one in choices]
    return frozenset.intersection(*sets) if sets else None


def _codes(words: Iterable[str]) -> frozenset[str]:
    """Tokens without their systems: the codes that are searched here mean one thing only."""
    return frozenset(word.rpartition("|")[2] for word in words)


def _ids(words: Iterable[str], kind: str) -> frozenset[str]:
    """Ids from `id`, `Type/id` or an absolute address; a reference to another type matches nothing."""
    parts = [word.split("/") for word in words]
    return frozenset(one[-1] for one in parts if len(one) == 1 or one[-2] == kind)
