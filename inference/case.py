"""The case: what a health worker sends, with units in the names and missing meaning unknown.

`read_case` never loses a case: a field that cannot be right is set aside and named, the rest is kept.
This module does not know files, models, rules or what the findings' codes mean.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

Sex = Literal["female", "male", "unknown"]
Consciousness = Literal["A", "C", "V", "P", "U"]
Priority = Literal["routine", "urgent", "asap", "stat"]
Arrival = Literal["ambulance", "other"]
Location = tuple[int | str, ...]

PRESENT = "present"
ABSENT = "absent"

_FROZEN = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)
_SHOWN_VALUE_LENGTH = 24
_SHOWN_NAME_LENGTH = 60
_CASE_ID_LENGTH = 200
COMPLAINT_LENGTH = 20_000
_LARGEST_VALUE = 1e15  # no count, measure or code on a form is larger
# What a form can hold; the time that a case may cost must not grow with what is beyond it.
_MOST_FINDINGS, _MOST_VALUES, _MOST_PHOTOS = 400, 128, 32
_NAMED_UNKNOWN = 10
# What became known of a case afterwards, in a file made to learn from: never an input, and no mistake of the sender's.
LABELS = "labels"
CATALOGUE_PREFIX = "F_"
_YES, _NO = frozenset({"present", "yes", "y", "true", "1"}), frozenset({"absent", "no", "n", "false", "0"})
_NUMERIC_LIMITS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}


def _finding_value(value: Any) -> Any:
    """Accept the spellings that forms and spreadsheets produce for a finding's value."""
    if isinstance(value, bool):
        return PRESENT if value else ABSENT
    if isinstance(value, int | float) and abs(value) < _LARGEST_VALUE:
        return f"{value:g}"
    return value  # not a number, infinite or absurd: refused as no text


def _answer(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    word = value.strip().casefold() if isinstance(value, str) else ""
    return PRESENT if word in _YES else ABSENT if word in _NO else value


def _is_unknown(value: object) -> bool:
    return value is None


FindingValue = Annotated[str | tuple[str, ...], BeforeValidator(_finding_value)]


class Vitals(BaseModel):
    """Vital signs as measured; None is "not measured", never "normal".

    Ranges are those a living person can show on a working device; a value outside them is a typing or device
    error and is refused. `pain_score` is what the patient answers on the numeric rating scale: 0 no pain, 10 the worst.
    """

    model_config = _FROZEN

    respiratory_rate_per_minute: float | None = Field(default=None, ge=0, le=120)
    spo2_percent: float | None = Field(default=None, ge=30, le=100)
    on_oxygen: bool | None = None
    systolic_mmhg: float | None = Field(default=None, ge=30, le=320)
    diastolic_mmhg: float | None = Field(default=None, ge=10, le=220)
    pulse_per_minute: float | None = Field(default=None, ge=0, le=330)
    consciousness: Consciousness | None = None
    temperature_celsius: float | None = Field(default=None, ge=24, le=45)
    glucose_mg_dl: float | None = Field(default=None, ge=5, le=1500)
    capillary_refill_seconds: float | None = Field(default=None, ge=0, le=20)
    # Left out of a case's text while it is not known, so that the hash of a case from before there was a pain score stays.
    pain_score: int | None = Field(default=None, ge=0, le=10, exclude_if=_is_unknown)


class Photo(BaseModel):
    """A photo of the skin and what the patient says of the lesion; None is "not asked".

    `fitzpatrick` (skin type 1-6) is never an input of the model: it is for reports by skin type, and keeps a benign result on
    types 5 and 6 from reassuring.
    """

    model_config = _FROZEN

    path: str = Field(min_length=1)
    body_site: str | None = None
    fitzpatrick: int | None = Field(default=None, ge=1, le=6)
    itch: bool | None = None
    grew: bool | None = None
    hurt: bool | None = None
    changed: bool | None = None
    bleed: bool | None = None
    elevation: bool | None = None


class Case(BaseModel):
    """One patient's request for advice. Age in years (fractions for infants); times carry their zone.

    `findings` maps a finding's code to `present`, `absent`, a value, or several values; a code that is not there
    is unknown. `priority` is the referrer's own; Nabz may raise it and never lowers it.
    """

    model_config = _FROZEN

    case_id: str = Field(min_length=1, max_length=_CASE_ID_LENGTH)
    received_at: datetime | None = None
    age_years: float | None = Field(default=None, ge=0, le=125)
    sex: Sex = "unknown"
    complaint: str = Field(default="", max_length=COMPLAINT_LENGTH)
    findings: dict[str, FindingValue] = Field(default_factory=dict)
    vitals: Vitals = Field(default_factory=Vitals)
    pregnant: bool | None = None
    known_hypercapnic_failure: bool | None = None
    photos: tuple[Photo, ...] = ()
    district: str | None = None
    province: str | None = None
    arrival: Arrival | None = None
    priority: Priority | None = None
    prior_visits: int | None = Field(default=None, ge=0)

    @field_validator("findings")
    @classmethod
    def _answered(cls, findings: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        """Read yes and no, as forms and spreadsheets write them, for the catalogue's findings (`F_`).

        Other codes keep their values: in DDXPlus data a bare number is an answer.
        """
        return {code: _answer(value) if code.startswith(CATALOGUE_PREFIX) else value for code, value in findings.items()}

    @field_validator("received_at")
    @classmethod
    def _zoned(cls, value: datetime | None) -> datetime | None:
        """Read a time without a zone as UTC, so that two cases can always be compared."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


_CASE_FIELDS, _VITAL_FIELDS, _PHOTO_FIELDS = (frozenset(model.model_fields) for model in (Case, Vitals, Photo))


@dataclass(frozen=True, slots=True)
class CaseReading:
    """A case as far as it could be read, and what had to be set aside (one sentence each)."""

    case: Case
    problems: tuple[str, ...]


def case_sha256(case: Case) -> str:
    """The hash by which an assessment names the case that it is of. A photo counts by its path alone."""
    return hashlib.sha256(case.model_dump_json().encode()).hexdigest()


def read_case(raw: Any, fallback_id: str) -> CaseReading:
    """Read one case, setting aside every field that cannot be right.

    `raw` is a mapping as parsed from JSON; anything else becomes an empty case with a problem. `fallback_id` names
    the case when it has no usable `case_id`. `labels`, as in a file to learn from, is passed over. Never raises for bad input.
    """
    fallback_id = _printable(fallback_id).strip()[:_CASE_ID_LENGTH] or "case"
    if not isinstance(raw, Mapping):
        return CaseReading(Case(case_id=fallback_id), ("the case is not an object with named fields: enter it again",))
    if LABELS in raw:
        raw = {name: value for name, value in raw.items() if name != LABELS}
    if _is_small(raw) and (case := _flawless(raw)) is not None:
        return CaseReading(case, ())
    fields, problems = _bounded(raw)
    problems = [*_named(fields, fallback_id), *_shortened(fields), *problems]
    while True:
        try:
            return CaseReading(Case.model_validate(fields), tuple(problems))
        except ValidationError as error:
            removed: set[Location] = set()
            above: set[Location] = set()
            for detail in error.errors(include_url=False):
                where = _innermost(fields, detail["loc"])
                outer = [where[:length] for length in range(len(where))]
                if where not in removed and where not in above and removed.isdisjoint(outer):
                    removed.add(where)
                    above.update(outer)
                    problems.append(_problem(where, dict(detail)))
            for where in removed:
                _set_aside(fields, where, fallback_id)
            _drop_emptied_items(fields)


def _is_small(raw: Mapping[Any, Any]) -> bool:
    """Whether it has no more parts than a case may have: it costs little to validate, however wrong it is."""
    findings, vitals, photos = raw.get("findings"), raw.get("vitals"), raw.get("photos")
    if len(raw) > len(_CASE_FIELDS) or (isinstance(vitals, Mapping) and len(vitals) > len(_VITAL_FIELDS)):
        return False
    if isinstance(findings, Mapping):
        values = sum(len(value) for value in findings.values() if isinstance(value, list | tuple))
        if len(findings) + values > _MOST_FINDINGS:
            return False
    if isinstance(photos, list | tuple):
        return len(photos) <= _MOST_PHOTOS and all(len(one) <= len(_PHOTO_FIELDS) for one in photos if isinstance(one, Mapping))
    return True


def _flawless(raw: Mapping[Any, Any]) -> Case | None:
    """The case when nothing in it needs care; most are like that, and it costs half."""
    try:
        case = Case.model_validate(raw)
    except (ValidationError, RecursionError):
        return None
    return case if case.prior_visits is None or case.prior_visits <= _LARGEST_VALUE else None


class _Unknown:
    """The fields that no case has: the first ones by name, the others by number."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._more = 0

    def add(self, location: Location) -> None:
        if len(self._problems) < _NAMED_UNKNOWN:
            self._problems.append(f"unknown field {_name_of(location)} was set aside{_suggestion(str(location[-1])[:_SHOWN_NAME_LENGTH])}")
        else:
            self._more += 1

    def problems(self) -> list[str]:
        more = [f"{self._more} more unknown fields were set aside: check the names and send it again"] if self._more else []
        return [*self._problems, *more]


def _bounded(raw: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """A copy that can be changed, of the known fields and of no more parts than a case may have; what is not in it is named."""
    unknown, problems = _Unknown(), list[str]()
    fields = _known(raw, _CASE_FIELDS, (), unknown)
    for name, value in fields.items():
        if name == "findings" and isinstance(value, Mapping):
            fields[name] = {_printable(str(code)): _one_finding(given) for code, given in islice(value.items(), _MOST_FINDINGS)}
            problems += _too_many(name, len(value), _MOST_FINDINGS)
        elif name == "vitals" and isinstance(value, Mapping):
            fields[name] = {key: _single(given) for key, given in _known(value, _VITAL_FIELDS, (name,), unknown).items()}
        elif name == "photos" and isinstance(value, list | tuple):
            fields[name] = [_one_photo(given, (name, at), unknown) for at, given in enumerate(value[:_MOST_PHOTOS])]
            problems += _too_many(name, len(value), _MOST_PHOTOS)
        else:
            fields[name] = _single(value)
    return fields, [*unknown.problems(), *problems]


def _known(given: Mapping[Any, Any], names: frozenset[str], where: Location, unknown: _Unknown) -> dict[str, Any]:
    """The fields of these names; the others are counted."""
    found = {}
    for key, value in given.items():
        if (name := _printable(str(key))) in names:
            found[name] = value
        else:
            unknown.add((*where, name))
    return found


def _one_finding(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return list(value) if len(value) <= _MOST_VALUES and all(isinstance(one, str) for one in value) else None
    return _single(value)


def _one_photo(value: Any, where: Location, unknown: _Unknown) -> Any:
    if not isinstance(value, Mapping):
        return _single(value)
    return {key: _single(given) for key, given in _known(value, _PHOTO_FIELDS, where, unknown).items()}


def _single(value: Any) -> Any:
    """A value for a field that holds one; a list or an object is as wrong empty as full. Thousands of digits cannot even be printed."""
    if isinstance(value, Mapping):
        return {}
    if isinstance(value, list | tuple):
        return []
    return float("inf") if isinstance(value, int) and abs(value) > _LARGEST_VALUE else value


def _too_many(name: str, count: int, most: int) -> list[str]:
    return [f"{name}: only the first {most} of {count} were read: check them and send the case again"] if count > most else []


def _printable(text: str) -> str:
    """Text without the half characters that cannot be written to any file."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _named(fields: dict[str, Any], fallback_id: str) -> list[str]:
    """Make sure of a `case_id`: numbers become text, a missing one becomes `fallback_id`."""
    given = fields.get("case_id")
    if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < _LARGEST_VALUE:
        fields["case_id"] = str(given)
    elif given is None or (isinstance(given, str) and not given.strip()):
        fields["case_id"] = fallback_id
        return [f"case_id is missing: named {fallback_id} by its place in the file"]
    return []


def _shortened(fields: dict[str, Any]) -> list[str]:
    """Keep the beginning of a complaint that is too long, instead of losing all of it."""
    complaint = fields.get("complaint")
    if isinstance(complaint, str):
        fields["complaint"] = complaint = _printable(complaint)
        if len(complaint.strip()) > COMPLAINT_LENGTH:
            fields["complaint"] = complaint.strip()[:COMPLAINT_LENGTH]
            return [f"complaint: only its first {COMPLAINT_LENGTH} characters were read: shorten it and send it again"]
    return []


def _innermost(fields: dict[str, Any], location: Location) -> Location:
    """The part of an error's location that exists in `fields`; the rest names a missing key or a kind of value."""
    here: Any = fields
    for depth, key in enumerate(location):
        inside = key in here if isinstance(here, dict) else isinstance(here, list) and isinstance(key, int)
        if not inside:
            return location[:depth]
        here = here[key]
    return location


def _set_aside(fields: dict[str, Any], where: Location, fallback_id: str) -> None:
    """Take away what `where` names. An item of a list is only emptied, so that later indices stay true."""
    parent: Any = fields
    for key in where[:-1]:
        parent = parent[key]
    if where == ("case_id",):
        fields["case_id"] = fallback_id
    elif isinstance(parent, dict):
        del parent[where[-1]]
    else:
        parent[where[-1]] = None


def _drop_emptied_items(fields: dict[str, Any]) -> None:
    if isinstance(fields.get("photos"), list):
        fields["photos"] = [photo for photo in fields["photos"] if photo is not None]


def _problem(location: Location, detail: dict[str, Any]) -> str:
    """Say what was set aside, what was found and what was expected, without any free text of the patient's."""
    found = detail.get("input")
    is_number = isinstance(found, int | float) and location[0] != "complaint"
    is_short = is_number or (isinstance(found, str) and location[0] == "vitals")  # a name could stand where the sex should
    shown = f" is {_printable(str(found))[:_SHOWN_VALUE_LENGTH]}," if is_short else ":"
    return f"{_name_of(location)}{shown} {_expected(location, detail)}; it was set aside as unknown: check it and send it again"


def _name_of(location: Location) -> str:
    return ".".join(str(part)[:_SHOWN_NAME_LENGTH] for part in location)[:_SHOWN_NAME_LENGTH]


def _expected(location: Location, detail: dict[str, Any]) -> str:
    """Put pydantic's complaint in the clinic's words, with both ends of a numeric range."""
    if detail["type"] not in _NUMERIC_LIMITS:
        return str(detail["msg"]).removesuffix(".")
    nested: dict[str, type[BaseModel]] = {"vitals": Vitals, "photos": Photo}
    model = nested.get(str(location[0]), Case)
    low, high = field_limits(model, str(location[-1]))
    return f"expected {low} to {high}" if high < math.inf else f"expected at least {low}"


def field_limits(model: type[BaseModel], name: str) -> tuple[float, float]:
    """The least and the largest number that a field of a case accepts; infinite where it has no such limit."""
    low, high = -math.inf, math.inf
    for limit in model.model_fields[name].metadata:
        low, high = getattr(limit, "ge", low), getattr(limit, "le", high)
    return low, high


@lru_cache(maxsize=1024)
def _suggestion(name: str) -> str:
    """Name the known field that an unknown one resembles, if any."""
    near = difflib.get_close_matches(name, _CASE_FIELDS | _VITAL_FIELDS, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def known_fields() -> frozenset[str]:
    """The names of a case's fields that are not nested: what a column may be called, besides the vitals."""
    return _CASE_FIELDS
