"""The whole way of a referral through HTTP, on the real service: sent, ranked, stored, read, changed, closed, erased."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from service_app import CASE, MILD, Service, running_service
from sqlalchemy import func, select

from inference.service.tables import metadata

PHOTO = Path(__file__).parent.parent / "data/sample/photos/mole.jpg"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for this file; each test has clinics of its own."""
    with running_service(tmp_path_factory.mktemp("api")) as running:
        yield running


def read(service: Service, id_: str) -> dict[str, Any]:
    """A referral as a clinician sees it."""
    return dict(service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinician")).json())


def rows(service: Service) -> dict[str, int]:
    """How many rows each table has."""

    def count(unit: Any) -> dict[str, int]:
        return {
            name: unit.connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in metadata.tables.items()
        }

    return service.parts.database.run_now(count)


def audited(service: Service, id_: str | None = None) -> list[str]:
    """The actions of a referral's audit rows."""
    query = {"referral": id_} if id_ else {}
    return [row["action"] for row in service.client.get("/v1/audit", params=query, headers=service.token("admin")).json()]


def upload(service: Service, case: dict[str, Any], files: list[tuple[str, bytes]], clinic: str = "photos") -> Any:
    """Send a case with photos as a form."""
    parts = [("photos", (name, content, "image/jpeg")) for name, content in files]
    return service.client.post("/v1/referrals", data={"case": json.dumps(case)}, files=parts, headers=service.token("clinic", clinic))


def photo_with_place() -> bytes:
    """A JPEG that says where it was taken."""
    image, content = Image.open(PHOTO).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "PlantedCamera"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (24.0, 44.0, 0.0), ExifTags.GPS.GPSMapDatum: "PlantedPlace"}
    )
    image.save(content, "JPEG", exif=exif)
    assert b"PlantedPlace" in content.getvalue()
    return content.getvalue()


@pytest.mark.parametrize(
    ("complaint", "finding"),
    [
        ("chest pain and sweating since this morning", "F_078"),
        ("سینے میں درد ہے، پسینہ آ رہا ہے", "F_078"),
        ("seenay mein dard, paseena", "F_078"),
    ],
)
def test_a_case_in_each_language_is_stored_and_assessed(service: Service, complaint: str, finding: str):
    """English, Urdu and Roman Urdu: 201 with Location and the assessment; the case is there when it is read."""
    answer = service.client.post("/v1/referrals", json={**CASE, "complaint": complaint}, headers=service.token("clinic"))
    sent = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/referrals/{sent['id']}"
    assert (sent["state"], sent["level"], sent["clinic"], sent["scored_by"]) == ("waiting", 2, "mithi", "models and rules")
    assert sent["assessment"]["findings"][finding] == "present"
    stored = read(service, sent["id"])
    assert stored["case"]["complaint"] == complaint
    assert stored["assessment"] == sent["assessment"]


def test_what_cannot_be_read_is_set_aside_and_the_case_is_stored(service: Service):
    """Fields that cannot be right become review reasons; so does a field of another name."""
    case = {"age_years": "old", "sex": 7, "complaint": "bukhar", "vitals": {"spo2_percent": 900}, "urgent": True, "patient": "Ali"}
    sent = service.send(case)
    why = " ".join(sent["assessment"]["review"]["why"])
    assert sent["needs_review"]
    assert all(name in why for name in ("age_years", "sex", "spo2_percent", "urgent", "patient: not an object"))
    assert "Ali" not in json.dumps(sent)
    assert read(service, sent["id"])["case"]["complaint"] == "bukhar"


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"{", b"", b'{"a":1}x', b"\xff{}", b'{"complaint":"\\ud800"}'])
def test_a_body_that_is_no_object_is_refused_with_a_problem(service: Service, body: bytes):
    """400 as application/problem+json, and nothing is stored."""
    before = rows(service)
    headers = {**service.token("clinic"), "Content-Type": "application/json"}
    answer = service.client.post("/v1/referrals", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["type"] == "urn:problem-type:nabz:malformed"
    assert rows(service) == before


def test_a_batch_is_stored_in_its_order(service: Service):
    """All cases of a list; one that is no object is queued for review too."""
    headers = service.token("clinic", "batch")
    answer = service.client.post("/v1/referrals:batch", json=[CASE, "not a case", MILD], headers=headers)
    first, broken, last = answer.json()["referrals"]
    assert answer.status_code == 201
    assert (first["level"], last["assessment"]["scored_by"]) == (2, "models and rules")
    assert broken["needs_review"] and "unreadable" in broken["assessment"]["review"]["why"][0]
    listed = service.client.get("/v1/worklist", headers=headers).json()["items"]
    assert {row["id"] for row in listed} == {first["id"], broken["id"], last["id"]}


@pytest.mark.parametrize("body", [[], {}, "text", [{}] * 501])
def test_a_batch_that_is_no_list_of_cases_is_refused(service: Service, body: Any):
    """1 to 500 cases."""
    answer = service.client.post("/v1/referrals:batch", json=body, headers=service.token("clinic"))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "the body is not a list of 1 to 500 cases: split a longer one"


@pytest.mark.parametrize("route", ["/v1/referrals", "/v1/referrals:batch"])
def test_an_idempotency_key_gives_the_first_answer_again(service: Service, route: str):
    """The same key and body: the same referral, marked as a replay. Another body: 422. Another caller's key is another key."""
    body: Any = [CASE] if route.endswith("batch") else CASE
    headers = {**service.token("clinic", "twice"), "Idempotency-Key": f"key-{route}"}
    first = service.client.post(route, json=body, headers=headers)
    before = rows(service)["referrals"]
    again = service.client.post(route, json=body, headers=headers)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert "idempotency-replayed" not in first.headers
    assert again.json() == first.json()
    other = service.client.post(route, json=[MILD] if route.endswith("batch") else MILD, headers=headers)
    assert (other.status_code, rows(service)["referrals"]) == (422, before)
    assert other.json()["detail"] == "this Idempotency-Key was used for another request: use a new key for a new case"
    elsewhere = service.client.post(route, json=body, headers={**headers, **service.token("clinic", "elsewhere")})
    assert elsewhere.status_code == 201 and "idempotency-replayed" not in elsewhere.headers


@pytest.mark.parametrize("key", ["", "x" * 201, "\x01", "two words"])
def test_a_key_that_cannot_be_one_is_refused(service: Service, key: str):
    """Nothing is stored under a key that could not be found again."""
    answer = service.client.post("/v1/referrals", json=CASE, headers={**service.token("clinic"), "Idempotency-Key": key})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Idempotency-Key: expected 1 to 200 visible ASCII characters")


def test_keys_and_referrals_outlive_a_restart(tmp_path: Path):
    """A service that starts again on the same database replays the answer and has the case."""
    with running_service(tmp_path) as first:
        sent = first.send(**{"Idempotency-Key": "k"})
    with running_service(tmp_path) as second:
        answer = second.client.post("/v1/referrals", json=CASE, headers={**second.token("clinic", "mithi"), "Idempotency-Key": "k"})
        assert (answer.json(), answer.headers["idempotency-replayed"]) == (sent, "true")
        assert read(second, sent["id"])["case"]["complaint"] == CASE["complaint"]
        assert rows(second)["referrals"] == 1


def test_photos_are_stored_without_what_they_say_about_place_and_camera(service: Service):
    """A JPEG with GPS is scored, kept and served; the served one has no metadata."""
    answer = upload(service, {"age_years": 40, "sex": "female", "complaint": "skin spot that grows"}, [("spot.jpg", photo_with_place())])
    sent = answer.json()
    assert (answer.status_code, sent["assessment"]["lesion"]["photo"]) == (201, "spot.jpg")
    (photo,) = read(service, sent["id"])["photos"]
    served = service.client.get(f"/v1/referrals/{sent['id']}/photos/{photo['sha256']}", headers=service.token("clinic", "photos"))
    assert (served.status_code, served.headers["content-type"], photo["name"]) == (200, "image/jpeg", "spot.jpg")
    assert b"Planted" not in served.content
    with Image.open(io.BytesIO(served.content)) as image:
        assert (image.size, dict(image.getexif())) == ((800, 600), {})


def test_a_broken_photo_does_not_lose_the_case(service: Service):
    """The case is stored with a review reason, and the good photo with it."""
    sent = upload(service, MILD, [("broken.jpg", b"\xff\xd8 no photo"), ("good.jpg", photo_with_place())]).json()
    assert any(why.startswith("photo not kept: broken.jpg") for why in sent["assessment"]["review"]["why"])
    assert [photo["name"] for photo in read(service, sent["id"])["photos"]] == ["good.jpg"]


def test_more_photos_than_are_kept(service: Service):
    """The first eight are kept and a reason says so; a form with more files than it may have is refused whole."""
    photo = photo_with_place()
    sent = upload(service, MILD, [(f"{place}.jpg", photo) for place in range(9)]).json()
    assert "no more than 8 photos of a referral are kept: send the others with another one" in sent["assessment"]["review"]["why"]
    assert len(read(service, sent["id"])["photos"]) == 8
    before = rows(service)
    refused = upload(service, MILD, [(f"{place}.jpg", b"x") for place in range(17)])
    assert (refused.status_code, rows(service)) == (400, before)


@pytest.mark.parametrize("fields", [{}, {"case": "["}, {"case": "{}", "other": "1"}])
def test_a_form_that_is_not_as_described_is_refused(service: Service, fields: dict[str, str]):
    """A form needs the part `case`, an object as JSON, and files beside it."""
    files = [("photos", ("a.jpg", b"x", "image/jpeg"))]
    answer = service.client.post("/v1/referrals", data=fields, files=files, headers=service.token("clinic"))
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_assess_and_ask_store_nothing(service: Service):
    """Both answer, also for what cannot be read, and no table has a row more."""
    before = rows(service)
    case = {**CASE, "patient": {"name": "نمونہ"}, "sex": 7}
    assessed = service.client.post("/v1/assess", json=case, headers=service.token("data_scientist")).json()
    asked = service.client.post("/v1/ask", params={"count": 2}, json=MILD, headers=service.token("clinic")).json()
    assert (assessed["level"], assessed["review"]["needed"]) == (2, True)
    assert "نمونہ" not in json.dumps(assessed, ensure_ascii=False)
    assert 1 <= len(asked["questions"]) <= 2
    assert rows(service) == before


def test_the_worklist_filters_by_each_of_its_filters(service: Service):
    """Level, specialty, district, clinic and state; an unknown value is refused, not ignored."""
    urgent, mild = service.send(clinic="filters"), service.send(MILD, clinic="filters")
    held = service.send(clinic="filters")
    assert service.act(held["id"], "claim", clinician="filters").status_code == 200

    def ids(**filters: Any) -> list[str]:
        params = {"clinic": "filters", **filters}
        answer = service.client.get("/v1/worklist", params=params, headers=service.token("clinician"))
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["items"]]

    assert ids() == [*sorted([urgent["id"], held["id"]]), mild["id"]]
    assert ids(level=mild["level"]) == [mild["id"]]
    assert set(ids(district="THARPARKAR")) == {urgent["id"], held["id"]}
    assert set(ids(specialty=urgent["specialty"])) == {urgent["id"], held["id"]}
    assert (ids(state="claimed"), ids(state="completed")) == ([held["id"]], [])
    assert set(ids(state="waiting")) == {urgent["id"], mild["id"]}
    service.act(held["id"], "complete", {"outcome": "advised"}, clinician="filters")
    assert ids(state="completed") == [held["id"]]
    for wrong in ({"level": "9"}, {"state": "gone"}, {"limit": "0"}, {"limit": "201"}):
        assert service.client.get("/v1/worklist", params=wrong, headers=service.token("clinician")).status_code == 422


def test_pages_show_every_case_once_in_order(service: Service):
    """Following `next` gives the same list as one large page; a cursor of another list is refused."""
    headers = service.token("clinic", "pages")
    service.client.post("/v1/referrals:batch", json=[CASE, MILD, CASE, MILD, CASE], headers=headers)
    whole = [row["id"] for row in service.client.get("/v1/worklist", headers=headers).json()["items"]]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = service.client.get("/v1/worklist", params={"limit": 2, **({"cursor": cursor} if cursor else {})}, headers=headers).json()
        seen, cursor, before = [*seen, *(row["id"] for row in page["items"])], page["next"], cursor
    assert (seen, cursor, len(whole)) == (whole, None, 5)
    other = service.client.get("/v1/worklist", params={"limit": 2, "cursor": before, "level": 1}, headers=headers)
    assert other.status_code == 400
    assert other.json()["detail"].startswith("the cursor is not one of this list with these filters")


def test_a_list_that_has_not_changed_is_not_sent_again(service: Service):
    """The ETag holds until a case of the list changes."""
    headers = service.token("clinic", "etag")
    sent = service.send(clinic="etag")
    etag = service.client.get("/v1/worklist", headers=headers).headers["etag"]
    unchanged = service.client.get("/v1/worklist", headers={**headers, "If-None-Match": f'"other", W/{etag}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    service.act(sent["id"], "note", {"text": "called"})
    assert service.client.get("/v1/worklist", headers={**headers, "If-None-Match": etag}).status_code == 200


def test_two_clinicians_and_one_case(service: Service):
    """One holds it; the other is told so and may only leave a note. After release the other may take and complete it."""
    id_ = service.send(clinic="two")["id"]
    claimed = service.act(id_, "claim", clinician="a").json()
    assert (claimed["state"], claimed["holder"]) == ("claimed", "clinician-a")
    held = "another clinician holds this case: "
    mine = "you do not hold this case, or your lease has ended: claim it first"
    assert service.act(id_, "claim", clinician="b").json()["detail"] == f"{held}take the next one, or wait until its lease ends"
    changed = service.act(id_, "override", {"level": 1, "reason": "x"}, clinician="b")
    assert (changed.status_code, changed.json()["detail"]) == (409, f"{held}leave a note, or ask them to release it")
    for action, body in (("release", None), ("complete", {"outcome": "advised"})):
        answer = service.act(id_, action, body, clinician="b")
        assert (answer.status_code, answer.json()["detail"]) == (409, mine)
    assert service.act(id_, "note", {"text": "seen"}, clinician="b").status_code == 200
    assert service.act(id_, "release", clinician="a").json()["state"] == "waiting"
    assert service.act(id_, "claim", clinician="b").status_code == 200
    done = service.act(id_, "complete", {"outcome": "referred", "final_level": 2}, clinician="b").json()
    assert (done["state"], done["holder"]) == ("completed", None)
    for action, body in (("claim", None), ("override", {"level": 1, "reason": "x"}), ("complete", {"outcome": "advised"})):
        answer = service.act(id_, action, body, clinician="b")
        assert answer.status_code == 409
        assert answer.json()["detail"].startswith("the case is completed")


def test_a_lease_that_ends_returns_the_case(service: Service):
    """After the policy's half hour another clinician may claim it, and the first may not complete it any more."""
    id_ = service.send(clinic="lease")["id"]
    service.act(id_, "claim", clinician="slow")
    service.clock.ahead = timedelta(minutes=31)
    try:
        assert service.act(id_, "complete", {"outcome": "advised"}, clinician="slow").status_code == 409
        assert service.act(id_, "claim", clinician="quick").json()["holder"] == "clinician-quick"
    finally:
        service.clock.ahead = timedelta()


def test_claim_next_takes_the_most_urgent_case(service: Service):
    """Then the next one, then none; no more than the policy's capacity are held at a time."""
    first = {**MILD, "district": "Umerkot"}
    mild = service.send(first, clinic="next")
    urgent = service.send({**CASE, "district": "Umerkot"}, clinic="next")

    def take() -> Any:
        return service.client.post("/v1/worklist:claim-next", params={"district": "umerkot"}, headers=service.token("clinician", "next"))

    assert [take().json()["referral"]["id"] for _ in range(2)] == [urgent["id"], mild["id"]]
    assert take().json() == {"referral": None}
    for _ in range(3):
        assert service.act(service.send(clinic="next")["id"], "claim", clinician="next").status_code == 200
    full = service.act(service.send(clinic="next")["id"], "claim", clinician="next")
    assert full.status_code == 409
    assert full.json()["detail"].startswith("you hold 5 cases already, which is the most that the policy allows")


def test_new_findings_raise_a_case_and_say_why_and_never_lower_it(service: Service):
    """Worse vitals raise the level and name what changed; better ones leave it, and say that only a clinician lowers it."""
    sent = service.send(MILD, clinic="findings")
    route, headers = f"/v1/referrals/{sent['id']}/findings", service.token("clinic", "findings")
    worse = service.client.post(route, json={"vitals": {"spo2_percent": 82}, "complaint": "saans phool rahi hai"}, headers=headers).json()
    assert worse["level"] < sent["level"]
    assert worse["changes"]["level"] == {"before": sent["level"], "after": worse["level"]}
    assert worse["changes"]["why"] and worse["version"] == 2
    better = service.client.post(route, json={"vitals": {"spo2_percent": 99}}, headers=headers).json()
    assert better["level"] == worse["level"]
    if better["machine_level"] > better["level"]:
        assert "which only a clinician can lower" in better["changes"]["kept"]
    case = read(service, sent["id"])["case"]
    assert case["complaint"] == f"{MILD['complaint']}\nsaans phool rahi hai"
    assert case["vitals"]["spo2_percent"] == 99


def test_the_history_has_all_that_happened(service: Service):
    """Every assessment and every event, with reasons, both levels and who did it."""
    sent = service.send(MILD, clinic="history")
    id_ = sent["id"]
    form = {"case": json.dumps({"findings": {"F_078": "present"}})}
    photo = [("photos", ("new.jpg", photo_with_place(), "image/jpeg"))]
    service.client.post(f"/v1/referrals/{id_}/findings", data=form, files=photo, headers=service.token("clinic", "history"))
    service.act(id_, "claim", clinician="h")
    service.act(id_, "override", {"level": 2, "reason": "looks worse than it reads"}, clinician="h")
    service.act(id_, "note", {"text": "called the clinic"}, clinician="h")
    service.act(id_, "complete", {"outcome": "referred", "note": "sent on"}, clinician="h")
    full = read(service, id_)
    assert [one["version"] for one in full["assessments"]] == [1, 2]
    assert [one["name"] for one in full["photos"]] == ["new.jpg"]
    history = full["history"]
    assert [one["kind"] for one in history] == ["created", "reassessed", "claimed", "overridden", "noted", "completed"]
    assert (history[0]["actor"], history[3]["actor"]) == ("clinic-history", "clinician-h")
    assert (history[3]["level_before"], history[3]["level"], history[3]["reason"]) == (history[2]["level"], 2, "looks worse than it reads")
    assert (history[4]["text"], history[5]["note"], full["override_level"]) == ("called the clinic", "sent on", 2)
    assert audited(service, id_) == [*(one["kind"] for one in history), "read"]


def test_erasure_takes_the_content_and_leaves_the_row(service: Service):
    """Only a completed case can be erased; then words, identity, photos and reasons are gone, for good, and the audit trail stays."""
    case = {**CASE, "patient": {"name": "نمونہ مریض"}}
    sent = upload(service, case, [("own.jpg", photo_with_place())], "erase").json()
    id_ = sent["id"]
    assert read(service, id_)["patient"] == {"name": "نمونہ مریض"}
    (photo,) = read(service, id_)["photos"]
    erase = {"url": f"/v1/referrals/{id_}/erase", "headers": service.token("admin")}
    early = service.client.post(**erase)
    assert (early.status_code, early.json()["detail"]) == (409, "the referral is still open: it can be erased once it is completed")
    service.act(id_, "claim")
    service.act(id_, "complete", {"outcome": "advised", "note": "words"})
    assert service.client.post(**erase).status_code == 204
    left = read(service, id_)
    assert (left["patient"], left["case"], left["photos"], left["assessment"], left["assessments"]) == (None, None, [], None, [])
    assert "words" not in json.dumps(left)
    assert left["level"] == sent["level"]
    gone = service.client.get(f"/v1/referrals/{id_}/photos/{photo['sha256']}", headers=service.token("clinician"))
    assert gone.status_code == 404
    assert "erased" in audited(service, id_) and "photo_read" not in audited(service, id_)
    later = service.client.post(f"/v1/referrals/{id_}/findings", json={"complaint": "x"}, headers=service.token("clinic", "erase"))
    assert later.status_code == 409


def test_nobody_can_delete_a_referral(service: Service):
    """There is no such method for any role."""
    id_ = service.send()["id"]
    for role in ("clinic", "clinician", "data_scientist", "admin"):
        answer = service.client.delete(f"/v1/referrals/{id_}", headers=service.token(role))
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_webhooks_are_added_listed_and_removed(service: Service):
    """The secret is shown once; an address that would send in the clear is refused."""
    admin = service.token("admin")
    added = service.client.post("/v1/webhooks", json={"url": "https://hospital.example/nabz"}, headers=admin)
    assert added.status_code == 201 and added.json()["secret"].startswith("whsec_")
    (listed,) = service.client.get("/v1/webhooks", headers=admin).json()
    assert (listed["url"], "secret" in listed) == ("https://hospital.example/nabz", False)
    refused = service.client.post("/v1/webhooks", json={"url": "http://hospital.example/nabz"}, headers=admin)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/url")
    route = f"/v1/webhooks/{added.json()['id']}"
    assert [service.client.delete(route, headers=admin).status_code for _ in range(2)] == [204, 404]
    assert {"webhook_added", "webhook_removed"} <= set(audited(service))


def test_reload_names_what_is_live(service: Service):
    """All three bundles, and no problem."""
    answer = service.client.post("/v1/models:reload", headers=service.token("admin")).json()
    assert (set(answer["bundles"]), answer["problems"]) == ({"symptoms", "acuity", "lesions"}, [])
    assert "models_reloaded" in audited(service)


def test_every_read_is_in_the_audit_trail(service: Service):
    """Lists and photos too, with who read what; following `after` gives the rest."""
    sent = upload(service, MILD, [("a.jpg", photo_with_place())], "audit").json()
    read(service, sent["id"])
    headers = service.token("clinic", "audit")
    (photo,) = service.client.get(f"/v1/referrals/{sent['id']}", headers=headers).json()["photos"]
    service.client.get(f"/v1/referrals/{sent['id']}/photos/{photo['sha256']}", headers=headers)
    service.client.get("/v1/worklist", headers=headers)
    service.act(sent["id"], "note", {"text": "x"})  # a list's row is written with the next change, or half a second later
    admin = service.token("admin")
    trail = service.client.get("/v1/audit", params={"referral": sent["id"]}, headers=admin).json()
    assert [(row["action"], row["actor"]) for row in trail] == [
        ("created", "clinic-audit"),
        ("read", "clinician-1"),
        ("read", "clinic-audit"),
        ("photo_read", "clinic-audit"),
        ("noted", "clinician-1"),
    ]
    rest = service.client.get("/v1/audit", params={"after": trail[3]["sequence"]}, headers=admin).json()
    assert [row["detail"]["referrals"] for row in rest if row["action"] == "listed"] == [[sent["id"]]]


def test_health_and_metrics(service: Service):
    """Alive and ready; the metrics that the issue lists are there, with values."""
    assert service.client.get("/health/live").json() == {"status": "alive"}
    ready = service.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"], set(ready.json()["bundles"])) == (200, "ready", {"symptoms", "acuity", "lesions"})
    id_ = service.send(clinic="metrics")["id"]
    service.act(id_, "claim", clinician="metrics")
    service.act(id_, "override", {"level": 1, "reason": "x"}, clinician="metrics")
    metrics = service.client.get("/metrics", headers=service.token("data_scientist")).text
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in metrics.splitlines() if not line.startswith("#")}
    for name in (
        'nabz_queue_referrals{level="2",state="waiting"}',
        'nabz_queue_oldest_seconds{level="2"}',
        'nabz_queue_past_cap_referrals{level="2"}',
        'nabz_model_seconds_count{task="symptoms"}',
        'nabz_review_reasons_total{kind="field_set_aside"}',
        "nabz_outbox_lag_events",
        "nabz_degraded",
    ):
        assert name in values
    for name in (
        'nabz_wait_cap_ratio_count{level="2"}',
        'nabz_overrides_total{direction="more_urgent"}',
        'nabz_http_requests_total{method="POST",route="/v1/referrals",status="201"}',
        'nabz_assessments_total{scored_by="models and rules"}',
    ):
        assert values[name] > 0


def test_a_case_outlives_models_that_raise(service: Service, monkeypatch: pytest.MonkeyPatch):
    """The rules rank it, it is stored with a review reason, and the service calls itself degraded until the models work again."""

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    for watched in service.parts.scorer._live.watched.values():
        monkeypatch.setattr(watched._model, "score", fail, raising=False)
        monkeypatch.setattr(watched._model, "score_cases", fail, raising=False)
    sent = service.send(clinic="broken")
    assert (sent["level"], sent["scored_by"], sent["needs_review"]) == (2, "rules alone", True)
    assert any("model failed on this case" in why for why in sent["assessment"]["review"]["why"])
    assert service.client.get("/health/ready").json()["status"] == "degraded"
    monkeypatch.undo()
    assert service.send(clinic="broken")["scored_by"] == "models and rules"
    assert service.client.get("/health/ready").json()["status"] == "ready"


def test_a_case_outlives_rules_that_raise(service: Service, monkeypatch: pytest.MonkeyPatch):
    """When nothing at all can rank it, it is queued where a person must look soon."""

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    live = service.parts.scorer._live
    for triage in (live.triage, live.without_photos, live.bare):
        for name in ("assess", "assess_each", "by_rules"):
            monkeypatch.setattr(triage, name, fail)
    sent = service.send(clinic="broken")
    assert (sent["level"], sent["scored_by"], sent["needs_review"]) == (3, "nothing", True)
    assert "planted" not in json.dumps(sent)
    assert read(service, sent["id"])["case"]["complaint"] == CASE["complaint"]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"])
def test_a_clock_that_is_far_wrong_neither_hides_a_case_nor_puts_it_first(service, moment):
    """The time of arrival here counts instead, the case says so, and the worklist stays readable."""
    sent = service.send({**MILD, "received_at": moment})
    assert any("the time of arrival here was used" in why for why in sent["assessment"]["review"]["why"])
    assert not sent["past_cap"]
    assert service.client.get("/v1/worklist", headers=service.token("clinician")).status_code == 200


def test_a_district_that_is_sent_later_is_one_to_filter_by(service):
    """New findings move the case into its district's list."""
    sent = service.send({**MILD, "district": None})
    add(service, sent["id"], {"district": "Thatta"})
    listed = service.client.get("/v1/worklist?district=thatta", headers=service.token("clinician")).json()["items"]
    assert sent["id"] in [one["id"] for one in listed]


def test_two_photos_of_one_name_are_two_photos(service):
    """Phones call every photo alike: the second one does not take the first one's place."""
    sent = upload(service, MILD, [("image.jpg", photo_with_place())], "mithi").json()
    other = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 60, 50)).save(other, "JPEG")
    headers = service.token("clinic", "mithi")
    files = [("case", (None, "{}")), ("photos", ("image.jpg", other.getvalue(), "image/jpeg"))]
    answer = service.client.post(f"/v1/referrals/{sent['id']}/findings", files=files, headers=headers)
    assert answer.status_code == 200, answer.text
    kept = service.client.get(f"/v1/referrals/{sent['id']}", headers=headers).json()["photos"]
    assert [one["name"] for one in kept] == ["image.jpg", "2-image.jpg"]
    assert len({one["sha256"] for one in kept}) == 2


def test_a_photo_that_was_lost_does_not_keep_a_worse_vital_from_counting(service):
    """The level rises, and the case says which photo to ask for again."""
    sent = upload(service, MILD, [("image.jpg", photo_with_place())], "mithi").json()
    for stored in service.parts.settings.photos.rglob("*.sealed"):
        stored.unlink()
    answer = add(service, sent["id"], {"vitals": {"spo2_percent": 70, "respiratory_rate_per_minute": 40}})
    assert answer["level"] < sent["level"]
    assert "an earlier photo cannot be read from the store: ask for it again" in answer["assessment"]["review"]["why"]


def test_what_is_worse_raises_a_clinicians_level_again(service):
    """Also when the machine's level was as urgent as can be before: a new red flag counts, and says so."""
    sent = service.send({**MILD, "vitals": {"consciousness": "U"}})
    assert sent["level"] == 1
    assert service.act(sent["id"], "override", {"level": 5, "reason": "asleep"}).json()["level"] == 5
    same = add(service, sent["id"], {"complaint": "aur khansi bhi hai"})
    assert (same["level"], same["changes"]["kept"]) == (5, "the assessment is level 1; a clinician's level 5 stands")
    worse = add(service, sent["id"], {"vitals": {"systolic_mmhg": 50, "spo2_percent": 60, "pulse_per_minute": 180}})
    assert worse["level"] == 1
    assert worse["needs_review"]


def test_a_priority_that_is_no_priority_leaves_the_earlier_one(service):
    """The referrer's word stays, and what was sent is named."""
    sent = service.send({**MILD, "priority": "stat"})
    answer = add(service, sent["id"], {"priority": "emergency"})
    assert answer["machine_level"] == 1
    assert any(why.startswith("priority: expected routine") for why in answer["assessment"]["review"]["why"])


def add(service, id_: str, findings: dict) -> dict:
    """New findings of a referral, as its clinic sends them."""
    answer = service.client.post(f"/v1/referrals/{id_}/findings", json=findings, headers=service.token("clinic", "mithi"))
    assert answer.status_code == 200, answer.text
    return answer.json()
