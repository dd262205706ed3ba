"""The short form of each row of the reliability table (tests/reliability): faults, load and races against the running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.outcome import Ground
from reliability.rows import POSTGRES, ROWS, Row

CASES = [(row, database) for row in ROWS if row.short is not None for database in row.databases]


@pytest.mark.parametrize(("row", "database"), CASES, ids=[f"{row.name}, {database}" for row, database in CASES])
def test_nothing_is_lost_doubled_or_broken(row: Row, database: str, tmp_path: Path, request: pytest.FixtureRequest):
    """The row at a size that takes seconds: it has no violation, and did what it says."""
    ground = Ground(tmp_path, f"sqlite:///{tmp_path / 'nabz.db'}", is_timed=False)
    if database == POSTGRES:
        server = request.getfixturevalue("postgres_server")
        ground = Ground(tmp_path, request.getfixturevalue("postgres_url"), server, is_timed=False)
    outcome = row.run(row.short, ground)
    assert (outcome.violations, outcome.violation_count) == ([], 0)
    assert outcome.passed and outcome.done
