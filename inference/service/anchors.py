"""The end of the audit trail, signed, and the file outside of the database that notes it from time to time.

A database put back to an older state as a whole is noticed by it. Does not know where the trail is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path

from inference.errors import StorageError
from inference.service.durable import OWNER_ONLY_FILE, locked, write_durably

_LINE_BYTES = 200  # more than a line has
_THIN_BYTES = 512 * 1024  # at one line a minute, two days and more


def anchor(end: tuple[int, str], key: bytes, file: Path) -> None:
    """Write the end of the chain, as `audit.read_head` gave it, to a file outside of the database: one line each time it has moved.

    When the file has grown, every other line of its older half goes: of the last day all stay, of older ones fewer and fewer.
    """
    sequence, last = end
    if not sequence:
        return
    line = f"{sequence} {last} {end_mac(key, sequence, last)}\n".encode()
    with locked(file.parent):
        with os.fdopen(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, OWNER_ONLY_FILE), "a+b") as out:
            size = out.seek(0, os.SEEK_END)
            out.seek(max(0, size - _LINE_BYTES))
            tail = out.read()
            if tail.endswith(line):
                return
            torn = len(tail) - tail.rfind(b"\n") - 1
            out.truncate(size - torn)  # the power failed while the last line was written
            out.write(line)
            out.flush()
            os.fsync(out.fileno())
        if size > _THIN_BYTES:
            lines = _content(file).splitlines(keepends=True)
            half = len(lines) // 2
            write_durably(file, b"".join([*lines[:half:2], *lines[half:]]))


def read_anchors(file: Path, key: bytes) -> Iterator[tuple[int, str]]:
    """The ends that were noted (sequence, hash). Raises StorageError when the file was altered."""
    *lines, _torn = _content(file).decode("ascii", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        parts = line.split(" ")
        is_formed = len(line) < _LINE_BYTES and len(parts) == 3 and parts[0].isdigit()
        if not is_formed or not is_same(parts[2], end_mac(key, int(parts[0]), parts[1])):
            raise StorageError(f"{file.name}, line {number}: this anchor was altered; compare the file with your copies of it")
        yield int(parts[0]), parts[1]


def _content(file: Path) -> bytes:
    """The file's content. Raises StorageError when it is far larger than Nabz lets it become."""
    with file.open("rb") as content:
        found = content.read(2 * _THIN_BYTES + 1)
    if len(found) > 2 * _THIN_BYTES:
        raise StorageError(f"{file.name} is larger than Nabz makes it: it was altered; compare the file with your copies of it")
    return found


def is_same(stored: object, expected: str) -> bool:
    """Whether a stored value is the expected one; a value of another type is not."""
    return isinstance(stored, str) and hmac.compare_digest(stored.encode(), expected.encode())


def end_mac(key: bytes, sequence: int, last: str) -> str:
    """The signature of an end of the chain."""
    return hmac.digest(key, f"head {sequence} {last}".encode(), hashlib.sha256).hex()
