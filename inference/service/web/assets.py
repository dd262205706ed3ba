"""Style sheets, scripts and pictures of the pages: named by their content, compressed once, kept by browsers for good."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from inference.errors import NotFoundError

FOLDER: Final = "/app/static/"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
# Scripts that a page loads together are one file: each request costs a header and, on a thin line, a round trip.
_JOINED: Final = {"intake_all.js": ("intake_drafts.js", "intake_photo.js", "intake_send.js", "intake_show.js", "intake.js")}
_COMMENT: Final = re.compile(rb"^\s*(?://.*)?\n?", re.MULTILINE)  # with the space before each line: no script's texts have lines
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its address, its type, its bytes as they are and compressed."""

    url: str
    media_type: str
    content: bytes
    compressed: bytes


@cache
def assets() -> dict[str, Asset]:
    """Every file of `static/` by its name, and those that are joined."""
    files = {file.name: file.read_bytes() for file in resources.files(__package__).joinpath("static").iterdir() if _suffix(file.name)}
    joined = {name: b"\n".join(_COMMENT.sub(b"", files[part]) for part in parts) for name, parts in _JOINED.items()}
    return {name: _asset(name, content) for name, content in {**files, **joined}.items()}


def _suffix(name: str) -> str:
    """A file's kind; empty for one that is not served."""
    suffix = name.rpartition(".")[2]
    return suffix if suffix in _TYPES else ""


def _asset(name: str, content: bytes) -> Asset:
    stem, suffix, digest = name.rpartition(".")[0], _suffix(name), hashlib.sha256(content).hexdigest()[:10]
    return Asset(f"{FOLDER}{stem}.{digest}.{suffix}", _TYPES[suffix], content, gzip.compress(content, 9, mtime=0))


def asset_url(name: str) -> str:
    """The address of a file of `static/`, with its content's hash."""
    return assets()[name].url


@cache
def _by_url() -> dict[str, Asset]:
    return {asset.url: asset for asset in assets().values()}


async def serve_asset(request: Request) -> Response:
    """One file. Raises NotFoundError, also for an older version of it."""
    asset = _by_url().get(request.url.path)
    if asset is None:
        raise NotFoundError("there is no such file in this version: load the page again")
    return compressed_or_not(request, asset.content, asset.compressed, asset.media_type, {"Cache-Control": _FOR_GOOD})


def compressed_or_not(request: Request, content: bytes, compressed: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """The compressed bytes for a browser that takes them, else the plain ones."""
    headers = {**headers, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(compressed, 200, {**headers, "Content-Encoding": "gzip"}, media_type)
    return Response(content, 200, headers, media_type)
