"""Measures a lesion bundle on labelled photos, and puts cross-validation in figures. Trains nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.bundle import Bundle, Contract
from inference.case import Photo
from inference.errors import DataError
from inference.lesions import LesionFailure, LesionModel, LesionRequest, LesionScore
from training.export import file_sha256
from training.lesion_document import lesion_document
from training.lesion_figures import (
    Calibration,
    Scored,
    fit_calibration,
    lesion_metrics,
    malignancy,
    malignancy_threshold,
    softmax,
)
from training.lesion_folds import HeldOut
from training.lesion_fusion import Fusion, fit_fusion
from training.skin_data import SkinRecord, SkinSet, read_skin_data

Array = NDArray[Any]
SHOWN_PARTS = ("metrics", "subgroups", "worst_group", "release_problems")


def evaluate(bundle: Bundle, data: Path, name: str | None = None, threads: int = 2) -> dict[str, Any]:
    """Score labelled photos exactly as inference does, and give the metrics document.

    `name` is what the document calls the bundle. Its subgroups hold the skin types, the tones that the photos show,
    the abstention curve, and `photo_alone`: the same photos without any answers. Besides the figures it says how many
    photos could not be scored, how many the photo gate would send back and how many are unfamiliar (they are scored all
    the same); `warning` is there when the bundle learned from these very data, which makes the figures far too good.
    Raises DataError when a label is not one of the bundle's.
    """
    photos = read_skin_data(data)
    model = LesionModel(bundle, threads)
    contract = bundle.contract
    if strangers := sorted(set(photos.labels.tolist()) - set(model.labels)):
        raise DataError(
            f"{data}: the bundle {contract.task} does not know the labels {', '.join(strangers)}; "
            f"evaluate it on data labelled {', '.join(model.labels)}"
        )
    answers = model.score([_request(record) for record in photos.records])
    pairs = [(r, a) for r, a in zip(photos.records, answers, strict=True) if not isinstance(a, LesionFailure)]
    malignant = tuple(contract.vocabulary["malignant"])
    scored = _of_scores(pairs, model)
    document = lesion_document(contract.task, name or f"{contract.task}/{contract.version}", scored, model.labels, malignant)
    unanswered = model.score([_request(_without_answers(record)) for record, _ in pairs])
    alone = _of_scores([(r, a) for (r, _), a in zip(pairs, unanswered, strict=True) if not isinstance(a, LesionFailure)], model)
    figures = lesion_metrics(alone, model.labels, malignant)
    document["subgroups"]["photo_alone"] = {metric: figure.as_json() for metric, figure in figures.items()}
    document["unscored"] = len(answers) - len(pairs)
    document["sent_back_by_photo_gate"] = sum(not answer.quality.ok for _, answer in pairs)
    document["unfamiliar"] = sum(answer.is_unfamiliar for _, answer in pairs)
    document["learned_from_these_data"] = _learned_from(contract, data)
    if document["learned_from_these_data"]:
        document["warning"] = (
            f"{contract.task} {contract.version} learned from these very photos: these figures are far too good. "
            "What it reaches on photos that it never saw stands in its metrics.json"
        )
    return document


def _request(record: SkinRecord) -> LesionRequest:
    """The photo as inference gets it; pixels that came inside one file as a PNG, which loses nothing."""
    if record.pixels is None:
        return LesionRequest(record.photo, record.folder, record.age_years)
    file = io.BytesIO()
    Image.fromarray(record.pixels).save(file, "PNG", compress_level=1)
    return LesionRequest(record.photo, {record.photo.path: file.getvalue()}, record.age_years)


def _without_answers(record: SkinRecord) -> SkinRecord:
    return replace(record, photo=Photo(path=record.photo.path), age_years=None)


def _of_scores(pairs: list[tuple[SkinRecord, LesionScore]], model: LesionModel) -> Scored:
    probabilities = [[answer.probabilities[label] for label in model.labels] for _, answer in pairs]
    return Scored(
        truth=np.array([model.labels.index(record.label) for record, _ in pairs], dtype=np.int64),
        probabilities=np.array(probabilities, dtype=np.float64).reshape(-1, len(model.labels)),
        flagged=np.array([a.malignancy_probability >= model.malignancy_threshold for _, a in pairs], dtype=bool),
        groups=np.array([record.group for record, _ in pairs]),
        skin_types=skin_types([record for record, _ in pairs]),
        tones=np.array([a.quality.tone.group if a.quality.tone else "unknown" for _, a in pairs], dtype=np.str_),
    )


def _learned_from(contract: Contract, data: Path) -> bool:
    """Whether these are data that the bundle learned from: the folder, or its table named by itself."""
    learned = {source.sha256 for source in contract.data}
    return file_sha256(data) in learned or (data.suffix == ".csv" and file_sha256(data.parent) in learned)


def skin_types(records: list[SkinRecord]) -> NDArray[np.int64]:
    """Fitzpatrick type of each record, 0 where it is not known."""
    return np.array([record.photo.fitzpatrick or 0 for record in records], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What held-out photos settle: the photo's calibration, how answers join it, and the malignancy threshold."""

    calibration: Calibration
    fusion: Fusion
    threshold: float

    def probabilities(self, full: Array, photo_only: Array, known: Array) -> NDArray[np.float64]:
        """Calibrated probabilities [n, classes] of logits with answers and without; `known` [n] of the fields are."""
        return softmax(self.fusion.apply(self.calibration.apply(photo_only), full - photo_only, known))


def operating_point(held_out: HeldOut, rows: NDArray[np.bool_], data: SkinSet) -> OperatingPoint:
    """All that the held-out `rows` [N] settle; `data` are the records of these rows.

    The malignancy threshold keeps its sensitivity with the answers and without any: a clinic sends either.
    """
    full, photo_only, known = held_out.full[rows], held_out.photo_only[rows], held_out.known[rows]
    calibration = fit_calibration(photo_only, targets(data))
    fusion = fit_fusion(calibration.apply(photo_only), full - photo_only, known, targets(data))
    point = OperatingPoint(calibration, fusion, 0.0)
    thresholds = []
    for shown, answers in ((full, known), (photo_only, np.zeros_like(known))):
        scored = scored_of(point.probabilities(shown, photo_only, answers), np.zeros(len(full), dtype=bool), data)
        thresholds.append(malignancy_threshold(*malignancy(scored, label_names(data), data.source.malignant)))
    return replace(point, threshold=min(thresholds))


def cross_validation_report(held_out: HeldOut, data: SkinSet, version: str) -> dict[str, Any]:
    """The content of metrics.json: held-out figures with the clinical answers, and from the photo alone.

    Each fold's calibration and threshold come from the other folds, so that nothing is judged by what it
    chose.
    """
    folds = len(np.unique(held_out.fold_of))
    patients = len(np.unique(data.groups))
    evaluations = {}
    for title, with_answers, note in (
        (
            f"{data.source.name}, {folds}-fold by patient, photo and clinical answers",
            True,
            f"Out of fold: the network that scored a photo never saw its patient ({patients} patients). "
            "Sensitivity and specificity are for malignancy at a threshold set on the other folds, as are the calibration and how the answers join the photo. The way of calibrating was chosen with two of these folds in view, so balanced accuracy is a little optimistic.",
        ),
        (
            f"{data.source.name}, {folds}-fold by patient, photo alone",
            False,
            "The same networks with every clinical answer unknown, at the same calibration and threshold.",
        ),
    ):
        scored = _judged_by_others(held_out, data, with_answers=with_answers)
        task = data.source.task
        document = lesion_document(task, f"{task}/{version}", scored, label_names(data), data.source.malignant)
        evaluations[title] = {"n": document["n"], "note": note} | {key: document[key] for key in SHOWN_PARTS}
    return {
        "command": f"nabz-train lesions --folds {folds}",
        "interval_note": "bootstrap over patients",
        "evaluations": evaluations,
    }


def targets(data: SkinSet) -> NDArray[np.int64]:
    """The class index of each record."""
    names = label_names(data)
    return np.array([names.index(record.label) for record in data.records], dtype=np.int64)


def label_names(data: SkinSet) -> tuple[str, ...]:
    """The labels in class order."""
    return tuple(label.name for label in data.source.labels)


def _judged_by_others(held_out: HeldOut, data: SkinSet, *, with_answers: bool) -> Scored:
    photo_only = held_out.photo_only
    full, known = (held_out.full, held_out.known) if with_answers else (photo_only, np.zeros(len(photo_only)))
    probabilities = np.zeros(full.shape, dtype=np.float64)
    flagged = np.zeros(len(full), dtype=bool)
    for fold in np.unique(held_out.fold_of):
        inside, outside = held_out.fold_of == fold, held_out.fold_of != fold
        point = operating_point(held_out, outside, data.part(outside))
        probabilities[inside] = point.probabilities(full[inside], photo_only[inside], known[inside])
        scored = scored_of(probabilities, flagged, data).rows(inside)
        flagged[inside] = malignancy(scored, label_names(data), data.source.malignant)[1] >= point.threshold
    return scored_of(probabilities, flagged, data)


def scored_of(probabilities: NDArray[np.float64], flagged: NDArray[np.bool_], data: SkinSet) -> Scored:
    """Probabilities [n, classes] of a data set's photos, and which of them are flagged as malignant, [n], as figures take them."""
    return Scored(targets(data), probabilities, flagged, data.groups, skin_types(list(data.records)))
