"""FHIR on the whole service, over a real connection, with a client library that is not ours (fhirpy)."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import timedelta
from typing import Any

import fhir_examples as fx
import pytest
from fhir_client import Client, fresh, id_in, issue_of, referral, shown, valid
from fhirpy.base.exceptions import AuthorizationError, ForbiddenError, MultipleResourcesFound, OperationOutcome, ResourceNotFound
from loopback import Loopback, served
from sqlalchemy import func, select

from inference.errors import ConflictError
from inference.service import retention
from inference.service.audit import verify
from inference.service.callers import Who
from inference.service.fhir_capability import RESOURCES
from inference.service.fhir_database import DatabaseFhirStore
from inference.service.fhir_in import FhirCase
from inference.service.fhir_store import FhirWrite, NewFhirReferral
from inference.service.tables import assessments, events, fhir_identifiers, fhir_resources, photo_links, referrals

STORED = (referrals, assessments, events, fhir_resources, fhir_identifiers, photo_links)
UNRESPONSIVE = fx.observation("67775-7", valueCodeableConcept=fx.coded("LA9343-0"))
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
    assert own.act(id_, "complete", {"outcome": "treated"}).status_code == 200
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
    entries = client.send(referral(10, *WELL, mrn="mrn-10", priority="urgent", reasonCode=[{"text": "zukam, naak beh rahi hai"}]))
    id_, task = id_in(entries[1]), shown(entries, "Task")
    subject = {"reference": f"Patient/{id_in(entries[0])}"}
    based = {"basedOn": [{"reference": f"ServiceRequest/{id_}"}], "subject": subject}
    worse = [fx.observation("59408-5", 75, "%", **based), {**UNRESPONSIVE, **based}]
    after = client.send(fresh(fx.bundle(*(fx.entry(one) for one in worse)), minutes_ago=-5))
    raised, risk = shown(after, "Task"), shown(after, "RiskAssessment")
    assert (task["priority"], raised["priority"]) == ("urgent", "stat")
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
    [(20, "stat", WELL, "stat"), (21, "asap", WELL, "asap"), (22, "urgent", [fx.observation("59408-5", 75, "%"), UNRESPONSIVE], "stat")],
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
    own.act(ids[3], "complete", {"outcome": "treated"})
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
    assert answer.status_code == (400)


def test_odd_searches_ids_and_texts_are_answered(own):
    """Characters that a database does not take, such as NUL, are no failure of it: in addresses, references and resources."""
    client, headers = own.client, own.token("clinic")
    for text in ("%00", "a%00b", "%ED%A0%80", "%F0%9F%98%80", "x" * 5000, "a,b,,c", "|", "a|", "||"):
        for name in ("_id", "identifier", "patient", "based-on", "status", "priority"):
            answer = client.get(f"/fhir/Task?{name}={text}", headers=headers)
            assert (valid(answer.json())["resourceType"], answer.status_code) == ("Bundle", 200), (name, text)
    for kind in ("Task", "Patient"):
        assert [client.get(f"/fhir/{kind}/{text}", headers=headers).status_code for text in ("%00", "a%00b", "|")] == [404] * 3
    for odd in ("a\0b", "\0", "\U0001f600", "x" * 3000):
        person = fx.patient(identifier=[{"value": odd}], address=[{"district": odd, "state": odd}], name=[{"text": odd}])
        asked = fx.request(identifier=[{"value": odd}], supportingInfo=[{"reference": f"Observation/{odd}"}])
        whole = fresh(fx.bundle(fx.entry(person, fx.PATIENT_URL), fx.entry(asked, fx.REQUEST_URL)))
        late = fx.observation("8867-4", 80, "/min", basedOn=[{"reference": f"ServiceRequest/{odd}"}], subject=None)
        for body, statuses in ((whole, (200, 400)), (fx.bundle(fx.entry(late)), (400, 422))):
            answer = client.post("/fhir", json=body, headers=headers)
            assert valid(answer.json()) and answer.status_code in statuses, answer.text


def test_refusals_reach_the_client_as_outcomes(service):
    """Each in the client's own kind of error, and none repeats what was sent."""
    client, secret = client_of(service), "42101-1234567-1"
    with pytest.raises(OperationOutcome) as refused:
        client.resource("Patient", **fx.patient(gender=secret)).save()
    assert issue_of(refused.value) == ("code-invalid", "expected one of female, male, other, unknown")
    assert secret not in str(refused.value)
    with pytest.raises(ResourceNotFound):
        client.get("Task", "nobody")
    with pytest.raises(ForbiddenError):
        doctor_of(service).resource("Patient", **fx.patient()).save()
    with pytest.raises(AuthorizationError):
        Client(service.url, "Bearer nothing").get("Task", "nobody")
    patient = client.resource("Patient", **fx.patient(identifier=[{"value": "refused"}])).save()
    for act in (patient.delete, patient.update, lambda: patient.patch(gender="female"), lambda: client.execute("$everything", "get")):
        with pytest.raises((OperationOutcome, ResourceNotFound)) as refused:
            act()
        assert issue_of(refused.value)[0] in ("not-supported", "not-found")
    assert client.get("Patient", patient["id"])["gender"] == "male"


def test_foreign_clinic_sees_nothing(service):
    """Neither by id nor by reference; what it adds to a referral that is not its own is refused."""
    entries = client_of(service).send(referral(40, *WELL, mrn="mrn-40"))
    foreign, id_ = client_of(service, "umerkot"), id_in(entries[1])
    for entry in entries:
        kind, found_id = entry["response"]["location"].split("/")[:2]
        assert doctor_of(service).get(kind, found_id)["id"] == found_id
        with pytest.raises(ResourceNotFound):
            foreign.get(kind, found_id)
    with pytest.raises(OperationOutcome) as refused:
        foreign.send(
            fx.bundle(fx.entry(fx.observation("8867-4", 80, "/min", basedOn=[{"reference": f"ServiceRequest/{id_}"}], subject=None)))
        )
    assert issue_of(refused.value) == ("not-found", "the ServiceRequest that it is based on does not exist")
    asked = fresh(fx.request(f"Patient/{id_in(entries[0])}", identifier=[{"value": "r-41"}]))
    (mine,) = foreign.send(fx.bundle(fx.entry(asked)))[:1]
    task = foreign.get("Task", id_in(mine))
    assert "identifier" in task["for"] and "patient cannot be found" in task["statusReason"]["text"]
    assert doctor_of(service).get("Task", id_)["meta"]["versionId"] == "1"


def test_task_follows_the_clinicians_work(service):
    """Claimed, released, overridden, completed through the API; the Task says so, and who holds it."""
    client = client_of(service)
    id_ = id_in(client.send(referral(50, *WELL, mrn="mrn-50", priority="stat"))[1])
    seen = []
    for action, body in (
        ("claim", None),
        ("release", None),
        ("claim", None),
        ("override", {"level": 4, "reason": "seen by phone"}),
        ("complete", {"outcome": "treated"}),
    ):
        answer = service.act(id_, action, body)
        assert answer.status_code == 200, answer.text
        task = client.get("Task", id_)
        seen.append((task["status"], task["priority"], "owner" in task))
    accepted = ("accepted", "stat", True)
    assert seen == [accepted, ("requested", "stat", False), accepted, ("accepted", "routine", True), ("completed", "routine", False)]
    assert seek(client, status="completed", _id=id_) == [id_]


def test_capability_statement_is_true(service):
    """Whatever it lists works, and whatever it does not list is refused."""
    headers, client = service.token("clinic"), service.client
    statement = valid(client.get("/fhir/metadata").json())
    (rest,) = statement["rest"]
    entries = client_of(service).send(fresh(fx.transaction(identifier=[{"value": "r-60"}])))
    places = {entry["response"]["location"].split("/")[0]: entry["response"]["location"] for entry in entries}
    assert {one["type"] for one in rest["resource"]} == set(places) == {one.kind for one in RESOURCES}
    every_param = {param["name"] for one in rest["resource"] for param in one.get("searchParam", [])} | {"subject", "code", "_lastUpdated"}
    for one in rest["resource"]:
        kind, place = one["type"], places[one["type"]]
        instance = f"/fhir/{place.partition('/_history')[0]}"
        tried = {
            "read": client.get(instance, headers=headers),
            "vread": client.get(f"/fhir/{place}", headers=headers),
            "create": client.post(f"/fhir/{kind}", json={"resourceType": kind}, headers=headers),
            "search-type": client.get(f"/fhir/{kind}", headers=headers),
            "update": client.put(instance, json={}, headers=headers),
            "patch": client.patch(instance, json={}, headers=headers),
            "delete": client.delete(instance, headers=headers),
            "history-instance": client.get(f"{instance}/_history", headers=headers),
            "history-type": client.get(f"/fhir/{kind}/_history", headers=headers),
        }
        refused = {code for code, answer in tried.items() if answer.status_code in (404, 405)}
        assert tried.keys() - refused == {interaction["code"] for interaction in one["interaction"]}
        assert {valid(tried[code].json())["resourceType"] for code in refused} == {"OperationOutcome"}
        known = tried["read"].headers["etag"]
        assert client.get(instance, headers={**headers, "If-None-Match": known}).status_code == 304  # conditionalRead
        if "search-type" in tried.keys() - refused:
            listed = {param["name"] for param in one["searchParam"]}
            works = {name for name in every_param if client.get(f"/fhir/{kind}?{name}=x", headers=headers).status_code == 200}
            assert works == listed
        if "create" in tried.keys() - refused:
            assert one["conditionalCreate"] is True
    assert {one["code"] for one in rest["interaction"]} == {"transaction", "batch"}
    assert client.get("/fhir?_type=Task", headers=headers).status_code == 405
    assert client.get("/fhir/_history", headers=headers).status_code == 404


def at_once(*acts: Any) -> list[Any]:
    """What each act returns or raises, all of them begun at the same moment."""
    ready, results = threading.Barrier(len(acts)), [None] * len(acts)

    def run(place: int) -> None:
        ready.wait()
        try:
            results[place] = acts[place]()
        except Exception as error:  # noqa: BLE001 (a test looks at it)
            results[place] = error

    threads = [threading.Thread(target=run, args=[place]) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_same_transaction_at_once_is_one_referral(database_url, tmp_path):
    """Through two services on one database, twenty times: one referral, one patient, and both callers are told the same."""
    with served(tmp_path, database_url) as one, served(tmp_path, database_url) as two:
        callers = [client_of(one), client_of(two), client_of(one)]
        for number in range(20):
            name = f"mrn-{number}"
            whole = referral(number, WELL[0], mrn=name)
            answers = at_once(*(lambda client=client, whole=whole: client.send(whole) for client in callers))
            assert all(isinstance(answer, list) for answer in answers), answers
            assert len({(id_in(answer[0]), id_in(answer[1])) for answer in answers}) == 1
            made = sorted(entry["response"]["status"] for answer in answers for entry in answer[:2])
            assert made == ["200 OK"] * 4 + ["201 Created"] * 2
        assert counts(one)["referrals"] == 20
        with one.parts.database.engine.begin() as connection:
            kinds = list(connection.execute(select(fhir_resources.c.type, func.count()).group_by(fhir_resources.c.type)))
        assert dict(kinds) == {"Patient": 20, "ServiceRequest": 20, "Observation": 60}


def test_one_patient_of_many_referrals_at_once(database_url, tmp_path):
    """Different referrals with the same new patient: all are queued, and the patient is one. A condition need not name the system."""
    with served(tmp_path, database_url) as one, served(tmp_path, database_url) as two:
        callers = [client_of(one), client_of(two), client_of(two), client_of(one)]
        for start in range(0, 12, 4):
            wholes = [referral(start + place, mrn=f"mrn-{start}") for place in range(4)]
            for whole in wholes[::2]:
                whole["entry"][0]["request"]["ifNoneExist"] = f"identifier=mrn-{start}"
            answers = at_once(*(lambda c=client, whole=whole: c.send(whole) for client, whole in zip(callers, wholes, strict=True)))
            assert all(isinstance(answer, list) for answer in answers), answers
            assert len({id_in(answer[0]) for answer in answers}) == 1
            assert len({id_in(answer[1]) for answer in answers}) == 4


def finish(service: Loopback, id_: str) -> None:
    """Claim and complete a referral."""
    for action, body in (("claim", None), ("complete", {"outcome": "treated"})):
        assert service.act(id_, action, body).status_code == 200


def erase(service: Loopback, id_: str) -> int:
    return int(service.client.post(f"/v1/referrals/{id_}/erase", headers=service.token("admin")).status_code)


def test_patient_is_erased_with_the_last_referral_that_needs_it(own):
    """Answers, vitals and photos go with their own referral; nothing finds them afterwards, and the audit trail is whole."""
    client, clinic = client_of(own), own.token("clinic")
    photo = fx.media(fx.jpeg(40))
    first, second = client.send(referral(1, fx.answers(), *WELL, photo)), client.send(referral(2, *WELL, fx.media(fx.jpeg(52))))
    patient, one, two = id_in(first[0]), id_in(first[1]), id_in(second[1])
    assert id_in(second[0]) == patient
    detail = own.client.get(f"/v1/referrals/{one}", headers=clinic).json()
    (picture,) = detail["photos"]
    finish(own, one)
    assert erase(own, two) == 409
    for stored in own.parts.settings.photos.rglob("*.sealed"):
        os.utime(stored, (0, 0))  # a young one is left for the hourly sweep
    assert erase(own, one) == 204
    for entry in first[1:]:
        kind, found_id = entry["response"]["location"].split("/")[:2]
        with pytest.raises(ResourceNotFound):
            client.get(kind, found_id)
    assert client.get("Patient", patient)["name"] == [{"use": "official", "text": "نمونہ مریض"}]
    assert seek(client, identifier="urn:nabz:case|r-1") == [] == seek(client, _id=one)
    assert seek(client, patient=patient) == [two] == seek(client, identifier="urn:nabz:case|r-2")
    with pytest.raises(Exception, match="photo"):
        own.parts.photos.get(picture["sha256"])
    # The identifier is free again: the same transaction is a new referral, of the patient who is still there.
    again = client.send(referral(1, *WELL))
    assert (id_in(again[0]), id_in(again[1]) != one) == (patient, True)
    for id_ in (two, id_in(again[1])):
        assert client.get("Patient", patient)["id"] == patient
        finish(own, id_)
        assert erase(own, id_) == 204
    with pytest.raises(ResourceNotFound):
        client.get("Patient", patient)
    assert id_in(client.send(referral(3, *WELL))[0]) != patient
    with own.parts.database.engine.begin() as connection:
        left = connection.execute(select(func.count()).where(fhir_resources.c.content.is_not(None))).scalar_one()
        assert left == 2 + len(WELL)
        assert verify(connection, own.parts.database.audit_key).first_bad is None


def test_what_came_before_the_referral_is_erased_too(own):
    """A patient and observations that were sent by themselves belong to the referral that names them; others go by their age."""
    client = client_of(own)
    patient = client.resource("Patient", **fx.patient()).save()
    subject = {"subject": {"reference": f"Patient/{patient['id']}"}}
    named, other = (client.resource("Observation", **fresh(fx.observation("8867-4", 88, "/min", **subject))).save() for _ in range(2))
    asked = fx.request(f"Patient/{patient['id']}", supportingInfo=[{"reference": f"Observation/{named['id']}"}])
    request = client.resource("ServiceRequest", **fresh(asked)).save()
    finish(own, request["id"])
    assert erase(own, request["id"]) == 204
    for kind, gone in (("Patient", patient), ("Observation", named), ("ServiceRequest", request)):
        with pytest.raises(ResourceNotFound):
            client.get(kind, gone["id"])
    waiting = client.resource("Patient", **fx.patient(identifier=[{"value": "waits"}])).save()
    asked = fx.request(f"Patient/{waiting['id']}", identifier=[{"value": "waits"}])
    client.resource("ServiceRequest", **fresh(asked)).save()
    parts = own.parts

    def retain(days: int) -> None:
        now = own.clock() + timedelta(days=31)
        running = retention.run_retention(parts.database, parts.photos, Who("root", "admin"), days, now)
        asyncio.run_coroutine_threadsafe(running, own.loop).result(30)

    retain(32)
    assert client.get("Observation", other["id"])
    retain(30)
    with pytest.raises(ResourceNotFound):
        client.get("Observation", other["id"])
    assert client.get("Patient", waiting["id"])["id"] == waiting["id"]


def test_patient_who_is_erased_meanwhile_is_looked_for_again(own):
    """A referral that was planned with a Patient who is gone by the time of the commit is not stored so: it is planned anew."""
    planned = FhirWrite(referrals=(NewFhirReferral("r-planned", FhirCase({"complaint": "zukam"}), "gone"),))
    committing = DatabaseFhirStore(own.parts.referrals).commit(Who("nurse", "clinic", "mithi"), planned)
    with pytest.raises(ConflictError, match="the Patient was erased in the meantime"):
        asyncio.run_coroutine_threadsafe(committing, own.loop).result(30)
    assert counts(own) == dict.fromkeys(counts(own), 0)
