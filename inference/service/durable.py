"""Files written whole or not at all, and still there after the power fails. Knows nothing of what is in them."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER_ONLY_FILE, OWNER_ONLY_FOLDER = 0o600, 0o700
PUBLIC_FILE = 0o644


def write_durably(path: Path, content: bytes, *, beside: Path | None = None, mode: int = OWNER_ONLY_FILE) -> None:
    """Put `content` at `path` in one step, by default readable by the owner alone; it is on the disk when this returns.

    The unfinished file lies in `beside` (default: the same folder; it must be on the same disk). Raises OSError,
    and then `path` is as it was.
    """
    unfinished = (beside or path.parent) / f".{secrets.token_hex(8)}.tmp"
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Put what was written to a file on the disk."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def sync_tree(folder: Path) -> None:
    """Put every file and folder in `folder`, and its own name, on the disk."""
    for path in [folder.parent, folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, for the owner alone, each on the disk when this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(OWNER_ONLY_FOLDER, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's list of names on the disk: a renamed or removed file stays so."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this thread, against other threads and other processes that do the same."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
