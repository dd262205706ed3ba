"""Tests of cleaning photos and of keeping them sealed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.errors import NotFoundError, PhotoError, StorageError
from inference.service import durable, photo_store
from inference.service.photo_store import LONGEST_SIDE, CleanPhoto, PhotoStore, Resealed, clean_photo
from inference.service.vault import Vault

ORIENTATION, GPS = 0x0112, 0x8825
HOUR = 3600


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault with a new key."""
    return Vault.open(tmp_path / "keys.json", create=True)


@pytest.fixture
def store(tmp_path: Path, vault: Vault) -> PhotoStore:
    """An empty store."""
    return PhotoStore(tmp_path / "photos", vault)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(red: int = 200) -> CleanPhoto:
    """A clean photo of one colour."""
    return clean_photo(encoded(Image.new("RGB", (32, 16), (red, 100, 80))), "a.jpg")


def sealed_files(folder: Path) -> list[Path]:
    """All plain files of a store."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def aged(folder: Path, sha256: str, seconds: float) -> None:
    """Make a stored photo look as if it were stored so long ago."""
    path = folder / sha256[:2] / f"{sha256[2:]}.sealed"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_clean_photo_is_upright_and_holds_pixels_alone():
    """Place, comment, profile and thumbnail are gone; what was on its side stands."""
    image = Image.new("RGB", (400, 200), (10, 10, 200))
    image.paste((220, 20, 20), (0, 0, 200, 200))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[GPS] = {1: "N", 2: (31.0, 30.0, 0.0)}
    sent = encoded(image, exif=exif, comment=b"Ward 3", icc_profile=b"profile" * 9, xmp=b"<x:xmpmeta>Karachi</x:xmpmeta>")
    clean = clean_photo(sent, "a.jpg")
    again = Image.open(io.BytesIO(clean.content))
    assert (clean.width, clean.height) == again.size == (200, 400)
    red, _, blue = again.getpixel((100, 50))
    assert red > 200 and blue < 50
    assert set(again.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert not dict(again.getexif())
    assert not any(trace in clean.content for trace in (b"Exif", b"Ward 3", b"profile", b"Karachi"))
    assert clean.sha256 == hashlib.sha256(clean.content).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_comes_upright(orientation, kind):
    """As Pillow's own reading of EXIF has it, in each format."""
    image = Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint32).reshape(32, 48, 3).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    clean = clean_photo(encoded(image, kind, exif=exif), "a")
    assert (clean.width, clean.height) == ((48, 32) if orientation < 5 else (32, 48))


def test_a_large_photo_is_reduced_to_the_longest_side():
    """The decoder's own halves are taken where they are near enough; the proportions stay."""
    sizes = {}
    for size in ((4000, 3000), (3000, 4000), (2049, 30), (2048, 2048)):
        clean = clean_photo(encoded(Image.new("RGB", size)), "a.jpg")
        sizes[size] = (clean.width, clean.height)
    assert sizes == {(4000, 3000): (2000, 1500), (3000, 4000): (1500, 2000), (2049, 30): (2048, 30), (2048, 2048): (2048, 2048)}
    assert clean_photo(encoded(Image.new("RGB", (2400, 600)), "PNG"), "a.png").width == LONGEST_SIDE


def test_the_same_content_gives_the_same_bytes():
    """So that a photo sent twice is stored once; and cleaning again changes neither size nor, by much, a pixel."""
    sent = encoded(Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 20).convert("RGB"))
    first = clean_photo(sent, "a.jpg")
    assert first == clean_photo(sent, "b.jpg")
    twice = clean_photo(first.content, "a.jpg")
    once, again = (np.asarray(Image.open(io.BytesIO(one.content))).astype(int) for one in (first, twice))
    assert np.abs(once - again).mean() < 2


def test_a_broken_photo_is_a_photo_error_that_shows_the_last_part_of_its_name():
    """Neither a folder nor characters that turn the text."""
    with pytest.raises(PhotoError) as caught:
        clean_photo(b"\xff\xd8\xff", "/home/ayesha/\u202egpj.exe\x00\n.jpg")
    assert str(caught.value) == "gpj.exe.jpg: this is not a JPEG, PNG or WebP photo; convert it to JPEG and send it again"


def test_a_stored_photo_comes_back(store, tmp_path):
    """Sealed, for the owner alone, under its hash, and no unfinished file stays."""
    one = photo()
    assert store.put(one) == one.sha256
    assert store.get(one.sha256) == one.content
    (path,) = sealed_files(tmp_path / "photos")
    assert path.relative_to(tmp_path / "photos").as_posix() == f"{one.sha256[:2]}/{one.sha256[2:]}.sealed"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"JFIF" not in path.read_bytes()


def test_one_content_is_stored_once(store, tmp_path):
    """The second time nothing is written."""
    store.put(photo())
    (path,) = sealed_files(tmp_path / "photos")
    before = path.read_bytes()
    store.put(photo())
    assert [path.read_bytes() for path in sealed_files(tmp_path / "photos")] == [before]


def test_a_damaged_photo_is_told_and_mended_by_sending_it_again(store, tmp_path):
    """What cannot be read counts as not there when it is stored again."""
    one = photo()
    store.put(one)
    (path,) = sealed_files(tmp_path / "photos")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match="was altered or belongs elsewhere"):
        store.get(one.sha256)
    store.put(one)
    assert store.get(one.sha256) == one.content


def test_two_photos_that_changed_places_are_told(store, tmp_path):
    """A sealed photo is tied to its name."""
    store.put(photo(10))
    store.put(photo(250))
    first, second = sealed_files(tmp_path / "photos")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    for red in (10, 250):
        with pytest.raises(StorageError):
            store.get(photo(red).sha256)


def test_content_that_is_not_what_its_name_says_is_told(store, tmp_path, vault):
    """Even when it was sealed for that name."""
    one = photo()
    store.put(one)
    (path,) = sealed_files(tmp_path / "photos")
    path.write_bytes(vault.seal(b"another", f"photo {one.sha256}"))
    with pytest.raises(StorageError) as caught:
        store.get(one.sha256)
    assert str(caught.value) == "a stored photo is not the one that its name says; restore it from a backup"


@pytest.mark.parametrize(
    "name", ["", "ab", "../../keys.json", "/etc/passwd", "A" * 64, "a" * 63 + "\n", "a" * 64 + "\n", "\x00" * 64, "٣" * 64]
)
def test_a_name_that_is_no_hash_is_not_found(store, name):
    """No name leads out of the folder."""
    with pytest.raises(NotFoundError, match=r"^there is no such photo$"):
        store.get(name)


def test_resealing_lets_the_old_key_go(store, tmp_path, vault):
    """After it everything can be read without the old key; what is current is not written again."""
    names = [store.put(photo(red)) for red in (10, 130, 250)]
    aged(tmp_path / "photos", names[0], HOUR)
    times = {path: path.stat().st_mtime_ns for path in sealed_files(tmp_path / "photos")}
    old = vault.primary
    vault.rotate()
    done: list[int] = []
    assert store.reseal_all(done.append) == Resealed(3, ())
    assert sum(done) == 3
    assert {path: path.stat().st_mtime_ns for path in sealed_files(tmp_path / "photos")} == times
    vault.forget(old)
    assert [store.get(name) for name in names] == [photo(red).content for red in (10, 130, 250)]
    assert store.reseal_all() == Resealed(0, ())


def test_resealing_names_what_it_cannot_read_and_goes_on(store, tmp_path, vault):
    """One damaged photo does not keep the others from the new key."""
    first, second = (store.put(photo(red)) for red in (10, 250))
    path = tmp_path / "photos" / first[:2] / f"{first[2:]}.sealed"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    vault.rotate()
    assert store.reseal_all() == Resealed(1, (first,))
    assert store.get(second) == photo(250).content


def test_only_old_photos_that_nothing_names_are_deleted(store, tmp_path, monkeypatch):
    """A photo is stored before its referral, and one that was sent again is young again; however few are asked about at a time."""
    monkeypatch.setattr(photo_store, "_AT_ONCE", 1)
    kept, young, orphan, again = (store.put(photo(red)) for red in (10, 90, 170, 250))
    for name in (kept, orphan, again):
        aged(tmp_path / "photos", name, 2 * HOUR)
    store.put(photo(250))
    asked: list[str] = []

    def referenced(names):
        asked.extend(names)
        return [kept]

    assert store.delete_unreferenced(referenced) == 1
    assert sorted(asked) == sorted([kept, orphan])
    assert len(sealed_files(tmp_path / "photos")) == 3
    with pytest.raises(NotFoundError):
        store.get(orphan)
    assert store.delete_unreferenced(lambda _: [], now=young_until(tmp_path), among=[young, orphan]) == 1
    assert store.get(kept) and store.get(again)


def test_a_photo_that_is_sent_again_before_the_deletion_stays(store, tmp_path, monkeypatch):
    """Its age is looked at once more while nobody can store one, and the referrals are asked then."""
    one = photo()
    store.put(one)
    aged(tmp_path / "photos", one.sha256, 2 * HOUR)
    original = photo_store.locked

    @contextmanager
    def late(folder: Path):
        monkeypatch.setattr(photo_store, "locked", original)
        store.put(one)
        with original(folder):
            yield

    def referenced(_):
        handle = os.open(tmp_path / "photos", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        return []

    monkeypatch.setattr(photo_store, "locked", late)
    assert store.delete_unreferenced(referenced) == 0
    assert store.get(one.sha256) == one.content


def young_until(tmp_path: Path) -> float:
    """A moment at which even the youngest photo is older than an hour."""
    return max(path.stat().st_mtime for path in sealed_files(tmp_path / "photos")) + HOUR + 1


def test_a_full_disk_is_a_storage_error_and_leaves_no_half_file(store, tmp_path, monkeypatch):
    """The message says what to do and no path of the machine."""

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        store.put(photo())
    assert str(caught.value) == (
        "the photo could not be stored (No space left on device); free space or make the photo folder writable, then send it again"
    )
    monkeypatch.undo()
    assert sealed_files(tmp_path / "photos") == []
    assert store.get(store.put(photo())) == photo().content


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path, vault):
    """A file stands where the folder should be, at the start and later."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"^the photo folder cannot be used \("):
        PhotoStore(tmp_path / "taken", vault)
    store = PhotoStore(tmp_path / "photos", vault)
    (tmp_path / "photos" / photo().sha256[:2]).write_text("")
    with pytest.raises(StorageError, match=r"^the photo could not be stored \("):
        store.put(photo())


def test_what_a_crash_left_unfinished_goes_at_the_next_start(store, tmp_path, vault):
    """Only when it is old: a young one may be another process's photo on its way."""
    old, young = (tmp_path / "photos" / "incoming" / name for name in (".old.tmp", ".young.tmp"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    PhotoStore(tmp_path / "photos", vault)
    assert (old.exists(), young.exists()) == (False, True)


@pytest.fixture(scope="module")
def cleaned() -> list[dict[str, Any]]:
    """What became of each hostile photo, in a process of its own, whose memory can be measured and whose death is seen."""
    program = Path(__file__).with_name("hostile_photos.py")
    done = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_hostile_photo_is_cleaned_or_refused_in_clear_words(cleaned):
    """No other exception ended the run; a refusal is one line of text with no path, no control and no turned text."""
    assert len(cleaned) >= 450
    assert len({answer["kind"] for answer in cleaned}) == len(cleaned)
    said = [answer["error"] for answer in cleaned if "error" in answer]
    assert 250 < len(said) < len(cleaned) - 100
    for message in said:
        assert message.isprintable() and len(message) < 300
        assert not any(part in message for part in ("/", "\\", "ayesha\\", "srv", "Traceback", "0x"))
        assert re.search(r": .* (send|cut) .*(again|resolution)$", message), message


def test_what_was_cleaned_is_a_plain_jpeg_without_the_payload(cleaned):
    """Upright pixels within the limit, and nothing else of what was sent."""
    for answer in cleaned:
        if "error" not in answer:
            assert answer["format"] == "JPEG", answer
            assert max(answer["size"]) <= LONGEST_SIDE, answer
            assert answer["info"] == ["jfif", "jfif_density", "jfif_unit", "jfif_version"], answer
            assert answer["ends"] and not answer["leaks"], answer


def test_no_hostile_photo_takes_much_memory(cleaned):
    """The largest that is accepted takes about 200 MB; bombs take next to nothing."""
    grown = {answer["kind"]: answer["grew"] for answer in cleaned if answer["grew"] > 60}
    assert max(grown.values()) < 215, grown
    assert all("large" in kind or "megapixels" in kind or "scans" in kind for kind in grown), grown


def test_good_photos_in_odd_company_are_cleaned(cleaned):
    """A photo is not refused for its metadata, its name or what hangs behind it; only what hides in its pixels' parts is."""
    outcome = {answer["kind"]: answer.get("error") for answer in cleaned}
    assert [
        kind for kind, error in outcome.items() if kind.startswith(("broken_exif", "names")) and kind.endswith("good photo") and error
    ] == []
    assert [kind for kind, error in outcome.items() if kind.startswith("broken_exif") and error] == []
    assert [kind for kind, error in outcome.items() if kind.startswith("polyglots") and " before " in kind and error] == []
    assert outcome["odd_kinds: animated webp"] is outcome["odd_kinds: jpeg of two pictures"] is None
    refused = [kind for kind, error in outcome.items() if kind.startswith("disguises") and not error]
    assert refused == []
