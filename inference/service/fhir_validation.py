"""Structure, required bindings and reference types of what comes in. Reads no meaning.

fhir.resources checks shape and cardinality (its R4B classes fit R4 for what is read here) but accepts any code where a
value set is required, so this module walks what it built and checks those. The library is imported on first use: it
takes half a second.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from inference.service.fhir_codes import BINDINGS
from inference.service.fhir_problem import FhirError, Issue, problem, token

CREATED_TYPES = ("Patient", "ServiceRequest", "QuestionnaireResponse", "Observation", "Media")
MOST_ENTRIES = 200
_ABSOLUTE = ("urn:uuid:", "urn:oid:", "http://", "https://")
_LIBRARY = "fhir.resources.R4B"
_MISSING = ("required", "a required element is missing")
_SAID = {
    "missing": _MISSING,
    "model_field_validation.missing": _MISSING,
    "extra_forbidden": ("structure", "there is no such element in R4"),
}


class Identified(NamedTuple):
    """An identifier to search by; `system` is None where the search named none."""

    system: str | None
    value: str


class Entry(NamedTuple):
    """One entry of a transaction or batch. `resource` is None where its type is not read (`kind` names it)."""

    kind: str
    full_url: str | None
    resource: dict[str, Any] | None
    if_none_exist: Identified | None
    expression: str


class IncomingBundle(NamedTuple):
    """A checked Bundle of creations."""

    type: Literal["transaction", "batch"]
    entries: tuple[Entry | FhirError, ...]  # a batch keeps going past an entry that is wrong


def read_resource(raw: Any, expression: str = "", expected: str | None = None) -> dict[str, Any]:
    """One resource of a type that may be created, in canonical JSON. Raises FhirError with every issue found."""
    kind = _kind(raw, expression)
    if expected is not None and kind != expected:
        raise problem("invalid", f"expected a resource of type {expected}: send it to the path of its own type", expression)
    if kind not in CREATED_TYPES:
        raise problem("not-supported", f"{kind} is not accepted: send one of {', '.join(CREATED_TYPES)}", expression)
    content = raw.get("content") if kind == "Media" else None
    data = content.get("data") if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and isinstance(data, str):
        # A photo is megabytes, and the library drops what is not base64 from it and passes off the rest: it never sees it.
        raw = {**raw, "content": {**content, "data": "AA=="}}
    model = _parse(kind, raw, expression or kind)
    if issues := list(_walk(model, expression or kind)):
        raise FhirError(issues)
    normal: dict[str, Any] = json.loads(model.model_dump_json())
    if isinstance(data, str):
        normal["content"]["data"] = data
    return normal


def load_library() -> None:
    """Import what reading needs, so that the first request does not wait for it. For a thread, after the service has started."""
    for kind in ("Bundle", *CREATED_TYPES):
        importlib.import_module(f"{_LIBRARY}.{kind.lower()}")
    read_resource({"resourceType": "Patient"})


def read_bundle(raw: Any) -> IncomingBundle:
    """A transaction or batch of creations. Raises FhirError; in a batch an entry's own problem stays with that entry."""
    if _kind(raw, "") != "Bundle":
        raise problem("invalid", "expected a Bundle of type transaction or batch: send single resources to the path of their type")
    entries = raw.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise problem("structure", "expected a list of entries", "Bundle.entry")
    if len(entries) > MOST_ENTRIES:
        raise problem("too-costly", f"a Bundle may have {MOST_ENTRIES} entries: split it", "Bundle.entry")
    # Each resource is read by itself below, so that its problems can be told apart.
    shell = {**raw, "entry": [{key: value for key, value in entry.items() if key != "resource"} for entry in entries]}
    if not entries:
        del shell["entry"]
    model = _parse("Bundle", shell, "Bundle")
    if issues := list(_walk(model, "Bundle")):
        raise FhirError(issues)
    kind = getattr(model, "type", None)
    if kind not in ("transaction", "batch"):
        raise problem("not-supported", "only transaction and batch Bundles are carried out", "Bundle.type")
    _check_unique(entries)
    read = [_entry_or_problem(entry, f"Bundle.entry[{place}]") for place, entry in enumerate(entries)]
    if kind == "transaction" and (bad := [one for one in read if isinstance(one, FhirError)]):
        raise FhirError(issue for one in bad for issue in one.issues)
    return IncomingBundle(kind, tuple(read))


def parse_identifier(search: str, expression: str) -> Identified:
    """The condition of a conditional create: `identifier=system|value` and nothing else."""
    pairs = parse_qsl(search.strip().removeprefix("?"), keep_blank_values=True)
    if len(pairs) != 1 or pairs[0][0] != "identifier":
        raise problem("not-supported", "only a search of the form identifier=system|value is supported here", expression)
    system, bar, value = pairs[0][1].rpartition("|")
    if not value:
        raise problem("value", "expected identifier=system|value", expression)
    return Identified(system if bar else None, value)


def _entry_or_problem(entry: dict[str, Any], expression: str) -> Entry | FhirError:
    try:
        return _entry(entry, expression)
    except FhirError as error:
        return error


def _entry(entry: dict[str, Any], expression: str) -> Entry:
    request, full_url, raw = entry.get("request"), entry.get("fullUrl"), entry.get("resource")
    if not isinstance(request, dict):
        raise problem("required", "each entry needs a request with method and url", f"{expression}.request")
    if request.get("method") != "POST":
        raise problem(
            "not-supported", "only POST is supported in a Bundle: nothing is changed or deleted here", f"{expression}.request.method"
        )
    kind = _kind(raw, f"{expression}.resource")
    if str(request.get("url", "")).removeprefix("/") != kind:
        raise problem("invalid", f"expected the url {kind}, the type of the entry's resource", f"{expression}.request.url")
    if full_url is not None and not str(full_url).startswith(_ABSOLUTE):
        raise problem("value", "expected an absolute fullUrl, such as urn:uuid:…", f"{expression}.fullUrl")
    condition = request.get("ifNoneExist")
    found = None if condition is None else parse_identifier(str(condition), f"{expression}.request.ifNoneExist")
    resource = read_resource(raw, f"{expression}.resource") if kind in CREATED_TYPES else None
    return Entry(kind, full_url, resource, found, expression)


def _check_unique(entries: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for place, entry in enumerate(entries):
        full_url = entry.get("fullUrl")
        if isinstance(full_url, str) and full_url in seen:
            raise problem("duplicate", "the same fullUrl stands twice: give each entry its own", f"Bundle.entry[{place}].fullUrl")
        if isinstance(full_url, str):
            seen.add(full_url)


def _kind(raw: Any, expression: str) -> str:
    """The resource's type, if R4 has it."""
    if not isinstance(raw, Mapping):
        raise problem("structure", "expected a resource: an object with a resourceType", expression)
    kind = raw.get("resourceType")
    if not isinstance(kind, str) or not kind:
        raise problem("structure", "resourceType is missing: expected the name of a resource", expression)
    if not (kind.isascii() and kind.isalpha() and kind[0].isupper() and len(kind) <= 40) or not _exists(kind):
        raise problem("structure", "resourceType names no R4 resource", expression)
    return kind


def _exists(kind: str) -> bool:
    if kind in CREATED_TYPES or kind == "Bundle":
        return True
    return find_spec(f"{_LIBRARY}.{kind.lower()}") is not None and hasattr(importlib.import_module(f"{_LIBRARY}.{kind.lower()}"), kind)


def _parse(kind: str, raw: Mapping[str, Any], expression: str) -> BaseModel:
    model: type[BaseModel] = getattr(importlib.import_module(f"{_LIBRARY}.{kind.lower()}"), kind)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise FhirError(_issues(error, expression)) from error
    except Exception as error:  # the library looks contained types up by name, and raises what the look-up raises
        raise problem("structure", "the resource cannot be read as R4: check its contained resources and types", expression) from error


def _issues(error: ValidationError, expression: str) -> Iterator[Issue]:
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        code, said = _SAID.get(detail["type"], ("value", "the value has a wrong type or form for R4"))
        yield Issue("error", code, said, expression + "".join(_step(part) for part in detail["loc"]))


def _step(part: int | str) -> str:
    """One step of a FHIRPath. A name that the caller made up is shown only where it looks like a name."""
    return f"[{part}]" if isinstance(part, int) else f".{token(part) or '(unnamed)'}"


def _walk(model: BaseModel, expression: str) -> Iterator[Issue]:
    """Codes outside their required value set, references to a type that may not stand there, unknown modifiers."""
    name = type(model).__name__
    for field, info in type(model).model_fields.items():
        value = getattr(model, field, None)
        if value is None:
            continue
        element = info.alias or field
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        here = f"{expression}.{element}"
        if element == "modifierExtension" and value:
            yield Issue("error", "extension", "a modifier extension could change the meaning and is not understood: leave it out", here)
        allowed = _allowed(name, element, extra)
        targets = extra.get("enum_reference_types")
        for place, one in enumerate(value if isinstance(value, list) else [value]):
            where = f"{here}[{place}]" if isinstance(value, list) else here
            if allowed and isinstance(one, str) and one not in allowed:
                yield Issue("error", "code-invalid", f"expected one of {', '.join(sorted(allowed))}", where)
            if isinstance(targets, list):
                yield from _reference_issues(one, [str(target) for target in targets], where)
            if isinstance(one, BaseModel):
                yield from _walk(one, where)


def _allowed(name: str, element: str, extra: Mapping[str, Any]) -> frozenset[str]:
    """The required value set of an element; empty where there is none, or where the library's list is no list of codes."""
    known = BINDINGS.get((name, element))
    if known is not None:
        return known
    listed = extra.get("enum_values")
    if not isinstance(listed, list) or "+" in listed or element == "format":
        return frozenset()
    return frozenset(str(code) for code in listed)


def _reference_issues(reference: Any, targets: list[str], expression: str) -> Iterator[Issue]:
    text = getattr(reference, "reference", None)
    if not isinstance(text, str) or text.startswith((*_ABSOLUTE, "#")) or "Resource" in targets:
        return
    kind = text.partition("?")[0].partition("/")[0]
    if kind not in targets:
        yield Issue("error", "value", f"expected a reference to {' or '.join(targets)}", f"{expression}.reference")
