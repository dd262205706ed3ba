"""The lesion figures: from truth and probabilities to metrics with intervals, and by skin type.

Arrays in, intervals out. It does not know where the probabilities come from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.metrics import (
    Interval,
    Statistic,
    auc,
    average_precision,
    balanced_accuracy,
    bootstrap_interval,
    expected_calibration_error,
    macro_auc,
    sensitivity_at_specificity,
)

Array = NDArray[Any]
_SPECIFICITY = 0.60
_LEAST_COUNTED = 0.8  # sensitivity, in the partial AUC
_OFFSET_SHRINKAGE = 0.01
LEAST_SENSITIVITY = 0.95
_SUBGROUP_METRICS = ("balanced_accuracy", "auc", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Scored:
    """Scored images: class indices [n], probabilities [n, classes], flags of malignancy [n], groups [n].

    `skin_types` holds Fitzpatrick types 1 to 6, or 0 where not known; `tones` [n] the tone groups that the photos
    themselves show, where they were estimated.
    """

    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    groups: Array
    skin_types: NDArray[np.int64]
    tones: NDArray[np.str_] | None = None

    def rows(self, chosen: NDArray[np.bool_]) -> Scored:
        """The chosen images only."""
        return Scored(
            self.truth[chosen],
            self.probabilities[chosen],
            self.flagged[chosen],
            self.groups[chosen],
            self.skin_types[chosen],
            None if self.tones is None else self.tones[chosen],
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """How logits become calibrated: divided by `temperature`, plus an offset for each class."""

    temperature: float
    offsets: tuple[float, ...]

    def apply(self, logits: Array) -> Array:
        """Calibrated logits [n, classes]."""
        calibrated: Array = logits / self.temperature + np.array(self.offsets)
        return calibrated


def lesion_metrics(scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...], only: Collection[str] = ()) -> dict[str, Interval]:
    """All figures of a set of images (or `only` some), with 95 % intervals that draw whole patients.

    `sensitivity` and `specificity` are for malignancy at the operating point, `auc` and `average_precision`
    for the malignancy probability, `sensitivity_<label>` for the most probable label.
    """
    is_malignant, score = malignancy(scored, labels, malignant)
    predicted = scored.probabilities.argmax(axis=1)
    correct, confidence = predicted == scored.truth, scored.probabilities.max(axis=1)
    everything = np.ones(len(scored.truth), dtype=bool)
    definitions: dict[str, tuple[Statistic, tuple[Array, ...], NDArray[np.bool_]]] = {
        "balanced_accuracy": (balanced_accuracy, (scored.truth, predicted), everything),
        "macro_auc": (macro_auc, (scored.truth, scored.probabilities), everything),
        "auc": (auc, (is_malignant, score), everything),
        "average_precision": (average_precision, (is_malignant, score), everything),
        "sensitivity": (_share, (scored.flagged,), is_malignant),
        "specificity": (_share, (~scored.flagged,), ~is_malignant),
        "partial_auc_80_sensitivity": (partial_auc_80_sensitivity, (is_malignant, score), everything),
        "sensitivity_at_60_specificity": (_sensitivity_at_60, (is_malignant, score), everything),
        "ece": (expected_calibration_error, (correct, confidence), everything),
    }
    for index, label in enumerate(labels):
        definitions[f"sensitivity_{label.lower()}"] = (_share, (correct,), scored.truth == index)
    return {
        name: bootstrap_interval(statistic, *(array[rows] for array in arrays), groups=scored.groups[rows])
        for name, (statistic, arrays, rows) in definitions.items()
        if not only or name in only
    }


def skin_type_metrics(scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...]) -> dict[str, dict[str, Interval]]:
    """The main figures for each Fitzpatrick type, each with its n; types that do not occur have n = 0."""
    subgroups = {
        f"fitzpatrick_{skin_type or 'unknown'}": scored.rows(scored.skin_types == skin_type) for skin_type in (1, 2, 3, 4, 5, 6, 0)
    }
    return {name: lesion_metrics(part, labels, malignant, only=_SUBGROUP_METRICS) for name, part in subgroups.items()}


def malignancy(scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...]) -> tuple[NDArray[np.bool_], Array]:
    """Whether each image is of a malignant lesion, and its malignancy probability."""
    columns = [labels.index(label) for label in malignant]
    return np.isin(scored.truth, columns), scored.probabilities[:, columns].sum(axis=1)


def fit_calibration(logits: Array, truth: NDArray[np.int64]) -> Calibration:
    """Temperature and offsets that make held-out logits [n, classes] most likely, each class weighing the
    same.

    Bias-corrected temperature scaling (Guo et al. 2017; Alexandari et al. 2020), with the offsets drawn
    gently to zero because the rarest class has a few dozen images. The result speaks for a clinic where every
    label is equally common, as the network's training does. Classes that do not occur keep an offset of zero.
    """
    scores, target = torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(truth)
    counts = np.bincount(truth, minlength=logits.shape[1])
    weight = torch.from_numpy(len(truth) / (logits.shape[1] * np.maximum(counts, 1)))
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature, offsets], max_iter=100)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        calibrated = scores / log_temperature.exp() + offsets
        loss = torch.nn.functional.cross_entropy(calibrated, target, weight=weight)
        loss = loss + _OFFSET_SHRINKAGE * offsets.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    occurring = torch.from_numpy(counts > 0)
    found = torch.where(occurring, offsets.detach(), torch.zeros_like(offsets))
    return Calibration(float(log_temperature.detach().exp()), tuple(found.tolist()))


def softmax(logits: Array) -> NDArray[np.float64]:
    """Probabilities [n, classes] in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def malignancy_threshold(is_malignant: NDArray[np.bool_], score: Array, least_sensitivity: float = LEAST_SENSITIVITY) -> float:
    """The highest threshold at which at least that share of malignant images is flagged (score >=
    threshold)."""
    scores = np.sort(score[is_malignant])
    missed = int(np.floor((1 - least_sensitivity) * len(scores) + 1e-9))
    return float(scores[missed])


def partial_auc_80_sensitivity(truth: NDArray[np.bool_], score: Array) -> float:
    """Area between the ROC curve and a sensitivity of 80 %, 0 to 0.2 (ISIC 2024 challenge); NaN unless both classes occur."""
    if len(np.unique(truth)) < 2:
        return float("nan")
    false_positive_rate, sensitivity, _ = roc_curve(truth, score, drop_intermediate=False)
    rates = np.append(false_positive_rate, np.interp(_LEAST_COUNTED, sensitivity, false_positive_rate))
    heights = np.append(sensitivity, _LEAST_COUNTED)
    order = np.lexsort((heights, rates))
    return float(np.trapezoid(np.maximum(heights[order] - _LEAST_COUNTED, 0), rates[order]))


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sensitivity_at_60(truth: Array, score: Array) -> float:
    return sensitivity_at_specificity(truth, score, _SPECIFICITY)
