"""The thresholds on the differential's severity, with their certificates, chosen on synthetic patients held out for it.

`severity_level_N` is the probability of conditions of severity N or worse from which on the level is at least N. A certain
differential (the policy's small set and enough findings) speaks for levels 2 and 3; any speaks for level 4. Fits no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Certificate, Contract
from inference.policy import load_policy
from inference.prediction_sets import PredictionSets
from training.metrics import Interval
from training.risk_control import certify, largest_certified, recheck

Array = NDArray[Any]
# More likely than not, and for "advice" 95 %, are the highest thresholds that anyone could explain at a bedside.
HIGHEST = {2: 0.5, 3: 0.5, 4: 0.05}
TARGETS = {2: 0.05, 3: 0.05, 4: 0.01}
_ANY_DIFFERENTIAL = 4  # an uncertain differential still keeps a case from "advice"
DATA = "synthetic patients of the catalogue, everything or only some of it known"


def choose_severity_levels(
    contract: Contract, condition: Array, probabilities: Array, evidence: Array
) -> tuple[dict[str, float], dict[str, Certificate]]:
    """Thresholds and certificates by name, chosen on held-out patients: true conditions [n], probabilities [n, C], evidence [n, S].

    Raises DataError when they are too few to certify anything.
    """
    thresholds: dict[str, float] = {}
    certificates: dict[str, Certificate] = {}
    for level, highest in HIGHEST.items():
        counts, is_event, mass = _judged(contract, condition, probabilities, evidence, level)
        threshold = min(highest, largest_certified(mass[counts & is_event], TARGETS[level]))
        who = "with a certain differential and a condition" if level < _ANY_DIFFERENTIAL else "with a condition"
        thresholds[f"severity_level_{level}"] = threshold
        certificates[f"severity_level_{level}"] = certify(
            event=f"a patient {who} of severity {level} or worse",
            miss=f"the differential alone supports no level as urgent as {level}",
            target=TARGETS[level],
            is_event=is_event[counts],
            is_called=mass[counts] >= threshold,
            data=DATA,
            is_synthetic=True,
        )
    return thresholds, certificates


def recheck_severity(contract: Contract, condition: Array, probabilities: Array, evidence: Array) -> dict[str, Interval]:
    """The contract's severity certificates on scored patients: true conditions [n], probabilities [n, C], evidence [n, S]."""
    judged = {}
    for level in HIGHEST:
        name = f"severity_level_{level}"
        if name in contract.certificates:
            counts, is_event, mass = _judged(contract, condition, probabilities, evidence, level)
            judged[name] = is_event[counts], mass[counts] >= contract.thresholds[name]
    return recheck(contract.certificates, judged)


def _judged(contract: Contract, condition: Array, p: Array, evidence: Array, level: int) -> tuple[Array, Array, Array]:
    """Of each patient: whether the differential may speak for this level, whether it should, and the severity's probability."""
    severity = np.array([label.severity or 5 for label in contract.labels])
    counts = np.ones(len(condition), dtype=bool)
    if level < _ANY_DIFFERENTIAL:
        sets, rule = PredictionSets(contract), load_policy().differential
        is_small = sets.sizes(p, evidence) <= rule.largest_set_that_raises
        counts = is_small & (sets.counts.present(evidence) >= rule.least_findings_that_raise)
    return counts, severity[condition] <= level, p[:, severity <= level].sum(axis=1)
