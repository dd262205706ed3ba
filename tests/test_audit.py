"""Tampering with the audit trail: each kind is found, and the first row that is not as it was written is named."""

from __future__ import annotations

import json
import random
import shutil
import stat
import threading
from functools import partial

import pytest
from queue_database import ASMA, KEY, NOW, add, do, opened, referral, rows, run_sql
from sealed_rows import settings_of
from sqlalchemy import text

from inference.errors import StorageError
from inference.service import anchors, audit
from inference.service.audit import AuditCheck, check_key, verify, verify_in_pages
from inference.service.database import Database, Unit, make_engine, read, transact
from inference.service.parts import open_vault
from inference.service.store import record
from inference.service.vault import Vault

ROWS = 12
TEXTS = ("actor", "role", "action", "referral_id", "detail", "hash")


def write(engine, count: int = ROWS, first: int = 1) -> None:
    """Audit rows, one transaction each third."""
    for start in range(first, first + count, 3):

        def work(unit: Unit, start: int = start) -> None:
            for number in range(start, min(start + 3, first + count)):
                record(unit, ASMA, "read", f"r-{number}", NOW, number=number)

        do(engine, work)


@pytest.fixture
def engine(queue_url):
    """A trail of twelve rows on each kind of database."""
    made = make_engine(queue_url)
    write(made)
    yield made
    made.dispose()


def check(engine, key: bytes = KEY, anchors=None) -> AuditCheck:
    with engine.begin() as connection:
        return verify(connection, key, anchors)


def tamper(engine, *statements: str, **values) -> None:
    """Statements past the triggers, as somebody with the file or the superuser's password would send them."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            triggers = []
        else:
            triggers = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).fetchall()
        for name, _ in triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(text(statement), values)
        for _, sql in triggers:
            connection.exec_driver_sql(sql)


def swap(engine, one: int, other: int, columns: str) -> None:
    """Exchange two rows' values."""
    content = {row[0]: row[1:] for row in rows(engine, f"SELECT sequence, {columns} FROM audit WHERE sequence IN ({one}, {other})")}
    names = columns.split(", ")
    for target, source in ((one, other), (other, one)):
        tamper(
            engine,
            f"UPDATE audit SET {', '.join(f'{name} = :{name}' for name in names)} WHERE sequence = {target}",
            **dict(zip(names, content[source], strict=True)),
        )


def insert_copy(engine, of: int, as_: int) -> None:
    """A row as row `of`, with the sequence `as_`."""
    names = "at_us, actor, role, action, referral_id, detail, hash"
    tamper(engine, f"INSERT INTO audit (sequence, {names}) SELECT {as_}, {names} FROM audit WHERE sequence = {of}")


def test_a_whole_chain_is_found_whole(engine):
    """And so is an empty one; page by page as well."""
    assert check(engine) == AuditCheck(ROWS, None, "")


def test_a_chain_longer_than_a_page_is_found_whole(engine, monkeypatch):
    """The pages join without a gap."""
    for size in (1, 5, 12, 13):
        monkeypatch.setattr(audit, "_PAGE", size)
        assert check(engine) == AuditCheck(ROWS, None, "")


def test_rows_that_are_added_during_the_walk_are_no_alarm(engine, monkeypatch):
    """Between any two pages and before the head is read again; what was there is checked to its end."""
    monkeypatch.setattr(audit, "_PAGE", 5)

    def busy(work):
        found = read(engine, work)
        write(engine, 1)
        return found

    assert verify_in_pages(busy, KEY) == AuditCheck(ROWS + 1, None, "")  # one came before the head was read
    tamper(engine, f"UPDATE audit SET actor = 'x' WHERE sequence = {ROWS}")
    assert verify_in_pages(busy, KEY).first_bad == ROWS


def test_the_first_row_during_the_walk_is_no_alarm(queue_url):
    """A service that has just begun to work."""
    engine = make_engine(queue_url)

    def busy(work):
        found = read(engine, work)
        write(engine, 1)
        return found

    assert verify_in_pages(busy, KEY).first_bad is None
    engine.dispose()


def test_the_walk_keeps_no_writer_waiting(engine, queue_url):
    """Somebody is about to write all the while, and is not in the way either."""
    other = make_engine(queue_url)
    with other.begin() as writer:
        audit.lock_head(writer, KEY)
        assert verify_in_pages(partial(read, engine), KEY) == AuditCheck(ROWS, None, "")
    other.dispose()


def test_a_fresh_database_has_a_whole_chain(queue_url):
    """Nothing has happened, and the head says so."""
    engine = make_engine(queue_url)
    assert check(engine) == AuditCheck(0, None, "")
    engine.dispose()


@pytest.mark.parametrize("column", [*TEXTS, "at_us", "sequence"])
@pytest.mark.parametrize("place", [1, 6, ROWS])
def test_an_edited_column_is_found(engine, column, place):
    """Whichever it is, in the first row, the middle, the last."""
    new = "'x'" if column in TEXTS else f"{column} + 100"
    tamper(engine, f"UPDATE audit SET {column} = {new} WHERE sequence = {place}")
    found = check(engine)
    assert found.first_bad == place
    assert found.problem


@pytest.mark.parametrize("place", [1, 6])
def test_a_deleted_row_is_found(engine, place):
    """It is missing at its place."""
    tamper(engine, f"DELETE FROM audit WHERE sequence = {place}")
    assert check(engine) == AuditCheck(place - 1, place, f"row {place} is missing: the next one there is {place + 1}")


@pytest.mark.parametrize("count", [1, 5, ROWS])
def test_a_cut_off_end_is_found(engine, count):
    """The head names the last row."""
    left = ROWS - count
    tamper(engine, f"DELETE FROM audit WHERE sequence > {left}")
    assert check(engine) == AuditCheck(left, left + 1, f"rows {left + 1} to {ROWS} were cut off the end")


def test_swapped_rows_are_found(engine):
    """With their hashes, and without them."""
    content = "at_us, actor, role, action, referral_id, detail"
    for columns in (content, f"{content}, hash", "hash"):
        swap(engine, 4, 9, columns)
        assert check(engine) == AuditCheck(3, 4, "row 4 was altered, or put in another row's place")
        swap(engine, 4, 9, columns)
        assert check(engine).first_bad is None


def test_an_inserted_row_is_found(engine):
    """Behind the end, before the first, and between others that were renumbered to make room."""
    insert_copy(engine, 3, ROWS + 1)
    assert check(engine).first_bad == ROWS + 1
    tamper(engine, f"DELETE FROM audit WHERE sequence = {ROWS + 1}")
    insert_copy(engine, 3, 0)
    assert check(engine).first_bad == 1
    tamper(
        engine,
        "DELETE FROM audit WHERE sequence = 0",
        *(f"UPDATE audit SET sequence = {n + 1} WHERE sequence = {n}" for n in range(ROWS, 4, -1)),
    )
    insert_copy(engine, 4, 5)
    assert check(engine).first_bad == 5


def test_a_deleted_row_is_found_after_renumbering(engine):
    """Closing the gap does not help."""
    tamper(
        engine,
        "DELETE FROM audit WHERE sequence = 5",
        *(f"UPDATE audit SET sequence = {n - 1} WHERE sequence = {n}" for n in range(6, ROWS + 1)),
    )
    assert check(engine).first_bad == 5


HEADS = {
    "with an older row's values": "UPDATE audit_head SET sequence = 7, hash = (SELECT hash FROM audit WHERE sequence = 7)",
    "gone": "DELETE FROM audit_head",
    "emptied": "UPDATE audit_head SET mac = ''",
    "as of an empty database": f"UPDATE audit_head SET sequence = 0, hash = '{'0' * 64}', mac = ''",
    "with letters that no hash has": "UPDATE audit_head SET hash = 'é', mac = 'é'",
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("left", [ROWS, 7, 0])
def test_an_altered_head_is_found(engine, kind, left):
    """Whether rows were cut off with it or not; new rows are refused unless nothing seems to have happened."""
    tamper(engine, HEADS[kind], f"DELETE FROM audit WHERE sequence > {left}")
    run_sql(engine, _EVENT)
    found = check(engine)
    assert found.first_bad in (left, left + 1) and found.problem
    with pytest.raises(StorageError, match="the audit trail"):
        write(engine, 1)


@pytest.mark.parametrize("trace", ["INSERT INTO facts (name, value) VALUES ('policy', 'x')", "a referral"])
def test_a_trail_that_was_wiped_is_found(queue_url, trace):
    """Rows and events gone, the head as new: what is left says that something has happened, and nothing is written any more."""
    engine = make_engine(queue_url)
    if trace == "a referral":
        add(engine, [referral("a")])
    else:
        write(engine)
        run_sql(engine, trace)
    tamper(engine, "DELETE FROM audit", "DELETE FROM events", HEADS["as of an empty database"])
    assert check(engine) == AuditCheck(0, 1, "the head of the chain was altered: it does not name row 0, the last one there")
    with pytest.raises(StorageError, match="the audit trail's head was altered"):
        write(engine, 1)
    engine.dispose()


_EVENT = (
    "INSERT INTO events (sequence, at_us, referral_id, kind, actor, role, clinic, specialty, level, state, revision) "
    "VALUES (1000, 0, 'r', 'created', 'a', 'clinic', 'm', 'general', 1, 'waiting', 1)"
)


def test_another_key_finds_the_first_row(engine):
    """Nobody without the key can write a chain that passes."""
    assert check(engine, b"x" * 32) == AuditCheck(0, 1, "row 1 was altered, or put in another row's place")


def test_a_service_does_not_start_with_another_installation_s_keys(queue_url, tmp_path):
    """The words name the key file, not the database; with the right keys an altered head is named, and a new database takes any."""
    settings = settings_of(tmp_path, queue_url)
    vault = open_vault(settings)
    engine = make_engine(queue_url)
    transact(engine, lambda unit: record(unit, ASMA, "read", "r", NOW), vault.mac_key("audit"))
    assert open_vault(settings).primary == vault.primary
    right = settings.keys.rename(tmp_path / "right.json")
    with pytest.raises(StorageError, match=r"^the key file keys\.json is missing"):
        open_vault(settings)
    Vault.open(settings.keys, create=True)
    with pytest.raises(StorageError, match=r"^this key file is not the one this database was written with: put the right one in its place"):
        open_vault(settings)
    right.replace(settings.keys)
    tamper(engine, HEADS["emptied"])
    with pytest.raises(StorageError, match="the audit trail's head was altered"):
        open_vault(settings)
    tamper(engine, "DELETE FROM audit", HEADS["as of an empty database"])
    with engine.begin() as connection:
        check_key(connection, b"x" * 32)
    engine.dispose()


def test_sqlite_values_of_other_types_are_found(tmp_path):
    """SQLite takes anything anywhere: that must be found too, not end the walk with an error."""
    for number, (table, column, value) in enumerate(
        [("audit", name, value) for name in (*TEXTS, "at_us") for value in ("x'ff00'", "1.5", "'é'")]
        + [("audit_head", name, value) for name in ("sequence", "hash", "mac") for value in ("x'ff00'", "1.5", "'é'")]
    ):
        engine = opened(f"sqlite:///{tmp_path / f'{number}.db'}")
        write(engine)
        tamper(engine, f"UPDATE {table} SET {column} = {value} {'WHERE sequence = 5' if table == 'audit' else ''}")
        assert check(engine).first_bad == (5 if table == "audit" else ROWS), (table, column, value)
        engine.dispose()


@pytest.mark.parametrize("seed", range(60))
def test_random_tampering_is_always_found(tmp_path, seed):
    """Sixty of them, of one to three changes each: all are found, at the first place where a row is not what it was."""
    chance = random.Random(seed)
    engine = opened(f"sqlite:///{tmp_path / 'nabz.db'}")
    write(engine, 30)
    before = rows(engine, "SELECT * FROM audit ORDER BY sequence")
    for _ in range(chance.randint(1, 3)):
        place, column = chance.randint(1, 29), chance.choice(TEXTS)
        tamper(
            engine,
            *chance.choice(
                (
                    [f"UPDATE audit SET {column} = {column} || 'x' WHERE sequence = {place}"],
                    [f"DELETE FROM audit WHERE sequence = {place}"],
                    [f"DELETE FROM audit WHERE sequence >= {place}"],
                    [
                        f"UPDATE audit SET sequence = {new} WHERE sequence = {old}"
                        for old, new in ((place, -1), (place + 1, place), (-1, place + 1))
                    ],
                )
            ),
        )
    after = {row[0]: row for row in rows(engine, "SELECT * FROM audit")}
    assert check(engine).first_bad == next(row[0] for row in before if after.get(row[0]) != row)
    engine.dispose()


def anchored(engine, file) -> None:
    anchors.anchor(read(engine, lambda connection: audit.read_head(connection, KEY)), KEY, file)


def test_anchors_are_written_once_for_each_end(engine, tmp_path):
    """One line each time the end has moved, and none for an empty trail."""
    file = tmp_path / "audit.anchors"
    anchored(engine, file)
    anchored(engine, file)
    write(engine, 2)
    anchored(engine, file)
    assert [line.split(" ")[0] for line in file.read_text(encoding="ascii").splitlines()] == ["12", "14"]
    assert check(engine, anchors=file) == AuditCheck(14, None, "")


def test_missing_anchors_are_told(engine, tmp_path):
    """The chain may be whole, and an older one; before the first row there is nothing to miss."""
    missing = "audit.anchors is missing: an older state put back goes unnoticed"
    assert check(engine, anchors=tmp_path / "audit.anchors") == AuditCheck(ROWS, None, "", missing)
    fresh = opened(f"sqlite:///{tmp_path / 'fresh.db'}")
    assert check(fresh, anchors=tmp_path / "audit.anchors") == AuditCheck(0, None, "")
    fresh.dispose()


def test_anchors_become_fewer_with_age_and_are_the_owner_s(tmp_path, monkeypatch):
    """The file stays small however long the service runs; the newest half and the very first stay."""
    monkeypatch.setattr(anchors, "_THIN_BYTES", 3000)
    file, key = tmp_path / "audit.anchors", b"k" * 32
    for sequence in range(1, 200):
        anchors.anchor((sequence, f"{sequence:064d}"), key, file)
        assert file.stat().st_size < 3000 + 2 * 150
    places = [place for place, _ in anchors.read_anchors(file, key)]
    assert places[0] == 1 and places == sorted(places)
    assert places[-8:] == list(range(192, 200))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["audit.anchors"]


def test_a_huge_file_of_anchors_is_refused(engine, tmp_path, monkeypatch):
    """Rather than read whole; and so is a line that is far too long."""
    monkeypatch.setattr(anchors, "_THIN_BYTES", 10_000)
    file = tmp_path / "audit.anchors"
    file.write_bytes(b"1" * 20_001)
    with pytest.raises(StorageError, match=r"^audit\.anchors is larger than Nabz makes it: it was altered"):
        check(engine, anchors=file)
    file.write_bytes(b"1" * 9000 + b" a b\n")
    with pytest.raises(StorageError, match=r"^audit\.anchors, line 1: this anchor was altered"):
        check(engine, anchors=file)


def test_an_older_copy_put_back_as_a_whole_is_found(tmp_path):
    """The copy is whole in itself; the anchor outside of it knows better, also when the trail has grown past it again."""
    engine = opened(f"sqlite:///{tmp_path / 'nabz.db'}")
    write(engine)
    shutil.copy(tmp_path / "nabz.db", tmp_path / "older.db")
    write(engine, 3, first=100)
    anchored(engine, tmp_path / "audit.anchors")
    engine.dispose()
    shutil.copy(tmp_path / "older.db", tmp_path / "nabz.db")
    assert check(engine) == AuditCheck(ROWS, None, "")
    old = "row 15 is not the one that was anchored outside of the database: an older state was put back"
    assert check(engine, anchors=tmp_path / "audit.anchors") == AuditCheck(ROWS, 15, old)
    write(engine, 3, first=200)
    anchored(engine, tmp_path / "audit.anchors")  # the same place again: the first anchor still counts
    assert check(engine, anchors=tmp_path / "audit.anchors") == AuditCheck(15, 15, old)
    engine.dispose()


def test_everything_removed_and_the_head_as_new_is_found_by_an_anchor(engine, tmp_path):
    """Inside the database nothing is left that could tell."""
    anchored(engine, tmp_path / "audit.anchors")
    tamper(engine, "DELETE FROM audit", HEADS["as of an empty database"])
    assert check(engine) == AuditCheck(0, None, "")
    assert check(engine, anchors=tmp_path / "audit.anchors").first_bad == ROWS


def test_an_altered_anchor_is_refused_and_a_torn_one_is_mended(engine, tmp_path):
    """A power cut may leave half a line at the end; anything else is somebody's work."""
    file = tmp_path / "audit.anchors"
    anchored(engine, file)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    assert check(engine, anchors=file).first_bad is None
    write(engine, 1)
    anchored(engine, file)
    assert file.read_bytes().startswith(whole) and len(file.read_bytes().splitlines()) == 2
    assert check(engine, anchors=file).first_bad is None
    for bad in (whole.replace(b"12 ", b"11 "), whole.replace(b" ", b" 0", 1), b"x\n" + whole, "é\n".encode()):
        file.write_bytes(bad)
        with pytest.raises(StorageError, match=r"^audit\.anchors, line 1: this anchor was altered"):
            check(engine, anchors=file)


def test_concurrent_writers_leave_one_whole_chain(queue_url):
    """Four databases, as four processes would have them, write at once: no gap, no fork, nothing lost."""
    databases = [Database(queue_url, KEY) for _ in range(4)]
    failed = []

    def work(database: Database, name: str) -> None:
        for number in range(8):
            try:
                database.run_now(lambda unit, number=number: record(unit, ASMA, "read", f"{name}-{number}", NOW))
            except StorageError as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(database, str(place))) for place, database in enumerate(databases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert check(databases[0].engine) == AuditCheck(32, None, "")
    assert len({row[0] for row in rows(databases[0].engine, "SELECT referral_id FROM audit")}) == 32
    for database in databases:
        database.engine.dispose()


def test_rows_hold_what_happened_and_nothing_of_the_patients(engine):
    """Numbers, levels and ids."""
    assert json.loads(rows(engine, "SELECT detail FROM audit WHERE sequence = 3")[0][0]) == {"number": 3}
