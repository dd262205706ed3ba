"""Photos as the service keeps them: cleaned, sealed, under the name of their content. Knows no referral and no clinic.

A clean photo is pixels alone, encoded anew: nothing of the file that was sent remains, neither metadata nor a second
file behind it. A file `ab/cdef….sealed` holds the photo whose SHA-256 is abcdef….
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from inference.errors import NotFoundError, StorageError
from inference.photo import open_photo_bytes
from inference.service.durable import locked, make_folder, sync_folder, write_durably
from inference.service.vault import Vault

LONGEST_SIDE = 2048
QUALITY = 90
# A photo is stored before its referral; one that no referral names after this long has been left behind.
ORPHAN_SECONDS = 3600.0
_AT_ONCE = 100  # so many are asked about, while others wait
SUFFIX = ".sealed"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class CleanPhoto:
    """A JPEG without metadata; `sha256` is of `content`, `width` and `height` are in pixels."""

    sha256: str
    content: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Resealed:
    """What became of the stored photos: how many were sealed anew, and which cannot be read."""

    count: int
    unreadable: tuple[str, ...]


def clean_photo(content: bytes, name: str) -> CleanPhoto:
    """Decode a JPEG, PNG or WebP photo and encode it anew: upright, at most `LONGEST_SIDE` long, pixels only.

    The same content always gives the same bytes. Raises PhotoError, showing no more of `name` than its last part.
    """
    image = open_photo_bytes(name, content, longest_side=LONGEST_SIDE).image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    clean = buffer.getvalue()
    return CleanPhoto(hashlib.sha256(clean).hexdigest(), clean, *image.size)


class PhotoStore:
    """A folder of sealed photos. Safe to share between threads and processes."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._vault = vault
        with _storage("the photo folder cannot be used"):
            make_folder(self._incoming)
            for unfinished in self._incoming.iterdir():
                if _age_seconds(unfinished) > ORPHAN_SECONDS:
                    unfinished.unlink(missing_ok=True)

    def put(self, photo: CleanPhoto) -> str:
        """Store a photo and return its SHA-256; it is on the disk when this returns. One content is stored once.

        Raises StorageError when it could not be stored; then nothing was.
        """
        path = self._path(photo.sha256)
        with _storage("the photo could not be stored"):
            with locked(self._folder):
                if self._holds(path, photo.sha256):
                    os.utime(path)  # young again: another referral is about to name it
                    return photo.sha256
            make_folder(path.parent)
            write_durably(path, self._vault.seal(photo.content, _context(photo.sha256)), beside=self._incoming)
        return photo.sha256

    def get(self, sha256: str) -> bytes:
        """The JPEG of that name. Raises NotFoundError when there is none, StorageError when it cannot be read."""
        path = self._path(sha256)
        try:
            sealed = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("there is no such photo") from error
        except OSError as error:
            raise StorageError(f"the photo cannot be read ({error.strerror}); check the photo folder") from error
        return self._opened(sealed, sha256)

    def reseal_all(self, progress: Callable[[int], None] | None = None) -> Resealed:
        """Seal with the primary key what an older key sealed, so that the older key can be forgotten.

        `progress` is told how many more photos were looked at. A photo that cannot be read is left as it is and named.
        Raises StorageError when a photo could not be written; it can be read as before.
        """
        count, unreadable = 0, []
        for sha256 in self._names():
            done = self._reseal(sha256)
            count += done is True
            unreadable += [sha256] if done is None else []
            if progress:
                progress(1)
        return Resealed(count, tuple(unreadable))

    def delete_unreferenced(
        self, referenced: Callable[[Sequence[str]], Collection[str]], now: float | None = None, among: Iterable[str] | None = None
    ) -> int:
        """Delete the photos that are older than an hour and that `referenced` does not return of those it is asked about.

        It is asked while nobody can store a photo: what it does not know then, no referral is about to name, because storing a
        photo again makes it young. `now` is in seconds since 1970; `among` are the names to look at (default: all). Returns how
        many went.
        """
        count, moment = 0, time.time() if now is None else now
        with _storage("the photos cannot be looked through"):
            names = iter([name for name in (self._names() if among is None else among) if self._is_old(name, moment)])
            while some := list(islice(names, _AT_ONCE)):
                with locked(self._folder):
                    known = frozenset(referenced(some))
                    gone = [self._path(name) for name in some if name not in known and self._is_old(name, moment)]
                    for path in gone:
                        path.unlink()
                    for folder in {path.parent for path in gone}:
                        sync_folder(folder)
                count += len(gone)
        return count

    def _is_old(self, sha256: str, now: float) -> bool:
        return _age_seconds(self._path(sha256), now) > ORPHAN_SECONDS

    def _path(self, sha256: str) -> Path:
        if not _SHA256.match(sha256):
            raise NotFoundError("there is no such photo")
        return self._folder / sha256[:2] / f"{sha256[2:]}{SUFFIX}"

    def _names(self) -> Iterator[str]:
        names = (path.parent.name + path.name.removesuffix(SUFFIX) for path in sorted(self._folder.glob(f"??/*{SUFFIX}")))
        return (name for name in names if _SHA256.match(name))

    def _holds(self, path: Path, sha256: str) -> bool:
        """Whether the photo is there and can be read; a damaged one is to be written again."""
        try:
            return bool(self._opened(path.read_bytes(), sha256))
        except (FileNotFoundError, StorageError):
            return False

    def _opened(self, sealed: bytes, sha256: str) -> bytes:
        content = self._vault.unseal(sealed, _context(sha256))
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError("a stored photo is not the one that its name says; restore it from a backup")
        return content

    def _reseal(self, sha256: str) -> bool | None:
        """Whether it was sealed anew; None when it cannot be read. Locked, so that a photo erased meanwhile stays away."""
        path = self._path(sha256)
        with _storage("a photo could not be sealed again"), locked(self._folder):
            try:
                sealed, times = path.read_bytes(), path.stat()
                if self._vault.is_current(sealed):
                    return False
                content = self._opened(sealed, sha256)
            except FileNotFoundError:
                return False
            except StorageError:
                return None
            write_durably(path, self._vault.seal(content, _context(sha256)), beside=self._incoming)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return True


def _context(sha256: str) -> str:
    return f"photo {sha256}"


def _age_seconds(path: Path, now: float | None = None) -> float:
    """The file's age; none where it has just gone."""
    try:
        return (time.time() if now is None else now) - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _storage(problem: str) -> Iterator[None]:
    """Turn the system's errors into StorageError, without the path of anything on this machine."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{problem} ({error.strerror}); free space or make the photo folder writable, then send it again") from error
