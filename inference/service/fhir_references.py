"""References inside a transaction: what each one points at once the server has given out its ids.

Pure. Which conditional reference matches which stored resource is told by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from inference.service.fhir_problem import problem
from inference.service.fhir_validation import Entry

Targets = Mapping[str, str | None]  # a reference as sent: `Type/id`, or None for a resource that is not kept
_SENT_DATA = ("valueBase64Binary",)


def names_of(entry: Entry) -> Iterator[str]:
    """Every text by which another entry may refer to this one."""
    if entry.full_url:
        yield entry.full_url
        if entry.full_url.startswith("http") and entry.full_url.split("/")[-2:-1] == [entry.kind]:
            yield "/".join(entry.full_url.split("/")[-2:])
    if entry.resource and entry.resource.get("id"):
        yield f"{entry.kind}/{entry.resource['id']}"


def references_in(value: Any) -> Iterator[str]:
    """Every literal reference of a resource."""
    if isinstance(value, Mapping):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            yield from references_in(inner)


def is_conditional(reference: str) -> bool:
    """Whether it is a search (`Patient?identifier=…`) instead of a name."""
    return "?" in reference and "://" not in reference


def resolved(value: Any, targets: Targets, expression: str) -> Any:
    """A copy with every reference to the transaction's own resources made `Type/id`, and without what attachments hold.

    A photo's bytes are kept by themselves, cleaned of the place where it was taken. Raises FhirError for a `urn:` that is not
    in the Bundle.
    """
    if isinstance(value, list):
        return [resolved(inner, targets, expression) for inner in value]
    if not isinstance(value, Mapping):
        return value
    is_attachment = "contentType" in value or "url" in value or set(value) <= {"data", "size", "hash", "title", "creation"}
    copy = {
        key: resolved(inner, targets, expression)
        for key, inner in value.items()
        if key not in _SENT_DATA and not (key == "data" and is_attachment)
    }
    return _with_target(copy, targets, expression) if isinstance(value.get("reference"), str) else copy


def _with_target(reference: dict[str, Any], targets: Targets, expression: str) -> dict[str, Any]:
    named = reference["reference"]
    if named in targets:
        target = targets[named]
        if target is not None:
            return {**reference, "reference": target}
        rest = {key: value for key, value in reference.items() if key != "reference"}
        return rest or {"display": "a resource that is not kept here"}
    if named.startswith("urn:"):
        raise problem("not-found", "a reference by urn names no entry of this Bundle: send what it points at with it", expression)
    return reference


def target_of(element: Any, kind: str) -> str | None:
    """The id that a reference to a `kind` names; None for anything else."""
    named = element.get("reference") if isinstance(element, Mapping) else None
    parts = named.split("/") if isinstance(named, str) else []
    return parts[1] if len(parts) in (2, 4) and parts[0] == kind and parts[1] else None


def targets_of(elements: Any, kind: str) -> frozenset[str]:
    """The ids that a list of references names."""
    return frozenset(id_ for one in (elements or []) if (id_ := target_of(one, kind)) is not None)
