"""`nabz-train data patients`: labelled cases with a confirmed condition as a folder in DDXPlus format, for `nabz-train symptoms --data`.

The symptom model's probabilities are then counted from these patients (training/knowledge.py). What a case does not say counts there as
absent, as in DDXPlus, and the Urdu wording stays in the catalogue: such a bundle is for study and comparison, not for the clinic.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from inference.case import ABSENT, PRESENT
from inference.errors import DataError
from inference.evidence import FindingMap
from training.acuity_head import findings_reader
from training.catalogue import compile_catalogue, load_catalogue
from training.ddxplus import VALUE_MARK
from training.labelled_cases import LabelledCase, in_split, read_labelled_cases

LEAST_PATIENTS = 10  # of a condition: with fewer, its probabilities are mostly those of everybody
COLUMNS = ("AGE", "DIFFERENTIAL_DIAGNOSIS", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE")
PATIENTS = "release_train_patients.csv"
HELD_OUT_PATIENTS = "patients_held_out.csv"


def write_patients(path: Path, catalogue: Path, out: Path, least: int = LEAST_PATIENTS) -> tuple[Counter[str], Counter[str]]:
    """Write the release files and the patients; returns how many there are of each condition that is in, and of each that is left out.

    Held-out cases go to a file of their own. Raises DataError when fewer than two conditions have enough patients, or one is no slug
    of the catalogue.
    """
    authored = load_catalogue(catalogue)
    cases = [one for one in read_labelled_cases(path) if one.labels.condition and one.case.age_years is not None]
    strange = sorted({str(one.labels.condition) for one in cases} - authored.conditions.keys())
    if strange:
        raise DataError(
            f"{path}: labels.condition is no slug of the catalogue: {', '.join(strange[:5])}; data/catalogue/conditions has them"
        )
    train = in_split(cases, "train")
    counts = Counter(str(one.labels.condition) for one in train)
    enough = Counter({name: n for name, n in counts.items() if n >= least})
    if len(enough) < 2:
        raise DataError(
            f"{path}: {len(enough)} conditions have {least} confirmed cases or more; expected at least 2: confirm more, or use nabz-train priors"
        )
    release, reader = compile_catalogue(authored), findings_reader(authored)
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: one for name, one in release["conditions"].items() if name in enough}
    for name, content in (("release_conditions", kept), ("release_evidences", release["evidences"])):
        (out / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    sides = {PATIENTS: train, HELD_OUT_PATIENTS: [one for one in cases if one.labels.split == "held_out"]}
    for name, side in sides.items():
        known = [one for one in side if one.labels.condition in enough]
        if known:
            _write(out / name, known, [reader.read_case(one.case)[0] for one in known])
    return enough, counts - enough


def _write(file: Path, cases: Sequence[LabelledCase], findings: Sequence[FindingMap]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(COLUMNS)
        for one, found in zip(cases, findings, strict=True):
            evidences = [text for code, value in found.items() if value != ABSENT for text in _evidences(code, value)]
            first = evidences[0].partition(VALUE_MARK)[0] if evidences else ""
            age = int(one.case.age_years or 0)
            rows.writerow((age, "[]", {"female": "F", "male": "M"}.get(one.case.sex, ""), one.labels.condition, str(evidences), first))


def _evidences(code: str, value: str | tuple[str, ...]) -> list[str]:
    values = (value,) if isinstance(value, str) else value
    return [code if one == PRESENT else f"{code}{VALUE_MARK}{one}" for one in values]
