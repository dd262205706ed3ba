"""Cases with their assessments for the monitor: scored by the live models in batches, photos once, their scores kept.

Knows no features and no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from inference.bundle import TRUSTED_KEYS_FOLDER, Contract, read_signed_files
from inference.case import CaseReading
from inference.errors import BundleError, DataError
from inference.lesions import LesionModel, LesionRequest, LesionScore
from inference.models import SERVING_FILE, Models, live_versions
from inference.monitor_features import Scored, Scripts, sample_of
from inference.monitor_reference import Reference, merged, reference_of_contract
from inference.monitor_sample import Sample
from inference.photo import PhotoSource
from inference.triage import BATCH, Triage


class Kept:
    """Stands before a lesion model, passes everything on, and keeps the scores by the photo that they are of."""

    def __init__(self, model: LesionModel) -> None:
        self._model = model
        self.scores: dict[int, LesionScore] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, requests: Sequence[LesionRequest]) -> Any:
        """As the model does."""
        answers = self._model.score(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, LesionScore):
                self.scores[id(request.photo)] = answer
        return answers


def scored_cases(
    readings: Sequence[CaseReading], triage: Triage, photos: PhotoSource | None = None, now: datetime | None = None
) -> Iterator[Scored]:
    """Each case with its assessment and its photos' scores, in order. A case without a time counts as received `now`."""
    kept = Kept(triage.models.lesions) if triage.models.lesions is not None else None
    if kept is not None:
        triage = Triage(replace(triage.models, lesions=cast("LesionModel", kept)), triage.policy)
    moment = now or datetime.now(UTC)
    for start in range(0, len(readings), BATCH):
        batch = readings[start : start + BATCH]
        for reading, assessment in zip(batch, triage.assess_each(batch, [moment] * len(batch), photos), strict=True):
            scores = [kept.scores[id(photo)] for photo in reading.case.photos if id(photo) in kept.scores] if kept else []
            yield reading.case, assessment, scores
        if kept is not None:
            kept.scores.clear()


def sample_of_cases(
    readings: Sequence[CaseReading], triage: Triage, photos: PhotoSource | None = None, now: datetime | None = None
) -> Sample:
    """The cases of a file as columns."""
    return sample_of(scored_cases(readings, triage, photos, now), scripts_of(triage.models))


def scripts_of(models: Models) -> Scripts:
    """Tells scripts by the live symptom model's lexicon."""
    return Scripts(models.symptoms.vocabulary.get("lexicon") if models.symptoms is not None else None)


def names_of(models: Models) -> dict[str, str]:
    """English names of findings, conditions and lesions by code, from the live bundles."""
    found: dict[str, str] = {}
    if models.symptoms is not None:
        evidences = models.symptoms.vocabulary.get("evidences", {})
        found |= {code: str(evidence.get("name_en", code)) for code, evidence in evidences.items()}
        found |= {label.name: label.name_en for label in models.symptoms.labels}
    if models.lesions is not None:
        found |= {label.name: label.name_en for label in models.lesions.label_names}
    return found


def live_reference(models: Path) -> Reference:
    """What the live bundles in a folder carry, as one; signatures are checked and no model is loaded.

    Raises DataError when none carries any, BundleError when one cannot be used.
    """
    try:
        versions = live_versions(models)
    except (OSError, ValueError) as error:
        raise DataError(f"{models / SERVING_FILE} cannot be read: it is not known which bundles are live") from error
    found = []
    for task, version in versions.items():
        files = read_signed_files(models / task / version, models / TRUSTED_KEYS_FOLDER)
        try:
            contract = Contract.model_validate_json(files["contract.json"])
        except ValidationError as error:
            raise BundleError(f"{task} {version}: contract.json is not one that this version reads") from error
        if contract.reference:
            found.append(reference_of_contract(contract.reference, f"{task} {version}"))
    return merged(found)
