"""The README's pictures of the pages: made here (`make screenshots`), and held to be those of the pages as they are.

A picture differs from machine to machine by its fonts, so what is compared is not pixels but what the pictures were made from:
templates, style sheets, scripts, words and sample cases.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from browser_support import ROOT, Served, served, signed_in
from PIL import Image

pytestmark = pytest.mark.browser

FOLDER = ROOT / "docs" / "screens"
MADE_FROM = FOLDER / "made-from.sha256"
WEB = ROOT / "inference" / "service" / "web"
SOURCES = ("templates/*.html", "static/*.css", "static/*.js", "locale/ur/LC_MESSAGES/*.po")
LANGUAGES = ("en", "ur")
PAGES = ("worklist", "case", "intake", "dashboard")
WIDTHS = {"worklist": 1180, "case": 1180, "intake": 480, "dashboard": 1180}


def fingerprint() -> str:
    """The content of all that the pictures show."""
    files = sorted(path for pattern in SOURCES for path in WEB.glob(pattern))
    digest = hashlib.sha256()
    for path in [*files, ROOT / "data/sample/referrals.jsonl"]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@pytest.fixture(scope="module")
def busy_service(browser: Any, tmp_path_factory: pytest.TempPathFactory):
    """A service with an invented month of cases behind it."""
    from dashboard_history import fill

    folder = tmp_path_factory.mktemp("busy")
    fill(folder)
    with served(folder) as running:
        yield running


def shot(browser: Any, service: Served, name: str, language: str) -> bytes:
    """One picture."""
    page = signed_in(
        browser, service, "clinic" if name == "intake" else "clinician", language=language, viewport={"width": WIDTHS[name], "height": 860}
    )
    page.goto(f"/app/{name}" if name != "case" else "/app/worklist")
    if name == "case":
        with page.expect_navigation():
            page.locator(".list .words").nth(1).click()
    if name == "intake":
        page.locator('[name="complaint"]').fill(
            "بخار نہیں، سینے میں درد، سانس پھول رہی ہے" if language == "ur" else "seenay mein dard, saans phool rahi hai"
        )
        page.wait_for_timeout(2500)
    page.wait_for_load_state("networkidle" if name in ("intake", "dashboard") else "load")
    content: bytes = page.screenshot()
    page.context.close()
    return content


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_can_be_pictured(browser: Any, demo_service: Served, busy_service: Served, name: str, language: str):
    """Each page fills its picture with something; `make screenshots` keeps it for the README."""
    image = Image.open(io.BytesIO(shot(browser, busy_service if name == "dashboard" else demo_service, name, language))).convert("RGB")
    assert image.width == WIDTHS[name] and len(image.resize((64, 64)).getcolors(64 * 64) or ()) > 60
    if os.environ.get("NABZ_SCREENSHOTS") == "write":
        FOLDER.mkdir(parents=True, exist_ok=True)
        image.quantize(96, Image.Quantize.MEDIANCUT).save(FOLDER / f"{name}-{language}.png", optimize=True)
        MADE_FROM.write_text(fingerprint() + "\n", encoding="ascii")


def test_the_pictures_are_of_these_pages():
    """Templates, styles, scripts, words and samples are those that the pictures were made from: else `make screenshots`."""
    assert sorted(path.name for path in FOLDER.glob("*.png")) == sorted(
        f"{name}-{language}.png" for name in PAGES for language in LANGUAGES
    )
    assert MADE_FROM.read_text(encoding="ascii").strip() == fingerprint(), "the pages have changed: run `make screenshots`"
    readme = Path(ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/screens/{name}-{language}.png" in readme for name in PAGES for language in LANGUAGES)


def test_no_picture_is_heavy():
    """Pictures are for a README, which is read over thin lines too."""
    assert all(path.stat().st_size < 150_000 for path in FOLDER.glob("*.png"))
