"""The guards around the whole app, in one pure ASGI layer: what every request must pass and every answer must carry.

Headers, body limits, content types, the rate of a caller, requests in flight, draining, the access log, and the last
net for exceptions. It asks who calls before a byte of a body is read, and knows paths by prefix and no route; who may do
what is asked later, by the routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import OverloadedError, ServiceError
from inference.service.caller_check import HEALTH, METRICS, WHO, CallerCheck
from inference.service.drain import Drain
from inference.service.identity import TokenVerifier
from inference.service.problems import LOGGED, NO_RENDERERS, Renderer, answer_to
from inference.service.request_body import BODY_SECONDS, BodyRules, BodyWatch, Headers, read_headers, unannounced
from inference.service.request_log import REQUEST_ID, AccessLog, choose_request_id, log_unexpected, method_name, route_template
from inference.service.security_headers import with_headers
from inference.service.settings import Settings
from inference.service.web.session import with_session

EXEMPT: Final = HEALTH | {METRICS}  # a busy service must still say how it is
DRAIN_RETRY_SECONDS: Final = 5
NO_ANSWER: Final = 499  # the caller left, or the app ended without an answer
_CLOSING: Final = frozenset({400, 408, 413, 415})

Observer = Callable[[str, str, int, float], None]


def guard(
    app: ASGIApp,
    settings: Settings,
    verifier: TokenVerifier | None = None,
    *,
    drain: Drain | None = None,
    observe: Observer | None = None,
    renderers: Mapping[str, Renderer] = NO_RENDERERS,
    body_seconds: float = BODY_SECONDS,
) -> Guard:
    """The app behind all guards. `observe` gets method, route template, status and seconds of every request."""
    return Guard(app, settings, verifier, drain or Drain(), observe, renderers, body_seconds)


class Guard:
    """The ASGI app that a server runs."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        verifier: TokenVerifier | None,
        drain: Drain,
        observe: Observer | None,
        renderers: Mapping[str, Renderer],
        body_seconds: float,
    ) -> None:
        self.app = app
        self.drain = drain
        self.streams = 0
        self.renderers = renderers
        self._limit = settings.in_flight_limit
        self.callers = CallerCheck(verifier, settings.requests_per_minute)
        self._observe = observe
        self._rules = BodyRules(settings, body_seconds)
        self._log = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the lifespan passes, and there are no web sockets here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            self._log.flush()
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        began = time.perf_counter()
        exchange = _Exchange(self, scope, receive, send)
        try:
            await exchange.serve()
        finally:
            exchange.leave()
            seconds = time.perf_counter() - began
            method, route = method_name(scope), route_template(scope)
            self._log.add(method, route, exchange.status, seconds, exchange.request_id, idle=self.drain.in_flight == 0)
            if self._observe is not None:
                self._observe(method, route, exchange.status, seconds)

    def admit(self, scope: Scope, headers: Headers) -> BodyWatch | None:
        """How to watch the request's body. Raises a ServiceError for a request that must not reach the app."""
        path: str = scope["path"]
        if self.drain.begun and path not in HEALTH:
            raise OverloadedError("the service is about to stop: send the request again in a moment", DRAIN_RETRY_SECONDS)
        if path not in EXEMPT:
            self.callers.count(scope, headers)
            if self.drain.in_flight >= self._limit:
                raise OverloadedError(f"{self._limit} requests are in progress already: try again", 1)
        return self._rules.admit(scope["method"], path, headers)

    def takes_stream(self) -> bool:
        """Whether there is room for one more event stream; there may be as many as requests in flight."""
        return self.streams < self._limit


class _Exchange:
    """One request and its answer: watches the body as the app reads it, and the answer as the app sends it."""

    __slots__ = ("_answered", "_body", "_entered", "_guard", "_headers", "_receive", "_refusal", "_scope", "_send", "_started", "_streaming", "request_id", "status")  # fmt: skip

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = read_headers(scope["headers"])
        self._body: BodyWatch | None = None
        self._refusal: ServiceError | None = None
        self._entered = self._streaming = False
        self._started = self._answered = False  # the app's answer has begun · we have given our own instead
        self.status = NO_ANSWER
        self.request_id = choose_request_id(self._headers.get(b"x-request-id"))

    async def serve(self) -> None:
        """Admit the request and run the app; any error becomes an answer, and none gets out."""
        REQUEST_ID.set(self.request_id)
        path: str = self._scope["path"]
        try:
            self._headers = with_session(self._scope, self._headers)
            self._body = self._guard.admit(self._scope, self._headers)
            if path not in EXEMPT:
                self._entered = True
                self._guard.drain.enter()
            self._scope[WHO] = await self._guard.callers.identify(self._scope, self._headers)
        except Exception as error:  # noqa: BLE001 - as below
            if not isinstance(error, ServiceError):
                log_unexpected(error)
            await self._answer(error)
            return
        try:
            await self._guard.app(self._scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - the last net: the server would log the message, which may hold a patient's words
            if self._refusal is None and LOGGED not in self._scope:
                log_unexpected(error)
            if not self._started:
                await self._answer(self._refusal or error)

    def leave(self) -> None:
        """Give back the place in flight, or among the streams; may be called again."""
        if self._entered:
            self._entered = False
            self._guard.drain.leave()
        if self._streaming:
            self._streaming = False
            self._guard.streams -= 1

    async def receive(self) -> Message:
        """The app's `receive`. A body that breaks a rule is refused, whatever the app makes of the exception."""
        if self._refusal is not None:
            raise self._refusal
        try:
            if self._body is not None and not self._body.ended:
                return await self._body.next(self._receive)
            message = await self._receive()
            if self._body is None:
                unannounced(message)
            return message
        except ServiceError as error:
            self._refusal = error
            raise

    async def send(self, message: Message) -> None:
        """The app's `send`: adds the headers; after a refusal, our answer goes out and the app's is dropped."""
        if self._answered:
            return
        if message["type"] == "http.response.start":
            if self._refusal is not None:
                await self._answer(self._refusal)
                return
            given = message.get("headers", ())
            for name, value in given:
                if name == b"content-type" and value.startswith(b"text/event-stream"):
                    await self._become_stream()
            self._started = True
            self.status = message["status"]
            message = {**message, "headers": self._with_headers(given)}
        await self._send(message)

    async def _become_stream(self) -> None:
        """Give back the place in flight and take one among the streams. Where those are taken, the stream must end."""
        if not self._guard.takes_stream():
            self._refusal = OverloadedError("too many event streams are open: try again", DRAIN_RETRY_SECONDS)
            self._scope[LOGGED] = True
            await self._answer(self._refusal)
            raise self._refusal
        self.leave()
        self._streaming = True
        self._guard.streams += 1

    async def _answer(self, error: Exception) -> None:
        """Send the problem document of an error, once."""
        if self._answered:
            return
        self._answered = True
        response = answer_to(error, self._scope["path"], self._guard.renderers)
        self.status = response.status_code
        if self._must_close(response.status_code):
            response.headers["Connection"] = "close"
        await self._send({"type": "http.response.start", "status": self.status, "headers": self._with_headers(response.raw_headers)})
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else response.body})

    def _must_close(self, status: int) -> bool:
        """Whether the connection ends with this answer: the rest of a refused body may be long, or never come."""
        chunked = b"transfer-encoding" in self._headers
        length = self._headers.get(b"content-length", b"0")
        return self._guard.drain.begun or chunked or len(length) > 5 or (length != b"0" and status in _CLOSING)

    def _with_headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return with_headers(given, self.request_id, self._scope.get("scheme", "http"))
