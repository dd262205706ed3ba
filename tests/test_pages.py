"""The worklist's pages: put together they are the queue as of the first page's moment, whatever happens between them."""

from __future__ import annotations

import base64
import itertools
import random
from datetime import timedelta

import pytest
from queue_database import ASMA, KEY, NOW, POLICY, add, do, in_order, opened, random_referrals, referral
from sqlalchemy import event, insert

from inference.errors import ConflictError, MalformedError
from inference.service import pages, store
from inference.service.database import Unit, make_engine
from inference.service.pages import Page, read_page
from inference.service.tables import referrals, to_us

MINUTE = timedelta(minutes=1)
FILTERS = [
    {},
    {"level": 3},
    {"specialty": "cardiology"},
    {"clinic": "mithi"},
    {"district": "badin"},
    {"level": 4, "specialty": "general"},
    {"clinic": "umerkot", "specialty": "dermatology"},
]


@pytest.fixture
def engine(queue_url):
    """An empty database of each kind."""
    made = make_engine(queue_url)
    yield made
    made.dispose()


def page(engine, filters=None, state="open", limit=7, cursor=None, now=NOW) -> Page:
    return do(engine, lambda unit: read_page(unit, filters or {}, state, limit, cursor, now, KEY))


def walk(engine, filters=None, state="open", limit=7, now=NOW, between=lambda _number: NOW) -> list[str]:
    """All pages, one after the other; `between` does something before each further one and gives its moment."""
    shown, cursor = [], None
    for number in itertools.count():
        one = page(engine, filters, state, limit, cursor, now)
        shown += [row.id for row in one.rows]
        assert len(one.rows) <= limit
        if one.cursor is None:
            return shown
        cursor, now = one.cursor, between(number)
    raise AssertionError


def matching(new, filters):
    return [one for one in new if all(getattr(one, name) == value for name, value in filters.items())]


@pytest.mark.parametrize("seed", [1, 2])
def test_pages_put_together_are_the_pure_order(engine, seed):
    """For random queues with many ties, of any page size, under every filter."""
    new = random_referrals(120, seed)
    add(engine, new)
    for filters in FILTERS:
        expected = in_order(matching(new, filters))
        assert expected
        for limit in (1, 50) if len(expected) < 30 else (7, 50, 200):
            assert walk(engine, filters, limit=limit) == expected


def test_states_are_lists_of_their_own(engine):
    """Waiting, claimed, to be reviewed, and all that is open: each in the queue's order."""
    new = random_referrals(60, seed=4)
    add(engine, new)
    order = in_order(new)
    claimed = order[3:8]
    for id_ in claimed:
        do(engine, lambda unit, id_=id_: store.claim(unit, id_, ASMA, POLICY, NOW))
    assert walk(engine) == order
    assert walk(engine, state="claimed", limit=2) == claimed
    assert walk(engine, state="waiting") == [id_ for id_ in order if id_ not in claimed]
    assert walk(engine, state="review") == in_order(one for one in new if one.needs_review)
    assert walk(engine, state="completed") == []


def test_completed_cases_come_latest_first(engine):
    """Also where several were completed at one moment; they are on no other list."""
    new = [referral(f"c{place}") for place in range(9)]
    add(engine, new)
    for place, one in enumerate(new):
        moment = NOW + (place // 3) * MINUTE
        do(engine, lambda unit, one=one, moment=moment: store.claim(unit, one.id, ASMA, POLICY, moment))
        do(engine, lambda unit, one=one, moment=moment: store.complete(unit, one.id, ASMA, moment, None))
    for limit in (1, 2, 3, 200):
        assert walk(engine, state="completed", limit=limit) == [f"c{place}" for place in reversed(range(9))]
    assert walk(engine) == []


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_cases_that_pass_their_cap_between_pages_are_neither_skipped_nor_shown_twice(engine, seed):
    """They move to the front of their level, where earlier pages have been; later pages put them back where they were."""
    new = random_referrals(80, seed)
    add(engine, new)
    filters = FILTERS[seed]
    expected = in_order(matching(new, filters))
    moved = []

    def between(number: int):
        now = NOW + (6 + number) * MINUTE
        moved.append(do(engine, lambda unit: store.sweep_caps(unit, now)))
        return now

    assert walk(engine, filters, limit=5, between=between) == expected
    assert sum(moved) > 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_between_pages_what_stays_open_is_shown_once(engine, seed):
    """New cases, claims, releases and completions: cases that were there all the time come once each, in order."""
    chance = random.Random(seed)
    new = random_referrals(70, seed + 20)
    add(engine, new)
    gone: set[str] = set()
    late = [referral(f"late-{place}", chance.randint(1, 5), minutes_ago=chance.choice((0, 12, 50_000))) for place in range(40)]

    def between(number: int):
        now = NOW + (number + 1) * MINUTE
        add(engine, [late.pop() for _ in range(2) if late], now)
        for one in chance.sample(new, 2):
            if one.id in gone:
                continue
            do(engine, lambda unit: store.claim(unit, one.id, ASMA, POLICY, now))  # noqa: B023
            if chance.random() < 0.5:
                do(engine, lambda unit: store.complete(unit, one.id, ASMA, now, None))  # noqa: B023
                gone.add(one.id)
            else:
                do(engine, lambda unit: store.release(unit, one.id, ASMA, now))  # noqa: B023
        return now

    shown = walk(engine, limit=6, between=between)
    assert len(shown) == len(set(shown))
    assert [id_ for id_ in shown if not id_.startswith("late") and id_ not in gone] == [id_ for id_ in in_order(new) if id_ not in gone]
    assert gone


def test_a_cursor_is_of_its_list_alone(engine):
    """Altered, cut, or taken to another filter or state, it is refused; so is what never was one."""
    add(engine, random_referrals(30, seed=1))
    cursor = page(engine).cursor
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    altered = [
        base64.urlsafe_b64encode(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]).decode().rstrip("=") for place in range(len(raw))
    ]
    for bad in [*altered, cursor[:-4], "x", "ک", "A" * 5000, "e30"]:
        with pytest.raises(MalformedError, match="the cursor is not one of this list with these filters"):
            page(engine, cursor=bad)
    for filters, state in (({"level": 3}, "open"), ({}, "waiting"), ({}, "completed")):
        with pytest.raises(MalformedError, match="the cursor is not one of this list"):
            page(engine, filters, state, cursor=cursor)
    with pytest.raises(MalformedError, match="the cursor is not one of this list"):
        do(engine, lambda unit: read_page(unit, {}, "open", 7, cursor, NOW, b"another key"))
    assert page(engine, cursor=cursor).rows


def test_a_page_that_is_too_old_is_refused(engine):
    """After an hour the list must be read again from its start."""
    add(engine, random_referrals(30, seed=1))
    cursor = page(engine).cursor
    assert page(engine, cursor=cursor, now=NOW + 60 * MINUTE).rows
    with pytest.raises(ConflictError, match="this page of the list is too old: read it again from its start"):
        page(engine, cursor=cursor, now=NOW + 61 * MINUTE)


def test_a_list_that_changed_too_much_is_refused(engine, monkeypatch):
    """Rather than kept up at any price."""
    monkeypatch.setattr(pages, "_MOST_MOVED", 3)
    add(engine, [referral(f"c{place}", 1, minutes_ago=9) for place in range(9)])
    cursor = page(engine, limit=2).cursor
    with pytest.raises(ConflictError, match="the list has changed too much since its first page"):
        page(engine, limit=2, cursor=cursor, now=NOW + 5 * MINUTE)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def long_queue(request, tmp_path_factory):
    """20,000 referrals: most are open, some claimed, a quarter completed; the statistics are up to date."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('long') / 'nabz.db'}"
        yield from _filled(url)
    else:
        server = request.getfixturevalue("postgres_server")
        with server.fresh_database() as url:
            yield from _filled(url)


def _filled(url: str):
    engine = opened(url)
    new = random_referrals(1250, seed=1)
    states = {
        place: {"state": "completed", "is_open": 0, "completed_us": to_us(NOW) + place} if place % 4 == 0
        else {"state": "claimed", "holder": "asma", "lease_us": to_us(NOW)} for place in range(len(new)) if place % 4 == 0 or place % 50 == 1
    }  # fmt: skip

    def work(unit: Unit) -> None:
        inner = Unit(unit.connection)
        for one in new:
            store.insert_referral(inner, one, ASMA, POLICY, NOW)
        added = [row for table, row in inner.rows if table is referrals]
        empty = {"completed_us": None, "holder": None, "lease_us": None}
        unit.connection.execute(insert(referrals), [{**empty, **row, **states.get(place, {})} for place, row in enumerate(added)])
        names = ", ".join(column.name for column in referrals.columns if column.name != "id")
        for turn in range(4):  # doubled each time
            unit.connection.exec_driver_sql(f"INSERT INTO referrals (id, {names}) SELECT id || '-{turn}', {names} FROM referrals")

    do(engine, work)
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    yield engine
    engine.dispose()


@pytest.mark.parametrize("state", pages.STATES)
@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
def test_a_page_is_a_range_of_an_index(long_queue, state, filters):
    """No page sorts the queue or reads it whole: the first one, and one in the middle."""
    first = page(long_queue, filters, state, limit=20)
    cursor = page(long_queue, filters, state, limit=20, cursor=first.cursor).cursor if first.cursor else None
    statements = []

    def note(_connection, _cursor, sql, values, *_rest):
        statements.append((sql, values))

    event.listen(long_queue, "before_cursor_execute", note)
    try:
        page(long_queue, filters, state, limit=20)
        page(long_queue, filters, state, limit=20, cursor=cursor) if cursor else None
    finally:
        event.remove(long_queue, "before_cursor_execute", note)
    plans = [_plan(long_queue, sql, values) for sql, values in statements if not sql.startswith("BEGIN")]
    assert len(plans) >= (1 if state == "completed" else 2)
    for plan in plans:
        assert "Seq Scan" not in plan and "SCAN referrals" not in plan.replace("SCAN referrals USING INDEX", ""), plan
        if state != "claimed":  # capacities keep that list short: PostgreSQL may sort what its index gives
            assert "Sort" not in plan and "TEMP B-TREE" not in plan, plan


def _plan(engine, sql: str, values) -> str:
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + sql, values))
