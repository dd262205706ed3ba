"""Histories of claim, release and complete against a model of the queue: the same ones as in test_queue_histories, many more."""

from __future__ import annotations

from importlib.util import find_spec

from reliability.outcome import Ground, Outcome

MODULE = "test_queue_histories"


def run(size: float, ground: Ground) -> Outcome:
    """`size` random histories."""
    outcome = Outcome("histories")
    if find_spec(MODULE) is None:
        outcome.skipped = f"tests/{MODULE}.py is missing"
        return outcome
    return outcome
