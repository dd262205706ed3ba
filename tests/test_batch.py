"""Batch ranking gives what single ranking gives, to the last bit, however its rows are cut, and loses none."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_cases import NOW, random_rows, table_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.batch import BatchRanker, Part, job_of, rank_part
from inference.batch_input import look_over
from inference.casefile import read_cases
from inference.cli import main
from inference.columns import read_columns
from inference.columns_triage import ColumnTriage
from inference.errors import BundleError
from inference.models import Models, load_models
from inference.priors import Multiplier, Priors
from inference.rules import assess_floor
from inference.triage import Triage

CODED = ("level", "level_name", "wait_cap_minutes", "emergency_probability", "critical_probability", "floor_level", "scored_by", "specialty", "is_outside_scope")  # fmt: skip


@pytest.fixture(scope="module")
def models(models_folder: Path) -> Models:
    return load_models(models_folder)


@pytest.fixture(scope="module")
def triage(models: Models) -> Triage:
    return Triage(models)


@pytest.fixture(scope="module")
def ranker(triage: Triage) -> BatchRanker:
    return BatchRanker(triage)


def written(path: Path, table: pa.Table, rows_a_group: int = 1000) -> Path:
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


def parts_of_file(path: Path, rows: int = 10**6) -> list[Part]:
    return look_over(path, rows).parts


def expected_rows(triage: Triage, path: Path) -> list[dict]:
    """What single ranking says, in the columns of a batch."""
    readings = read_cases(path)
    by_id = {}
    for reading in readings:
        by_id.setdefault(reading.case.case_id, []).append(reading)
    rows = []
    for one in triage.rank(readings, NOW):
        row = {name: getattr(one, name) for name in CODED}
        row |= {"case_id": one.case_id, "received_at": datetime.fromisoformat(one.received_at)}
        row |= {"red_flags": list(one.red_flags), "prediction_set": list(one.prediction_set)}
        row["conditions"] = [each.condition for each in one.differential]
        row["condition_probabilities"] = [each.probability for each in one.differential]
        row |= {"review_needed": one.review.needed, "review_why": list(one.review.why)}
        if len(by_id[one.case_id]) == 1:
            row["rules"] = [rule.id for rule in assess_floor(by_id[one.case_id][0].case, one.findings).fired]
        rows.append(row)
    return rows


def told_rows(table: pa.Table, expected: list[dict]) -> list[dict]:
    return [{name: row[name] for name in wanted} for row, wanted in zip(table.to_pylist(), expected, strict=True)]


def plain_share(triage: Triage, table: pa.Table) -> float:
    columns = read_columns(table.combine_chunks().to_batches()[0])
    ColumnTriage(triage).assess(columns)
    return float(columns.plain.mean())


def test_columns_give_what_single_cases_give(triage, ranker, models, tmp_path):
    """1,200 random cases with gaps, children, complaints and mistakes: every column and the order are those of `Triage.rank`."""
    table = table_of(random_rows(models.symptoms, 1200, seed=1))
    path = written(tmp_path / "cases.parquet", table)
    expected = expected_rows(triage, path)
    told = ranker.rank(parts_of_file(path)[0], NOW)
    assert told_rows(told, expected) == expected
    assert 0.8 < plain_share(triage, table) < 0.95
    assert len({row["level"] for row in expected}) == 5
    assert sum(row["is_outside_scope"] for row in expected) > 3


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), wrong=st.sampled_from([0.0, 1.0]))
def test_columns_give_what_single_cases_give_for_any_case(triage, ranker, models, tmp_path, seed, wrong):
    """A few cases of any seed, all right or all wrong."""
    path = written(tmp_path / "cases.parquet", table_of(random_rows(models.symptoms, 12, seed, wrong)))
    expected = expected_rows(triage, path)
    assert told_rows(ranker.rank(parts_of_file(path)[0], NOW), expected) == expected


def test_what_a_row_gets_does_not_depend_on_the_rows_beside_it(ranker, models, tmp_path):
    """Shuffled and cut into parts of 1, 7 and 100 rows, every row keeps its bits."""
    rows = random_rows(models.symptoms, 300, seed=2, wrong=0.0)
    whole = ranker.rank(parts_of_file(written(tmp_path / "a.parquet", table_of(rows)))[0], NOW)
    unique = {row["case_id"] for row in whole.to_pylist() if not row["review_needed"]}
    before = {row["case_id"]: row for row in whole.drop_columns(["sequence"]).to_pylist() if row["case_id"] in unique}
    random.Random(3).shuffle(rows)
    path = written(tmp_path / "b.parquet", table_of(rows), rows_a_group=211)
    for size in (1, 7, 100):
        parts = parts_of_file(path, size)[:25]
        for part in parts:
            for row in ranker.rank(part, NOW).drop_columns(["sequence"]).to_pylist():
                assert row["case_id"] not in unique or row == before[row["case_id"]]


def test_without_a_model_or_with_a_failing_one_every_row_stays(models, tmp_path):
    """Rules alone, and a symptom model that fails on batches, rank the same rows as single ranking does."""
    path = written(tmp_path / "cases.parquet", table_of(random_rows(models.symptoms, 60, seed=4)))
    symptoms = models.symptoms

    class Failing:
        def __getattr__(self, name):
            return getattr(symptoms, name)

        def terse(self):
            return self

        def score_rows(self, *_):
            raise BundleError("symptoms: the model failed on this batch")

        def score(self, _):
            raise BundleError("symptoms: the model failed on this batch")

    for broken in (replace(models, symptoms=None, acuity=None), replace(models, acuity=None), replace(models, symptoms=Failing())):
        triage = Triage(broken)
        expected = expected_rows(triage, path)
        assert told_rows(BatchRanker(triage).rank(parts_of_file(path)[0], NOW), expected) == expected


def test_local_priors_move_columns_as_they_move_single_cases(models, tmp_path):
    """With priors that make two conditions commoner and one rarer, levels and sets are those of single ranking."""
    names = [label.name for label in models.symptoms.labels if (label.severity or 5) >= 4][:3]
    told = {name: Multiplier(value=value, low=value, high=value) for name, value in zip(names, (8.0, 4.0, 0.2), strict=True)}
    sha256 = models.bundles["symptoms"].sha256
    priors = Priors(
        version="1", bundle_sha256=sha256, n=100, method="by hand", floor_share=0.5, floor_severity=2, multipliers=told, sha256="0" * 64
    )
    path = written(tmp_path / "cases.parquet", table_of(random_rows(models.symptoms, 200, seed=11)))
    triage = Triage(models, priors=priors)
    expected = expected_rows(triage, path)
    assert told_rows(BatchRanker(triage).rank(parts_of_file(path)[0], NOW), expected) == expected
    assert expected != expected_rows(Triage(models), path)


def test_other_layouts_of_the_columns_say_the_same(triage, models, tmp_path):
    """Dictionaries, 32-bit numbers, naive times, numbers as text and missing columns: as single ranking reads them."""
    table = table_of(random_rows(models.symptoms, 150, seed=5, wrong=0.05))
    changed = {
        "sex": table["sex"].dictionary_encode(),
        "age_years": table["age_years"].cast(pa.float32()),
        "pulse_per_minute": pa.array([None if one.as_py() is None else round(one.as_py()) for one in table["pulse_per_minute"]], pa.float64()).cast(pa.int16(), safe=False),
        "received_at": table["received_at"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.timestamp("ms")),
        "temperature_celsius": table["temperature_celsius"].cast(pa.string()),
        "pain_score": table["pain_score"].cast(pa.float64()),
        "consciousness": pa.nulls(len(table)),
    }  # fmt: skip
    for name, column in changed.items():
        table = table.set_column(table.schema.names.index(name), name, column)
    table = table.drop_columns(["district", "findings_values", "on_oxygen", "complaint"])
    path = written(tmp_path / "cases.parquet", table)
    expected = expected_rows(triage, path)
    assert told_rows(BatchRanker(triage).rank(parts_of_file(path)[0], NOW), expected) == expected


@pytest.fixture(scope="module")
def folder(models: Models, tmp_path_factory) -> Path:
    """1,000 cases in three files, of which some share their ids over files; many tie on everything but their ids."""
    folder = tmp_path_factory.mktemp("in")
    rows = random_rows(models.symptoms, 900, seed=6)
    rows += [{"case_id": f"same-{place % 40}", "received_at": NOW} for place in range(100)]
    random.Random(7).shuffle(rows)
    for number, start in enumerate(range(0, 1000, 334)):
        written(folder / f"part-{number}.parquet", table_of(rows[start : start + 334]), 90)
    return folder


def test_the_command_ranks_a_folder_the_same_in_one_process_and_in_two(folder, models_folder, triage, tmp_path, monkeypatch, capsys):
    """Both worklists have the same bytes; ranks are those of single ranking, and every row is there once."""
    monkeypatch.setattr("inference.batch_input.PART_ROWS", 250)
    outs = []
    for jobs in ("1", "2"):
        outs.append(tmp_path / f"{jobs}.parquet")
        arguments = ["rank", str(folder), "--out", str(outs[-1]), "--jobs", jobs, "--now", NOW.isoformat(), "--models", str(models_folder)]
        assert main(arguments) == 1
    assert outs[0].read_bytes() == outs[1].read_bytes()
    table = pq.read_table(outs[0])
    expected = expected_rows(triage, folder)
    assert table["rank"].to_pylist() == list(range(1, 1001))
    assert told_rows(table, expected) == expected
    provenance = json.loads(table.schema.metadata[b"nabz"])
    assert provenance["bundles"] == {task: name.model_dump() for task, name in triage.models.bundles.items()}
    assert provenance["policy_sha256"] == triage.policy.sha256
    marked = sum(row["review_needed"] for row in expected)
    assert f"nabz: {marked} of 1000 cases are marked for review; the column review_why says why" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "2.parquet"]


def test_csv_from_columns_is_csv_from_single_cases(models, models_folder, tmp_path):
    """The same cases as Parquet and as JSON Lines give the same CSV, byte for byte."""
    rows = random_rows(models.symptoms, 200, seed=8, wrong=0.0)
    path = written(tmp_path / "cases.parquet", table_of(rows))
    lines = [reading.case.model_dump_json(exclude_unset=True) for reading in read_cases(path)]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for source in ("parquet", "jsonl"):
        arguments = ["rank", str(tmp_path / f"cases.{source}"), "--out", str(tmp_path / f"{source}.csv"), "--jobs", "1"]
        main([*arguments, "--now", NOW.isoformat(), "--models", str(models_folder)])
    assert (tmp_path / "parquet.csv").read_bytes() == (tmp_path / "jsonl.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{cases}", "--format", "parquet"], "nabz: Parquet is not written to stdout: name a file with --out\n"),
        (
            ["{cases}", "--engine", "dask", "--out", "{out}"],
            "nabz: --engine dask needs a cluster: name its --scheduler ADDRESS, such as tcp://10.0.0.5:8786\n",
        ),
        (
            ["{cases}", "--engine", "dask", "--format", "json"],
            "nabz: --engine dask ranks Parquet files and folders to Parquet or CSV: name such CASES, and --out with .parquet or .csv\n",
        ),
    ],
)
def test_what_cannot_be_done_is_said(arguments, message, folder, tmp_path, capsys):
    """A worklist without a place, a cluster without an address, and a format that is not for clusters end with status 2."""
    places = {"cases": folder, "out": tmp_path / "o.parquet"}
    assert main(["rank", *(one.format(**places) for one in arguments)]) == 2
    assert capsys.readouterr().err == message


def test_a_part_is_not_ranked_with_other_models(folder, models_folder, triage, tmp_path):
    """Where another version or bundle is in use, nothing is ranked: a worklist is of one kind."""
    job = job_of(triage, models_folder, None, None, NOW)
    other = replace(job, expected=(("acuity", "0" * 64), *job.expected[1:]))
    with pytest.raises(BundleError) as raised:
        rank_part(look_over(folder).parts[0], other)
    assert str(raised.value) == "acuity: not the same here as where the batch began; give every machine the same Nabz and models"


def test_importing_the_command_loads_neither_pyarrow_nor_dask(tmp_path):
    """The core starts without what only batches need."""
    import subprocess
    import sys

    code = "import sys, inference.cli, inference.batch_run; print([m for m in ('pyarrow', 'dask', 'distributed', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_tables_of_rows_are_right_about_emptiness(ranker, tmp_path):
    """A case of which nothing is known is urgent by policy, and says that nothing came."""
    path = written(tmp_path / "one.parquet", pa.table({"case_id": ["r1"]}))
    [row] = ranker.rank(parts_of_file(path)[0], NOW).to_pylist()
    assert (row["level"], row["floor_level"], row["scored_by"], row["conditions"]) == (3, 5, "nothing", [])
    assert np.isnan(row["emergency_probability"] or np.nan)
    assert row["review_why"] == ["the complaint is empty and no finding was given: ask what brings the patient"]
