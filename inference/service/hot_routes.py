"""A short way to the routes that are called most: straight to their handlers, without FastAPI's layers.

FastAPI's own way (telemetry, exit stacks, dependencies, two routers) costs about as much as scoring a case does. The handlers are
the same ones that FastAPI has, and documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.errors import NabzError
from inference.service.problems import answer_to

Handler = Callable[[Request], Awaitable[Response]]


class HotRoutes:
    """The ASGI app in front of FastAPI's."""

    def __init__(self, app: ASGIApp, posts: Mapping[str, Handler]) -> None:
        """`posts` maps exact paths to the handlers of their POST requests."""
        self.app: Final = app
        self._posts = {path: (handler, SimpleNamespace(path=path)) for path, handler in posts.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a hot route, or hand the request on."""
        found = self._posts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        handler, scope["route"] = found
        scope["app"] = self.app  # where the handlers find the service's parts
        try:
            response = await handler(Request(scope, receive))
        except NabzError as error:
            response = answer_to(error, scope["path"])
        await response(scope, receive, send)
