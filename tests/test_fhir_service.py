"""FHIR on the whole service, over a real connection, with a client library that is not ours (fhirpy)."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import fhir_examples as fx
import httpx
import pytest
from fhir_client import Client, fresh, id_in, issue_of, referral, shown, valid
from fhirpy.base.exceptions import AuthorizationError, ForbiddenError, MultipleResourcesFound, OperationOutcome, ResourceNotFound
from loopback import Loopback, served
from sqlalchemy import func, select

from inference.service import retention
from inference.service.audit import verify
from inference.service.callers import Who
from inference.service.fhir_capability import RESOURCES
from inference.service.tables import assessments, events, fhir_identifiers, fhir_resources, photo_links, referrals

STORED = (referrals, assessments, events, fhir_resources, fhir_identifiers, photo_links)
WELL = [fx.observation("8867-4", 72, "/min"), fx.observation("9279-1", 14, "/min"), fx.observation("59408-5", 98, "%")]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service on SQLite for the tests of this file; each sends referrals and patients of its own."""
    with served(tmp_path_factory.mktemp("fhir")) as running:
        yield running


@pytest.fixture
def own(database_url, tmp_path):
    """A service on an empty database of its own, once of each kind."""
    with served(tmp_path, database_url) as running:
        yield running


def client_of(service: Loopback, clinic: str = "mithi", **headers: str) -> Client:
    return Client(service.url, service.token("clinic", clinic)["Authorization"], **headers)


def doctor_of(service: Loopback) -> Client:
    return Client(service.url, service.token("clinician")["Authorization"])


def counts(service: Loopback) -> dict[str, int]:
    """The rows of every table that a transaction may write."""
    with service.parts.database.engine.begin() as connection:
        return {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in STORED}


def seek(client: Client, kind: str = "Task", **search: Any) -> list[str]:
    """The ids that a search finds, read to its last page."""
    return [one["id"] for one in client.resources(kind).search(**search)]


def test_transaction_goes_in_and_comes_back(own):
    """Patient, request, answers, vitals, photo: queued, scored, read back; the answer is R4 all the way down."""
    client = client_of(own)
    entries = client.send(fresh(fx.transaction()))
    assert {one["response"]["status"] for one in entries} == {"201 Created"}
    patient_id, id_ = id_in(entries[0]), id_in(entries[1])
    risk, task = client.get("RiskAssessment", id_), client.get("Task", id_)
    assert (risk, task) == (shown(entries, "RiskAssessment"), shown(entries, "Task"))
    assert task["status"] == "requested" and task["for"]["reference"] == f"Patient/{patient_id}"
    assert task["focus"]["reference"] == risk["basedOn"]["reference"] == f"ServiceRequest/{id_}"
    assert risk["prediction"][0]["probabilityDecimal"] <= 100
    asked = client.get("ServiceRequest", id_)
    assert asked["reasonCode"] == [{"text": fx.COMPLAINT}]
    photo = next(entry for entry in entries if entry["response"].get("location", "").startswith("Media/"))
    assert client.get("Media", id_in(photo))["content"] == {"contentType": "image/jpeg"}
    found = own.client.get(f"/v1/referrals/{id_}", headers=own.token("clinic")).json()
    assert found["case"]["complaint"] == fx.COMPLAINT
    assert found["case"]["vitals"]["temperature_celsius"] == 37
    assert found["case"]["findings"] == {"F_012": "present", "F_013": "absent"}
    assert len(found["photos"]) == 1
    picture = own.client.get(f"/v1/referrals/{id_}/photos/{found['photos'][0]['sha256']}", headers=own.token("clinic"))
    assert picture.headers["content-type"] == "image/jpeg"
    assert found["patient"]["name"] == "نمونہ مریض"


def test_all_or_nothing(own):
    """A bad entry, a reference to nothing, an addition to a closed case: none of it leaves a row."""
    client = client_of(own)
    id_ = id_in(client.send(referral(1, *WELL))[1])
    own.act(id_, "claim")
    assert own.act(id_, "complete", {"outcome": "seen"}).status_code == 200
    before = counts(own)
    late = fx.observation("8867-4", 140, "/min", basedOn=[{"reference": f"ServiceRequest/{id_}"}], subject=None)
    stray = fx.observation("8867-4", 80, "/min", subject={"reference": "urn:uuid:00000000-0000-4000-8000-0000000000ff"})
    wrong = fx.observation("8867-4", 80, "/min", status="bogus")
    for bad, code in ((wrong, "code-invalid"), (stray, "not-found"), (late, "conflict")):
        with pytest.raises(OperationOutcome) as refused:
            client.send(referral(2, *WELL, bad, mrn="mrn-2"))
        assert issue_of(refused.value)[0] == code
        assert counts(own) == before
    assert "201 Created" in {one["response"]["status"] for one in client.send(referral(2, *WELL, mrn="mrn-2"))}


def test_conditional_create_twice(own):
    """The second is the first; without a condition there are two, and a later condition says so."""
    asking = client_of(own, **{"If-None-Exist": f"identifier={fx.MRN}|mrn-0017"})
    first = asking.resource("Patient", **fx.patient()).save()
    again, status = asking._do_request("post", "Patient", data=fx.patient(), returning_status=True)
    assert (again["id"], status) == (first["id"], 200)
    assert counts(own)["fhir_resources"] == 1
    client = client_of(own)
    assert client.resource("Patient", **fx.patient()).save()["id"] != first["id"]
    with pytest.raises(MultipleResourcesFound, match="several resources have this identifier"):
        asking.resource("Patient", **fx.patient()).save()
    other = client_of(own, "umerkot", **{"If-None-Exist": f"identifier={fx.MRN}|mrn-0017"})
    assert other.resource("Patient", **fx.patient()).save()["id"] != first["id"]


def test_later_observation_has_it_assessed_again(service):
    """Worse vitals raise the level; better ones afterwards do not lower it, and the answer says what it is now."""
    client = client_of(service)
    entries = client.send(referral(10, *WELL, priority="urgent", mrn="mrn-10"))
    id_, task = id_in(entries[1]), shown(entries, "Task")
    subject = {"reference": f"Patient/{id_in(entries[0])}"}
    based = {"basedOn": [{"reference": f"ServiceRequest/{id_}"}], "subject": subject}
    worse = [fx.observation("59408-5", 79, "%", **based), fx.observation("8480-6", 72, "mm[Hg]", **based)]
    after = client.send(fresh(fx.bundle(*(fx.entry(one) for one in worse)), minutes_ago=-5))
    raised, risk = shown(after, "Task"), shown(after, "RiskAssessment")
    assert task["priority"] == "urgent" and raised["priority"] == "stat"
    assert raised["businessStatus"]["coding"][0]["code"] == "1"
    assert int(raised["meta"]["versionId"]) > int(task["meta"]["versionId"])
    assert risk["meta"]["versionId"] == "2" and risk["prediction"][0]["qualitativeRisk"]["coding"][1]["code"] == "1"
    better = client.resource("Observation", **fresh(fx.observation("59408-5", 99, "%", **based), minutes_ago=-9)).save()
    assert better["id"]
    kept = client.get("Task", id_)
    assert (kept["priority"], kept["businessStatus"]["coding"][0]["code"]) == ("stat", "1")
    assert client.get("RiskAssessment", id_)["meta"]["versionId"] == "3"


def test_older_observation_that_comes_late_changes_no_vital(service):
    """What was measured before is not what the patient is now."""
    client = client_of(service)
    entries = client.send(referral(11, *WELL, mrn="mrn-11"))
    id_ = id_in(entries[1])
    subject = {"reference": f"Patient/{id_in(entries[0])}"}
    old = fx.observation("8867-4", 165, "/min", basedOn=[{"reference": f"ServiceRequest/{id_}"}], subject=subject)
    client.resource("Observation", **fresh(old, minutes_ago=45)).save()
    assert doctor_of(service).get("Task", id_)["businessStatus"] == shown(entries, "Task")["businessStatus"]
    case = service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinic")).json()["case"]
    assert case["vitals"]["pulse_per_minute"] == 72


@pytest.mark.parametrize(
    ("number", "priority", "vitals", "expected"),
    [(20, "stat", WELL, "stat"), (21, "asap", WELL, "asap"), (22, "urgent", [fx.observation("59408-5", 75, "%")], "stat")],
)
def test_priority_may_rise_and_never_falls(service, number, priority, vitals, expected):
    """A human's stat stays stat with normal vitals, and vitals raise an urgent one."""
    client = client_of(service)
    entries = client.send(referral(number, *vitals, mrn=f"mrn-{number}", priority=priority))
    task = client.get("Task", id_in(entries[1]))
    assert (task["priority"], task["intent"]) == (expected, "order")
    assert client.get("ServiceRequest", id_in(entries[1]))["priority"] == priority
    if expected == "stat":
        assert task["businessStatus"]["coding"][0]["code"] == "1"
        assert task["id"] in seek(client, priority="stat", patient=f"Patient/{id_in(entries[0])}")


def test_what_is_not_known_is_for_review(service):
    """Codes and units that are not known stop nothing, and are named without what they said."""
    client = client_of(service)
    unknown = [fx.observation("29463-7", 70, "kg"), fx.observation("8310-5", 310.2, "K"), fx.observation("8867-4", 70, "/h")]
    entries = client.send(referral(30, *unknown, mrn="mrn-30"))
    why = client.get("Task", id_in(entries[1]))["statusReason"]["text"]
    assert "an Observation with code LOINC 29463-7 is not known here and was not read" in why
    assert "vitals.temperature_celsius: its unit is missing or not known" in why
    assert "vitals.pulse_per_minute: its unit is missing or not known" in why
    issues = entries[1]["response"]["outcome"]["issue"]
    assert {one["severity"] for one in issues} == {"warning"} and len(issues) >= 3
    assert any(note["text"].startswith("for review: an Observation") for note in client.get("RiskAssessment", id_in(entries[1]))["note"])


def test_observation_of_another_patient_is_not_read(service):
    """Even where the request names it: two patients' values must never mix."""
    client = client_of(service)
    other = client.resource("Patient", **fx.patient(identifier=[{"value": "someone-else"}])).save()
    theirs = fresh(fx.observation("59408-5", 70, "%", subject={"reference": f"Patient/{other['id']}"}))
    seen = client.resource("Observation", **theirs).save()
    info = [{"reference": f"Observation/{seen['id']}"}]
    id_ = id_in(client.send(referral(31, *WELL, mrn="mrn-31", supportingInfo=info))[1])
    case = service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinic")).json()
    assert case["case"]["vitals"]["spo2_percent"] == 98
    assert "Observation: it names another patient than the ServiceRequest" in client.get("Task", id_)["statusReason"]["text"]


def test_search_is_paged_to_the_end(own):
    """By status, patient and identifier, one at a time and in larger pages: each once, in every order of naming."""
    client = client_of(own)
    entries = [client.send(referral(number, priority=("stat", "urgent", "routine")[number % 3])) for number in range(5)]
    ids, patient = [id_in(one[1]) for one in entries], id_in(entries[0][0])
    own.act(ids[2], "claim")
    own.act(ids[3], "claim")
    own.act(ids[3], "complete", {"outcome": "seen"})
    for count in (1, 2, 4, 50):
        assert sorted(seek(client, _count=count)) == sorted(ids)
        assert sorted(seek(client, "RiskAssessment", _count=count)) == sorted(ids)
        assert sorted(seek(client, status="requested", _count=count)) == sorted([ids[0], ids[1], ids[4]])
        assert seek(client, patient=f"Patient/{patient}", _count=count) == ids
        assert seek(client, patient=patient, status="requested,accepted", _count=count) == [ids[0], ids[1], ids[2], ids[4]]
        assert seek(client, identifier=f"urn:nabz:case|r-3,urn:nabz:referral|{ids[0]}", _count=count) == [ids[0], ids[3]]
        assert seek(client, _id=",".join(ids), _count=count) == ids
    assert seek(client, status="accepted") == [ids[2]] and seek(client, status="completed") == [ids[3]]
    order = [client.get("Task", id_)["businessStatus"]["coding"][0]["code"] for id_ in seek(client, status="requested")]
    assert order == sorted(order)
    assert seek(client_of(own, "umerkot")) == [] == seek(client_of(own, "umerkot"), patient=patient)
    assert sorted(seek(doctor_of(own), _count=2)) == sorted(ids)


@pytest.mark.parametrize("cursor", ["x", "99", "²", "٣", "0.x", "9" * 5000, "-1", "%00", "n"])
@pytest.mark.parametrize("search", ["", "&status=requested", "&_id=x"])
def test_cursor_of_another_search_is_refused(service, cursor, search):
    """Or finds nothing; it is never an error of the server's."""
    answer = service.client.get(f"/fhir/Task?_cursor={cursor}{search}", headers=service.token("clinic"))
    valid(answer.json())
    assert answer.status_code == (200 if (cursor, search) == ("n", "&_id=x") else 400)


@pytest.mark.parametrize("text", ["%00", "a%00b", "%ED%A0%80", "%F0%9F%98%80", "x" * 5000, "a,b,,c", "|", "a|", "||"])
def test_odd_searches_and_ids_are_answered(own, text):
    """Characters that a database does not take are no failure of it."""
    for name in ("_id", "identifier", "patient", "based-on", "status", "priority"):
        answer = own.client.get(f"/fhir/Task?{name}={text}", headers=own.token("clinic"))
        assert valid(answer.json())["resourceType"] in ("Bundle", "OperationOutcome") and answer.status_code in (200, 400)
    if len(text) < 100:
        for kind in ("Task", "Patient"):
            assert own.client.get(f"/fhir/{kind}/{text}", headers=own.token("clinic")).status_code == 404


def test_odd_text_in_resources_is_stored_or_refused(own):
    """NUL in an identifier, a name or a district is no failure of the database either."""
    headers = {**own.token("clinic"), "Content-Type": "application/fhir+json"}
    for odd in ("a\0b", "\0", "\ud83d\ude00", "x" * 3000):
        person = fx.patient(identifier=[{"value": odd}], address=[{"district": odd, "state": odd}], name=[{"text": odd}])
        whole = fx.bundle(fx.entry(person, fx.PATIENT_URL), fx.entry(fx.request(identifier=[{"value": odd}]), fx.REQUEST_URL))
        answer = own.client.post("/fhir", json=fresh(whole), headers=headers)
        assert valid(answer.json()) and answer.status_code in (200, 400), answer.text
