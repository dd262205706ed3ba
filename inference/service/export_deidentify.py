"""A stored case without what names or places the patient. Pure: it lets through what it knows to be safe, and nothing else.

Free text (complaint, unknown findings, unknown districts) is dropped, not searched for names. Knows no database and no key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inference.case import ABSENT, PRESENT, Case

OLDEST_YEARS = 90  # who is older is one of few: HIPAA's Safe Harbor draws the same line (45 CFR 164.514)
_MOST_VISITS = 5
_MONTHS_FROM_YEARS = 2  # below this age months matter to the models
_NUMBER = re.compile(r"-?\d{1,6}(\.\d{1,3})?")
_MID_MONTH = 15
_PHOTO_ANSWERS = ("fitzpatrick", "itch", "grew", "hurt", "changed", "bleed", "elevation")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The codes and words that may leave: each finding's values, districts with their province, words for body sites."""

    findings: Mapping[str, frozenset[str]]
    districts: Mapping[str, str]
    body_sites: frozenset[str]

    @classmethod
    def of_contracts(cls, symptoms: Mapping[str, Any], lesions: Mapping[str, Any]) -> Vocabulary:
        """What the vocabularies of the live symptom and lesion contracts know; empty ones let no code through."""
        evidences = symptoms.get("evidences", {})
        return cls(
            {code: frozenset(map(str, one.get("possible-values", ()))) for code, one in evidences.items()},
            symptoms.get("lexicon", {}).get("districts", {}),
            frozenset(lesions.get("body_site", {}).get("words", {})),
        )


def deidentified(
    case: Case, findings: Mapping[str, Any], photos: Mapping[str, str], known: Vocabulary, *, with_complaint: bool
) -> dict[str, Any]:
    """The case as it may leave, but for its id: what `nabz` and `nabz-train` read.

    `findings` are those that the machine read; the case's own answers go before them. `photos` gives the new name of each photo
    that leaves. The time is the 15th of its month at noon UTC.
    """
    district, province = _place(case, known)
    safe: dict[str, Any] = {
        "received_at": None if case.received_at is None else _month(case.received_at),
        "age_years": _age(case.age_years),
        "sex": case.sex,
        "complaint": case.complaint if with_complaint else "",
        "findings": _findings({**findings, **case.findings}, known),
        "vitals": case.vitals.model_dump(exclude_none=True),
        "pregnant": case.pregnant,
        "known_hypercapnic_failure": case.known_hypercapnic_failure,
        "photos": [_photo(one.model_dump(), photos[one.path], known) for one in case.photos if one.path in photos],
        "district": district,
        "province": province,
        "arrival": case.arrival,
        "priority": case.priority,
        "prior_visits": None if case.prior_visits is None else min(case.prior_visits, _MOST_VISITS),
    }
    return {name: value for name, value in safe.items() if value not in (None, "", [], {})}


def _age(age_years: float | None) -> float | None:
    """Whole years; whole months below two years; 90 for everybody older."""
    if age_years is None:
        return None
    if age_years < _MONTHS_FROM_YEARS:
        return round(int(age_years * 12) / 12, 2)
    return float(min(int(age_years), OLDEST_YEARS))


def _month(moment: datetime) -> str:
    return f"{moment.year:04d}-{moment.month:02d}-{_MID_MONTH}T12:00:00+00:00"


def _place(case: Case, known: Vocabulary) -> tuple[str | None, str | None]:
    """District and province as the catalogue names them; another word may be a village, or anything."""
    district = " ".join((case.district or "").split()).casefold()
    province = "_".join((case.province or "").split()).casefold()
    if district in known.districts:
        return district, known.districts[district]
    return None, province if province in known.districts.values() else None


def _findings(given: Mapping[str, Any], known: Vocabulary) -> dict[str, Any]:
    safe = {}
    for code, value in given.items():
        if code not in known.findings:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        kept = [one for one in values if one in (PRESENT, ABSENT) or one in known.findings[code] or _NUMBER.fullmatch(str(one))]
        if kept:
            safe[code] = kept[0] if len(kept) == 1 else kept
    return dict(sorted(safe.items()))


def _photo(photo: Mapping[str, Any], name: str, known: Vocabulary) -> dict[str, Any]:
    site = (photo["body_site"] or "").strip().casefold()
    safe = {"path": name, "body_site": site if site in known.body_sites else None, **{key: photo[key] for key in _PHOTO_ANSWERS}}
    return {key: value for key, value in safe.items() if value is not None}
