"""Labelled cases: what is read, what is refused and named, and whose levels are learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.casefile import read_cases
from inference.errors import DataError
from training.labelled_cases import Labels, in_split, is_labelled_cases, read_labelled_cases, with_trusted_level


def write(folder: Path, *records: Any) -> Path:
    """A file of cases, one record a line; a text is written as it is."""
    path = folder / "cases.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), encoding="utf-8")
    return path


def test_a_folder_or_its_file_gives_the_cases_with_their_labels(tmp_path):
    """Labels that are missing or null are unknown; the same file is one that `nabz rank` reads."""
    path = write(tmp_path, {"case_id": "a", "age_years": 3, "labels": {"level": 2, "patient": "p"}}, "", {"case_id": "b", "labels": None})
    first, second = read_labelled_cases(tmp_path)
    assert (first.labels, first.group, first.line) == (Labels(level=2, patient="p"), "p", 1)
    assert (second.labels, second.group, second.line) == (Labels(), "b", 3)
    assert [reading.case for reading in read_cases(path)] == [first.case, second.case]
    assert read_labelled_cases(path) == (first, second)
    assert is_labelled_cases(tmp_path) and is_labelled_cases(path) and not is_labelled_cases(tmp_path.parent)


def test_labels_that_cannot_be_used_are_named_by_line(tmp_path):
    """A level out of range, a source that is none, an unknown label, a line that is no JSON: all four, and where to read why."""
    path = write(
        tmp_path, {"labels": {"level": 6}}, {"labels": {"level_source": "boss"}}, {"labels": {"lvl": 1}}, "{", {"labels": {"level": 1}}
    )
    with pytest.raises(DataError) as refused:
        read_labelled_cases(path)
    assert str(refused.value) == (
        f"{path}: the labels of 4 lines cannot be used (line 1, 2, 3, 4): nabz-train data check {path} explains each"
    )


def test_an_id_that_stands_twice_is_refused(tmp_path):
    """Two cases of one id cannot be told apart in a report."""
    path = write(tmp_path, {"case_id": "a"}, {"case_id": "a"}, {"case_id": "b"})
    with pytest.raises(DataError) as refused:
        read_labelled_cases(path)
    assert str(refused.value) == f"{path}: case_id stands there twice: a; give each case its own"


def test_a_vital_that_cannot_be_right_costs_its_case_nothing_else(tmp_path):
    """As in `nabz rank`: the vital is unknown, and that is said."""
    (case,) = read_labelled_cases(
        write(tmp_path, {"case_id": "a", "age_years": 3, "vitals": {"spo2_percent": 900}, "labels": {"level": 1}})
    )
    assert (case.case.age_years, case.case.vitals.spo2_percent, case.labels.level) == (3, None, 1)
    assert case.problems[0].startswith("vitals.spo2_percent is 900, expected 30 to 100")


def test_accepted_levels_are_not_learned_from_unless_asked_for(tmp_path):
    """A level without a source is an expert's; one that nobody spoke against is the machine's own."""
    labels = [{"level": 3}, {"level": 3, "level_source": "accepted"}, {"level": 2, "level_source": "agreed"}, {"level_source": "expert"}]
    cases = read_labelled_cases(write(tmp_path, *({"case_id": str(n), "labels": one} for n, one in enumerate(labels))))
    assert [one.case.case_id for one in with_trusted_level(cases)] == ["0", "2"]
    assert [one.case.case_id for one in with_trusted_level(cases, ("accepted",))] == ["1"]


def test_a_side_is_taken_by_name_and_a_file_without_sides_is_one(tmp_path):
    """Where any case has a side, a case without one is on none."""
    cases = read_labelled_cases(
        write(tmp_path, {"case_id": "a", "labels": {"split": "train"}}, {"case_id": "b", "labels": {"split": "held_out"}}, {"case_id": "c"})
    )
    assert [[one.case.case_id for one in in_split(cases, side)] for side in ("train", "held_out")] == [["a"], ["b"]]
    assert in_split(cases[2:], "held_out") == cases[2:]


@pytest.mark.parametrize(("outcome", "is_critical"), [("critical", True), ("died", True), ("admitted", False), (None, False)])
def test_a_critical_outcome_is_death_or_critical_care(outcome, is_critical):
    """Admission alone is none."""
    assert Labels(outcome=outcome).is_critical is is_critical
