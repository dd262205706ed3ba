"""Reading KTAS visits as cases: units, missing marks, levels, and nothing that came after triage."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import DataError
from training.ktas import is_emergency, ktas_cases

HEADER = "Group;Sex;Age;Arrival mode;Chief_complain;Mental;SBP;DBP;HR;RR;BT;Saturation;KTAS_RN;KTAS_expert"


def _file(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "ktas.csv"
    path.write_bytes("\n".join((header, *rows)).encode("latin-1") + b"\n")
    return path


def test_a_visit_becomes_a_case_with_the_experts_level(tmp_path):
    """Sex 1 is female, mental 3 answers to pain, arrival 2 is an ambulance, and a comma is a decimal point."""
    ((case, level),) = ktas_cases(_file(tmp_path, "1;1;47;2;abd pain;3;100;60;92;20;38,1;97;4;2"))
    assert level == 2
    assert (case.case_id, case.sex, case.age_years, case.arrival, case.complaint) == ("ktas-1", "female", 47, "ambulance", "abd pain")
    assert case.vitals.model_dump(exclude_none=True) == {
        "systolic_mmhg": 100,
        "diastolic_mmhg": 60,
        "pulse_per_minute": 92,
        "respiratory_rate_per_minute": 20,
        "temperature_celsius": 38.1,
        "spo2_percent": 97,
        "consciousness": "P",
    }


def test_marks_for_missing_are_unknown(tmp_path):
    """Question marks, blanks and impossible numbers leave the measurement unknown; the visit stays."""
    ((case, _),) = ktas_cases(_file(tmp_path, "1;2;30;7;anxiety;1;??;;80;#BO\xde!;366;;4;4"))
    assert case.vitals.model_dump(exclude_none=True) == {"pulse_per_minute": 80, "consciousness": "A"}
    assert (case.sex, case.arrival) == ("male", None)


def test_pain_is_the_patients_own_rating(tmp_path):
    """Pain with its rating, no pain (0), pain that was not rated: the last is unknown."""
    visit = "1;2;30;7;abd pain;1;120;80;80;20;36;98;4;4"
    path = _file(tmp_path, f"{visit};1;7", f"{visit};0;#BO\xde!", f"{visit};1;#BO\xde!", header=f"{HEADER};Pain;NRS_pain")
    assert [case.vitals.pain_score for case, _ in ktas_cases(path)] == [7, 0, None]


def test_a_visit_without_an_experts_level_is_refused_by_name(tmp_path):
    """A level outside 1 to 5 names its visit."""
    path = _file(tmp_path, "1;2;30;7;anxiety;1;1;1;80;20;36;98;4;3", "1;2;30;7;anxiety;1;1;1;80;20;36;98;4;")
    with pytest.raises(DataError) as error:
        ktas_cases(path)
    assert str(error.value) == f"{path}: KTAS_expert is not 1 to 5 for ktas-2"


def test_missing_columns_are_named(tmp_path):
    """Another file is refused by the columns it lacks."""
    path = _file(tmp_path, header="Sex;Age;Arrival mode;Chief_complain;Mental;SBP;DBP;HR;RR;BT")
    with pytest.raises(DataError) as error:
        ktas_cases(path)
    assert str(error.value) == (f"{path} lacks the columns Saturation, KTAS_expert: expected the file published with Moon et al. 2019")


def test_levels_one_to_three_are_emergencies():
    """KTAS 1 to 3 calls for care now, 4 and 5 can wait."""
    assert [is_emergency(level) for level in range(1, 6)] == [True, True, True, False, False]


def test_all_real_visits_are_read(shared_data):
    """Every visit is kept, with a level; 431 of 760 are emergencies."""
    visits = ktas_cases(shared_data / "ktas/data.csv")
    assert len(visits) == 760
    assert sum(is_emergency(level) for _, level in visits) == 431
    assert min(case.age_years for case, _ in visits) >= 16
