"""Calibration bands: how many held-out patients got a probability like this one, and how many of them were emergencies.

Counts only. Of the visits it is handed the probabilities and the experts' calls; synthetic patients it draws itself.
It fits nothing and does not judge whether the calibration is good: the card shows the counts.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.calibration import BANDS_KEY
from inference.errors import DataError
from training.questionnaire import outputs_of
from training.symptom_batches import decision_patients
from training.symptom_evaluation import SEVERE, knowledge_of
from training.symptom_recipe import Recipe

Array = NDArray[Any]
BANDS = 10
LEAST_PATIENTS = 10  # a band with fewer is merged with its neighbour: a share of so few says nothing


def visit_bands(probability: Array, is_emergency: Array) -> dict[str, Any]:
    """What an acuity contract's `training` says of its calibration: the KTAS visits, each scored by a head that never saw it.

    The calibration's slope and shift were fitted on these same out-of-fold scores.
    """
    event = "the experts' KTAS level is 1, 2 or 3"
    return {
        BANDS_KEY: {
            "data": "KTAS visits, out of fold",
            "is_synthetic": False,
            "event": event,
            "bands": count_bands(probability, is_emergency),
        }
    }


def synthetic_bands(bundle: Bundle, condition: Array, probabilities: Array) -> dict[str, Any]:
    """What a symptom contract's `training` says of its calibration, from the patients of `decision_scores`."""
    is_severe = np.array([(label.severity or 5) <= SEVERE for label in bundle.contract.labels])
    probability = np.minimum(probabilities[:, is_severe].sum(axis=1), 1.0)
    event = "the true condition is of severity 1 or 2"
    return {
        BANDS_KEY: {
            "data": "synthetic patients of the catalogue",
            "is_synthetic": True,
            "event": event,
            "bands": count_bands(probability, is_severe[condition]),
        }
    }


def count_bands(probability: Array, is_event: Array) -> list[dict[str, float | int]]:
    """Patients and events by probability, from 0 to 1 in steps of a tenth: `low` (included), `high`, `n`, `events`.

    A band with fewer than LEAST_PATIENTS takes in the ones above it until it has enough; the last takes in what is left.
    Raises DataError when nobody was scored or a probability lies outside [0, 1].
    """
    values = np.asarray(probability, dtype=np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise DataError("calibration bands need probabilities between 0 and 1, of at least one patient")
    place = np.minimum((values * BANDS).astype(int), BANDS - 1)
    counts = np.bincount(place, minlength=BANDS)
    events = np.bincount(place, weights=np.asarray(is_event, dtype=np.float64), minlength=BANDS)
    starts = _merged(counts.tolist())
    return [
        {"low": low / BANDS, "high": high / BANDS, "n": int(counts[low:high].sum()), "events": int(events[low:high].sum())}
        for low, high in pairwise((*starts, BANDS))
    ]


def _merged(counts: list[int]) -> list[int]:
    """The first of the fixed bands in each merged one."""
    starts, patients = [0], 0
    for band, count in enumerate(counts):
        if patients >= LEAST_PATIENTS:
            starts.append(band)
            patients = 0
        patients += count
    if patients < LEAST_PATIENTS and len(starts) > 1:
        starts.pop()
    return starts


def decision_scores(bundle: Bundle, catalogue: Path) -> tuple[Array, Array, Array]:
    """Fresh synthetic patients that nothing was fitted on: true conditions [n], probabilities [n, C], evidence [n, S].

    Raises DataError when the catalogue is not the one that the bundle learned from.
    """
    training = bundle.contract.training
    recipe = Recipe(**{name: training[name] for name in Recipe.__dataclass_fields__ if name in training})
    patients, feeds = decision_patients(knowledge_of(bundle, catalogue), recipe, int(training["seed"]))
    probabilities = outputs_of(bundle, feeds["evidence"], feeds["demographics"], feeds["log_shift"])["probabilities"]
    return patients.condition, probabilities, feeds["evidence"]
