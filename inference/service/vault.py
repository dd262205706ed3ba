"""Encryption of what is stored: AES-256-GCM under a ring of keys that lies in one file.

A sealed piece is 0x01, the key's id (8 bytes), a random nonce (12 bytes), and the ciphertext with its tag (16 bytes).
Under one key up to 2**32 pieces may be sealed (NIST SP 800-38D, 8.3); rotate long before. The vault does not know
what it seals nor where that is kept; the `context` ties a piece to its place, so that none can pass for another.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from inference.errors import ConflictError, NotFoundError, StorageError
from inference.service.durable import locked, make_folder, write_durably

FORMAT = b"\x01"
KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES = 32, 8, 12, 16
_HEADER_BYTES = len(FORMAT) + KEY_ID_BYTES
# A running vault notices within this time that another process has rotated the keys.
_LOOK_SECONDS = 1.0
# The owner, and at most a group that reads: a key file that anyone may read is no secret.
_TOO_OPEN = 0o037


@dataclass(frozen=True, slots=True)
class _Key:
    secret: bytes
    created: datetime

    @classmethod
    def fresh(cls) -> _Key:
        return cls(secrets.token_bytes(KEY_BYTES), datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Ring:
    """What the key file holds; `keys` by id, oldest first."""

    primary: str
    root: bytes
    keys: Mapping[str, _Key]

    def as_json(self) -> bytes:
        keys = [
            {"id": name, "key": _text(key.secret), "created": key.created.isoformat(timespec="seconds")} for name, key in self.keys.items()
        ]
        return json.dumps({"version": 1, "primary": self.primary, "root": _text(self.root), "keys": keys}, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> _Ring:
        fields = json.loads(content)
        keys = {
            _key_id(one["id"]): _Key(_secret(one["key"]), datetime.fromisoformat(one["created"]).astimezone(UTC)) for one in fields["keys"]
        }
        if fields["version"] != 1 or fields["primary"] not in keys:
            raise ValueError("another version, or the primary key is not among the keys")
        return cls(fields["primary"], _secret(fields["root"]), keys)


class Vault:
    """Seals and unseals; safe to share between threads. Another process may rotate the keys meanwhile."""

    def __init__(self, key_file: Path, ring: _Ring) -> None:
        self._file = key_file
        self._ring = ring
        self._looking = threading.Lock()
        self._looked_at = -_LOOK_SECONDS
        self._seen: tuple[int, int] | None = None  # the file that the ring is of

    @classmethod
    def open(cls, key_file: Path, *, create: bool = False) -> Vault:
        """The vault of a key file. With `create` a missing file is made, once, however many ask at the same time.

        Raises StorageError when the file is missing, broken, or open to others.
        """
        if create and not key_file.exists():
            with _alone(key_file):
                if not key_file.exists():
                    write_durably(key_file, _fresh_ring().as_json())
        return cls(key_file, _read(key_file))

    @property
    def primary(self) -> str:
        """The id of the key that seals."""
        return self._ring.primary

    @property
    def key_ids(self) -> tuple[str, ...]:
        """All keys' ids, oldest first."""
        return tuple(self._ring.keys)

    @property
    def primary_age(self) -> timedelta:
        """How long ago the primary key was made, by this machine's clock."""
        return datetime.now(UTC) - self._ring.keys[self._ring.primary].created

    def seal(self, content: bytes, context: str) -> bytes:
        """Encrypt `content` so that only `unseal` with the same `context` gives it back.

        Raises StorageError when the key file was changed and cannot be read: the key known so far may soon be forgotten.
        """
        ring = self._newest()
        header, nonce = FORMAT + bytes.fromhex(ring.primary), secrets.token_bytes(NONCE_BYTES)
        return header + nonce + AESGCM(ring.keys[ring.primary].secret).encrypt(nonce, content, header + context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """The content of a sealed piece. Raises StorageError when it was altered, moved, or its key is not here."""
        if len(sealed) < _HEADER_BYTES + NONCE_BYTES + TAG_BYTES or not sealed.startswith(FORMAT):
            raise StorageError("a stored piece is damaged: it is cut short or was not sealed by Nabz; restore it from a backup")
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        key_id = header[len(FORMAT) :].hex()
        try:
            return AESGCM(self._key(key_id)).decrypt(nonce, sealed[_HEADER_BYTES + NONCE_BYTES :], header + context.encode())
        except InvalidTag:
            raise StorageError(
                f"a stored piece sealed with key {key_id} was altered or belongs elsewhere; restore it from a backup"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether a piece was sealed with the primary key."""
        return sealed.startswith(FORMAT + bytes.fromhex(self._ring.primary))

    def rotate(self) -> str:
        """Add a key that seals from now on, and return its id. What older keys sealed stays readable."""
        key_id = secrets.token_hex(KEY_ID_BYTES)
        with _alone(self._file):
            ring = _read(self._file)
            self._replace(_Ring(key_id, ring.root, {**ring.keys, key_id: _Key.fresh()}))
        return key_id

    def forget(self, key_id: str) -> None:
        """Drop a key: what it sealed can never be read again. Raises ConflictError for the primary key."""
        with _alone(self._file):
            ring = _read(self._file)
            if key_id == ring.primary:
                raise ConflictError(f"key {key_id} seals what is stored now; rotate the keys first, then seal again what it sealed")
            if key_id not in ring.keys:
                raise NotFoundError("there is no such key; the key file lists their ids")
            self._replace(_Ring(ring.primary, ring.root, {name: key for name, key in ring.keys.items() if name != key_id}))

    def mac_key(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, the same for as long as the key file lives (HKDF-SHA256, RFC 5869)."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"nabz " + purpose.encode()).derive(self._ring.root)

    def _newest(self) -> _Ring:
        """The ring as the key file has it now, or a moment ago. While there is no file, the one that is known."""
        with self._looking:
            if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                with suppress(OSError):  # it may be on its way back; whoever opens the vault next is told
                    status = self._file.stat()
                    if self._seen != (found := (status.st_mtime_ns, status.st_ino)):
                        self._ring, self._seen = _read(self._file), found
                self._looked_at = time.monotonic()
            return self._ring

    def _key(self, key_id: str) -> bytes:
        """The key of that id, which another process may have added since the file was read."""
        if key_id not in self._ring.keys:
            self._ring = _read(self._file)
        try:
            return self._ring.keys[key_id].secret
        except KeyError:
            raise StorageError(
                f"a stored piece was sealed with key {key_id}, which is not in the key file; restore the key file that holds it"
            ) from None

    def _replace(self, ring: _Ring) -> None:
        write_durably(self._file, ring.as_json())
        self._ring = ring


def _fresh_ring() -> _Ring:
    key_id = secrets.token_hex(KEY_ID_BYTES)
    return _Ring(key_id, secrets.token_bytes(KEY_BYTES), {key_id: _Key.fresh()})


@contextmanager
def _alone(key_file: Path) -> Iterator[None]:
    """Change the key file while nobody else does. Raises StorageError when it cannot be written."""
    try:
        make_folder(key_file.parent)
        with locked(key_file.parent):
            yield
    except OSError as error:
        raise StorageError(
            f"the key file cannot be written ({error.strerror}); make its folder writable, the keys are as they were"
        ) from error


def _read(key_file: Path) -> _Ring:
    try:
        with key_file.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError as error:
        raise StorageError(
            f"the key file {key_file.name} is missing: restore your copy of it, because without it nothing that was "
            "sealed can be read; only a new installation may start with a new one"
        ) from error
    except OSError as error:
        raise StorageError(f"the key file {key_file.name} cannot be read ({error.strerror})") from error
    if mode & _TOO_OPEN:
        raise StorageError(f"the key file {key_file.name} can be read or changed by others on this machine; run: chmod 600 {key_file.name}")
    try:
        return _Ring.from_json(content)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise StorageError(f"the key file {key_file.name} is broken; restore your copy of it") from None


def _text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def _secret(text: Any) -> bytes:
    secret = base64.b64decode(text, validate=True)
    if len(secret) != KEY_BYTES:
        raise ValueError(f"a key of {len(secret)} bytes")
    return secret


def _key_id(text: Any) -> str:
    if len(bytes.fromhex(text)) != KEY_ID_BYTES or text != text.lower():
        raise ValueError("a key id that is none")
    return str(text)
