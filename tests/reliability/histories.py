"""Histories of claim, release and complete against a few lines of Python that say what the queue should do."""

from __future__ import annotations

from queue_database import migrated
from queue_histories import run_histories

from reliability.outcome import Ground, Outcome


def run(size: float, ground: Ground) -> Outcome:
    """`size` random histories; the first one that differs ends the run."""
    outcome = Outcome("histories")
    violations = run_histories(migrated(ground.database_url), int(size), steps=15, seed=23)
    outcome.require(violations == 0, f"{violations} times the database did not do what the rules say")
    outcome.done |= {"histories": int(size), "violations": violations}
    return outcome
