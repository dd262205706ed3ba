"""Style sheets, scripts and pictures of the pages: named by their content, compressed once, kept by browsers for good."""

from __future__ import annotations

import gzip
import hashlib
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
    """Every file of `static/` by its name."""
    found = {}
    for file in resources.files(__package__).joinpath("static").iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix in _TYPES:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:10]
            found[file.name] = Asset(f"{FOLDER}{stem}.{digest}.{suffix}", _TYPES[suffix], content, gzip.compress(content, 9, mtime=0))
    return found


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
