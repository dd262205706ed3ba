"""Photos that come in pieces over a bad line, kept until their referral is stored. Knows no HTTP, no case and no role.

Each piece is sealed, and on the disk before it is acknowledged. An upload lies in a folder of its own below its clinic's: pieces
`00000000-00032768.sealed`, and beside them `size`, the bytes that were announced. Nothing in it is in the clear, and no name is
anything that the sender chose but a UUID.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inference.errors import BusyError, ConflictError, NotFoundError, StorageError, TooLargeError, UnprocessableError
from inference.service.durable import locked, make_folder, sync_folder, write_durably
from inference.service.vault import Vault

CHUNK_BYTES: Final = 32 * 1024  # what a phone sends at a time: under a second at 50 kB/s, so that little is ever sent twice
LARGEST_BYTES: Final = 8 * 1024 * 1024
MOST_OF_A_CLINIC: Final = 64
# A draft may wait for days; its phone still has the photo, and sends it again where this has been forgotten.
KEPT_SECONDS: Final = 48 * 3600.0
_IDLE_SECONDS: Final = 3600.0
_MOST_PIECES: Final = 2048
_AGAIN_SECONDS: Final = 60
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PIECE: Final = re.compile(r"(\d{8})-(\d{8})\.sealed")
_SIZE: Final = "size"


@dataclass(frozen=True, slots=True)
class Upload:
    """How many bytes were announced, and how many of them are here."""

    size: int
    offset: int

    @property
    def is_whole(self) -> bool:
        """Whether all have come."""
        return self.offset == self.size


class UploadStore:
    """A folder of uploads, each its clinic's own. Safe to share between threads and processes."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._folder, self._vault = folder, vault

    def create(self, clinic: str, id_: str, size: int) -> Upload:
        """Begin an upload, or find the one that was begun under this id: a repeated request does no harm.

        Raises UnprocessableError for what is no size or no UUID, TooLargeError, ConflictError when the id is another photo's,
        BusyError when the clinic has too many.
        """
        if not 0 < size <= LARGEST_BYTES:
            raise TooLargeError(f"a photo has 1 to {LARGEST_BYTES} bytes: send it smaller")
        if not _ID.fullmatch(id_):
            raise UnprocessableError("the upload's name is no UUID in small letters: let the page choose it")
        own = self._own(clinic)
        with _storage():
            make_folder(own)
            with locked(own):
                if (found := self._found(own / id_)) is not None:
                    if found.size != size:
                        raise ConflictError("the upload was begun with another size: begin it again under a new name")
                    return found
                self._make_room(own)
                (own / id_).mkdir(0o700)
                write_durably(own / id_ / _SIZE, str(size).encode())
                sync_folder(own)
        return Upload(size, 0)

    def find(self, clinic: str, id_: str) -> Upload:
        """How far an upload is. Raises NotFoundError for one that is not there, or not this clinic's."""
        found = self._found(self._place(clinic, id_))
        if found is None:
            raise NotFoundError("there is no such upload: begin it again")
        return found

    def append(self, clinic: str, id_: str, offset: int, content: bytes) -> Upload:
        """Keep the next bytes; they are on the disk when this returns. Raises ConflictError when they are not the next ones."""
        place = self._place(clinic, id_)
        self.find(clinic, id_)
        with _storage(), locked(place):
            upload = self.find(clinic, id_)
            if offset != upload.offset:
                raise ConflictError(f"the next byte is number {upload.offset}, not {offset}: ask with HEAD and go on from there")
            end = offset + len(content)
            if end > upload.size:
                raise TooLargeError(f"the upload has {upload.size} bytes, and these would be {end}: begin it again")
            if content:
                if len(list(place.iterdir())) > _MOST_PIECES:
                    raise TooLargeError(f"the upload came in more than {_MOST_PIECES} pieces: begin it again with larger ones")
                sealed = self._vault.seal(content, _context(clinic, id_, offset))
                write_durably(place / f"{offset:08d}-{end:08d}.sealed", sealed)
            return Upload(upload.size, end)

    def content(self, clinic: str, id_: str) -> bytes | None:
        """The whole photo; None where it is not there, not whole, or cannot be read any more: it must be sent again."""
        if not _ID.fullmatch(id_):
            return None
        place = self._place(clinic, id_)
        upload = self._found(place)
        if upload is None or not upload.is_whole:
            return None
        try:
            pieces = [self._vault.unseal((place / name).read_bytes(), _context(clinic, id_, start)) for start, _, name in _pieces(place)]
        except (StorageError, OSError):
            return None
        return b"".join(pieces)

    def remove(self, clinic: str, ids: Iterable[str]) -> None:
        """Forget uploads; those that are not there are forgotten already."""
        for id_ in ids:
            if _ID.fullmatch(id_):
                shutil.rmtree(self._place(clinic, id_), ignore_errors=True)

    def sweep(self, now: float | None = None) -> int:
        """Forget what nobody has added to for two days. Returns how many. `now` is in seconds since 1970."""
        moment, count = time.time() if now is None else now, 0
        with _storage():
            for place in self._folder.glob("*/*"):
                if moment - _touched(place) > KEPT_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)
                    count += 1
        return count

    def _make_room(self, own: Path) -> None:
        """What was left alone for an hour goes, the oldest first, where a clinic has too many."""
        places = sorted(own.iterdir(), key=_touched)
        for place in places[: max(0, len(places) - MOST_OF_A_CLINIC + 1)]:
            if time.time() - _touched(place) < _IDLE_SECONDS:
                raise BusyError(f"{MOST_OF_A_CLINIC} photos of this clinic are on their way: send their cases first", _AGAIN_SECONDS)
            shutil.rmtree(place, ignore_errors=True)

    def _found(self, place: Path) -> Upload | None:
        try:
            size = int((place / _SIZE).read_bytes())
        except (OSError, ValueError):
            return None
        return Upload(size, max((end for _, end, _ in _pieces(place)), default=0))

    def _place(self, clinic: str, id_: str) -> Path:
        if not _ID.fullmatch(id_):
            raise NotFoundError("there is no such upload: begin it again")
        return self._own(clinic) / id_

    def _own(self, clinic: str) -> Path:
        return self._folder / hashlib.sha256(clinic.encode()).hexdigest()[:32]


def _pieces(place: Path) -> list[tuple[int, int, str]]:
    """Start, end and file name of each piece, in order."""
    try:
        names = [path.name for path in place.iterdir()]
    except FileNotFoundError:
        return []
    return sorted((int(found[1]), int(found[2]), name) for name in names if (found := _PIECE.fullmatch(name)))


def _context(clinic: str, id_: str, start: int) -> str:
    """What ties a piece to its place."""
    return f"upload:{clinic}:{id_}:{start}"


def _touched(place: Path) -> float:
    """When something was last added; a folder that has just gone is old."""
    try:
        return place.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _storage() -> Iterator[None]:
    """Turn the system's errors into StorageError, without the path of anything on this machine."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("the upload has just gone: begin it again") from error
    except OSError as error:
        raise StorageError(f"the photo could not be kept ({error.strerror}); free space, then send it again") from error
