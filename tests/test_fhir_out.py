"""FHIR out: RiskAssessment, Task, OperationOutcome and CapabilityStatement hold against fhir.resources and the bindings."""

import importlib
from dataclasses import replace

import fhir_fakes as fakes
import pytest

from inference.assessment import NOTICE, Review
from inference.service.fhir_capability import RESOURCES, capability_statement
from inference.service.fhir_codes import PRIORITY_OF_LEVEL, URGENCY, priority_of
from inference.service.fhir_out import created, refused, response_bundle, risk_assessment, searchset, task
from inference.service.fhir_problem import FhirError, Issue, operation_outcome, problem
from inference.service.fhir_validation import _walk


def valid(resource: dict) -> dict:
    """The resource, once the library and the bindings have nothing against it."""
    kind = resource["resourceType"]
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind).model_validate(resource)
    assert list(_walk(model, kind)) == []
    return resource


def test_risk_assessment_says_what_the_assessment_says():
    found = valid(risk_assessment(fakes.view()))
    assert found["basedOn"] == {"reference": "ServiceRequest/ref-1", "type": "ServiceRequest"}
    assert found["subject"] == {"reference": "Patient/pat-1", "type": "Patient"}
    assert found["occurrenceDateTime"] == "2026-11-23T04:00:00.000Z"
    assert found["mitigation"] == "to be seen by a clinician within 60 minutes; specialty: cardiology"
    assert found["method"]["text"] == "scored by models and rules; rules 1; models: acuity 1 (aaaaaaaaaaaa)"
    assert found["prediction"][0]["probabilityDecimal"] == 12.3457
    assert found["prediction"][0]["qualitativeRisk"]["coding"][0]["code"] == "high"
    assert found["prediction"][0]["rationale"] == "NEWS2 is 7"
    assert found["prediction"][1:] == [
        {
            "outcome": {
                "text": "Angina",
                "coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I20.9", "display": "Angina"}],
            },
            "probabilityDecimal": 33.3333,
        },
        {"outcome": {"text": "Reflux"}, "probabilityDecimal": 25.0},
        {"outcome": {"text": "malignant skin lesion (the photo looks most like nevus)"}, "probabilityDecimal": 2.0},
    ]
    assert [note["text"] for note in found["note"]] == [NOTICE, "red flag: shock", "chest pain (for Angina)"]


def test_case_that_nothing_scored_has_a_risk_without_a_probability():
    bare = fakes.assessment(
        emergency_probability=None, differential=(), lesion=None, red_flags=(), reasons=(), scored_by="nothing", level=3
    )
    found = valid(risk_assessment(fakes.view(assessment=bare)))
    assert len(found["prediction"]) == 1 and "probabilityDecimal" not in found["prediction"][0]


@pytest.mark.parametrize(
    ("state", "holder", "status"), [("waiting", None, "requested"), ("claimed", "dr-1", "accepted"), ("completed", None, "completed")]
)
def test_task_follows_the_referrals_state(state, holder, status):
    found = valid(task(fakes.view(state=state, holder=holder)))
    assert found["status"] == status
    assert found.get("owner", {}).get("identifier", {}).get("value") == holder
    assert found["focus"] == found["basedOn"][0] == {"reference": "ServiceRequest/ref-1", "type": "ServiceRequest"}
    assert found["restriction"]["period"]["end"] == "2026-11-23T05:00:00.000Z"
    assert found["output"][0]["valueReference"] == {"reference": "RiskAssessment/ref-1"}


def test_referral_that_did_not_come_by_fhir_is_named_by_its_case():
    other = fakes.view(request_id=None, patient_id=None)
    for found in (valid(task(other)), valid(risk_assessment(other))):
        assert "basedOn" not in found
        assert (found.get("for") or found["subject"])["identifier"] == {"system": "urn:nabz:case", "value": "r-17"}


def test_reasons_for_review_are_the_tasks_status_reason():
    asked = fakes.assessment().model_copy(update={"review": Review(needed=True, why=("check the unit", "no photo"))})
    assert valid(task(fakes.view(assessment=asked)))["statusReason"] == {"text": "check the unit; no photo"}


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("human", [None, *URGENCY])
def test_priority_is_the_levels_and_never_below_the_humans(level, human):
    found = priority_of(level, human)
    assert URGENCY[found] == max(URGENCY[PRIORITY_OF_LEVEL[level]], URGENCY.get(human, 0))
    assert valid(task(fakes.view(level=level, priority=human)))["priority"] == found


def test_bundles_are_valid():
    shown = [task(fakes.view()), risk_assessment(fakes.view())]
    valid(
        searchset("https://example.org/fhir", shown, {"self": "https://example.org/fhir/Task", "next": "https://example.org/fhir/Task?x"})
    )
    valid(searchset("https://example.org/fhir", [], {"self": "https://example.org/fhir/Task"}))
    entries = [created("Patient", "p", 1, fakes.NOW), refused("422", [Issue("error", "business-rule", "no", "Bundle")])]
    assert valid(response_bundle("transaction", entries))["entry"][0]["response"] == {
        "status": "201 Created",
        "location": "Patient/p/_history/1",
        "etag": 'W/"1"',
        "lastModified": "2026-11-23T04:00:00.000Z",
    }


def test_outcome_keeps_order_and_stops_at_twenty_issues():
    error = FhirError(Issue("error", "value", f"the {place}th", f"Bundle.entry[{place}]") for place in range(30))
    found = valid(operation_outcome(error.issues))
    assert [one["expression"][0] for one in found["issue"]] == [f"Bundle.entry[{place}]" for place in range(20)]
    assert str(problem("value", "wrong", "Patient.gender")) == "Patient.gender: wrong"


def test_capability_statement_is_valid_and_lists_the_table():
    found = valid(capability_statement("https://example.org/fhir", "0.1.0"))
    assert [one["type"] for one in found["rest"][0]["resource"]] == [one.kind for one in RESOURCES]


def test_later_version_shows_in_the_meta():
    later = replace(fakes.view(), version=4, assessment_version=2)
    assert task(later)["meta"]["versionId"] == "4" and risk_assessment(later)["meta"]["versionId"] == "2"
