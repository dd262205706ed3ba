"""Synthetic cases from the catalogue, as files: complaint text in three scripts, vitals, season, province, gaps.

Everything written here is invented; a file's cases are numbered `synthetic-1` and so on, and carry no names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import DataError
from inference.evidence import SEXES
from training.ddxplus import VALUE_MARK
from training.generator import MISSING_SHARE, Generator, PatientGenerator, Patients, band_of, finding_map
from training.knowledge import Knowledge, load_knowledge

MISSING_VITAL = 0.25
SCRIPTS = ("en", "ur", "roman")
SCRIPT_SHARES = (0.3, 0.3, 0.4)
_JOINERS = {"en": " and ", "ur": " اور ", "roman": " aur "}
_SINCE = {"en": "for {} days", "ur": "{} دن سے", "roman": "{} din se"}
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
SEASON_MONTHS = {"winter": (12, 1, 2), "spring": (3, 4), "summer": (5, 6), "monsoon": (7, 8, 9), "autumn": (10, 11)}
# Healthy means by age band (newborn, infant, child, adult, older) and their spread; textbook values, estimate.
HEALTHY_VITALS: dict[str, tuple[tuple[float, ...], float]] = {
    "respiratory_rate_per_minute": ((44, 32, 22, 16, 17), 2.0),
    "pulse_per_minute": ((140, 125, 100, 78, 76), 9.0),
    "systolic_mmhg": ((70, 90, 102, 122, 132), 10.0),
    "diastolic_mmhg": ((42, 55, 64, 78, 78), 7.0),
    "spo2_percent": ((97, 98, 98, 97.5, 96.5), 1.0),
    "temperature_celsius": ((36.8, 36.9, 36.9, 36.8, 36.7), 0.3),
}
ADULT_BAND = 3
ABSOLUTE_VITALS = ("spo2_percent", "temperature_celsius")


def write_synthetic(catalogue: Path, n: int, seed: int, out: Path) -> None:
    """Write `n` cases as JSON Lines, coded cases without words as Parquet, or patients in DDXPlus format as CSV, by the suffix of `out`."""
    knowledge = load_knowledge(catalogue)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed)
    if out.suffix == ".parquet":
        from training.synthetic_table import write_table

        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(knowledge, generator, n, random, out)
        return
    patients = generator.draw(n, random)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        _write_patients(knowledge, generator, patients, random, out)
    elif out.suffix == ".jsonl":
        with out.open("w", encoding="utf-8") as file:
            for case in draw_cases(knowledge, generator, patients, random):
                file.write(json.dumps(case, ensure_ascii=False) + "\n")
    else:
        raise DataError(f"{out}: cases are written as .jsonl or, without words, as .parquet, patients in DDXPlus format as .csv")


def draw_cases(knowledge: Knowledge, generator: PatientGenerator, patients: Patients, random: Generator) -> list[dict[str, Any]]:
    """Each patient as a case: what the complaint says is text, some answers are given by code, some vitals measured."""
    said = generator.mask_to_complaint(patients, random, single=False)
    known = generator.mask_missing(patients, MISSING_SHARE, random)
    wording = _wording(knowledge)
    seasons, provinces = list(knowledge.season), list(knowledge.province)
    cases = []
    for row in range(len(patients.condition)):
        complaint = _complaint(knowledge, said[row], wording, random)
        answered = finding_map(knowledge, np.where(said[row] != 0, 0, known[row]))
        asked = {code: value for code, value in answered.items() if random.random() < 0.1 or value != "absent"}
        cases.append(
            {
                "case_id": f"synthetic-{row + 1}",
                "received_at": _moment(seasons[patients.season[row]], random).isoformat(),
                "age_years": round(float(patients.age_years[row]), 2),
                "sex": SEXES[patients.sex[row]],
                "complaint": complaint,
                "findings": {code: value for code, value in asked.items() if random.random() < 0.5},
                "vitals": draw_vitals(knowledge, int(patients.condition[row]), float(patients.age_years[row]), random),
                "province": provinces[patients.province[row]],
            }
        )
    return cases


def draw_vitals(knowledge: Knowledge, condition: int, age_years: float, random: Generator) -> dict[str, Any]:
    """One set of vitals: healthy means for the age, moved as the condition moves an adult's, with gaps."""
    band = int(band_of(np.array([age_years]))[0])
    moved = knowledge.vitals[condition]
    vitals: dict[str, Any] = {}
    for name, (means, spread) in HEALTHY_VITALS.items():
        if random.random() < MISSING_VITAL:
            continue
        shift = moved.get(name, means[ADULT_BAND]) - means[ADULT_BAND]
        scale = 1.0 if name in ABSOLUTE_VITALS else means[band] / means[ADULT_BAND]
        value = means[band] + shift * scale + spread * random.standard_normal()
        vitals[name] = round(min(value, 100.0) if name == "spo2_percent" else value, 1 if name == "temperature_celsius" else 0)
    if random.random() >= MISSING_VITAL:
        altered = random.random() < moved.get("altered_consciousness", 0.0)
        vitals["consciousness"] = str(random.choice(["C", "V", "P", "U"], p=[0.4, 0.35, 0.15, 0.1])) if altered else "A"
    return vitals


def _wording(knowledge: Knowledge) -> dict[tuple[str, str, str, str], list[str]]:
    """Phrases by (code, value, polarity, script)."""
    wording: dict[tuple[str, str, str, str], list[str]] = {}
    for code, value, polarity, script, text in knowledge.lexicon["phrases"]:
        wording.setdefault((code, value, polarity, script), []).append(text)
    return wording


def _complaint(
    knowledge: Knowledge, said: NDArray[np.int8], wording: Mapping[tuple[str, str, str, str], list[str]], random: Generator
) -> str:
    script = str(random.choice(SCRIPTS, p=SCRIPT_SHARES))
    slots = np.flatnonzero(said == 1)
    random.shuffle(slots)
    parts = [str(random.choice(wording[(s.code, s.value, "present", script)])) for s in (knowledge.slots[place] for place in slots)]
    if parts and random.random() < 0.4:
        parts[0] += " " + _SINCE[script].format(random.integers(1, 15))
    if len(parts) > 1 and random.random() < 0.5:
        parts = [*parts[:-2], _JOINERS[script].join(parts[-2:])]
    comma = "، " if script == "ur" else ", "
    return comma.join(parts)


def _moment(season: str, random: Generator) -> datetime:
    month = int(random.choice(SEASON_MONTHS[season]))
    return FIRST_DAY.replace(month=month) + timedelta(minutes=int(random.integers(0, 28 * 24 * 60)))


def _write_patients(knowledge: Knowledge, generator: PatientGenerator, patients: Patients, random: Generator, out: Path) -> None:
    first = generator.first_complaint(patients, random)
    with out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("AGE", "DIFFERENTIAL_DIAGNOSIS", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE"))
        for row in range(len(patients.condition)):
            evidences = [
                slot.code + (VALUE_MARK + slot.value if slot.value else "")
                for slot, answer in zip(knowledge.slots, patients.answers[row], strict=True)
                if answer > 0
            ]
            initial = knowledge.slots[first[row]].code if first[row] >= 0 else ""
            condition = knowledge.labels[patients.condition[row]]
            rows.writerow((round(float(patients.age_years[row])), "[]", "FM"[patients.sex[row]], condition, str(evidences), initial))
