"""Resumable uploads over HTTP, as tus 1.0.0 has them (https://tus.io/protocols/resumable-upload): core protocol and creation.

One thing is our own: the phone names its upload, so that creating it twice does no harm, and a creation is answered with the offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from inference.errors import MalformedError, ServiceError, WrongTypeError
from inference.service.access import require
from inference.service.caller_check import WHO
from inference.service.parts import Parts
from inference.service.problems import answer_to, problem
from inference.service.web.uploads import LARGEST_BYTES, Upload, UploadStore

VERSION: Final = "1.0.0"
OFFSET_TYPE: Final = "application/offset+octet-stream"
_HEADERS: Final = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
_DESCRIPTION: Final = {"Tus-Version": VERSION, "Tus-Extension": "creation", "Tus-Max-Size": str(LARGEST_BYTES)}
_MOST_DIGITS: Final = 12

Handler = Callable[[Request], Awaitable[Response]]


def _tus(handler: Handler) -> Handler:
    """The protocol's own rules around a handler: its version in the request, and in every answer, errors too."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            require(request.scope[WHO], "referral.create")
            if request.headers.get("tus-resumable") != VERSION:
                detail = f"Tus-Resumable must be {VERSION}: this is the version that is spoken here"
                return _marked(problem(412, "Another version of the protocol", detail), {"Tus-Version": VERSION})
            return _marked(await handler(request), {})
        except ServiceError as error:
            return _marked(answer_to(error, request.scope["path"]), {})

    return answer


def _marked(response: Response, extra: dict[str, str]) -> Response:
    response.headers.update({**_HEADERS, **extra})
    return response


async def describe_uploads(request: Request) -> Response:
    """What is spoken here."""
    require(request.scope[WHO], "referral.create")
    return Response(status_code=204, headers={**_DESCRIPTION, "Cache-Control": "no-store"})


@_tus
async def create_upload(request: Request) -> Response:
    """Begin an upload, or find the one that was begun."""
    store, clinic, id_ = _asked(request)
    upload = await asyncio.to_thread(store.create, clinic, id_, _number(request, "upload-length"))
    return Response(status_code=201, headers={"Location": request.url.path, **_progress(upload)})


@_tus
async def find_upload(request: Request) -> Response:
    """How far it is."""
    store, clinic, id_ = _asked(request)
    return Response(status_code=200, headers=_progress(await asyncio.to_thread(store.find, clinic, id_)))


@_tus
async def append_upload(request: Request) -> Response:
    """Keep what comes, even when the line breaks in the middle of it."""
    store, clinic, id_ = _asked(request)
    if request.headers.get("content-type", "").lower() != OFFSET_TYPE:
        raise WrongTypeError(f"a piece of an upload is sent as {OFFSET_TYPE}")
    offset, came = _number(request, "upload-offset"), bytearray()
    await asyncio.to_thread(store.find, clinic, id_)
    try:
        async for some in request.stream():
            came += some
    except ClientDisconnect:
        pass  # nobody hears the answer; the bytes that came need not come again
    return Response(status_code=204, headers=_progress(await asyncio.to_thread(store.append, clinic, id_, offset, bytes(came))))


def _asked(request: Request) -> tuple[UploadStore, str, str]:
    parts: Parts = request.app.state.parts
    return parts.uploads, request.scope[WHO].clinic or "", request.path_params["id"]


def _progress(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size)}


def _number(request: Request, header: str) -> int:
    """A header's number. Raises MalformedError."""
    given = request.headers.get(header, "")
    if not (given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS):
        raise MalformedError(f"the header {header.title()} must be a number of bytes, in digits")
    return int(given)
