"""A page of the worklist while very many referrals are open: how long it takes, and how many rows the database reads for it."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
from sqlalchemy import event, select, text

from inference.case import read_case
from inference.models import load_models
from inference.policy import load_policy
from inference.service import pages, store
from inference.service.callers import Who
from inference.service.database import Unit, make_engine, transact
from inference.service.intake import new_id, summary_of
from inference.service.tables import referrals
from inference.service.vault import Vault
from inference.triage import Triage
from reliability.cases import cases
from reliability.live_service import HOST, ROOT, LiveService
from reliability.outcome import Ground, Outcome

P99_MILLISECONDS = 5.0
_ROWS_AT_ONCE = 5000
_WAITED_DAYS = 20
_MOST_ROWS_READ = 500
_CLINICS, _DISTRICTS = [f"clinic-{n}" for n in range(40)], [f"district {n}" for n in range(30)]
_FILLER = Who("filler", "clinic", _CLINICS[0])


def run(size: int, ground: Ground, requests: int = 500) -> Outcome:
    """`size` open referrals, `requests` pages of each kind."""
    outcome = Outcome("long queue")
    service = LiveService(ground.folder, ground.database_url)
    try:
        service.start()  # makes the keys and the tables, and notes the policy
        service.stop()
        began = time.monotonic()
        _fill(service, size)
        outcome.done |= {"open referrals": size, "filled in, s": round(time.monotonic() - began)}
        _check_plans(outcome, ground)
        kinds = dict(_kinds(service, size))
        began = time.monotonic()
        service.start()
        outcome.done["started in, s"] = round(time.monotonic() - began, 1)
        for kind, (headers, paths) in kinds.items():
            _measure(outcome, service, kind, headers, paths, requests, is_timed=ground.is_timed)
    finally:
        service.kill9()
    return outcome


def _fill(service: LiveService, size: int) -> None:
    """Write referrals as the service does, through the same functions, thousands in a transaction. Their full assessments are stubs."""
    chance, policy, now = random.Random(3), load_policy(), datetime.now(UTC)
    vault, engine = Vault.open(service.settings.keys), make_engine(service.database_url)
    samples = _samples()

    def work(unit: Unit, count: int) -> None:
        for _ in range(count):
            id_, (summary, level, specialty, risk) = new_id(), chance.choice(samples)
            received = now - timedelta(days=_WAITED_DAYS) * chance.random()
            row = store.NewReferral(
                id=id_, clinic=chance.choice(_CLINICS), district=chance.choice(_DISTRICTS), specialty=specialty, level=level, floor_level=level,
                scored_by="models and rules", needs_review=chance.random() < 0.1, risk=risk, received_at=received,
                summary=vault.seal(orjson.dumps(summary), f"referrals.summary:{id_}"), patient=None, content=b"stub", case_token=id_,
            )  # fmt: skip
            store.insert_referral(unit, row, _FILLER, policy, now)

    for start in range(0, size, _ROWS_AT_ONCE):
        transact(engine, partial(work, count=min(_ROWS_AT_ONCE, size - start)), vault.mac_key("audit"))
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE referrals"))
    engine.dispose()


def _samples() -> list[tuple[dict[str, Any], int, str, float]]:
    """Summaries, levels, specialties and risks of invented cases; the levels as they come, so that most cases can wait."""
    triage, now = Triage(load_models(ROOT / "models")), datetime.now(UTC)
    readings = [read_case(case, "case") for case in cases()]
    assessed = triage.assess_each(readings, [now] * len(readings))
    return [
        (summary_of(reading.case, one), one.level, one.specialty, one.emergency_probability or 0.0)
        for reading, one in zip(readings, assessed, strict=True)
    ]


def _kinds(service: LiveService, size: int) -> Iterator[tuple[str, tuple[dict[str, str], Callable[[int], str]]]]:
    """Pages by what they ask for: whose token, and the path of the nth request."""
    clinician, clinic = service.token("clinician"), service.token("clinic", _CLINICS[0])

    def of(**asked: Any) -> Callable[[int], str]:
        return lambda _: "/v1/worklist?" + urlencode({"limit": 50, **asked})

    yield "first page", (clinician, of())
    yield "level 4", (clinician, of(level=4))
    yield "specialty", (clinician, of(specialty="family_medicine"))
    yield "district", (clinician, lambda n: of(district=_DISTRICTS[n % len(_DISTRICTS)])(n))
    yield "waiting", (clinician, of(state="waiting"))
    yield "for review", (clinician, of(state="review"))
    yield "a clinic's own", (clinic, of())
    for share in (0.5, 0.9):
        cursors = _cursors(service, int(size * share))
        yield f"behind {share:.0%}", (clinician, lambda n, cursors=cursors: of(cursor=cursors[n % len(cursors)])(n))  # type: ignore[misc]


def _cursors(service: LiveService, depth: int) -> list[str]:
    """Cursors of ten pages that follow each other from `depth` on: to turn thousands of pages would take too long."""
    key, engine, as_of = Vault.open(service.settings.keys).mac_key("cursor"), make_engine(service.database_url), datetime.now(UTC)
    order = [referrals.c[name] for name in pages.ORDER_COLUMNS]
    query = select(*order).where(referrals.c.is_open == store.ONE).order_by(*order).offset(depth).limit(500)
    with engine.begin() as connection:
        rows = connection.execute(query).fetchall()[::50]
    engine.dispose()
    scope = json.dumps(["open", []])
    return [pages._seal_cursor(as_of, list(row), scope, key) for row in rows]


def _measure(
    outcome: Outcome, service: LiveService, kind: str, headers: dict[str, str], path: Callable[[int], str], requests: int, *, is_timed: bool
) -> None:
    """Ask again and again over one connection, as a clinician's screen does."""
    connection = http.client.HTTPConnection(HOST, service.port, timeout=60)
    milliseconds = []
    for number in range(requests + 5):
        began = time.perf_counter()
        connection.request("GET", path(number), headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        milliseconds.append(1000 * (time.perf_counter() - began))
        outcome.require(answer.status == 200, f"{kind}: status {answer.status}")
        if number == 0 and answer.status == 200:
            rows = json.loads(content)["items"]
            outcome.require(
                len(rows) == 50 and all(row["summary"] for row in rows), f"{kind}: a page has {len(rows)} rows, expected 50 with summaries"
            )
    connection.close()
    p50, p99 = np.percentile(milliseconds[5:], (50, 99))
    outcome.done[f"{kind}: p50, p99 ms"] = f"{p50:.1f}, {p99:.1f}"
    outcome.require(not is_timed or p99 <= P99_MILLISECONDS, f"{kind}: p99 is {p99:.1f} ms, expected at most {P99_MILLISECONDS:.0f}")


def _check_plans(outcome: Outcome, ground: Ground) -> None:
    """Whatever the filter, a page is one range of an index in its order; PostgreSQL, which may choose to sort a few rows, reads few."""
    engine, now = make_engine(ground.database_url), datetime.now(UTC)
    said: list[Any] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT referrals") and " LIMIT " in statement:
            words = "EXPLAIN (ANALYZE, FORMAT JSON) " if ground.is_postgres else "EXPLAIN QUERY PLAN "
            found = connection.connection.driver_connection.execute(words + statement, parameters).fetchall()
            said.append(found[0][0][0]["Plan"] if ground.is_postgres else "; ".join(str(row[-1]) for row in found))

    event.listen(engine, "before_cursor_execute", explain)
    filters: list[dict[str, Any]] = [
        {},
        {"level": 4},
        {"specialty": "family_medicine"},
        {"district": _DISTRICTS[0]},
        {"clinic": _CLINICS[0]},
    ]
    with engine.begin() as connection:
        for filter_ in filters:
            pages.read_page(Unit(connection), filter_, "open", 50, None, now, b"k")
    engine.dispose()
    outcome.require(len(said) >= len(filters), "no plan was seen")
    for plan in said:
        if ground.is_postgres:
            outcome.require(
                (rows := _rows_read(plan)) <= _MOST_ROWS_READ, f"{rows} rows are read for a page of 50: {json.dumps(plan)[:300]}"
            )
        else:
            is_range = plan.startswith(("SEARCH referrals USING INDEX", "SCAN referrals USING INDEX ix_open"))
            outcome.require(is_range and "TEMP B-TREE" not in plan, f"a page is not one range of an index: {plan[:200]}")
    outcome.done["plans"] = len(said)


def _rows_read(plan: dict[str, Any]) -> int:
    """The most rows that any step of a PostgreSQL plan gave or threw away."""
    own = int(plan["Actual Rows"]) * int(plan["Actual Loops"]) + int(plan.get("Rows Removed by Filter", 0))
    return max(own, *(_rows_read(step) for step in plan.get("Plans", [])), 0)
