"""Tests of sealing, of the key ring's life, and of the key file."""

from __future__ import annotations

import json
import multiprocessing
import stat
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import ConflictError, NotFoundError, StorageError
from inference.service import durable
from inference.service import vault as vault_module
from inference.service.vault import KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES, Vault

CONTENT, CONTEXT = b"seenay mein dard, paseena", "referral r-17"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A new key file in a new folder."""
    return Vault.open(tmp_path / "keys" / "keys.json", create=True)


def key_file(tmp_path: Path) -> Path:
    """Where the fixture's keys are."""
    return tmp_path / "keys" / "keys.json"


def primary_of(path: Path) -> str:
    """What another process sees as the primary key."""
    return Vault.open(path, create=True).primary


@given(content=st.binary(max_size=200), context=st.text(max_size=20))
def test_what_is_sealed_comes_back(tmp_path_factory, content, context):
    """Any content in any context, and the sealed piece is longer by the header, the nonce and the tag alone."""
    opened = Vault.open(tmp_path_factory.getbasetemp() / "shared.json", create=True)
    sealed = opened.seal(content, context)
    assert opened.unseal(sealed, context) == content
    assert len(sealed) == len(content) + 1 + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES


def test_the_format_is_as_documented(vault):
    """0x01, then the primary key's id; the content is nowhere in it, and no two pieces are alike."""
    first, second = vault.seal(CONTENT, CONTEXT), vault.seal(CONTENT, CONTEXT)
    assert first[:9] == b"\x01" + bytes.fromhex(vault.primary)
    assert first[9:21] != second[9:21]
    assert CONTENT not in first


def test_a_piece_in_another_place_is_refused(vault):
    """One patient's sealed record cannot be passed off as another's."""
    with pytest.raises(StorageError) as caught:
        vault.unseal(vault.seal(CONTENT, CONTEXT), "referral r-18")
    assert str(caught.value) == f"a stored piece sealed with key {vault.primary} was altered or belongs elsewhere; restore it from a backup"


def test_one_altered_bit_anywhere_is_refused(vault):
    """In the version, the key's id, the nonce, the ciphertext and the tag; no message repeats what was sealed."""
    sealed = vault.seal(CONTENT, CONTEXT)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1 << (place % 8)
        with pytest.raises(StorageError) as caught:
            vault.unseal(bytes(altered), CONTEXT)
        assert "dard" not in str(caught.value) and CONTEXT not in str(caught.value)


def test_any_shorter_piece_is_refused(vault):
    """A half-written file is told from a whole one."""
    sealed = vault.seal(CONTENT, CONTEXT)
    for length in range(len(sealed)):
        with pytest.raises(StorageError):
            vault.unseal(sealed[:length], CONTEXT)


def test_rotation_keeps_the_old_readable_and_seals_with_the_new(vault, tmp_path):
    """Also after the key file is read again."""
    old = vault.seal(CONTENT, CONTEXT)
    first, second = vault.primary, vault.rotate()
    assert vault.primary == second != first
    assert vault.key_ids == (first, second)
    new = vault.seal(CONTENT, CONTEXT)
    assert (vault.is_current(old), vault.is_current(new)) == (False, True)
    again = Vault.open(key_file(tmp_path))
    assert again.unseal(old, CONTEXT) == again.unseal(new, CONTEXT) == CONTENT


def test_a_forgotten_key_s_pieces_cannot_be_read(vault):
    """The message names the key, so that a backup of the key file can be found."""
    old, first = vault.seal(CONTENT, CONTEXT), vault.primary
    vault.rotate()
    vault.forget(first)
    with pytest.raises(StorageError) as caught:
        vault.unseal(old, CONTEXT)
    assert str(caught.value) == (
        f"a stored piece was sealed with key {first}, which is not in the key file; restore the key file that holds it"
    )


def test_the_primary_key_and_an_unknown_one_are_not_forgotten(vault):
    """Forgetting the key that seals now would lose what is stored next."""
    with pytest.raises(ConflictError, match=f"key {vault.primary} seals what is stored now; rotate the keys first"):
        vault.forget(vault.primary)
    with pytest.raises(NotFoundError, match="there is no such key"):
        vault.forget("00" * 8)
    assert len(vault.key_ids) == 1


def test_a_key_that_another_process_added_is_found(vault, tmp_path):
    """The command rotates while the service runs; neither loses the other's key."""
    other = Vault.open(key_file(tmp_path))
    other.rotate()
    assert vault.unseal(other.seal(CONTENT, CONTEXT), CONTEXT) == CONTENT
    other.rotate()
    vault.rotate()
    assert len(vault.key_ids) == 4


def test_a_running_vault_seals_with_a_key_that_another_process_made(vault, tmp_path, monkeypatch):
    """It looks at the file now and then: what the other one forgets afterwards is not needed for anything new."""
    vault.seal(CONTENT, CONTEXT)
    other, first = Vault.open(key_file(tmp_path)), vault.primary
    monkeypatch.setattr(vault_module, "_LOOK_SECONDS", 3600.0)
    second = other.rotate()
    assert vault.seal(CONTENT, CONTEXT)[1:9].hex() == first
    monkeypatch.setattr(vault_module, "_LOOK_SECONDS", 0.0)
    other.forget(first)
    sealed = vault.seal(CONTENT, CONTEXT)
    assert sealed[1:9].hex() == second == vault.primary
    assert Vault.open(key_file(tmp_path)).unseal(sealed, CONTEXT) == CONTENT


def test_the_key_file_is_read_again_only_when_it_was_changed(vault, monkeypatch):
    """A look at it is cheap; while it is missing, the known key seals."""
    monkeypatch.setattr(vault_module, "_LOOK_SECONDS", 0.0)
    vault.seal(CONTENT, CONTEXT)
    monkeypatch.setattr(vault_module, "_read", lambda _: pytest.fail("it was read again"))
    assert vault.unseal(vault.seal(CONTENT, CONTEXT), CONTEXT) == CONTENT
    vault._file.unlink()
    assert vault.unseal(vault.seal(CONTENT, CONTEXT), CONTEXT) == CONTENT


def test_a_changed_key_file_that_cannot_be_read_ends_sealing(vault, tmp_path, monkeypatch):
    """The key that is known may be forgotten next: nothing is stored rather than lost later."""
    monkeypatch.setattr(vault_module, "_LOOK_SECONDS", 0.0)
    vault.seal(CONTENT, CONTEXT)
    key_file(tmp_path).write_text("{}")
    with pytest.raises(StorageError, match=r"^the key file keys\.json is broken"):
        vault.seal(CONTENT, CONTEXT)


def test_a_key_tells_its_age(vault, tmp_path):
    """From the file, so that every process knows."""
    fields = json.loads(key_file(tmp_path).read_text())
    fields["keys"][0]["created"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    key_file(tmp_path).write_text(json.dumps(fields))
    age = Vault.open(key_file(tmp_path)).primary_age
    assert timedelta(hours=2) <= age < timedelta(hours=3)
    vault.rotate()
    assert vault.primary_age < timedelta(hours=1)


def test_mac_keys_differ_by_purpose_and_outlive_rotation(vault, tmp_path):
    """The audit chain must verify after the keys were rotated."""
    audit, cursors = vault.mac_key("audit"), vault.mac_key("cursors")
    assert len(audit) == 32 and audit != cursors
    vault.rotate()
    assert Vault.open(key_file(tmp_path)).mac_key("audit") == audit
    assert Vault.open(tmp_path / "other.json", create=True).mac_key("audit") != audit


def test_the_key_file_is_the_owner_s_alone(vault, tmp_path):
    """From its first moment and after a rotation; nothing else is left in the folder."""
    vault.rotate()
    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file(tmp_path).parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file(tmp_path).parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666])
def test_a_key_file_open_to_others_is_refused(vault, tmp_path, mode):
    """The message says how to close it."""
    key_file(tmp_path).chmod(mode)
    with pytest.raises(StorageError) as caught:
        Vault.open(key_file(tmp_path))
    assert str(caught.value) == "the key file keys.json can be read or changed by others on this machine; run: chmod 600 keys.json"


def test_a_missing_key_file_says_what_to_do(tmp_path):
    """Without `create` no key is made: it would hide that the old one is lost."""
    with pytest.raises(StorageError) as caught:
        Vault.open(tmp_path / "keys.json")
    assert str(caught.value) == (
        "the key file keys.json is missing: restore your copy of it, because without it nothing that was "
        "sealed can be read; only a new installation may start with a new one"
    )
    assert list(tmp_path.iterdir()) == []


def broken_files(whole: str) -> list[str]:
    """A key file in many kinds of disrepair."""
    fields = json.loads(whole)
    (key,) = fields["keys"]
    return [
        "", "null", "[]", "{}", "[" * 100_000, whole[:-30], whole.replace('"version": 1', '"version": 2'),
        json.dumps(fields | {"primary": "00" * 8}), json.dumps(fields | {"root": "c2hvcnQ="}), json.dumps(fields | {"keys": []}),
        json.dumps(fields | {"keys": [key | {"key": "?"}]}), json.dumps(fields | {"keys": [key | {"id": "../../x"}]}),
        json.dumps(fields | {"keys": [key | {"created": "yesterday"}]}),
    ]  # fmt: skip


def test_a_broken_key_file_is_refused_and_kept(vault, tmp_path):
    """Even with `create`: it may be repaired, a new one cannot replace it. No part of it is repeated."""
    whole = key_file(tmp_path).read_text()
    for content in broken_files(whole):
        key_file(tmp_path).write_text(content)
        with pytest.raises(StorageError) as caught:
            Vault.open(key_file(tmp_path), create=True)
        assert str(caught.value) == "the key file keys.json is broken; restore your copy of it"
        assert caught.value.__cause__ is None
        assert key_file(tmp_path).read_text() == content


def test_many_threads_that_create_at_once_get_one_key_file(tmp_path):
    """Whoever comes second reads what the first one wrote."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(primary_of, [tmp_path / "a" / "b" / "keys.json"] * 16))
    assert len(found) == 1


def test_many_processes_that_create_at_once_get_one_key_file(tmp_path):
    """As when a service starts with several workers."""
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = set(pool.map(primary_of, [tmp_path / "keys.json"] * 6))
    assert len(found) == 1


def test_threads_seal_while_the_keys_rotate(vault):
    """Every piece can be read, whichever key sealed it."""

    def work(number: int) -> bool:
        if number % 10 == 0:
            vault.rotate()
        return vault.unseal(vault.seal(CONTENT, str(number)), str(number)) == CONTENT

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))
    assert len(vault.key_ids) == 7


def test_a_rotation_that_cannot_be_written_changes_nothing(vault, tmp_path, monkeypatch):
    """The disk is full: the old key stays the primary one, in memory and in the file, and no half file is left."""

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before, primary = key_file(tmp_path).read_bytes(), vault.primary
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError, match=r"the key file cannot be written \(No space left on device\)"):
        vault.rotate()
    assert vault.primary == primary
    assert key_file(tmp_path).read_bytes() == before
    assert [path.name for path in key_file(tmp_path).parent.iterdir()] == ["keys.json"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"the key file cannot be written \(\w+"):
        Vault.open(tmp_path / "taken" / "keys.json", create=True)
