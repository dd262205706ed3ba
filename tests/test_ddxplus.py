"""Tests of reading patients in the DDXPlus release format."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference.errors import DataError
from inference.evidence import demographic_index
from training.ddxplus import PatientTable, read_patients
from training.knowledge import load_knowledge

HEADER = "AGE,DIFFERENTIAL_DIAGNOSIS,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE\n"


def read(folder, text: str | bytes | None = None) -> PatientTable:
    """Read the tiny release's patients, or others written in their place."""
    path = folder / "patients_all49.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    knowledge = load_knowledge(folder)
    return read_patients(path, knowledge.slots, knowledge.labels, knowledge.evidences)


def refusal(folder, text: str | bytes) -> str:
    """What `read_patients` says when it refuses a file, with the file's name left out."""
    with pytest.raises(DataError) as caught:
        read(folder, text)
    return str(caught.value).replace(str(folder / "patients_all49.csv"), "FILE")


def test_three_patients_worked_out_by_hand(tiny_release):
    """Fever; pain yes/no; its strength 0, 1, 2; its place none, a, b; smoking. 0 where pain was not there to ask about."""
    table = read(tiny_release)
    assert table.full.tolist() == [
        [1, 1, -1, -1, 1, -1, 1, 1, -1],
        [-1, -1, 0, 0, 0, 0, 0, 0, 1],
        [-1, 1, 1, -1, -1, 1, -1, -1, -1],
    ]
    assert table.initial.tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_who_the_patients_are(tiny_release):
    """An unknown letter for the sex is an unknown sex."""
    table = read(tiny_release)
    assert table.condition.tolist() == [0, 1, 0]
    assert table.age_years.tolist() == [30, 70, 1]
    assert table.sex == ("female", "male", "unknown")
    assert table.demographics.tolist() == [
        demographic_index(30, "female"),
        demographic_index(70, "male"),
        demographic_index(1, "unknown"),
    ]


def test_differentials_sum_to_one_over_the_known_conditions(tiny_release):
    """0.6 and 0.2 become 3/4 and 1/4 without gout, which the model does not know; an empty or missing one stays 0."""
    assert read(tiny_release).differential == pytest.approx(np.array([[0.75, 0.25], [0, 0], [0, 0]]))


def test_a_file_without_differentials_is_fine(tiny_release):
    """The column is not needed."""
    table = read(tiny_release, "AGE,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE\n30,F,flu,\"['E_1']\",E_1\n")
    assert table.differential.tolist() == [[0, 0]]


def test_an_unknown_age_is_the_unknown_band(tiny_release):
    """Not the last band from the end of the table."""
    table = read(tiny_release, HEADER + ",[],F,flu,\"['E_1']\",E_1\n")
    assert table.demographics.tolist() == [demographic_index(None, "female")]


def test_an_unknown_evidence_is_named(tiny_release):
    """With or without a value."""
    assert refusal(tiny_release, HEADER + "30,[],F,flu,\"['E_1', 'E_77_@_3']\",E_1\n") == (
        "FILE: evidence E_77 is not in the release's evidences"
    )


def test_unknown_conditions_are_named(tiny_release):
    """Each once, in order."""
    rows = "".join(f"30,[],F,{name},\"['E_1']\",E_1\n" for name in ("plague", "flu", "gout", "gout"))
    assert refusal(tiny_release, HEADER + rows) == "FILE: conditions ['gout', 'plague'] are not among the model's 2 labels"


def test_a_missing_condition_is_an_unknown_one(tiny_release):
    """An empty cell is no condition."""
    assert refusal(tiny_release, HEADER + "30,[],F,,\"['E_1']\",E_1\n30,[],F,gout,\"['E_1']\",E_1\n") == (
        "FILE: conditions ['gout', 'nan'] are not among the model's 2 labels"
    )


def test_missing_columns_are_named(tiny_release):
    """All of them, with what is expected."""
    assert refusal(tiny_release, "AGE,PATHOLOGY\n30,flu\n") == (
        "FILE lacks the columns ['SEX', 'EVIDENCES', 'INITIAL_EVIDENCE']; "
        "a DDXPlus patients file has ['AGE', 'SEX', 'PATHOLOGY', 'EVIDENCES', 'INITIAL_EVIDENCE']"
    )


@pytest.mark.parametrize("cell", ["", "E_1", "\"['E_1'\"", "7"])
def test_evidences_that_are_no_list_are_refused_with_the_patient(tiny_release, cell):
    """The second patient's cell is empty, a bare code, a broken list, a number."""
    assert refusal(tiny_release, HEADER + f"30,[],F,flu,\"['E_1']\",E_1\n30,[],F,flu,{cell},E_1\n") == (
        "FILE, patient 2: EVIDENCES is not a list of evidence codes"
    )


def test_a_file_without_patients_is_refused(tiny_release):
    """A header alone, or nothing at all."""
    assert refusal(tiny_release, HEADER) == "FILE has no patient: expected at least one row"
    assert refusal(tiny_release, "") == "FILE cannot be read as CSV: No columns to parse from file"


def test_a_file_that_is_no_text_or_not_there_is_refused(tiny_release):
    """With the reader's own reason."""
    assert refusal(tiny_release, b"\xff\xfe\x00").startswith("FILE cannot be read as CSV: ")
    (tiny_release / "patients_all49.csv").unlink()
    with pytest.raises(DataError, match=r"cannot be read as CSV: .*No such file or directory"):
        read(tiny_release)


def test_the_real_patients(shared_data):
    """Every condition occurs; differentials sum to 1; the truth is in it; evidence is never contradicted by the first complaint."""
    knowledge = load_knowledge(shared_data / "ddxplus")
    table = read_patients(shared_data / "ddxplus" / "patients_all49.csv", knowledge.slots, knowledge.labels, knowledge.evidences)
    labels = json.loads((shared_data / "ddxplus" / "release_conditions.json").read_text(encoding="utf-8"))
    assert set(table.condition) == set(range(len(labels)))
    assert table.differential.sum(axis=1) == pytest.approx(np.ones(len(table.condition)), abs=1e-5)
    assert set(np.unique(table.full)) == {-1, 0, 1}
    said = table.initial == 1
    assert (said.sum(axis=1) >= 1).mean() > 0.99
    assert (table.full[said] == 1).all()
