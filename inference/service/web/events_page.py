"""Live updates for pages: what `/v1/events` sends, for a reader who signed in here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inference.service.api import stream_events


async def listen(request: Request) -> Response:
    """Server-sent events, one for every change of a referral that the reader may see."""
    resume = request.headers.get("last-event-id", "")
    return await stream_events(request, int(resume) if resume.isascii() and resume.isdigit() and len(resume) < 16 else None)
