"""Tests of the synthetic cases: they read back as cases and as patients."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest

from inference.case import PRESENT, Vitals, read_case
from inference.casefile import read_cases
from inference.errors import DataError
from inference.evidence import season_of
from training.ddxplus import read_patients
from training.generator import PatientGenerator, band_of
from training.knowledge import Knowledge, load_knowledge
from training.synthetic import draw_cases, draw_vitals, write_synthetic

N = 400


@pytest.fixture(scope="module")
def knowledge(catalogue_folder) -> Knowledge:
    """The knowledge of the shipped catalogue."""
    return load_knowledge(catalogue_folder)


@pytest.fixture(scope="module")
def cases(catalogue_folder, tmp_path_factory) -> list[dict]:
    """Cases as they were written to a file."""
    path = tmp_path_factory.mktemp("synthetic") / "new" / "cases.jsonl"
    write_synthetic(catalogue_folder, N, 5, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_cases_read_back_without_a_problem(cases):
    """Every field is one that a case has, every vital one that a living person can show."""
    assert len(cases) == N
    for raw in cases:
        assert read_case(raw, "none").problems == ()


def test_the_file_reads_back_as_a_file_of_cases(catalogue_folder, tmp_path):
    """As `nabz rank` would read it, numbered by place."""
    write_synthetic(catalogue_folder, 20, 1, tmp_path / "cases.jsonl")
    readings = read_cases(tmp_path / "cases.jsonl")
    assert [reading.case.case_id for reading in readings] == [f"synthetic-{place}" for place in range(1, 21)]
    assert all(reading.problems == () for reading in readings)


def test_all_three_scripts_occur(cases, knowledge):
    """About three of ten in English and in Urdu each, the rest in Roman Urdu; a complaint keeps to one script."""
    phrases = {script: set() for script in ("en", "ur", "roman")}
    for _code, _value, polarity, script, text in knowledge.lexicon["phrases"]:
        if polarity == PRESENT:
            phrases[script].add(text)
    counts = dict.fromkeys(phrases, 0)
    for case in cases:
        counts["ur" if any("\u0600" <= letter <= "\u06ff" for letter in case["complaint"]) else _latin_script(case, phrases)] += 1
    assert counts["ur"] / N == pytest.approx(0.3, abs=0.08)
    assert counts["en"] > N / 10
    assert counts["roman"] > N / 10


def _latin_script(case: dict, phrases: dict[str, set[str]]) -> str:
    only = {script: phrases[script] - phrases[other] for script, other in (("en", "roman"), ("roman", "en"))}
    return max(only, key=lambda script: sum(len(text) for text in only[script] if text in case["complaint"]))


def test_cases_have_gaps(cases):
    """Each vital is measured in about three of four; some cases give no finding by code, some many."""
    names = set(Vitals.model_fields) & {name for case in cases for name in case["vitals"]}
    assert len(names) == 7
    for name in names:
        assert np.mean([name in case["vitals"] for case in cases]) == pytest.approx(0.75, abs=0.08)
    assert max(len(case["findings"]) for case in cases) > 5


def test_cases_fall_in_every_season_and_in_most_provinces(cases):
    """Each case's date lies in the season that it was drawn for."""
    assert {season_of(datetime.fromisoformat(case["received_at"])) for case in cases} == {"winter", "spring", "summer", "monsoon", "autumn"}
    assert {"punjab", "sindh", "khyber_pakhtunkhwa", "balochistan"} <= {case["province"] for case in cases}


def test_what_the_complaint_says_is_not_given_by_code_too(knowledge):
    """A reader has to read the text: the said symptoms are left out of the coded findings."""
    generator = PatientGenerator(knowledge)
    patients = generator.draw(50, np.random.default_rng(2))
    written = draw_cases(knowledge, generator, patients, np.random.default_rng(3))
    said = generator.mask_to_complaint(patients, np.random.default_rng(3), single=False)
    for case, row in zip(written, said, strict=True):
        coded = {slot.code for slot, answer in zip(knowledge.slots, row, strict=True) if answer and slot.code in case["findings"]}
        assert coded == set()


def test_vitals_move_as_the_condition_moves_them(knowledge):
    """Cholera lowers the systolic pressure from 122 to 88 in adults; on average that is what is drawn."""
    cholera = knowledge.labels.index("cholera")
    random = np.random.default_rng(0)
    drawn = [draw_vitals(knowledge, cholera, 30.0, random) for _ in range(600)]
    systolic = [vitals["systolic_mmhg"] for vitals in drawn if "systolic_mmhg" in vitals]
    assert np.mean(systolic) == pytest.approx(88, abs=1.5)
    altered = [vitals["consciousness"] != "A" for vitals in drawn if "consciousness" in vitals]
    assert np.mean(altered) == pytest.approx(0.15, abs=0.05)


def test_a_healthy_newborn_s_vitals_are_a_newborn_s(knowledge):
    """A condition that moves nothing leaves the age's means: 44 breaths, 140 beats; saturation never passes 100."""
    still = next(row for row, vitals in enumerate(knowledge.vitals) if not vitals)
    random = np.random.default_rng(0)
    drawn = [draw_vitals(knowledge, still, 0.01, random) for _ in range(400)]
    mean = {name: np.mean([v[name] for v in drawn if name in v]) for name in ("respiratory_rate_per_minute", "pulse_per_minute")}
    assert mean == pytest.approx({"respiratory_rate_per_minute": 44, "pulse_per_minute": 140}, abs=2)
    assert max(v.get("spo2_percent", 0) for v in drawn) <= 100


def test_the_same_seed_writes_the_same_file(catalogue_folder, tmp_path):
    """Byte for byte; another seed writes another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(catalogue_folder, 20, seed, tmp_path / f"{name}.jsonl")
    a, b, c = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_patients_read_back_from_csv_as_they_were_drawn(knowledge, catalogue_folder, tmp_path):
    """A round trip through the DDXPlus format loses no answer, only the fractions of ages."""
    write_synthetic(catalogue_folder, 150, 9, tmp_path / "patients.csv")
    table = read_patients(tmp_path / "patients.csv", knowledge.slots, knowledge.labels, knowledge.evidences)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(9)
    patients = generator.draw(150, random)
    first = generator.first_complaint(patients, random)
    assert (table.condition == patients.condition).all()
    assert (table.full == patients.answers).all()
    assert table.sex == tuple(("female", "male")[sex] for sex in patients.sex)
    assert (np.abs(table.age_years - patients.age_years) <= 0.5).all()
    adults = patients.age_years > 17
    assert (band_of(table.age_years)[adults] >= 3).all()
    has_one = first >= 0
    assert (table.initial[has_one].argmax(axis=1) == first[has_one]).all()


def test_another_suffix_is_refused(catalogue_folder, tmp_path):
    """The message says which are known."""
    path = tmp_path / "cases.xlsx"
    with pytest.raises(DataError) as caught:
        write_synthetic(catalogue_folder, 1, 0, path)
    assert str(caught.value) == f"{path}: cases are written as .jsonl or, without words, as .parquet, patients in DDXPlus format as .csv"
