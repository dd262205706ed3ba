"""Erasure: the patient's content goes, the row and the audit trail stay, and nobody waiting is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image
from queue_database import ASMA, CLINIC, KEY, NOW, POLICY, add, do, referral, rows, started

from inference.errors import ConflictError, NotAllowedError, NotFoundError, StorageError
from inference.service import retention, store
from inference.service.audit import verify
from inference.service.callers import Who
from inference.service.database import Database
from inference.service.photo_store import CleanPhoto, PhotoStore, clean_photo
from inference.service.tables import fhir_identifiers, fhir_resources
from inference.service.vault import Vault

ADMIN = Who("root", "admin")
DAY = timedelta(days=1)


@pytest.fixture
def database(queue_url):
    """An empty database of each kind, running."""
    made = started(queue_url)
    yield made
    made.stop()


@pytest.fixture
def photos(tmp_path: Path) -> PhotoStore:
    """An empty photo store."""
    return PhotoStore(tmp_path / "photos", Vault.open(tmp_path / "keys.json", create=True))


def keep(photos: PhotoStore, tmp_path: Path, red: int) -> str:
    """Store a photo of one colour, two hours ago; its name."""
    sha256 = photos.put(coloured(tmp_path, red))
    stored_at(tmp_path, sha256, NOW - timedelta(hours=2))
    return sha256


def coloured(tmp_path: Path, red: int) -> CleanPhoto:
    """A photo of one colour."""
    file = tmp_path / f"{red}.png"
    Image.new("RGB", (16, 16), (red, 0, 0)).save(file)
    return clean_photo(file.read_bytes(), "a.png")


def stored_at(tmp_path: Path, sha256: str, moment: datetime) -> None:
    """Make a photo look as if it were stored then."""
    os.utime(tmp_path / "photos" / sha256[:2] / f"{sha256[2:]}.sealed", (moment.timestamp(), moment.timestamp()))


def finish(database: Database, id_: str, now=NOW) -> None:
    """Claim and complete, with a note and a reason."""
    do(database.engine, lambda unit: store.claim(unit, id_, ASMA, POLICY, now))
    do(database.engine, lambda unit: store.add_note(unit, id_, ASMA, now, b"note"))
    do(database.engine, lambda unit: store.complete(unit, id_, ASMA, now, b"outcome"))


def erase(database: Database, photos: PhotoStore, id_: str, who: Who = ADMIN) -> None:
    asyncio.run(retention.erase(database, photos, who, id_, NOW))


def test_erasure_empties_every_sealed_column_and_keeps_the_rows(database, photos, tmp_path):
    """Of that referral alone; the audit trail is whole, and says who erased."""
    engine = database.engine
    own, shared = keep(photos, tmp_path, 10), keep(photos, tmp_path, 200)
    add(engine, [referral("a", patient=b"who", photos=(own, shared)), referral("b", patient=b"who", photos=(shared,))])
    do(engine, lambda unit: unit.connection.execute(fhir_resources.insert(), [
        {"type": "Patient", "id": id_, "clinic": "mithi", "referral_id": id_, "version": 1, "at_us": 0, "content": b"resource"}
        for id_ in ("a", "b")
    ]) and unit.connection.execute(fhir_identifiers.insert(), [{"token": id_, "type": "Patient", "id": id_} for id_ in ("a", "b")]))  # fmt: skip
    finish(database, "a")
    erase(database, photos, "a")
    sealed = {
        "referrals": "SELECT count(*) FROM referrals WHERE id = '{}' AND (summary IS NOT NULL OR patient IS NOT NULL)",
        "assessments": "SELECT count(*) FROM assessments WHERE referral_id = '{}' AND content IS NOT NULL",
        "events": "SELECT count(*) FROM events WHERE referral_id = '{}' AND detail IS NOT NULL",
        "fhir": "SELECT count(*) FROM fhir_resources WHERE referral_id = '{}' AND content IS NOT NULL",
        "identifiers": "SELECT count(*) FROM fhir_identifiers WHERE id = '{}'",
        "photos": "SELECT count(*) FROM photo_links WHERE referral_id = '{}'",
    }
    assert {name: rows(engine, query.format("a"))[0][0] for name, query in sealed.items()} == dict.fromkeys(sealed, 0)
    kept = {name: rows(engine, query.format("b"))[0][0] for name, query in sealed.items()}
    assert kept == {"referrals": 1, "assessments": 1, "events": 0, "fhir": 1, "identifiers": 1, "photos": 1}
    with pytest.raises(NotFoundError):
        photos.get(own)
    assert photos.get(shared)
    row = do(engine, lambda unit: store.find_referral(unit, "a"))
    assert (row.state, row.level, row.erased_us is not None) == ("completed", 3, True)
    assert rows(engine, "SELECT actor, referral_id FROM audit WHERE action = 'erased'") == [("root", "a")]
    with engine.begin() as connection:
        assert verify(connection, KEY).first_bad is None


def test_every_sealed_column_of_a_referral_is_erased():
    """A new one cannot be forgotten: those that the test above looks at are all that there are."""
    from inference.service.rotation import SEALED

    mine = {(table.name, column) for table, column, _ in SEALED if "referral_id" in table.c or table.name == "referrals"}
    assert mine == {
        ("referrals", "summary"),
        ("referrals", "patient"),
        ("assessments", "content"),
        ("events", "detail"),
        ("fhir_resources", "content"),
    }


def test_an_open_referral_cannot_be_erased(database, photos):
    """Neither a waiting one nor a claimed one; nothing of it is gone."""
    add(database.engine, [referral("a"), referral("b")])
    do(database.engine, lambda unit: store.claim(unit, "b", ASMA, POLICY, NOW))
    for id_ in ("a", "b"):
        with pytest.raises(ConflictError, match="the referral is still open: it can be erased once it is completed"):
            erase(database, photos, id_)
    assert rows(database.engine, "SELECT count(*) FROM referrals WHERE summary IS NOT NULL") == [(2,)]


def test_a_photo_that_another_referral_is_about_to_have_is_kept(database, photos, tmp_path):
    """It was sent again and is not yet committed; once it is, it stays, and once it is not, the sweep deletes it."""
    engine, shared, lost = database.engine, keep(photos, tmp_path, 10), keep(photos, tmp_path, 200)
    add(engine, [referral("a", photos=(shared, lost))])
    finish(database, "a")
    for sha256, red in ((shared, 10), (lost, 200)):
        photos.put(coloured(tmp_path, red))
        stored_at(tmp_path, sha256, NOW)
    erase(database, photos, "a")
    add(engine, [referral("b", photos=(shared,))])
    assert photos.get(shared) and photos.get(lost)
    later = NOW + timedelta(hours=2)
    assert asyncio.run(retention.sweep_photos(database, photos, later)) == 1
    assert photos.get(shared)
    with pytest.raises(NotFoundError):
        photos.get(lost)


def test_a_photo_that_cannot_be_deleted_does_not_undo_what_was_erased(database, photos, tmp_path, monkeypatch, caplog):
    """The caller hears that it is erased, because it is; the sweep deletes the file later. No request waits for the disk."""
    own = keep(photos, tmp_path, 10)
    add(database.engine, [referral("a", photos=(own,))])
    finish(database, "a")
    threads: list[threading.Thread] = []

    def broken(*_):
        threads.append(threading.current_thread())
        raise StorageError("the photos cannot be looked through (Input/output error)")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "nabz.retention"):
        patch.setattr(PhotoStore, "delete_unreferenced", broken)
        erase(database, photos, "a")
    assert threads[0] is not threading.main_thread()
    assert caplog.messages == [
        "photos that no referral has are left for the next sweep: the photos cannot be looked through (Input/output error)"
    ]
    assert rows(database.engine, "SELECT count(*) FROM referrals WHERE erased_us IS NOT NULL") == [(1,)]
    assert asyncio.run(retention.sweep_photos(database, photos, NOW)) == 1


def test_retention_goes_on_past_one_that_cannot_be_erased(database, photos, monkeypatch, caplog):
    """It is counted, and the next run tries it again."""
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    ids = [f"old{place}" for place in range(5)]
    add(database.engine, [referral(id_) for id_ in ids])
    for id_ in ids:
        finish(database, id_, NOW - 31 * DAY)
    original = retention._erase

    def erase_but_two(unit, who, id_, now):
        if id_ in ("old0", "old1"):
            raise ValueError(id_)
        return original(unit, who, id_, now)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "nabz.retention"):
        patch.setattr(retention, "_erase", erase_but_two)
        assert asyncio.run(retention.run_retention(database, photos, ADMIN, 30, NOW)) == 3
    assert caplog.messages[-1] == "2 completed referrals could not be erased by policy; they are tried again in an hour"
    assert rows(database.engine, "SELECT id FROM referrals WHERE erased_us IS NULL ORDER BY id") == [("old0",), ("old1",)]
    assert asyncio.run(retention.run_retention(database, photos, ADMIN, 30, NOW)) == 2


def test_who_may_erase(database, photos):
    """Administrators; and what is not there is not found."""
    for who in (ASMA, CLINIC, Who("ds", "data_scientist")):
        with pytest.raises(NotAllowedError, match=r"may not do retention\.erase"):
            erase(database, photos, "a", who)
    with pytest.raises(NotFoundError, match="there is no referral of that id"):
        erase(database, photos, "nowhere")


def test_retention_erases_what_is_old_enough_once(database, photos, monkeypatch):
    """In several rounds where there are many; open and recent ones stay, and zero days keep everything."""
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    engine = database.engine
    add(engine, [referral(f"old{place}") for place in range(5)] + [referral("recent"), referral("open", minutes_ago=90 * 24 * 60)])
    for place in range(5):
        finish(database, f"old{place}", NOW - 31 * DAY)
    finish(database, "recent", NOW - 29 * DAY)
    assert asyncio.run(retention.run_retention(database, photos, ADMIN, 0, NOW)) == 0
    assert asyncio.run(retention.run_retention(database, photos, ADMIN, 30, NOW)) == 5
    assert asyncio.run(retention.run_retention(database, photos, ADMIN, 30, NOW)) == 0
    kept = rows(engine, "SELECT id FROM referrals WHERE summary IS NOT NULL ORDER BY id")
    assert kept == [("open",), ("recent",)]


def test_old_idempotency_keys_are_forgotten(database, photos):
    """After a week; younger ones still answer."""
    for key, age in (("old", 8 * DAY), ("young", 6 * DAY)):
        do(database.engine, lambda unit, key=key, age=age: store.remember_answer(unit, key, "body", [], NOW - age))
    asyncio.run(retention.run_retention(database, photos, ADMIN, 0, NOW))
    assert rows(database.engine, "SELECT key FROM idempotency") == [("young",)]
