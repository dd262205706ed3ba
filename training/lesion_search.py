"""Where to look for a better lesion recipe, and by what: the log loss of the first fold's images by a network without them.

Those images are reported on as well, as part of all folds: after a search the figures flatter a little, and the data card says so.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.lesion_fitting import Epoch, Examples, Plan, fit
from training.lesion_folds import Course, make_views
from training.live_table import live_table
from training.search import Report, Space, Span, search, told
from training.settings import RunOptions, Settings

SPACE: Space = {
    "backbone_rate": Span(3e-5, 1e-3, is_log=True),
    "head_rate": Span(3e-4, 1e-2, is_log=True),
    "weight_decay": Span(1e-3, 0.3, is_log=True),
    "label_smoothing": Span(0.0, 0.2),
    "mixing": Span(0.0, 0.5),
    "class_balance": Span(0.5, 1.0),
    "averaging_decay": Span(0.9, 0.995),
}
OBJECTIVE = "log loss of one held-out fold's photos, classes weighing the same"


def search_lesions(
    examples: Examples, learns: NDArray[np.bool_], held: NDArray[np.bool_], classes: int, course: Course, settings: Settings,
    options: RunOptions, *, quiet: bool,
) -> tuple[Plan, dict[str, Any]]:  # fmt: skip
    """The best plan, and what the contract says of how it was found. `learns` and `held` [N] are the images of each side."""
    views: Path | None = None
    if course.plan.views:
        with live_table("lesions", quiet=quiet) as table:
            views = make_views(examples, course, table)
    trial_file = course.checkpoints / "trial.pt"

    def loss_of(values: dict[str, Any], report: Report) -> float:
        losses: list[float] = []

        def hear(epoch: Epoch) -> None:
            losses.append(float(epoch.held_out or np.nan))
            report(epoch.number, losses[-1])

        trial_file.unlink(missing_ok=True)  # each trial begins anew
        fit(
            examples, np.flatnonzero(learns), classes, replace(course.plan, **values), course.seed, trial_file, hear,
            views=views, start=course.start, machine=course.machine, stops_by=np.flatnonzero(held),
        )  # fmt: skip
        return min(losses)

    found = search(SPACE, asdict(course.plan), loss_of, settings, options, quiet=quiet)
    trial_file.unlink(missing_ok=True)
    return replace(course.plan, **found.values), told(found, OBJECTIVE, quiet=quiet)
