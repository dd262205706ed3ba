"""The pages in a real Chromium: accessibility, keys, a thin line, no script, strangers' markup, grey, print."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browser_support import ROOT, Served, axe_problems, signed_in
from PIL import Image

pytestmark = pytest.mark.browser

EVIL = '"><script>window.caught=1</script><img src=x onerror="window.caught=2"><svg onload="window.caught=3">'


def case_links(page: Any) -> list[str]:
    """The cases of the list that is open."""
    return [str(link.get_attribute("href")) for link in page.locator(".list .words").all()]


@pytest.mark.parametrize("language", ["en", "ur"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, demo_service: Served, language: str, theme: str):
    """Every page for a clinician, a manager and a clinic at 320 and 1280 px; in Urdu again with Latin letters; no page scrolls sideways."""
    from axe_playwright_python.sync_playwright import Axe

    axe, problems = Axe(), []

    def look(page: Any, path: str) -> None:
        page.goto(path)
        page.wait_for_load_state("load")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        problems.extend(axe_problems(axe, page, path, language))

    doctor = signed_in(browser, demo_service, "clinician", language=language, theme=theme)
    doctor.goto("/app/worklist")
    links = case_links(doctor)
    photo = next(link for link in links if "/photos/" in doctor.request.get(link).text())
    for path in ("/app/worklist", "/app/worklist?sort=age&view=mine", links[0], photo, "/app/options", "/app/dashboard", "/app/nowhere"):
        look(doctor, path)
    clinic = signed_in(browser, demo_service, "clinic", language=language, theme=theme)
    own = links[0].rpartition("/")[2]
    for path in ("/app/intake", *(f"/app/intake/{kind}/{own}" for kind in ("slip", "sent", "more")), "/app/worklist"):
        look(clinic, path)
    chosen = {"name": "nabz_choices", "value": f"{language}.{theme}.1.1", "domain": "127.0.0.1", "path": "/app"}
    doctor.context.add_cookies([chosen])  # the first impression first
    for path in ("/app/worklist", links[0]):
        look(doctor, path)
    stranger = browser.new_context(
        base_url=demo_service.url, locale="ur-PK" if language == "ur" else "en-GB", color_scheme=theme
    ).new_page()
    look(stranger, "/app/sign-in")
    for page in (doctor, clinic, stranger):
        page.context.close()
    assert problems == []


def test_the_whole_flow_by_keyboard(browser: Any, own_service: Served):
    """From the list: open, claim, override with a reason, complete, next. No mouse, and `?` says how."""
    page = signed_in(browser, own_service, "clinician")
    page.goto("/app/worklist")
    first = case_links(page)[0]
    press = page.keyboard.press
    press("?")
    assert page.locator("#keys").is_visible() and "disagree" in page.locator("#keys").inner_text()
    press("?")
    assert not page.locator("#keys").is_visible()
    press("j")
    with page.expect_navigation():
        press("Enter")
    assert page.url.endswith(first)
    with page.expect_navigation():
        press("c")
    assert "You hold this case." in page.locator(".say").inner_text()
    press("3")
    page.keyboard.type("seen by video, 3 is enough")
    with page.expect_navigation():
        press("Control+Enter")
    assert "Your level is in force." in page.locator(".say").inner_text()
    assert page.locator("h1 .lv").inner_text().split() == ["3", "urgent"]
    press("n")
    page.keyboard.type("treated")
    with page.expect_navigation():
        press("Control+Enter")
    assert re.search(r"/app/cases/r-[0-9a-f]{32}\?said=claimed$", page.url) and first not in page.url
    press("a")
    page.wait_for_url("**said=agreed")
    press("b")
    page.wait_for_url("**/app/worklist")
    history = httpx.get(
        f"{own_service.url}/v1/referrals/{first.rpartition('/')[2]}",
        headers={"Authorization": f"Bearer {own_service.token('clinician')}"},
        timeout=30,
    ).json()
    assert [event["kind"] for event in history["history"]] == ["created", "claimed", "overridden", "completed"]
    page.context.close()


def test_single_keys_can_be_turned_off(browser: Any, demo_service: Served):
    """Without shortcuts no letter acts, and text fields never lose one to them."""
    page = signed_in(browser, demo_service, "clinician")
    page.goto("/app/options")
    page.locator('[name="shortcuts"]').uncheck()
    with page.expect_navigation():
        page.locator("main form button").click()
    page.goto("/app/worklist")
    page.keyboard.press("j")
    page.keyboard.press("?")
    assert page.evaluate("document.activeElement.tagName") == "BODY" and page.locator("#keys").count() == 0
    page.context.close()


def test_it_works_without_script(browser: Any, own_service: Served):
    """The same flow by links and buttons in a browser that runs no script."""
    page = signed_in(browser, own_service, "clinician", java_script_enabled=False)
    page.goto("/app/worklist")
    page.locator(".list button").first.click()
    page.locator("summary", has_text="Disagree").click()
    page.locator('[data-act="override"] [value="4"]').check()
    page.locator('[name="reason"]').fill("an old burn")
    page.locator('[data-act="override"] button').click()
    assert "Your level is in force." in page.locator(".say").inner_text()
    page.locator("summary", has_text="Complete").click()
    page.locator('[name="outcome"]').select_option("advised")
    page.locator('[data-act="complete"] button').click()
    assert "You hold this case." in page.locator(".say").inner_text()
    page.context.close()


def test_news_are_told_and_no_row_moves(browser: Any, own_service: Served):
    """A new emergency is announced above the list; the rows stay as they are until the reader asks for them."""
    page = signed_in(browser, own_service, "clinician")
    page.goto("/app/worklist")
    before = case_links(page)
    places = [box.bounding_box() for box in page.locator(".list tr").all()[:5]]
    page.wait_for_timeout(500)
    sent = own_service.send({"age_years": 3, "complaint": "behosh hai, jawab nahi deta", "vitals": {"consciousness": "U"}})
    news = page.locator("#news")
    news.wait_for(state="visible", timeout=15_000)
    assert "1 new case. 1 of them immediate or emergency." in news.inner_text()
    assert news.get_attribute("aria-live") == "assertive"
    assert case_links(page) == before
    shift = news.bounding_box()["height"]
    after = [box.bounding_box() for box in page.locator(".list tr").all()[:5]]
    assert shift > 0 and all(old["x"] == new["x"] for old, new in zip(places, after, strict=True))
    assert page.evaluate("getComputedStyle(document.querySelector('#news')).position") == "fixed"
    assert [old["y"] for old in places] == [new["y"] for new in after]
    news.locator("a").click()
    page.wait_for_load_state()
    assert f"/app/cases/{sent['id']}" in case_links(page)
    page.context.close()


def test_silence_is_not_taken_for_a_quiet_queue(browser: Any, demo_service: Served):
    """Where live news are refused (too many windows, a session that has ended), the page says that none will come."""
    page = signed_in(browser, demo_service, "clinician")
    page.route("**/app/events", lambda route: route.fulfill(status=429))
    page.goto("/app/worklist")
    page.locator("#news").wait_for(state="visible")
    assert "New cases are not announced here just now" in page.locator("#news").inner_text()
    page.context.close()


def test_a_strangers_markup_is_shown_as_text(browser: Any, own_service: Served):
    """Complaint, file name, note: nothing of them runs, all of it can be read, and the policy stops what would."""
    photo = (ROOT / "data/sample/photos/mole.jpg").read_bytes()
    clinic = {"Authorization": f"Bearer {own_service.token('clinic', 'mithi')}"}
    case = {"complaint": EVIL, "case_id": EVIL, "photos": [{"path": f"{EVIL}.jpg", "body_site": EVIL}]}
    files = {"case": (None, json.dumps(case)), "photos": (f"{EVIL}.jpg", photo, "image/jpeg")}
    id_ = httpx.post(f"{own_service.url}/v1/referrals", files=files, headers=clinic, timeout=60).json()["id"]
    doctor = {"Authorization": f"Bearer {own_service.token('clinician')}"}
    httpx.post(f"{own_service.url}/v1/referrals/{id_}/note", json={"text": EVIL}, headers=doctor, timeout=30).raise_for_status()
    page = signed_in(browser, own_service, "clinician")
    page.add_init_script("addEventListener('securitypolicyviolation', () => { window.stopped = (window.stopped || 0) + 1 })")
    for path in ("/app/worklist", f"/app/cases/{id_}"):
        page.goto(path)
        page.wait_for_timeout(300)
        assert page.evaluate("[window.caught, window.stopped]") == [None, None]
        assert "<script>window.caught=1</script>" in page.locator("main").inner_text()
    with pytest.raises(Exception, match="TrustedScript"):
        page.evaluate("document.body.setAttribute('onclick', 'window.caught=4')")
    page.evaluate("() => { const one = document.createElement('img'); one.src = 'http://127.0.0.1:1/x.png'; document.body.append(one) }")
    page.wait_for_function("window.stopped >= 1")
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    page.context.close()


def over_the_line(page: Any, path: str) -> tuple[int, float]:
    """Bytes that came over the line for a page with all that it loads, and seconds until it could be used."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    came: list[int] = []
    session.on("Network.loadingFinished", lambda event: came.append(int(event["encodedDataLength"])))
    session.send(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    )
    began = time.monotonic()
    page.goto(path, wait_until="domcontentloaded")  # deferred scripts have run by then: keys and forms work
    page.locator("main h1").wait_for()
    seconds = time.monotonic() - began
    page.wait_for_load_state("load")
    session.detach()
    return sum(came), seconds


@pytest.mark.parametrize("language", ["en", "ur"])
def test_pages_over_a_thin_line(browser: Any, own_service: Served, figure: Callable[[str], None], language: str):
    """50 kB/s and 400 ms: usable within 3 s. Fifty rows are 30 kB at first and 8 kB again; a case without its photo 30 kB, a thumbnail 15."""
    lines = (ROOT / "data/sample/referrals.jsonl").read_text(encoding="utf-8").splitlines()
    dropped = ("photos", "received_at", "case_id")
    cases = [{key: value for key, value in json.loads(line).items() if key not in dropped} for line in lines] * 3
    clinic = {"Authorization": f"Bearer {own_service.token('clinic', 'mithi')}"}
    httpx.post(f"{own_service.url}/v1/referrals:batch", json=cases, headers=clinic, timeout=60).raise_for_status()
    page = signed_in(browser, own_service, "clinician", language=language)
    first, seconds = over_the_line(page, "/app/worklist")
    assert page.locator(".list tbody tr").count() == 50
    again, seconds_again = over_the_line(page, "/app/worklist")
    links = case_links(page)
    photo = next(
        link
        for link in links
        if "photo" in page.locator(f'td:has([href="{link}"])').inner_text()
        or "تصویر" in page.locator(f'td:has([href="{link}"])').inner_text()
    )
    fresh = signed_in(browser, own_service, "clinician", language=language)
    case, seconds_case = over_the_line(fresh, links[0])
    with_photo = signed_in(browser, own_service, "clinician", language=language)
    thumbnail = len(with_photo.request.get(re.search(r'"([^"]+/thumb)"', with_photo.request.get(photo).text()).group(1)).body())
    figure(
        f"50 kB/s, 400 ms, {language}: worklist {first} bytes in {seconds:.2f} s, again {again} bytes in {seconds_again:.2f} s; "
        f"case {case} bytes in {seconds_case:.2f} s; thumbnail {thumbnail} bytes"
    )
    assert (first <= 30_000, again <= 8_000, case <= 30_000, thumbnail <= 15_000) == (True, True, True, True)
    assert max(seconds, seconds_again, seconds_case) <= 3
    for one in (page, fresh, with_photo):
        one.context.close()


def test_levels_can_be_told_apart_in_grey(browser: Any, demo_service: Served):
    """Each level's mark has a shape of its own, checked pixel by pixel without colour; beside it stand its number and its name."""
    page = signed_in(browser, demo_service, "clinician")
    page.goto("/app/worklist")
    page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
    tiles = page.locator(".tiles a")
    marks = {}
    for level in range(1, 6):
        tile = tiles.nth(level - 1)
        assert re.search(rf"\b{level}\b \w+", tile.inner_text())
        image = Image.open(io.BytesIO(tile.locator("svg").screenshot(scale="css"))).convert("L").resize((16, 16))
        pixels = np.asarray(image, dtype=float)
        marks[level] = (pixels < (pixels.min() + pixels.max()) / 2).astype(int)  # the shape alone, whatever the greys are
    for one, other in combinations(marks, 2):
        assert np.abs(marks[one] - marks[other]).mean() > 0.08, (one, other)
    late = page.locator(".list tr.late")
    assert late.count() > 0
    assert all("PAST CAP" in row.inner_text() for row in late.all())
    assert not any("PAST CAP" in row.inner_text() for row in page.locator(".list tbody tr:not(.late)").all())
    for sort in page.locator("[aria-sort]").all():
        assert "▲" in sort.inner_text() or "▼" in sort.inner_text()
    page.context.close()


@pytest.mark.parametrize("language", ["en", "ur"])
def test_print_on_a4_loses_nothing(browser: Any, demo_service: Served, language: str):
    """The printed case has all sections without buttons, fits the paper's width, and is black on white."""
    page = signed_in(browser, demo_service, "clinician", language=language, theme="dark")
    page.goto("/app/worklist")
    page.goto(case_links(page)[0])
    sections = page.locator("section h2").all_inner_texts()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins, at 96 dots an inch
    printed = page.locator("main").inner_text()
    hidden = {"Decide", "فیصلہ"}
    assert all(title in printed for title in sections if title not in hidden)
    assert page.locator("button:visible").count() == 0 and page.locator(".top").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF") and len(content) > 5000
    page.context.close()


def test_nothing_of_a_page_comes_from_elsewhere(browser: Any, demo_service: Served):
    """Every request of a visit goes to the service itself, and no page writes an error to the console."""
    page = signed_in(browser, demo_service, "clinician", language="ur")
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto("/app/worklist")
    for link in [*case_links(page)[:3], "/app/options", "/app/dashboard"]:
        page.goto(link)
    assert asked and all(url.startswith((demo_service.url, "blob:")) for url in asked)
    assert said == []
    page.context.close()


def test_the_worklist_says_what_ranked_a_case(browser: Any, tmp_path: Path):
    """Without models every case is there, ranked by rules, and the page says that models are missing."""
    from browser_support import served

    empty = tmp_path / "models"
    empty.mkdir()
    with served(tmp_path, NABZ_MODELS=str(empty)) as service:
        page = signed_in(browser, service, "clinician")
        page.goto("/app/worklist")
        text = page.locator("main").inner_text()
        assert "Some model is not in use" in text and "rules alone" in text and "AI and rules" not in text
        page.goto(case_links(page)[0])
        assert "No model gave a probability for this case." in page.locator("main").inner_text()
        page.context.close()
