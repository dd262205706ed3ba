"""The queue's order for columns of cases: the same total order as `inference.queue.order_key`, by numbers in arrays.

Microseconds since 1970 (UTC) stand for times. Reads no clock and knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.policy import LEVELS, Policy

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_NEARLY_HALF = 0.01  # a product of floats is nowhere near so wrong


@dataclass(frozen=True)
class OrderKeys:
    """What the order needs of n cases, each [n]: `deadline` and `received` in microseconds, `risk` in [0, 1]."""

    level: NDArray[Any]
    is_past_cap: NDArray[np.bool_]
    deadline: NDArray[np.int64]
    risk: NDArray[np.float64]
    received: NDArray[np.int64]


def microseconds(moment: datetime) -> int:
    """A time as the columns have it."""
    return (moment - _EPOCH) // _MICROSECOND


def order_keys(level: NDArray[Any], risk: NDArray[np.float64], received: NDArray[np.int64], policy: Policy, now: datetime) -> OrderKeys:
    """The keys of n cases. `received` is when each came, in microseconds."""
    caps = np.array([0, *(policy.levels[one].cap // _MICROSECOND for one in LEVELS)])[level]
    is_past_cap = np.maximum(microseconds(now) - received, 0) > caps
    share = 1 - policy.queue.risk_weight * risk
    exact = caps * share
    spans = np.rint(exact).astype(np.int64)
    # `timedelta` rounds the exact product; where rounding the float's could come out otherwise, it is asked.
    for place in np.flatnonzero(np.abs(exact - np.floor(exact) - 0.5) < _NEARLY_HALF):
        spans[place] = policy.levels[int(level[place])].cap * float(share[place]) // _MICROSECOND
    deadline = np.minimum(received + np.where(is_past_cap, caps, spans), _LAST)
    return OrderKeys(level, is_past_cap, deadline, risk, received)


def queue_order(keys: OrderKeys, case_ids: Callable[[NDArray[np.int64]], Sequence[str]]) -> NDArray[np.int64]:
    """The places of the cases in the queue's order, [n]; their places now break the last ties.

    `case_ids` gives the ids of some places: only cases that all numbers leave equal are compared by them.
    """
    order = np.lexsort((keys.received, -keys.risk, keys.deadline, ~keys.is_past_cap, keys.level))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (keys.level, keys.is_past_cap, keys.deadline, keys.risk, keys.received):
        same &= column[order[1:]] == column[order[:-1]]
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))
    ends = np.flatnonzero(same & ~np.concatenate([same[1:], [False]])) + 2
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        tied = order[start:end]
        order[start:end] = [place for _, place in sorted(zip(case_ids(tied), tied.tolist(), strict=True))]
    return order
