"""Reads the bodies of requests: JSON, and forms with photos. Says what was wrong with them, and never what they held."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from inference.errors import MalformedError, NabzError
from inference.service.byte_budget import ByteBudget
from inference.service.intake import Submission
from inference.service.settings import LARGEST_UPLOAD

CASE_PART = "case"
_PART_BYTES = 1024 * 1024
_MOST_FILES = 16
_KEY = re.compile(r"[!-~]{1,200}")
_UPLOADS = ByteBudget(LARGEST_UPLOAD, wait_seconds=10)
# A photo must not lie in the clear on the disk while it is received: parts stay in memory, within the limit of the body.
MultiPartParser.spool_max_size = LARGEST_UPLOAD


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises MalformedError."""
    return as_object(await request.body())


def as_object(body: bytes) -> dict[str, Any]:
    """Bytes as a JSON object. Raises MalformedError."""
    parsed = as_json(body)
    if not isinstance(parsed, dict):
        raise MalformedError("the body is not a JSON object: send one case, with named fields")
    return parsed


def as_json(body: bytes) -> Any:
    """Bytes as JSON. Raises MalformedError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f" (line {error.lineno}, column {error.colno})" if body else ""
        raise MalformedError(f"the body is not valid JSON in UTF-8{where}: send a JSON document (RFC 8259)") from error


def submission_of(raw: dict[str, Any], uploads: Mapping[str, bytes] | None = None) -> Submission:
    """A case with the patient's identity taken out of it, so that no model or rule ever sees it."""
    patient = raw.pop("patient", None)
    if patient is None or (isinstance(patient, dict) and not patient):
        return Submission(raw, None, uploads)
    if not isinstance(patient, dict):
        return Submission(raw, None, uploads, ("patient: not an object with named fields; it was not kept: send it again",))
    return Submission(raw, patient, uploads)


@asynccontextmanager
async def case_and_photos(request: Request) -> AsyncIterator[tuple[dict[str, Any], dict[str, bytes], bytes]]:
    """A case and its photos, from JSON or from a form whose part `case` is JSON; and the bytes that stand for an idempotent request.

    The place that photos take in the memory is theirs until the context ends: keep and score them in it.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await request.body()
        yield as_object(body), {}, body
        return
    announced = request.headers.get("content-length", "")
    async with _UPLOADS.hold(int(announced) if announced.isdecimal() else LARGEST_UPLOAD):
        case, uploads = await _received(request)
        stands_for = await asyncio.to_thread(_digest, case, uploads) if "idempotency-key" in request.headers else b""
        yield as_object(case), uploads, stands_for


async def _received(request: Request) -> tuple[bytes, dict[str, bytes]]:
    """The parts of a form: the case, and the photos by name."""
    problem = "the form cannot be read: send multipart/form-data with the parts `case` and `photos`"
    form = await form_of(request, problem, most_files=_MOST_FILES, most_fields=4)
    try:
        return await _parts(form)
    finally:
        await form.close()


async def form_of(request: Request, problem: str, *, most_files: int, most_fields: int) -> FormData:
    """The request's form. Raises MalformedError with `problem` for one that is broken or has more parts."""
    try:
        return await request.form(max_files=most_files, max_fields=most_fields, max_part_size=_PART_BYTES)
    except NabzError:
        raise
    except Exception as error:  # python-multipart and Starlette raise several unrelated classes for broken forms
        if type(error).__name__ == "HTTPException" or isinstance(error, ValueError):
            raise MalformedError(problem) from error
        raise


async def _parts(form: FormData) -> tuple[bytes, dict[str, bytes]]:
    case: bytes | None = None
    uploads: dict[str, bytes] = {}
    for name, part in form.multi_items():
        if name == CASE_PART:
            case = await part.read() if isinstance(part, UploadFile) else part.encode()
        elif isinstance(part, UploadFile):
            uploads[_free_name(part.filename or "photo.jpg", uploads)] = await part.read()
            await part.close()  # frees the parser's copy
        else:
            raise MalformedError("the form has a part that is neither `case` nor a file: send the parts `case` and `photos`")
    if case is None:
        raise MalformedError("the form has no part `case`: send the case as JSON in it, and the photos as files")
    return case, uploads


def _digest(case: bytes, uploads: Mapping[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in (case, *(part for name, content in sorted(uploads.items()) for part in (name.encode(), content))):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _free_name(name: str, taken: Mapping[str, bytes]) -> str:
    """The file's name without folders; a second one of the same name gets a number."""
    name = name.replace("\\", "/").rpartition("/")[2].replace("\0", "")[:120] or "photo.jpg"
    return name if name not in taken else f"{len(taken) + 1}-{name}"


def idempotency_key(request: Request) -> str | None:
    """The caller's Idempotency-Key, if one was sent. Raises MalformedError for one that cannot be a key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise MalformedError("Idempotency-Key: expected 1 to 200 visible ASCII characters without spaces, such as a UUID")
    return key
