"""The data card of an export: what is in it, what was taken out, and what it must not be taken for. Pure: counts in, JSON out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.service.export_deidentify import OLDEST_YEARS
from inference.service.export_labels import ACCEPTED, OVERRIDE, SOURCES
from inference.service.export_small_cells import Coarsened, K, age_band

_BIAS = (
    "Only completed referrals are here: who never came back, or still waits, is not.",
    "A level whose source is `accepted` is the queue's own, which nobody spoke against: a weak label. Measured against it, the machine "
    "is right by construction. `nabz-train` does not learn from it unless told to.",
    "A level whose source is `agreed` was given with the machine's answer in sight, and leans towards it.",
    "`override` and `outcome` levels are given where somebody looked harder: mostly cases that the machine got wrong, or that went badly. "
    "Their error rates are not the service's.",
    "Clinics that send more are here more often; the counts by province say how uneven it is.",
)
_PRIVACY = (
    "No name, identity, contact, id of clinic or staff, note or reason is in the file; findings are codes, never words.",
    "Case and patient ids are keyed hashes (HMAC-SHA-256 under the service's own key): who does not hold the key file cannot link them.",
    f"Age in whole years (months below two), {OLDEST_YEARS} for everybody older; the 15th of the month instead of the day.",
    "The exact year of age, the vitals and the findings of one person stand together: this is pseudonymous health data, not anonymous data.",
    "A referral that is erased after this export stays in it: export again, and delete this folder, when one is.",
)
_COMPLAINTS = "The complaints are here as they were written. Free text can name anybody: read it, or leave it out (no --with-complaints)."
_PHOTOS = "The photos are pixels alone, without metadata. A face, a tattoo or a room in the picture still tells who it is: look at each."


@dataclass(frozen=True, slots=True)
class Counted:
    """Referrals of the period that are not in the export, by why."""

    still_open: int
    erased: int
    due_for_erasure: int


def data_card(
    records: Sequence[Mapping[str, Any]], period: Mapping[str, str | None], left_out: Counted, cells: Coarsened, bundles: Mapping[str, int],
    *, with_complaints: bool, with_photos: bool,
) -> dict[str, Any]:  # fmt: skip
    """The card of these records, which are as they stand in `cases.jsonl`. `bundles` counts the cases that each version scored."""
    return {
        "name": "Referrals of one Nabz service, with what its clinicians decided",
        "format": "labelled cases: one JSON object a line, a case with `labels` (docs/own_data.md)",
        "n": len(records),
        "period_completed": dict(period),
        "left_out": {
            "still open": left_out.still_open, "erased": left_out.erased, "due for erasure by the retention policy": left_out.due_for_erasure,
        },
        "levels_by_source": _levels(records),
        "overridden_by_machine_level": _overridden(records),
        "first_impressions": sum(one["labels"]["first_impression"] is not None for one in records),
        "outcomes": _counted(one["labels"]["outcome"] for one in records),
        "subgroups": {
            "age": _counted(age_band(one.get("age_years")) for one in records),
            "sex": _counted(one["sex"] for one in records),
            "province": _counted(one.get("province") for one in records),
        },
        "missing_vitals": _missing(records),
        "scored_by_bundles": dict(sorted(bundles.items())),
        "privacy": {
            "says": [*_PRIVACY, *([_COMPLAINTS] if with_complaints else []), *([_PHOTOS] if with_photos else [])],
            "k": K,
            "cells": "age band, sex, district or province",
            "lost_their_district": cells.without_district,
            "lost_their_place": cells.without_place,
            "in_cells_below_k_without_a_place": cells.still_small,
        },
        "bias": list(_BIAS),
        "use": "To train and measure Nabz's models inside the service that the referrals are of. Not for publication.",
    }  # fmt: skip


def _levels(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {source: _counted(one["labels"]["level"] for one in records if one["labels"]["level_source"] == source) for source in SOURCES}


def _overridden(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """By the machine's level: how many cases, and of how many the level was overridden upwards (more urgent) and downwards."""
    found = {}
    for level in sorted({one["labels"]["machine_level"] for one in records}):
        labels = [one["labels"] for one in records if one["labels"]["machine_level"] == level]
        moved = [one["level"] - level for one in labels if one["level_source"] == OVERRIDE]
        accepted = sum(one["level_source"] == ACCEPTED for one in labels)
        found[str(level)] = {
            "n": len(labels), "raised": sum(by < 0 for by in moved), "lowered": sum(by > 0 for by in moved), "nobody_said": accepted,
        }  # fmt: skip
    return found


def _missing(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of cases without each vital that any case has."""
    names = sorted({name for one in records for name in one.get("vitals", {})})
    return {name: round(sum(name not in one.get("vitals", {}) for one in records) / len(records), 4) for name in names}


def _counted(values: Any) -> dict[str, int]:
    counts = Counter("unknown" if value is None else str(value) for value in values)
    return dict(sorted(counts.items()))
