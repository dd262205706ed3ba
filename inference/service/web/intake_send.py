"""A case on its way from a page into the store, once, whatever happens to the line. Knows no HTML.

The phone's key makes a repeat harmless: it is asked for before any photo is looked at, because once the case is stored its uploads
are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from inference.errors import UnprocessableError
from inference.service.byte_budget import ByteBudget
from inference.service.callers import Who
from inference.service.intake import Submission
from inference.service.parts import Parts
from inference.service.referrals import Stored
from inference.service.settings import LARGEST_UPLOAD
from inference.service.web.case_number import read_case_number
from inference.service.web.uploads import LARGEST_BYTES
from inference.service.web.worklist_page import find_case

HOLDING = ByteBudget(LARGEST_UPLOAD, wait_seconds=10)  # photos of pages that are in memory at one time


class UploadsMissing(Exception):  # noqa: N818 (no error: the phone has the photos and sends them)
    """Some uploads are not here or not whole; `ids` names them."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(f"{len(ids)} photos are not here yet")
        self.ids = list(ids)


class AlreadySent(Exception):  # noqa: N818 (nothing failed: the case is stored)
    """The clinic has sent a case of this number before; `id` is its referral."""

    def __init__(self, id_: str) -> None:
        super().__init__("the case was sent before")
        self.id = id_


@asynccontextmanager
async def uploaded(parts: Parts, who: Who, ids: Sequence[str]) -> AsyncIterator[list[bytes]]:
    """The uploads' contents, in order, for as long as the context lasts. Raises UploadsMissing."""
    async with HOLDING.hold(len(ids) * LARGEST_BYTES):
        store, clinic = parts.uploads, who.clinic or ""
        contents = [await asyncio.to_thread(store.content, clinic, id_) for id_ in ids]
        missing = [id_ for id_, content in zip(ids, contents, strict=True) if content is None]
        if missing:
            raise UploadsMissing(missing)
        yield [content for content in contents if content is not None]


async def store_case(parts: Parts, who: Who, given: Submission, photos: Mapping[str, str], key: str, body: bytes) -> Stored:
    """Store a case with the uploads of `photos` (file name to upload id).

    Raises UploadsMissing, AlreadySent where its number is known and its key is not (keys are forgotten after a week, numbers are
    not), and what `Referrals.submit` raises.
    """
    stored = await _stored_before(parts, who, given, key, body)
    if stored is None:
        async with uploaded(parts, who, list(photos.values())) as contents:
            stored = await parts.referrals.submit(who, replace(given, uploads=dict(zip(photos, contents, strict=True)) or None), key, body)
    await asyncio.to_thread(parts.uploads.remove, who.clinic or "", list(photos.values()))
    return stored


async def _stored_before(parts: Parts, who: Who, given: Submission, key: str, body: bytes) -> Stored | None:
    try:
        earlier = await parts.referrals.answered_before(who, key, body)
    except UnprocessableError:
        earlier = None  # the form was changed after it was sent: its number says where it is
    number = given.raw.get("case_id", "") if isinstance(given.raw, Mapping) else ""
    if earlier is None and isinstance(number, str) and read_case_number(number):
        found = await find_case(parts, who, number)
        if found:
            raise AlreadySent(found)
    return earlier
