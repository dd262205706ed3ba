"""From checked entries to one write: ids given out, references resolved, each ServiceRequest with what belongs to it.

Knows the store's protocol and no HTTP. A conditional create that finds its resource creates nothing; what belongs to a
ServiceRequest that is already queued becomes an addition to that referral.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from inference.service.callers import Who
from inference.service.fhir_in import FhirCase, read_additions, read_referral
from inference.service.fhir_problem import problem
from inference.service.fhir_references import is_conditional, names_of, references_in, resolved, target_of, targets_of
from inference.service.fhir_store import FhirAddition, FhirStore, FhirWrite, NewFhirReferral, NewResource
from inference.service.fhir_validation import Entry, Identified, parse_identifier

_READ = ("QuestionnaireResponse", "Observation", "Media")
# Who and where: said of nearly every request, and nothing that triage could use.
ADMINISTRATIVE = frozenset({"Practitioner", "PractitionerRole", "Organization", "Encounter", "Location", "Device", "Provenance"})
_ELSEWHERE = "it names another patient than the ServiceRequest: it was not read, check whose it is"


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry with its id; `is_new` is False where a conditional create found the resource. `resource` has its references resolved."""

    entry: Entry
    id: str
    is_new: bool
    resource: Mapping[str, Any] | None

    @property
    def target(self) -> str:
        """How others refer to it."""
        return f"{self.entry.kind}/{self.id}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to store, and the slots in the order of the entries."""

    write: FhirWrite
    slots: tuple[Slot, ...]


async def plan_write(store: FhirStore, who: Who, entries: Sequence[Entry], now: datetime) -> Plan:
    """Everything that carrying out these entries stores. Raises FhirError when they cannot be carried out."""
    slots = await _resolve(store, who, await _identified(store, who, entries))
    unread = sorted({slot.entry.kind for slot in slots if slot.resource is None} - ADMINISTRATIVE)
    holding = sorted({slot.entry.kind for slot in slots if slot.resource and slot.resource.get("contained")})
    reasons = (
        *(f"a resource of type {kind} was sent: it is not read here" for kind in unread),
        *(f"a {kind} contains other resources: they are not read, send them as entries of their own" for kind in holding),
    )
    requests = {slot.id: slot for slot in slots if slot.entry.kind == "ServiceRequest"}
    parts = _parts(slots, requests)
    referrals, additions = [], []
    for id_, request in requests.items():
        if request.is_new:
            referrals.append(await _referral(store, who, request, slots, parts.get(id_, []), reasons, now))
    for id_, belonging in parts.items():
        new = [slot for slot in belonging if slot.is_new]
        if new and not (id_ in requests and requests[id_].is_new):
            additions.append(await _addition(store, who, id_, new, reasons))
    owner = {slot.target: id_ for id_, belonging in parts.items() for slot in belonging}
    owner |= {f"Patient/{one.patient_id}": one.id for one in referrals if one.patient_id} | {
        slot.target: slot.id for slot in requests.values()
    }
    kept = tuple(_kept(slot, owner.get(slot.target)) for slot in slots if slot.is_new and slot.resource is not None)
    return Plan(FhirWrite(kept, tuple(referrals), tuple(one for one in additions if one.content != FhirCase())), tuple(slots))


async def _identified(store: FhirStore, who: Who, entries: Sequence[Entry]) -> list[Slot]:
    conditions = [(entry.kind, entry.if_none_exist) for entry in entries if entry.if_none_exist]
    if len(set(conditions)) != len(conditions):
        raise problem("duplicate", "two entries have the same ifNoneExist: send the resource once", "Bundle.entry")
    slots = []
    for entry in entries:
        found = await _find(store, who, entry.kind, entry.if_none_exist, entry.expression) if entry.if_none_exist else None
        slots.append(Slot(entry, found or store.new_id(), found is None, entry.resource))
    return slots


async def _find(store: FhirStore, who: Who, kind: str, identifier: Identified, expression: str) -> str | None:
    found = await store.find(who, kind, identifier)
    if len(found) > 1:
        raise problem("multiple-matches", "several resources have this identifier: refer to one by its id", expression)
    return found[0] if found else None


async def _resolve(store: FhirStore, who: Who, slots: Sequence[Slot]) -> list[Slot]:
    targets: dict[str, str | None] = {}
    for slot in slots:
        targets |= dict.fromkeys(names_of(slot.entry), slot.target if slot.resource is not None else None)
    done = []
    for slot in slots:
        where = f"{slot.entry.expression}.resource" if slot.entry.expression else slot.entry.kind
        for named in set(references_in(slot.resource)):
            if is_conditional(named) and named not in targets:
                kind, _, search = named.partition("?")
                found = await _find(store, who, kind, parse_identifier(search, where), where)
                if found is None:
                    raise problem("multiple-matches", "a conditional reference matches nothing: create what it points at first", where)
                targets[named] = f"{kind}/{found}"
        kept = None if slot.resource is None else {**resolved(slot.resource, targets, where), "id": slot.id}
        done.append(replace(slot, resource=kept))
    return done


def _parts(slots: Sequence[Slot], requests: Mapping[str, Slot]) -> dict[str, list[Slot]]:
    """What belongs to which ServiceRequest, by its id: by name, else as the only request for the same patient in the Bundle."""
    parts: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.entry.kind not in _READ or slot.resource is None:
            continue
        named = set(targets_of(slot.resource.get("basedOn"), "ServiceRequest"))
        named |= {id_ for id_, request in requests.items() if slot.id in _supporting(request, slot.entry.kind)}
        if not named:
            subject = target_of(slot.resource.get("subject"), "Patient")
            same = [id_ for id_, request in requests.items() if subject in (None, _subject(request))]
            named = set(same) if len(same) == 1 else set()
        for id_ in named:
            parts.setdefault(id_, []).append(slot)
    return parts


def _subject(request: Slot) -> str | None:
    return target_of((request.resource or {}).get("subject"), "Patient")


def _supporting(request: Slot, kind: str) -> frozenset[str]:
    return targets_of((request.resource or {}).get("supportingInfo"), kind)


async def _referral(
    store: FhirStore, who: Who, request: Slot, slots: Sequence[Slot], belonging: Sequence[Slot], reasons: tuple[str, ...], now: datetime
) -> NewFhirReferral:
    patient_id = _subject(request)
    patient = await _patient(store, who, patient_id, slots) if patient_id else None
    resources = [slot.resource for slot in belonging if slot.resource is not None]
    adopted, missing = [], []
    for kind in _READ:
        for id_ in sorted(_supporting(request, kind) - {slot.id for slot in belonging}):
            if (found := await store.fetch(who, kind, id_)) is not None:
                resources.append(found.resource)
                adopted.append((kind, id_))
            else:
                missing.append(f"{kind}: the ServiceRequest names one that is not here: it was not read")
    mine, foreign = _of_patient(resources, patient_id)
    adopted = [(kind, id_) for kind, id_ in adopted if any(one["resourceType"] == kind and one.get("id") == id_ for one in mine)]
    # The photos of stored Media are with the referral that they came with.
    sent = {slot.id: slot.entry.resource for slot in belonging}
    read = [_with_photo(one, sent.get(one.get("id", ""))) for one in mine]
    content = read_referral(request.resource or {}, patient, read, now)
    content = replace(content, review=(*content.review, *foreign, *missing, *reasons))
    return NewFhirReferral(request.id, content, patient_id if patient is not None else None, tuple(adopted))


async def _patient(store: FhirStore, who: Who, id_: str, slots: Sequence[Slot]) -> Mapping[str, Any] | None:
    sent = next((slot for slot in slots if slot.target == f"Patient/{id_}"), None)
    if sent is not None and sent.is_new:
        return sent.resource
    found = await store.fetch(who, "Patient", id_)
    return found.resource if found else None


async def _addition(store: FhirStore, who: Who, id_: str, new: Sequence[Slot], reasons: tuple[str, ...]) -> FhirAddition:
    view = await store.referral(who, id_)
    if view is None:
        where = new[0].entry.expression
        raise problem("not-found", "the ServiceRequest that it is based on does not exist", f"{where}.basedOn" if where else "basedOn")
    mine, foreign = _of_patient([slot.resource for slot in new if slot.resource is not None], view.patient_id)
    sent = {slot.id: slot.entry.resource for slot in new}
    earlier = [one for one in await store.linked(who, id_) if one.get("resourceType") in _READ]
    content = read_additions([_with_photo(one, sent.get(one.get("id", ""))) for one in mine], earlier, view.received_at)
    return FhirAddition(id_, replace(content, review=(*content.review, *foreign, *reasons)))


def _of_patient(resources: Sequence[Mapping[str, Any]], patient_id: str | None) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Those of the request's patient; a reason for each that names another."""
    own = [one for one in resources if target_of(one.get("subject"), "Patient") in (None, patient_id)]
    foreign = [one for one in resources if one not in own]
    return own, [f"{one['resourceType']}: {_ELSEWHERE}" for one in foreign]


def _with_photo(resource: Mapping[str, Any], sent: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The resource with the attachment as it was sent: what is kept has none."""
    return {**resource, "content": sent["content"]} if sent and "content" in sent else resource


def _kept(slot: Slot, referral_id: str | None) -> NewResource:
    resource = slot.resource or {}
    listed = resource.get("identifier") or []
    identifiers = tuple(
        Identified(one.get("system", ""), one["value"]) for one in (listed if isinstance(listed, list) else [listed]) if one.get("value")
    )
    return NewResource(slot.entry.kind, slot.id, resource, identifiers, slot.entry.if_none_exist, referral_id)
