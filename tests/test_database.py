"""The thread that does the database's work: groups, what one job's failure does to others, and databases that fail."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
from queue_database import ASMA, CLINIC, KEY, NOW, POLICY, migrated, referral, rows, started
from sqlalchemy import Engine, text

from inference.errors import ConflictError, OverloadedError, PolicyError, StorageError
from inference.service.audit import verify
from inference.service.database import Database, Unit, database_url, make_engine
from inference.service.store import entry, insert_referral, record
from inference.service.tables import facts

NOT_STORED = r"the database could not do it \(.*\): nothing was stored; try again"


def fact(name: str, value: str = "v"):
    """A job that adds a row when its group is complete, and an audit row."""

    def work(unit: Unit) -> str:
        unit.add(facts, name=name, value=value)
        record(unit, ASMA, "noted", None, NOW)
        return name

    return work


def fact_at_once(name: str):
    """A job that writes at once."""

    def work(unit: Unit) -> str:
        unit.write(facts.insert().values(name=name, value="v"))
        return name

    return work


def refused(_unit: Unit) -> None:
    raise ConflictError("somebody else holds it")


def refused_after_writing(unit: Unit) -> None:
    unit.write(facts.insert().values(name="never", value="v"))
    refused(unit)


def broken(unit: Unit) -> None:
    unit.write(facts.insert().values(name="never", value="v"))
    raise ZeroDivisionError("a bug")


def wrong_sql(unit: Unit) -> None:
    unit.connection.execute(text("SELECT * FROM nowhere"))


def names(engine: Engine) -> list[str]:
    return [row[0] for row in rows(engine, "SELECT name FROM facts ORDER BY name")]


@contextlib.contextmanager
def running(url: str, **given):
    """A database with its thread, stopped afterwards."""
    database = started(url, **given)
    try:
        yield database
    finally:
        database.stop()


@contextlib.asynccontextmanager
async def busy(database: Database):
    """Keeps the thread busy: what is sent meanwhile waits, and then makes one group."""
    is_busy, go_on = threading.Event(), threading.Event()

    def hold(_unit: Unit) -> None:
        is_busy.set()
        go_on.wait(10)

    holding = asyncio.create_task(database.run(hold))
    await asyncio.to_thread(is_busy.wait, 10)
    try:
        yield
    finally:
        go_on.set()
        await holding


async def gathered(database: Database, *jobs):
    """All jobs in one group. Returns results and errors."""
    async with busy(database):
        tasks = [asyncio.create_task(database.run(job)) for job in jobs]
        await asyncio.sleep(0)  # all are in the queue
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_shares_a_transaction_and_is_answered_after_the_commit(queue_url):
    """Ten jobs, one group; when a caller has its answer, another connection sees the row."""
    with running(queue_url) as database:
        seen: list[list[str]] = []
        other = make_engine(queue_url)

        async def job(name: str) -> None:
            await database.run(fact(name))
            seen.append(await asyncio.to_thread(names, other))

        async def main() -> None:
            assert await gathered(database, *(fact(f"f{place}") for place in range(10))) == [f"f{place}" for place in range(10)]
            assert database.group_sizes[-1] == 10
            assert len(await asyncio.to_thread(names, other)) == 10
            await job("later")

        asyncio.run(main())
        other.dispose()
        assert "later" in seen[0]


def test_a_refusal_undoes_that_job_alone(queue_url):
    """Also when it had written something before it was refused."""
    for bad in (refused, refused_after_writing):
        with running(queue_url) as database:
            answers = asyncio.run(gathered(database, fact(f"a-{bad.__name__}"), bad, fact_at_once(f"b-{bad.__name__}")))
            assert answers[0] == f"a-{bad.__name__}" and answers[2] == f"b-{bad.__name__}"
            assert isinstance(answers[1], ConflictError)
            assert "never" not in names(database.engine)
            assert {answers[0], answers[2]} <= set(names(database.engine))


@pytest.mark.parametrize(("bad", "kind"), [(broken, ZeroDivisionError), (wrong_sql, StorageError)])
def test_a_bug_hurts_its_caller_alone(queue_url, bad, kind):
    """The others of its group are stored, once, and the thread goes on."""
    with running(queue_url) as database:
        answers = asyncio.run(gathered(database, fact("a"), bad, fact_at_once("b")))
        assert (answers[0], answers[2]) == ("a", "b")
        assert isinstance(answers[1], kind)
        assert asyncio.run(database.run(fact("c"))) == "c"
        assert names(database.engine) == ["a", "b", "c"]
        with database.engine.begin() as connection:
            assert verify(connection, KEY).rows == 2


def test_a_row_that_cannot_be_written_fails_its_job_alone(queue_url):
    """A key that is taken shows when the group is written, and only that job is refused."""
    with running(queue_url) as database:
        asyncio.run(database.run(fact("taken")))
        answers = asyncio.run(gathered(database, fact("a"), fact("taken"), fact("b")))
        assert (answers[0], answers[2]) == ("a", "b")
        with pytest.raises(StorageError, match=NOT_STORED):
            raise answers[1]
        assert names(database.engine) == ["a", "b", "taken"]


def test_a_message_never_quotes_a_row(queue_url):
    """What the driver says may hold what a patient said."""
    with running(queue_url) as database:
        asyncio.run(database.run(fact("taken")))
        with pytest.raises(StorageError) as failed:
            asyncio.run(database.run(fact("taken", "seenay mein dard")))
        assert "dard" not in str(failed.value) and "taken" not in str(failed.value)


def test_a_full_queue_turns_callers_away(tmp_path):
    """At once, with a time to come back; what was taken is done."""
    with running(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), queue_limit=3) as database:

        async def main() -> list[str]:
            async with busy(database):
                tasks = [asyncio.create_task(database.run(fact(f"f{place}"))) for place in range(3)]
                await asyncio.sleep(0)
                with pytest.raises(OverloadedError, match="too many changes wait to be stored: come back in a moment") as full:
                    await database.run(fact("surplus"))
                assert full.value.retry_after_seconds == 2
            return await asyncio.gather(*tasks)

        assert asyncio.run(main()) == ["f0", "f1", "f2"]
        assert names(database.engine) == ["f0", "f1", "f2"]


def test_a_caller_that_waited_too_long_is_told_and_its_job_skipped(tmp_path):
    """Nothing is stored behind its back; one who goes away is not served either."""
    with running(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), answer_seconds=0.2) as database:
        go_on = threading.Event()

        async def main() -> None:
            slow = asyncio.create_task(database.run(lambda _unit: go_on.wait(10)))
            await asyncio.sleep(0.02)
            gone = asyncio.create_task(database.run(fact("gone")))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(StorageError, match="the database did not answer in time: send it again, with the same Idempotency-Key"):
                await database.run(fact("late"))
            go_on.set()
            with pytest.raises(StorageError):
                await slow
            database._answer_seconds = 10
            assert await database.run(fact("next")) == "next"

        asyncio.run(main())
        assert names(database.engine) == ["next"]


def test_a_job_whose_group_fell_apart_is_skipped_once_its_caller_was_told(tmp_path):
    """The jobs of a group that failed are tried one by one, and that may take longer than callers wait."""
    with running(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), answer_seconds=0.3) as database:

        def slow_bug(_unit: Unit) -> None:
            time.sleep(0.35)
            raise ZeroDivisionError("a bug")

        answers = asyncio.run(gathered(database, slow_bug, fact("late")))
        assert [type(answer) for answer in answers] == [StorageError, StorageError]
        database._answer_seconds = 10
        assert asyncio.run(database.run(fact("next"))) == "next"
        assert names(database.engine) == ["next"]


def test_stop_does_what_waits(tmp_path):
    """And a full queue at that moment does not keep it from ending."""
    database = started(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), queue_limit=4)

    async def main() -> list[str]:
        async with busy(database):
            tasks = [asyncio.create_task(database.run(fact(f"f{place}"))) for place in range(4)]
            await asyncio.sleep(0)
            stopping = asyncio.create_task(asyncio.to_thread(database.stop))
        await stopping
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["f0", "f1", "f2", "f3"]
    assert names(database.engine) == ["f0", "f1", "f2", "f3"]
    database.engine.dispose()


def test_listeners_hear_of_commits_and_a_broken_one_stops_nothing(tmp_path):
    """An event loop that was closed must not take the thread with it."""
    with running(migrated(f"sqlite:///{tmp_path / 'nabz.db'}")) as database:
        heard = threading.Event()

        def gone() -> None:
            raise RuntimeError("Event loop is closed")

        database.on_commit(gone)
        database.on_commit(heard.set)
        asyncio.run(database.run(fact("a")))
        assert asyncio.run(database.run(fact("b"))) == "b"
        assert not heard.is_set()  # no events
        asyncio.run(database.run(lambda unit: insert_referral(unit, referral("a"), CLINIC, POLICY, NOW)))
        assert heard.wait(5)
        assert asyncio.run(database.run(fact("c"))) == "c"


def test_a_caller_who_is_cancelled_as_the_answer_comes_is_cancelled(tmp_path):
    """A task that lost this would not end, and the service would not stop."""
    database = Database(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), KEY)
    jobs = []
    database._put = jobs.append

    async def main() -> None:
        caller = asyncio.create_task(database.run(lambda _unit: None))
        await asyncio.sleep(0)
        jobs[0].done("answer", None)
        asyncio.get_running_loop().call_soon(caller.cancel)
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(main())
    database.stop()


def test_audit_rows_are_counted_once_written(queue_url):
    """Those of a change with it, those of a read with the next change or soon; what is undone does not count."""
    counted: list[int] = []
    with running(queue_url, count_audit_rows=counted.append) as database:
        asyncio.run(database.run(lambda unit: unit.audit_soon(entry(ASMA, "read", None, NOW))))
        asyncio.run(gathered(database, fact("a"), fact("b"), refused_after_writing))
        asyncio.run(database.run(lambda unit: unit.audit_soon(entry(ASMA, "read", None, NOW))))
    assert sum(counted) == rows(database.engine, "SELECT count(*) FROM audit")[0][0] == 4
    database.engine.dispose()


def test_a_sqlite_file_that_cannot_be_written_refuses_and_recovers(tmp_path):
    """Taken away and put back, the folder gone and put back: nothing needs a restart."""
    folder = tmp_path / "data"
    folder.mkdir()
    with running(migrated(f"sqlite:///{folder / 'nabz.db'}")) as database:
        asyncio.run(database.run(fact("a")))
        away = tmp_path / "away"
        folder.rename(away)
        with pytest.raises(StorageError, match="nothing was stored; try again"):
            asyncio.run(database.run(fact("b")))
        away.rename(folder)
        assert asyncio.run(database.run(fact("c"))) == "c"
        database.engine.dispose()
        (folder / "nabz.db").rename(folder / "x")
        (folder / "nabz.db").mkdir()
        with pytest.raises(StorageError, match=NOT_STORED):
            asyncio.run(database.run(fact("d")))
        (folder / "nabz.db").rmdir()
        (folder / "x").rename(folder / "nabz.db")
        assert asyncio.run(database.run(fact("e"))) == "e"
        assert names(database.engine) == ["a", "c", "e"]


def test_another_writer_that_holds_the_file_is_waited_for(tmp_path):
    """As a backup or a command does, for less than the wait."""
    url = migrated(f"sqlite:///{tmp_path / 'nabz.db'}")
    other = make_engine(url)
    with running(url) as database:
        asyncio.run(database.run(fact("0")))
        with other.begin() as connection:
            connection.execute(facts.insert().values(name="other", value="v"))
            timer = threading.Timer(0.3, connection.commit)
            timer.start()
            assert asyncio.run(database.run(fact("a"))) == "a"
            timer.join()
        assert names(database.engine) == ["0", "a", "other"]
    other.dispose()


async def at_once(database: Database, *jobs):
    return await asyncio.gather(*(database.run(job) for job in jobs), return_exceptions=True)


def test_a_postgresql_that_was_stopped_refuses_and_recovers(postgres_server, postgres_url):
    """Each job is told; after the restart the first one is stored, and nothing was written twice."""
    with running(migrated(postgres_url)) as database:
        asyncio.run(database.run(fact("a")))
        postgres_server.stop()
        answers = asyncio.run(at_once(database, fact("b"), fact("c")))
        assert [type(answer) for answer in answers] == [StorageError, StorageError]
        postgres_server.start()
        assert asyncio.run(database.run(fact("d"))) == "d"
        postgres_server.stop()
        postgres_server.start()  # its connections are dead, and the database does not know yet
        assert asyncio.run(database.run(fact("e"))) == "e"
        assert names(database.engine) == ["a", "d", "e"]


def test_run_now_needs_no_thread_and_refuses_likewise(queue_url):
    """For commands, and before the service runs."""
    database = Database(queue_url, KEY)
    assert database.run_now(fact("a")) == "a"
    with pytest.raises(ConflictError, match="somebody else holds it"):
        database.run_now(refused_after_writing)
    with pytest.raises(StorageError, match=NOT_STORED):
        database.run_now(wrong_sql)
    assert names(database.engine) == ["a"]
    database.stop()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "names neither a SQLite file nor PostgreSQL"),
        ("sqlite://", "names neither a SQLite file nor PostgreSQL"),
        ("sqlite:///:memory:", "names neither a SQLite file nor PostgreSQL"),
        ("not a url", "cannot be read"),
        ("nosuch://x/y", "NABZ_DATABASE_URL"),
    ],
)
def test_urls_that_cannot_be_used_are_named(url, words):
    """With what to write instead."""
    with pytest.raises(PolicyError, match=words):
        database_url(url)


def test_postgresql_urls_get_the_installed_driver():
    """Whatever driver an operator's URL names, or none."""
    assert database_url("postgresql://u:p@h/d").drivername == "postgresql+psycopg"
    assert database_url("postgresql+psycopg2://u@h/d").drivername == "postgresql+psycopg"


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path):
    """Rollback journal, full sync, and freed pages overwritten."""
    engine = make_engine(migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    assert [rows(engine, f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "secure_delete")] == ["delete", 2, 1]
    engine.dispose()
