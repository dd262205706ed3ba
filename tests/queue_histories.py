"""Histories of a queue: what clinics and clinicians do to it, done to a database and to a few lines of Python that say what it should do.

`run_histories` plays many of them by chance; `test_queue_histories.py` lets hypothesis look for the ones that differ.
A history has a clinic and clinicians of its own, so that many share one database. Knows no HTTP and no models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from queue_database import CLOCK, KEY, NOW, POLICY, do, referral
from sqlalchemy import Engine, select

from inference.errors import ConflictError
from inference.queue import Waiting, ordered
from inference.service import store
from inference.service.audit import verify
from inference.service.callers import Who
from inference.service.database import Unit, make_engine
from inference.service.pages import read_page
from inference.service.tables import events, from_us, referrals

CAPACITY = 2  # small, so that it is reached
RULES = POLICY.model_copy(update={"queue": POLICY.queue.model_copy(update={"capacity_per_clinician": CAPACITY})})
LEASE = RULES.queue.lease
CLINICIANS = 3
LEVELS = (1, 2, 3, 4, 5)
REFUSED = "refused"


@dataclass
class Expected:
    """A case as the rules have it."""

    level: int
    machine_level: int
    risk: float
    received_at: datetime
    state: str = "waiting"
    holder: str | None = None
    lease: datetime | None = None
    override_level: int | None = None
    version: int = 1
    kinds: list[str] = field(default_factory=lambda: ["created"])


class History:
    """One history: each method does one thing to both and says in `violations` where they differ."""

    def __init__(self, engine: Engine, name: str, now: datetime = NOW) -> None:
        self.engine, self.name, self.now = engine, name, now
        self.cases: dict[str, Expected] = {}
        self.violations: list[str] = []
        self._clinic = Who(f"{name}-clinic", "clinic", name)

    def arrive(self, level: int, risk: float, minutes_ago: int) -> None:
        """A new referral."""
        id_, received = f"{self.name}-{len(self.cases):03d}", self.now - timedelta(minutes=minutes_ago)
        new = referral(id_, level, risk=risk, received_at=received, clinic=self.name)
        do(self.engine, lambda unit: store.insert_referral(unit, new, self._clinic, RULES, self.now))
        self.cases[id_] = Expected(level, level, risk, received)

    def pass_time(self, minutes: float) -> None:
        """Leases end, caps end."""
        self.now += timedelta(minutes=minutes)

    def sweep(self) -> None:
        """The service's own task; what is left of other histories is swept with it."""
        while do(self.engine, lambda unit: store.sweep_leases(unit, self.now, CLOCK)):
            pass
        do(self.engine, lambda unit: store.sweep_caps(unit, self.now))
        for case in self.cases.values():
            if case.state == "claimed" and not self._is_live(case):
                case.state, case.holder, case.lease = "waiting", None, None
                case.kinds.append("lease_expired")

    def claim(self, clinician: int, place: int) -> None:
        """By id."""
        who, id_, case = self._picked(clinician, place)
        can = case.state != "completed" and (not self._is_live(case) or case.holder == who.subject)
        if not (self._is_live(case) and case.holder == who.subject):
            can = can and self._held(who) < CAPACITY
        if self._did(can, lambda unit: store.claim(unit, id_, who, RULES, self.now)):
            self._take(case, who)
        self._compare(id_)

    def claim_next(self, clinician: int) -> None:
        """The first that waits, of this history's clinic."""
        who = self._who(clinician)
        waiting = [id_ for id_ in self.order() if self.cases[id_].state == "waiting"]
        can = not waiting or self._held(who) < CAPACITY
        row = self._did(can, lambda unit: store.claim_next(unit, who, RULES, self.now, {"clinic": self.name}))
        if can and (row.id if row else None) != (waiting[0] if waiting else None):
            self.violations.append(f"claim_next gave {row.id if row else None}, the first that waits is {waiting[:1]}")
        if row:
            self._take(self.cases[row.id], who)
            self._compare(row.id)

    def release(self, clinician: int, place: int) -> None:
        """Back to the queue."""
        who, id_, case = self._picked(clinician, place)
        if self._did(self._holds(who, case), lambda unit: store.release(unit, id_, who, self.now)):
            case.state, case.holder, case.lease = "waiting", None, None
            case.kinds.append("released")
        self._compare(id_)

    def complete(self, clinician: int, place: int) -> None:
        """The end."""
        who, id_, case = self._picked(clinician, place)
        if self._did(self._holds(who, case), lambda unit: store.complete(unit, id_, who, self.now, b"outcome")):
            case.state, case.holder, case.lease = "completed", None, None
            case.kinds.append("completed")
        self._compare(id_)

    def override(self, clinician: int, place: int, level: int) -> None:
        """A clinician's level in place of the machine's."""
        who, id_, case = self._picked(clinician, place)
        can = case.state != "completed" and (not self._is_live(case) or case.holder == who.subject)
        if self._did(can, lambda unit: store.override(unit, id_, who, level, RULES, self.now, b"why")):
            case.level = case.override_level = level
            case.kinds.append("overridden")
        self._compare(id_)

    def note(self, clinician: int, place: int) -> None:
        """Always possible."""
        who, id_, case = self._picked(clinician, place)
        if self._did(True, lambda unit: store.add_note(unit, id_, who, self.now, b"note")):
            case.kinds.append("noted")
        self._compare(id_)

    def reassess(self, place: int, level: int, risk: float, *, is_stale: bool) -> None:
        """New findings; a stale one was made from a version that is not the latest."""
        _, id_, case = self._picked(0, place)
        new = store.Reassessment(
            was_version=case.version - is_stale, was_level=case.level, level=level, is_worse=level < case.machine_level, floor_level=5,
            district=None, specialty="general", scored_by="models", needs_review=False,
            risk=risk, received_at=case.received_at, summary=b"summary", content=b"content",
        )  # fmt: skip
        row = self._did(case.state != "completed", lambda unit: store.reassess(unit, id_, new, self._clinic, RULES, self.now))
        if row is not None and is_stale:
            self.violations.append(f"{id_}: an assessment of an old version was stored")
        if case.state != "completed" and not is_stale:
            is_worse = level < case.machine_level
            if level < case.level and (case.override_level is None or is_worse):
                case.level, case.override_level = level, None
            case.machine_level, case.risk, case.version = level, risk, case.version + 1
            case.kinds.append("reassessed")
        self._compare(id_)

    def order(self) -> list[str]:
        """The open cases as the pure queue has them now."""
        is_open = (Waiting(id_, case.level, case.received_at, case.risk) for id_, case in self.cases.items() if case.state != "completed")
        return [one.case_id for one in ordered(is_open, RULES, self.now)]

    def check(self) -> None:
        """The whole queue: its pages in order, every row and every event."""
        shown, cursor = [], None
        while True:
            page = do(self.engine, lambda unit, cursor=cursor: read_page(unit, {"clinic": self.name}, "open", 4, cursor, self.now, KEY))
            shown += [row.id for row in page.rows]
            cursor = page.cursor
            if cursor is None:
                break
        if shown != self.order():
            self.violations.append(f"the pages show {shown}, the queue is {self.order()}")
        for id_ in self.cases:
            self._compare(id_)
        kinds: dict[str, list[str]] = {id_: [] for id_ in self.cases}
        query = select(events.c.referral_id, events.c.kind).where(events.c.clinic == self.name).order_by(events.c.sequence)
        for id_, kind in do(self.engine, lambda unit: unit.connection.execute(query).fetchall()):
            kinds[id_].append(kind)
        self.violations += [f"{id_}: {kinds[id_]}, not {case.kinds}" for id_, case in self.cases.items() if kinds[id_] != case.kinds]

    def _who(self, clinician: int) -> Who:
        return Who(f"{self.name}-{clinician}", "clinician")

    def _picked(self, clinician: int, place: int) -> tuple[Who, str, Expected]:
        id_ = list(self.cases)[place % len(self.cases)]
        return self._who(clinician), id_, self.cases[id_]

    def _is_live(self, case: Expected) -> bool:
        return case.state == "claimed" and case.lease is not None and case.lease >= self.now

    def _holds(self, who: Who, case: Expected) -> bool:
        return self._is_live(case) and case.holder == who.subject

    def _held(self, who: Who) -> int:
        return sum(self._holds(who, case) for case in self.cases.values())

    def _take(self, case: Expected, who: Who) -> None:
        case.state, case.holder, case.lease = "claimed", who.subject, self.now + LEASE
        case.kinds.append("claimed")

    def _did(self, can: bool, work: Callable[[Unit], Any]) -> Any:
        """The row that the database gave; None when it refused, which must be when the rules do."""
        try:
            row = do(self.engine, work)
        except ConflictError as error:
            if can:
                self.violations.append(f"refused, though it may be done: {error}")
            return None
        if not can:
            self.violations.append(f"done, though the rules refuse it: {row}")
        return row

    def _compare(self, id_: str) -> None:
        case = self.cases[id_]
        row = do(self.engine, lambda unit: unit.connection.execute(select(referrals).where(referrals.c.id == id_)).one())
        found = (row.level, row.machine_level, row.override_level, row.state, row.holder, row.version, row.revision, row.is_open)
        lease = from_us(row.lease_us) if row.lease_us is not None else None
        wanted = (case.level, case.machine_level, case.override_level, case.state, case.holder, case.version, len(case.kinds))
        if (*found, lease) != (*wanted, int(case.state != "completed"), case.lease):
            self.violations.append(f"{id_}: the database has {found}, {lease}; the rules {wanted}, {case.lease}")


def run_histories(url: str, histories: int, steps: int = 12, seed: int = 0) -> int:
    """Play so many histories on a migrated database. Returns how many violations there were, a broken audit trail included."""
    chance, engine, now, violations = random.Random(seed), make_engine(url), NOW, 0
    try:
        for number in range(histories):
            history = History(engine, f"h{seed}-{number}", now)
            for _ in range(steps):
                _step(history, chance)
            history.check()
            violations += len(history.violations)
            now = history.now
        with engine.begin() as connection:
            violations += verify(connection, KEY).first_bad is not None
    finally:
        engine.dispose()
    return violations


def _step(history: History, chance: random.Random) -> None:
    """One thing that somebody does."""
    who, place, level, risk = chance.randrange(CLINICIANS), chance.randrange(8), chance.choice(LEVELS), chance.choice((0.0, 0.3, 0.3, 1.0))
    if not history.cases or chance.random() < 0.25:
        history.arrive(level, risk, chance.choice((0, 0, 5, 9, 70, 1500, 60_000)))
        return
    history_steps: list[Callable[[], None]] = [
        lambda: history.pass_time(chance.choice((0.5, 6, 31, 70))),
        history.sweep,
        lambda: history.claim(who, place),
        lambda: history.claim(who, place),
        lambda: history.claim_next(who),
        lambda: history.release(who, place),
        lambda: history.complete(who, place),
        lambda: history.override(who, place, level),
        lambda: history.note(who, place),
        lambda: history.reassess(place, level, risk, is_stale=chance.random() < 0.2),
    ]
    chance.choice(history_steps)()
