"""The headers that every answer carries, unless it has set its own. It knows no route and no error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SECURITY_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
_NAMES: Final = frozenset(name for name, _ in SECURITY_HEADERS)


def with_headers(given: Iterable[tuple[bytes, bytes]], request_id: str, scheme: str) -> list[tuple[bytes, bytes]]:
    """The answer's headers, those above that it has not set, and the request id. `given` is left as it is."""
    headers = list(given)
    names = {name for name, _ in headers}
    if names.isdisjoint(_NAMES):
        headers += SECURITY_HEADERS
    else:
        headers += [header for header in SECURITY_HEADERS if header[0] not in names]
    if scheme == "https":
        headers.append(STRICT_TRANSPORT)
    headers.append((b"x-request-id", request_id.encode("ascii")))
    return headers
