"""Databases with referrals for tests: empty ones without the cost of a migration, and referrals that a person can read.

What the vault would have sealed is plain bytes here: the store never looks inside. Knows no models and no HTTP.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from postgres import PostgresServer
from sqlalchemy import Engine, event, text

from inference.policy import Policy, load_policy
from inference.queue import Waiting, ordered
from inference.service import store
from inference.service.callers import Who
from inference.service.database import Database, Unit, make_engine, transact
from inference.service.migration import migrate
from inference.service.tables import audit_head, metadata

KEY = b"k" * 32
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
POLICY: Policy = load_policy()
CLINIC, OTHER_CLINIC = Who("clinic-1", "clinic", "mithi"), Who("clinic-2", "clinic", "umerkot")
ASMA, BILAL, CLOCK = Who("asma", "clinician"), Who("bilal", "clinician"), Who("nabz", "admin")
SPECIALTIES, CLINICS, DISTRICTS = ("cardiology", "dermatology", "general"), ("mithi", "umerkot"), ("tharparkar", "badin", None)

Result = TypeVar("Result")
_migrations: dict[str, list[tuple[str, Any]]] = {}
_kept: list[PostgresServer] = []


def migrated(url: str) -> str:
    """Bring an empty database to the newest version: the first of a kind by Alembic, the others by the statements it ran."""
    engine = make_engine(url)
    try:
        if engine.dialect.name in _migrations:
            with engine.begin() as connection:
                for statement, values in _migrations[engine.dialect.name]:
                    connection.exec_driver_sql(statement, values or None)
            return url
        run: list[tuple[str, Any]] = []
        event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, values, *_: run.append((statement, values)))
        migrate(engine)
        _migrations[engine.dialect.name] = [one for one in run if one[0].lstrip().startswith(("CREATE", "INSERT", "UPDATE"))]
        return url
    finally:
        engine.dispose()


def emptied(server: PostgresServer) -> str:
    """The URL of one database of the server's, kept for all tests that change rows only: its rows are removed here, past its triggers."""
    url = server.url("queue")
    if server not in _kept:
        with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE DATABASE queue TEMPLATE template0")
        _kept.append(server)
        return migrated(url)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for table in metadata.sorted_tables:
            connection.exec_driver_sql(f"DELETE FROM {table.name}")
        connection.exec_driver_sql("ALTER SEQUENCE events_sequence_seq RESTART")
        connection.execute(audit_head.insert().values(id=1, sequence=0, hash="0" * 64, mac=""))
    engine.dispose()
    return url


def opened(url: str) -> Engine:
    """An engine on an empty database, which is brought to the newest version."""
    return make_engine(migrated(url))


def started(url: str, **given: Any) -> Database:
    """A database with its thread running."""
    database = Database(url, KEY, **given)
    database.start()
    return database


def do(engine: Engine, work: Callable[[Unit], Result]) -> Result:
    """One job in a transaction of its own."""
    return transact(engine, work, KEY)


def referral(id_: str, level: int = 3, **given: Any) -> store.NewReferral:
    """A referral; `minutes_ago` says when it was received."""
    values: dict[str, Any] = {
        "clinic": "mithi", "district": "tharparkar", "specialty": "general", "floor_level": 5, "scored_by": "models",
        "needs_review": False, "risk": 0.25, "summary": b"summary " + id_.encode(), "patient": None, "content": b"content 1",
        "case_token": "t" * 64, "received_at": NOW - timedelta(minutes=given.pop("minutes_ago", 0)), **given,
    }  # fmt: skip
    return store.NewReferral(id=id_, level=level, **values)


def add(engine: Engine, new: Iterable[store.NewReferral], now: datetime = NOW, policy: Policy = POLICY) -> None:
    """Store referrals, each with the clinic's own event and audit row."""

    def work(unit: Unit) -> None:
        for one in new:
            store.insert_referral(unit, one, Who(f"sender-{one.clinic}", "clinic", one.clinic), policy, now)

    do(engine, work)


def random_referrals(count: int, seed: int, prefix: str = "r") -> list[store.NewReferral]:
    """Referrals of all levels with many ties, some past their cap."""
    chance = random.Random(seed)
    return [
        referral(
            f"{prefix}-{place:05d}-{chance.randrange(16**4):04x}",
            level := chance.randint(1, 5),
            minutes_ago=chance.choice((0, 1, 5, 5, 5, 9, 11, 30, 61, 1500, 30_000, 50_000)) if level < 5 else chance.choice((5, 50_000)),
            risk=chance.choice((0.0, 0.25, 0.25, 0.5, 1.0)),
            specialty=chance.choice(SPECIALTIES),
            clinic=chance.choice(CLINICS),
            district=chance.choice(DISTRICTS),
            needs_review=chance.random() < 0.3,
        )
        for place in range(count)
    ]


def in_order(cases: Iterable[store.NewReferral], now: datetime = NOW, policy: Policy = POLICY) -> list[str]:
    """The ids in the order that `inference.queue` has."""
    return [one.case_id for one in ordered((Waiting(c.id, c.level, c.received_at, c.risk) for c in cases), policy, now)]


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    """What a query in SQL gives."""
    with engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def run_sql(engine: Engine, *statements: str) -> None:
    """Statements in SQL, in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
