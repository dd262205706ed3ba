"""A real Chromium and a real `nabz serve` for tests of the pages. Skipped by name on machines without a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import _free_port as free_port

ROOT = Path(__file__).resolve().parent.parent
NO_BROWSER = "needs Chromium (apt install chromium, or NABZ_CHROMIUM) and playwright: run `make test-browser`"
_SERVE = [sys.executable, "-c", "from inference.cli import entry; entry()", "serve"]
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)
_READY_SECONDS = 60.0
# Letters of the Urdu script become Latin ones: axe passes over contrast where a text is not in a script that it knows.
_TO_LATIN = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) walker.currentNode.nodeValue = walker.currentNode.nodeValue.replace(/[\\u0600-\\u06ff\\ufb50-\\ufeff]/g, 'a');
}"""
SAMPLES = len((ROOT / "data/sample/referrals.jsonl").read_text(encoding="utf-8").splitlines())


def chromium_path() -> str | None:
    """Where Chromium is on this machine."""
    return os.environ.get("NABZ_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
    path = chromium_path()
    if path is None:
        pytest.skip(NO_BROWSER)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Served:
    """A running service with the sample referrals: where it listens, its folder, its process."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def token(self, role: str, name: str | None = None) -> str:
        """A token of the demo's issuer."""
        given = {"role": role, "subject": name or f"{role}-1", **({"clinic": name or "mithi"} if role == "clinic" else {})}
        return str(httpx.post(f"{self.url}/dev/token", data=given, timeout=30).json()["access_token"])

    def send(self, case: dict[str, Any], clinic: str = "mithi") -> dict[str, Any]:
        """Send a case as a clinic does."""
        answer = httpx.post(
            f"{self.url}/v1/referrals", json=case, headers={"Authorization": f"Bearer {self.token('clinic', clinic)}"}, timeout=30
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


@contextmanager
def served(folder: Path, *arguments: str, **settings: str) -> Iterator[Served]:
    """`nabz serve --demo` on a free port, ready, with its samples loaded."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NABZ_")}
    variables = {
        "NABZ_DATABASE_URL": f"sqlite:///{folder}/nabz.db",
        "NABZ_DATA_DIR": str(folder / "data"),
        "NABZ_MODELS": str(ROOT / "models"),
        "NABZ_REQUESTS_PER_MINUTE": "1000000",
        **settings,
    }
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*_SERVE, "--port", str(port), *(arguments or ("--demo",))], cwd=ROOT, env={**kept, **variables}, stdout=log, stderr=log
        )
        service = Served(f"http://127.0.0.1:{port}", folder, process)
        try:
            _wait(service, has_samples="--demo" in (arguments or ("--demo",)))
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait(service: Served, *, has_samples: bool) -> None:
    ends = time.monotonic() + _READY_SECONDS
    while time.monotonic() < ends and service.process.poll() is None:
        try:
            if httpx.get(f"{service.url}/health/ready", timeout=5).status_code == 200 and (not has_samples or _has_samples(service)):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"nabz serve did not become ready: {(service.folder / 'serve.log').read_text(encoding='utf-8')[-2000:]}")


def _has_samples(service: Served) -> bool:
    header = {"Authorization": f"Bearer {service.token('clinician')}"}
    listed = httpx.get(f"{service.url}/v1/worklist", params={"limit": 200}, headers=header, timeout=30)
    return len(listed.json()["items"]) >= SAMPLES


def signed_in(browser: Any, service: Served, role: str, name: str | None = None, **context: Any) -> Any:
    """A page of a new browser context in which somebody of this role is signed in.

    `language` and `theme` are the reader's choices; whatever else is given goes to Playwright (viewport, java_script_enabled, …).
    """
    language, theme = context.pop("language", "en"), context.pop("theme", "light")
    fresh = browser.new_context(base_url=service.url, **{"viewport": {"width": 1280, "height": 900}, **context})
    shared = {"domain": "127.0.0.1", "path": "/app", "httpOnly": True}
    fresh.add_cookies(
        [
            {"name": "nabz_session", "value": service.token(role, name), "sameSite": "Strict", **shared},
            {"name": "nabz_choices", "value": f"{language}.{theme}.0.1", "sameSite": "Lax", **shared},
        ]
    )
    return fresh.new_page()


def axe_problems(axe: Any, page: Any, name: str, language: str) -> list[tuple[str, int | str, str]]:
    """What axe finds serious or critical on a page at 320 and 1280 px, in Urdu again with Latin letters; and sideways scrolling."""
    found: list[tuple[str, int | str, str]] = []
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        found.extend((name, width, one) for one in _serious(axe, page))
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append((name, width, f"scrolls sideways: {wide}"))
    if language == "ur":
        page.evaluate(_TO_LATIN)
        contrast = _serious(axe, page, runOnly={"type": "rule", "values": ["color-contrast"]})
        found.extend((name, "Latin letters", one) for one in contrast)
    return found


def _serious(axe: Any, page: Any, **options: Any) -> list[str]:
    """Serious and critical findings of axe on a page."""
    found = axe.run(page, options=options or None).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {(node.get('any') or [{}])[0].get('message', '')[:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]
