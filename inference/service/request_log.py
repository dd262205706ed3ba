"""What may be written about a request: ids, route templates, statuses, times, and where in the code it broke.

It knows no route and no case. Nothing here writes a path, a query, a header, a body or an exception's message: any of
them can hold a patient's words. `configure_logging` extends that to the server's and the libraries' own lines.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import re
import secrets
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final

from starlette.types import Scope

REQUEST_ID: Final[ContextVar[str]] = ContextVar("nabz_request_id", default="-")
UNMATCHED: Final = "unmatched"
FRAMES_LIMIT: Final = 20
CHAIN_LIMIT: Final = 5
LINES_LIMIT: Final = 64
LINES_SECONDS: Final = 0.5

# A caller's own request id is kept when it is a UUID or 32 hex digits: names, identity cards and telephone numbers are neither.
_GIVEN_ID: Final = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}", re.ASCII)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_ID_START: Final = secrets.token_hex(6)
_ID_COUNT: Final = itertools.count(1)

_access = logging.getLogger("nabz.access")
_errors = logging.getLogger("nabz.errors")


def choose_request_id(given: bytes | None) -> str:
    """The caller's request id where it is a random one, else a new one: a random start for each process, and a count."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return given.decode("ascii")
    return f"{_ID_START}-{next(_ID_COUNT):x}"


def method_name(scope: Scope) -> str:
    """The request's method, or OTHER: a caller may invent methods, and they would be a way into the log."""
    method: str = scope["method"]
    return method if method in _METHODS else "OTHER"


def route_template(scope: Scope) -> str:
    """The template of the route that was found, such as `/v1/referrals/{id}`, or "unmatched"; never the path itself."""
    # FastAPI 0.165 keeps the template with the prefixes of included routers here; `route.path` lacks them.
    included = scope.get("fastapi", {}).get("effective_route_context")
    route = included if included is not None else scope.get("route")
    template = getattr(route, "path", UNMATCHED)
    return template if isinstance(template, str) else UNMATCHED


class AccessLog:
    """The access log: one line of JSON for each request.

    Lines that end close together go to the logger as one record, because a record costs many times what a line does.
    `idle` (nothing else is in flight) writes at once; so do LINES_LIMIT lines, or one that has waited for half a second.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._oldest = 0.0
        self._second = 0
        self._second_text = ""

    def add(self, method: str, route: str, status: int, seconds: float, request_id: str, *, idle: bool) -> None:
        """Write one request down."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._second_text = datetime.fromtimestamp(self._second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._oldest = self._oldest if self._lines else now
        self._lines.append(
            f'{{"at":"{self._second_text}.{int(now % 1 * 1000):03}Z","method":"{method}","route":{_quoted(route)},"status":{status},'
            f'"milliseconds":{seconds * 1000:.1f},"request_id":"{request_id}"}}'
        )
        if idle or len(self._lines) >= LINES_LIMIT or now - self._oldest > LINES_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand the lines to the logger."""
        if self._lines:
            lines, self._lines = self._lines, []
            _access.info("\n".join(lines))


@lru_cache(maxsize=1024)
def _quoted(route: str) -> str:
    return json.dumps(route)


def log_unexpected(error: BaseException) -> None:
    """The kinds of an unexpected exception and where it was raised, with the request id; no message and no value."""
    _errors.error("request %s: %s", REQUEST_ID.get(), describe_exception(error))


def describe_exception(error: BaseException) -> str:
    """`module.Kind at file:line function < file:line function …`, innermost first, then what it came from."""
    parts: list[str] = []
    following: BaseException | None = error
    while following is not None and len(parts) < CHAIN_LIMIT:
        inside = following.exceptions[:CHAIN_LIMIT] if isinstance(following, BaseExceptionGroup) else ()
        group = f" [{'; '.join(describe_exception(one) for one in inside)}]" if inside else ""
        parts.append(f"{type(following).__module__}.{type(following).__qualname__}{_frames(following.__traceback__)}{group}")
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return ", from ".join(parts)


def _frames(trace: TracebackType | None) -> str:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)][-FRAMES_LIMIT:]
    places = [f"{'/'.join(PurePath(code.co_filename).parts[-3:])}:{line} {code.co_qualname}" for code, line in reversed(frames)]
    return f" at {' < '.join(places)}" if places else ""


class SafeFormatter(logging.Formatter):
    """Writes exceptions, also those among a record's arguments, as kinds and places, never as messages."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, made from a copy: other handlers keep theirs."""
        safe = copy.copy(record)
        safe.exc_text = None
        if isinstance(safe.args, tuple):
            safe.args = tuple(type(value).__name__ if isinstance(value, BaseException) else value for value in safe.args)
        if isinstance(safe.msg, BaseException):
            safe.msg = type(safe.msg).__name__
        if safe.name == "asyncio":  # its later lines show tasks and exceptions in full
            safe.msg, safe.args = safe.getMessage().partition("\n")[0], ()
        return super().format(safe)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """The exception as `describe_exception` puts it."""
        return describe_exception(ei[1]) if ei and ei[1] is not None else ""


def without_paths(record: logging.LogRecord) -> bool:
    """A filter for uvicorn's own lines: those about web sockets show the path with its query."""
    return "WebSocket" not in str(record.msg)


def configure_logging() -> dict[str, Any]:
    """The `log_config` for uvicorn: our access log instead of its own, and no request data in any line."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "safe": {"()": SafeFormatter, "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
            "line": {"format": "%(message)s"},
        },
        "handlers": {
            "words": {"class": "logging.StreamHandler", "formatter": "safe", "stream": "ext://sys.stderr"},
            "lines": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        },
        "root": {"handlers": ["words"], "level": "WARNING"},
        "loggers": {
            "nabz": {"level": "INFO"},
            "nabz.access": {"handlers": ["lines"], "level": "INFO", "propagate": False},
            "uvicorn": {"handlers": ["words"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"level": "INFO", "filters": [without_paths]},
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
            "python_multipart": {"level": "CRITICAL"},  # it quotes bytes of the body
        },
    }
