"""Where to look for a better symptom recipe, and by what: the log loss of held-out generated patients.

The calibration, the thresholds and the published figures come from other patients.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from training.knowledge import Knowledge
from training.search import OneOf, Report, Space, Span, search, told
from training.settings import RunOptions, Settings
from training.symptom_fitting import Course, Heard, fit_symptoms
from training.symptom_recipe import Recipe

SPACE: Space = {
    "rate": Span(1e-4, 1e-2, is_log=True),
    "hidden": OneOf((64, 128, 256)),
    "tempering": Span(0.3, 1.0),
    "soft_weight": Span(0.0, 0.5),
    "weight_decay": Span(1e-6, 1e-2, is_log=True),
}
OBJECTIVE = "log loss of held-out generated patients"


def search_symptoms(
    knowledge: Knowledge, recipe: Recipe, course: Course, settings: Settings, options: RunOptions, *, quiet: bool
) -> tuple[Recipe, dict[str, Any]]:
    """The best recipe, and what the contract says of how it was found."""

    def loss_of(values: dict[str, Any], report: Report) -> float:
        def tell(heard: Heard) -> None:
            if heard.is_check:
                report(heard.step, heard.held_out)

        return fit_symptoms(knowledge, replace(recipe, **values), course, tell).held_out_loss

    found = search(SPACE, asdict(recipe), loss_of, settings, options, quiet=quiet)
    return replace(recipe, **found.values), told(found, OBJECTIVE, quiet=quiet)
