"""Key rotation: everything is sealed with the new key, whenever it was broken off; no key that is needed is forgotten."""

from __future__ import annotations

import threading

import pytest
from queue_database import do, migrated, rows, run_sql
from sealed_rows import fill, keep_photo, opened_values, settings_of
from sqlalchemy import LargeBinary, select

from inference.errors import ConflictError
from inference.service import rotation
from inference.service.audit import verify
from inference.service.database import make_engine, transact
from inference.service.photo_store import PhotoStore
from inference.service.rotation import SEALED, forget_keys, rotate_keys
from inference.service.tables import metadata, referrals
from inference.service.vault import Vault

IDS = [f"r{place}" for place in range(5)]
VALUES = 5 * 5 + 2  # summary, patient, content, note and resource of each; a webhook's secret, a feedback


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


def test_a_key_that_something_needs_is_kept(service):
    """A service that was not restarted still seals with the old one."""
    settings, engine, vault = service
    rotate_keys(settings)
    fill(engine, vault, ["late"])
    with pytest.raises(
        ConflictError, match=r"^7 values were sealed with an older key: restart the service, then run `nabz keys rotate` again$"
    ):
        forget_keys(settings)
    assert len(Vault.open(settings.keys).key_ids) == 2
    rotate_keys(settings)
    assert forget_keys(settings) == 2
    assert len(opened_values(engine, Vault.open(settings.keys))) == VALUES + 7


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
