"""The keys that sign tokens: read from a JSON Web Key Set (RFC 7517), fetched, kept and refreshed.

It knows nothing of claims, roles or HTTP requests. Only public keys of the algorithms in `ALGORITHMS` are taken; every
other key of a set is left out. A set that cannot be fetched or read never replaces one that could.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from inference.errors import OverloadedError, PolicyError, UnauthenticatedError

if TYPE_CHECKING:
    import httpx

# What a key of this type (and curve) may sign. Nothing symmetric: a public key must never pass for a shared secret.
_SIGNS: Final[Mapping[tuple[object, object], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS: Final = tuple(algorithm for algorithms in _SIGNS.values() for algorithm in algorithms)
RSA_BITS_LEAST: Final = 2048  # NIST SP 800-131A
SET_BYTES_LIMIT: Final = 256 * 1024
KEYS_LIMIT: Final = 100
FETCH_SECONDS: Final = 3.0
REFRESH_PAUSE_SECONDS: Final = 30.0  # between two fetches, so that made-up key ids cannot make us hammer the issuer
KEYS_AGE_SECONDS: Final = 300.0  # after this a set is fetched anew, so that a withdrawn key goes
FILE_PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger("nabz.identity")


class _KeySetError(Exception):
    """A key set cannot be used; the text holds no key."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one set: (algorithm, key id, key)."""

    keys: tuple[tuple[str, str | None, PyJWK], ...]

    @classmethod
    def parse(cls, content: bytes) -> KeySet:
        """The keys of a JSON Web Key Set. Raises _KeySetError when none is usable."""
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _KeySetError("it is not JSON") from error
        entries = parsed.get("keys") if isinstance(parsed, dict) else None
        if not isinstance(entries, list) or len(entries) > KEYS_LIMIT:
            raise _KeySetError(f'it is not a JSON Web Key Set: an object with a list "keys" of at most {KEYS_LIMIT}')
        keys = tuple(key for entry in entries if isinstance(entry, dict) for key in _usable(entry))
        if not keys:
            raise _KeySetError(f"it holds no public key to verify {', '.join(ALGORITHMS)} with (RSA of at least {RSA_BITS_LEAST} bits)")
        return cls(keys)

    def choose(self, algorithm: str, key_id: str | None) -> PyJWK | None:
        """The one key for this token, or None. Raises UnauthenticatedError where several would fit."""
        fit = [key for its_algorithm, its_id, key in self.keys if its_algorithm == algorithm and key_id in (None, its_id)]
        if len(fit) > 1:
            raise UnauthenticatedError("the token does not say which of the issuer's keys signed it: its header needs a `kid` of one key")
        return fit[0] if fit else None


def _usable(entry: dict[str, Any]) -> list[tuple[str, str | None, PyJWK]]:
    """The key of one entry, once for each algorithm that it may verify; empty when it must not be used."""
    key_id = entry.get("kid")
    for_signatures = entry.get("use", "sig") == "sig" and "verify" in entry.get("key_ops", ["verify"])
    # A set that publishes private parts is no longer anybody's secret: such a key proves nothing.
    if not for_signatures or "d" in entry or not isinstance(key_id, str | None):
        return []
    kind = (entry.get("kty"), entry.get("crv"))
    algorithms = _SIGNS.get(kind, ()) if all(isinstance(part, str | None) for part in kind) else ()
    keys = []
    for algorithm in algorithms:
        if entry.get("alg", algorithm) == algorithm:
            try:
                key = PyJWK(entry, algorithm)
            except (PyJWTError, ValueError, TypeError, AttributeError):
                return []
            if not isinstance(key.key, RSAPublicKey) or key.key.key_size >= RSA_BITS_LEAST:
                keys.append((algorithm, key_id, key))
    return keys


class KeySource(Protocol):
    """Where keys come from; `current` is replaced as a whole when they change."""

    current: KeySet | None

    async def ensure(self) -> KeySet:
        """Keys that are recent enough. Raises OverloadedError when there have never been any."""

    async def look_again(self) -> KeySet:
        """The keys after a token named an unknown one; looks again, but not too often."""


class FixedKeys:
    """Keys that never change: those of the development issuer."""

    def __init__(self, keys: KeySet) -> None:
        self.current: KeySet | None = keys
        self._keys = keys

    async def ensure(self) -> KeySet:
        """The keys."""
        return self._keys

    async def look_again(self) -> KeySet:
        """The keys."""
        return self._keys


class FileKeys:
    """Keys in a file, read again when it changes. A file that cannot be read any more leaves the last keys in use."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        try:
            self._stamp = self._now_stamp()
            self._keys = KeySet.parse(_read_bounded(path))
        except (OSError, _KeySetError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise PolicyError(f"NABZ_AUTH_KEYS: {path} cannot be used: {why}") from error
        self.current: KeySet | None = self._keys
        self._looked_at = clock()

    async def ensure(self) -> KeySet:
        """The keys, read again when the file has changed; it is looked at once a second at most."""
        if self._clock() - self._looked_at >= FILE_PAUSE_SECONDS:
            self._looked_at = self._clock()
            await asyncio.to_thread(self._read_if_changed)
        return self._keys

    async def look_again(self) -> KeySet:
        """As `ensure`: a look at a file costs little."""
        return await self.ensure()

    def _now_stamp(self) -> tuple[int, int, int]:
        facts = self._path.stat()
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    def _read_if_changed(self) -> None:
        try:
            stamp = self._now_stamp()
            if stamp != self._stamp:
                self._keys = self.current = KeySet.parse(_read_bounded(self._path))
                self._stamp = stamp
        except (OSError, _KeySetError) as error:
            _log.warning("the key set file cannot be read (%s): the last keys stay in use", type(error).__name__)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(SET_BYTES_LIMIT + 1)
    if len(content) > SET_BYTES_LIMIT:
        raise _KeySetError(f"it is larger than {SET_BYTES_LIMIT} bytes")
    return content


class UrlKeys:
    """Keys behind an https URL. One fetch at a time; requests that need no new key never wait for one."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.current: KeySet | None = None
        self._url = url
        self._transport = transport
        self._clock = clock
        self._tried_at: float | None = None
        self._fetched_at = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def ensure(self) -> KeySet:
        """The keys; the first call waits for them, a later one only sets off a fetch when they have grown old."""
        if self.current is None:
            await self._fetch_unless_just_tried()
            return self._known()
        if self._clock() - self._fetched_at >= KEYS_AGE_SECONDS:
            self._start_unless_just_tried()
        return self.current

    async def look_again(self) -> KeySet:
        """The keys after a fetch, or without one when the last is less than REFRESH_PAUSE_SECONDS ago."""
        await self._fetch_unless_just_tried()
        return self._known()

    def _known(self) -> KeySet:
        if self.current is None:
            raise OverloadedError("the issuer's keys cannot be fetched, so no token can be verified: try again", int(REFRESH_PAUSE_SECONDS))
        return self.current

    async def _fetch_unless_just_tried(self) -> None:
        self._start_unless_just_tried()
        # Shielded: a caller that gives up must not take the fetch of all the others with it.
        if self._fetching is not None and not self._fetching.done():
            await asyncio.shield(self._fetching)

    def _start_unless_just_tried(self) -> None:
        running = self._fetching is not None and not self._fetching.done()
        if not running and (self._tried_at is None or self._clock() - self._tried_at >= REFRESH_PAUSE_SECONDS):
            self._tried_at = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        import httpx  # takes a quarter of a second, which a service with a key file never needs

        try:
            self.current = KeySet.parse(await self._get())
            self._fetched_at = self._clock()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, _KeySetError) as error:
            _log.warning("the issuer's key set cannot be fetched (%s): the last keys stay in use", type(error).__name__)

    async def _get(self) -> bytes:
        import httpx

        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx.AsyncClient(transport=self._transport, timeout=FETCH_SECONDS, follow_redirects=False) as client,
            client.stream("GET", self._url, headers={"Accept": "application/jwk-set+json, application/json"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise _KeySetError(f"the issuer answered {answer.status_code}")
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > SET_BYTES_LIMIT:
                    raise _KeySetError(f"it is larger than {SET_BYTES_LIMIT} bytes")
            return bytes(content)
