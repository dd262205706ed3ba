"""When questions about findings have done their work: one rule for `nabz ask` and for the interactive measurement.

Arrays in, booleans out, for one patient or many. Knows no question, no level and no words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Weighted bits below which an answer changes next to nothing.
LEAST_INFORMATION = 0.05
# Known findings from which on only signs and vitals are asked for: what so many answers did not settle, a person must. Most
# synthetic patients need about three questions; one who denies everything would be asked a hundred.
MOST_FINDINGS = 20
# A leading condition this probable settles a differential, however many rare ones its set still has.
SETTLED_PROBABILITY = 0.95


@dataclass(frozen=True, slots=True)
class StopRule:
    """A differential is settled with a set of at most `largest_set`, or a leading probability of at least `probability`.

    What is settled is asked no more about, except what could raise the level; neither is what tells less than
    `least_information` weighted bits.
    """

    largest_set: int
    probability: float = SETTLED_PROBABILITY
    least_information: float = LEAST_INFORMATION

    def is_settled(self, set_sizes: NDArray[np.int64], leading: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each differential is settled, [n], by its set's size and its leading condition's probability, both [n]."""
        return (set_sizes <= self.largest_set) | (leading >= self.probability)


def stop_rule(thresholds: Mapping[str, float], largest_set: int) -> StopRule:
    """The rule with what the bundle's own thresholds say of it; `largest_set` is the policy's.

    A bundle may carry `settled_set`, `settled_probability` and `least_information`: a benchmark that is scored by its
    first condition alone must not stop at a set of three.
    """
    return StopRule(
        largest_set=int(thresholds.get("settled_set", largest_set)),
        probability=thresholds.get("settled_probability", SETTLED_PROBABILITY),
        least_information=thresholds.get("least_information", LEAST_INFORMATION),
    )
