"""Backups are made while the service writes, hold everything but the keys, and are put back whole or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from queue_database import migrated, rows
from sealed_rows import fill, keep_photo, opened_values, settings_of

from inference.errors import StorageError
from inference.service import backup as backup_module
from inference.service.anchors import anchor
from inference.service.audit import read_head, verify
from inference.service.backup import MANIFEST, backup, restore
from inference.service.database import make_engine, read
from inference.service.photo_store import PhotoStore
from inference.service.vault import Vault

needs_tools = pytest.mark.skipif(not (shutil.which("pg_dump") and shutil.which("pg_restore")), reason="needs pg_dump and pg_restore")


def service_in(folder: Path, url: str, count: int = 5):
    """Settings, engine and vault of a service with sealed content, a photo and an anchor."""
    settings = settings_of(folder, url)
    settings.data_dir.mkdir(parents=True)
    vault = Vault.open(settings.keys, create=True)
    engine = make_engine(url)
    fill(engine, vault, [f"r{place}" for place in range(count)])
    anchor_end(settings, engine, vault)
    return settings, engine, vault


def anchor_end(settings, engine, vault) -> None:
    """Note the end of the audit trail, as the service does once a minute."""
    key = vault.mac_key("audit")
    anchor(read(engine, lambda connection: read_head(connection, key)), key, settings.data_dir / "audit.anchors")


def verified(settings, engine, vault) -> int:
    """How many sealed values there are; all can be opened, and the audit trail is whole and as anchored."""
    with engine.begin() as connection:
        check = verify(connection, vault.mac_key("audit"), settings.data_dir / "audit.anchors")
    assert check.first_bad is None, check.problem
    return len(opened_values(engine, vault))


def restored(settings, folder: Path, copy: Path, url: str):
    """The backup in another place, with the keys from elsewhere."""
    target = settings_of(folder, url)
    restore(target, copy)
    shutil.copy2(settings.keys, target.keys)
    return target, make_engine(url), Vault.open(target.keys)


def test_a_restored_sqlite_backup_has_everything(tmp_path):
    """Database, photos, anchors; the keys are nowhere in it, and nobody else may read it."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    photo, before, said = keep_photo(settings, vault, 10), opened_values(engine, vault), []
    made = backup(settings, tmp_path / "copy", said.append)
    assert (made.name, said) == (MANIFEST, ["database", "photos"])
    secrets = settings.keys.read_bytes()
    assert all(path.read_bytes() != secrets and path.name != "keys.json" for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    url = f"sqlite:///{tmp_path / 'new' / 'deep' / 'nabz.db'}"
    target, other, keys = restored(settings, tmp_path / "new", tmp_path / "copy", url)
    assert opened_values(other, keys) == before
    assert verified(target, other, keys) == len(before)
    assert PhotoStore(target.photos, keys).get(photo)
    for one in (engine, other):
        one.dispose()


@needs_tools
def test_a_restored_postgresql_backup_has_everything(tmp_path, postgres_server, postgres_url):
    """Through PostgreSQL's own programs; a second restore into the same database is refused and changes nothing."""
    settings, engine, vault = service_in(tmp_path, migrated(postgres_url))
    before = opened_values(engine, vault)
    backup(settings, tmp_path / "copy")
    with postgres_server.fresh_database() as url:
        target, other, keys = restored(settings, tmp_path / "new", tmp_path / "copy", url)
        assert opened_values(other, keys) == before
        assert verified(target, other, keys) == len(before)
        with pytest.raises(StorageError, match="pg_restore failed with status 1"):
            restore(target, tmp_path / "copy")
        assert opened_values(other, keys) == before
        other.dispose()
    engine.dispose()


def test_a_backup_while_the_service_writes_is_whole(tmp_path, monkeypatch):
    """A write after every bite, each of which begins the copy anew: it is taken in one bite then, and has all that was acknowledged."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"), count=50)
    wrote: list[str] = []

    class Writing(backup_module._Patience):
        def __call__(self, status: int, left: int, total: int) -> None:
            super().__call__(status, left, total)
            fill(engine, vault, [f"w{len(wrote)}"])
            wrote.append(f"w{len(wrote)}")

    monkeypatch.setattr(backup_module, "_Patience", Writing)
    monkeypatch.setattr(backup_module, "_PAGES_AT_ONCE", 5)
    monkeypatch.setattr(backup_module, "_SMALL_BYTES", 0)
    said: list[str] = []
    backup(settings, tmp_path / "copy", said.append)
    assert said[1] == "the service never pauses: its writes wait while the database is copied at once"
    target, other, keys = restored(settings, tmp_path / "new", tmp_path / "copy", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}")
    assert len(wrote) == backup_module._MOST_RESTARTS + 1
    assert rows(other, "SELECT count(*) FROM referrals") == [(50 + len(wrote),)]
    assert verified(target, other, keys) == 5 * (50 + len(wrote)) + 2 * (1 + len(wrote))
    for one in (engine, other):
        one.dispose()


def test_what_is_anchored_is_in_the_backup(tmp_path, monkeypatch):
    """Though the service writes on and anchors anew while the database is copied."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    original = backup_module._copy_sqlite

    def copy_and_go_on(*given) -> None:
        original(*given)
        fill(engine, vault, ["later"])
        anchor_end(settings, engine, vault)

    monkeypatch.setattr(backup_module, "_copy_sqlite", copy_and_go_on)
    backup(settings, tmp_path / "copy")
    target, other, keys = restored(settings, tmp_path / "new", tmp_path / "copy", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}")
    assert verified(target, other, keys) > 0
    for one in (engine, other):
        one.dispose()


def test_a_photo_that_is_erased_meanwhile_does_not_end_the_backup(tmp_path, monkeypatch):
    """It is gone from the folder between the listing and the copy."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    photos = [keep_photo(settings, vault, red) for red in (10, 100, 200)]
    original = backup_module._copy_if_there

    def late(source: str, target: str) -> None:
        (settings.photos / photos[1][:2] / f"{photos[1][2:]}.sealed").unlink(missing_ok=True)
        original(source, target)

    monkeypatch.setattr(backup_module, "_copy_if_there", late)
    backup(settings, tmp_path / "copy")
    kept = {path.parent.name + path.stem for path in (tmp_path / "copy" / "photos").rglob("*.sealed")}
    assert kept == {photos[0], photos[2]}
    engine.dispose()


@pytest.fixture
def copy(tmp_path) -> Path:
    """A good backup of a service with a photo."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    keep_photo(settings, vault, 10)
    backup(settings, tmp_path / "copy")
    engine.dispose()
    return tmp_path / "copy"


def _photo(copy: Path) -> Path:
    return next(copy.rglob("*.sealed"))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda copy: _flip(copy / "nabz.db"), "nabz.db in the backup is missing or was altered: use another backup"),
        (lambda copy: _flip(copy / "audit.anchors"), "audit.anchors in the backup is missing or was altered"),
        (lambda copy: _flip(_photo(copy)), r"photos/.*\.sealed in the backup is missing or was altered"),
        (lambda copy: _photo(copy).unlink(), r"photos/.*\.sealed in the backup is missing or was altered"),
        (lambda copy: (copy / "photos" / "more").write_bytes(b"x"), "photos/more was added to the backup: use another backup"),
        (lambda copy: (copy / MANIFEST).unlink(), f"holds no backup that can be read: {MANIFEST} is missing or broken"),
        (lambda copy: (copy / MANIFEST).write_text("[]"), f"{MANIFEST} is missing or broken"),
    ],
)
def test_an_altered_backup_is_refused(copy, tmp_path, alter, words):
    """Before anything is put anywhere."""
    alter(copy)
    target = settings_of(tmp_path / "new", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}")
    with pytest.raises(StorageError, match=words):
        restore(target, copy)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(copy, tmp_path):
    """Neither an older backup nor a database that is there."""
    settings = settings_of(tmp_path, f"sqlite:///{tmp_path / 'nabz.db'}")
    with pytest.raises(StorageError, match="is not empty: name a new folder for this backup"):
        backup(settings, copy)
    with pytest.raises(StorageError, match="is there already: move it away first, with all of that database; nothing is overwritten"):
        restore(settings, copy)


def test_a_small_database_is_copied_at_once(tmp_path, monkeypatch):
    """No write in between can make it begin anew."""
    settings, engine, _ = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    monkeypatch.setattr(backup_module, "_Patience", lambda: pytest.fail("it was copied in bites"))
    backup(settings, tmp_path / "copy")
    engine.dispose()


@pytest.mark.parametrize("name", ["nabz.db-journal", "nabz.db-wal", "nabz.db-shm", "nabz.part"])
def test_what_another_database_left_is_not_mixed_with_the_restored_one(copy, tmp_path, name):
    """SQLite would roll a journal that lies there back into it; a part may be another restore's."""
    target = settings_of(tmp_path / "new", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_bytes(b"left")
    with pytest.raises(StorageError, match=rf"new/{name} is there"):
        restore(target, copy)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_what_was_copied_is_on_the_disk_before_it_is_said(tmp_path, monkeypatch):
    """Every file and folder of a backup, and the restored database's name in its folder."""
    settings, engine, vault = service_in(tmp_path, migrated(f"sqlite:///{tmp_path / 'nabz.db'}"))
    keep_photo(settings, vault, 10)
    synced, original = set(), os.fsync

    def fsync(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").resolve())
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    backup(settings, tmp_path / "copy")
    assert {tmp_path, tmp_path / "copy", *(tmp_path / "copy").rglob("*")} <= synced
    synced.clear()
    restore(settings_of(tmp_path / "new", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}"), tmp_path / "copy")
    photos = tmp_path / "new" / "data" / "photos"
    assert {tmp_path / "new", tmp_path / "new" / "data", photos, *photos.rglob("*")} <= synced
    engine.dispose()


def test_a_restore_that_was_broken_off_can_be_begun_again(copy, tmp_path, monkeypatch):
    """The database comes last: while it is not there, nothing seems to be finished."""
    target = settings_of(tmp_path / "new", f"sqlite:///{tmp_path / 'new' / 'nabz.db'}")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match=r"^a file could not be copied \(No space left on device\): make room, and begin again$"):
            restore(target, copy)
    assert not (tmp_path / "new" / "nabz.db").exists()
    restore(target, copy)
    engine = make_engine(target.database_url)
    assert rows(engine, "SELECT count(*) FROM referrals") == [(5,)]
    engine.dispose()


def test_a_database_that_is_not_there_or_damaged_is_named(tmp_path):
    """Rather than backed up as if it were whole."""
    settings = settings_of(tmp_path, f"sqlite:///{tmp_path / 'nabz.db'}")
    with pytest.raises(StorageError, match="does not exist: there is nothing to back up"):
        backup(settings, tmp_path / "one")
    (tmp_path / "nabz.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match=r"cannot be backed up \(DatabaseError\)"):
        backup(settings, tmp_path / "two")


def test_a_backup_is_restored_into_its_own_kind_of_database(copy, tmp_path):
    """A SQLite file cannot be put into PostgreSQL."""
    target = settings_of(tmp_path / "new", "postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(StorageError, match=r"the backup holds nabz\.db, which is not of the kind that NABZ_DATABASE_URL names"):
        restore(target, copy)


def test_the_password_is_not_on_the_command_line(tmp_path, monkeypatch):
    """Anybody on the machine can read that; the environment only the owner."""
    seen = []

    def run(command, *, env, **_given):
        seen.append((command, env))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    backup(settings_of(tmp_path, "postgresql://nabz:very%20secret@db/nabz"), tmp_path / "copy")
    command, environment = seen[0]
    assert "secret" not in " ".join(command) and "--dbname=postgresql://nabz@db/nabz" in command
    assert environment == {**os.environ, "PGPASSWORD": "very secret"}


def test_a_tool_that_is_missing_is_named(tmp_path, monkeypatch):
    """With what to install."""
    monkeypatch.setattr(shutil, "which", lambda _tool: None)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(StorageError, match="pg_dump is not installed: install PostgreSQL's client programs"):
        backup(settings_of(tmp_path, "postgresql://nabz@db/nabz"), tmp_path / "copy")


def test_the_manifest_names_every_file(copy):
    """With its SHA-256, so that it can be checked by hand."""
    manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    assert set(manifest["files"]) == {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} - {MANIFEST}
    assert all(len(value) == 64 for value in manifest["files"].values())
