"""Held-out cases for a comparison, with what is known to be true of them: level, condition, patient, subgroup.

Reads a labelled case file, the catalogue (which draws patients), DDXPlus and KTAS files, NHAMCS visits and folders of skin photos,
and knows no bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import LABELS, Case, CaseReading, read_case
from inference.casefile import read_cases
from inference.errors import DataError
from inference.evidence import SEXES, EvidenceEncoder
from training import nhamcs
from training.acuity_head import read_ktas
from training.catalogue import CATALOGUE
from training.ddxplus import read_patients
from training.generator import PatientGenerator, finding_map
from training.knowledge import Knowledge, load_knowledge
from training.seen import Prints, of_patients, of_photo, of_visits
from training.skin_data import SkinRecord, read_skin_data
from training.synthetic import draw_cases

Array = NDArray[Any]
SEED = 20_261_128  # of the drawn patients; neither training nor `evaluate` uses it
PATIENTS, SEVERE_PATIENTS = 3_000, 1_000
LEAST_URGENT_EMERGENCY = 2
LEAST_URGENT_NEED = 3  # levels 1 to 3 need care today
NHAMCS_VISITS = 8_000  # at most; every critical one is among them
_CRITICAL_LEVEL, _NOT_ADMITTED_LEVEL = 2, 4
_AGES = (("under 1", 0, 1), ("1-4", 1, 5), ("5-15", 5, 16), ("16-39", 16, 40), ("40-64", 40, 65), ("65 and over", 65, 200))


@dataclass(frozen=True)
class HeldOut:
    """n held-out cases. `true_level` [n] is 1-5, or 0 where unknown; a case is under-triaged when it gets a level beyond `must_reach` [n]
    (0: nothing that it must reach) and over-triaged at `must_not_reach` or more urgent (0: nothing).

    `population` [n] marks the cases that stand for everyday's mix; the others are emergencies that were added to it. `prints` are
    fingerprints (training/seen.py), `patients` whom bootstrap draws together, `subgroups` masks by name. `is_whole_data`: the data's checksum
    is these cases'; drawn patients and later visits are not all that there is in theirs.
    """

    title: str
    case_ids: tuple[str, ...]
    readings: tuple[CaseReading, ...]
    true_level: NDArray[np.int64]
    must_reach: NDArray[np.int64]
    must_not_reach: NDArray[np.int64]
    condition: tuple[str | None, ...]
    population: NDArray[np.bool_]
    prints: Prints
    patients: Array
    subgroups: Mapping[str, NDArray[np.bool_]]
    visits: nhamcs.Visits | None = None
    photos: Path | None = None
    records: tuple[SkinRecord, ...] = ()
    remarks: tuple[str, ...] = ()
    is_whole_data: bool = True

    def __len__(self) -> int:
        return len(self.case_ids)


def held_out_cases(task: str, data: Path, *, after_year: int) -> HeldOut:
    """The cases of `data` for a bundle of `task`. `after_year`: NHAMCS visits of later years only, which taught no bundle.

    Raises DataError when it is no data for this task.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist: name held-out data that belong to {task}")
    if task.startswith("lesions"):
        return _photos(data)
    if data.is_dir() and (data / "findings").is_dir():
        return _drawn(knowledge_in(data))
    if data.suffix in (".jsonl", ".ndjson", ".json"):
        return _labelled(data)
    if task.startswith("acuity") and data.name.endswith(".gz"):
        return _nhamcs(data, after_year)
    if task.startswith("acuity") and data.suffix == ".csv":
        return _ktas(data)
    if task == "symptoms" and data.suffix == ".csv":
        return _ddxplus(data, knowledge_in(CATALOGUE))
    raise DataError(
        f"{data} holds no held-out cases for {task}: expected the catalogue's folder, a labelled case file (.jsonl), or for symptoms patients "
        "in DDXPlus format with the catalogue's codes (.csv), for acuity KTAS (.csv) or NHAMCS visits (.csv.gz), for lesions a folder of photos"
    )


@lru_cache(maxsize=1)
def knowledge_in(folder: Path) -> Knowledge:
    """The knowledge in a catalogue's folder, read once for cases and sentinels."""
    return load_knowledge(folder)


def _drawn(knowledge: Knowledge) -> HeldOut:
    """Patients drawn from the catalogue, and more who have a condition of severity 1 or 2."""
    severity = np.array([knowledge.conditions[label]["severity"] for label in knowledge.labels])
    severe = replace(knowledge, prior=np.where(severity <= LEAST_URGENT_EMERGENCY, knowledge.prior, 0.0))
    cases: list[dict[str, Any]] = []
    conditions: list[str] = []
    prints = []
    for body, n, seed, name in ((knowledge, PATIENTS, SEED, "drawn"), (severe, SEVERE_PATIENTS, SEED + 1, "emergency")):
        random = np.random.default_rng(seed)
        generator = PatientGenerator(body)
        patients = generator.draw(n, random)
        drawn = draw_cases(knowledge, generator, patients, random)
        cases += [{**case, "case_id": f"{name}-{place}"} for place, case in enumerate(drawn, start=1)]
        conditions += [knowledge.labels[index] for index in patients.condition]
        prints.append(of_patients(patients.answers, patients.age_years, patients.sex))
    levels = [int(knowledge.conditions[name]["severity"]) for name in conditions]
    title = f"{PATIENTS} patients drawn from the catalogue, and {SEVERE_PATIENTS} with a condition of severity 1 or 2; all of them invented"
    held_out = _held_out(title, [read_case(case, case["case_id"]) for case in cases], levels, conditions)
    is_population = np.arange(len(cases)) < PATIENTS
    return replace(held_out, population=is_population, prints=np.concatenate(prints), is_whole_data=False)


def _ddxplus(path: Path, knowledge: Knowledge) -> HeldOut:
    """Patients of a file in DDXPlus format whose codes and conditions are the catalogue's: every answer known."""
    table = read_patients(path, knowledge.slots, knowledge.labels, knowledge.evidences)
    readings = [
        read_case({"case_id": f"{path.stem}-{row + 1}", "age_years": age, "sex": sex, "findings": finding_map(knowledge, answers)}, "case")
        for row, (age, sex, answers) in enumerate(zip(table.age_years.tolist(), table.sex, table.full, strict=True))
    ]
    conditions = [knowledge.labels[index] for index in table.condition]
    held_out = _held_out(path.name, readings, [knowledge.conditions[name]["severity"] for name in conditions], conditions)
    sexes = np.array([SEXES.index(sex) for sex in table.sex])
    return replace(held_out, prints=of_patients(table.full, table.age_years, sexes))


def _labelled(path: Path) -> HeldOut:
    """A case file whose cases have `labels`: the `level` that was right, and `condition` where it is known."""
    readings = read_cases(path)
    labels = [labels if isinstance(labels, Mapping) else {} for labels in _labels(path)]
    levels = [label.get("level") or 0 for label in labels]
    if odd := [reading.case.case_id for reading, level in zip(readings, levels, strict=True) if level not in range(6)]:
        raise DataError(f"{path}: labels.level is not 1 to 5 for {', '.join(odd[:5])}")
    if not any(levels):
        raise DataError(f"{path}: no case has labels.level, so that nothing can be measured: expected 1 to 5 for each case")
    held_out = _held_out(path.name, readings, levels, [label.get("condition") for label in labels])
    knowledge = knowledge_in(CATALOGUE)
    encoder = EvidenceEncoder(knowledge.slots, knowledge.parents_by_code())
    cases = [reading.case for reading in readings]
    age = np.array([np.nan if case.age_years is None else case.age_years for case in cases])
    patients = of_patients(np.stack([encoder.encode(case.findings) for case in cases]), age, np.array([SEXES.index(c.sex) for c in cases]))
    return replace(held_out, prints=np.where(patients > 0, patients, of_visits(cases)))


def _labels(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8-sig")
    records = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix != ".json" else json.loads(text)
    for record in records if isinstance(records, list) else [records]:
        yield record.get(LABELS) if isinstance(record, Mapping) else None


def _ktas(path: Path) -> HeldOut:
    visits = read_ktas(path, CATALOGUE)
    held_out = _held_out(f"KTAS visits ({path.name})", [CaseReading(case, ()) for case in visits.cases], visits.level.tolist(), None)
    return replace(held_out, prints=of_visits(visits.cases))


def _nhamcs(path: Path, after_year: int) -> HeldOut:
    """Visits of later years than any bundle learned from; all critical ones, and others by lot up to NHAMCS_VISITS."""
    visits = nhamcs.read_visits(path, nhamcs.load_groups(CATALOGUE / nhamcs.GROUPS.name)).of_years(after_year + 1, 9999)
    if not visits.visits:
        raise DataError(f"{path} has no visit after {after_year}: the bundles learned from the others")
    others = np.flatnonzero(visits.is_critical == 0)
    chosen = np.random.default_rng(SEED).choice(others, min(len(others), NHAMCS_VISITS - int(visits.is_critical.sum())), replace=False)
    visits = visits.take(np.sort(np.concatenate([np.flatnonzero(visits.is_critical == 1), chosen])))
    readings = [
        CaseReading(Case(case_id=f"nhamcs-{place}", age_years=visit.age_years, sex=visit.sex, vitals=visit.vitals), ())
        for place, visit in enumerate(visits.visits, start=1)
    ]
    levels = np.where(visits.is_critical == 1, _CRITICAL_LEVEL, _NOT_ADMITTED_LEVEL).tolist()
    remark = (
        "NHAMCS knows who was admitted to critical care (taken as level 2) and who was not admitted (taken as level 4); complaints are "
        "groups, so that levels come from the rules and the acuity model, without the symptom model"
    )
    held_out = _held_out(f"NHAMCS visits after {after_year}", readings, levels, None)
    return replace(held_out, visits=visits, prints=of_visits(visits.visits), remarks=(remark,), is_whole_data=False)


def _photos(data: Path) -> HeldOut:
    """One case a photo. A malignant lesion must reach level 4, the dermatologist; nothing that a photo shows raises further."""
    photos = read_skin_data(data)
    if any(record.pixels is not None for record in photos.records):
        raise DataError(f"{data}: a comparison takes cases with photo files; give a folder with a table and images")
    severity = {label.name: label.severity or 0 for label in photos.source.labels}
    records = photos.records
    readings = [
        CaseReading(Case(case_id=Path(record.image_id).stem, age_years=record.age_years, photos=(record.photo,)), ()) for record in records
    ]
    is_malignant = np.array([record.label in photos.source.malignant for record in records])
    held_out = _held_out(photos.source.name, readings, [severity[record.label] for record in records], [r.label for r in records])
    skin = {f"skin type {kind}": np.array([r.photo.fitzpatrick == kind for r in records]) for kind in range(1, 7)}
    skin["skin types 4 to 6"] = np.array([(r.photo.fitzpatrick or 0) >= 4 for r in records])
    sites = {
        f"site {site}": np.array([r.photo.body_site == site for r in records]) for site in {r.photo.body_site for r in records} if site
    }
    return replace(
        held_out,
        must_reach=np.where(is_malignant, 4, 0),
        must_not_reach=np.where(is_malignant, 0, 4),
        prints=np.array([_print_of(record) for record in records], dtype=np.uint64),
        patients=photos.groups,
        subgroups={**skin, **held_out.subgroups, **dict(sorted(sites.items()))},
        photos=records[0].folder,
        records=records,
    )


def _print_of(record: SkinRecord) -> int:
    from PIL import Image

    with Image.open(record.folder / record.photo.path) as image:
        return of_photo(image)


def _held_out(title: str, readings: Sequence[CaseReading], levels: Sequence[int], conditions: Sequence[str | None] | None) -> HeldOut:
    true_level = np.array(levels, dtype=np.int64)
    n = len(true_level)
    named = tuple(conditions) if conditions is not None else (None,) * n
    return HeldOut(
        title=title,
        case_ids=tuple(reading.case.case_id for reading in readings),
        readings=tuple(readings),
        true_level=true_level,
        must_reach=np.where((true_level > 0) & (true_level <= LEAST_URGENT_NEED), LEAST_URGENT_NEED, 0),
        must_not_reach=np.where(true_level > LEAST_URGENT_NEED, LEAST_URGENT_NEED, 0),
        condition=named,
        population=np.ones(n, dtype=bool),
        prints=np.zeros(n, dtype=np.uint64),
        patients=np.arange(n),
        subgroups=_subgroups([reading.case for reading in readings], named),
    )


def _subgroups(cases: Sequence[Case], conditions: Sequence[str | None]) -> dict[str, NDArray[np.bool_]]:
    """By age, sex, script of the complaint, and condition."""
    age = np.array([-1.0 if case.age_years is None else case.age_years for case in cases])
    groups = {f"age {name}": (age >= first) & (age < end) for name, first, end in _AGES}
    groups["age unknown"] = age < 0
    groups |= {f"sex {sex}": np.array([case.sex == sex for case in cases]) for sex in SEXES}
    urdu = np.array([any("\u0600" <= letter <= "\u06ff" for letter in case.complaint) for case in cases])
    worded = np.array([bool(case.complaint.strip()) for case in cases])
    groups |= {"complaint in Urdu script": urdu, "complaint in Latin script": worded & ~urdu, "no complaint text": ~worded}
    named = np.array([condition or "" for condition in conditions])
    groups |= {f"condition {name}": named == name for name in np.unique(named) if name}
    return {name: rows for name, rows in groups.items() if rows.any()}
