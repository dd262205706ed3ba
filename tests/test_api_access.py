"""Every route, asked by every role, from the own and from a foreign clinic, and without a token that counts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import fhir_examples as fx
import pytest
from PIL import Image
from service_app import CASE, Service, running_service, settings_for

from inference.service.dev_issuer import DevIssuer
from inference.service.guards import Guard
from inference.service.web.routes import page_routes

SECRET = "planted-words-of-the-own-clinic"
OWN, FOREIGN = "own", "foreign"
CALLERS = ("own clinic", "foreign clinic", "clinician", "data_scientist", "admin")

# What each caller gets, in the order of CALLERS. A route that is not here fails the test.
EXPECTED: dict[str, tuple[int, int, int, int, int]] = {
    "POST /v1/referrals": (201, 201, 403, 403, 403),
    "POST /v1/referrals:batch": (201, 201, 403, 403, 403),
    "POST /v1/assess": (200, 200, 200, 200, 403),
    "POST /v1/ask": (200, 200, 200, 200, 403),
    "GET /v1/worklist": (200, 404, 200, 403, 403),  # asked for the own clinic's list
    "POST /v1/worklist:claim-next": (403, 403, 200, 403, 403),
    "GET /v1/referrals/{id}": (200, 404, 200, 403, 403),
    "GET /v1/referrals/{id}/photos/{sha256}": (200, 404, 200, 403, 403),
    "POST /v1/referrals/{id}/findings": (200, 404, 200, 403, 403),
    "POST /v1/referrals/{id}/claim": (403, 403, 200, 403, 403),
    "POST /v1/referrals/{id}/release": (403, 403, 200, 403, 403),
    "POST /v1/referrals/{id}/complete": (403, 403, 200, 403, 403),
    "POST /v1/referrals/{id}/override": (403, 403, 200, 403, 403),
    "POST /v1/referrals/{id}/note": (403, 403, 200, 403, 403),
    "POST /v1/referrals/{id}/erase": (403, 403, 403, 403, 204),
    "GET /v1/events": (200, 200, 200, 403, 403),
    "GET /v1/webhooks": (403, 403, 403, 403, 200),
    "POST /v1/webhooks": (403, 403, 403, 403, 201),
    "DELETE /v1/webhooks/{id}": (403, 403, 403, 403, 204),
    "POST /v1/models:reload": (403, 403, 403, 403, 200),
    "GET /v1/audit": (403, 403, 403, 403, 200),
    "GET /metrics": (403, 403, 403, 200, 200),
    "POST /fhir": (200, 200, 403, 403, 403),
    "POST /fhir/": (200, 200, 403, 403, 403),
    "POST /fhir/Patient": (201, 201, 403, 403, 403),
    "POST /fhir/ServiceRequest": (201, 201, 403, 403, 403),
    "POST /fhir/QuestionnaireResponse": (201, 201, 403, 403, 403),
    "POST /fhir/Observation": (201, 201, 403, 403, 403),
    "POST /fhir/Media": (201, 201, 403, 403, 403),
    "GET /fhir/Patient/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/ServiceRequest/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/QuestionnaireResponse/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/Observation/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/Media/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/RiskAssessment/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/Task/{id}": (200, 404, 200, 403, 403),
    "GET /fhir/Patient/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/ServiceRequest/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/QuestionnaireResponse/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/Observation/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/Media/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/RiskAssessment/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/Task/{id}/_history/{vid}": (200, 404, 200, 403, 403),
    "GET /fhir/RiskAssessment": (200, 200, 200, 403, 403),
    "GET /fhir/Task": (200, 200, 200, 403, 403),
    "POST /cds-services/{service_id}": (403, 403, 200, 403, 403),
    "POST /cds-services/{service_id}/feedback": (403, 403, 200, 403, 403),
}
# What anybody gets, with any token or none: nothing here is a clinic's.
OPEN = {
    "GET /health/live": 200,
    "GET /health/ready": 200,
    "GET /openapi.json": 200,
    "HEAD /openapi.json": 200,
    "GET /fhir/metadata": 200,
    "GET /cds-services": 200,
    "POST /dev/token": 200,  # to this machine only, and only where the demo's issuer is on
    "ANY /fhir": 405,
    "ANY /fhir/{rest:path}": 404,
}
BODIES: dict[str, Any] = {
    "POST /v1/referrals": CASE,
    "POST /v1/referrals:batch": [CASE],
    "POST /v1/assess": CASE,
    "POST /v1/ask": CASE,
    "POST /v1/referrals/{id}/findings": {"vitals": {"spo2_percent": 90}},
    "POST /v1/referrals/{id}/complete": {"outcome": "advised"},
    "POST /v1/referrals/{id}/override": {"level": 1, "reason": "seen"},
    "POST /v1/referrals/{id}/note": {"text": "called"},
    "POST /v1/webhooks": {"url": "https://hospital.example/nabz"},
    "POST /fhir": fx.transaction(),
    "POST /fhir/": fx.transaction(),
    "POST /fhir/Patient": fx.patient(),
    "POST /fhir/ServiceRequest": {**fx.request(), "subject": {"display": "somebody"}},
    "POST /fhir/QuestionnaireResponse": {**fx.answers(), "subject": {"display": "somebody"}},
    "POST /fhir/Observation": {**fx.observation("8867-4", 80, "/min"), "subject": {"display": "somebody"}},
    "POST /fhir/Media": {**fx.media(), "subject": {"display": "somebody"}},
    "POST /cds-services/{service_id}": {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
        "prefetch": {"patient": fx.patient(id="p1"), "observations": {"resourceType": "Bundle", "type": "searchset"}},
    },
    "POST /cds-services/{service_id}/feedback": {
        "feedback": [{"card": "c1", "outcome": "accepted", "outcomeTimestamp": "2026-11-23T10:00:00Z"}]
    },
    "POST /dev/token": {"role": "clinician"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for this file, in which the own clinic has sent a referral by each way in."""
    with running_service(tmp_path_factory.mktemp("access")) as running:
        yield running


@pytest.fixture(scope="module")
def fhir_ids(service: Service) -> dict[str, str]:
    """The own clinic's FHIR resources: an id of each type."""
    bundle = fx.transaction(reasonCode=[{"text": SECRET}])
    answer = service.client.post("/fhir", json=bundle, headers=service.token("clinic", OWN)).json()
    places = [entry["response"]["location"].split("/") for entry in answer["entry"]]
    return {parts[-4]: parts[-3] for parts in places}


def token_of(service: Service, caller: str) -> dict[str, str]:
    """The header of one of CALLERS."""
    return service.token("clinic", caller.split(maxsplit=1)[0]) if "clinic" in caller.split() else service.token(caller)


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (160, 160), (180, 120, 90)).save(content, "JPEG")
    return content.getvalue()


def referral(service: Service, route: str) -> dict[str, str]:
    """The path's parameters: a new referral of the own clinic, in the state that the route is for."""
    if route.endswith("{sha256}"):
        form = {"case": json.dumps({**CASE, "complaint": SECRET})}
        parts = [("photos", ("a.jpg", jpeg(), "image/jpeg"))]
        sent = service.client.post("/v1/referrals", data=form, files=parts, headers=service.token("clinic", OWN)).json()
        full = service.client.get(f"/v1/referrals/{sent['id']}", headers=service.token("clinic", OWN)).json()
        return {"id": sent["id"], "sha256": full["photos"][0]["sha256"]}
    id_ = service.send({**CASE, "complaint": SECRET}, OWN)["id"]
    if route.endswith(("release", "complete", "erase")):
        assert service.act(id_, "claim").status_code == 200
    if route.endswith("erase"):
        service.act(id_, "complete", {"outcome": "advised"})
    return {"id": id_}


def parameters(service: Service, route: str, fhir_ids: dict[str, str]) -> dict[str, str]:
    """What to put into the route's path."""
    if "/fhir/" in route and "{id}" in route:
        kind = route.split("/")[2]
        now = service.client.get(f"/fhir/{kind}/{fhir_ids[kind]}", headers=service.token("clinician")).json()
        return {"id": fhir_ids[kind], "vid": now["meta"]["versionId"]}
    if "/webhooks/{id}" in route:
        url = {"url": "https://hospital.example/nabz"}
        return {"id": service.client.post("/v1/webhooks", json=url, headers=service.token("admin")).json()["id"]}
    return referral(service, route) if "{id}" in route else {"service_id": "nabz-patient-view"}


def ask(service: Service, route: str, given: dict[str, str], headers: dict[str, str]) -> Any:
    """Send the route's request. An event stream ends at once here; test_api_events.py reads real ones."""
    method, path = route.split(" ")
    query = {"clinic": OWN} if path == "/v1/worklist" else {}
    service.parts.live.closing = path == "/v1/events"
    try:
        method = {"ANY": "GET"}.get(method, method)
        address = path.replace("{rest:path}", "{rest}").format(**given)
        answer = service.client.request(method, address, params=query, json=BODIES.get(route), headers=headers)
    finally:
        service.parts.live.closing = False
    return answer


def routes_of(guard: Guard) -> set[str]:
    """Every route that the app serves, hidden ones too, but for the pages."""
    app: Any = guard
    while not hasattr(app, "router"):
        app = app.app
    found = set()
    for one in app.router.routes:
        for route in getattr(getattr(one, "original_router", None), "routes", [one]):
            methods = ["ANY"] if len(route.methods) > 3 else sorted(route.methods)
            found |= {f"{method} {route.path}" for method in methods}
    return found - {f"{method} {page.path}" for page in page_routes() for method in page.methods}  # test_web_access.py asks for these


def test_the_table_names_every_route(service: Service):
    """A route that is added must be added here, with who may use it."""
    assert routes_of(service.client.app) == EXPECTED.keys() | OPEN.keys()
    described = service.client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in described.items() for method in methods} <= EXPECTED.keys() | OPEN.keys()


@pytest.mark.parametrize("route", EXPECTED)
def test_each_role_gets_what_the_table_says(service: Service, fhir_ids: dict[str, str], route: str):
    """Own and foreign clinic and every other role; the own clinic's words and ids reach nobody who may not see them."""
    got = []
    for caller in CALLERS:
        given = parameters(service, route, fhir_ids)
        answer = ask(service, route, given, token_of(service, caller))
        got.append(answer.status_code)
        for claimed in service.client.get("/v1/worklist", params={"state": "claimed"}, headers=service.token("clinician")).json()["items"]:
            service.act(claimed["id"], "release")
        if caller == "foreign clinic" or answer.status_code in (401, 403, 404):
            assert SECRET not in answer.text
            assert given.get("id", SECRET) not in answer.text
    assert tuple(got) == EXPECTED[route]


@pytest.mark.parametrize("route", EXPECTED)
def test_without_a_token_that_counts_nothing_is_answered(service: Service, route: str):
    """No token, one that has ended, one for another audience, one of another issuer, and what is no token: 401."""
    settings = service.parts.settings
    other = settings_for(settings.data_dir.parent, auth_audience="another")
    stranger = settings_for(settings.data_dir.parent / "stranger")
    tokens = [
        "",
        service.issuer.mint("x", "admin", seconds=-3600),
        DevIssuer(other).mint("x", "admin"),
        DevIssuer(stranger).mint("x", "admin"),
        "x.y.z",
    ]
    given = {"id": f"r-{'0' * 32}", "sha256": "0" * 64, "vid": "1", "service_id": "nabz-patient-view"}
    if "webhooks" in route:
        given["id"] = f"w-{'0' * 32}"
    for token in tokens:
        answer = ask(service, route, given, {"Authorization": f"Bearer {token}"} if token else {})
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True), route


@pytest.mark.parametrize("route", OPEN)
def test_open_routes_answer_anybody(service: Service, route: str):
    """They hold nothing of a clinic's; a token that does not count does not matter. What is no route at all is said to callers only."""
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, known := token_of(service, "foreign clinic")):
        answer = ask(service, route, {"rest": "Nothing/1"}, headers)
        expected = 401 if route.startswith("ANY") and headers is not known else OPEN[route]
        assert (answer.status_code, SECRET in answer.text) == (expected, False)


@pytest.mark.parametrize("route", [route for route, statuses in EXPECTED.items() if statuses[1] == 404 and "{id}" in route])
def test_a_foreign_thing_looks_like_a_missing_one(service: Service, fhir_ids: dict[str, str], route: str):
    """The same status, body and headers, but for the request's id and the date."""
    given = parameters(service, route, fhir_ids)
    headers = token_of(service, "foreign clinic")
    foreign = ask(service, route, given, headers)
    missing = ask(service, route, {**given, "id": f"r-{'0' * 32}"}, headers)
    known = ask(service, route, given, token_of(service, "clinician"))

    def comparable(answer: Any) -> Any:
        body = {name: value for name, value in answer.json().items() if name != "request_id"}
        shown = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")}
        return answer.status_code, body, shown

    assert comparable(foreign) == comparable(missing)
    assert known.status_code == 200


def test_a_foreign_photo_by_its_hash_is_not_found(service: Service):
    """Knowing a photo's hash helps nobody: it must belong to a referral of the own clinic."""
    given = referral(service, "{sha256}")
    theirs = service.send(clinic=FOREIGN)["id"]
    headers = token_of(service, "foreign clinic")
    answer = ask(service, "GET /v1/referrals/{id}/photos/{sha256}", {**given, "id": theirs}, headers)
    assert (answer.status_code, answer.json()["detail"]) == (404, "the referral has no such photo")


def test_lists_hold_a_clinics_own_rows_only(service: Service, fhir_ids: dict[str, str]):
    """Worklist in every state, FHIR searches and ids: nothing of the own clinic's reaches the foreign one."""
    headers = token_of(service, "foreign clinic")
    theirs = service.send(clinic=FOREIGN)["id"]
    own = service.client.get("/v1/worklist", params={"limit": 200}, headers=token_of(service, "own clinic")).json()["items"]
    assert len(own) > 5
    for state in ("open", "waiting", "claimed", "completed", "review"):
        rows = service.client.get("/v1/worklist", params={"state": state, "limit": 200}, headers=headers).json()["items"]
        assert {row["clinic"] for row in rows} <= {FOREIGN}
    assert theirs in {row["id"] for row in service.client.get("/v1/worklist", headers=headers).json()["items"]}
    for path in ("/fhir/Task?_count=200", "/fhir/RiskAssessment?_count=200", f"/fhir/Task?_id={fhir_ids['Task']}"):
        found = service.client.get(path, headers=headers)
        assert found.status_code == 200, found.text
        shown = json.dumps(found.json().get("entry", []))
        assert not any(id_ in shown for id_ in (*(row["id"] for row in own), fhir_ids["Task"]))


def test_a_cursor_of_the_own_clinics_list_is_of_no_use_elsewhere(service: Service):
    """A page's cursor is sealed with whose list it is."""
    page = service.client.get("/v1/worklist", params={"limit": 1}, headers=token_of(service, "own clinic")).json()
    params = {"limit": 1, "cursor": page["next"]}
    assert service.client.get("/v1/worklist", params=params, headers=token_of(service, "foreign clinic")).status_code == 400


def test_fhir_references_and_conditions_reach_no_foreign_resource(service: Service, fhir_ids: dict[str, str]):
    """The own clinic's identifiers match nothing for the foreign one, and its resources cannot be built on."""
    headers = service.token("clinic", "further")
    condition = {**headers, "If-None-Exist": f"identifier={fx.MRN}|mrn-0017"}
    made = service.client.post("/fhir/Patient", json=fx.patient(), headers=condition)
    assert made.json()["id"] != fhir_ids["Patient"]
    based_on = {**BODIES["POST /fhir/Observation"], "basedOn": [{"reference": f"ServiceRequest/{fhir_ids['ServiceRequest']}"}]}
    refused = service.client.post("/fhir/Observation", json=based_on, headers=headers)
    missing = {**based_on, "basedOn": [{"reference": f"ServiceRequest/r-{'0' * 32}"}]}
    assert (refused.status_code, refused.json()) == (422, service.client.post("/fhir/Observation", json=missing, headers=headers).json())
    asked = {**fx.request(f"Patient/{fhir_ids['Patient']}"), "identifier": []}
    answer = service.client.post("/fhir/ServiceRequest", json=asked, headers=headers)
    assert answer.status_code == 201
    full = service.client.get(f"/v1/referrals/{answer.json()['id']}", headers=headers).json()
    assert (full["patient"], full["case"].get("age_years"), full["case"].get("sex", "unknown")) == (None, None, "unknown")


def test_keys_of_two_callers_do_not_meet(service: Service):
    """The same Idempotency-Key and body from another clinic is another referral."""
    ids = [service.send(clinic=clinic, **{"Idempotency-Key": "same"})["id"] for clinic in (OWN, FOREIGN)]
    assert ids[0] != ids[1]


def test_one_subject_in_two_clinics_has_two_clinics_keys(service: Service):
    """A person who works in two clinics gets no answer of the one while signed in for the other."""
    for clinic in (OWN, FOREIGN):
        token = service.issuer.mint("nurse-1", "clinic", clinic)
        answer = service.client.post("/v1/referrals", json=CASE, headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "k"})
        assert answer.json()["clinic"] == clinic
