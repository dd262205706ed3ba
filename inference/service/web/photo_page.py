"""A referral's photos for a thin line: a thumbnail, a larger view, and the heat map over it. Each look is in the audit trail."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Final

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from inference.case import Case
from inference.errors import NotFoundError
from inference.service.caller_check import WHO
from inference.service.web.case_page import referral_id
from inference.service.web.render import page_of

SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NO_SUCH: Final = "the referral has no such photo"
# Longest side in pixels and most bytes of each kind.
_SIZES: Final = {"thumb": (240, 15_000), "view": (960, 120_000)}
_QUALITIES: Final = (80, 70, 60, 50, 40, 30, 20)


async def show_photo(request: Request) -> Response:
    """`thumb` and `view` are JPEG, `heat` is a transparent PNG to lie over them."""
    page, id_, who = page_of(request), referral_id(request), request.scope[WHO]
    sha256, kind = request.path_params["sha256"], request.path_params["kind"]
    if not SHA256.fullmatch(sha256) or kind not in (*_SIZES, "heat"):
        raise NotFoundError(_NO_SUCH)
    content = await page.parts.referrals.photo(who, id_, sha256)
    if kind in _SIZES:
        return Response(await asyncio.to_thread(_smaller, content, *_SIZES[kind]), media_type="image/jpeg")
    full = await page.parts.referrals.read(who, id_)
    case = Case.model_validate(full["case"])
    name = next((one["name"] for one in full["photos"] if one["sha256"] == sha256), None)
    photo = next((one for one in case.photos if one.path == name), None)
    heat = await page.parts.scorer.heat_map(content, photo, case.age_years) if photo else None
    if heat is None:
        raise NotFoundError("there is no heat map for this photo just now: look at the photo itself")
    return Response(heat, media_type="image/png")


def _smaller(content: bytes, longest_side: int, most_bytes: int) -> bytes:
    """The photo with sides of at most `longest_side` pixels, in at most about `most_bytes`."""
    opened = Image.open(io.BytesIO(content))
    opened.draft("RGB", (longest_side, longest_side))
    image = opened.convert("RGB")
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    small = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        small = buffer.getvalue()
        if len(small) <= most_bytes:
            break
    return small
