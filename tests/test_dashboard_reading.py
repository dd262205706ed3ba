"""What the dashboard reads, on both databases: by events and indexes, in small pieces, with the patient's words left sealed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from queue_database import ASMA, BILAL, CLINIC, NOW, POLICY, add, do, migrated, referral, run_sql
from sqlalchemy import Engine, event

from inference.service import store
from inference.service.database import make_engine
from inference.service.tables import to_us
from inference.service.vault import Vault
from inference.service.web import dashboard_reading as reading
from inference.service.web.dashboard_history import History, Window, day_of
from inference.service.web.dashboard_pieces import Pieces, first_sequence
from inference.service.web.dashboard_reading import Reader

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTE_US = 60_000_000
TODAY = day_of(to_us(NOW))


@pytest.fixture
def engine(queue_url: str):
    """An empty database of each kind."""
    made = make_engine(queue_url)
    yield made
    made.dispose()


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """Keys of this test's own."""
    return Vault.open(tmp_path / "keys.json", create=True)


def arrive(engine: Engine, vault: Vault, id_: str, level: int = 3, at: datetime = NOW, **given: Any) -> None:
    """A case that is received and stored at once, with a summary as intake makes it."""
    said = {"age_years": 30, "sex": "male", "review": [], "syndromes": [], **given.pop("summary", {})}
    summary = vault.seal(orjson.dumps(said), f"referrals.summary:{id_}")
    add(engine, [referral(id_, level, received_at=at, summary=summary, **given)], at)


def read(engine: Engine, vault: Vault, days: int = 14, district: str | None = None, now: datetime = NOW, size: int = 1000) -> History:
    """The history, read in pieces of at most `size` events."""
    return Reader(Pieces(engine, size, size), vault, Window(now, days, district)).history()


def see(engine: Engine, id_: str, at: datetime, level: int | None = None) -> None:
    """Claim; override where a level is given, agree where not; complete."""
    do(engine, lambda unit: store.claim(unit, id_, ASMA, POLICY, at))
    if level is None:
        do(engine, lambda unit: store.add_note(unit, id_, ASMA, at, b"", store.AGREED))
    else:
        do(engine, lambda unit: store.override(unit, id_, ASMA, level, POLICY, at, b"why"))
    do(engine, lambda unit: store.complete(unit, id_, ASMA, at, None))


def test_an_empty_database(engine, vault):
    """Nothing, and no error."""
    found = read(engine, vault)
    assert (found.cases, dict(found.claims), found.decisions, found.first_day_ever) == ([], {}, [], None)
    assert set(found.open_by_level.values()) == {0}


def test_the_first_claim_ends_the_wait(engine, vault):
    """A second clinician who takes the case over later does not."""
    arrive(engine, vault, "a", 2, NOW - 5 * HOUR)
    do(engine, lambda unit: store.claim(unit, "a", ASMA, POLICY, NOW - 4 * HOUR))
    do(engine, lambda unit: store.release(unit, "a", ASMA, NOW - 4 * HOUR + HOUR / 2))
    do(engine, lambda unit: store.claim(unit, "a", BILAL, POLICY, NOW - 3 * HOUR))
    assert dict(read(engine, vault).claims) == {2: [60 * MINUTE_US]}


def test_a_claim_counts_on_its_day_by_the_level_then(engine, vault):
    """The case came before the window; it was overridden before it was claimed."""
    arrive(engine, vault, "a", 4, NOW - 20 * DAY)
    do(engine, lambda unit: store.override(unit, "a", ASMA, 3, POLICY, NOW - 2 * DAY, b"why"))
    do(engine, lambda unit: store.claim(unit, "a", ASMA, POLICY, NOW - DAY))
    found = read(engine, vault)
    assert dict(found.claims) == {3: [19 * 24 * 60 * MINUTE_US]}
    assert found.cases == []
    assert dict(read(engine, vault, now=NOW + 30 * DAY).claims) == {}


def test_who_waits_past_the_cap(engine, vault):
    """Never claimed and past the cap: also when the list's sweep has not run since. Claimed once, or within the cap: not."""
    arrive(engine, vault, "late", 2, NOW - 3 * HOUR)
    arrive(engine, vault, "in time", 2, NOW - HOUR / 2)
    arrive(engine, vault, "claimed once", 2, NOW - 4 * HOUR)
    do(engine, lambda unit: store.claim(unit, "claimed once", ASMA, POLICY, NOW - 3 * HOUR))
    do(engine, lambda unit: store.release(unit, "claimed once", ASMA, NOW - 3 * HOUR))
    assert dict(read(engine, vault).late) == {2: [180 * MINUTE_US]}
    do(engine, lambda unit: store.sweep_caps(unit, NOW))
    assert dict(read(engine, vault).late) == {2: [180 * MINUTE_US]}


def test_late_cases_are_read_page_by_page(engine, vault, monkeypatch):
    """Also where several have the same cap; a level with too many is cut."""
    for number in range(7):
        arrive(engine, vault, f"r{number}", 2, NOW - 3 * HOUR)
    do(engine, lambda unit: store.sweep_caps(unit, NOW))
    found = read(engine, vault, size=4)
    assert (found.late[2], found.is_cut_late) == ([180 * MINUTE_US] * 7, False)
    monkeypatch.setattr(reading, "MOST_LATE", 4)
    found = read(engine, vault, size=4)
    assert (len(found.late[2]), found.is_cut_late) == (4, True)


def test_how_the_queue_changed(engine, vault):
    """Came two days ago, was moved up yesterday and closed today."""
    arrive(engine, vault, "a", 4, NOW - 2 * DAY)
    arrive(engine, vault, "b", 4, NOW - 2 * DAY, district="badin")
    do(engine, lambda unit: store.override(unit, "a", ASMA, 3, POLICY, NOW - DAY, b"why"))
    see(engine, "a", NOW)
    found = read(engine, vault)
    changes = {key: value for key, value in found.change_by_level.items() if value}
    assert changes == {(TODAY - 2, 4): 2, (TODAY - 1, 4): -1, (TODAY - 1, 3): 1, (TODAY, 3): -1}
    assert found.change_by_district == {(TODAY - 2, "tharparkar"): 1, (TODAY - 2, "badin"): 1, (TODAY, "tharparkar"): -1}
    assert (found.open_by_level[4], found.open_by_level[3]) == (1, 0)
    assert {name: n for name, n in found.open_by_district.items() if n} == {"badin": 1}
    assert found.arrivals == {TODAY - 2: 2}


def test_what_clinicians_decided(engine, vault):
    """Overrides with both levels, agreements and completions; notes and claims are no decisions."""
    arrive(engine, vault, "a", 3, NOW - HOUR)
    arrive(engine, vault, "b", 3, NOW - HOUR)
    do(engine, lambda unit: store.add_note(unit, "b", ASMA, NOW, b"note"))
    see(engine, "a", NOW, level=2)
    see(engine, "b", NOW)
    found = sorted((one.referral_id, one.kind, one.level_before, one.level, one.day) for one in read(engine, vault).decisions)
    assert found == [
        ("a", "completed", 2, 2, TODAY),
        ("a", "overridden", 3, 2, TODAY),
        ("b", "agreed", 3, 3, TODAY),
        ("b", "completed", 3, 3, TODAY),
    ]


def test_cases_are_read_as_codes(engine, vault):
    """Kinds of reasons and syndromes, whether age and sex are known; newest first; those of the window before apart."""
    arrive(engine, vault, "old", 5, NOW - 20 * DAY, risk=0.5, scored_by="rules alone", needs_review=True)
    said = {"age_years": None, "review": ["the complaint is empty"], "syndromes": ["animal_bite"]}
    arrive(engine, vault, "a", 3, NOW - DAY, summary=said, district=None)
    arrive(engine, vault, "b", 2, NOW)
    found = read(engine, vault)
    assert [(case.day, case.level, case.is_patient_known) for case in found.cases] == [(TODAY, 2, True), (TODAY - 1, 3, False)]
    assert (found.cases[1].review_kinds, found.cases[1].syndromes) == (frozenset({"nothing_given"}), ("animal_bite",))
    assert found.cases[1].district is None
    assert [(case.level, case.risk, case.scored_by, case.needs_review) for case in found.cases_before] == [(5, 0.5, "rules alone", True)]


def test_erased_and_older_summaries_are_unknown(engine, vault):
    """Not "no reason" and not "no syndrome"."""
    arrive(engine, vault, "erased", at=NOW)
    add(engine, [referral("older", summary=vault.seal(b'{"age_years":1,"sex":"female"}', "referrals.summary:older"))])
    run_sql(engine, "UPDATE referrals SET summary = NULL WHERE id = 'erased'")
    by_kinds = {(case.review_kinds, case.syndromes) for case in read(engine, vault).cases}
    assert by_kinds == {(None, None), (frozenset(), None)}


def test_one_district_alone(engine, vault):
    """All of it: the queue, waits, decisions and cases."""
    for id_, district in (("a", "badin"), ("b", "thatta"), ("c", None)):
        arrive(engine, vault, id_, 2, NOW - 3 * HOUR, district=district)
    see(engine, "b", NOW)
    arrive(engine, vault, "d", 2, NOW - 3 * HOUR, district="thatta")
    found = read(engine, vault, district="thatta")
    assert (found.open_by_level[2], found.open_by_district) == (1, {"thatta": 1})
    assert (len(found.cases), found.claims[2], len(found.late[2])) == (2, [180 * MINUTE_US], 1)
    assert {one.referral_id for one in found.decisions} == {"b"}
    assert read(engine, vault, district="nowhere").cases == []


def test_pieces_are_small_and_lose_nothing(engine, vault):
    """The same history whether it is read at once or three events at a time."""
    for number in range(9):
        arrive(engine, vault, f"r{number}", 1 + number % 5, NOW - (20 - 2 * number) * DAY, district=f"d{number % 3}")
        if number % 2:
            see(engine, f"r{number}", NOW - (20 - 2 * number) * DAY + HOUR)
    whole = read(engine, vault)
    assert read(engine, vault, size=3) == whole
    assert len(whole.cases) + len(whole.cases_before) == 9


def test_a_busy_service_is_cut_at_its_newest(engine, vault, monkeypatch):
    """And says from which day on everything was read."""
    monkeypatch.setattr(reading, "MOST_CASES", 2)
    for back in range(5, 0, -1):
        arrive(engine, vault, f"r{back}", at=NOW - back * DAY)
    found = read(engine, vault, size=1)
    assert [case.day for case in found.cases] == [TODAY - 1, TODAY - 2]
    assert (found.is_cut, found.first_whole_day, found.is_cut_before) == (True, TODAY - 1, False)


def test_the_first_event_of_a_moment(engine, vault):
    """By halving: at a moment, between two, before all and after all; numbers may have gaps."""
    for back in (5, 4, 3):
        arrive(engine, vault, f"r{back}", at=NOW - back * HOUR)
    with engine.begin() as connection:
        found = [
            first_sequence(connection, to_us(at), 3) for at in (NOW - 4 * HOUR, NOW - 4 * HOUR + timedelta(seconds=1), NOW - 9 * HOUR, NOW)
        ]
        assert found == [2, 3, 1, 4]
    run_sql(engine, f"INSERT INTO events SELECT 90, {to_us(NOW)}, referral_id, kind, actor, role, clinic, district, specialty, level_before, level, state, revision, detail FROM events WHERE sequence = 1")  # fmt: skip
    with engine.begin() as connection:
        assert first_sequence(connection, to_us(NOW - HOUR), 90) in range(4, 91)
        assert first_sequence(connection, to_us(NOW) + 1, 90) == 91


def test_no_query_walks_a_table(tmp_path: Path, vault):
    """SQLite says of each query that it searches by an index or by the events' numbers."""
    made = make_engine(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    arrive(made, vault, "a", 2, NOW - 3 * HOUR)
    see(made, "a", NOW - HOUR)
    arrive(made, vault, "b", 2, NOW - 3 * HOUR)
    run: list[tuple[str, Any]] = []
    event.listen(made, "before_cursor_execute", lambda _c, _k, statement, values, *_: run.append((statement, values)))
    for district in (None, "badin"):
        read(made, vault, district=district)
    queries = [one for one in run if one[0].startswith("SELECT")]
    assert len(queries) > 20
    with made.connect() as connection:
        for statement, values in queries:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert not [step for step in plan if step.startswith("SCAN") and "CONSTANT" not in step], (statement, plan)
    made.dispose()


def test_reassessments_move_cases_too(engine, vault):
    """New findings made it urgent: the queue's levels change on that day."""
    arrive(engine, vault, "a", 4, NOW - DAY)
    values = {
        "was_version": 1, "was_level": 4, "level": 2, "is_worse": True, "floor_level": 5, "district": "tharparkar", "specialty": "general",
        "scored_by": "models", "needs_review": False, "risk": 0.25, "received_at": NOW - DAY, "summary": b"", "content": b"",
    }  # fmt: skip
    do(engine, lambda unit: store.reassess(unit, "a", store.Reassessment(**values), CLINIC, POLICY, NOW))
    run_sql(engine, "UPDATE referrals SET summary = NULL")
    changes = {key: value for key, value in read(engine, vault).change_by_level.items() if value}
    assert changes == {(TODAY - 1, 4): 1, (TODAY, 4): -1, (TODAY, 2): 1}


def test_moments_of_the_far_past_are_no_trouble(engine, vault):
    """A window that begins before the service, and one that is read after it went quiet."""
    arrive(engine, vault, "a", at=NOW)
    assert len(read(engine, vault, 90, now=datetime(2026, 7, 2, tzinfo=UTC)).cases) == 1
    quiet = read(engine, vault, 7, now=NOW + 365 * DAY)
    assert (quiet.cases, quiet.cases_before, quiet.open_by_level[3]) == ([], [], 1)


def test_a_slow_piece_makes_the_next_one_smaller(engine, monkeypatch):
    """Twenty milliseconds are aimed at: after a piece of forty the half, after a fast one twice as much, up to the most."""
    clock = iter([0, 0.04, 1, 1.001, 2, 2.001, 3, 13])
    monkeypatch.setattr("inference.service.web.dashboard_pieces.time.perf_counter", lambda: next(clock))
    pieces, sizes = Pieces(engine, 1000, 1500), []
    for _ in range(4):
        pieces.run_sized(lambda _: None)
        sizes.append(pieces.size)
    assert sizes == [500, 1000, 1500, 100]


def test_stretches_cover_every_event_once(engine):
    """Newest first, also when the size changes in between."""
    pieces, found = Pieces(engine, 4), []
    for low, high in pieces.stretches(3, 12):
        found += range(high, low, -1)
        pieces.size = 3
    assert found == list(range(12, 2, -1))
    assert list(pieces.stretches(5, 4)) == []
