"""Fills `Contract.reference`: how the cases looked that a bundle is measured on, scored as a service would score them.

Symptoms: held-out cases drawn from the catalogue, read from their complaints. Acuity: the KTAS visits as cases, with the experts'
levels as outcomes. Lesions: a photo set. What only a service has (districts, hours, priorities) is left to its own reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.case import Case, CaseReading, read_case
from inference.errors import DataError
from inference.models import Models
from inference.monitor_reference import reference_document, reference_of_sample
from inference.monitor_scoring import sample_of_cases
from inference.photo import PhotoSource
from inference.policy import load_policy
from inference.triage import Triage

GENERATED_CASES = 3000
PHOTOS = 600
SERVICE_ONLY = frozenset({"hour", "repeat", "district", "province", "priority", "photos", "arrival", "field_set_aside"})
_SEED = 20261  # of drawn cases that no model learned from


def reference_of(
    task: str, models: Models, readings: Sequence[CaseReading], source: str, *, is_synthetic: bool, photos: PhotoSource | None = None,
    outcomes: dict[str, bool] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The contract's `reference` for one task's bundle, as plain JSON objects of less than 200 kB.

    `models` score the cases: the bundle that is written among them, and the live others. Raises DataError when the cases tell
    nothing of the task, or the reference is too large.
    """
    sample = sample_of_cases(readings, Triage(models, load_policy()), photos)
    kept = {name: column for name, column in sample.columns.items() if name.partition(":")[0] not in SERVICE_ONLY}
    sample = type(sample)(sample.n, kept, sample.received, sample.case_ids)
    # No bundle is named: the one that will carry this has no version yet, or will be issued again under another.
    found = reference_of_sample(sample, source, is_synthetic=is_synthetic, task=task, outcomes=outcomes)
    # The cases' times are the drawing's, or the clock's: weeks would mean nothing.
    features = {name: one.model_copy(update={"dispersion": 1.0}) for name, one in found.features.items()}
    return reference_document(found.model_copy(update={"features": features, "weeks": 0}))


def symptoms_reference(models: Models, catalogue: Path, n: int = GENERATED_CASES) -> dict[str, Any]:
    """The reference of a symptom bundle: `n` invented cases that no model saw, through the reader."""
    from training.generator import PatientGenerator
    from training.knowledge import load_knowledge
    from training.synthetic import draw_cases

    knowledge, random = load_knowledge(catalogue), np.random.default_rng(_SEED)
    generator = PatientGenerator(knowledge)
    raw = draw_cases(knowledge, generator, generator.draw(n, random), random)
    readings = [read_case(one, one["case_id"]) for one in raw]
    return reference_of("symptoms", models, readings, f"{n} invented cases drawn from the catalogue", is_synthetic=True)


def acuity_reference(models: Models, data: Path) -> dict[str, Any]:
    """The reference of an acuity bundle: the KTAS visits under `data`, with the experts' emergencies as outcomes."""
    from training import ktas

    visits = ktas.ktas_cases(data / ktas.FILE)
    outcomes = {case.case_id: ktas.is_emergency(level) for case, level in visits}
    readings = [CaseReading(case, ()) for case, _ in visits]
    source = f"{len(visits)} emergency department visits (KTAS, Moon et al. 2019)"
    return reference_of("acuity", models, readings, source, is_synthetic=False, outcomes=outcomes)


def lesions_reference(models: Models, photo_set: Path, n: int = PHOTOS) -> dict[str, Any]:
    """The reference of a lesion bundle: `n` photos of a set that `training.skin_data` reads, drawn by a fixed seed."""
    from training.skin_data import read_skin_data

    data = read_skin_data(photo_set)
    records = [record for record in data.records if record.pixels is None]
    if not records:
        raise DataError(f"{photo_set}: the photos lie inside one file; the reference needs photo files")
    chosen = sorted(np.random.default_rng(_SEED).permutation(len(records))[:n].tolist())
    readings = [CaseReading(Case(case_id=f"photo-{at}", age_years=records[at].age_years, photos=(records[at].photo,)), ()) for at in chosen]
    source = f"{len(chosen)} photos of {data.source.name}"
    return reference_of("lesions", models, readings, source, is_synthetic=False, photos=records[0].folder)


def reference_for(task: str, models: Models, data: Path) -> dict[str, Any]:
    """The reference of a task's bundle from its data: the catalogue, the folder of data sets, or a photo set."""
    if task == "symptoms":
        return symptoms_reference(models, data)
    return acuity_reference(models, data) if task == "acuity" else lesions_reference(models, data)
