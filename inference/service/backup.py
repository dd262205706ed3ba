"""Backup and restore while the service runs: the database by its own online backup, the sealed photos, never the keys.

A backup without the key file cannot be read: keep a copy of that file somewhere else. Knows no referral.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import URL

from inference.errors import StorageError
from inference.service.database import database_url
from inference.service.durable import make_folder, sync_file, sync_folder, sync_tree
from inference.service.settings import Settings

MANIFEST = "backup.json"
_SQLITE, _POSTGRES, _PHOTOS, _ANCHORS = "nabz.db", "nabz.dump", "photos", "audit.anchors"
# A database of this size is copied in a second or so, while which the service's writes wait; they wait up to five.
_SMALL_BYTES = 256 * 1024 * 1024
_PAGES_AT_ONCE = 2000  # of a larger one: between two bites the service gets its turn
_MOST_RESTARTS = 10
_TOOL_SECONDS = 3600


@contextmanager
def _on_disk() -> Iterator[None]:
    """Turns the system's errors into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"a file could not be copied ({error.strerror or type(error).__name__}): make room, and begin again") from error


@_on_disk()
def backup(settings: Settings, folder: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Copy everything but the keys into `folder`, which must not exist yet or be empty. Returns the manifest's path."""
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty: name a new folder for this backup")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    anchors = settings.data_dir / _ANCHORS
    if anchors.is_file():  # before the database: a row that is anchored must be in it
        shutil.copy2(anchors, folder / _ANCHORS)
    url = database_url(settings.database_url)
    progress("database")
    name = _SQLITE if url.get_backend_name() == "sqlite" else _POSTGRES
    if name == _SQLITE:
        _copy_sqlite(Path(str(url.database)), folder / name, progress)
    else:
        _run("pg_dump", url, "--format=custom", "--no-owner", f"--file={folder / name}")
    progress("photos")  # after the database: every photo that it names is there by now
    if settings.photos.is_dir():
        shutil.copytree(settings.photos, folder / _PHOTOS, ignore=shutil.ignore_patterns("*.tmp"), copy_function=_copy_if_there)
    manifest = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": name,
        "files": {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync_tree(folder)
    return folder / MANIFEST


@_on_disk()
def restore(settings: Settings, folder: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Put a backup in place of nothing: the database must not exist yet (PostgreSQL: be empty). Raises StorageError."""
    manifest = _checked(folder)
    url = database_url(settings.database_url)
    if manifest["database"] != (_SQLITE if url.get_backend_name() == "sqlite" else _POSTGRES):
        raise StorageError(f"the backup holds {manifest['database']}, which is not of the kind that NABZ_DATABASE_URL names")
    target = Path(str(url.database))
    if manifest["database"] == _SQLITE:
        _refuse_leftovers(target)
    make_folder(settings.data_dir)
    progress("photos")  # before the database: what is broken off here can be begun again
    if (folder / _PHOTOS).is_dir():
        shutil.copytree(folder / _PHOTOS, settings.photos, dirs_exist_ok=True)
        sync_tree(settings.photos)
    if (folder / _ANCHORS).is_file() and not (settings.data_dir / _ANCHORS).exists():
        shutil.copy2(folder / _ANCHORS, settings.data_dir / _ANCHORS)
        sync_file(settings.data_dir / _ANCHORS)
    progress("database")
    if manifest["database"] == _SQLITE:
        make_folder(target.parent)
        _put(folder / _SQLITE, target)
    else:
        _run("pg_restore", url, "--no-owner", "--exit-on-error", "--single-transaction", str(folder / _POSTGRES))


def _refuse_leftovers(target: Path) -> None:
    """A database is not overwritten; nor is one put beside another's journal, which SQLite would roll back into it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        if (found := target.with_name(target.name + suffix)).exists():
            raise StorageError(f"{found} is there already: move it away first, with all of that database; nothing is overwritten")
    if (part := _part(target)).exists():
        raise StorageError(f"{part} is there: another restore is running, or one was broken off; remove it if none is running")


def _copy_if_there(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # erased meanwhile
        shutil.copy2(source, target)


def _copy_sqlite(source: Path, target: Path, progress: Callable[[str], None]) -> None:
    if not source.is_file():
        raise StorageError(f"{source} does not exist: there is nothing to back up")
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            copy.execute("PRAGMA synchronous = OFF")  # the service would wait for a slow disk; it is synced in the end
            try:
                if source.stat().st_size > _SMALL_BYTES:
                    live.backup(copy, pages=_PAGES_AT_ONCE, progress=_Patience(), sleep=0.01)
                else:
                    live.backup(copy)
            except _TooBusyError:
                progress("the service never pauses: its writes wait while the database is copied at once")
                live.backup(copy)
            if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise StorageError(f"{source} is damaged: the copy is not whole; restore the newest good backup")
    except sqlite3.Error as error:
        raise StorageError(f"{source} cannot be backed up ({type(error).__name__}): see that the disk has room") from error
    target.chmod(0o600)


class _TooBusyError(Exception):
    """The service writes so often that a copy in bites never ends."""


class _Patience:
    """Watches a copy in bites: SQLite begins it anew whenever the service has written in between."""

    def __init__(self) -> None:
        self._left, self._restarts = math.inf, 0

    def __call__(self, _status: int, left: int, _total: int) -> None:
        self._restarts += left >= self._left
        self._left = left
        if self._restarts > _MOST_RESTARTS:
            raise _TooBusyError


def _put(source: Path, target: Path) -> None:
    """Copy a file in whole or not at all."""
    part = _part(target)
    try:
        shutil.copyfile(source, part)
        part.chmod(0o600)
        sync_file(part)
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _part(target: Path) -> Path:
    return target.with_suffix(".part")


def _checked(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, database = dict(manifest["files"]), str(manifest["database"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{folder} holds no backup that can be read: {MANIFEST} is missing or broken") from error
    for name, expected in files.items():
        path = folder / name
        if ".." in Path(name).parts or not path.is_file() or _sha256(path) != expected:
            raise StorageError(f"{name} in the backup is missing or was altered: use another backup")
    if more := {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - files.keys() - {MANIFEST}:
        raise StorageError(f"{min(more)} was added to the backup: use another backup")
    return {"database": database}


def _run(tool: str, url: URL, *arguments: str) -> None:
    """Run a tool of PostgreSQL's; the password travels in the environment, not on the command line."""
    program = shutil.which(tool) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{tool}"), reverse=True)), None
    )
    if program is None:
        raise StorageError(f"{tool} is not installed: install PostgreSQL's client programs")
    environment = {**os.environ, "PGPASSWORD": str(url.password or "")} if url.password else dict(os.environ)
    target = url.set(drivername="postgresql")._replace(password=None).render_as_string(hide_password=False)  # set() keeps it
    try:
        done = subprocess.run(
            [program, f"--dbname={target}", *arguments], env=environment, capture_output=True, timeout=_TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(f"{tool} did not finish ({type(error).__name__})") from error
    if done.returncode:
        raise StorageError(f"{tool} failed with status {done.returncode}: run it by hand to see why; nothing was changed")


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
