"""Whatever clinicians do to the queue, in whatever order: the database does what a few lines of Python say it should."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from queue_database import NOW, do, migrated
from queue_histories import CLINICIANS, LEVELS, History, run_histories

from inference.service import store
from inference.service.database import make_engine

HISTORIES = 10_000 if os.environ.get("NABZ_RELIABILITY") == "full" else 25
clinicians, places, levels = st.integers(0, CLINICIANS - 1), st.integers(0, 7), st.sampled_from(LEVELS)
risks, minutes_ago = st.sampled_from((0.0, 0.3, 1.0)), st.sampled_from((0, 5, 9, 70, 1500, 60_000))


class QueueMachine(RuleBasedStateMachine):
    """Hypothesis chooses what is done, and makes what differs as short as it can."""

    numbers = itertools.count()

    def __init__(self, engine) -> None:
        super().__init__()
        self.history = History(engine, f"m{next(self.numbers)}")

    @initialize(level=levels, risk=risks)
    def first(self, level, risk):
        self.history.arrive(level, risk, 0)

    @precondition(lambda self: len(self.history.cases) < 8)
    @rule(level=levels, risk=risks, minutes=minutes_ago)
    def arrive(self, level, risk, minutes):
        self.history.arrive(level, risk, minutes)

    @rule(minutes=st.sampled_from((0.5, 6, 31, 70)))
    def pass_time(self, minutes):
        self.history.pass_time(minutes)

    @rule()
    def sweep(self):
        self.history.sweep()

    @rule(who=clinicians, place=places)
    def claim(self, who, place):
        self.history.claim(who, place)

    @rule(who=clinicians)
    def claim_next(self, who):
        self.history.claim_next(who)

    @rule(who=clinicians, place=places)
    def release(self, who, place):
        self.history.release(who, place)

    @rule(who=clinicians, place=places)
    def complete(self, who, place):
        self.history.complete(who, place)

    @rule(who=clinicians, place=places, level=levels)
    def override(self, who, place, level):
        self.history.override(who, place, level)

    @rule(who=clinicians, place=places)
    def note(self, who, place):
        self.history.note(who, place)

    @rule(place=places, level=levels, risk=risks, is_stale=st.booleans())
    def reassess(self, place, level, risk, is_stale):
        self.history.reassess(place, level, risk, is_stale=is_stale)

    @invariant()
    def agrees(self):
        assert self.history.violations == []

    def teardown(self):
        self.history.check()
        assert self.history.violations == []


def test_hypothesis_finds_no_history_that_differs(queue_url):
    """Short ones of all kinds."""
    engine = make_engine(queue_url)
    run_state_machine_as_test(
        lambda: QueueMachine(engine), settings=settings(max_examples=20, stateful_step_count=20, deadline=None, database=None)
    )
    engine.dispose()


def test_random_histories_have_no_violation(queue_url):
    """Many, on one database, one after the other; with NABZ_RELIABILITY=full ten thousand."""
    assert run_histories(queue_url, HISTORIES, steps=15, seed=1) == 0


@pytest.mark.parametrize(
    ("broken", "replacement"),
    [
        ("_check_capacity", lambda *_: None),
        ("level_after", lambda before, machine_level, **_: machine_level),
        ("_is_held_by_another", lambda *_: False),
        ("sweep_caps", lambda *_: 0),
    ],
)
def test_histories_notice_a_broken_rule(tmp_path, monkeypatch, broken, replacement):
    """The test of the test: each of these rules, left out, is missed."""
    url = migrated(f"sqlite:///{tmp_path / 'nabz.db'}")
    monkeypatch.setattr(store, broken, replacement)
    if broken == "sweep_caps":
        monkeypatch.setattr("inference.service.pages.sweep_caps", replacement)
    assert any(run_histories(url, 4, steps=15, seed=seed) for seed in range(15))


def test_a_history_compares_every_row(queue_url):
    """Something that changed behind its back is a violation."""
    engine = make_engine(queue_url)
    history = History(engine, "h")
    history.arrive(3, 0.3, 0)
    history.check()
    assert history.violations == []
    do(engine, lambda unit: store.add_note(unit, "h-000", store.Who("x", "clinician"), NOW, b"note"))
    history.check()
    assert len(history.violations) == 2
    engine.dispose()
