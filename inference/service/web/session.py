"""Who looks at a page: the bearer token in a cookie, taken over as the Authorization header. It verifies nothing itself.

The cookie counts below `/app` only, so that no page of another site can make a browser use the API. A form that changes something
must come from this very site (Fetch Metadata, else Origin, else Referer), besides `SameSite=Strict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from inference.errors import NotAllowedError

PREFIX: Final = "/app"
COOKIE: Final = "nabz_session"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN: Final = "the form was sent from another site: open the page here and send it again"


def with_session(scope: Scope, headers: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """The headers with the session as `authorization`, for a request to a page that brings none of its own.

    Raises NotAllowedError for a change that another site asks for in the caller's name.
    """
    if not is_page(scope["path"]) or b"authorization" in headers:
        return headers
    given = _raw(scope, b"cookie")
    token = cookie_parser(given.decode("latin-1")).get(COOKIE) if given else None
    if scope["method"] not in _SAFE and _is_foreign(scope):
        raise NotAllowedError(_FOREIGN)
    return {**headers, b"authorization": b"Bearer " + token.encode("latin-1")} if token else headers


def is_page(path: str) -> bool:
    """Whether a path belongs to the pages."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def begin(response: Response, request: Request, token: str, seconds: int) -> None:
    """Keep the token in the browser for `seconds`, out of reach of scripts and of other sites."""
    response.set_cookie(COOKIE, token, seconds, path=PREFIX, secure=is_secure(request), httponly=True, samesite="strict")


def end(response: Response) -> None:
    """Forget the token."""
    response.delete_cookie(COOKIE, PREFIX)


def is_secure(request: Request) -> bool:
    """Whether the browser came over https, to us or to the proxy before us; one that claims it falsely harms only itself."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").lower() == "https"


def _is_foreign(scope: Scope) -> bool:
    site = _raw(scope, b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    came_from = _raw(scope, b"origin") or _raw(scope, b"referer") or b""
    return urlsplit(came_from.decode("latin-1")).netloc != (_raw(scope, b"host") or b"?").decode("latin-1")


def _raw(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)
