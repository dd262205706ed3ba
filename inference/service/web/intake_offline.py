"""What makes the intake page open without a connection: its service worker, and the manifest by which it can be installed.

The worker is `static/sw.js` behind one line that says which files make up the page. A new version of any of them is a new worker,
which keeps files of its own and drops the old ones.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from inference.service.web.assets import asset_url, assets, compressed_or_not
from inference.service.web.language import N_
from inference.service.web.render import page_of

SCRIPT: Final = "intake_all.js"
_FILES: Final = ("app.css", "intake.css", "app.js", "icon.svg", SCRIPT)
_ASK_AGAIN: Final = {"Cache-Control": "no-cache"}
# A worker goes by the policy of its own script: it fetches from here and nothing else.
_WORKER_POLICY: Final = "default-src 'none'; script-src 'self'; connect-src 'self'"
_NAME: Final = N_("Nabz: new case")


async def serve_worker(request: Request) -> Response:
    """The service worker, for anybody: it holds nothing of a patient or a clinic."""
    content, compressed = _worker()
    headers = {**_ASK_AGAIN, "Content-Security-Policy": _WORKER_POLICY}
    return compressed_or_not(request, content, compressed, "text/javascript; charset=utf-8", headers)


async def serve_manifest(request: Request) -> Response:
    """Name, first page and icon, in the reader's language."""
    speech = page_of(request).speech
    manifest = {
        "id": "/app/intake",
        "name": speech.t(_NAME),
        "short_name": "Nabz",
        "lang": speech.code,
        "dir": speech.direction,
        "start_url": "/app/intake",
        "scope": "/app/",
        "display": "standalone",
        "background_color": "#f4f6f8",
        "theme_color": "#0a5f73",
        "icons": [{"src": asset_url("icon.svg"), "sizes": "any", "type": "image/svg+xml"}],
    }
    return Response(orjson.dumps(manifest), 200, _ASK_AGAIN, "application/manifest+json")


@cache
def _worker() -> tuple[bytes, bytes]:
    files = [asset_url(name) for name in _FILES]
    source = assets()["sw.js"].content
    version = hashlib.sha256(source + "".join(files).encode()).hexdigest()[:12]
    content = b"const SHELL = " + orjson.dumps({"version": version, "files": files}) + b";\n" + source
    return content, gzip.compress(content, 9, mtime=0)
