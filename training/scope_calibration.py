"""From which fit on a symptom model says that none of its conditions fits, and how well that finds what it does not know.

Limits come from held-out synthetic patients, 99 % of whom lie within. Detection is measured on patients whose condition is
struck off the model's list, and on findings that come from two patients at once. Trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Contract
from inference.prediction_sets import FindingCounts
from inference.scope import OUTPUT, Scope
from training.generator import MISSING_SHARE, PatientGenerator
from training.knowledge import Knowledge
from training.metrics import Interval, wilson_interval

Array = NDArray[Any]
Run = Callable[[dict[str, Array]], dict[str, Array]]
FALSE_ALARM = 0.01
LEAST_PATIENTS = 1000  # of a band: ten of them are false alarms
DETECTION_PATIENTS = 4000
DETECTION_SEED = 20_261_127
_STRUCK_OFF = -1e4  # log multiplier of a condition's prior


def calibrate_scope(fit: Array, evidence: Array, codes: list[str]) -> dict[str, Any]:
    """The contract's `out_of_distribution` from held-out patients: their fit [n] and evidence [n, S], and each slot's code."""
    present = FindingCounts(codes).present(evidence)
    starts = _bands(present)
    band = np.searchsorted(starts, present, side="right") - 1
    least = [_limit(fit[band == place]) for place in range(len(starts))]
    return {
        "output": OUTPUT,
        "method": "split conformal lower limit of the log probability of the findings that are there, by their number",
        "false_alarm": FALSE_ALARM,
        "present": starts,
        "least": [float(f"{limit:.5g}") for limit in least],
        "n": len(fit),
        "data": "synthetic patients, everything or only some of it known",
    }


def _bands(present: Array) -> list[int]:
    """The lower ends of bands of the number of findings, with LEAST_PATIENTS each, from 0 on; the last takes what is left."""
    counts = np.bincount(present)
    starts, patients = [0], 0
    for number, count in enumerate(counts):
        if patients >= LEAST_PATIENTS and counts[number:].sum() >= LEAST_PATIENTS:
            starts.append(number)
            patients = 0
        patients += int(count)
    return starts


def _limit(fit: Array) -> float:
    """The largest limit below which at most FALSE_ALARM of patients like these fall; below all of them where they are few."""
    place = int((len(fit) + 1) * FALSE_ALARM) - 1
    ordered = np.sort(fit.astype(np.float64))
    return float(ordered[place] if place >= 0 else ordered[0] - abs(ordered[0]))


def outside_share(contract: Contract, fit: Array, evidence: Array) -> dict[str, Interval]:
    """`outside_scope`: the share of patients, by their fit [n] and evidence [n, S], of whom the model says that nothing fits."""
    scope = Scope(contract)
    return {"outside_scope": wilson_interval(int(scope.is_outside(fit, evidence).sum()), len(fit))} if scope.is_known else {}


def scope_figures(run: Run, contract: Contract, knowledge: Knowledge) -> dict[str, Interval]:
    """How often the model says that nothing fits: of its own patients, of ones whose condition it lacks, and of two in one.

    `outside_false_alarm`, `outside_unlisted_condition` (as many patients of each condition) and `outside_two_patients`.
    """
    scope = Scope(contract)
    if not scope.is_known:
        return {}
    random = np.random.default_rng(DETECTION_SEED)
    figures = {}
    for name, tempering in (("outside_false_alarm", 1.0), ("outside_unlisted_condition", 0.0)):
        generator = PatientGenerator(knowledge, tempering)
        patients = generator.draw(DETECTION_PATIENTS, random)
        evidence = generator.mask_missing(patients, MISSING_SHARE, random).astype(np.float32)
        who, shift = patients.demographics(), generator.log_shift(patients)
        if name == "outside_unlisted_condition":
            shift[np.arange(len(shift)), patients.condition] = _STRUCK_OFF
        figures[name] = _share(run, scope, evidence, who, shift)
        if name == "outside_false_alarm":
            other = evidence[random.permutation(len(evidence))]
            both = np.where(other > 0, other, evidence)
            figures["outside_two_patients"] = _share(run, scope, both, who, shift)
    return figures


def _share(run: Run, scope: Scope, evidence: Array, who: Array, shift: Array) -> Interval:
    fit = run({"evidence": evidence, "demographics": who, "log_shift": shift})[OUTPUT]
    return wilson_interval(int(scope.is_outside(fit, evidence).sum()), len(evidence))
