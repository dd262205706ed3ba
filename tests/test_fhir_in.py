"""FHIR in: what a resource says becomes a case; what is not certain is set aside with a reason."""

import json
from datetime import UTC, datetime

import fhir_examples as fx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.case import read_case
from inference.service.fhir_in import FhirCase, read_additions, read_referral
from inference.service.fhir_json import parse_json
from inference.service.fhir_problem import FhirError
from inference.service.fhir_validation import CREATED_TYPES, Identified, parse_identifier, read_bundle, read_resource

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def read(*others, patient=None, **of_request) -> FhirCase:
    sent = [read_resource(one) for one in (patient or fx.patient(), fx.request("Patient/p", **of_request), *others)]
    return read_referral(sent[1], sent[0], sent[2:], NOW)


def vital(*observations) -> dict:
    return read(*observations).case.get("vitals", {})


def test_whole_referral_becomes_a_case_that_reads_without_a_problem():
    found = read(fx.answers(), *fx.vitals(), fx.media(id="m1"))
    assert found.case == {
        "received_at": "2026-11-23T08:30:00+05:00",
        "case_id": "r-17",
        "sex": "male",
        "age_years": pytest.approx(58, abs=0.01),
        "district": "Tharparkar",
        "province": "Sindh",
        "priority": "routine",
        "complaint": fx.COMPLAINT,
        "findings": {"F_012": True, "F_013": False},
        "vitals": {
            "pulse_per_minute": 118.0,
            "respiratory_rate_per_minute": 24.0,
            "spo2_percent": 93.0,
            "on_oxygen": False,
            "systolic_mmhg": 96.0,
            "diastolic_mmhg": 60.0,
            "temperature_celsius": 37.0,
            "glucose_mg_dl": 99.088,
            "consciousness": "A",
        },
        "photos": [{"path": "media-m1", "body_site": "left forearm"}],
    }
    assert found.photos == {"media-m1": fx.jpeg()}
    assert found.patient == {
        "name": "نمونہ مریض",
        "phone": "+92-300-0000000",
        "birth_date": "1968-11-23",
        "identifiers": [{"system": fx.MRN, "value": "mrn-0017"}],
    }
    assert found.review == ()
    assert read_case(found.case, "x").problems == ()


@pytest.mark.parametrize(
    ("code", "value", "unit", "field", "expected"),
    [
        ("8867-4", 88, "{beats}/min", "pulse_per_minute", 88),
        ("2708-6", 97, "%", "spo2_percent", 97),
        ("8480-6", 16, "kPa", "systolic_mmhg", 120.0099),
        ("8310-5", 100.4, "[degF]", "temperature_celsius", 38),
        ("8310-5", 38.5, "Cel", "temperature_celsius", 38.5),
        ("2339-0", 110, "mg/dL", "glucose_mg_dl", 110),
        ("44963-7", 3, "s", "capillary_refill_seconds", 3),
        ("72514-3", 7, "{score}", "pain_score", 7),
        ("72514-3", 0, "1", "pain_score", 0),
        ("3151-8", 2, "L/min", "on_oxygen", True),
        ("3150-0", 21, "%", "on_oxygen", False),
    ],
)
def test_unit_is_converted_to_the_vitals_own(code, value, unit, field, expected):
    assert vital(fx.observation(code, value, unit)) == {field: expected}


@pytest.mark.parametrize(
    "quantity",
    [
        {"value": 38},
        {"value": 38, "unit": "C"},
        {"value": 38, "unit": "°C", "system": fx.UCUM, "code": "K"},
        {"value": 38, "unit": "Cel", "system": "urn:example:units", "code": "Cel"},
    ],
)
def test_value_without_a_known_unit_is_set_aside(quantity):
    found = read(fx.observation("8310-5", valueQuantity=quantity))
    assert "vitals" not in found.case
    assert found.review == (
        "vitals.temperature_celsius: its unit is missing or not known: set aside as unknown, send it in UCUM as Cel or [degF]",
    )


def test_unit_that_is_ucum_by_itself_needs_no_system():
    assert vital(fx.observation("8310-5", valueQuantity={"value": 38, "unit": "Cel"})) == {"temperature_celsius": 38}


def test_a_score_may_come_as_an_integer_and_nothing_else_may():
    assert vital(fx.observation("72514-3", valueInteger=7)) == {"pain_score": 7}
    found = read(fx.observation("8867-4", valueInteger=70))
    assert "vitals" not in found.case
    assert found.review == ("vitals.pulse_per_minute: no number was sent: set aside as unknown",)


def test_comparator_is_no_measurement():
    found = read(fx.observation("59408-5", valueQuantity={**fx.quantity(90, "%"), "comparator": "<"}))
    assert "vitals" not in found.case
    assert found.review[0].startswith("vitals.spo2_percent: a value that is only more or less than a number")


def test_latest_observation_counts_whatever_the_order():
    late, early, undated = (fx.observation("8867-4", value, "/min") for value in (120, 80, 60))
    late["effectiveDateTime"] = "2026-11-23T03:25:00Z"
    del undated["effectiveDateTime"]
    assert vital(late, early, undated) == {"pulse_per_minute": 120}


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled"])
def test_withdrawn_observation_is_named_and_not_read(status):
    found = read(fx.observation("8867-4", 118, "/min", status=status))
    assert "vitals" not in found.case
    assert found.review == (f"an Observation of pulse_per_minute is marked {status} and was not read",)


def test_absent_data_is_unknown_without_a_reason():
    found = read(fx.observation("8867-4", dataAbsentReason={"text": "not done"}))
    assert "vitals" not in found.case and found.review == ()


def test_unknown_code_is_named_and_its_text_is_not():
    found = read(fx.observation("29463-7", 70, "kg"), fx.observation("8867-4", 70, "/min", code={"text": "نبض"}))
    assert found.review == (
        "an Observation with code LOINC 29463-7 is not known here and was not read",
        "an Observation without a code is not known here and was not read",
    )


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [(fx.LOINC, "LA6560-2", "C"), (fx.LOINC, "LA17108-4", "V"), (fx.SNOMED, "450847001", "P"), (fx.SNOMED, "422768004", "U")],
)
def test_consciousness_by_its_answer(system, code, expected):
    assert vital(fx.observation("80288-4", valueCodeableConcept=fx.coded(code, system))) == {"consciousness": expected}


def test_unknown_consciousness_is_not_alert():
    found = read(fx.observation("67775-7", valueCodeableConcept={"text": "sleepy"}))
    assert "vitals" not in found.case
    assert "sleepy" not in found.review[0]


def test_pregnancy_known_and_asked_without_an_answer():
    assert read(fx.observation("82810-3", valueCodeableConcept=fx.coded("LA15173-0"))).case["pregnant"] is True
    assert "pregnant" not in read(fx.observation("82810-3", valueCodeableConcept=fx.coded("LA4489-6"))).case


def test_answers_by_boolean_code_word_and_number():
    found = read(
        fx.answers(
            fx.answer("F_001", valueCoding={"system": fx.SNOMED, "code": "373067005"}),
            fx.answer("F_002", valueString="Yes"),
            fx.answer("F_003", valueCoding={"code": "V_11"}),
            fx.answer("F_004", valueInteger=3),
            fx.answer("F_005", valueCoding={"system": fx.LOINC, "code": "LA4489-6"}),
            {"linkId": "group", "item": [fx.answer("/8661-1", valueString="saans phoolti hai")]},
        )
    )
    assert found.case["findings"] == {"F_001": False, "F_002": True, "F_003": "V_11", "F_004": 3}
    assert found.case["complaint"] == f"{fx.COMPLAINT}\nsaans phoolti hai"
    assert found.review == ()


def test_answers_that_cannot_be_read_are_named_and_never_quoted():
    found = read(
        fx.answers(
            fx.answer("F_001", valueString="a secret of the patient"),
            {"linkId": "F_002", "answer": [{"valueBoolean": True}, {"valueBoolean": False}]},
            fx.answer("smoker", valueString="another secret"),
            fx.answer("who is your husband", valueString="a name"),
        )
    )
    assert "findings" not in found.case
    assert found.review == (
        "findings.F_001: its answer is no yes, no, number or code: set aside as unknown",
        "findings.F_002: answered both yes and no, set aside as unknown, ask again",
        "item smoker of the questionnaire is not known here: its answer was not read",
        "an item of the questionnaire is not known here: its answer was not read",
    )


def test_complaint_of_all_sources_stands_once():
    asked = read(
        fx.answers(fx.answer("complaint", valueString="bukhar")),
        reasonCode=[{"text": "fever"}, {"coding": [{"system": fx.SNOMED, "code": "386661006", "display": "Fever"}]}],
        note=[{"text": "fever"}, {"text": "three days"}],
        code={"text": "teleconsultation"},
    )
    assert asked.case["complaint"] == "fever\nFever\nthree days\nbukhar"
    assert read(reasonCode=None, code={"text": "chest pain"}).case["complaint"] == "chest pain"


@pytest.mark.parametrize(("gender", "sex"), [("female", "female"), ("other", "unknown"), ("unknown", "unknown"), (None, "unknown")])
def test_gender_becomes_sex_only_where_it_says_it(gender, sex):
    assert read(patient=fx.patient(gender=gender)).case["sex"] == sex


@pytest.mark.parametrize(
    ("birth", "age"),
    [("2026-11-03", 0.055), ("2026-09", 0.189), ("1990", 36.4), ("2025", None), ("2027-01-01", None), (None, None)],
)
def test_age_at_the_request_as_far_as_the_birth_date_says_it(birth, age):
    found = read(patient=fx.patient(birthDate=birth)).case
    assert found.get("age_years") == (None if age is None else pytest.approx(age, abs=0.01))


@pytest.mark.parametrize(
    ("authored", "received"),
    [("2026-11-22", "2026-11-23T00:00:00+00:00"), ("2026-11", NOW.isoformat()), (None, NOW.isoformat()), ("2026-11-23", NOW.isoformat())],
)
def test_request_without_an_hour_came_at_the_end_of_its_day_or_now(authored, received):
    assert read(authoredOn=authored).case["received_at"] == received


def test_identifier_of_the_patient_never_names_the_case():
    found = read(identifier=[{"value": "42101-1234567-1"}, {"value": "mrn-0017"}])
    assert "case_id" not in found.case
    assert found.review == ("the ServiceRequest's identifier is a person's: it was not used as the case's name",)


def test_old_measurement_is_used_and_named():
    old = fx.observation("8867-4", 118, "/min", effectiveDateTime="2026-11-20T08:00:00Z")
    assert vital(old) == {"pulse_per_minute": 118}
    assert read(old).review == ("pulse_per_minute was measured more than 24 hours before the request: measure it again",)


def test_request_that_asks_for_nothing_is_refused():
    with pytest.raises(FhirError, match="only a request that is still open can be queued"):
        read(status="revoked")
    with pytest.raises(FhirError, match="a request not to do something cannot be queued"):
        read(doNotPerform=True)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"content": {"contentType": "image/jpeg", "url": "https://example.org/1.jpg"}}, "a Media has no data"),
        ({"content": {"contentType": "video/mp4", "data": "AAAA"}}, "a Media is not a JPEG"),
        ({"content": {"contentType": "image/png", "data": "!!!!"}}, "a Media's data is not base64"),
        ({"status": "entered-in-error"}, "a Media is marked entered-in-error"),
    ],
)
def test_photo_that_cannot_be_read_is_a_reason(more, reason):
    found = read(fx.media(**more))
    assert found.photos == {} and "photos" not in found.case
    assert found.review[0].startswith(reason)


def test_addition_holds_only_what_is_new():
    earlier = read_resource(fx.observation("8867-4", 118, "/min"))
    older = read_resource(fx.observation("8867-4", 70, "/min", effectiveDateTime="2026-11-23T01:00:00Z"))
    newer = read_resource(fx.observation("59408-5", 88, "%"))
    assert read_additions([older, newer], [earlier], NOW).case == {"vitals": {"spo2_percent": 88}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"resourceType":"Patient","gender":"male","gender":"female"}', "the same key twice"),
        (b"[]", "the body is not a JSON object"),
        (b'{"a":NaN}', "NaN and Infinity are no JSON"),
        (b'{"a":1e999}', "a number has more than 40 digits"),
        (b'{"a":' + b"9" * 5000 + b"}", "a number has more than 40 digits"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nests more than 40 levels"),
        (b"[" * 100_000, "nests more than 40 levels|not valid JSON"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'{"a":"\\u0000"}', "a control character"),
        (b"\xff\xfe", "the body is not UTF-8"),
        (b"{", "the body is not valid JSON"),
        (b"", "the body is not valid JSON"),
    ],
)
def test_json_that_fhir_does_not_allow_is_refused(body, message):
    with pytest.raises(FhirError, match=message):
        parse_json(body)


@pytest.mark.parametrize(
    ("resource", "issue"),
    [
        (fx.observation("8867-4", status="bogus"), ("code-invalid", "Observation.status")),
        (fx.request(priority="bogus"), ("code-invalid", "ServiceRequest.priority")),
        (fx.request(intent="bogus"), ("code-invalid", "ServiceRequest.intent")),
        (fx.patient(gender="bogus"), ("code-invalid", "Patient.gender")),
        (fx.media(status="bogus"), ("code-invalid", "Media.status")),
        ({**fx.answers(), "status": "bogus"}, ("code-invalid", "QuestionnaireResponse.status")),
        (
            fx.observation("8867-4", valueQuantity={"value": 1, "comparator": "~"}),
            ("code-invalid", "Observation.valueQuantity.comparator"),
        ),
        (fx.patient(address=[{"use": "bogus"}]), ("code-invalid", "Patient.address[0].use")),
        (fx.request("Medication/1"), ("value", "ServiceRequest.subject.reference")),
        (fx.patient(nickname="x"), ("structure", "Patient.nickname")),
        (fx.patient(**{"a patient's words": 1}), ("structure", "Patient.(unnamed)")),
        (fx.patient(birthDate="yesterday"), ("value", "Patient.birthDate")),
        (fx.patient(modifierExtension=[{"url": "urn:x", "valueBoolean": True}]), ("extension", "Patient.modifierExtension")),
        ({"resourceType": "Observation", "code": {"text": "x"}}, ("required", "Observation.status")),
        ({"resourceType": "Claim"}, ("not-supported", "")),
        ({"resourceType": "Nope"}, ("structure", "")),
        ({}, ("structure", "")),
        (fx.patient(contained=[{"resourceType": "Nope"}]), ("structure", "Patient")),
    ],
)
def test_resource_that_breaks_fhirs_rules_is_refused_by_path(resource, issue):
    with pytest.raises(FhirError) as error:
        read_resource(resource)
    found = error.value.issues[0]
    assert (found.code, found.expression) == issue


def test_extension_of_a_primitive_is_read_past():
    unknown = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
    sent = fx.patient(_birthDate=unknown)
    del sent["birthDate"]
    assert "age_years" not in read(patient=sent).case


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "history"}, "only transaction and batch Bundles"),
        ({"type": "bogus"}, "expected one of batch"),
        ({"entry": {}}, "expected a list of entries"),
        ({"entry": [fx.entry(fx.patient())] * 201}, "may have 200 entries"),
        ({"entry": [fx.entry(fx.patient(), fx.PATIENT_URL)] * 2}, "the same fullUrl stands twice"),
        ({"entry": [{"resource": fx.patient()}]}, "each entry needs a request"),
        ({"entry": [{"resource": fx.patient(), "request": {"method": "PUT", "url": "Patient/1"}}]}, "only POST is supported"),
        ({"entry": [{"resource": fx.patient(), "request": {"method": "BREW", "url": "Patient"}}]}, "expected one of DELETE"),
        ({"entry": [{"resource": fx.patient(), "request": {"method": "POST", "url": "Media"}}]}, "expected the url Patient"),
        ({"entry": [{"request": {"method": "POST", "url": "Patient"}}]}, "expected a resource"),
        ({"entry": [fx.entry(fx.patient(), "17")]}, "expected an absolute fullUrl"),
        ({"entry": [fx.entry(fx.patient(), None, "name=x")]}, "only a search of the form identifier"),
        ({"entry": [fx.entry(fx.patient(gender="x"))]}, r"Bundle.entry\[0\].resource.gender: expected one of"),
    ],
)
def test_bundle_that_cannot_be_carried_out_is_refused(change, message):
    with pytest.raises(FhirError, match=message):
        read_bundle({**fx.transaction(), **change})


def test_other_resources_stay_as_entries_without_content():
    condition = {"resourceType": "Condition", "subject": {"reference": fx.PATIENT_URL}}
    found = read_bundle(fx.bundle(fx.entry(condition)))
    assert [(one.kind, one.resource) for one in found.entries] == [("Condition", None)]


def test_batch_keeps_the_problem_of_an_entry_with_that_entry():
    found = read_bundle(fx.bundle(fx.entry(fx.patient(gender="x")), fx.entry(fx.patient()), kind="batch"))
    assert isinstance(found.entries[0], FhirError) and found.entries[1].kind == "Patient"


def test_identifier_search_with_and_without_a_system():
    assert parse_identifier("identifier=urn:a|7", "") == Identified("urn:a", "7")
    assert parse_identifier("?identifier=7", "") == Identified(None, "7")
    assert parse_identifier("identifier=%7C7", "") == Identified("", "7")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    "status code subject valueQuantity valueString item linkId answer content identifier extension contained component _status".split()
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CREATED_TYPES), st.dictionaries(_KEYS, _JSON, max_size=5))
def test_no_resource_raises_anything_but_a_problem(kind, fields):
    """Whatever stands in a resource, it is read or refused; what was read becomes a case that can be stored."""
    base = {"Observation": fx.observation("8867-4"), "ServiceRequest": fx.request("Patient/p"), "Media": fx.media()}
    try:
        resource = read_resource({"resourceType": kind, **base.get(kind, {}), **fields})
        others = [] if kind in ("Patient", "ServiceRequest") else [resource]
        asked = resource if kind == "ServiceRequest" else read_resource(fx.request("Patient/p"))
        found = read_referral(asked, resource if kind == "Patient" else None, others, NOW)
    except FhirError:
        return
    json.dumps([found.case, found.patient, found.review])
    assert read_case(found.case, "x").case.case_id
