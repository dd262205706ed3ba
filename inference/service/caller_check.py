"""Who calls, and how often: asked for every request before a byte of its body is read.

It knows the paths that need no token, and no route; what a caller may do is asked later, by the routes.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from inference.errors import UnauthenticatedError
from inference.service.callers import Who
from inference.service.identity import TokenVerifier
from inference.service.rate_limit import RateLimit, caller_of
from inference.service.request_body import Headers

HEALTH: Final = frozenset({"/health/live", "/health/ready"})
_PAGES: Final = {"/", "/app/sign-in", "/app/sign-out", "/app/choices", "/app/sw.js", "/app/manifest.webmanifest"}  # nothing of a patient
OPEN: Final = HEALTH | {"/fhir/metadata", "/cds-services", "/dev/token", "/openapi.json"} | _PAGES  # no token is asked for
_OPEN_FOLDER: Final = "/app/static/"  # style sheets and scripts, the same for everybody
METRICS: Final = "/metrics"  # asks for the token itself: it is neither counted nor refused for being one too many
WHO: Final = "nabz.who"  # in a request's scope: the verified caller


def is_open(path: str) -> bool:
    """Whether anybody may ask for this path."""
    return path in OPEN or path.startswith(_OPEN_FOLDER)


class CallerCheck:
    """Counts requests by caller, and verifies tokens. Without a verifier it only counts, by address."""

    def __init__(self, verifier: TokenVerifier | None, requests_per_minute: int) -> None:
        self._verifier = verifier
        self._rate = RateLimit(requests_per_minute)

    def count(self, scope: Scope, headers: Headers) -> None:
        """Count a request: for the subject of its token where that was verified before, else for its address.

        A new token is counted by `identify`, as what it proves to be. Raises BusyError.
        """
        header = headers.get(b"authorization")
        if self._verifier is not None and header is not None:
            who = self._verifier.seen(header)
            if who is not None:
                self._rate.count(f"subject:{who.subject}")
                return
            if not is_open(scope["path"]):
                return
        self._rate.count(_address(scope))

    async def identify(self, scope: Scope, headers: Headers) -> Who | None:
        """The verified caller; None where none is asked for.

        Raises UnauthenticatedError, BusyError for an address that has sent too many wrong tokens, or OverloadedError while the
        issuer's keys cannot be had. Wrong tokens have a count of their own: where many share an address, nobody can use it up
        for those who have a right one.
        """
        header = headers.get(b"authorization")
        if self._verifier is None or is_open(scope["path"]) or scope["path"] == METRICS:
            return None
        if (known := self._verifier.known(header)) is not None:
            return known
        if header is None or self._verifier.seen(header) is not None:  # counted already
            return await self._verifier.who(header)
        wrong = f"wrong tokens of {_address(scope)}"
        self._rate.check(wrong)
        try:
            who = await self._verifier.who(header)
        except UnauthenticatedError:
            self._rate.count(wrong)
            raise
        self._rate.count(f"subject:{who.subject}")
        return who


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return caller_of(client[0] if client else None)
