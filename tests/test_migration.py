"""Migrations on both databases: to the tables as they are declared, undisturbed by a kill, and one at a time."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from queue_database import add, do, referral, rows, run_sql
from sqlalchemy import inspect

from inference.errors import StorageError
from inference.service import store
from inference.service.database import make_engine
from inference.service.migration import is_current, migrate, version
from inference.service.tables import metadata

_CHILD = """
    import os, sys
    from inference.service.database import make_engine
    from inference.service.migration import migrate
    url, kill_after = sys.argv[1], int(sys.argv[2])
    if kill_after:
        from sqlalchemy import event
        engine = make_engine(url)
        statements = []

        def count(_connection, _cursor, statement, *_rest):
            statements.append(statement)
            if len(statements) == kill_after:
                os._exit(9)

        event.listen(engine, "after_cursor_execute", count)
    else:
        engine = make_engine(url)
    print(migrate(engine))
    engine.dispose()
"""


def child(url: str, kill_after: int = 0) -> subprocess.Popen[str]:
    """A process that migrates, and ends without a word after so many statements."""
    code = textwrap.dedent(_CHILD)
    return subprocess.Popen([sys.executable, "-c", code, url, str(kill_after)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_migrated_database_is_as_the_tables_are_declared(database_url):
    """Columns, types, nullability and indexes; migrating again changes nothing."""
    engine = make_engine(database_url)
    with engine.begin() as connection:
        assert version(connection) is None and not is_current(connection)
    newest = migrate(engine)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert version(connection) == newest and is_current(connection)
    before = _schema(engine)
    assert migrate(engine) == newest
    assert _schema(engine) == before
    engine.dispose()


def _schema(engine) -> list[tuple[str, ...]]:
    """Everything there is, triggers and the conditions of partial indexes included, in the database's own words."""
    if engine.dialect.name == "sqlite":
        return sorted(rows(engine, "SELECT type, name, coalesce(sql, '') FROM sqlite_master"))
    return sorted(
        rows(engine, "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        + rows(engine, "SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal")
    )


def test_partial_indexes_have_the_conditions_that_are_declared(database_url):
    """Alembic does not compare them: without their condition, or with another one, pages would be slow and nobody told."""
    engine = make_engine(database_url)
    migrate(engine)
    made = {name: sql for kind, name, sql in _schema(engine) if kind == "index"}
    for table in metadata.sorted_tables:
        for index in table.indexes:
            condition = index.dialect_options[engine.dialect.name]["where"]
            found = made[index.name].partition(" WHERE ")[2]
            plain = found.replace("(", "").replace(")", "").replace("::text", "").replace("::bpchar", "")
            assert plain == ("" if condition is None else condition.text), index.name
    engine.dispose()


@pytest.mark.parametrize("kill_after", [5, 35])
def test_a_migration_that_was_killed_leaves_nothing_and_begins_again(database_url, kill_after):
    """Whatever was made before the kill is undone by the database."""
    killed = child(database_url, kill_after)
    assert killed.communicate(timeout=60)[0] == ""
    assert killed.returncode == 9
    engine = make_engine(database_url)
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == []
    migrate(engine)
    add(engine, [referral("a")])
    assert do(engine, lambda unit: store.find_referral(unit, "a").id) == "a"
    engine.dispose()


def test_two_processes_migrate_one_after_the_other(database_url):
    """Both come up, on one set of tables."""
    children = [child(database_url) for _ in range(2)]
    answers = [one.communicate(timeout=60) for one in children]
    assert [one.returncode for one in children] == [0, 0], answers
    assert answers[0] == answers[1]
    engine = make_engine(database_url)
    assert rows(engine, "SELECT count(*) FROM alembic_version") == [(1,)]
    assert rows(engine, "SELECT count(*) FROM audit_head") == [(1,)]
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused(queue_url):
    """And left as it is."""
    engine = make_engine(queue_url)
    add(engine, [referral("a")])
    ours = rows(engine, "SELECT version_num FROM alembic_version")[0][0]
    run_sql(engine, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(StorageError, match="the database is of version 9999, which this version of Nabz does not know"):
            migrate(engine)
        assert rows(engine, "SELECT version_num FROM alembic_version") == [("9999",)]
        assert do(engine, lambda unit: store.find_referral(unit, "a").revision) == 1
    finally:
        run_sql(engine, f"UPDATE alembic_version SET version_num = '{ours}'")
        engine.dispose()


def test_a_database_that_cannot_be_reached_is_named(tmp_path):
    """With what to look at, and without the URL, which may hold a password."""
    engine = make_engine(f"sqlite:///{tmp_path / 'nowhere' / 'nabz.db'}")
    with pytest.raises(StorageError, match=r"^the database cannot be brought to this version \(OperationalError\): see that it is there"):
        migrate(engine)
    engine.dispose()


def test_an_older_database_is_brought_up_with_its_rows(database_url):
    """What version 0001 stored is there after the newer migrations, and their indexes are."""
    from alembic import command

    from inference.service.migration import _config

    engine = make_engine(database_url)
    with engine.begin() as connection:
        configuration = _config()
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0001")
        names = (
            "id, clinic, specialty, state, is_open, level, machine_level, floor_level, scored_by, needs_review, on_time, order_us, neg_risk"
        )
        more = "received_us, due_us, cap_us, stored_us, updated_us, version, revision, case_token"
        values = "'r-1', 'mithi', 'x', 'waiting', 1, 3, 3, 3, 'nothing', 0, 1, 1, 0.0, 1, 1, 1, 1, 1, 1, 1, 't'"
        connection.exec_driver_sql(f"INSERT INTO referrals ({names}, {more}) VALUES ({values})")
        assert version(connection) == "0001" and not is_current(connection)
    assert migrate(engine) == "0002"
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id FROM referrals").scalar() == "r-1"
        assert "ix_events_overridden" in {index["name"] for index in inspect(connection).get_indexes("events")}
    engine.dispose()
