"""What clinicians decided about a completed referral, as labels to learn from. Pure: rows in, plain data out.

The source of a level says how much it is worth: `outcome` was given afterwards, `override` against the machine, `agreed` with the
machine's answer in sight, and `accepted` is the queue's level that nobody spoke against. The last two lean towards the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.service import store

OUTCOME, OVERRIDE, AGREED, ACCEPTED = "outcome", "override", "agreed", "accepted"
SOURCES = (OUTCOME, OVERRIDE, AGREED, ACCEPTED)  # the most trustworthy first
_LEVEL_SET_BY = frozenset({"created", "overridden", "reassessed"})


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a referral, with its detail unsealed."""

    kind: str
    level_before: int | None
    level: int
    detail: Mapping[str, Any]


def labels_of(level: int, machine_level: int, override_level: int | None, happened: Iterable[Happened]) -> dict[str, Any]:
    """The labels of one completed referral, in the form that `nabz-train` reads.

    `level` is the queue's at the end, `machine_level` the latest assessment's. An agreement counts only if it came after
    whatever set the level last.
    """
    agreed, impression, final, outcome = False, None, None, None
    for one in happened:
        if one.kind in _LEVEL_SET_BY and (one.kind != "reassessed" or one.level != one.level_before):
            agreed = False
        elif one.kind == store.AGREED:
            agreed = True
        elif one.kind == store.IMPRESSION and impression is None:
            impression = one.detail.get("impression_level")
        elif one.kind == "completed":
            final, outcome = one.detail.get("final_level"), one.detail.get("outcome")
    source = OUTCOME if final else OVERRIDE if override_level else AGREED if agreed else ACCEPTED
    return {
        "level": final or override_level or level,
        "level_source": source,
        "condition": None,
        "outcome": outcome,
        "split": None,
        "machine_level": machine_level,
        "first_impression": impression,
    }
