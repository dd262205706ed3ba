"""The clinicians' pages without a browser: who gets in, what the list and the case show, what a form does."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from service_app import CASE, MILD, Service, running_service
from starlette.testclient import TestClient
from web_app import ORIGIN, Reader, untranslated, words_of

CHILD = {
    "age_years": 1.5,
    "sex": "male",
    "complaint": "bache ko tez bukhar, pasliyan chal rahi hain",
    "vitals": {"respiratory_rate_per_minute": 62, "spo2_percent": 88},
    "district": "Khuzdar",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service for tests that look only at cases of their own."""
    with running_service(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture
def own(tmp_path):
    """A service with an empty queue."""
    with running_service(tmp_path) as running:
        yield running


@pytest.fixture
def either(tmp_path, database_url):
    """A service with an empty queue, once on each kind of database."""
    with running_service(tmp_path, database_url) as running:
        yield running


def rows(html: str) -> list[str]:
    """The referrals of a list, in its order."""
    return re.findall(r'class="words" href="/app/cases/(r-[0-9a-f]{32})"', html)


# ---- getting in ----


def test_without_a_session_every_page_leads_to_the_sign_in(service: Service):
    """No cookie, or one that does not count: 303 to the form, and nothing of a page."""
    bare = TestClient(service.client.app, base_url="http://127.0.0.1", follow_redirects=False)
    for cookie in ("", "x.y.z"):
        bare.cookies.set("nabz_session", cookie, path="/app")
        for path in ("/app", "/app/worklist", f"/app/cases/r-{'0' * 32}", "/app/options", "/app/nowhere"):
            answer = bare.get(path)
            assert (answer.status_code, answer.headers["location"], answer.text) == (303, "/app/sign-in", "")


def test_the_demo_signs_in_this_machine_only(service: Service):
    """The form gives a session out of scripts' reach; another machine, or a proxy, gets none."""
    client = TestClient(service.client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 5), follow_redirects=False)
    answer = client.post("/app/sign-in", data={"role": "clinician"}, headers=ORIGIN)
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/app/worklist")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/app")) and "Secure" not in cookie
    far = TestClient(service.client.app, base_url="http://127.0.0.1", client=("10.0.0.9", 5), follow_redirects=False)
    refused = far.post("/app/sign-in", data={"role": "clinician"}, headers=ORIGIN)
    assert refused.status_code == 422 and "set-cookie" not in refused.headers and "this machine only" in refused.text
    secure = client.post("/app/sign-in", data={"role": "admin"}, headers={**ORIGIN, "X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["set-cookie"]  # the browser came over https


def test_the_session_counts_for_pages_only(service: Service):
    """The API never takes the cookie, so that no other site can make a browser use it."""
    reader = Reader(service, "clinician")
    assert reader.get("/app/worklist").status_code == 200
    assert reader.client.get("/v1/worklist", headers={"Cookie": f"nabz_session={reader.client.cookies['nabz_session']}"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
        {"Referer": "https://evil.example/http://127.0.0.1"},
        {},
    ],
)
def test_a_form_from_another_site_changes_nothing(service: Service, headers: dict[str, str]):
    """Fetch Metadata, else Origin, else Referer must say that it comes from here; a form that says nothing is refused."""
    id_ = service.send()["id"]
    reader = Reader(service, "clinician", "forger")
    answer = reader.client.post(f"/app/cases/{id_}/claim", headers=headers)
    assert answer.status_code == 403 and "sent from another site" in answer.text
    assert service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinician")).json()["state"] == "waiting"


def test_every_page_has_a_strict_policy(service: Service):
    """No inline script or style, nothing from elsewhere, nothing kept, in errors too."""
    reader, id_ = Reader(service, "clinician"), service.send()["id"]
    for path in ("/app/worklist", f"/app/cases/{id_}", "/app/options", "/app/sign-in", "/app/worklist?level=9", "/app/nowhere"):
        answer = reader.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "trusted-types nabz" in policy, path
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", answer.text), path


def test_the_way_back_never_leaves_the_pages(service: Service):
    """The address to come back to after a choice is one of ours, whatever the form says."""
    reader = Reader(service, "clinician")
    for back, goes in (
        ("/app/worklist?view=mine", "/app/worklist?view=mine"),
        ("https://evil.example", "/app"),
        ("//evil.example/app/", "/app"),
        ("/app/..//evil.example", "/app"),
        ("/app/\\evil.example", "/app"),
        ("/v1/worklist", "/app"),
    ):
        assert reader.post("/app/choices", {"language": "ur", "back": back}).headers["location"] == goes


def test_choices_are_kept_in_the_browser(service: Service):
    """Language, theme and options come back in the cookie; an unticked box is off, a single button changes nothing else."""
    reader = Reader(service, "clinician")
    kept = reader.post("/app/choices", {"language": "ur", "theme": "dark", "options": "1", "first_impression": "1"})
    assert "nabz_choices=ur.dark.1.0" in kept.headers["set-cookie"]
    reader.client.cookies.delete("nabz_choices")
    reader.client.cookies.set("nabz_choices", "ur.dark.1.0", path="/app")
    assert "nabz_choices=en.dark.1.0" in reader.post("/app/choices", {"language": "en"}).headers["set-cookie"]
    page = reader.get("/app/options").text  # the answer's cookie was taken over
    assert '<html lang="en" dir="ltr" data-theme="dark">' in page


def test_the_browsers_language_is_the_first_one(service: Service):
    """Without a choice, Urdu for a browser that asks for it first, English for any other."""
    client = TestClient(service.client.app, base_url="http://127.0.0.1")
    assert '<html lang="ur" dir="rtl"' in client.get("/app/sign-in", headers={"Accept-Language": "ur-PK,en;q=0.5"}).text
    assert '<html lang="en" dir="ltr"' in client.get("/app/sign-in", headers={"Accept-Language": "de"}).text


# ---- the worklist ----


def test_the_list_is_in_the_queues_order_whatever_it_is_sorted_by(own: Service):
    """Sorting rearranges what is shown and keeps each case's place in front; unknown values come last."""
    sent = [own.send(case)["id"] for case in (MILD, CASE, CHILD, {"complaint": "xyzzy"})]
    queue = [row["id"] for row in own.client.get("/v1/worklist", headers=own.token("clinician")).json()["items"]]
    reader = Reader(own, "clinician")
    assert rows(reader.get("/app/worklist").text) == queue
    by_age = reader.get("/app/worklist?sort=age").text
    assert rows(by_age) == [sent[2], sent[0], sent[1], sent[3]]
    places = re.findall(r'<td role="cell" class="num">(\d+)</td>', by_age)
    assert [queue[int(place) - 1] for place in places] == rows(by_age)
    assert "sorted for reading" in by_age and 'aria-sort="ascending"' in by_age
    assert rows(reader.get("/app/worklist?sort=age&dir=down").text) == [sent[1], sent[0], sent[2], sent[3]]


def test_filters_show_what_they_say(either: Service):
    """Level, specialty, district, unclaimed, mine, review, past cap, completed; tiles count the open cases by level."""
    child, mild, odd, man = (either.send(case) for case in (CHILD, MILD, {"complaint": "xyzzy"}, CASE))
    either.act(man["id"], "claim", clinician="2")
    mine, other = Reader(either, "clinician", "2"), Reader(either, "clinician", "3")

    def shown(query: str, reader: Reader = mine) -> set[str]:
        return set(rows(reader.get(f"/app/worklist?{query}").text))

    everything = {one["id"] for one in (child, mild, odd, man)}
    assert shown("") == everything
    assert shown("view=unclaimed") == everything - {man["id"]}
    assert (shown("view=mine"), shown("view=mine", other)) == ({man["id"]}, set())
    assert shown("view=review") == {odd["id"]}
    assert child["id"] in shown(f"level={child['level']}") and mild["id"] not in shown(f"level={child['level']}")
    assert shown("district=KHUZDAR") == {child["id"]}
    assert shown(f"specialty={man['specialty']}") >= {man["id"]}
    either.clock.ahead = timedelta(minutes=15) if child["level"] == 1 else timedelta(hours=2)
    assert child["id"] in shown("view=late") and mild["id"] not in shown("view=late")
    late = mine.get("/app/worklist").text
    assert 'class="late"' in late and "PAST CAP" in late
    counts = [int(n) for n in re.findall(r'<b class="num">(\d+)</b>', late)]
    assert sum(counts) == 4 and len(counts) == 5
    either.act(man["id"], "complete", {"outcome": "advised"}, clinician="2")
    assert (shown("view=completed"), man["id"] in shown("")) == ({man["id"]}, False)


@pytest.mark.parametrize("query", ["level=9", "level=x", "view=nothing", "sort=name", "first=x", "cursor=abc"])
def test_an_address_that_no_page_made_is_said_to_be_one(service: Service, query: str):
    """A clear page in both languages, status 400, no traceback."""
    answer = Reader(service, "clinician").get(f"/app/worklist?{query}")
    assert answer.status_code == 400 and "The request cannot be read" in answer.text and 'lang="ur"' in answer.text


def test_pages_follow_each_other(own: Service):
    """Fifty rows a page; the next one goes on with the places, and no case is shown twice or left out."""
    headers = own.token("clinic", "mithi")
    assert own.client.post("/v1/referrals:batch", json=[MILD] * 60, headers=headers).status_code == 201
    reader = Reader(own, "clinician")
    first = reader.get("/app/worklist").text
    following = re.search(r'rel="next" href="([^"]+)"', first).group(1).replace("&amp;", "&")
    second = reader.get(following).text
    assert (len(rows(first)), len(rows(second)), len({*rows(first), *rows(second)})) == (50, 10, 60)
    assert '<td role="cell" class="num">51</td>' in second and 'rel="next"' not in second


def test_a_clinic_sees_its_own_cases_and_no_buttons(own: Service):
    """The list of a health worker: their clinic's, without claiming; another clinic's case is not there."""
    ours, theirs = own.send(CASE, "mithi"), own.send(CHILD, "chachro")
    reader = Reader(own, "clinic", "mithi")
    page = reader.get("/app/worklist").text
    assert rows(page) == [ours["id"]]
    assert "/claim" not in page and "Take the next case" not in page
    assert reader.get(f"/app/cases/{theirs['id']}").status_code == 404
    assert sum(int(n) for n in re.findall(r'<b class="num">(\d+)</b>', page)) == 1


def test_a_case_is_found_by_its_number(either: Service):
    """As printed, in small letters, or without the hyphen; another clinic's is not found by a clinic."""
    id_ = either.send({**CASE, "case_id": "7K2M-Q9XD"})["id"]
    doctor = Reader(either, "clinician")
    for typed in ("7K2M-Q9XD", "7k2m-q9xd", " 7k2mq9xd "):
        assert doctor.post("/app/worklist/find", {"number": typed}).headers["location"] == f"/app/cases/{id_}"
    for reader, typed in ((doctor, "0000-0000"), (Reader(either, "clinic", "chachro"), "7K2M-Q9XD")):
        missing = reader.post("/app/worklist/find", {"number": typed})
        assert missing.headers["location"] == "/app/worklist?said=not-found"
    assert "There is no case of that number" in doctor.get("/app/worklist?said=not-found").text
    assert "7K2M" not in words_of(doctor.get("/app/worklist?said=7K2M").text)


# ---- a case ----


def test_the_case_page_has_its_parts_in_order(service: Service):
    """Red flags, level and why, vitals, how likely, for and against, differential, versions: in the order of the clinic's questions."""
    id_ = service.send(CASE)["id"]
    page = Reader(service, "clinician").get(f"/app/cases/{id_}").text
    parts = ["flags", "why", "vitals", "sure", "reasons", "may-be", "history", "versions"]
    places = [page.index(f'<h2 id="{name}">') for name in parts]
    assert places == sorted(places)
    words = words_of(page)
    assert "in 10 patients like this" in words or "in 100 patients like this" in words
    assert re.search(r"This rests on \d+ patients with a probability between", words)
    assert "not measured" in words and "NEWS2" in words and "Decision support, not a medical device" in words


def test_a_pain_score_is_shown_where_it_was_asked(service: Service):
    """Out of ten, in both languages; a case that has none has no line for it."""
    asked, not_asked = (
        service.send({**CASE, "case_id": name, "vitals": vitals})["id"] for name, vitals in (("p1", {"pain_score": 7}), ("p2", {}))
    )
    english, urdu = (Reader(service, "clinician", language=language) for language in ("en", "ur"))
    assert "Pain, from 0 none to 10 worst 7 of 10" in words_of(english.get(f"/app/cases/{asked}").text)
    assert "Pain, from 0" not in words_of(english.get(f"/app/cases/{not_asked}").text)
    assert "10 میں سے" in words_of(urdu.get(f"/app/cases/{asked}").text)


def test_a_number_rests_on_how_many_patients(service: Service):
    """The band of the model that gave the probability, synthetic patients named as such."""
    referral = service.send(CASE)
    band = referral["assessment"]["calibration"]
    words = words_of(Reader(service, "clinician").get(f"/app/cases/{referral['id']}").text)
    assert f"This rests on {band['n']} patients" in words and f"{band['events']} of them were emergencies" in words
    assert ("These patients are synthetic" in words) is band["is_synthetic"]


def test_a_number_that_its_own_patients_do_not_bear_out_says_so(own: Service):
    """Where the held-out patients' interval leaves the model's number out, the page says in which direction."""
    id_ = own.send(CASE)["id"]
    reader = Reader(own, "clinician")
    for events, said in ((0, "Fewer of those patients"), (100, "More of those patients"), (60, "")):
        band = {"task": "acuity", "data": "x", "is_synthetic": False, "low": 0.6, "high": 0.7, "n": 100, "events": events}
        read = own.parts.referrals.read

        async def told(who, wanted, read=read, band=band):
            full = await read(who, wanted)
            return {**full, "assessment": {**full["assessment"], "emergency_probability": 0.62, "calibration": band}}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own.parts.referrals, "read", told)
            words = words_of(reader.get(f"/app/cases/{id_}").text)
        assert f"{events} of them were emergencies" in words and (said in words if said else "of those patients" not in words)


def test_actions_go_from_claim_to_the_next_case(either: Service):
    """Claim, agree, override with a reason, note, complete and take the next one: each is in the case's history."""
    first, second = either.send(CHILD)["id"], either.send(MILD)["id"]
    reader = Reader(either, "clinician", "asha")
    assert reader.post("/app/worklist/next").headers["location"] == f"/app/cases/{first}?said=claimed"
    assert reader.post(f"/app/cases/{first}/agree").headers["location"] == f"/app/cases/{first}?said=agreed"
    assert reader.post(f"/app/cases/{first}/override", {"level": "3", "reason": "seen by video"}).status_code == 303
    assert reader.post(f"/app/cases/{first}/note", {"text": "mother called"}).status_code == 303
    done = reader.post(f"/app/cases/{first}/complete", {"outcome": "treated", "level": "2", "next": "1"})
    assert done.headers["location"] == f"/app/cases/{second}?said=claimed"
    words = words_of(reader.get(f"/app/cases/{first}").text)
    for said in ("claimed", "agreed with the level", "level overridden", "seen by video", "mother called", "treated"):
        assert said in words
    assert reader.post(f"/app/cases/{second}/release").headers["location"] == "/app/worklist?said=released"
    assert reader.post("/app/worklist/next?level=1").headers["location"] == "/app/worklist?said=none"


def test_a_refused_form_comes_back_with_what_was_typed(own: Service):
    """What is missing is said, nothing typed is lost, and nothing has changed."""
    id_ = own.send(CHILD)["id"]
    reader = Reader(own, "clinician", "asha")
    answer = reader.post(f"/app/cases/{id_}/override", {"level": "4", "reason": "   "})
    assert answer.status_code == 422 and "Write why" in answer.text
    answer = reader.post(f"/app/cases/{id_}/override", {"reason": "only words"})
    assert answer.status_code == 422 and "Choose a level" in answer.text and "only words" in answer.text
    own.act(id_, "claim", clinician="other")
    answer = reader.post(f"/app/cases/{id_}/override", {"level": "4", "reason": "mine too"})
    assert answer.status_code == 409 and "another clinician holds this case" in answer.text and "mine too" in answer.text
    assert reader.post(f"/app/cases/{id_}/complete", {"outcome": "treated"}).status_code == 409
    assert reader.post(f"/app/cases/{id_}/erase").status_code == 404
    assert own.client.get(f"/v1/referrals/{id_}", headers=own.token("clinician")).json()["override_level"] is None


def test_the_first_impression_comes_first(either: Service):
    """With the option on, the page does not even hold the machine's opinion before the clinician's own is recorded; rules' flags stay."""
    sent = either.send(CASE)
    id_, condition = sent["id"], sent["assessment"]["differential"][0]["name_en"]
    reader = Reader(either, "clinician", "asha", first_impression=True)
    before = reader.get(f"/app/cases/{id_}").text
    assert (
        condition not in before
        and "patients like this" not in before
        and f'class="lv l{sent["level"]}"><svg' not in before.split("<form")[0]
    )
    assert "Your first impression" in before and "Red flags, by rule" in before and "Vital signs" in before
    assert f"/app/cases/{id_}/override" not in before and "to be seen within" not in before
    listed = reader.get("/app/worklist").text
    assert "hidden" in words_of(listed) and f'class="lv l{sent["level"]}"' not in listed
    assert reader.post(f"/app/cases/{id_}/impression", {}).status_code == 422
    assert reader.post(f"/app/cases/{id_}/impression", {"level": "3"}).headers["location"] == f"/app/cases/{id_}?said=impression"
    after = reader.get(f"/app/cases/{id_}").text
    assert condition in after and "first impression recorded: 3" in words_of(after)
    assert f'class="lv l{sent["level"]}"' in reader.get("/app/worklist").text
    assert condition in Reader(either, "clinician", "other").get(f"/app/cases/{id_}").text


def test_colleagues_overrides_of_similar_cases_are_shown(either: Service):
    """The same machine level, and the leading condition or a red flag in common; other cases' are not, and the look is on record."""
    old, new, other = (either.send(case)["id"] for case in (CASE, CASE, MILD))
    either.act(old, "override", {"level": 1, "reason": "ECG shows ST elevation"})
    either.act(other, "override", {"level": 3, "reason": "worried mother"})
    words = words_of(Reader(either, "clinician", "asha").get(f"/app/cases/{new}").text)
    assert "ECG shows ST elevation" in words and "worried mother" not in words
    assert "ECG shows ST elevation" not in words_of(Reader(either, "clinic", "mithi").get(f"/app/cases/{new}").text)
    audit = either.client.get("/v1/audit", headers=either.token("admin")).json()
    assert any(row["action"] == "listed" and row["detail"] == {"referrals": [old]} for row in audit)


def test_what_changed_is_said(own: Service):
    """After new findings: both levels, the new red flag, what is newly known."""
    id_ = own.send(MILD)["id"]
    added = own.client.post(f"/v1/referrals/{id_}/findings", json={"vitals": {"consciousness": "U"}}, headers=own.token("clinic", "mithi"))
    assert added.status_code == 200
    words = words_of(Reader(own, "clinician").get(f"/app/cases/{id_}").text)
    assert "What changed with the newest assessment" in words and "new red flag" in words


def test_an_erased_case_says_so(own: Service):
    """The row and its history stay; what the patient sent is gone, and the page holds."""
    id_ = own.send(CASE)["id"]
    own.act(id_, "claim")
    own.act(id_, "complete", {"outcome": "advised"})
    assert own.client.post(f"/v1/referrals/{id_}/erase", headers=own.token("admin")).status_code == 204
    page = Reader(own, "clinician").get(f"/app/cases/{id_}")
    assert page.status_code == 200 and "erased by the retention policy" in page.text and "seenay" not in page.text
    assert Reader(own, "clinician").get("/app/worklist?view=completed").status_code == 200


def test_photos_are_small_and_the_heat_map_fits(own: Service):
    """Thumbnail within 15 kB, heat map a transparent PNG; another case's photo, or no hash, is none of this case's."""
    photo = Path("data/sample/photos/dark_patch.jpg").read_bytes()
    answer = own.client.post(
        "/v1/referrals",
        data={"case": json.dumps({"complaint": "til", "age_years": 60, "photos": [{"path": "a.jpg", "body_site": "arm"}]})},
        files=[("photos", ("a.jpg", photo, "image/jpeg"))],
        headers=own.token("clinic", "mithi"),
    )
    id_, other = answer.json()["id"], own.send(MILD)["id"]
    reader = Reader(own, "clinician")
    page = reader.get(f"/app/cases/{id_}").text
    sha256 = re.search(r"/photos/([0-9a-f]{64})/thumb", page).group(1)
    thumb, view, heat = (reader.get(f"/app/cases/{id_}/photos/{sha256}/{kind}") for kind in ("thumb", "view", "heat"))
    assert (thumb.headers["content-type"], heat.headers["content-type"]) == ("image/jpeg", "image/png")
    assert len(thumb.content) <= 15_000 and len(heat.content) <= 15_000 and view.status_code == 200
    assert heat.content[25] in (3, 4, 6)  # PNG with a palette or with alpha
    for path in (f"/app/cases/{other}/photos/{sha256}/thumb", f"/app/cases/{id_}/photos/{sha256}/full", f"/app/cases/{id_}/photos/x/thumb"):
        assert reader.get(path).status_code == 404


def test_a_strangers_markup_is_text(own: Service):
    """Complaint, district, case number, file name, note: whatever they hold, the page shows it as words."""
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    answer = own.client.post(
        "/v1/referrals",
        data={
            "case": json.dumps(
                {"complaint": evil, "case_id": evil, "district": "a<b>c", "photos": [{"path": f"{evil}.jpg", "body_site": evil}]}
            )
        },
        files=[("photos", (f"{evil}.jpg", Path("data/sample/photos/mole.jpg").read_bytes(), "image/jpeg"))],
        headers=own.token("clinic", "mithi"),
    )
    id_ = answer.json()["id"]
    own.act(id_, "note", {"text": evil})
    own.act(id_, "override", {"level": 2, "reason": evil})
    reader = Reader(own, "clinician")
    for path in ("/app/worklist", f"/app/cases/{id_}"):
        html = reader.get(path).text
        assert "<script>alert" not in html and "<img src=x" not in html and "a<b>c" not in html
        assert "&lt;script&gt;alert(1)" in html


@pytest.mark.parametrize("language", ["en", "ur"])
def test_pages_fit_a_thin_line(own: Service, figure: Callable[[str], None], language: str):
    """Fifty rows in 8 kB as a refresh; with style sheet and script 30 kB; a case in 30 kB: gzip, as it goes over the line."""
    headers = own.token("clinic", "mithi")
    lines = Path("data/sample/referrals.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [{key: value for key, value in json.loads(line).items() if key not in ("photos", "received_at", "case_id")} for line in lines]
    own.client.post("/v1/referrals:batch", json=(cases * 4)[:60], headers=headers)
    reader = Reader(own, "clinician", language=language)

    def size(path: str) -> int:
        answer = reader.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        return int(answer.headers["content-length"])

    page = reader.get("/app/worklist").text
    assert len(rows(page)) == 50
    refresh = size("/app/worklist")
    everything = refresh + sum(size(path) for path in re.findall(r'"(/app/static/[^"]+)"', page))
    case = max(size(f"/app/cases/{id_}") for id_ in rows(page)[:16])
    figure(f"gzip, worklist {language}: refresh {refresh} bytes, first load {everything} bytes; case {case} bytes")
    assert refresh <= 8_000 and everything <= 30_000 and case + everything - refresh <= 30_000


def test_files_are_kept_for_good_and_change_their_name(service: Service):
    """An asset's address has its content's hash; another hash is not there, and the compressed form is the same bytes."""
    page = service.client.get("/app/sign-in").text
    path = re.search(r'"(/app/static/app\.[0-9a-f]{10}\.css)"', page).group(1)
    plain = service.client.get(path, headers={"Accept-Encoding": "identity"})
    assert "immutable" in plain.headers["cache-control"]
    assert gzip.decompress(gzip.compress(plain.content)) == service.client.get(path, headers={"Accept-Encoding": "gzip"}).content
    assert service.client.get(re.sub(r"\.[0-9a-f]{10}\.", ".0123456789.", path)).status_code == 404


def test_no_page_in_urdu_has_an_english_sentence(own: Service):
    """Every text is Urdu, or marked as what it is: a patient's words, a name, a code."""
    sent = [own.send(case) for case in (CASE, CHILD, MILD, {"complaint": "xyzzy", "vitals": {"spo2_percent": 130}, "priority": "urgent"})]
    own.act(sent[0]["id"], "override", {"level": 1, "reason": "seen"})
    own.client.post(f"/v1/referrals/{sent[2]['id']}/findings", json={"vitals": {"spo2_percent": 84}}, headers=own.token("clinic", "mithi"))
    own.act(sent[1]["id"], "claim")
    reader = Reader(own, "clinician", language="ur")
    paths = [
        "/app/worklist",
        "/app/worklist?view=mine&sort=age",
        "/app/options",
        "/app/sign-in",
        *(f"/app/cases/{one['id']}" for one in sent),
    ]
    for path in paths:
        answer = reader.get(path)
        assert answer.status_code == 200 and list(untranslated(answer.text)) == [], path
    for path in ("/app/nowhere", "/app/worklist?level=9", "/app/dashboard?days=1", f"/app/cases/r-{'0' * 32}"):
        answer = reader.get(path)  # errors are said in both languages, each marked as what it is
        assert answer.status_code >= 400 and 'lang="ur"' in answer.text and list(untranslated(answer.text)) == [], path
    refused = reader.post(f"/app/cases/{sent[0]['id']}/override", {"level": "2"})
    assert refused.status_code == 422 and list(untranslated(refused.text)) == []
