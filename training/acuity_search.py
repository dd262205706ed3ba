"""Where to look for a better acuity recipe, and by what: the log loss of each training year by a head of the others.

The year that is reported on (2019) is in none of them.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from training.acuity_critical import CriticalRows, Recipe, fit_critical
from training.search import Report, Space, Span, search, told
from training.settings import RunOptions, Settings

SPACE: Space = {
    "penalty": Span(1.0, 10_000.0, is_log=True),
    "product_penalty": Span(100.0, 1_000_000.0, is_log=True),
    "lossy_weight": Span(0.25, 4.0, is_log=True),
}
OBJECTIVE = "log loss of the critical outcome, each training year held out from the others"


def search_acuity(
    data: CriticalRows, recipe: Recipe, settings: Settings, options: RunOptions, *, quiet: bool
) -> tuple[Recipe, dict[str, Any]]:
    """The best recipe, and what the contract says of how it was found."""

    def loss_of(values: dict[str, Any], report: Report) -> float:
        heard = 0

        def tell(_what: str, held_out: float | None) -> None:
            nonlocal heard
            if held_out is not None:
                heard += 1
                report(heard, held_out)

        return fit_critical(data, replace(recipe, **values), tell).held_out_loss

    found = search(SPACE, asdict(recipe), loss_of, settings, options, quiet=quiet)
    return replace(recipe, **found.values), told(found, OBJECTIVE, quiet=quiet)
