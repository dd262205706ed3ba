"""Thresholds with a certificate: at most a stated share of what must not be missed is missed, with a stated confidence.

The bound is Clopper and Pearson's (1934), one-sided. A lower threshold never misses more, so the largest threshold within
the bound controls the risk (Bates et al. 2021, risk-controlling prediction sets; Angelopoulos et al. 2021, learn then test).
Beside it stands the bound of conformal risk control (Angelopoulos et al. 2022). Counts only: knows no model and no task.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from inference.bundle import Certificate
from inference.errors import DataError
from training.metrics import Interval, wilson_interval

Array = NDArray[Any]
CONFIDENCE = 0.95
METHOD = "one-sided Clopper-Pearson bound of the missed share; expected_bound by conformal risk control (Angelopoulos et al. 2022)"


def upper_bound(failures: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Clopper-Pearson one-sided upper bound of a share; 1 with n = 0."""
    return float(beta.ppf(confidence, failures + 1, n - failures)) if failures < n else 1.0


def expected_bound(failures: int, n: int) -> float:
    """What conformal risk control bounds the expected share by: one more failure in one more case."""
    return (failures + 1) / (n + 1)


def largest_certified(scores: Array, target: float) -> float:
    """The largest threshold below which at most `target` of cases like these fall, with CONFIDENCE.

    `scores` [n] are those of the cases that must not be missed; a case is missed when its score lies below the threshold.
    Raises DataError when not even a threshold that misses none of them would do.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if upper_bound(0, len(ordered)) > target:
        raise DataError(f"{len(ordered)} cases are too few to certify a missed share of {target:.0%}: more are needed")
    allowed = 0  # misses; found by halving, because the bound rises with them
    low, high = 0, len(ordered) - 1
    while low <= high:
        allowed = (low + high) // 2
        if upper_bound(allowed, len(ordered)) <= target:
            low = allowed + 1
        else:
            high = allowed - 1
    # Equal scores are missed together or not at all: at the score itself as the threshold, only lower ones are.
    return float(ordered[high])


def certify(*, event: str, miss: str, target: float, is_event: Array, is_called: Array, data: str, is_synthetic: bool) -> Certificate:
    """The certificate of a threshold that calls `is_called` [n] of the held-out cases, of which `is_event` [n] must not be missed."""
    n, missed = int(is_event.sum()), int((is_event & ~is_called).sum())
    price = wilson_interval(int((~is_event & is_called).sum()), int((~is_event).sum()))
    return Certificate(
        event=event,
        miss=miss,
        target=target,
        confidence=CONFIDENCE,
        method=METHOD,
        data=data,
        is_synthetic=is_synthetic,
        n=n,
        missed=missed,
        bound=upper_bound(missed, n),
        expected_bound=expected_bound(missed, n),
        over_triage={"value": price.value, "low": price.low, "high": price.high, "n": price.n} if price.n else {"n": 0},
    )


def recheck(certificates: Mapping[str, Certificate], judged: Mapping[str, tuple[Array, Array]]) -> dict[str, Interval]:
    """The certificates measured again on the cases given: missed share, its bound, the price, and whether all hold.

    `judged` has for each threshold whether each case is an event and whether it is called, [n] both. A certificate holds
    where at most its target was missed; `certificate_holds` is 1 or 0, NaN where no case could be missed.
    """
    figures, verdicts, cases = {}, [], 0
    for name, (is_event, is_called) in judged.items():
        n, missed = int(is_event.sum()), int((is_event & ~is_called).sum())
        certificate = certificates[name]
        figures[f"certificate_{name}_missed"] = wilson_interval(missed, n)
        figures[f"certificate_{name}_bound"] = Interval(upper_bound(missed, n, certificate.confidence) if n else nan, nan, nan, n)
        figures[f"certificate_{name}_over_triage"] = wilson_interval(int((~is_event & is_called).sum()), int((~is_event).sum()))
        if n:
            verdicts.append(missed / n <= certificate.target)
            cases += n
    holds = float(all(verdicts)) if verdicts else nan
    return {"certificate_holds": Interval(holds, nan, nan, cases), **figures} if judged else {}


def broken(certificates: Mapping[str, Certificate], metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each certificate that a metrics document refutes."""
    found = []
    for name, certificate in certificates.items():
        missed = metrics.get(f"certificate_{name}_missed", {})
        if missed.get("value") is not None and missed["value"] > certificate.target:
            found.append(
                f"{name}: {missed['value']:.1%} missed ({missed['low']:.1%} to {missed['high']:.1%}, n = {missed['n']}), "
                f"certified for at most {certificate.target:.0%}"
            )
    return found
