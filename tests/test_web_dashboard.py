"""The dashboard's page: who may read it, in both languages, with cases and without, small, and with no patient's words."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import dashboard_history
import pytest
from queue_database import rows
from service_app import CASE, MILD, Service, running_service
from web_app import Reader, words_of

from inference.service.web.dashboard_page import DAYS

LARGEST_PAGE = 30_000
SECRET = "planted-words-of-a-patient"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with weeks of invented history."""
    folder = tmp_path_factory.mktemp("dashboard")
    dashboard_history.fill(folder, days=34, per_day=12)
    with running_service(folder) as running:
        yield running


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Service]:
    """A service that has had no case."""
    with running_service(tmp_path) as running:
        yield running


def plots(html: str) -> list[ET.Element]:
    """Every SVG of the page that says what it shows."""
    return [ET.fromstring(one) for one in re.findall(r'<svg class="(?:plot|spark)".*?</svg>', html, re.DOTALL)]


@pytest.mark.parametrize(("role", "status"), [("clinic", 403), ("clinician", 200), ("data_scientist", 200), ("admin", 200)])
def test_who_may_read_it(busy: Service, role: str, status: int):
    """Clinicians, data scientists and the service's manager; a clinic sees its own list only."""
    assert Reader(busy, role).get("/app/dashboard").status_code == status


def test_without_a_session_one_signs_in(busy: Service):
    """As everywhere."""
    answer = busy.client.get("/app/dashboard", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/app/sign-in")


@pytest.mark.parametrize("language", ["en", "ur"])
@pytest.mark.parametrize("days", DAYS)
def test_every_figure_is_there_and_small(busy: Service, days: int, language: str):
    """All seven sections, each plot with its table, no style, no NaN; the whole page within 30 kB."""
    answer = Reader(busy, "clinician", language=language).get(f"/app/dashboard?days={days}")
    html = answer.text
    assert f'<html lang="{language}" dir="{"rtl" if language == "ur" else "ltr"}"' in html
    sections = re.findall(r'<section class="card" id="(\w+)"', html)
    assert sections == ["waits", "queue", "districts", "overrides", "reviews", "drift", "rises"]
    assert len(gzip.compress(answer.content, 6)) <= LARGEST_PAGE
    assert not re.search(r"\bnan\b|\binf\b|None|style=|<script>|onload", html)
    assert len(plots(html)) > 10
    assert html.count("<details>") >= 6
    for row in re.findall(r"<table.*?</table>", html, re.DOTALL):
        widths = {len(re.findall("<t[hd]", line)) for line in re.findall("<tr>.*?</tr>", row, re.DOTALL)}
        assert len(widths) == 1, row[:200]


def test_figures_of_a_small_history(empty: Service):
    """Two cases: one claimed at once, moved up and completed; the other waits. One in time of one; one level changed of one."""
    first, _ = empty.send({**CASE, "complaint": SECRET}), empty.send(MILD)
    assert empty.act(first["id"], "claim").status_code == 200
    assert empty.act(first["id"], "override", {"level": 1, "reason": SECRET}).status_code == 200
    assert empty.act(first["id"], "complete", {"outcome": "advised"}).status_code == 200
    html = Reader(empty, "admin").get("/app/dashboard").text
    words = words_of(html)
    assert "1 open cases now 0 past the cap and never claimed" in words
    assert "100% claimed within the cap 100% (21–100%) · 1 of 1" in words
    assert "levels changed by clinicians" in words
    assert "12 whole days with known syndromes are needed, and there is 1 so far" in words
    assert SECRET not in html
    assert "Tharparkar" not in re.sub(r"(?s)<section.*", "", html)


def test_an_empty_service_says_what_will_come(empty: Service):
    """No figure, no division by nothing, no plot."""
    for language in ("en", "ur"):
        answer = Reader(empty, "clinician", language=language).get("/app/dashboard")
        assert answer.status_code == 200
        assert plots(answer.text) == []
        assert not re.search(r"\bnan\b|0%", answer.text, re.IGNORECASE)
    assert "No case has come in yet" in Reader(empty, "clinician").get("/app/dashboard").text


def test_a_district_alone(busy: Service):
    """Its name as clinics write it, in whatever case; one that nobody named says so, and is not shown as a list of zeros alone."""
    reader = Reader(busy, "clinician")
    badin = reader.get("/app/dashboard?days=30&district=BADIN").text
    assert ">Badin</bdi>" in badin
    assert "Tharparkar" not in badin
    nowhere = reader.get("/app/dashboard", params={"district": "<b>x</b>"}).text
    assert "No case of these days names this district" in nowhere
    assert "<b>x</b>" not in nowhere


@pytest.mark.parametrize("days", ["15", "0", "-1", "x", "1e3"])
def test_days_that_are_not_offered(busy: Service, days: str):
    """Refused: each choice costs reading."""
    answer = Reader(busy, "clinician").get("/app/dashboard", params={"days": days})
    assert answer.status_code == 400
    assert "choose one of them" in answer.text


def test_reading_it_is_in_the_audit_trail(empty: Service):
    """Who, how many days, which district if there is one of that name: anything may be typed there."""
    empty.send()
    reader = Reader(empty, "data_scientist")
    for query in ("days=7", "days=7&district=tharparkar", f"days=7&district={SECRET}"):
        assert reader.get(f"/app/dashboard?{query}").status_code == 200
    found = rows(empty.parts.database.engine, "SELECT actor, detail FROM audit WHERE action = 'dashboard' ORDER BY sequence")
    assert found == [
        ("data_scientist-1", '{"days":7}'),
        ("data_scientist-1", '{"days":7,"district":"tharparkar"}'),
        ("data_scientist-1", '{"days":7,"district":"?"}'),
    ]


def test_figures_are_kept_for_a_minute(empty: Service):
    """Reading them again within a minute costs nothing; afterwards they are new."""
    reader = Reader(empty, "clinician")
    empty.send()
    assert "1 open cases now" in words_of(reader.get("/app/dashboard").text)
    empty.send()
    assert "1 open cases now" in words_of(reader.get("/app/dashboard").text)
    assert "2 open cases now" in words_of(reader.get("/app/dashboard?days=7").text)
    empty.clock.ahead = timedelta(seconds=61)
    assert "2 open cases now" in words_of(reader.get("/app/dashboard").text)


def test_an_outbreak_is_shown(busy: Service):
    """The history ends with watery diarrhoea in Badin."""
    html = Reader(busy, "clinician").get("/app/dashboard").text
    rises = html[html.index('id="rises"') :]
    assert re.search(r'<th scope="row">acute watery diarrhoea · <bdi lang="en" dir="ltr">Badin</bdi></th>', rises)
    assert "series were looked at on 7 days" in rises


def test_in_greyscale_the_levels_differ_by_shape(busy: Service):
    """Five marks, one for each level, in the plots of waits and of the queue."""
    html = Reader(busy, "clinician").get("/app/dashboard").text
    for name in ("waits", "queue"):
        section = html[html.index(f'id="{name}"') :].partition("</section>")[0]
        assert {f"#s{level}" for level in range(1, 6)} <= set(re.findall(r'href="(#s\d)"', section))
