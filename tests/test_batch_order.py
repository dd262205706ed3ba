"""The order of columns is the order of `inference.queue`, whatever the times, risks and ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batch_order import microseconds, order_keys, queue_order
from inference.policy import load_policy
from inference.queue import Waiting, due_at, order_key

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
POLICY = load_policy()
CAPS = [level.cap for level in POLICY.levels.values()]

moments = st.one_of(
    st.sampled_from(CAPS).flatmap(lambda cap: st.integers(-2, 2).map(lambda more: NOW - cap + timedelta(microseconds=more))),
    st.integers(-(10**6), 10**11).map(lambda back: NOW - timedelta(microseconds=back)),
    st.sampled_from([NOW, datetime(9997, 12, 31, tzinfo=UTC), datetime(2, 1, 1, tzinfo=UTC)]),
)
risks = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
waiting = st.builds(Waiting, st.sampled_from(["a", "b", "B", "é", ""]), st.integers(1, 5), moments, risks)


def keys_of(cases: list[Waiting]):
    return order_keys(
        np.array([case.level for case in cases]),
        np.array([case.risk for case in cases]),
        np.array([microseconds(case.received_at) for case in cases], dtype=np.int64),
        POLICY,
        NOW,
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(waiting, min_size=1, max_size=12))
def test_columns_are_ordered_as_single_cases_are(cases):
    """Around every wait cap, far in the past and the future, with equal times, risks and ids."""
    numbered = [Waiting(one.case_id, one.level, one.received_at, one.risk, place) for place, one in enumerate(cases)]
    expected = sorted(range(len(cases)), key=lambda place: order_key(numbered[place], POLICY, NOW))
    found = queue_order(keys_of(cases), lambda places: [cases[place].case_id for place in places])
    assert found.tolist() == expected


def test_a_deadline_is_rounded_as_a_time_span_is():
    """Where the product of cap and share lies halfway between two microseconds, both round to the even one."""
    half = [Waiting("a", 1, NOW, (2 * odd + 1) / 600_000_000) for odd in range(200)]
    deadlines = keys_of(half).deadline.tolist()
    assert deadlines == [microseconds(due_at(case, POLICY)) for case in half]
