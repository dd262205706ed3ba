"""Tests of the rule by which questions stop."""

from __future__ import annotations

import numpy as np

from inference.settled import LEAST_INFORMATION, SETTLED_PROBABILITY, StopRule, stop_rule


def test_a_small_set_or_a_sure_leader_settles():
    """Small and unsure, large and sure, large and unsure."""
    rule = StopRule(largest_set=3, probability=0.95)
    assert rule.is_settled(np.array([3, 9, 4]), np.array([0.4, 0.95, 0.94])).tolist() == [True, True, False]


def test_the_policy_s_set_counts_where_the_bundle_says_nothing():
    """The other two have their defaults."""
    assert stop_rule({"severity_level_2": 0.5}, 3) == StopRule(3, SETTLED_PROBABILITY, LEAST_INFORMATION)


def test_a_bundle_s_own_limits_go_before_the_policy_s():
    """A benchmark goes on until one condition is clear."""
    assert stop_rule({"settled_set": 0.0, "settled_probability": 0.98, "least_information": 0.0}, 3) == StopRule(0, 0.98, 0.0)
