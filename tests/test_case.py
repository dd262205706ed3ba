"""Reading one case: nothing that arrives makes it raise, and only what cannot be right is set aside."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.case import Case, Photo, Vitals, known_fields, read_case

_FIRST_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 (hypothesis adds the zone)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
JSON_VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4), max_leaves=12
)
FIELD_NAMES = st.sampled_from(sorted(known_fields())) | st.text(max_size=8)
VITAL_NAMES = st.sampled_from(sorted(Vitals.model_fields))


@given(JSON_VALUES)
def test_any_json_value_is_read_as_a_case(raw: Any) -> None:
    """Whatever arrives becomes a case with an id, and at least one problem when it is no object with an id."""
    reading = read_case(raw, "file-3")
    assert reading.case.case_id
    if not isinstance(raw, dict):
        assert reading.case.case_id == "file-3"
        assert reading.problems


@settings(max_examples=200)
@given(st.dictionaries(FIELD_NAMES, JSON_VALUES, max_size=6), st.dictionaries(VITAL_NAMES, JSON_VALUES, max_size=4))
def test_bad_fields_never_cost_the_good_ones(fields: dict[str, Any], vitals: dict[str, Any]) -> None:
    """The id and a good age stay, whatever else the case holds, and reading it again gives the same."""
    raw = fields | {"case_id": "r-17", "age_years": 58, "vitals": vitals}
    reading = read_case(raw, "file-1")
    assert (reading.case.case_id, reading.case.age_years) == ("r-17", 58)
    assert read_case(raw, "file-1") == reading
    json.dumps(reading.problems, ensure_ascii=False).encode("utf-8")


@given(
    st.builds(
        Case,
        case_id=st.text("ab-1", min_size=1, max_size=9),
        age_years=st.none() | st.floats(0, 125),
        complaint=st.text(st.characters(exclude_categories=("Cs", "Z", "C")), max_size=40),
        findings=st.dictionaries(st.sampled_from(["F_001", "E_9"]), st.sampled_from(["present", "absent", "V_3"]), max_size=2),
        vitals=st.builds(Vitals, pulse_per_minute=st.none() | st.floats(0, 330), on_oxygen=st.none() | st.booleans()),
        photos=st.lists(st.builds(Photo, path=st.just("a.jpg"), itch=st.none() | st.booleans()), max_size=2).map(tuple),
        received_at=st.none() | st.datetimes(_FIRST_DAY, timezones=st.timezones()),
    )
)
def test_a_case_survives_json(case: Case) -> None:
    """A round trip through JSON loses nothing and finds no problem."""
    reading = read_case(json.loads(case.model_dump_json(exclude_none=True)), "x")
    assert reading.case.model_dump_json() == case.model_dump_json()  # in an hour that a clock goes back, equal times compare as unequal
    assert reading.problems == ()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"vitals": {"spo2_percent": 950}},
            "vitals.spo2_percent is 950, expected 30 to 100; it was set aside as unknown: check it and send it again",
        ),
        (
            {"age_years": -1},
            "age_years is -1, expected 0 to 125; it was set aside as unknown: check it and send it again",
        ),
        ({"spo2": 95}, "unknown field spo2 was set aside (did you mean spo2_percent?)"),
        ({"photos": [{"body_site": "arm"}]}, "photos.0: Field required; it was set aside as unknown: check it and send it again"),
        (
            {"findings": {"F_001": float("nan")}},
            "findings.F_001 is nan, Input should be a valid string; it was set aside as unknown: check it and send it again",
        ),
    ],
)
def test_what_is_set_aside_is_named(fields: dict[str, Any], problem: str) -> None:
    """Each message says which field, what it held and what was expected."""
    assert problem in read_case({"case_id": "a"} | fields, "x").problems


def test_a_giant_number_costs_only_itself() -> None:
    """Numbers of thousands of digits are set aside wherever they stand."""
    giant = 10**5000
    reading = read_case({"case_id": giant, "age_years": giant, "findings": {"F_1": giant, "F_2": True}}, "file-2")
    assert reading.case == Case(case_id="file-2", findings={"F_2": "present"})
    assert len(reading.problems) == 3


def test_a_very_deep_value_costs_only_itself() -> None:
    """Nesting beyond any case is cut off instead of exhausting the stack."""
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert read_case({"case_id": "a", "complaint": "bukhar", "findings": {"F_1": deep}}, "x").case.complaint == "bukhar"


def test_an_unusable_fallback_name_is_mended() -> None:
    """A file's name that no case may bear (too long, half characters, empty) still names one."""
    assert len(read_case({}, "n" * 300).case.case_id) == 200
    assert read_case(None, "\udcff-1").case.case_id == "?-1"
    assert read_case([], " ").case.case_id == "case"


def test_a_long_complaint_keeps_its_beginning() -> None:
    """What the patient said first is read; the rest is named as cut."""
    reading = read_case({"case_id": "a", "complaint": "behosh hai " + "x" * 30_000}, "x")
    assert reading.case.complaint.startswith("behosh hai")
    assert reading.problems == ("complaint: only its first 20000 characters were read: shorten it and send it again",)


def test_a_time_without_zone_is_utc_and_the_input_is_left_alone() -> None:
    """Two cases can always be compared, and the caller's data are not changed."""
    raw = {"case_id": 7, "received_at": "2026-11-22T08:30:00", "vitals": {"pulse_per_minute": "fast"}}
    reading = read_case(raw, "x")
    assert reading.case.case_id == "7"
    assert reading.case.received_at is not None
    assert reading.case.received_at.tzinfo is not None
    assert raw["vitals"] == {"pulse_per_minute": "fast"}


def test_yes_and_no_in_a_form_s_words_are_present_and_absent():
    """0 and "no" never count as present; a DDXPlus code keeps its number."""
    raw = {"F_001": 0, "F_002": "No", "F_003": "1", "F_004": "YES", "F_005": True, "F_006": "over_2_weeks", "E_58": 0}
    case = read_case({"case_id": "a", "findings": raw}, "a").case
    assert case.findings == {
        "F_001": "absent", "F_002": "absent", "F_003": "present", "F_004": "present", "F_005": "present",
        "F_006": "over_2_weeks", "E_58": "0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "most", "says"),
    [
        ({"findings": {f"F_{n}": None for n in range(5000)}}, 401, "findings: only the first 400 of 5000 were read"),
        ({"findings": {f"F_{n}": "yes" for n in range(5000)}}, 1, "findings: only the first 400 of 5000 were read"),
        ({"photos": [{}] * 5000}, 33, "photos: only the first 32 of 5000 were read"),
        ({f"key{n}": 1 for n in range(5000)}, 11, "4990 more unknown fields were set aside"),
        ({"vitals": {f"key{n}": 1 for n in range(5000)}}, 11, "4990 more unknown fields were set aside"),
        ({"photos": [{"path": "a.jpg", **{f"key{n}": 1 for n in range(5000)}}]}, 11, "4990 more unknown fields were set aside"),
        ({"findings": {f"F_{n}": ["a"] * 200 for n in range(300)}}, 300, "findings.F_7: Input should be a valid string"),
        ({"age_years": [1] * 100_000}, 1, "age_years: Input should be a valid number"),
    ],
)
def test_more_than_a_form_can_hold_is_counted_instead_of_read(fields: dict[str, Any], most: int, says: str) -> None:
    """The work and the words for a case have an end, however much it holds; the id, the age and the pulse are kept."""
    vitals = {"pulse_per_minute": 118, **fields.pop("vitals", {})}
    reading = read_case({"case_id": "r-1", "sex": "male", "vitals": vitals, **fields}, "x")
    assert (reading.case.case_id, reading.case.sex, reading.case.vitals.pulse_per_minute) == ("r-1", "male", 118)
    assert len(reading.problems) <= most
    assert any(problem.startswith(says) for problem in reading.problems)


def test_as_much_as_a_form_can_hold_is_read_whole() -> None:
    """The bounds cost no real case anything."""
    findings = {f"F_{n}": "present" for n in range(390)} | {"E_55": [f"V_{n}" for n in range(128)]}
    reading = read_case({"case_id": "a", "findings": findings, "photos": [{"path": f"{n}.jpg"} for n in range(32)]}, "x")
    assert (len(reading.case.findings), len(reading.case.findings["E_55"]), len(reading.case.photos)) == (391, 128, 32)
    assert reading.problems == ()


def test_a_case_from_before_the_pain_score_keeps_its_hash() -> None:
    """What is stored was hashed without a pain score: a case that has none is written as it was then."""
    before = {"case_id": "r-17", "age_years": 58, "sex": "male", "complaint": "bukhar", "findings": {"F_012": "present"}}
    case = Case.model_validate(before | {"vitals": {"pulse_per_minute": 118}})
    assert hashlib.sha256(case.model_dump_json().encode()).hexdigest() == "925affcab0ad27e244106d0f49e3a776725b2ab31cde66056c696dc478f77a45"
    scored = Case.model_validate(before | {"vitals": {"pain_score": 0}})
    assert json.loads(scored.model_dump_json())["vitals"]["pain_score"] == 0


@pytest.mark.parametrize(("given", "known"), [(0, 0), (10, 10), (7.0, 7), ("7", 7), (11, None), (-1, None), (7.5, None), ("bad", None)])
def test_a_pain_score_is_a_whole_number_from_0_to_10(given: Any, known: int | None) -> None:
    """Any other answer is set aside and named, and costs nothing else."""
    reading = read_case({"case_id": "a", "vitals": {"pain_score": given, "pulse_per_minute": 80}}, "x")
    assert (reading.case.vitals.pain_score, reading.case.vitals.pulse_per_minute) == (known, 80)
    assert len(reading.problems) == (known is None)


def test_labels_to_learn_from_are_passed_over() -> None:
    """A file that `nabz-train` learns from can be ranked: its labels are neither an input nor a mistake; another unknown field is one."""
    plain = {"case_id": "a", "complaint": "bukhar"}
    labelled = plain | {"labels": {"level": 2, "level_source": "override"}}
    assert read_case(labelled, "x") == read_case(plain, "x")
    assert read_case(labelled | {"label": 2}, "x").problems != ()
