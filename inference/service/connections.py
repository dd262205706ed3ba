"""HTTP connections with an end: how many there are, how long a head may be, how long a connection may wait for one.

httptools bounds none of that, and uvicorn looks at connections only when a request has come. It knows no request and no route;
the bodies are the guards' (request_body.py).
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, Final

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 32 * 1024
HEAD_SECONDS: Final = 15.0
IDLE_SECONDS: Final = 30.0
FLUSH_SECONDS: Final = 300.0  # for what was answered to get to a slow client, before the connection is cut
_LEAST_CONNECTIONS: Final = 64
_OTHER_FILES: Final = 128  # database, photos, models, logs


def connections_limit(in_flight_limit: int) -> int:
    """How many connections may be open: requests, event streams and idle ones, as far as the process may open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4 * in_flight_limit if files == resource.RLIM_INFINITY else min(4 * in_flight_limit, files - _OTHER_FILES)
    return max(_LEAST_CONNECTIONS, most)


def _refusal(status: str, text: str, *more: str) -> bytes:
    head = (f"HTTP/1.1 {status}", *more, "connection: close", "content-type: text/plain; charset=utf-8", f"content-length: {len(text)}")
    return "\r\n".join((*head, "", text)).encode("ascii")


_FULL: Final = _refusal("503 Service Unavailable", "too many connections are open: try again in a moment\n", "retry-after: 5")
_TOO_LONG: Final = _refusal("431 Request Header Fields Too Large", f"the headers are longer than {HEAD_BYTES} bytes: send fewer\n")


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds. Costs about a microsecond a request: `close_if_late` is called for all of them in turn."""

    most_open = 2048

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._deadline: float | None = None  # for the next head to be complete; None while a request is being served
        self._is_ending = self._is_too_long = False
        self._is_new = False  # a message began in the data that is being read
        self._received = self._body = 0  # of this message: all bytes after the data in which it began, and those of its body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + HEAD_SECONDS
        if len(self.connections) > self.most_open:
            transport.write(_FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what has come. What is no body (a head, trailers, the frames of chunks) has an end, also while it is incomplete."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_new:
            self._is_new = False
            return
        self._received += len(data)
        if self._received - self._body > HEAD_BYTES + self._body and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._is_new = True
        self._received = self._body = 0
        self._deadline = self.loop.time() + HEAD_SECONDS

    def on_headers_complete(self) -> None:
        """The head is whole: the app may run."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._is_too_long = True
            raise HttpParserError  # ends the parsing, and comes back as `send_400_response`
        self._deadline = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._body += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """An answer went out: without a further request the connection waits, for the rest of this one or for the next."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._deadline = self.loop.time() + IDLE_SECONDS

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed, or was too long to be."""
        if self._is_too_long:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def close_if_late(self, now: float) -> None:
        """Close a connection that has waited too long for a request; cut one that cannot be closed."""
        if self._deadline is None or self._deadline > now:
            return
        if self._is_ending:
            self.transport.abort()
        else:
            self.transport.close()
            self._is_ending, self._deadline = True, now + FLUSH_SECONDS

    def _refuse_head(self) -> None:
        self.transport.write(_TOO_LONG)
        self.transport.close()
