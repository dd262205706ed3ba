"""The routes under /fhir: transactions, single creations, reading, searching, and every refusal as an OperationOutcome."""

import functools
import importlib
import json
import subprocess
import sys

import fhir_examples as fx
import fhir_fakes as fakes
import pytest
from fastapi import FastAPI, Header
from starlette.requests import Request

from inference.errors import UnauthenticatedError
from inference.service.callers import Who
from inference.service.fhir_api import fhir_router, render_problem
from inference.service.fhir_capability import RESOURCES
from inference.service.problems import install

CALLERS = {
    "a": Who("nurse-a", "clinic", "a"),
    "b": Who("nurse-b", "clinic", "b"),
    "doctor": Who("dr-1", "clinician"),
}


async def caller(request: Request, authorization: str = Header("")) -> Who:
    if authorization not in CALLERS:
        raise UnauthenticatedError("send a bearer token")
    return CALLERS[authorization]


@pytest.fixture
def store():
    return fakes.MemoryStore()


@pytest.fixture
def client(store):
    app = FastAPI()
    install(app, {"/fhir": render_problem})
    app.include_router(fhir_router(store, caller, "0.1.0", clock=lambda: fakes.NOW))
    return fakes.Client(app, {"authorization": "a"})


def resource_of(response) -> dict:
    """The response's resource, which R4's classes must take."""
    assert response.headers["content-type"] == "application/fhir+json"
    found = response.json()
    kind = found["resourceType"]
    getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind).model_validate(found)
    return found


def refusal(response, status: int) -> str:
    """What the OperationOutcome says first; the status must be the given one."""
    found = resource_of(response)
    assert (response.status_code, found["resourceType"]) == (status, "OperationOutcome"), found
    return found["issue"][0]["diagnostics"]


def sent(client, bundle=None) -> list[dict]:
    response = client.post("/fhir", json=bundle or fx.transaction())
    assert response.status_code == 200, response.text
    return resource_of(response)["entry"]


def id_in(entry: dict) -> str:
    return entry["response"]["location"].split("/")[1]


def test_transaction_is_queued_and_answered_entry_by_entry(client, store):
    entries = sent(client)
    assert len(entries) == len(fx.transaction()["entry"]) + 2
    assert {one["response"]["status"] for one in entries} == {"201 Created"}
    assert [one["resource"]["resourceType"] for one in entries[-2:]] == ["RiskAssessment", "Task"]
    referral = id_in(entries[1])
    assert store.cases[referral]["vitals"]["pulse_per_minute"] == 118
    assert store.cases[referral]["complaint"] == fx.COMPLAINT
    assert list(store.photos[referral].values()) == [fx.jpeg()]
    shown = entries[-1]["resource"]
    assert shown["focus"]["reference"] == f"ServiceRequest/{referral}"
    assert shown["for"]["reference"] == entries[0]["response"]["location"].partition("/_history")[0]


def test_references_are_resolved_and_photos_are_not_kept_with_the_resource(client, store):
    entries = sent(client)
    patient_id, referral = id_in(entries[0]), id_in(entries[1])
    kept = [one for _, one in store.resources.values()]
    assert {one.referral_id for one in kept} == {referral}
    assert {one.resource["subject"]["reference"] for one in kept if one.kind != "Patient"} == {f"Patient/{patient_id}"}
    photo = next(one.resource for one in kept if one.kind == "Media")
    assert photo["content"] == {"contentType": "image/jpeg"}
    assert fx.PATIENT_URL not in json.dumps([one.resource for one in kept])


def test_same_transaction_again_creates_no_second_referral(client, store):
    first, again = sent(client), sent(client)
    assert [one["response"]["status"] for one in again[:2]] == ["200 OK", "200 OK"]
    assert [id_in(one) for one in first[:2]] == [id_in(one) for one in again[:2]]
    assert len(store.views) == 1


def test_creation_that_lost_a_race_is_planned_again(client, store):
    store.conflicts = 2
    assert len(store.views) == 0
    sent(client)
    store.conflicts = 3
    assert "another request stored it first" in refusal(client.post("/fhir", json=fx.transaction()), 409)


def test_condition_that_several_fit_is_refused(client):
    for _ in range(2):
        client.post("/fhir/Patient", json=fx.patient())
    assert "several resources have this identifier" in refusal(client.post("/fhir", json=fx.transaction()), 412)


def test_priority_of_the_task_is_never_below_the_requests(client):
    entries = sent(client, fx.transaction(fx.answers(), priority="stat"))
    assert entries[-1]["resource"]["priority"] == "stat"


def test_resources_that_are_not_read_are_named_for_review(client, store):
    condition = {"resourceType": "Condition", "subject": {"reference": fx.PATIENT_URL}, "code": {"text": "a secret"}}
    practitioner = {"resourceType": "Practitioner", "name": [{"text": "a name"}]}
    urls = ["urn:uuid:00000000-0000-4000-8000-00000000000a", "urn:uuid:00000000-0000-4000-8000-00000000000b"]
    whole = fx.transaction(fx.answers(), requester={"reference": urls[1]}, reasonReference=[{"reference": urls[0]}])
    whole["entry"] += [fx.entry(condition, urls[0]), fx.entry(practitioner, urls[1])]
    entries = sent(client, whole)
    assert [one["response"]["outcome"]["issue"][0]["severity"] for one in entries[3:5]] == ["warning", "information"]
    why = next(iter(store.views.values()))[1].assessment.review.why
    assert why == ("a resource of type Condition was sent: it is not read here",)
    assert entries[1]["response"]["outcome"]["issue"][0]["diagnostics"] == why[0]
    assert "a secret" not in json.dumps(entries)
    asked = next(one.resource for _, one in store.resources.values() if one.kind == "ServiceRequest")
    assert asked["requester"] == {"display": "a resource that is not kept here"}


def test_reference_to_nothing_in_the_bundle_is_refused_and_nothing_is_stored(client, store):
    stray = fx.observation("8867-4", 80, "/min", subject={"reference": "urn:uuid:00000000-0000-4000-8000-0000000000ff"})
    said = refusal(client.post("/fhir", json=fx.transaction(stray)), 422)
    assert said == "a reference by urn names no entry of this Bundle: send what it points at with it"
    assert store.resources == {} and store.views == {}


def test_unknown_patient_loses_no_referral(client, store):
    entries = sent(client, fx.bundle(fx.entry(fx.request("Patient/nobody"))))
    assert entries[-1]["resource"]["statusReason"]["text"] == "the ServiceRequest's patient cannot be found: age and sex are unknown"
    assert len(store.views) == 1


def test_contained_resources_are_named_for_review(client, store):
    inside = fx.observation("8867-4", 200, "/min", subject=None, id="inside")
    sent(client, fx.transaction(fx.answers(), contained=[inside]))
    why = next(iter(store.views.values()))[1].assessment.review.why
    assert why == ("a ServiceRequest contains other resources: they are not read, send them as entries of their own",)


def test_conditional_reference_finds_the_patient(client, store):
    known = client.post("/fhir/Patient", json=fx.patient()).json()["id"]
    entries = sent(client, fx.bundle(fx.entry(fx.request(f"Patient?identifier={fx.MRN}|mrn-0017"))))
    assert entries[-1]["resource"]["for"]["reference"] == f"Patient/{known}"
    missing = fx.bundle(fx.entry(fx.request("Patient?identifier=x|y")))
    assert "a conditional reference matches nothing" in refusal(client.post("/fhir", json=missing), 412)


def test_observation_of_another_patient_is_not_read(client, store):
    other = fx.observation("8867-4", 30, "/min", subject={"reference": "Patient/other"}, basedOn=[{"reference": fx.REQUEST_URL}])
    sent(client, fx.transaction(other))
    case, found = next(iter(store.cases.values())), next(iter(store.views.values()))[1]
    assert "vitals" not in case
    assert found.assessment.review.why == (
        "Observation: it names another patient than the ServiceRequest: it was not read, check whose it is",
    )


def test_single_resources_one_after_the_other(client, store):
    """Patient, Observation, then a ServiceRequest that names it, then an Observation that is based on that."""
    person = client.post("/fhir/Patient", json=fx.patient())
    assert person.status_code == 201
    subject = {"reference": f"Patient/{person.json()['id']}"}
    pulse = client.post("/fhir/Observation", json=fx.observation("8867-4", 100, "/min", subject=subject)).json()
    info = [{"reference": f"Observation/{pulse['id']}"}]
    asked = client.post("/fhir/ServiceRequest", json=fx.request(subject["reference"], supportingInfo=info))
    assert asked.headers["location"] == f"http://testserver/fhir/ServiceRequest/{asked.json()['id']}/_history/1"
    assert asked.headers["etag"] == 'W/"1"'
    referral = asked.json()["id"]
    assert store.cases[referral]["vitals"] == {"pulse_per_minute": 100}
    based = [{"reference": f"ServiceRequest/{referral}"}]
    worse = fx.observation("8867-4", 160, "/min", subject=subject, basedOn=based, effectiveDateTime="2026-11-23T03:50:00Z")
    assert client.post("/fhir/Observation", json=worse).status_code == 201
    now = client.get(f"/fhir/Task/{referral}").json()
    assert (now["meta"]["versionId"], now["priority"]) == ("2", "stat")


def test_older_measurement_changes_nothing(client, store):
    referral = id_in(sent(client)[1])
    based = [{"reference": f"ServiceRequest/{referral}"}]
    old = fx.observation("8867-4", 60, "/min", subject=None, basedOn=based, effectiveDateTime="2026-11-23T01:00:00Z")
    assert client.post("/fhir/Observation", json=old).status_code == 201
    assert store.cases[referral]["vitals"]["pulse_per_minute"] == 118
    assert store.views[referral][1].version == 1


def test_observation_based_on_a_foreign_request_is_refused_as_missing(client, store):
    referral = id_in(sent(client)[1])
    late = fx.observation("8867-4", 60, "/min", subject=None, basedOn=[{"reference": f"ServiceRequest/{referral}"}])
    said = refusal(client.post("/fhir/Observation", json=late, headers={"authorization": "b"}), 422)
    assert said == "the ServiceRequest that it is based on does not exist"


def test_if_none_exist_creates_once(client, store):
    condition = {"if-none-exist": f"identifier={fx.MRN}|mrn-0017"}
    first = client.post("/fhir/Patient", json=fx.patient(), headers=condition)
    again = client.post("/fhir/Patient", json=fx.patient(gender="female"), headers=condition)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert client.post("/fhir/Patient", json=fx.patient(), headers={**condition, "authorization": "b"}).status_code == 201
    assert "only a search of the form" in refusal(client.post("/fhir/Patient", json=fx.patient(), headers={"if-none-exist": "name=x"}), 422)


def test_condition_in_the_address_is_refused(client):
    """It would stand in logs; and a client that sends it there means a conditional create."""
    assert "If-None-Exist" in refusal(client.post("/fhir/Patient?identifier=x", json=fx.patient()), 422)


def test_prefer_says_how_much_is_sent_back(client):
    assert client.post("/fhir/Patient", json=fx.patient(), headers={"prefer": "return=minimal"}).content == b""
    told = client.post("/fhir/Patient", json=fx.patient(), headers={"prefer": "return=OperationOutcome"})
    assert (told.status_code, told.json()["resourceType"]) == (201, "OperationOutcome")


def test_what_was_stored_is_read_back_by_its_clinic_and_clinicians_alone(client):
    entries = sent(client)
    for entry in entries:
        place = entry["response"]["location"].partition("/_history")[0]
        found = client.get(f"/fhir/{place}")
        assert resource_of(found)["id"] == place.split("/")[1]
        assert client.get(f"/fhir/{entry['response']['location']}").json() == found.json()
        assert client.get(f"/fhir/{place}", headers={"authorization": "doctor"}).status_code == 200
        assert refusal(client.get(f"/fhir/{place}", headers={"authorization": "b"}), 404).startswith("there is no such")
        assert client.get(f"/fhir/{place}/_history/9").status_code == 404


def test_version_that_the_caller_has_is_not_sent_again(client):
    referral = id_in(sent(client)[1])
    found = client.get(f"/fhir/Task/{referral}")
    again = client.get(f"/fhir/Task/{referral}", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", found.headers["etag"])


def test_tasks_are_searched_and_paged(client):
    for place in range(3):
        sent(
            client,
            fx.bundle(fx.entry(fx.request("Patient/x", identifier=[{"value": f"r-{place}"}], priority=("stat", "urgent", "asap")[place]))),
        )
    page = resource_of(client.get("/fhir/Task?status=requested&_count=2"))
    assert [one["resource"]["priority"] for one in page["entry"]] == ["stat", "urgent"]
    links = {one["relation"]: one["url"] for one in page["link"]}
    rest = client.get(links["next"]).json()
    assert [one["resource"]["priority"] for one in rest["entry"]] == ["asap"]
    assert [one["relation"] for one in rest["link"]] == ["self"]


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ("status=requested", 1),
        ("status=completed", 0),
        ("status=bogus", 0),
        ("status=requested,completed", 1),
        ("status=requested&status=completed", 0),
        ("priority=urgent", 1),
        ("priority=stat,asap", 0),
        ("based-on=ServiceRequest/{id}", 1),
        ("based-on={id}", 1),
        ("based-on=Observation/{id}", 0),
        ("identifier=urn:nabz:case|r-17", 1),
        ("identifier=r-18", 0),
        ("_id={id}", 1),
        ("patient=Patient/{patient}", 1),
        ("patient=other", 0),
    ],
)
def test_search_narrows(client, search, count):
    entries = sent(client, fx.transaction(fx.answers()))
    asked = search.format(id=id_in(entries[1]), patient=id_in(entries[0]))
    found = resource_of(client.get(f"/fhir/Task?{asked}"))
    assert len(found.get("entry", [])) == count
    assert resource_of(client.get(f"/fhir/Task?{asked}", headers={"authorization": "b"})).get("entry", []) == []
    if not search.startswith(("status", "priority")):
        assert len(client.get(f"/fhir/RiskAssessment?{asked}").json().get("entry", [])) == count


def test_search_parameter_that_is_not_known_is_refused(client):
    assert refusal(client.get("/fhir/Task?subject=x"), 422) == (
        "Task is searched by _id, based-on, identifier, patient, priority, status and _count alone"
    )
    assert refusal(client.get("/fhir/Task?_count=many"), 400) == "expected a number of results"


def test_batch_goes_on_past_what_is_wrong(client, store):
    good, bad = fx.entry(fx.request("Patient/x")), fx.entry(fx.patient(gender="bogus"))
    stray = fx.entry(fx.observation("8867-4", 1, "/min", basedOn=[{"reference": "ServiceRequest/none"}], subject=None))
    answers = sent(client, fx.bundle(bad, good, stray, kind="batch"))
    assert [one["response"]["status"] for one in answers] == ["400", "201 Created", "422", "201 Created", "201 Created"]
    assert answers[0]["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[0].resource.gender"]
    assert len(store.views) == 1


@pytest.mark.parametrize(
    "accept", ["application/fhir+json", "application/json;q=0.9, text/html", "*/*", "application/fhir+json; fhirVersion=4.0"]
)
def test_json_is_written_for_whoever_takes_it(client, accept):
    assert client.get("/fhir/metadata", headers={"accept": accept}).status_code == 200


@pytest.mark.parametrize("accept", ["application/fhir+xml", "text/turtle", "application/fhir+json;q=0"])
def test_xml_is_not_written(client, accept):
    assert "only application/fhir+json is written here" in refusal(client.get("/fhir/metadata", headers={"accept": accept}), 406)
    assert client.get("/fhir/metadata?_format=json", headers={"accept": accept}).status_code == 200
    assert client.get("/fhir/metadata?_format=application/fhir+json", headers={"accept": accept}).status_code == 200
    assert client.get("/fhir/metadata?_format=xml").status_code == 406


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_nothing_is_changed_or_deleted(client, method):
    entries = sent(client)
    for entry in entries:
        place = entry["response"]["location"].partition("/_history")[0]
        response = client.request(method, f"/fhir/{place}", json={})
        assert refusal(response, 405) == "this address takes GET alone: nothing is changed or deleted here"
        assert response.headers["allow"] == "GET"
    assert client.request(method, "/fhir/Task").headers["allow"] == "GET"
    assert client.request(method, "/fhir/Patient").headers["allow"] == "POST"
    assert client.request(method, "/fhir").headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/fhir/Claim", "/fhir/Claim/1", "/fhir/Patient/1/$everything", "/fhir/Task/1/x/y/z"])
def test_unknown_address_is_a_not_found_outcome(client, path):
    assert refusal(client.get(path), 404)


def test_callers_without_rights_are_told_in_fhirs_words(client):
    assert "send a bearer token" in refusal(client.post("/fhir", json={}, headers={"authorization": "nobody"}), 401)
    assert "may not do fhir.write" in refusal(client.post("/fhir", json={}, headers={"authorization": "doctor"}), 403)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"resourceType":"Bundle"}', b'{"resourceType":"Patient"}', b"\xff", b"[" * 20000]
)
def test_broken_bodies_are_refused_with_an_outcome(client, store, body):
    refusal(client.post("/fhir", content=body, headers={"content-type": "application/fhir+json"}), 400)
    assert store.resources == {}


def test_refusals_never_repeat_what_was_sent(client):
    secret = "42101-1234567-1"
    for resource in (
        fx.patient(gender=secret),
        fx.patient(birthDate=secret),
        fx.patient(identifier=secret),
        fx.patient(**{f"secret {secret}": 1}),
        fx.patient(contained=[{"resourceType": secret}]),
        {"resourceType": secret},
        fx.patient(generalPractitioner=[{"reference": f"{secret}/1"}]),
    ):
        response = client.post("/fhir/Patient", json=resource)
        assert response.status_code == 400 and secret not in response.text


def test_capability_statement_is_true(client):
    """Every interaction that it lists works, and those that it does not list are refused."""
    found = resource_of(client.get("/fhir/metadata", headers={"authorization": ""}))
    entries = sent(client)
    stored = {one["response"]["location"].split("/")[0]: one["response"]["location"] for one in entries}
    asked = {one["type"]: one for one in found["rest"][0]["resource"]}
    assert set(asked) == set(stored) == {one.kind for one in RESOURCES}
    for kind, support in asked.items():
        interactions = {one["code"] for one in support["interaction"]}
        assert client.get(f"/fhir/{stored[kind].partition('/_history')[0]}").status_code == 200 and "read" in interactions
        assert (client.get(f"/fhir/{kind}").status_code == 200) == ("search-type" in interactions)
        assert (client.post(f"/fhir/{kind}", json={}).status_code != 405) == ("create" in interactions)
        for param in support.get("searchParam", []):
            assert client.get(f"/fhir/{kind}?{param['name']}=x").status_code == 200
    sender = functools.partial(client.post, "/fhir")
    assert {one["code"] for one in found["rest"][0]["interaction"]} == {"transaction", "batch"}
    assert sender(json=fx.bundle(kind="batch")).json()["type"] == "batch-response"
    assert "only transaction and batch" in refusal(sender(json=fx.bundle(kind="collection")), 422)


def test_library_is_loaded_when_it_is_first_needed_and_not_before():
    """It takes half a second, and the service must start fast."""
    script = (
        "import sys, inference.service.fhir_api, inference.service.cds_hooks as hooks; from inference.service import fhir_validation as checks\n"
        "assert not any(name.startswith('fhir.') for name in sys.modules); checks.load_library(); assert 'fhir.resources.R4B.media' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
