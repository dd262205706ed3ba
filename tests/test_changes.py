"""What changed between two assessments, and how newly known things join a case."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inference.assessment import Assessment
from inference.case import Case, read_case
from inference.service.changes import merged, refused_priority, still_open, what_changed

CASE = Case.model_validate(
    {
        "case_id": "c-1",
        "received_at": datetime(2026, 7, 1, tzinfo=UTC),
        "age_years": 58,
        "complaint": "no chest pain",
        "findings": {"F_fever": "present", "F_cough": "absent"},
        "vitals": {"pulse_per_minute": 118, "spo2_percent": 93},
        "photos": [{"path": "a.jpg"}],
        "priority": "urgent",
    }
)


def assessment(level: int, **given) -> Assessment:
    """An assessment with what the changes look at."""
    values = {
        "case_id": "c-1", "rank": 1, "level": level, "level_name": "x", "wait_cap_minutes": 1, "received_at": "", "emergency_probability": 0.1,
        "critical_probability": None, "floor_level": 5, "scored_by": "rules alone", "red_flags": (), "differential": (), "prediction_set": (),
        "specialty": "general", "lesion": None, "news2": None, "unknown_vitals": (), "findings": {}, "not_understood": (),
        "review": {"needed": False, "why": ()}, "reasons": (), **given,
    }  # fmt: skip
    return Assessment.model_construct(**values)


def test_levels_probability_flags_and_findings_are_compared():
    """What is new, what is gone, what has another value."""
    before = assessment(3, red_flags=("a", "b"), prediction_set=("x",), findings={"F_1": "present", "F_2": "present", "F_3": "absent"})
    after = assessment(
        2,
        red_flags=("b", "c"),
        prediction_set=("x", "y"),
        findings={"F_1": "present", "F_3": "present", "F_4": "absent"},
        emergency_probability=0.7,
    )
    changes = what_changed(before, after, 3, 2)
    assert changes["level"] == changes["machine_level"] == {"before": 3, "after": 2}
    assert changes["emergency_probability"] == {"before": 0.1, "after": 0.7}
    assert changes["red_flags"] == {"added": ["c"], "removed": ["a"]}
    assert changes["prediction_set"] == {"added": ["y"], "removed": []}
    assert changes["findings"] == {"F_3": "present", "F_4": "absent"}
    assert changes["findings_withdrawn"] == ["F_2"]
    assert changes["kept"] == ""


def test_a_level_that_was_kept_is_explained():
    """The machine would be less urgent; the queue is not, and says who could lower it."""
    assert what_changed(assessment(2), assessment(4), 2, 2)["kept"] == (
        "the new assessment alone would be level 4; the queue keeps level 2, which only a clinician can lower"
    )


def test_reasons_are_compared_by_their_text():
    """Those that are new, and those that no longer hold."""
    from inference.assessment import Reason

    def reason(text: str) -> Reason:
        return Reason.model_construct(text=text)

    changes = what_changed(
        assessment(3, reasons=(reason("old"), reason("both"))), assessment(3, reasons=(reason("both"), reason("new"))), 3, 3
    )
    assert [one["text"] for one in changes["why"]] == ["new"]
    assert [one["text"] for one in changes["no_longer"]] == ["old"]


def test_nothing_new_changes_nothing():
    """The case is read back as it was, its time of arrival included."""
    assert read_case(merged(CASE, {}), "c-1").case == CASE
    assert merged(CASE, {"received_at": "2020-01-01T00:00:00Z", "case_id": "other"}) == merged(CASE, {})


def test_answers_and_vitals_replace_and_null_makes_unknown():
    """The others stay."""
    case = read_case(
        merged(
            CASE,
            {
                "findings": {"F_fever": "absent", "F_cough": None, "F_rash": "present"},
                "vitals": {"pulse_per_minute": 90, "spo2_percent": None},
            },
        ),
        "c-1",
    ).case
    assert case.findings == {"F_fever": "absent", "F_rash": "present"}
    assert (case.vitals.pulse_per_minute, case.vitals.spo2_percent) == (90, None)


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        ("fever", "no chest pain\nfever"),
        ("chest pain", "no chest pain\nchest pain"),
        ("no chest pain", "no chest pain"),
        ("  no chest pain ", "no chest pain"),
        ("", "no chest pain"),
        (" \n", "no chest pain"),
        (None, "no chest pain"),
    ],
)
def test_words_are_added_unless_they_were_said(said, whole):
    """A repeated sentence is not doubled; one that is part of another is not lost."""
    assert merged(CASE, {"complaint": said})["complaint"] == whole


@pytest.mark.parametrize(
    ("before", "asked", "kept"),
    [("urgent", "stat", "stat"), ("urgent", "routine", "urgent"), (None, "routine", "routine"), ("urgent", None, "urgent")],
)
def test_the_referrers_priority_rises_and_never_falls(before, asked, kept):
    """A later message cannot make a case less urgent."""
    assert merged(CASE.model_copy(update={"priority": before}), {"priority": asked})["priority"] == kept


def test_photos_are_added():
    """Those that were sent before stay."""
    assert [photo["path"] for photo in merged(CASE, {"photos": [{"path": "b.jpg"}]})["photos"]] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("new", [{"findings": "yes"}, {"vitals": [1]}, {"priority": "bogus"}, {"colour": "red"}, {"age_years": "old"}])
def test_what_cannot_be_read_is_named_and_the_case_is_kept(new):
    """A wrong field costs no case: reading it says which field it was."""
    reading = read_case(merged(CASE, new), "c-1")
    assert any(next(iter(new)) in problem for problem in (*reading.problems, *refused_priority(new)))
    assert reading.case.complaint == CASE.complaint


def test_problems_are_open_until_their_field_is_sent_again():
    """Also within vitals and findings, by the field's own name."""
    problems = ["vitals.pulse_per_minute: not a number", "vitals.spo2_percent: not a number", "sex: unknown word", "age_years is missing"]
    assert still_open(problems, {}) == problems
    assert still_open(problems, {"vitals": {"pulse_per_minute": 90}}) == problems[1:]
    assert still_open(problems, {"sex": "male", "age_years": 40}) == problems[:2]
