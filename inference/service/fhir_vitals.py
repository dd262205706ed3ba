"""Observations: vitals by LOINC code and UCUM unit. A value whose meaning is not certain is set aside, never guessed.

Knows no patient and no referral. Of several Observations of one vital the latest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from inference.service.fhir_answers import FINDING, finding_value
from inference.service.fhir_codes import (
    COMPLAINT_CODES,
    CONSCIOUSNESS,
    CONSCIOUSNESS_CODES,
    FINDING_SYSTEM,
    LOINC,
    MEASURES,
    OXYGEN,
    PANELS,
    PREGNANCY,
    PREGNANCY_CODES,
    SCORE,
    UCUM,
    Code,
    Conversion,
)
from inference.service.fhir_problem import token

_NOT_MEANT = ("entered-in-error", "cancelled")
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_DECIMALS = 4  # a converted value keeps what a device can show, and 100.4 °F is 38 °C


class Observed(NamedTuple):
    """One value of the case: `field` is a vital, a finding's code, `pregnant` or `complaint`; `source` is its Observation's place."""

    field: str
    value: Any
    when: datetime
    source: int


class _Refused(Exception):  # noqa: N818 (never leaves this module)
    """Why a value was set aside."""


def read_observations(observations: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Observed], list[str]]:
    """The latest value of each field, and what was not read. Undated Observations count as the oldest."""
    latest: dict[str, Observed] = {}
    review: list[str] = []
    for source, observation in enumerate(observations):
        if observation.get("status") in _NOT_MEANT:
            review.append(f"{_label(observation)} is marked {observation['status']} and was not read")
            continue
        when = moment_of(observation) or _EARLIEST
        for field, value in _values(observation, review):
            known = latest.get(field)
            if known is None or when >= known.when:
                latest[field] = Observed(field, value, when, source)
    return latest, review


def moment_of(observation: Mapping[str, Any]) -> datetime | None:
    """When it was observed, else when it was issued; None when neither is said."""
    period = observation.get("effectivePeriod") or {}
    given = [observation.get("effectiveDateTime"), observation.get("effectiveInstant"), period.get("end"), period.get("start")]
    text = next((one for one in [*given, observation.get("issued")] if isinstance(one, str)), None)
    return None if text is None else earliest_moment(text)


def earliest_moment(text: str) -> datetime | None:
    """The moment that a FHIR dateTime begins: a year or month without a day begins with its first."""
    try:
        moment = datetime.fromisoformat(text + "-01-01"[3 * text.count("-") :] if len(text) in (4, 7) else text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _values(observation: Mapping[str, Any], review: list[str]) -> Iterator[tuple[str, Any]]:
    components = observation.get("component", [])
    is_holder = bool(components or observation.get("hasMember")) and not _has_value(observation)
    parts = [*([] if is_holder else [observation]), *components]
    for part in parts:
        if "dataAbsentReason" in part:
            continue
        try:
            found = _value(part)
        except _Refused as refused:
            review.append(str(refused))
        else:
            if found is not None and found[1] is not None:
                yield found


def _has_value(part: Mapping[str, Any]) -> bool:
    return any(key.startswith("value") for key in part)


def _value(part: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The field and value of one Observation or component; None for a panel. Raises _Refused."""
    codes = _codes(part.get("code"))
    for code in codes:
        if code in MEASURES:
            vital, units = MEASURES[code]
            if SCORE in units and type(part.get("valueInteger")) is int:
                return vital, part["valueInteger"]
            return vital, _quantity(part, f"vitals.{vital}", units)
        if code in OXYGEN:
            unit, above = OXYGEN[code]
            return "on_oxygen", _quantity(part, "vitals.on_oxygen", {unit: Conversion()}) > above
        for known, field, read in _CODED:
            if code in known:
                return field, read(part)
        if code[0] == FINDING_SYSTEM and FINDING.fullmatch(code[1]):
            return code[1], _finding(part, code[1])
    if PANELS.isdisjoint(codes):
        raise _Refused(f"{_label(part)} is not known here and was not read")
    return None


def _codes(concept: Any) -> list[Code]:
    codings = (concept or {}).get("coding", [])
    return [(coding.get("system") or "", coding.get("code") or "") for coding in codings]


def _label(part: Mapping[str, Any]) -> str:
    """What to call an Observation in a reason: its code where that is one, never its text."""
    for system, code in _codes(part.get("code")):
        if token(code):
            known = MEASURES.get((system, code))
            return f"an Observation of {known.vital}" if known else f"an Observation with code {'LOINC ' if system == LOINC else ''}{code}"
    return "an Observation without a code"


def _quantity(part: Mapping[str, Any], field: str, units: Mapping[str, Conversion]) -> float:
    quantity = part.get("valueQuantity")
    if not isinstance(quantity, Mapping) or not isinstance(quantity.get("value"), int | float):
        raise _Refused(f"{field}: no number was sent: set aside as unknown")
    if quantity.get("comparator"):
        raise _Refused(f"{field}: a value that is only more or less than a number was set aside as unknown: measure it")
    system, code = quantity.get("system"), quantity.get("code")
    unit = code if system == UCUM else quantity.get("unit") if system is None and code is None else None
    if not isinstance(unit, str) or unit not in units:
        raise _Refused(f"{field}: its unit is missing or not known: set aside as unknown, send it in UCUM as {' or '.join(units)}")
    return float(round(quantity["value"] * units[unit].factor + units[unit].offset, _DECIMALS))


def _consciousness(part: Mapping[str, Any]) -> str:
    concept = part.get("valueCodeableConcept") or {}
    text = str(part.get("valueString") or concept.get("text") or "").strip()
    answer = next((CONSCIOUSNESS[code] for code in _codes(concept) if code in CONSCIOUSNESS), text)
    if answer not in CONSCIOUSNESS.values():
        raise _Refused("vitals.consciousness: its answer is not one of the codes known here: set aside as unknown, send A, C, V, P or U")
    return answer


def _pregnant(part: Mapping[str, Any]) -> bool | None:
    if isinstance(part.get("valueBoolean"), bool):
        return bool(part["valueBoolean"])
    for code in _codes(part.get("valueCodeableConcept")):
        if code in PREGNANCY:
            return PREGNANCY[code]
    raise _Refused("pregnant: its answer is not one of the codes known here: set aside as unknown")


def _complaint(part: Mapping[str, Any]) -> str | None:
    return part.get("valueString") or (part.get("valueCodeableConcept") or {}).get("text")


_CODED: tuple[tuple[frozenset[Code], str, Callable[[Mapping[str, Any]], Any]], ...] = (
    (CONSCIOUSNESS_CODES, "consciousness", _consciousness),
    (PREGNANCY_CODES, "pregnant", _pregnant),
    (COMPLAINT_CODES, "complaint", _complaint),
)


def _finding(part: Mapping[str, Any], code: str) -> Any:
    try:
        return finding_value(part)
    except ValueError as error:
        raise _Refused(f"findings.{code}: its value is no yes, no, number or code: set aside as unknown") from error
