"""What the queue would make of the levels that two models give: the `clinic` simulation, once with each.

The arrivals, their true urgency and the readers' times are the same for both (common random numbers); only the level that a case is
given differs, as often as it did on the held-out cases. The clinic's figures are estimates: the difference counts, not the minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.policy import LEVELS, load_policy
from inference.service.simulation_results import Estimate, estimate, picker, replicate
from inference.service.simulation_scenario import Scenario
from training.queue_waits import level_confusion, measured_clinic

_REPLICATIONS, _MEASURED_HOURS, _WARM_UP_HOURS, _SEED = 10, 10 * 24, 2 * 24, 1
_ORDER = "nabz"


@dataclass(frozen=True, slots=True)
class Wait:
    """Cases of one true level: mean minutes and the share past their cap under both models, and the paired changes."""

    level: int
    champion_minutes: Estimate
    challenger_minutes: Estimate
    change_minutes: Estimate
    champion_past_cap: Estimate
    challenger_past_cap: Estimate
    change_past_cap: Estimate
    is_measured: bool

    def as_json(self) -> dict[str, Any]:
        """Null for what is undefined. `is_measured` is false where no held-out case is truly of this level: both models then share a guess."""
        plain = asdict(self)
        return {
            name: {key: one if isfinite(one) else None for key, one in value.items()} if isinstance(value, dict) else value
            for name, value in plain.items()
        }


def simulated_waits(
    true_level: NDArray[np.int64], champion: NDArray[np.int64], challenger: NDArray[np.int64], told: Callable[[], None] = lambda: None
) -> tuple[Wait, ...]:
    """The waits by true level, 1 to 5; `true_level` [n] is 0 where unknown. `told` hears of each of `steps` pieces of work."""
    policy = load_policy()
    seeds = np.random.SeedSequence(_SEED).spawn(_REPLICATIONS)
    picks = []
    for given in (champion, challenger):
        scenario = _scenario(true_level, given)
        figures = []
        for seed in seeds:
            figures.append(replicate(scenario, (_ORDER,), policy, seed, scenario.readers))
            told()
        picks.append(picker(figures))
    waits = []
    for level in LEVELS:
        old, new = ({measure: pick(_ORDER, level, measure) for measure in ("mean", "past_cap")} for pick in picks)
        waits.append(
            Wait(
                level,
                estimate(old["mean"]),
                estimate(new["mean"]),
                estimate(new["mean"] - old["mean"]),
                estimate(old["past_cap"]),
                estimate(new["past_cap"]),
                estimate(new["past_cap"] - old["past_cap"]),
                is_measured=bool((true_level == level).any()),
            )
        )
    return tuple(waits)


def steps() -> int:
    """How often `simulated_waits` tells of work done."""
    return 2 * _REPLICATIONS


def _scenario(true_level: NDArray[np.int64], given: NDArray[np.int64]) -> Scenario:
    """The clinic, whose machine gives levels as often as on the held-out cases; the rules are in these levels already."""
    clinic = measured_clinic(level_confusion(true_level, given), has_rules=True)
    return clinic.model_copy(update={"measured_hours": _MEASURED_HOURS, "warm_up_hours": _WARM_UP_HOURS})
