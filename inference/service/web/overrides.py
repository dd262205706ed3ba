"""What clinicians decided on earlier cases that resemble this one. Knows no page; whose words these are, the audit trail notes.

Two cases resemble each other when the machine gave them the same level and they share the leading condition or a red flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import literal_column, select

from inference.assessment import Assessment
from inference.service import store
from inference.service.callers import Who
from inference.service.database import Unit
from inference.service.tables import events, from_us, referrals
from inference.service.vault import Vault

# Written out, not bound, so that the databases see that the partial index applies.
_OVERRIDDEN: Any = literal_column("events.kind = 'overridden'")
_LOOKED_THROUGH = 2000  # of the newest overrides, for those of this level
_OPENED = 300  # of these: opening one takes some ten microseconds
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PastOverride:
    """One override: from which level to which, why, and what the two cases share."""

    referral_id: str
    at: datetime
    level_before: int
    level: int
    reason: str
    shared: tuple[str, ...]


def similar_overrides(unit: Unit, vault: Vault, who: Who, id_: str, assessment: Assessment, now: datetime) -> list[PastOverride]:
    """The newest overrides of other cases that resemble this one, five at most. Each one shown is in the audit trail."""
    newest = select(events).where(_OVERRIDDEN).order_by(events.c.sequence.desc()).limit(_LOOKED_THROUGH).subquery()
    query = (
        select(newest.c.referral_id, newest.c.at_us, newest.c.level_before, newest.c.level, newest.c.detail, referrals.c.summary)
        .join(referrals, referrals.c.id == newest.c.referral_id)
        .where(newest.c.referral_id != id_, newest.c.detail.is_not(None), referrals.c.summary.is_not(None))
        .where(referrals.c.machine_level == assessment.level)
        .order_by(newest.c.sequence.desc())
        .limit(_OPENED)
    )
    leading = assessment.differential[0].name_en if assessment.differential else None
    found: list[PastOverride] = []
    for row in unit.connection.execute(query):
        summary = orjson.loads(vault.unseal(row.summary, f"referrals.summary:{row.referral_id}"))
        shared = tuple(flag for flag in summary.get("red_flags", ()) if flag in assessment.red_flags)
        condition = (summary.get("condition") or {}).get("name_en")
        if condition is not None and condition == leading:
            shared = (condition, *shared)
        if shared:
            reason = orjson.loads(vault.unseal(row.detail, f"events:{row.referral_id}")).get("reason", "")
            found.append(PastOverride(row.referral_id, from_us(row.at_us), row.level_before, row.level, reason, shared))
        if len(found) == _SHOWN:
            break
    if found:
        store.record_listed(unit, who, [one.referral_id for one in found], now)
    return found
