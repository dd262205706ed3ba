"""A month of invented history for looking at the dashboard: synthetic cases, scored by the shipped models, stored as the service does.

`python tests/dashboard_history.py FOLDER` fills FOLDER/nabz.db (with its keys in FOLDER/data), for `nabz serve` with
NABZ_DATABASE_URL=sqlite:///FOLDER/nabz.db and NABZ_DATA_DIR=FOLDER/data. No patient is or resembles a real one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, event

from inference.case import read_case
from inference.models import load_models
from inference.policy import Policy, load_policy
from inference.service import store
from inference.service.callers import Who
from inference.service.database import Unit, make_engine, transact
from inference.service.intake import Intake, Scored, Submission, assessment_json, new_id
from inference.service.parts import open_vault
from inference.service.settings import Settings
from inference.triage import Triage

ROOT = Path(__file__).resolve().parent.parent
DISTRICTS = ("tharparkar", "badin", "umerkot", "thatta", "sanghar", "mirpur khas", "dadu", "larkana", "sukkur", "jamshoro", "sujawal", None)
DOCTORS = tuple(Who(name, "clinician") for name in ("asma", "bilal", "sana"))
_STEP = timedelta(minutes=5)
_VITALS: tuple[dict[str, Any], ...] = (
    {},
    {"pulse_per_minute": 84, "respiratory_rate_per_minute": 16, "temperature_celsius": 37.2},
    {"pulse_per_minute": 112, "respiratory_rate_per_minute": 24, "temperature_celsius": 38.9, "spo2_percent": 95},
    {"pulse_per_minute": 128, "systolic_mmhg": 92, "respiratory_rate_per_minute": 30, "spo2_percent": 90},
    {"pulse_per_minute": 420},  # cannot be: it is set aside
)
_COMPLAINTS = (
    ("khansi aur bukhar", 9),
    ("zukam, naak beh rahi hai, gala kharab", 8),
    ("dast lage hain, kamzori", 6),
    ("بخار اور سر درد", 6),
    ("khujli, daane", 6),
    ("pet mein dard", 5),
    ("seenay mein dard, paseena", 3),
    ("saans phoolna", 4),
    ("kamar dard", 6),
    ("peshab mein jalan", 4),
    ("bukhar aur daane", 2),
    ("saanp ne kaata", 1),
    ("aankhen peeli, yarqan", 1),
    ("kutte ne kaata", 1),
    ("ghutne mein dard", 5),
    ("zrlq wxyz", 1),  # nobody understands it
)


def fill(
    folder: Path, database_url: str | None = None, *, now: datetime | None = None, days: int = 40, per_day: int = 18, seed: int = 7
) -> Settings:
    """Write `days` days of history that end `now`, about `per_day` cases a day, with an outbreak of diarrhoea in Badin at the end.

    Returns the settings of a service that shows it. Deterministic but for ids and keys.
    """
    now = now or datetime.now(UTC)
    settings = Settings(database_url=database_url or f"sqlite:///{folder}/nabz.db", data_dir=folder / "data", _env_file=None)
    vault = open_vault(settings)
    engine, chance, policy = make_engine(settings.database_url), random.Random(seed), load_policy()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    intake = Intake(vault, cast("Any", None), cast("Any", None), photos_per_case=0)
    arrivals = _scored([one for one in _cases(chance, now, days, per_day) if one[0] <= now], policy)
    do = partial(_do, engine, vault.mac_key("audit"))
    at = now - timedelta(days=days)
    while at <= now:
        due = [arrivals.pop() for _ in range(sum(one[0] <= at for one in arrivals))]
        for received, clinic, one in due:
            do(_arrive, intake._sealed(one, clinic, Submission(None)), Who(f"{clinic}-1", "clinic", clinic), policy, received)
        urgent = [one.assessment.level <= 2 for _, _, one in due]
        for doctor in DOCTORS:
            if at < now - timedelta(minutes=10) and chance.random() < _diligence(at, is_urgent=any(urgent)):
                do(_see, doctor, policy, at + timedelta(minutes=1), chance.random(), intake)
        at += _STEP
    engine.dispose()
    return settings


def _do(engine: Engine, key: bytes, work: Any, *given: Any) -> None:
    transact(engine, lambda unit: work(unit, *given), key)


def _cases(chance: random.Random, now: datetime, days: int, per_day: int) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    """When each case arrives, which clinic sends it, and what it says."""
    complaints, weights = zip(*_COMPLAINTS, strict=True)
    for back in range(days, -1, -1):
        for _ in range(chance.randint(per_day - 5, per_day + 5)):
            at = now - timedelta(days=back, hours=-chance.triangular(0, 24, 11))
            yield at, chance.choice(("mithi", "umerkot", "badin")), {
                "complaint": chance.choices(complaints, weights)[0],
                "vitals": chance.choices(_VITALS, (4, 8, 4, 1, 1))[0],
                "district": chance.choices(DISTRICTS, (9, 5, 5, 4, 4, 3, 3, 2, 2, 2, 1, 2))[0],
                **_patient(chance),
            }  # fmt: skip
        for _ in range({2: 4, 1: 7, 0: 9}.get(back, 0)):
            at = now - timedelta(days=back, hours=-chance.triangular(0, 24, 9))
            yield at, "badin", {"complaint": "paani jaise dast, ulti", "district": "badin", **_patient(chance)}


def _patient(chance: random.Random) -> dict[str, Any]:
    known = {"age_years": round(chance.triangular(0, 85, 24), 1), "sex": chance.choice(("female", "male"))}
    return known if chance.random() < 0.93 else {}


def _scored(cases: list[tuple[datetime, str, dict[str, Any]]], policy: Policy) -> list[tuple[datetime, str, Scored]]:
    """The cases, scored; the last one to arrive first."""
    cases = sorted(cases, key=lambda one: one[0], reverse=True)
    triage, ids = Triage(load_models(ROOT / "models"), policy=policy), [new_id() for _ in cases]
    readings = [
        read_case({"case_id": id_, **case, "received_at": at.isoformat()}, id_) for id_, (at, _, case) in zip(ids, cases, strict=True)
    ]
    assessed = triage.assess_each(readings, [at for at, _, _ in cases])
    return [
        (at, clinic, Scored(id_, reading.case, reading.problems, {}, one, assessment_json(one)))
        for id_, (at, clinic, _), reading, one in zip(ids, cases, readings, assessed, strict=True)
    ]


def _diligence(at: datetime, *, is_urgent: bool) -> float:
    """How likely a doctor is to take a case within five minutes, by Pakistan's hour; an urgent arrival rings."""
    by_day = 8 <= (at.hour + 5) % 24 < 20
    return (0.5 if by_day else 0.25) if is_urgent else 0.022 if by_day else 0.006


def _arrive(unit: Unit, new: store.NewReferral, who: Who, policy: Policy, now: datetime) -> None:
    store.insert_referral(unit, new, who, policy, now)


def _see(unit: Unit, doctor: Who, policy: Policy, now: datetime, chance: float, intake: Intake) -> None:
    """Take the next case; agree, or change its level; complete it."""
    row = store.claim_next(unit, doctor, policy, now, {})
    if row is None:
        return
    later, detail = now + timedelta(minutes=2), intake._vault.seal(b'{"reason":"seen"}', f"events:{row.id}")
    if chance < 0.07 and row.level > 1:
        store.override(unit, row.id, doctor, row.level - 1, policy, later, detail)
    elif chance < 0.2 and row.level < 5:
        store.override(unit, row.id, doctor, row.level + 1, policy, later, detail)
    elif chance < 0.7:
        store.add_note(unit, row.id, doctor, later, detail, store.AGREED)
    elif chance > 0.97:
        store.release(unit, row.id, doctor, later)
        return
    store.complete(unit, row.id, doctor, later + timedelta(minutes=1), detail)


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
