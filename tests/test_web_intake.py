"""The intake page without a browser: the form end to end, what its script asks for, the slip, news, and what nobody may see."""

from __future__ import annotations

import io
import json
import logging
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from service_app import Service, running_service
from sqlalchemy import text

from inference.case import Vitals, field_limits
from inference.photo_quality import gate_numbers
from inference.service.request_log import SafeFormatter
from inference.service.web.case_number import ALPHABET, new_case_number, read_case_number
from inference.service.web.intake_form import PREGNANCY_YEARS, number_of, read_form, years_of
from inference.service.web.intake_hints import hint_rules, hints_for, mended, rules_for_script
from inference.service.web.intake_view import BODY_SITES
from inference.service.web.language import speech

EN, UR = speech("en"), speech("ur")
PLANTED = {"complaint": "zafrani burning under the left rib", "name": "Aslam Khanzada", "phone": "+92 300 1234567"}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("intake")) as running:
        yield running


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the service logs, as it would write it."""
    kept: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    handler, root = Lines(logging.DEBUG), logging.getLogger()
    handler.setFormatter(SafeFormatter("%(name)s: %(message)s"))
    root.addHandler(handler)
    logging.getLogger("nabz").setLevel(logging.DEBUG)
    yield kept
    root.removeHandler(handler)
    logging.getLogger("nabz").setLevel(logging.NOTSET)


def jpeg(grey: int = 150, side: int = 300) -> bytes:
    content = io.BytesIO()
    noise = Image.effect_noise((side, side), 40)
    Image.merge(
        "RGB", (noise.point(lambda v: min(v + 60, 255)), noise.point(lambda v: v * grey // 200), noise.point(lambda v: v // 2))
    ).save(content, "JPEG")
    return content.getvalue()


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{re.escape(name)}" value="([^"]*)"', page)
    assert found, name
    return found[1]


def blank(service: Service, clinic: str = "mithi", **headers: str) -> dict[str, str]:
    """The hidden fields of a new form."""
    page = service.client.get("/app/intake", headers={**service.token("clinic", clinic), **headers}).text
    return {name: field(page, name) for name in ("number", "key", "seen", "skipped")}


def post(service: Service, form: dict[str, str], action: str, *, clinic: str = "mithi", files: Any = None, language: str = "en") -> Any:
    headers = {**service.token("clinic", clinic), "Accept-Language": language}
    return service.client.post("/app/intake", data={**form, "action": action}, files=files, headers=headers, follow_redirects=False)


def stored_case(service: Service, location: str, clinic: str = "mithi") -> dict[str, Any]:
    id_ = location.rpartition("/")[2]
    return dict(service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinic", clinic)).json())


def api(service: Service, path: str, body: Any, key: str | None = None, clinic: str = "mithi", language: str = "en") -> Any:
    headers = {**service.token("clinic", clinic), "Accept-Language": language, **({"Idempotency-Key": key} if key else {})}
    return service.client.post(f"/app/api/intake/{path}", json=body, headers=headers)


def upload(service: Service, content: bytes, clinic: str = "mithi") -> str:
    id_, headers = str(uuid.uuid4()), {**service.token("clinic", clinic), "Tus-Resumable": "1.0.0"}
    assert service.client.post(f"/app/api/uploads/{id_}", headers={**headers, "Upload-Length": str(len(content))}).status_code == 201
    piece = {**headers, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert service.client.patch(f"/app/api/uploads/{id_}", content=content, headers=piece).status_code == 204
    return id_


def count(service: Service) -> int:
    with service.parts.database.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM referrals")).scalar() or 0)


# ---- numbers and fields ----


def test_a_case_number_survives_how_people_write_it():
    """Small letters, no hyphen, and the letters that look like digits; what is no number is none."""
    number = new_case_number()
    assert re.fullmatch(rf"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", number)
    assert read_case_number(f" {number.lower().replace('-', ' ')} ") == number
    assert read_case_number("oil0-1111") == "0110-1111"
    assert [read_case_number(text_) for text_ in ("", "ABC", "ABCD-EFGU", "ABCD-EFG-HI")] == [None] * 4


@pytest.mark.parametrize(
    ("typed", "number"),
    [("37,5", 37.5), ("۳۷٫۵", 37.5), (" 98 ", 98.0), ("٩٨", 98.0), ("", None), ("nan", None), ("inf", None), ("1/2", None)],
)
def test_numbers_are_read_as_people_type_them(typed: str, number: float | None):
    assert number_of(typed) == number


def test_months_become_years_and_what_is_no_number_stays():
    assert (years_of("6", "months"), years_of("40", "years"), years_of("چالیس", "years")) == (0.5, 40.0, "چالیس")


def test_the_form_makes_the_case():
    """Every field comes to its place; what was left as the machine read it is not an answer."""
    typed = read_form(
        {
            "number": "abcd2345", "complaint": " bukhar ", "age": "8", "age_unit": "months", "sex": "female", "pregnant": "no",
            "spo2_percent": "93", "on_oxygen": "yes", "consciousness": "V", "pain_score": "7", "district": "Tharparkar", "priority": "urgent",
            "finding.F_001": "present", "read.F_001": "present", "finding.F_002": "absent", "finding.F_003": "not_said", "read.F_003": "present",
            "name": "A", "stranger": "x",
        }
    )  # fmt: skip
    assert typed.case() == {
        "case_id": "ABCD-2345", "complaint": "bukhar", "sex": "female", "district": "Tharparkar", "priority": "urgent", "age_years": 0.6667,
        "pregnant": False, "vitals": {"spo2_percent": 93.0, "on_oxygen": True, "consciousness": "V", "pain_score": 7}, "findings": {"F_002": "absent"},
    }  # fmt: skip
    assert (typed.patient(), typed.not_said) == ({"name": "A"}, ["F_003"])


# ---- hints ----


@pytest.mark.parametrize(
    ("typed", "code", "fix"),
    [
        ({"temperature_celsius": "101"}, "fahrenheit", {"temperature_celsius": "38.3"}),
        ({"temperature_celsius": "375"}, "point", {"temperature_celsius": "37.5"}),
        ({"spo2_percent": "104", "pulse_per_minute": "96"}, "swapped_spo2", {"spo2_percent": "96", "pulse_per_minute": "104"}),
        ({"spo2_percent": "104"}, "over_100", {}),
        ({"spo2_percent": "0"}, "probe", {}),
        ({"systolic_mmhg": "70", "diastolic_mmhg": "120"}, "swapped_pressure", {"systolic_mmhg": "120", "diastolic_mmhg": "70"}),
        ({"pulse_per_minute": "0"}, "no_pulse", {}),
        ({"glucose_mg_dl": "5.4"}, "millimoles", {"glucose_mg_dl": "97.3"}),
        ({"pulse_per_minute": "400"}, "pulse_per_minute>limit", {}),
        ({"pulse_per_minute": "200"}, "pulse_per_minute>usual", {}),
        ({"pain_score": "11"}, "pain_score>limit", {}),
        ({"respiratory_rate_per_minute": "many"}, "respiratory_rate_per_minute?", {}),
    ],
)
def test_what_is_mistyped_is_hinted_at(typed: dict[str, str], code: str, fix: dict[str, str]):
    """The likely mistake, and what would mend it; after mending there is nothing left to hint at."""
    [hint] = hints_for(read_form(typed), EN)
    assert (hint.code, hint.fix) == (code, fix)
    if fix:
        better = mended(read_form(typed), EN, f"fix:{code}")
        assert better is not None
        assert hints_for(better, EN) == []


def test_usual_values_are_not_asked_about():
    """A patient who is gravely ill by NEWS2 gets no hint: nobody shall learn to click them away."""
    ill = {
        "respiratory_rate_per_minute": "32",
        "spo2_percent": "84",
        "systolic_mmhg": "82",
        "diastolic_mmhg": "50",
        "pulse_per_minute": "140",
    }
    assert hints_for(read_form({**ill, "temperature_celsius": "39.8", "glucose_mg_dl": "320", "age": "81"}), EN) == []


def test_limits_are_those_of_a_case_and_rules_reach_the_script():
    """Every limit that a hint names is the one by which a value is set aside; every text is in the page's language."""
    limits = {rule["field"]: rule["limits"] for rule in hint_rules() if "limits" in rule}
    assert limits["temperature_celsius"] == list(field_limits(Vitals, "temperature_celsius")) == [24, 45]
    assert {rule["code"] for rule in rules_for_script(UR)} == {rule["code"] for rule in hint_rules()}
    assert all("%(" not in rule["text"] for rule in rules_for_script(EN))


# ---- the form ----


def test_the_form_end_to_end_without_a_script(service: Service):
    """Read, correct, answer, send with a photo, see the confirmation and the slip; the same form sent again is the same case."""
    form = {**blank(service), "complaint": "seenay mein dard, bukhar, xyzzy", "age": "58", "sex": "male", "systolic_mmhg": "110"}
    read = post(service, form, "check")
    assert read.status_code == 200
    fever = next(
        code
        for code in re.findall(r'name="read\.(F_\d+)"', read.text)
        if f'name="finding.{code}" value="present" checked' in read.text and "bukhar" in read.text.split(code)[0][-300:]
    )
    assert re.search(r"Not understood:.*xyzzy", read.text)
    assert (field(read.text, "number"), field(read.text, "key")) == (form["number"], form["key"])
    form |= {f"read.{fever}": "present", f"finding.{fever}": "absent", "photo1.itch": "yes", "photo1.body_site": "forearm"}
    photo = {"photo1.file": ("a.jpg", jpeg(), "image/jpeg")}
    sent = post(service, form, "send", files=photo)
    assert sent.status_code == 303
    before = count(service)
    assert post(service, form, "send", files=photo).headers["location"] == sent.headers["location"]
    assert count(service) == before
    full = stored_case(service, sent.headers["location"])
    assert (full["case"]["case_id"], full["case"]["findings"], len(full["photos"])) == (form["number"], {fever: "absent"}, 1)
    assert full["case"]["photos"] == [{"path": "a.jpg", "body_site": "forearm", "itch": True}]
    assert not list((service.parts.settings.data_dir / "uploads").glob("*/*"))
    page = service.client.get(sent.headers["location"], headers=service.token("clinic")).text
    assert form["number"] in page and "not there: fever" in page and "A doctor should see this case within" in page
    slip = service.client.get(sent.headers["location"].replace("/sent/", "/slip/"), headers=service.token("clinic")).text
    assert form["number"] in slip and "<svg" in slip and "dard" not in slip and "style=" not in slip


def test_a_question_is_asked_and_can_be_skipped(service: Service):
    """One at a time; what is not known is not asked again; an answer goes into the case."""
    form = {**blank(service), "complaint": "pait mein dard", "age": "30", "sex": "female"}
    first = post(service, form, "check").text
    asked = field(first, "skip")
    second = post(service, {**form, "skip": asked}, "check").text
    assert field(second, "skipped") == asked != field(second, "skip")
    assert first.count('name="skip"') == 1
    code = field(second, "skip")
    if code.startswith("F_"):
        form |= {f"finding.{code}": "absent"}
        third = post(service, form, "check").text
        assert f'name="finding.{code}" value="absent" checked' in third


def test_hints_stop_a_form_once_and_never_twice(service: Service):
    """A temperature in °F comes back with its conversion and all that was typed; sent again as it is, it becomes a review reason."""
    form = {**blank(service), "complaint": "bukhar", "temperature_celsius": "101", "name": "Gul", "district": "Umerkot"}
    first = post(service, form, "send")
    assert first.status_code == 422 and 'value="fix:fahrenheit"' in first.text
    assert all(f'value="{value}"' in first.text for value in ("101", "Gul", "Umerkot"))
    assert (
        field(post(service, form, "fix:fahrenheit").text, "temperature_celsius")
        if False
        else "38.3" in post(service, form, "fix:fahrenheit").text
    )
    second = post(service, {**form, "seen": field(first.text, "seen")}, "send")
    assert second.status_code == 303
    full = stored_case(service, second.headers["location"])
    assert any("vitals.temperature_celsius is 101.0" in why for why in full["assessment"]["review"]["why"])


def test_an_empty_form_is_asked_about_once(service: Service):
    """Then it goes, marked for a person: a case is never refused."""
    form = blank(service)
    first = post(service, form, "send")
    assert (first.status_code, "Nothing is entered" in first.text) == (422, True)
    assert post(service, {**form, "seen": field(first.text, "seen")}, "send").status_code == 303


def test_what_was_not_said_is_a_review_reason(service: Service):
    """The machine's misreading is told to the clinician, and lowers nothing."""
    form = {**blank(service), "complaint": "bukhar"}
    [code] = set(re.findall(r'name="read\.(F_\d+)"', post(service, form, "check").text))
    sent = post(service, {**form, f"read.{code}": "present", f"finding.{code}": "not_said"}, "send")
    why = stored_case(service, sent.headers["location"])["assessment"]["review"]["why"]
    assert f"the sender says that the complaint does not say {code}, which was read in it: read it" in why


def test_a_changed_form_that_was_sent_is_not_stored_twice(service: Service):
    """It comes back with what was typed, and with the way to add it to the case."""
    form = {**blank(service), "complaint": "bukhar"}
    id_ = post(service, form, "send").headers["location"].rpartition("/")[2]
    before = count(service)
    again = post(service, {**form, "complaint": "bukhar aur khansi"}, "send")
    assert again.status_code == 409 and f"/app/intake/more/{id_}" in again.text and "bukhar aur khansi" in again.text
    assert count(service) == before


def test_photos_are_kept_while_the_form_goes_back_and_forth(service: Service):
    """Read it with a photo, then send it without choosing the photo again; one that is no photo becomes a review reason."""
    form = {**blank(service), "complaint": "daana"}
    read = post(
        service,
        form,
        "check",
        files={"photo1.file": ("a b.jpg", jpeg(), "image/jpeg"), "photo2.file": ("c.txt", b"no photo", "image/jpeg")},
    )
    kept = {f"photo{n}.{part}": field(read.text, f"photo{n}.{part}") for n in (1, 2) for part in ("upload", "name")}
    sent = post(service, {**form, **kept}, "send")
    full = stored_case(service, sent.headers["location"])
    assert [one["name"] for one in full["photos"]] == ["a b.jpg"]
    assert any("photo not kept: c.txt" in why for why in full["assessment"]["review"]["why"])
    gone = post(service, {**blank(service), "complaint": "daana", **kept}, "send")
    assert (gone.status_code, "choose them again" in gone.text) == (409, True)


def test_a_photo_that_is_too_large_keeps_the_form(service: Service):
    """What was typed comes back, with what to do."""
    form = {**blank(service), "complaint": "daana"}
    answer = post(service, form, "send", files={"photo1.file": ("a.jpg", b"x" * (8 * 1024 * 1024 + 1), "image/jpeg")})
    assert answer.status_code == 422 and "send it smaller" in answer.text and ">daana</textarea>" in answer.text


def test_a_strangers_html_is_text(service: Service):
    """In the complaint, the name, the file name and the district; on the form, the confirmation and the case."""
    form = {**blank(service), "complaint": f"bukhar {HOSTILE}", "name": HOSTILE, "district": HOSTILE}
    name = 'a"><script>alert(2)</script>.jpg'
    read = post(service, form, "check", files={"photo1.file": (name, jpeg(), "image/jpeg")})
    assert "<script>alert" not in read.text and "<img src=x" not in read.text and "&lt;script&gt;" in read.text
    sent = post(service, form, "send", files={"photo1.file": (name, jpeg(), "image/jpeg")})
    for path in (
        sent.headers["location"],
        sent.headers["location"].replace("sent", "slip"),
        sent.headers["location"].replace("sent", "more"),
    ):
        page = service.client.get(path, headers=service.token("clinic")).text
        assert "<script>alert" not in page and "<img src=x" not in page


def test_the_form_speaks_urdu(service: Service):
    """Direction, questions, hints and the script's texts are the page's language."""
    page = service.client.get("/app/intake", headers={**service.token("clinic"), "Accept-Language": "ur"})
    assert (page.headers["content-language"], page.headers["nabz-shell"]) == ("ur", "1")
    assert '<html lang="ur" dir="rtl"' in page.text


# ---- what the script asks for ----


def test_reading_names_spans_and_the_next_question(service: Service):
    """Findings in both languages with their place in the words, what was not understood, and one question; nothing is stored."""
    before = count(service)
    body = {"case": {"complaint": "pait mein dard, xyzzy", "age_years": 30, "sex": "female", "patient": {"name": "A"}}, "skipped": []}
    said = api(service, "read", body).json()
    [pain] = said["findings"]
    start, end = pain["span"]
    assert (body["case"]["complaint"][start:end], pain["value"], pain["name_en"]) == ("pait mein dard", "present", "abdominal pain")
    assert said["not_understood"] == ["xyzzy"] and re.search("[\u0600-\u06ff]", pain["name_ur"])
    assert said["question"]["why"] and said["question"]["text_ur"]
    other = api(service, "read", {**body, "skipped": [said["question"]["code"]]}).json()
    assert other["question"] is None or other["question"]["code"] != said["question"]["code"]
    assert count(service) == before


@pytest.mark.parametrize(("body", "status"), [([], 400), ({}, 422), ({"case": []}, 422)])
def test_what_is_no_case_is_a_problem_document(service: Service, body: Any, status: int):
    for path in ("read", "send"):
        answer = api(service, path, body, str(uuid.uuid4()))
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_sending_is_idempotent_and_forgets_the_uploads(service: Service):
    """201 with number, level and wait; a repeat is the same referral, though its photos are not here any more."""
    number, key = new_case_number(), str(uuid.uuid4())
    photos = [{"upload": upload(service, jpeg()), "name": "a.jpg", "itch": True}]
    body = {"case": {"case_id": number, "complaint": "seenay mein dard", "age_years": 58}, "patient": {"name": "Gul"}, "photos": photos}
    first = api(service, "send", body, key)
    assert (first.status_code, first.json()["case_number"], first.json()["level_name"]) == (201, number, "emergency")
    assert first.json()["wait"] == "A doctor should see this case within 1 h."
    before = count(service)
    again = api(service, "send", body, key)
    assert (again.status_code, again.json()["id"], again.headers["idempotency-replayed"]) == (201, first.json()["id"], "true")
    late = api(service, "send", body, str(uuid.uuid4()))
    assert (late.status_code, late.json()["id"], count(service)) == (201, first.json()["id"], before)
    full = stored_case(service, first.json()["url"])
    assert (full["patient"], full["photos"][0]["name"]) == ({"name": "Gul"}, "a.jpg")
    assert (
        service.client.post("/app/worklist/find", data={"number": number.lower()}, headers=service.token("clinic"), follow_redirects=False)
        .headers["location"]
        .endswith(full["id"])
    )


def test_sending_says_which_photos_are_missing(service: Service):
    """Nothing is stored before they are here; a photo that the phone has lost does not keep the case from it."""
    whole, missing, foreign = upload(service, jpeg()), str(uuid.uuid4()), upload(service, jpeg(), "chachro")
    body = {
        "case": {"case_id": new_case_number(), "complaint": "daana"},
        "photos": [{"upload": one} for one in (whole, missing, foreign, "../x")],
    }
    before = count(service)
    answer = api(service, "send", body, str(uuid.uuid4()))
    assert (answer.status_code, count(service)) == (409, before)
    assert answer.json()["missing"] == [missing, foreign, "../x"]
    lost = {**body, "photos": [{"upload": whole}, {"upload": None}]}
    stored = api(service, "send", lost, str(uuid.uuid4()))
    assert stored.status_code == 201
    assert any("lost on the phone" in why for why in stored.json()["review"])


def test_sending_needs_a_key_and_the_one_who_took_it_down(service: Service):
    """Without a key a repeat would double; a draft of somebody else who was signed in is not sent as one's own."""
    body = {"case": {"complaint": "bukhar"}, "owner": "somebody else"}
    assert api(service, "send", {"case": {}}).status_code == 400
    assert api(service, "send", body, str(uuid.uuid4())).status_code == 409
    page = service.client.get("/app/intake", headers=service.token("clinic", "chachro")).text
    data = json.loads(re.search(r"data-script='([^']*)'", page)[1])  # type: ignore[index]
    mine = {"case": {"complaint": "bukhar"}, "owner": data["owner"]}
    assert api(service, "send", mine, str(uuid.uuid4()), "chachro").status_code == 201
    assert api(service, "send", mine, str(uuid.uuid4()), "mithi").status_code == 409


def test_whatever_is_wrong_with_a_field_the_case_is_stored(service: Service):
    """Each becomes a review reason."""
    case = {
        "case_id": new_case_number(),
        "complaint": 5,
        "age_years": "old",
        "vitals": {"spo2_percent": "x", "nonsense": 1},
        "findings": [],
        "photos": "x",
    }
    answer = api(
        service, "send", {"case": case, "patient": "x", "photos": ["x", {"upload": 5}], "not_said": ["F_001", "<b>", 5]}, str(uuid.uuid4())
    )
    assert answer.status_code == 201
    assert len(answer.json()["review"]) >= 5 and not any("<b>" in why for why in answer.json()["review"])


def test_the_script_is_told_every_number(service: Service):
    """The photo gate's thresholds, pregnancy's years and the alphabet stand in Python and come to the page as data."""
    page = service.client.get("/app/intake", headers=service.token("clinic")).text
    data = json.loads(re.search(r"data-script='([^']*)'", page)[1])  # type: ignore[index]
    assert data["gate"] == json.loads(json.dumps(gate_numbers()))
    assert (data["alphabet"], data["pregnancy"], data["photo"]["chunk"]) == (ALPHABET, list(PREGNANCY_YEARS), 32768)
    scripts = "".join(path.read_text(encoding="utf-8") for path in Path("inference/service/web/static").glob("intake*.js"))
    assert set(re.findall(r"texts\.(\w+)", scripts)) <= data["texts"].keys()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", scripts)


def test_body_sites_are_the_lesion_models_words(service: Service):
    model = service.parts.scorer.models.lesions
    assert model is not None
    words = model._bundle.contract.vocabulary["body_site"]["words"]
    assert {site for site in BODY_SITES if site not in words} == set()


# ---- offline ----


def test_the_worker_keeps_files_that_exist(service: Service):
    """Open to anybody, asked for anew each time, allowed to fetch from here alone; every file that it keeps can be had."""
    worker = service.client.get("/app/sw.js")
    assert (worker.status_code, worker.headers["cache-control"]) == (200, "no-cache")
    assert worker.headers["content-security-policy"] == "default-src 'none'; script-src 'self'; connect-src 'self'"
    shell = json.loads(re.match(r"const SHELL = (\{.*?\});\n", worker.text)[1])  # type: ignore[index]
    assert all(service.client.get(file).status_code == 200 for file in shell["files"])
    page = service.client.get("/app/intake", headers=service.token("clinic")).text
    wanted = set(re.findall(r'(?:src|href)="(/app/static/[^"]+)"', page))
    assert wanted == set(shell["files"])
    manifest = service.client.get("/app/manifest.webmanifest", headers={"Accept-Language": "ur"}).json()
    assert (manifest["start_url"], manifest["scope"], manifest["dir"]) == ("/app/intake", "/app/", "rtl")


def test_only_the_empty_form_may_be_kept(service: Service):
    """No other page and no answer says of itself that the worker may keep it."""
    form = {**blank(service), "complaint": "bukhar"}
    sent = post(service, form, "send")
    answers = [
        post(service, form, "check"),
        *(
            service.client.get(sent.headers["location"].replace("sent", part), headers=service.token("clinic"))
            for part in ("sent", "slip", "more")
        ),
    ]
    assert all("nabz-shell" not in answer.headers and answer.headers["cache-control"] == "no-store" for answer in answers)


# ---- news, access, privacy ----


def test_news_raise_a_level_and_say_so(service: Service):
    """Words, a vital and a photo are added; the confirmation shows the step."""
    sent = post(service, {**blank(service), "complaint": "khansi", "age": "30", "sex": "male", "spo2_percent": "97"}, "send").headers[
        "location"
    ]
    path = sent.replace("/sent/", "/more/")
    form = service.client.get(path, headers=service.token("clinic"))
    assert form.status_code == 200 and "khansi" not in form.text
    new = {"key": field(form.text, "key"), "complaint": "saans nahi aa rahi", "spo2_percent": "82", "consciousness": "V", "action": "send"}
    files = {"photo1.file": ("a.jpg", jpeg(), "image/jpeg")}
    answer = service.client.post(path, data=new, files=files, headers=service.token("clinic"), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{sent}?said=more")
    page = service.client.get(answer.headers["location"], headers=service.token("clinic")).text
    assert "What has changed" in page and "→" in page
    assert len(stored_case(service, sent)["photos"]) == 1


def test_news_of_nothing_or_mistyped_come_back(service: Service):
    sent = post(service, {**blank(service), "complaint": "khansi"}, "send").headers["location"]
    path, headers = sent.replace("/sent/", "/more/"), service.token("clinic")
    nothing = service.client.post(path, data={"action": "send"}, headers=headers)
    assert (nothing.status_code, "Nothing new is entered" in nothing.text) == (422, True)
    typed = service.client.post(path, data={"action": "send", "temperature_celsius": "101"}, headers=headers)
    assert (typed.status_code, 'value="101"' in typed.text) == (422, True)
    better = service.client.post(path, data={"action": "fix:fahrenheit", "temperature_celsius": "101"}, headers=headers)
    assert (better.status_code, 'value="38.3"' in better.text) == (200, True)


@pytest.mark.parametrize("part", ["sent", "slip", "more"])
def test_a_foreign_case_looks_like_a_missing_one(service: Service, part: str):
    sent = post(service, {**blank(service), "complaint": "khansi"}, "send").headers["location"]
    foreign, missing = sent.replace("sent", part), f"/app/intake/{part}/r-{'0' * 32}"
    headers = service.token("clinic", "foreign")
    assert [service.client.get(path, headers=headers).status_code for path in (foreign, missing, f"/app/intake/{part}/x")] == [404] * 3
    if part == "more":
        assert service.client.post(foreign, data={"complaint": "x", "action": "send"}, headers=headers).status_code == 404


@pytest.mark.parametrize("role", ["clinician", "data_scientist", "admin"])
def test_other_roles_take_no_cases_down(service: Service, role: str):
    sent = post(service, {**blank(service), "complaint": "khansi"}, "send").headers["location"]
    headers = service.token(role)
    gets = ["/app/intake", *(sent.replace("sent", part) for part in ("sent", "slip", "more"))]
    assert [service.client.get(path, headers=headers).status_code for path in gets] == [403] * 4
    posts = [("/app/intake", {"data": {}}), (sent.replace("sent", "more"), {"data": {}})]
    posts += [(f"/app/api/intake/{path}", {"json": {"case": {}}}) for path in ("read", "send")]
    assert [service.client.post(path, headers=headers, **body).status_code for path, body in posts] == [403] * 4


def test_another_sites_form_is_refused(service: Service):
    """With the session in a cookie, a case cannot be sent from elsewhere."""
    token = service.token("clinic")["Authorization"].removeprefix("Bearer ")
    given = {"Cookie": f"nabz_session={token}", "Origin": "https://elsewhere.example"}
    before = count(service)
    for path in ("/app/intake", "/app/api/intake/send"):
        assert service.client.post(path, data={"complaint": "x", "action": "send"}, headers=given).status_code == 403
    assert count(service) == before


def test_nothing_of_the_patient_is_logged_or_in_the_clear(service: Service, lines: list[str]):
    """Through the form, the script's requests, uploads and failures: not in logs, not in addresses, not on the disk."""
    form = {**blank(service), **PLANTED}
    post(service, form, "check")
    sent = post(service, form, "send", files={"photo1.file": (f"{PLANTED['name']}.jpg", jpeg(), "image/jpeg")})
    case = {"case_id": new_case_number(), "complaint": PLANTED["complaint"]}
    api(service, "read", {"case": case})
    api(
        service,
        "send",
        {"case": case, "patient": PLANTED, "photos": [{"upload": str(uuid.uuid4()), "name": PLANTED["name"]}]},
        str(uuid.uuid4()),
    )
    api(service, "send", {"case": PLANTED["complaint"]}, str(uuid.uuid4()))
    kept = upload(service, PLANTED["complaint"].encode() * 100)
    assert sent.status_code == 303 and kept
    folder = service.parts.settings.data_dir.parent
    disk = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for planted in PLANTED.values():
        assert planted not in "\n".join(lines) and planted not in sent.headers["location"]
        assert planted.encode() not in disk
