"""Measures a lesion bundle on labelled photos, and puts cross-validation in figures. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.errors import DataError
from inference.lesions import LesionFailure, LesionModel, LesionRequest
from training.export import file_sha256
from training.lesion_figures import (
    Calibration,
    Scored,
    fit_calibration,
    lesion_metrics,
    malignancy,
    malignancy_threshold,
    skin_type_metrics,
    softmax,
)
from training.lesion_folds import HeldOut
from training.lesion_fusion import answer_weight, weighed
from training.metrics import metrics_document
from training.skin_data import SkinRecord, SkinSet, read_skin_data

Array = NDArray[Any]


def evaluate(bundle: Bundle, data: Path, name: str | None = None, threads: int = 2) -> dict[str, Any]:
    """Score labelled photos exactly as inference does, and give the metrics document.

    `name` is what the document calls the bundle. Besides the figures it says how many photos could not be
    scored, how many the photo gate would send back (they are scored all the same), and whether the bundle
    learned from these very data, which makes the figures far too good. Raises DataError when a label is not
    one of the bundle's, or when the data are not photo files.
    """
    photos = read_skin_data(data)
    model = LesionModel(bundle, threads)
    if strangers := sorted(set(photos.labels.tolist()) - set(model.labels)):
        raise DataError(f"{data}: the bundle {bundle.contract.task} does not know the labels {', '.join(strangers)}")
    if any(record.pixels is not None for record in photos.records):
        raise DataError(f"{data}: evaluate needs photo files; a MedMNIST archive can be trained on, not evaluated")
    answers = model.score([LesionRequest(r.photo, r.folder, r.age_years) for r in photos.records])
    pairs = [(r, a) for r, a in zip(photos.records, answers, strict=True) if not isinstance(a, LesionFailure)]
    probabilities = [[answer.probabilities[label] for label in model.labels] for _, answer in pairs]
    scored = Scored(
        truth=np.array([model.labels.index(record.label) for record, _ in pairs], dtype=np.int64),
        probabilities=np.array(probabilities, dtype=np.float64).reshape(-1, len(model.labels)),
        flagged=np.array([a.malignancy_probability >= model.malignancy_threshold for _, a in pairs], dtype=bool),
        groups=np.array([record.group for record, _ in pairs]),
        skin_types=skin_types([record for record, _ in pairs]),
    )
    malignant = tuple(bundle.contract.vocabulary["malignant"])
    document = metrics_document(
        bundle.contract.task,
        name or f"{bundle.contract.task}/{bundle.contract.version}",
        len(pairs),
        lesion_metrics(scored, model.labels, malignant),
        skin_type_metrics(scored, model.labels, malignant),
    )
    document["unscored"] = len(answers) - len(pairs)
    document["sent_back_by_photo_gate"] = sum(not answer.quality.ok for _, answer in pairs)
    document["learned_from_these_data"] = file_sha256(data) in {source.sha256 for source in bundle.contract.data}
    return document


def skin_types(records: list[SkinRecord]) -> NDArray[np.int64]:
    """Fitzpatrick type of each record, 0 where it is not known."""
    return np.array([record.photo.fitzpatrick or 0 for record in records], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What held-out photos settle: how much the answers count, the calibration, and the malignancy threshold."""

    answer_weight: float
    calibration: Calibration
    threshold: float

    def probabilities(self, full: Array, photo_only: Array) -> NDArray[np.float64]:
        """Calibrated probabilities [n, classes] of logits with answers and without."""
        return softmax(self.calibration.apply(weighed(full, photo_only, self.answer_weight)))


def operating_point(full: Array, photo_only: Array, data: SkinSet) -> OperatingPoint:
    """All that held-out logits [n, classes], with the answers and from the photo alone, settle before a network is exported."""
    weight = answer_weight(full, photo_only, targets(data))
    logits = weighed(full, photo_only, weight)
    calibration = fit_calibration(logits, targets(data))
    scored = _scored(softmax(calibration.apply(logits)), np.zeros(len(logits), dtype=bool), data)
    is_malignant, score = malignancy(scored, label_names(data), data.source.malignant)
    return OperatingPoint(weight, calibration, malignancy_threshold(is_malignant, score))


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
            "Sensitivity and specificity are for malignancy at a threshold set on the other folds, as are calibration and the weight of the answers.",
        ),
        (
            f"{data.source.name}, {folds}-fold by patient, photo alone",
            False,
            "The same networks with every clinical answer unknown, at the same calibration and threshold.",
        ),
    ):
        scored = _judged_by_others(held_out, data, with_answers=with_answers)
        document = metrics_document(
            data.source.task,
            f"{data.source.task}/{version}",
            len(data.records),
            lesion_metrics(scored, label_names(data), data.source.malignant),
            skin_type_metrics(scored, label_names(data), data.source.malignant),
        )
        evaluations[title] = {"n": document["n"], "note": note} | {key: document[key] for key in ("metrics", "subgroups")}
    return {
        "command": f"nabz-train lesions --folds {folds}",
        "interval_note": "bootstrap over patients",
        "evaluations": evaluations,
    }


def confusion(logits: Array, data: SkinSet) -> NDArray[np.int64]:
    """Counts [classes, classes] of truth against the most probable label."""
    counts = np.zeros((len(data.source.labels),) * 2, dtype=np.int64)
    np.add.at(counts, (targets(data), logits.argmax(axis=1)), 1)
    return counts


def targets(data: SkinSet) -> NDArray[np.int64]:
    """The class index of each record."""
    names = label_names(data)
    return np.array([names.index(record.label) for record in data.records], dtype=np.int64)


def label_names(data: SkinSet) -> tuple[str, ...]:
    """The labels in class order."""
    return tuple(label.name for label in data.source.labels)


def _judged_by_others(held_out: HeldOut, data: SkinSet, *, with_answers: bool) -> Scored:
    full = held_out.full if with_answers else held_out.photo_only
    probabilities = np.zeros(full.shape, dtype=np.float64)
    flagged = np.zeros(len(full), dtype=bool)
    for fold in np.unique(held_out.fold_of):
        inside, outside = held_out.fold_of == fold, held_out.fold_of != fold
        others = replace(data, records=tuple(np.array(data.records, dtype=object)[outside]))
        point = operating_point(held_out.full[outside], held_out.photo_only[outside], others)
        probabilities[inside] = point.probabilities(full[inside], held_out.photo_only[inside])
        scored = _scored(probabilities, flagged, data).rows(inside)
        flagged[inside] = malignancy(scored, label_names(data), data.source.malignant)[1] >= point.threshold
    return _scored(probabilities, flagged, data)


def _scored(probabilities: NDArray[np.float64], flagged: NDArray[np.bool_], data: SkinSet) -> Scored:
    return Scored(targets(data), probabilities, flagged, data.groups, skin_types(list(data.records)))
