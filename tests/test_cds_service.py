"""CDS Hooks on the whole service, over a real connection: cards from real scores, feedback sealed, and nothing else stored."""

from __future__ import annotations

import json
from typing import Any

import fhir_examples as fx
import orjson
import pytest
from fhir_client import fresh, valid
from loopback import Loopback, served
from sqlalchemy import func, select

from inference.service.tables import audit, feedback, metadata

HOOK_INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
COMMENT = "already seen by Dr. Example"
UNRESPONSIVE = fx.observation("67775-7", valueCodeableConcept=fx.coded("LA9343-0"))
WELL = [fx.observation("8867-4", 72, "/min"), fx.observation("9279-1", 14, "/min"), fx.observation("59408-5", 98, "%")]
VERY_ILL = [fx.observation("59408-5", 75, "%"), UNRESPONSIVE]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for the tests of this file: they leave nothing behind but feedback."""
    with served(tmp_path_factory.mktemp("cds")) as running:
        yield running


def call(service: Loopback, name: str, *observations: dict[str, Any], role: str = "clinician", **context: Any) -> Any:
    """Call a service for a patient with these observations in the chart, ten minutes old; the response."""
    chart = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": fresh(one)} for one in observations]}
    body = {
        "hook": name,
        "hookInstance": HOOK_INSTANCE,
        "context": {"userId": "Practitioner/1", "patientId": "p1", **context},
        "prefetch": {"patient": fx.patient(id="p1"), "observations": chart},
    }
    return service.client.post(f"/cds-services/nabz-{name}", json=body, headers=service.token(role))


def drafted(*priorities: str, **more: Any) -> dict[str, Any]:
    """The context of drafted requests with these priorities, the first two of them selected."""
    drafts = [
        fresh({**fx.request("Patient/p1"), "id": f"draft-{place}", "status": "draft", "priority": priority, **more})
        for place, priority in enumerate(priorities)
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in drafts]}
    return {"selections": ["ServiceRequest/draft-0", "ServiceRequest/draft-1"], "draftOrders": bundle}


def rows(service: Loopback) -> dict[str, int]:
    """How many rows every table has; the trail of reads and changes aside."""
    with service.parts.database.engine.begin() as connection:
        tables = [table for table in metadata.sorted_tables if table not in (audit, feedback)]
        return {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}


def test_discovery_needs_no_token(service):
    """Each service has a hook, a description, and a prefetch that a client can fill in."""
    found = service.client.get("/cds-services").json()["services"]
    assert {(one["id"], one["hook"]) for one in found} == {("nabz-patient-view", "patient-view"), ("nabz-order-select", "order-select")}
    for one in found:
        assert one["title"] and one["description"] and one["prefetch"]["patient"] == "Patient/{{context.patientId}}"
        answer = service.client.post(f"/cds-services/{one['id']}", json={})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize(("observations", "levels"), [(VERY_ILL, (1, 1)), (fx.vitals(), (1, 3)), (WELL, (3, 5))])
def test_patient_view_shows_how_urgent_the_vitals_are(service, observations, levels):
    """The indicator follows the level, the summary is short, and nothing personal stands in the card."""
    before = rows(service)
    (card,) = call(service, "patient-view", *observations).json()["cards"]
    level = int(card["source"]["topic"]["code"])
    assert levels[0] <= level <= levels[1]
    assert card["indicator"] == {1: "critical", 2: "critical", 3: "warning"}.get(level, "info")
    assert card["summary"].startswith(f"Level {level} ") and 0 < len(card["summary"]) < 140
    assert "not a medical device" in card["source"]["label"] and card["overrideReasons"] and "suggestions" not in card
    assert "نمونہ" not in json.dumps(card, ensure_ascii=False) and "mrn-0017" not in json.dumps(card)
    assert rows(service) == before


def test_order_select_suggests_what_the_vitals_ask_for(service):
    """One card for each selected draft; the suggestion raises a priority that is too low, and leaves stat as it is."""
    before = rows(service)
    cards = call(service, "order-select", *VERY_ILL, **drafted("routine", "stat", "asap")).json()["cards"]
    assert [card["indicator"] for card in cards] == ["critical", "critical"]
    assert len({card["uuid"] for card in cards}) == 2
    (suggestion,) = cards[0]["suggestions"]
    (action,) = suggestion["actions"]
    assert (action["type"], action["resource"]["id"], action["resource"]["priority"]) == ("update", "draft-0", "stat")
    assert valid(action["resource"])["status"] == "draft"
    assert "suggestions" not in cards[1]
    assert rows(service) == before


def test_long_reasons_stay_within_the_cards_limits(service):
    """However much is said of a patient, and whatever characters it is said in."""
    shout = [{"text": "chest pain [x](http://example.org) `<b>` " * 40}]
    (card,) = call(service, "order-select", *fx.vitals(), **drafted("routine", reasonCode=shout)).json()["cards"]
    assert len(card["summary"]) < 140
    assert "[x](" not in card["detail"] and "<b>" not in card["detail"]


def test_who_may_call(service):
    """Clinicians; the others are told so, and a chart without vitals gives no card."""
    for role in ("clinic", "data_scientist", "admin"):
        assert call(service, "patient-view", *WELL, role=role).status_code == 403
    assert call(service, "patient-view").json() == {"cards": []}


def test_feedback_is_kept_sealed_and_audited(service):
    """Who gave it, for which service; what a clinician wrote cannot be read in the database, nor in the audit trail."""
    before = rows(service)
    sent = [
        {"card": "c1", "outcome": "accepted", "acceptedSuggestions": [{"id": "s1"}], "outcomeTimestamp": "2026-11-23T04:00:00Z"},
        {
            "card": "c2",
            "outcome": "overridden",
            "overrideReason": {"reason": {"code": "seen", "system": "urn:nabz:override-reason"}, "userComment": COMMENT},
            "outcomeTimestamp": "2026-11-23T04:00:00Z",
        },
    ]
    path, headers = "/cds-services/nabz-order-select/feedback", service.token("clinician", "asma")
    assert service.client.post(path, json={"feedback": sent}, headers=headers).json() == {}
    wrong = service.client.post(path, json={"feedback": [{"card": COMMENT, "outcome": COMMENT}]}, headers=headers)
    assert wrong.status_code == 422 and COMMENT not in wrong.text
    assert rows(service) == before
    with service.parts.database.engine.begin() as connection:
        kept = connection.execute(select(feedback).order_by(feedback.c.sequence)).fetchall()
        trail = connection.execute(select(audit.c.actor, audit.c.detail).where(audit.c.action == "cds_feedback")).fetchall()
    assert [(row.actor, row.service) for row in kept] == [("clinician-asma", "nabz-order-select")] * 2
    assert not any(COMMENT.encode() in row.content for row in kept)
    opened = [orjson.loads(service.parts.vault.unseal(row.content, "feedback:nabz-order-select")) for row in kept]
    assert opened == sent
    assert [(row.actor, json.loads(row.detail)) for row in trail] == [("clinician-asma", {"service": "nabz-order-select"})] * 2
