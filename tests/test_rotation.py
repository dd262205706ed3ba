"""Key rotation: everything is sealed with the new key, whenever it was broken off; no key that is needed is forgotten."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from queue_database import do, migrated, rows, run_sql
from sealed_rows import fill, keep_photo, opened_values, settings_of
from sqlalchemy import LargeBinary, select

from inference.errors import ConflictError
from inference.service import rotation
from inference.service import vault as vault_module
from inference.service.audit import verify
from inference.service.database import make_engine, transact
from inference.service.photo_store import PhotoStore
from inference.service.rotation import SEALED, forget_keys, rotate_keys
from inference.service.tables import metadata, referrals
from inference.service.vault import Vault

IDS = [f"r{place}" for place in range(5)]
VALUES = 5 * 5 + 2  # summary, patient, content, note and resource of each; a webhook's secret, a feedback


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """A key may be forgotten at once, and a vault looks at its file each time."""
    monkeypatch.setattr(rotation, "_SETTLED", timedelta(0))
    monkeypatch.setattr(vault_module, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def service(queue_url, tmp_path):
    """Settings, engine and vault of a service with sealed content and a photo."""
    settings = settings_of(tmp_path, queue_url)
    settings.data_dir.mkdir()
    vault = Vault.open(settings.keys, create=True)
    engine = make_engine(queue_url)
    fill(engine, vault, IDS)
    yield settings, engine, vault
    engine.dispose()


def stale(engine, vault: Vault) -> int:
    """How many sealed values are not of the primary key."""
    with engine.begin() as connection:
        return sum(
            not vault.is_current(value)
            for table, column, _ in SEALED
            for value in connection.execute(select(table.c[column]).where(table.c[column].is_not(None))).scalars()
        )


def test_every_binary_column_is_sealed_and_rotated():
    """A new one cannot be left out."""
    binary = {
        (table.name, column.name) for table in metadata.sorted_tables for column in table.columns if isinstance(column.type, LargeBinary)
    }
    assert {(table.name, column) for table, column, _ in SEALED} == binary


def test_a_rotation_seals_everything_again_and_changes_nothing(service, monkeypatch):
    """In batches; afterwards the old key can go."""
    monkeypatch.setattr(rotation, "_AT_ONCE", 2)
    settings, engine, vault = service
    photo = keep_photo(settings, vault, 10)
    before, old = opened_values(engine, vault), vault.primary
    said: list[str] = []
    assert rotate_keys(settings, said.append) == VALUES == len(before)
    assert len(said) == len(SEALED) + 1 and said[-1] == "photos: 1 sealed again, 0 cannot be read"
    now = Vault.open(settings.keys)
    assert now.primary != old and stale(engine, now) == 0
    assert opened_values(engine, now) == before
    assert rows(engine, "SELECT actor FROM audit WHERE action = 'keys_rotated'") == [("nabz",)]
    assert forget_keys(settings) == 1
    only = Vault.open(settings.keys)
    assert only.key_ids == (now.primary,)
    assert opened_values(engine, only) == before
    assert PhotoStore(settings.photos, only).get(photo)
    with engine.begin() as connection:
        assert verify(connection, only.mac_key("audit")).first_bad is None
    assert forget_keys(settings) == 0


def test_a_rotation_that_was_broken_off_loses_nothing(service, monkeypatch):
    """After any number of its transactions: all is readable, and the next one ends it."""
    settings, engine, vault = service
    before = opened_values(engine, vault)
    monkeypatch.setattr(rotation, "_AT_ONCE", 2)
    for allowed in (0, 3, 9):
        calls = iter(range(allowed))

        def limited(*given, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return transact(*given)

        with monkeypatch.context() as patch:
            patch.setattr(rotation, "transact", limited)
            with pytest.raises(KeyboardInterrupt):
                rotate_keys(settings)
        assert opened_values(engine, Vault.open(settings.keys)) == before
    assert stale(engine, Vault.open(settings.keys)) > 0
    rotate_keys(settings)
    assert stale(engine, Vault.open(settings.keys)) == 0
    assert forget_keys(settings) == 4


def test_a_service_that_was_not_restarted_seals_with_the_new_key(service):
    """So that what it stores after the old key was forgotten can be read."""
    settings, engine, running = service
    rotate_keys(settings)
    assert forget_keys(settings) == 1
    fill(engine, running, ["late"])
    assert len(opened_values(engine, Vault.open(settings.keys))) == VALUES + 7


def test_what_a_service_sealed_before_it_noticed_is_sealed_again(service, monkeypatch):
    """Before the old key is forgotten; a photo too."""
    settings, engine, running = service
    with monkeypatch.context() as patch:
        patch.setattr(vault_module, "_LOOK_SECONDS", 3600.0)
        rotate_keys(settings)
        fill(engine, running, ["late"])
        photo = keep_photo(settings, running, 10)
        assert stale(engine, Vault.open(settings.keys)) == 7
    assert forget_keys(settings) == 1
    vault = Vault.open(settings.keys)
    assert len(vault.key_ids) == 1 and stale(engine, vault) == 0
    assert len(opened_values(engine, vault)) == VALUES + 7
    assert PhotoStore(settings.photos, vault).get(photo)


def test_an_old_key_is_kept_while_the_new_one_is_young(service, monkeypatch):
    """What was sealed with the old one may not be stored yet."""
    settings, _, _ = service
    monkeypatch.setattr(rotation, "_SETTLED", timedelta(minutes=5))
    assert forget_keys(settings) == 0
    rotate_keys(settings)
    with pytest.raises(ConflictError, match=r"^the newest key was made less than 5 minutes ago: .*; run `nabz keys forget` later$"):
        forget_keys(settings)
    assert len(Vault.open(settings.keys).key_ids) == 2


def test_a_key_that_something_still_needs_is_kept(service, monkeypatch):
    """As when an old service seals with it all the while."""
    settings, _, _ = service
    rotate_keys(settings)
    monkeypatch.setattr(rotation, "_is_needed", lambda *_: True)
    with pytest.raises(ConflictError, match=r"^a service still seals referrals\.summary with an older key: restart it, then run"):
        forget_keys(settings)
    assert len(Vault.open(settings.keys).key_ids) == 2


def test_the_walk_for_old_keys_keeps_no_writer_waiting(service, monkeypatch):
    """Somebody is about to write all the while; every page is looked at."""
    _, engine, vault = service
    monkeypatch.setattr(rotation, "_AT_ONCE", 2)
    other = make_engine(engine.url.render_as_string(hide_password=False))
    with other.begin() as writer:
        writer.exec_driver_sql("UPDATE referrals SET level = 1 WHERE id = 'r0'")
        assert not any(rotation._is_needed(engine, vault, table, column) for table, column, _ in SEALED)
        vault.rotate()
        assert all(rotation._is_needed(engine, vault, table, column) for table, column, _ in SEALED)
    other.dispose()


def test_a_change_during_a_rotation_is_kept(postgres_url, tmp_path):
    """What somebody erases between the read and the write of a batch does not come back."""
    settings = settings_of(tmp_path, migrated(postgres_url))
    settings.data_dir.mkdir()
    vault = Vault.open(settings.keys, create=True)
    engine = make_engine(postgres_url)
    fill(engine, vault, IDS)
    vault.rotate()
    erasing: list[threading.Thread] = []

    def unsealed(sealed: bytes, context: str) -> bytes:
        if not erasing:
            erasing.append(threading.Thread(target=run_sql, args=(engine, "UPDATE referrals SET summary = NULL")))
            erasing[0].start()
            erasing[0].join(0.3)  # it waits for the row, or it is done
        return Vault.unseal(vault, sealed, context)

    vault.unseal = unsealed
    do(engine, lambda unit: rotation._reseal(unit, vault, referrals, referrals.c.summary, SEALED[0][2], None))
    erasing[0].join()
    assert rows(engine, "SELECT count(*) FROM referrals WHERE summary IS NOT NULL") == [(0,)]
    engine.dispose()
