"""What a model's levels would do to waits: the queue simulation's `clinic` with the measured confusion of levels in it.

Who arrives, how many read and how long it takes are the preset's, and each of these figures is an estimate: only differences
between orders and between models mean anything. Knows no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.policy import LEVELS, load_policy
from inference.service.simulation_presets import Study, preset
from inference.service.simulation_scenario import ConfusionAI, Scenario
from inference.service.simulation_study import Answer, run_study

Array = NDArray[Any]
_ORDERS = ("fifo", "nabz")
_HOURS = {"replications": 10, "warm_up_hours": 2 * 24.0, "measured_hours": 10 * 24.0}


def level_confusion(true_level: Array, given_level: Array) -> NDArray[np.int64]:
    """Counts [5, 5] of true levels (rows, 1 first) against the levels given; cases of true level 0, unknown, are left out."""
    counts = np.zeros((len(LEVELS), len(LEVELS)), dtype=np.int64)
    is_known = true_level > 0
    np.add.at(counts, (true_level[is_known] - 1, given_level[is_known] - 1), 1)
    return counts


def measured_clinic(counts: Array, *, has_rules: bool) -> Scenario:
    """The clinic whose machine gives levels as often as `counts` [5, 5] say; a true level without a case keeps its estimate.

    With `has_rules` the counts are of model and rule floor together, so that the floor is not let in a second time.
    """
    clinic = preset("clinic").scenario
    assert isinstance(clinic.ai, ConfusionAI)
    matrix = tuple(
        tuple((row / row.sum()).tolist()) if row.sum() else guess
        for row, guess in zip(np.asarray(counts, dtype=np.float64), clinic.ai.known, strict=True)
    )
    measured = {"unknown_share": 0.0, **({"floor_catches": 0.0} if has_rules else {})}
    sources = {
        name: what
        for name, what in clinic.sources.items()
        if name not in {"ai.known", "ai.unknown", *(f"levels.{one}" for one in measured)}
    }
    return clinic.model_copy(
        update={
            "levels": {level: mix.model_copy(update=measured) for level, mix in clinic.levels.items()},
            "ai": ConfusionAI(known=matrix, unknown=matrix),
            "sources": sources,
        }
    )


def order_waits(counts: Array, name: str, *, has_rules: bool, seed: int = 0) -> Answer:
    """First come, first served beside Nabz's own order in that clinic, called `name`, under the shipped policy."""
    scenario = measured_clinic(counts, has_rules=has_rules).model_copy(update={"name": name, **_HOURS})
    return run_study(Study(scenario, orders=_ORDERS, search_readers=False), load_policy(), seed)
