"""What changed between two assessments of one case, and why. Pure: two assessments in, plain data out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inference.assessment import Assessment
from inference.case import COMPLAINT_LENGTH, Case

_MOST_URGENT_FIRST = ("stat", "asap", "urgent", "routine")
_REPLACED = ("age_years", "sex", "pregnant", "known_hypercapnic_failure", "district", "province", "arrival", "prior_visits")


def what_changed(before: Assessment, after: Assessment, level_before: int, level_after: int) -> dict[str, Any]:
    """Levels, probability, red flags, findings and reasons that are new or gone. `level_…` are the queue's."""
    known = {reason.text for reason in before.reasons}
    still = {reason.text for reason in after.reasons}
    return {
        "level": {"before": level_before, "after": level_after},
        "machine_level": {"before": before.level, "after": after.level},
        "emergency_probability": {"before": before.emergency_probability, "after": after.emergency_probability},
        "red_flags": _difference(before.red_flags, after.red_flags),
        "prediction_set": _difference(before.prediction_set, after.prediction_set),
        "findings": {code: value for code, value in after.findings.items() if before.findings.get(code) != value},
        "findings_withdrawn": sorted(before.findings.keys() - after.findings.keys()),
        "why": [reason.model_dump() for reason in after.reasons if reason.text not in known],
        "no_longer": [reason.model_dump() for reason in before.reasons if reason.text not in still],
        "kept": _kept(after.level, level_after),
    }


def is_worse(before: Assessment, after: Assessment) -> bool:
    """Whether an assessment is more urgent than one before, or shows a red flag or a rule floor that the one before did not."""
    return after.level < before.level or after.floor_level < before.floor_level or not set(after.red_flags) <= set(before.red_flags)


def _kept(machine_level: int, level: int) -> str:
    """Why the queue's level is not the new assessment's, if it is not."""
    if machine_level > level:
        return f"the new assessment alone would be level {machine_level}; the queue keeps level {level}, which only a clinician can lower"
    if machine_level < level:
        return f"the assessment is level {machine_level}; a clinician's level {level} stands"
    return ""


def _difference(before: Iterable[str], after: Iterable[str]) -> dict[str, list[str]]:
    old, new = tuple(before), tuple(after)
    return {"added": [one for one in new if one not in old], "removed": [one for one in old if one not in new]}


def merged(case: Case, new: Mapping[str, Any]) -> dict[str, Any]:
    """The case with what is newly known, as `read_case` takes it: answers and vitals replace, words and photos are added.

    A vital or finding given as null is unknown again. The referrer's priority may rise and never falls.
    """
    old = case.model_dump(mode="json", exclude_defaults=True)
    raw: dict[str, Any] = {**old, **{name: new[name] for name in _REPLACED if name in new}}
    for name in ("findings", "vitals"):
        given = new.get(name)
        if isinstance(given, Mapping):
            raw[name] = {key: value for key, value in {**old.get(name, {}), **given}.items() if value is not None}
        elif given is not None:
            raw[name] = given  # not an object: read_case names it
    said, complaint = new.get("complaint"), old.get("complaint", "")
    if isinstance(said, str) and not _lines(said) <= _lines(complaint):  # line by line: "chest pain" stands in "no chest pain" too
        # What is said last is never what a long text loses.
        raw["complaint"] = f"{complaint[: max(0, COMPLAINT_LENGTH - len(said) - 1)]}\n{said}".strip()
    photos = new.get("photos")
    if isinstance(photos, list):
        raw["photos"] = [*old.get("photos", []), *photos]
    asked = new.get("priority")
    if asked is not None:
        raw["priority"] = _more_urgent(case.priority, asked)
    unknown = new.keys() - {*_REPLACED, "findings", "vitals", "complaint", "photos", "priority", "case_id", "received_at"}
    return {**raw, **{name: new[name] for name in unknown}}


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.split("\n") if line.strip()}


def _more_urgent(before: str | None, asked: Any) -> Any:
    if before is None:
        return asked
    return min(before, asked, key=_MOST_URGENT_FIRST.index) if asked in _MOST_URGENT_FIRST else before


def refused_priority(new: Mapping[str, Any]) -> list[str]:
    """What is wrong with a priority that was sent later, if anything."""
    asked = new.get("priority")
    if asked is None or asked in _MOST_URGENT_FIRST:
        return []
    return ["priority: expected routine, urgent, asap or stat; what was sent was set aside: send it again"]


def still_open(problems: Iterable[str], new: Mapping[str, Any]) -> list[str]:
    """The earlier problems but those about a field that was now sent again."""
    sent = {*new, *(f"{name}.{key}" for name, value in new.items() if isinstance(value, Mapping) for key in value)} - {"vitals", "findings"}
    return [problem for problem in problems if not any(problem.startswith((f"{name}:", f"{name} ")) for name in sent)]
