"""What the database and the worklist hold, as far as a row of the table must know it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
from sqlalchemy import func, select

from inference.service.database import make_engine
from inference.service.tables import assessments, events, referrals
from reliability.live_service import LiveService
from reliability.outcome import Outcome


def ids_in_database(url: str) -> set[str]:
    """Every referral's id."""
    engine = make_engine(url)
    with engine.begin() as connection:
        found = set(connection.execute(select(referrals.c.id)).scalars())
    engine.dispose()
    return found


def check_stored(outcome: Outcome, service: LiveService, acknowledged: dict[Any, str], expected: int | None = None) -> None:
    """Each acknowledged referral is in the database, whole and once, and in the worklist. `expected`: so many referrals and no more."""
    engine = make_engine(service.database_url)
    with engine.begin() as connection:
        tokens = {row.id: row.case_token for row in connection.execute(select(referrals.c.id, referrals.c.case_token))}
        whole = set(connection.execute(select(assessments.c.referral_id).where(assessments.c.content.is_not(None))).scalars())
        created = Counter(connection.execute(select(events.c.referral_id).where(events.c.kind == "created")).scalars())
        open_ = connection.execute(select(func.count()).where(referrals.c.is_open == 1)).scalar_one()
    engine.dispose()
    lost = set(acknowledged.values()) - tokens.keys()
    outcome.require(not lost, f"{len(lost)} acknowledged referrals are not in the database, as {sorted(lost)[:3]}")
    twice = [token for token, n in Counter(tokens.values()).items() if n > 1]
    outcome.require(not twice, f"{len(twice)} cases are stored more than once")
    outcome.require(expected is None or len(tokens) == expected, f"{len(tokens)} referrals are stored, expected {expected}")
    outcome.require(whole >= tokens.keys(), f"{len(tokens.keys() - whole)} referrals have no assessment")
    outcome.require(created == Counter(tokens.keys()), "a referral has no event of its creation, or more than one")
    listed = list_open(service)
    outcome.require(max(Counter(listed).values(), default=0) <= 1, "the worklist shows a referral twice")
    outcome.require(len(listed) == open_, f"the worklist shows {len(listed)} of {open_} open referrals")
    outcome.require(
        set(listed) >= {i for i in acknowledged.values() if i in tokens} or open_ < len(tokens), "the worklist leaves out referrals"
    )
    audit = service.run("audit", "verify")
    outcome.require(audit.returncode == 0, f"nabz audit verify: {(audit.stdout + audit.stderr)[-200:]}")
    outcome.done.update(stored=len(tokens), lost=len(lost), duplicated=len(twice))


def list_open(service: LiveService) -> list[str]:
    """The ids of the whole worklist, page by page."""
    ids: list[str] = []
    asked: dict[str, Any] = {"limit": 200}
    with httpx.Client(base_url=service.url, headers=service.token("clinician", "reader"), timeout=30, trust_env=False) as client:
        while True:
            page = client.get("/v1/worklist", params=asked).raise_for_status().json()
            ids += [item["id"] for item in page["items"]]
            if not page["next"]:
                return ids
            asked["cursor"] = page["next"]
