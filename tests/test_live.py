"""Live updates: in order, without a gap, to who may see them, until the service closes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from queue_database import ASMA, CLINIC, NOW, OTHER_CLINIC, POLICY, add, do, referral, started
from sqlalchemy import inspect

from inference.errors import BusyError, OverloadedError
from inference.service import live as live_module
from inference.service import store
from inference.service.callers import Who
from inference.service.database import Database
from inference.service.live import LiveUpdates, Update


@pytest.fixture
def database(queue_url, monkeypatch):
    """An empty database of each kind, running; listeners look often."""
    monkeypatch.setattr(live_module, "_PAUSE_SECONDS", 0.0)
    made = started(queue_url)
    yield made
    made.stop()


async def take(listener, count: int) -> list[Update]:
    """The next `count` updates."""
    found: list[Update] = []
    async with asyncio.timeout(20):
        async for update in listener:
            if isinstance(update, Update):
                found.append(update)
            if len(found) == count:
                break
    return found


async def quiet(listener) -> bool:
    """Whether the next look finds nothing."""
    async with asyncio.timeout(20):
        return isinstance(await anext(listener), int)


def opened(database: Database) -> LiveUpdates:
    """Live updates within the running loop."""
    live = LiveUpdates(database)
    live.start()
    return live


def later(database: Database, *new: store.NewReferral):
    return asyncio.to_thread(add, database.engine, new)


def test_a_listener_hears_what_happens_from_now_on(database):
    """In order, with what is needed to redraw a row and nothing of the patient's."""

    async def main() -> None:
        await later(database, referral("before"))
        async with contextlib.aclosing(opened(database).listen(ASMA, None)) as listener:
            assert await quiet(listener)
            await later(database, referral("a", 2), referral("b", 4))
            await asyncio.to_thread(do, database.engine, lambda unit: store.claim(unit, "a", ASMA, POLICY, NOW))
            heard = await take(listener, 3)
        assert [(one.kind, one.data["referral_id"], one.data["state"]) for one in heard] == [
            ("created", "a", "waiting"),
            ("created", "b", "waiting"),
            ("claimed", "a", "claimed"),
        ]
        assert [one.sequence for one in heard] == sorted(one.sequence for one in heard)
        assert heard[0].data == {
            "sequence": heard[0].sequence, "at": NOW.isoformat(), "kind": "created", "referral_id": "a", "level_before": None, "level": 2,
            "state": "waiting", "specialty": "general", "district": "tharparkar", "clinic": "mithi", "revision": 1,
        }  # fmt: skip

    asyncio.run(main())


def test_a_commit_wakes_a_listener(database, monkeypatch):
    """It need not wait for its next look."""
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 600)

    async def main() -> None:
        async with contextlib.aclosing(opened(database).listen(ASMA, None)) as listener:
            assert await quiet(listener)
            waiting = asyncio.create_task(take(listener, 1))
            await asyncio.sleep(0.05)
            new = referral("a")
            await database.run(lambda unit: store.insert_referral(unit, new, CLINIC, POLICY, NOW))
            assert [one.data["referral_id"] for one in await waiting] == ["a"]

    asyncio.run(main())


def test_a_commit_without_events_wakes_nobody(database, monkeypatch):
    """Else every listener's own look would wake all listeners."""
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 600)

    async def main() -> tuple[bool, bool]:
        live = opened(database)
        async with contextlib.aclosing(live.listen(ASMA, None)) as listener:
            assert await quiet(listener)
            before = live._wake
            await database.run(lambda unit: store.record(unit, ASMA, "read", None, NOW))
            await database.run(lambda _unit: None)
            woke_for_nothing = live._wake is not before
            await database.run(lambda unit: store.insert_referral(unit, referral("a"), CLINIC, POLICY, NOW))
            async with asyncio.timeout(20):
                await before.wait()
            return woke_for_nothing, before.is_set()

    assert asyncio.run(main()) == (False, True)


def test_another_processs_commits_are_heard(database, queue_url, monkeypatch):
    """By looking now and then."""
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 0.02)
    other = Database(queue_url, database.audit_key)

    async def main() -> None:
        async with contextlib.aclosing(opened(database).listen(ASMA, None)) as listener:
            assert await quiet(listener)
            await asyncio.to_thread(add, other.engine, [referral("a")])
            assert [one.data["referral_id"] for one in await take(listener, 1)] == ["a"]

    asyncio.run(main())
    other.engine.dispose()


def test_a_listener_resumes_where_it_stopped(database, monkeypatch):
    """From any sequence: neither a gap nor a repetition, over several pages."""
    monkeypatch.setattr(live_module, "_PAGE", 4)

    async def main() -> None:
        await later(database, *(referral(f"r{place}") for place in range(11)))
        live = opened(database)
        async with contextlib.aclosing(live.listen(ASMA, 0)) as listener:
            everything = await take(listener, 11)
        for stop in (0, 3, 4, 10):
            after = everything[stop - 1].sequence if stop else 0
            async with contextlib.aclosing(live.listen(ASMA, after)) as listener:
                assert await take(listener, 11 - stop) == everything[stop:]

    asyncio.run(main())


def test_a_listener_that_heard_nothing_yet_knows_where_to_resume(database):
    """What happens between its first connection and its second is not lost."""

    async def main() -> None:
        await later(database, referral("before"))
        live = opened(database)
        async with contextlib.aclosing(live.listen(ASMA, None)) as listener:
            place = await anext(listener)
        assert isinstance(place, int)
        await later(database, referral("meanwhile"))
        async with contextlib.aclosing(live.listen(ASMA, place)) as listener:
            assert [one.data["referral_id"] for one in await take(listener, 1)] == ["meanwhile"]

    asyncio.run(main())


def test_the_walk_over_other_clinics_events_has_an_index(database):
    """A clinic that resumes from long ago reads its own rows alone."""

    def plan(unit) -> str:
        query = "SELECT * FROM events WHERE sequence > 0 AND sequence <= 99 AND clinic = 'mithi' ORDER BY sequence LIMIT 200"
        if unit.connection.dialect.name == "sqlite":
            return str(unit.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
        # On a table as small as this one PostgreSQL may prefer any index: that there is the right one must do.
        return str([index for index in inspect(unit.connection).get_indexes("events") if index["column_names"] == ["clinic", "sequence"]])

    assert "ix_events_clinic" in do(database.engine, plan)


def test_a_clinic_hears_of_its_own_referrals_alone(database, monkeypatch):
    """However many of the others' lie between."""
    monkeypatch.setattr(live_module, "_PAGE", 3)

    async def main() -> None:
        await later(database, *(referral(f"r{place}", clinic="mithi" if place % 5 == 0 else "umerkot") for place in range(20)))
        live = opened(database)
        async with contextlib.aclosing(live.listen(CLINIC, 0)) as mine, contextlib.aclosing(live.listen(OTHER_CLINIC, 0)) as theirs:
            assert [one.data["referral_id"] for one in await take(mine, 4)] == ["r0", "r5", "r10", "r15"]
            assert {one.data["clinic"] for one in await take(theirs, 16)} == {"umerkot"}
            assert await quiet(mine)
            await later(database, referral("x", clinic="umerkot"), referral("y", clinic="mithi"))
            assert [one.data["referral_id"] for one in await take(mine, 1)] == ["y"]
            assert [one.data["referral_id"] for one in await take(theirs, 1)] == ["x"]

    asyncio.run(main())


def test_a_clinics_listener_does_not_read_the_others_events_again_and_again(database):
    """After a look it goes on from the newest event, whosever that was."""
    looked: list[int] = []

    async def main() -> None:
        await later(database, *(referral(f"r{place}", clinic="umerkot") for place in range(5)))
        live = opened(database)
        original = live_module._next
        live_module._next = lambda unit, after, clinic: looked.append(after) or original(unit, after, clinic)
        try:
            async with contextlib.aclosing(live.listen(CLINIC, 0)) as listener:
                assert await quiet(listener)
                live._notify()
                assert await quiet(listener)
        finally:
            live_module._next = original

    asyncio.run(main())
    assert looked[0] == 0 and looked[1] == 5


def test_closing_ends_every_listener(database, monkeypatch):
    """So that the service can stop while clients stay connected."""
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 600)

    async def main() -> list[list[Update]]:
        live = opened(database)
        listeners = [asyncio.create_task(take(live.listen(ASMA, None), 1)) for _ in range(3)]
        while live._listeners.total() < 3:
            await asyncio.sleep(0.001)
        live.close()
        return await asyncio.gather(*listeners)

    assert asyncio.run(main()) == [[], [], []]


def test_too_many_listeners_are_turned_away_and_places_come_back(database, monkeypatch):
    """A listener that goes frees its place."""
    monkeypatch.setattr(live_module, "_MOST_LISTENERS", 1)

    async def main() -> None:
        live = opened(database)
        async with contextlib.aclosing(live.listen(ASMA, 0)) as first:
            assert await quiet(first)
            with pytest.raises(OverloadedError, match="too many listen to live updates: read the worklist again from time to time"):
                await anext(live.listen(CLINIC, 0))
        async with contextlib.aclosing(live.listen(CLINIC, 0)) as again:
            assert await quiet(again)
        assert live._listeners == {}

    asyncio.run(main())


def test_one_caller_cannot_take_every_place(database):
    """A few each; the others' places stay free."""

    async def main() -> None:
        live = opened(database)
        mine = [live.listen(ASMA, 0) for _ in range(5)]
        assert all([await quiet(one) for one in mine])
        with pytest.raises(BusyError, match="you listen to live updates 5 times already: end one of them first"):
            await anext(live.listen(Who(ASMA.subject, "clinician"), 0))
        async with contextlib.aclosing(live.listen(CLINIC, 0)) as other:
            assert await quiet(other)
        for one in mine:
            await one.aclose()

    asyncio.run(main())


def test_a_listener_must_come_back_now_and_then(database, monkeypatch):
    """With a token that is still good: also when it reads slowly."""
    monkeypatch.setattr(live_module, "_LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 0.01)

    async def heard(pause: float) -> int:
        async with asyncio.timeout(20):
            looks = 0
            async for update in opened(database).listen(ASMA, 0):
                looks += isinstance(update, Update)
                await asyncio.sleep(pause)
            return looks

    assert asyncio.run(heard(0)) == 0
    add(database.engine, [referral(f"r{place}") for place in range(5)])
    assert asyncio.run(heard(0.06)) == 1
