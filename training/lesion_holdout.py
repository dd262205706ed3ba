"""One split of a large set of photos by lesion: most to learn from, a part to calibrate on, a part to report on.

Where folds would take hours. It does not know networks or photos.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.lesion_document import lesion_document
from training.lesion_evaluation import SHOWN_PARTS, OperatingPoint, label_names, operating_point, scored_of
from training.lesion_figures import malignancy
from training.lesion_folds import HeldOut
from training.skin_data import SkinSet, grouped_folds

_TENTHS, _REPORT_TENTHS, _CALIBRATION_TENTHS = 10, 2, 1


def parts(data: SkinSet, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which records [N] are to learn from, to calibrate on and to report on: 7, 1 and 2 tenths, whole lesions together."""
    tenth = grouped_folds(data.labels, data.groups, _TENTHS, seed)
    reports = tenth < _REPORT_TENTHS
    calibrates = ~reports & (tenth < _REPORT_TENTHS + _CALIBRATION_TENTHS)
    return ~reports & ~calibrates, calibrates, reports


def operating_point_of(held_out: HeldOut, data: SkinSet, calibrates: NDArray[np.bool_]) -> OperatingPoint:
    """What the part to calibrate on settles, and it alone."""
    return operating_point(held_out, calibrates, data.part(calibrates))


def holdout_report(held_out: HeldOut, data: SkinSet, point: OperatingPoint, reports: NDArray[np.bool_], version: str) -> dict[str, Any]:
    """The content of metrics.json: figures on the part to report on, first from the photo alone."""
    shown, names, malignant = data.part(reports), label_names(data), data.source.malignant
    evaluations = {}
    nothing_known = np.zeros(len(held_out.known))
    for title, logits, known, note in (
        ("photo alone", held_out.photo_only, nothing_known, "Lesions that the network never saw, with age and site unknown."),
        ("photo, age and site", held_out.full, held_out.known, "The same network and lesions, with what is recorded of age and site."),
    ):
        probabilities = point.probabilities(logits[reports], held_out.photo_only[reports], known[reports])
        scored = scored_of(probabilities, np.zeros(len(probabilities), dtype=bool), shown)
        scored = replace(scored, flagged=malignancy(scored, names, malignant)[1] >= point.threshold)
        document = lesion_document(data.source.task, f"{data.source.task}/{version}", scored, names, malignant)
        key = f"{data.source.name}, held out by lesion, {title}"
        evaluations[key] = {"n": document["n"], "note": note} | {part: document[part] for part in SHOWN_PARTS}
    return {"command": "nabz-train lesions --folds 1", "interval_note": "bootstrap over lesions", "evaluations": evaluations}
