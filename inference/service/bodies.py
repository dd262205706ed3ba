"""Reads the bodies of requests: JSON, and forms with photos. Says what was wrong with them, and never what they held."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from inference.errors import MalformedError
from inference.service.intake import Submission

CASE_PART = "case"
_JSON_PART_BYTES = 1024 * 1024
_MOST_FILES = 16
_KEY = re.compile(r"[!-~]{1,200}")
_UPLOADS_AT_ONCE = asyncio.Semaphore(2)  # each may hold as many bytes as the upload limit
# A photo must not lie in the clear on the disk while it is received: parts stay in memory, within the limit of the body.
MultiPartParser.spool_max_size = 64 * 1024 * 1024


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


async def case_and_photos(request: Request) -> tuple[dict[str, Any], dict[str, bytes], bytes]:
    """A case and its photos, from JSON or from a form whose part `case` is JSON; and the bytes that stand for the whole request."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await request.body()
        return as_object(body), {}, body
    async with _UPLOADS_AT_ONCE:
        try:
            form = await request.form(max_files=_MOST_FILES, max_fields=4, max_part_size=_JSON_PART_BYTES)
        except MalformedError:
            raise
        except Exception as error:  # python-multipart and Starlette raise several unrelated classes for broken forms
            if type(error).__name__ == "HTTPException" or isinstance(error, ValueError):
                raise MalformedError("the form cannot be read: send multipart/form-data with the parts `case` and `photos`") from error
            raise
        try:
            return await _parts(form)
        finally:
            await form.close()


async def _parts(form: FormData) -> tuple[dict[str, Any], dict[str, bytes], bytes]:
    case: bytes | None = None
    uploads: dict[str, bytes] = {}
    for name, part in form.multi_items():
        if name == CASE_PART:
            case = await part.read() if isinstance(part, UploadFile) else part.encode()
        elif isinstance(part, UploadFile):
            uploads[_free_name(part.filename or "photo.jpg", uploads)] = await part.read()
        else:
            raise MalformedError("the form has a part that is neither `case` nor a file: send the parts `case` and `photos`")
    if case is None:
        raise MalformedError("the form has no part `case`: send the case as JSON in it, and the photos as files")
    stands_for = b"\0".join((case, *(part for name, content in sorted(uploads.items()) for part in (name.encode(), content))))
    return as_object(case), uploads, stands_for


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
