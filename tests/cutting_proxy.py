"""A TCP proxy that breaks connections for real: in the middle of a request, or after the service has answered and before that arrives.

It reads as much HTTP as it needs to know where a request begins. Knows no browser and no case.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(?:POST|PATCH|HEAD) (/app/api/(uploads|intake/send|intake/read)\S*) HTTP/1\.1\r\n")
_ANSWER_BYTES, _REQUEST_BYTES = 300, 40_000


@dataclass
class CuttingProxy:
    """`cuts` counts by what was cut: `uploads`, `intake/send`, `intake/read`, and `answers` among them that the service had given."""

    upstream: int
    seed: int = 7
    share: float = 0.0  # of the requests of scripts, so many are cut
    is_down: bool = False  # nobody gets through
    cuts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def total(self) -> int:
        """How many connections were cut."""
        return sum(self.cuts[kind] for kind in ("uploads", "intake/send", "intake/read"))

    def close(self) -> None:
        """Take no further connection."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.is_down:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                _reset(client)
                continue
            pair = _Pair(self, client, server)
            for work in (pair.up, pair.down):
                threading.Thread(target=work, daemon=True).start()

    def decide(self, kind: str) -> tuple[str, int]:
        """What becomes of a request: let through, cut after so many bytes of it, or after so many of its answer."""
        with self._lock:
            if self._random.random() >= self.share:
                return "pass", 0
            if self._random.random() < 0.5:
                return "request", self._random.randrange(_REQUEST_BYTES if kind == "uploads" else 1500)
            return "answer", self._random.choice((0, self._random.randrange(_ANSWER_BYTES)))

    def count(self, kind: str, way: str) -> None:
        """Note a cut."""
        with self._lock:
            self.cuts[kind] += 1
            if way == "answer":
                self.cuts[f"{kind} answers"] += 1


class _Pair:
    """One connection, and what is to become of the request that is on it."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._kind, self._way, self._left = "", "pass", 0

    def up(self) -> None:
        with suppress(OSError):
            while content := self._client.recv(16_384):
                if self._proxy.is_down:
                    break
                found = _REQUEST.match(content)
                if found:
                    self._kind = found[2].decode()
                    self._way, self._left = self._proxy.decide(self._kind)
                elif content.startswith((b"GET ", b"POST ")):
                    self._way = "pass"
                if self._way == "request" and len(content) > self._left:
                    self._server.sendall(content[: self._left])
                    self._proxy.count(self._kind, "request")
                    break
                self._left -= len(content) if self._way == "request" else 0
                self._server.sendall(content)
        self._end()

    def down(self) -> None:
        with suppress(OSError):
            while content := self._server.recv(16_384):
                if self._proxy.is_down:
                    break
                if self._way == "answer":
                    self._client.sendall(content[: self._left])
                    self._proxy.count(self._kind, "answer")
                    break
                self._client.sendall(content)
        self._end()

    def _end(self) -> None:
        _reset(self._client)
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _reset(connection: socket.socket) -> None:
    """End a connection as a line that breaks does: at once, without a word."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        connection.close()


@contextmanager
def cutting(upstream: int) -> Iterator[CuttingProxy]:
    """A proxy in front of a port of this machine."""
    proxy = CuttingProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
