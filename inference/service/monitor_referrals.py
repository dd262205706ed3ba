"""The service's stored referrals as columns for the monitor: the newest ones of some days, at most so many, page by page.

Cases are unsealed one at a time and only their features are kept. What was erased is passed over. Writes one audit row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, select

from inference.assessment import Assessment
from inference.case import Case
from inference.errors import StorageError
from inference.lesions import LesionScore
from inference.monitor_features import Scripts, sample_of
from inference.monitor_outcomes import EMERGENCY_LEVEL
from inference.monitor_sample import Sample
from inference.service import store
from inference.service.callers import Who, operator
from inference.service.database import Unit, make_engine, read, transact
from inference.service.export_labels import ACCEPTED, Happened, labels_of
from inference.service.settings import load_settings
from inference.service.tables import assessments, events, referrals
from inference.service.vault import Vault

MOST_CASES = 20_000
_AT_ONCE = 200
_REST_SECONDS = 0.005  # between pages, so that requests come first


@dataclass
class Stored:
    """The referrals as columns; by referral id whether a clinician found an emergency; how many could not be read."""

    sample: Sample
    outcomes: dict[str, bool]
    unreadable: int


@dataclass
class _Walk:
    """One walk over the referrals, the newest first."""

    engine: Engine
    vault: Vault
    since: str
    outcomes: dict[str, bool] = field(default_factory=dict)
    unreadable: int = 0

    def cases(self) -> Iterator[tuple[Case, Assessment, tuple[LesionScore, ...]]]:
        last, total = "", 0
        while total < MOST_CASES and (page := read(self.engine, lambda connection, last=last: _page(connection, self.since, last))):  # type: ignore[misc]
            history = read(self.engine, lambda connection, page=page: _history(connection, [row.id for row in page]))  # type: ignore[misc]
            for row in page:
                try:
                    content = orjson.loads(self.vault.unseal(row.content, f"assessments:{row.id}:{row.version}"))
                    case = Case.model_validate(content["case"]).model_copy(update={"case_id": row.id})
                    assessment = Assessment.model_validate(content["assessment"])
                except (StorageError, ValidationError, ValueError, KeyError):
                    self.unreadable += 1
                    continue
                self._note_outcome(row, history.get(row.id, []))
                yield case, assessment, ()
            total, last = total + len(page), page[-1].id
            time.sleep(_REST_SECONDS)

    def _note_outcome(self, row: Any, history: list[Any]) -> None:
        """An outcome is what a clinician said; a level that nobody spoke against would be the machine's own."""
        if row.state != store.COMPLETED:
            return
        happened = [
            Happened(
                one.kind, one.level_before, one.level, orjson.loads(self.vault.unseal(one.detail, f"events:{row.id}")) if one.detail else {}
            )
            for one in history
        ]
        label = labels_of(row.level, row.machine_level, row.override_level, happened)
        if label["level_source"] != ACCEPTED:
            self.outcomes[row.id] = label["level"] <= EMERGENCY_LEVEL


def read_stored(engine: Engine, vault: Vault, scripts: Scripts, now: datetime, days: int) -> Stored:
    """The referrals that were stored in the last `days`, with their latest assessments. Raises StorageError."""
    milliseconds = int((now - timedelta(days=days)).timestamp() * 1000)
    walk = _Walk(engine, vault, f"r-{milliseconds:012x}")  # ids begin with the time: see `intake.new_id`
    sample = sample_of(walk.cases(), scripts)
    return Stored(sample, walk.outcomes, walk.unreadable)


def _page(connection: Connection, since: str, last: str) -> list[Any]:
    query = (
        select(referrals, assessments.c.content)
        .join(assessments, (assessments.c.referral_id == referrals.c.id) & (assessments.c.version == referrals.c.version))
        .where(referrals.c.id >= since, assessments.c.content.is_not(None))
        .order_by(referrals.c.id.desc())
        .limit(_AT_ONCE)
    )
    return list(connection.execute(query.where(referrals.c.id < last) if last else query))


def _history(connection: Connection, ids: list[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for event in connection.execute(select(events).where(events.c.referral_id.in_(ids)).order_by(events.c.sequence)):
        found.setdefault(event.referral_id, []).append(event)
    return found


def note_monitored(unit: Unit, who: Who, cases: int, days: int, now: datetime) -> None:
    """The audit trail says that so many referrals were read for aggregates."""
    store.record(unit, who, "monitored", None, now, referrals=cases, days=days)


def read_service(scripts: Scripts, now: datetime, days: int) -> Stored:
    """The stored referrals of the service that the NABZ_… settings name, for a command. Raises StorageError."""
    settings = load_settings()
    vault = Vault.open(settings.keys)
    engine = make_engine(settings.database_url)
    with closing(_Disposing(engine)):
        stored = read_stored(engine, vault, scripts, now, days)
        if not stored.sample.n:
            raise StorageError(f"no referral that can be read was stored in the last {days} days: there is nothing to compare")
        transact(engine, lambda unit: note_monitored(unit, operator(), stored.sample.n, days, now), vault.mac_key("audit"))
    return stored


class _Disposing:
    """An engine that is closed like a file."""

    def __init__(self, engine: Engine) -> None:
        self.close = engine.dispose
