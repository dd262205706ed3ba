"""Coded synthetic cases as Parquet: right, repeatable, and like the cases with words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inference.casefile import read_cases
from inference.columns import read_columns
from inference.columns_triage import ColumnTriage
from inference.evidence import season_of
from inference.models import load_models
from inference.triage import Triage
from training.synthetic import write_synthetic

N = 1500


@pytest.fixture(scope="module")
def path(catalogue_folder: Path, tmp_path_factory) -> Path:
    """A written file."""
    path = tmp_path_factory.mktemp("table") / "new" / "cases.parquet"
    write_synthetic(catalogue_folder, N, 5, path)
    return path


def test_all_rows_are_cases_without_a_problem_and_go_as_columns(path, models_folder):
    """No row has anything to say about it but a vital that noise took out of range, and those alone are ranked one by one."""
    readings = read_cases(path)
    assert [reading.case.case_id for reading in readings[:2]] == ["synthetic-1", "synthetic-2"]
    problems = [len(reading.problems) for reading in readings]
    assert sum(problems) < N / 100
    columns = read_columns(pq.read_table(path).combine_chunks().to_batches()[0])
    ColumnTriage(Triage(load_models(models_folder))).assess(columns)
    assert columns.plain.tolist() == [not count for count in problems]


def test_it_looks_like_the_cases_with_words(path):
    """A quarter of the vitals is missing, women and men are about as many, all seasons and findings of all three kinds occur."""
    cases = [reading.case for reading in read_cases(path)]
    assert 0.2 < np.mean([case.vitals.pulse_per_minute is None for case in cases]) < 0.3
    assert 0.4 < np.mean([case.sex == "female" for case in cases]) < 0.6
    assert {season_of(case.received_at) for case in cases} == {"winter", "spring", "summer", "monsoon", "autumn"}
    kinds = Counter(value if value in ("present", "absent") else "value" for case in cases for value in case.findings.values())
    assert kinds["present"] > N and kinds["absent"] > N / 2 and kinds["value"] > N / 20
    assert Counter(case.vitals.consciousness for case in cases)["A"] > N / 2


def test_the_same_seed_draws_the_same_bytes(path, catalogue_folder, tmp_path):
    """And another seed other cases."""
    write_synthetic(catalogue_folder, N, 5, tmp_path / "again.parquet")
    write_synthetic(catalogue_folder, N, 6, tmp_path / "other.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()
    assert not pq.read_table(tmp_path / "other.parquet").equals(pq.read_table(path))
