"""The code systems that FHIR resources are read and written with: LOINC, UCUM, SNOMED CT answers, required bindings.

Tables only. What a vital means for the patient is not known here, nor how a resource is taken apart.
Codes: LOINC 2.77 vital signs panel (85353-1) and its members; level of responsiveness 67775-7 with its answers;
IPS pregnancy status; pain on the numeric rating scale from 0 to 10, 72514-3; UCUM as FHIR's vital signs profile asks for it.
Factors: NIST SP 811 (mmHg, degree Fahrenheit); glucose by its molar mass, 180.16 g/mol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from inference.case import Consciousness, Priority

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
YES_NO_V2 = "http://terminology.hl7.org/CodeSystem/v2-0136"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
RISK_PROBABILITY = "http://terminology.hl7.org/CodeSystem/risk-probability"
TASK_CODE = "http://hl7.org/fhir/CodeSystem/task-code"
FINDING_SYSTEM = "urn:nabz:finding"
CASE_SYSTEM = "urn:nabz:case"
REFERRAL_SYSTEM = "urn:nabz:referral"
USER_SYSTEM = "urn:nabz:user"
LEVEL_SYSTEM = "urn:nabz:level"
OVERRIDE_SYSTEM = "urn:nabz:override-reason"

Code = tuple[str, str]  # system, code


class Conversion(NamedTuple):
    """How a value in one unit becomes the vital's own: `value * factor + offset`."""

    factor: float = 1.0
    offset: float = 0.0


class Measure(NamedTuple):
    """A vital of the case that a code stands for, and the units that it may come in."""

    vital: str
    units: Mapping[str, Conversion]


_AS_IS = Conversion()
_PER_MINUTE = {"/min": _AS_IS, "1/min": _AS_IS, "min-1": _AS_IS, "{counts}/min": _AS_IS}
_PULSE = Measure("pulse_per_minute", {**_PER_MINUTE, "{beats}/min": _AS_IS, "{Beats}/min": _AS_IS})
_BREATHS = Measure("respiratory_rate_per_minute", {**_PER_MINUTE, "{breaths}/min": _AS_IS, "{Breaths}/min": _AS_IS})
_SPO2 = Measure("spo2_percent", {"%": _AS_IS})
_PRESSURE = {"mm[Hg]": _AS_IS, "kPa": Conversion(factor=7.500617)}
_TEMPERATURE = Measure("temperature_celsius", {"Cel": _AS_IS, "[degF]": Conversion(5 / 9, -160 / 9)})
SCORE = "{score}"  # a count without a unit, which may also come as valueInteger
_PAIN = Measure("pain_score", {SCORE: _AS_IS, "1": _AS_IS})
_GLUCOSE = Measure("glucose_mg_dl", {"mg/dL": _AS_IS, "mmol/L": Conversion(factor=18.016)})

MEASURES: Mapping[Code, Measure] = {
    (LOINC, "8867-4"): _PULSE,
    (LOINC, "9279-1"): _BREATHS,
    (LOINC, "2708-6"): _SPO2,
    (LOINC, "59408-5"): _SPO2,
    (LOINC, "8480-6"): Measure("systolic_mmhg", _PRESSURE),
    (LOINC, "8462-4"): Measure("diastolic_mmhg", _PRESSURE),
    (LOINC, "8310-5"): _TEMPERATURE,
    (LOINC, "2339-0"): _GLUCOSE,
    (LOINC, "15074-8"): _GLUCOSE,
    (LOINC, "44963-7"): Measure("capillary_refill_seconds", {"s": _AS_IS}),
    (LOINC, "72514-3"): _PAIN,
}
# Oxygen is given when the flow is above nothing, or the inhaled share above that of air (20.9 %).
OXYGEN: Mapping[Code, tuple[str, float]] = {(LOINC, "3151-8"): ("L/min", 0.0), (LOINC, "3150-0"): ("%", 21.0)}
PANELS = frozenset({(LOINC, "85354-9"), (LOINC, "55284-4"), (LOINC, "85353-1"), (LOINC, "8716-3")})
CONSCIOUSNESS_CODES = frozenset({(LOINC, "80288-4"), (LOINC, "67775-7"), (LOINC, "11454-6")})
PREGNANCY_CODES = frozenset({(LOINC, "82810-3")})
COMPLAINT_CODES = frozenset({(LOINC, "8661-1"), (LOINC, "10154-3")})

# LOINC's list for 67775-7 has no answer for confusion; LA6560-2 (Confused) is its answer elsewhere.
CONSCIOUSNESS: Mapping[Code, Consciousness] = {
    (LOINC, "LA9340-6"): "A",
    (LOINC, "LA6560-2"): "C",
    (LOINC, "LA17108-4"): "V",
    (LOINC, "LA17107-6"): "P",
    (LOINC, "LA9343-0"): "U",
    (SNOMED, "248234008"): "A",
    (SNOMED, "130987000"): "C",
    (SNOMED, "300202002"): "V",
    (SNOMED, "450847001"): "P",
    (SNOMED, "422768004"): "U",
}
PREGNANCY: Mapping[Code, bool | None] = {
    (LOINC, "LA15173-0"): True,
    (LOINC, "LA26683-5"): False,
    (LOINC, "LA4489-6"): None,
    (SNOMED, "77386006"): True,
    (SNOMED, "60001007"): False,
}
# None: asked, and not known.
ANSWERS: Mapping[Code, bool | None] = {
    (LOINC, "LA33-6"): True,
    (LOINC, "LA32-8"): False,
    (LOINC, "LA4489-6"): None,
    (SNOMED, "373066001"): True,
    (SNOMED, "373067005"): False,
    (SNOMED, "261665006"): None,
    (YES_NO_V2, "Y"): True,
    (YES_NO_V2, "N"): False,
    (FINDING_SYSTEM, "present"): True,
    (FINDING_SYSTEM, "absent"): False,
    (FINDING_SYSTEM, "unknown"): None,
}

COMPLAINT_LINKS = frozenset({"complaint", "chief-complaint", "chief_complaint", "8661-1", "10154-3"})
CASE_LINKS = frozenset({"pregnant", "known_hypercapnic_failure"})

URGENCY: Mapping[Priority, int] = {"routine": 0, "urgent": 1, "asap": 2, "stat": 3}
PRIORITY_OF_LEVEL: Mapping[int, Priority] = {1: "stat", 2: "asap", 3: "urgent", 4: "routine", 5: "routine"}


def priority_of(level: int, human: Priority | None) -> Priority:
    """The FHIR priority of a level, or the human's own where that is more urgent."""
    own = PRIORITY_OF_LEVEL[level]
    return human if human is not None and URGENCY[human] > URGENCY[own] else own


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OBSERVATION_STATUS = _words("registered preliminary final amended corrected cancelled entered-in-error unknown")

# fhir.resources knows most value sets but checks none, and lists these only in part.
BINDINGS: Mapping[tuple[str, str], frozenset[str]] = {
    ("Observation", "status"): _OBSERVATION_STATUS,
    ("RiskAssessment", "status"): _OBSERVATION_STATUS,
    ("QuestionnaireResponse", "status"): _words("in-progress completed amended entered-in-error stopped"),
    ("Task", "status"): _words(
        "draft requested received accepted rejected ready cancelled in-progress on-hold failed completed entered-in-error"
    ),
    ("Quantity", "comparator"): frozenset({"<", "<=", ">=", ">"}),
    ("Narrative", "status"): _words("generated extensions additional empty"),
    ("Address", "use"): _words("home work temp old billing"),
    ("Address", "type"): _words("postal physical both"),
    ("PatientLink", "type"): _words("replaced-by replaces refer seealso"),
    ("OperationOutcomeIssue", "severity"): _words("fatal error warning information"),
    ("OperationOutcomeIssue", "code"): _words(
        "invalid structure required value invariant security login unknown expired forbidden suppressed processing not-supported"
        " duplicate multiple-matches not-found deleted too-long code-invalid extension too-costly business-rule conflict transient"
        " lock-error no-store exception timeout incomplete throttled informational"
    ),
    ("CapabilityStatementRestResourceInteraction", "code"): _words(
        "read vread update patch delete history-instance history-type create search-type"
    ),
    ("CapabilityStatementRestInteraction", "code"): _words("transaction batch search-system history-system"),
    ("CapabilityStatementRestResourceSearchParam", "type"): _words("number date string token reference composite quantity uri special"),
}
