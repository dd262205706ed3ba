"""Tests of the queue's order: what must hold for any cases, and small queues that a person can check."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.policy import load_policy
from inference.queue import Waiting, cap_at, due_at, order_key, ordered, waited

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
POLICY = load_policy()
CAP_MINUTES = {1: 10, 2: 60, 3: 1440, 4: 20160, 5: 43200}

levels = st.integers(1, 5)
risks = st.floats(0, 1)
minutes = st.integers(-500, 60_000)
shapes = st.lists(st.tuples(levels, minutes, risks), max_size=30)


def waiting(case_id: str, level: int, minutes_ago: float, risk: float = 0.0, sequence: int = 0) -> Waiting:
    """A case that came so many minutes before NOW."""
    return Waiting(case_id, level, NOW - timedelta(minutes=minutes_ago), risk, sequence)


def queue_of(shape: list[tuple[int, int, float]]) -> list[Waiting]:
    """One case for each (level, minutes ago, risk)."""
    return [waiting(f"case-{place}", *one, sequence=place) for place, one in enumerate(shape)]


def ids(cases: list[Waiting]) -> list[str]:
    """The ids in the queue's order."""
    return [case.case_id for case in ordered(cases, POLICY, NOW)]


def is_past_cap(case: Waiting) -> bool:
    """Whether it waits longer than its level's cap, counted here by hand."""
    return (NOW - case.received_at) > timedelta(minutes=CAP_MINUTES[case.level])


@given(shapes, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_arrival_in_the_list(shape, shuffler):
    """Any shuffle of the cases gives the same queue."""
    cases = queue_of(shape)
    expected = ids(cases)
    shuffler.shuffle(cases)
    assert ids(cases) == expected


@given(shapes)
def test_the_order_is_total(shape):
    """No two cases share a key, so none can swap by chance."""
    cases = queue_of(shape)
    assert len({order_key(case, POLICY, NOW) for case in cases}) == len(cases)


@given(shapes)
def test_ordering_loses_and_adds_nobody_and_is_stable(shape):
    """The ordered queue has the same cases, and ordering it again changes nothing."""
    cases = queue_of(shape)
    once = ordered(cases, POLICY, NOW)
    assert sorted(once, key=lambda c: c.sequence) == cases
    assert ordered(once, POLICY, NOW) == once


@given(shapes, levels, minutes, risks)
def test_a_new_case_does_not_reorder_the_others(shape, level, ago, risk):
    """What is left when it is taken out again is the queue as it was."""
    cases = queue_of(shape)
    newcomer = waiting("newcomer", level, ago, risk)
    assert [name for name in ids([*cases, newcomer]) if name != "newcomer"] == ids(cases)


@given(shapes)
def test_class_comes_first(shape):
    """Levels never mix: not by risk, not by waiting, not past a cap."""
    queue = ordered(queue_of(shape), POLICY, NOW)
    assert [case.level for case in queue] == sorted(case.level for case in queue)


@given(levels, minutes, risks, minutes, risks)
def test_past_its_cap_a_case_comes_before_any_younger_one_of_its_level(level, ago_a, risk_a, ago_b, risk_b):
    """Whatever the younger one's risk is."""
    a, b = waiting("a", level, ago_a, risk_a), waiting("b", level, ago_b, risk_b)
    if is_past_cap(a) and not is_past_cap(b):
        assert ids([b, a]) == ["a", "b"]


@given(levels, minutes, minutes, risks, risks)
def test_of_two_past_their_cap_the_longer_overdue_comes_first(level, ago_a, ago_b, risk_a, risk_b):
    """Risk has no say any more."""
    a, b = waiting("a", level, ago_a, risk_a), waiting("b", level, ago_b, risk_b)
    if is_past_cap(a) and is_past_cap(b) and ago_a > ago_b:
        assert ids([b, a]) == ["a", "b"]


@given(levels, minutes, risks, risks)
def test_received_together_the_higher_risk_comes_first(level, ago, risk_a, risk_b):
    """Within a level, past the cap or not."""
    a, b = waiting("a", level, ago, max(risk_a, risk_b)), waiting("b", level, ago, min(risk_a, risk_b))
    if a.risk > b.risk:
        assert ids([b, a]) == ["a", "b"]


@given(levels, minutes, st.integers(1, 5000), risks)
def test_at_equal_risk_the_longer_wait_comes_first(level, ago, more, risk):
    """First come, first served, unless something speaks against it."""
    assert ids([waiting("young", level, ago, risk), waiting("old", level, ago + more, risk)]) == ["old", "young"]


def test_a_queue_of_seven_worked_out_by_hand():
    """Level 3 has a cap of 24 hours; risk 1 halves it."""
    cases = [
        waiting("advice, a month late", 5, 90_000),
        waiting("urgent, new, risk 1: due in 12 h", 3, 0, 1.0),
        waiting("urgent, 10 h, risk 0: due in 14 h", 3, 600),
        waiting("urgent, 25 h: 1 h overdue", 3, 1500),
        waiting("urgent, 30 h: 6 h overdue", 3, 1800),
        waiting("immediate, new", 1, 0),
        waiting("emergency, new", 2, 0),
    ]
    assert ids(cases) == [
        "immediate, new",
        "emergency, new",
        "urgent, 30 h: 6 h overdue",
        "urgent, 25 h: 1 h overdue",
        "urgent, new, risk 1: due in 12 h",
        "urgent, 10 h, risk 0: due in 14 h",
        "advice, a month late",
    ]


@pytest.mark.parametrize(("minutes_ago", "first"), [(60, "risky"), (60.1, "old")])
def test_the_cap_itself_is_not_past_the_cap(minutes_ago, first):
    """Level 2 has 60 minutes: at 60 a case is due now, and a case due earlier for its risk is ahead; after that it is not."""
    old, risky = waiting("old", 2, minutes_ago, 0.0), waiting("risky", 2, 45, 1.0)
    assert ids([old, risky])[0] == first


def test_due_and_cap_of_one_case():
    """Level 2, risk 0.5: due at 60 x (1 - 0.5 x 0.5) = 45 minutes, capped at 60."""
    case = waiting("a", 2, 0, 0.5)
    assert due_at(case, POLICY) == NOW + timedelta(minutes=45)
    assert cap_at(case, POLICY) == NOW + timedelta(minutes=60)


def test_a_case_from_the_future_has_waited_no_time():
    """A wrong clock gives no negative wait."""
    assert waited(waiting("a", 3, -30), NOW) == timedelta(0)
    assert waited(waiting("a", 3, 30), NOW) == timedelta(minutes=30)


def test_ties_are_broken_by_name_then_by_place():
    """Two equal cases keep one order for ever."""
    same = [waiting("b", 3, 5, 0.5, 0), waiting("a", 3, 5, 0.5, 2), waiting("a", 3, 5, 0.5, 1)]
    assert [(case.case_id, case.sequence) for case in ordered(same, POLICY, NOW)] == [("a", 1), ("a", 2), ("b", 0)]


def test_time_zones_do_not_matter():
    """16:00 in Karachi is before 12:00 in London."""
    karachi = timezone(timedelta(hours=5))
    early = Waiting("early", 3, datetime(2026, 7, 1, 16, 0, tzinfo=karachi), 0.0)
    late = Waiting("late", 3, datetime(2026, 7, 1, 11, 30, tzinfo=UTC), 0.0)
    assert [case.case_id for case in ordered([late, early], POLICY, NOW)] == ["early", "late"]


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))])
def test_the_first_and_the_last_moment_of_the_calendar_cost_nobody_the_queue(zone):
    """A device without a clock sends year 1 or 9999; the others are still ordered."""
    cases = [
        Waiting("year 9999", 3, datetime.max.replace(tzinfo=zone), 0.2),
        waiting("today", 3, 5),
        Waiting("year 1", 3, datetime.min.replace(tzinfo=zone), 0.2),
    ]
    assert ids(cases) == ["year 1", "today", "year 9999"]


def test_an_empty_queue_is_empty():
    """Nobody waits."""
    assert ids([]) == []


def test_thousands_of_cases_are_ordered_alike_in_any_shuffle():
    """20,000 cases: sorted by level, and within a level the overdue ones first."""
    shuffler = random.Random(0)
    cases = [
        waiting(f"case-{place}", shuffler.randint(1, 5), shuffler.randint(-100, 60_000), shuffler.random(), place)
        for place in range(20_000)
    ]
    queue = ordered(cases, POLICY, NOW)
    shuffler.shuffle(cases)
    assert ordered(cases, POLICY, NOW) == queue
    order = [(case.level, not is_past_cap(case)) for case in queue]
    assert order == sorted(order)
