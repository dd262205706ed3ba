"""The private PostgreSQL server and the fixtures on it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psycopg
import pytest
from postgres import NOT_INSTALLED, PostgresServer, find_binaries, is_alive
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

FIRST_URLS: list[str] = []


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), connect_timeout=2, autocommit=True)


def test_database_urls_of_both_kinds_open_an_empty_database(database_url):
    """Each kind's URL is usable by SQLAlchemy as it is, and nothing is in it."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE referral (id INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO referral VALUES (1)"))
        assert connection.execute(text("SELECT count(*) FROM referral")).scalar_one() == 1
    engine.dispose()


@pytest.mark.parametrize("_turn", [1, 2])
def test_every_test_gets_a_database_of_its_own(postgres_url, _turn):
    """What one test writes is not there for the next, and the one before is gone."""
    with connect(postgres_url) as connection:
        connection.execute("CREATE TABLE referral (id INTEGER)")
        names = {row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%'")}
    assert names == {postgres_url.rpartition("/")[2]}
    assert postgres_url not in FIRST_URLS
    FIRST_URLS.append(postgres_url)


def test_text_is_utf8_and_a_commit_is_synced(postgres_url):
    """The cluster's encoding does not depend on the caller's locale; fsync is on unless a caller turns it off."""
    with connect(postgres_url) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_a_committed_row_survives_stop_and_kill(postgres_server, postgres_url):
    """After a stop, and after SIGKILL, the server starts on the same port with what was committed."""
    with connect(postgres_url) as connection:
        connection.execute("CREATE TABLE referral (id INTEGER)")
    for number, end in enumerate((postgres_server.stop, postgres_server.kill9)):
        with connect(postgres_url) as connection:
            connection.execute("INSERT INTO referral VALUES (%s)", (number,))
            end()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(postgres_url)
        assert not postgres_server.is_running
        postgres_server.start()
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT array_agg(id ORDER BY id) FROM referral").fetchone() == ([0, 1],)


def test_a_paused_server_keeps_its_connections_and_answers_after_resume(postgres_server, postgres_url):
    """Neither the server nor a backend that is already connected answers while paused; the connection then goes on."""
    with connect(postgres_url) as connection:
        connection.execute("SELECT 1")
        postgres_server.pause()
        assert postgres_server.is_running
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(postgres_url)
        connection.pgconn.send_query(b"SELECT 7")
        time.sleep(0.2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        postgres_server.resume()
        answer = connection.pgconn.get_result()
        assert answer is not None and answer.get_value(0, 0) == b"7"
        assert connection.pgconn.get_result() is None


def test_a_test_may_leave_the_server_down(postgres_server):
    """The database is dropped, and the server runs again, whatever state a test left it in."""
    for leave in (postgres_server.stop, postgres_server.kill9, postgres_server.pause):
        with postgres_server.fresh_database() as url:
            leave()
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            connect(url)


def test_a_database_is_copied_from_a_template(postgres_server):
    """A migrated database can be the template of the next one."""
    with postgres_server.fresh_database() as url:
        with connect(url) as connection:
            connection.execute("CREATE TABLE referral (id INTEGER)")
        with postgres_server.fresh_database(url.rpartition("/")[2]) as copy, connect(copy) as connection:
            assert connection.execute("SELECT count(*) FROM referral").fetchone() == (0,)


def test_the_server_dies_with_the_process_that_started_it():
    """A test session that is killed leaves neither a server nor its folder."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(NOT_INSTALLED)
    program = """
        import os, signal
        from pathlib import Path
        from postgres import PostgresServer
        server = PostgresServer(Path(%r), fsync=False)
        server.start()
        print(server.folder, server._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program % str(binaries))],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    folder, pid = ran.stdout.split()
    deadline = time.monotonic() + 30
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not is_alive(int(pid))


def test_a_cluster_that_cannot_be_made_says_why():
    """The program's own words are in the error."""
    with tempfile.TemporaryDirectory() as name:  # not pytest's folder, which only its owner can enter
        folder = Path(name)
        folder.chmod(0o755)
        for program in ("initdb", "postgres", "pg_ctl"):
            (folder / program).write_text("#!/bin/sh\necho no room here >&2\nexit 1\n", encoding="utf-8")
            (folder / program).chmod(0o755)
        with pytest.raises(RuntimeError, match=r"^initdb failed: no room here$"):
            PostgresServer(folder)


def test_without_binaries_the_reason_is_named(monkeypatch):
    """No folder is found where nothing is installed."""
    monkeypatch.setattr("postgres.shutil.which", lambda name: None)
    monkeypatch.setattr("postgres.Path.glob", lambda *_: iter(()))
    assert find_binaries() is None
