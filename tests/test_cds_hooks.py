"""CDS Hooks: discovery, cards within the specification's limits, suggestions that only raise, and feedback."""

import json

import fhir_examples as fx
import fhir_fakes as fakes
import pytest
from fastapi import FastAPI, Header

from inference.assessment import Reason
from inference.case import CaseReading, read_case
from inference.service.callers import Who
from inference.service.cds_cards import SUMMARY_LENGTH, cards_for
from inference.service.cds_hooks import SERVICES, cds_router
from inference.service.problems import install

CALLERS = {"doctor": Who("dr-1", "clinician"), "a": Who("nurse-a", "clinic", "a")}
HOOK_INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"


class Backend:
    """Scores by hand and keeps feedback in a list."""

    def __init__(self) -> None:
        self.cases, self.feedback = [], []

    async def assess(self, who, content):
        self.cases.append(content.case)
        reading = read_case({"case_id": "cds", **content.case}, "cds")
        return fakes.assessment(CaseReading(reading.case, reading.problems), level=3)

    async def store_feedback(self, who, service_id, feedback):
        self.feedback.append((who.subject, service_id, feedback))


async def caller(authorization: str = Header("")) -> Who:
    return CALLERS[authorization]


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def client(backend):
    app = FastAPI()
    install(app)
    app.include_router(cds_router(backend, caller, clock=lambda: fakes.NOW))
    return fakes.Client(app, {"authorization": "doctor"})


def chart(*observations) -> dict:
    searchset = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in observations]}
    return {"patient": fx.patient(id="p1"), "observations": searchset}


def call(hook: str, prefetch: dict | None = None, **context) -> dict:
    given = {"userId": "Practitioner/1", "patientId": "p1", **context}
    prefetch = chart(*fx.vitals()) if prefetch is None else prefetch
    return {"hook": hook, "hookInstance": HOOK_INSTANCE, "context": given, "prefetch": prefetch}


def order(**more) -> dict:
    draft = {**fx.request("Patient/p1"), "id": "draft-1", "status": "draft", **more}
    drafts = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": draft}]}
    return {"selections": ["ServiceRequest/draft-1"], "draftOrders": drafts}


def test_discovery_lists_every_service_without_a_token(client):
    found = client.get("/cds-services", headers={"authorization": ""}).json()["services"]
    assert {one["id"]: one["hook"] for one in found} == {one.id: one.hook for one in SERVICES.values()}
    assert all(one["prefetch"]["patient"] == "Patient/{{context.patientId}}" for one in found)


def test_patient_view_answers_with_one_card_of_the_vitals(client, backend):
    (card,) = client.post("/cds-services/nabz-patient-view", json=call("patient-view")).json()["cards"]
    assert card["indicator"] == "warning"
    assert card["summary"] == "Level 3 urgent: shock"
    assert "**Why**\n\n- NEWS2 is 7" in card["detail"]
    assert card["source"]["label"] and card["overrideReasons"] and "suggestions" not in card
    assert backend.cases[0]["vitals"]["pulse_per_minute"] == 118
    assert backend.feedback == []


def test_chart_without_recent_vitals_gives_no_card(client, backend):
    weight = fx.observation("29463-7", 70, "kg")
    old = fx.observation("8867-4", 150, "/min", effectiveDateTime="2026-11-20T08:00:00Z")
    for prefetch in (chart(), chart(weight), chart(old), {**chart(), "observations": None}):
        assert client.post("/cds-services/nabz-patient-view", json=call("patient-view", prefetch)).json() == {"cards": []}
    assert backend.cases == []


def test_order_select_suggests_to_raise_a_priority_that_is_too_low(client):
    found = client.post("/cds-services/nabz-order-select", json=call("order-select", **order())).json()
    (suggestion,) = found["cards"][0]["suggestions"]
    assert suggestion["label"] == "Raise the priority to urgent"
    assert found["cards"][0]["selectionBehavior"] == "at-most-one"
    (action,) = suggestion["actions"]
    assert (action["type"], action["resource"]["priority"], action["resource"]["id"]) == ("update", "urgent", "draft-1")
    assert action["resource"]["status"] == "draft"


def test_priority_that_is_high_enough_is_left_alone(client):
    found = client.post("/cds-services/nabz-order-select", json=call("order-select", **order(priority="stat"))).json()
    assert "suggestions" not in found["cards"][0]


def test_order_that_is_not_selected_gets_no_card(client, backend):
    body = call("order-select", **{**order(), "selections": ["MedicationRequest/1"]})
    assert client.post("/cds-services/nabz-order-select", json=body).json() == {"cards": []}


@pytest.mark.parametrize("missing", ["patient", "observations"])
def test_missing_prefetch_is_a_failed_precondition(client, missing):
    prefetch = {key: value for key, value in chart().items() if key != missing}
    response = client.post("/cds-services/nabz-patient-view", json=call("patient-view", prefetch))
    assert response.status_code == 412
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == f"send {missing} in prefetch: nothing is fetched from here"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/cds-services/other", call("patient-view"), 404),
        ("/cds-services/other/feedback", {}, 404),
        ("/cds-services/nabz-patient-view", call("order-select"), 422),
        ("/cds-services/nabz-patient-view", {"hook": "patient-view"}, 422),
        ("/cds-services/nabz-patient-view", call("patient-view", {**chart(), "patient": fx.patient(gender="x")}), 422),
        ("/cds-services/nabz-order-select", call("order-select"), 422),
        ("/cds-services/nabz-order-select", call("order-select", **order(subject={"reference": "Patient/p2"})), 422),
        ("/cds-services/nabz-order-select", call("order-select", **order(status="revoked", intent="bogus")), 422),
        ("/cds-services/nabz-patient-view/feedback", {"feedback": []}, 422),
        ("/cds-services/nabz-patient-view/feedback", {"feedback": [{"card": "c", "outcome": "ignored"}]}, 422),
    ],
)
def test_call_that_cannot_be_answered_is_a_problem(client, path, body, status):
    response = client.post(path, json=body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a":1,"a":2}', b"[" * 20000])
def test_broken_json_is_a_problem(client, body):
    assert client.post("/cds-services/nabz-patient-view", content=body).status_code == 400


def test_role_that_may_not_call_is_refused(client):
    for path in ("/cds-services/nabz-patient-view", "/cds-services/nabz-patient-view/feedback"):
        assert client.post(path, json={}, headers={"authorization": "a"}).status_code == 403


def test_feedback_is_stored_one_by_one(client, backend):
    sent = [
        {"card": "c1", "outcome": "accepted", "acceptedSuggestions": [{"id": "s1"}], "outcomeTimestamp": "2026-11-23T04:00:00Z"},
        {
            "card": "c2",
            "outcome": "overridden",
            "overrideReason": {"reason": {"code": "seen", "system": "urn:nabz:override-reason"}, "userComment": "seen"},
            "outcomeTimestamp": "2026-11-23T04:00:00Z",
        },
    ]
    assert client.post("/cds-services/nabz-patient-view/feedback", json={"feedback": sent}).status_code == 200
    assert backend.feedback == [("dr-1", "nabz-patient-view", one) for one in sent]


@pytest.mark.parametrize(("level", "indicator"), [(1, "critical"), (2, "critical"), (3, "warning"), (4, "info"), (5, "info")])
def test_indicator_follows_the_level(level, indicator):
    (card,) = cards_for(fakes.assessment(level=level), None, ())
    assert card["indicator"] == indicator


def test_summary_stays_below_140_characters_and_markdown_is_escaped():
    long = Reason(kind="rule", direction="for", text="[click](http://example.org) " * 20)
    (card,) = cards_for(fakes.assessment(red_flags=(), reasons=(long,)), None, ())
    assert len(card["summary"]) == SUMMARY_LENGTH < 140
    assert "[click](" not in card["detail"]


def test_case_that_nothing_scored_is_no_card_for_a_chart_and_one_for_an_order():
    bare = fakes.assessment(scored_by="nothing", emergency_probability=None)
    assert cards_for(bare, None, ()) == []
    assert len(cards_for(bare, fx.request(), ())) == 1


def test_body_of_an_answer_is_json_with_unique_ids(client):
    cards = [client.post("/cds-services/nabz-patient-view", json=call("patient-view")).json()["cards"][0] for _ in range(2)]
    assert len({card["uuid"] for card in cards}) == 2
    assert "نمونہ" not in json.dumps(cards, ensure_ascii=False)
