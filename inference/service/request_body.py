"""What a request's body may be: its type, its size, how fast it comes. It knows routes by prefix only, and reads no JSON.

The type and the announced length are checked before the app runs (`admit`); the bytes are watched as they come
(`BodyWatch`), because a chunked body announces nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from starlette.types import Message, Receive

from inference.errors import MalformedError, TooLargeError, WrongTypeError
from inference.service.problems import TooSlowError
from inference.service.settings import Settings
from inference.service.shared_timer import SharedTimer

BODY_SECONDS: Final = 30.0  # for the first bytes; each that has come gives more time, up to an end
LEAST_BYTES_PER_SECOND: Final = 4096
MOST_BODY_SECONDS: Final = 300.0
JSON_TYPES: Final = frozenset({b"application/json", b"application/fhir+json"})
_JSON: Final = frozenset({b"application/json"})
_PHOTOS: Final = frozenset({b"application/json", b"multipart/form-data"})
_FORM: Final = frozenset({b"application/json", b"application/x-www-form-urlencoded"})
_PAGE: Final = frozenset(
    {b"application/json", b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/offset+octet-stream"}
)
_UPLOAD: Final = re.compile(r"/v1/referrals(?:/[^/]+/findings)?")
_SINGLE: Final = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"authorization", b"x-request-id"}
)
TWICE: Final = b""  # no header has this name

Headers = Mapping[bytes, bytes]


def read_headers(raw: list[tuple[bytes, bytes]]) -> Headers:
    """The headers that the guards look at; one that came twice is marked under the key TWICE."""
    found: dict[bytes, bytes] = {}
    for name, value in raw:
        if name in _SINGLE:
            if name in found:
                found[TWICE] = name
            found[name] = value
    return found


def accepted_types(method: str, path: str) -> frozenset[bytes]:
    """The content types that a request to this path may have."""
    if path.startswith("/fhir"):
        return JSON_TYPES
    if path.startswith("/v1/referrals"):
        return _PHOTOS if method == "POST" and _UPLOAD.fullmatch(path) else _JSON
    if path.startswith("/app/"):
        return _PAGE
    return _FORM if path == "/dev/token" else _JSON


class BodyRules:
    """The limits of a service."""

    def __init__(self, settings: Settings, body_seconds: float = BODY_SECONDS) -> None:
        self._body_seconds = body_seconds
        self._timer = SharedTimer(body_seconds / 30)
        self._body_limit = settings.body_limit_bytes
        self._upload_limit = settings.upload_limit_bytes

    def admit(self, method: str, path: str, headers: Headers) -> BodyWatch | None:
        """How to watch the body, or None where none was announced. Raises for a type or a length that is not accepted."""
        if TWICE in headers:
            raise MalformedError(f"the header {headers[TWICE].decode('ascii')} came twice: send it once")
        length = headers.get(b"content-length")
        chunked = b"transfer-encoding" in headers
        if length is None and not chunked:
            return None
        announced = _announced(length, chunked=chunked)
        if announced == 0:
            return None
        kind = _kind_of(headers.get(b"content-type", b""))
        accepted = accepted_types(method, path)
        if kind not in accepted:
            raise WrongTypeError(f"this content type is not accepted here: send {' or '.join(sorted(one.decode() for one in accepted))}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise WrongTypeError("compressed bodies are not accepted: send the body without Content-Encoding")
        limit = self._upload_limit if kind == b"multipart/form-data" else self._body_limit
        if announced is not None and announced > limit:
            raise _too_large(limit)
        return BodyWatch(limit, self._body_seconds, self._timer, is_json=kind in JSON_TYPES)


class BodyWatch:
    """One body as it comes: its size, its time, and that JSON is in UTF-8."""

    __slots__ = ("_began", "_is_json", "_left", "_limit", "_seconds", "_timer", "ended")

    def __init__(self, limit: int, seconds: float, timer: SharedTimer, *, is_json: bool) -> None:
        self._limit = limit
        self._left = limit
        self._is_json = is_json
        self._seconds = seconds
        self._timer = timer
        self._began: float | None = None
        self.ended = False

    async def next(self, receive: Receive) -> Message:
        """The next message. Raises TooLargeError, TooSlowError, or MalformedError for JSON in UTF-16 or UTF-32."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        allowed = min(self._seconds + (self._limit - self._left) / LEAST_BYTES_PER_SECOND, MOST_BODY_SECONDS)
        try:
            message = await self._timer.by(self._began + allowed, receive)
        except TimeoutError as error:
            raise TooSlowError(f"the body did not arrive within {allowed:.0f} seconds: send it again over a better connection") from error
        if message["type"] != "http.request":
            self.ended = True
            return message
        body = message.get("body", b"")
        self._left -= len(body)
        if self._left < 0:
            raise _too_large(self._limit)
        # Text in UTF-8 has no zero bytes and JSON allows none; UTF-16 and UTF-32 always have some.
        if self._is_json and b"\0" in body:
            raise MalformedError("the body is not JSON in UTF-8: send UTF-8 (RFC 8259)")
        self.ended = not message.get("more_body", False)
        return message


def unannounced(message: Message) -> None:
    """Raises MalformedError for a body that no header announced; an empty one is none."""
    if message["type"] == "http.request" and message.get("body"):
        raise MalformedError("a body came without Content-Length or Transfer-Encoding: announce it")


def _announced(length: bytes | None, *, chunked: bool) -> int | None:
    """The announced length; None for a chunked body. Raises MalformedError for headers that two servers may read in two ways."""
    if length is None:
        return None
    if chunked:
        raise MalformedError("the request has both Content-Length and Transfer-Encoding: send one of them")
    if not length.isdigit() or len(length) > 18:
        raise MalformedError("Content-Length must be the number of bytes, in digits")
    return int(length)


def _kind_of(content_type: bytes) -> bytes:
    """The media type in lower case. Raises WrongTypeError for another charset than UTF-8, MalformedError without a boundary."""
    if content_type in _JSON:
        return content_type
    kind, *parameters = (part.strip().lower() for part in content_type.split(b";"))
    given = {name.strip(): value.strip().strip(b'"') for name, _, value in (parameter.partition(b"=") for parameter in parameters)}
    if given.get(b"charset", b"utf-8") not in {b"utf-8", b"utf8"}:
        raise WrongTypeError("another charset than UTF-8 is not accepted: send UTF-8")
    if kind == b"multipart/form-data" and not given.get(b"boundary"):
        raise MalformedError("the multipart body has no boundary: name it in Content-Type")
    return kind


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {limit} bytes: send fewer cases at a time, or smaller photos")
