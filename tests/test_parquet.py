"""Parquet files and folders of cases: every row becomes the case that the same fields as JSON would be."""

from __future__ import annotations

import builtins
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.case import read_case
from inference.casefile import read_cases
from inference.errors import CaseError
from inference.parquet import Piece, PieceReader, parquet_files, pieces


def written(path: Path, columns: dict, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_a_row_becomes_a_nested_case(tmp_path: Path) -> None:
    """Vitals by their names, findings from three lists, several values of one finding, a time with its zone."""
    path = written(
        tmp_path / "a.parquet",
        {
            "case_id": ["r1"],
            "received_at": pa.array([datetime(2026, 11, 22, 3, 30, tzinfo=UTC)], pa.timestamp("us", "Asia/Karachi")),
            "age_years": [58.0],
            "sex": ["male"],
            "spo2_percent": [93],
            "on_oxygen": [False],
            "consciousness": pa.array([None], pa.string()),
            "findings_present": [["F_012", "F_050"]],
            "findings_absent": [["F_001"]],
            "findings_values": [["F_101=flank", "F_101=all_over", "F_002=low"]],
        },
    )
    [reading] = read_cases(path)
    assert reading.problems == ()
    assert reading.case.received_at.isoformat() == "2026-11-22T08:30:00+05:00"
    assert reading.case.vitals.model_fields_set == {"spo2_percent", "on_oxygen"}
    assert reading.case.findings == {
        "F_001": "absent", "F_012": "present", "F_050": "present", "F_101": ("flank", "all_over"), "F_002": "low",
    }  # fmt: skip


def test_bad_rows_stay_and_say_why(tmp_path: Path) -> None:
    """A missing id, a vital out of range, a finding both ways, an entry without a value, a time out of range, a photo, an unknown column."""
    path = written(
        tmp_path / "b.parquet",
        {
            "case_id": ["r1", None, "r3", "r4", "r5"],
            "pulse_per_minute": [80.0, 80.0, 1200.0, float("nan"), None],
            "findings_present": [["F_012"], [], None, None, None],
            "findings_absent": [["F_012"], [], None, None, None],
            "findings_values": [None, ["F_101"], None, None, None],
            "received_at": pa.array([0, 0, 0, 0, 2**62], pa.timestamp("us", "UTC")),
            "photo_path": [None, None, None, "a.jpg", None],
            "colour": [None, None, None, None, "red"],
        },
    )
    first, second, third, fourth, fifth = read_cases(path)
    assert first.case.findings == {"F_012": "present"}
    assert first.problems == ("findings F_012 are given as there and as absent: taken as there, check them",)
    assert second.case.case_id == "b-2"
    assert second.problems == (
        "findings_values has an entry that is not code=value: it was set aside, send it again",
        "case_id is missing: named b-2 by its place in the file",
    )
    assert "pulse_per_minute is 1200.0, expected 0 to 330" in third.problems[0]
    assert fourth.problems[0] == "photos are not read from Parquet: send the case with its photos as .json or .csv"
    assert "pulse_per_minute is nan" in fourth.problems[1]
    assert fifth.problems[0] == "unknown field colour was set aside"
    assert fifth.problems[1].startswith("received_at is inf,")


def test_a_folder_is_read_by_name_and_duplicates_are_found_over_files(tmp_path: Path) -> None:
    """Files of sub-folders count, marks of writers do not; one id in two files is named in both rows."""
    written(tmp_path / "in" / "b.parquet", {"case_id": ["r1"]})
    written(tmp_path / "in" / "a" / "c.parquet", {"case_id": ["r1", None]})
    written(tmp_path / "in" / "_tmp" / "x.parquet", {"case_id": ["unfinished"]})
    readings = read_cases(tmp_path / "in")
    assert [reading.case.case_id for reading in readings] == ["r1", "c-2", "r1"]
    assert readings[0].problems[-1] == "case_id r1 stands in this file 2 times: give each case its own"


@pytest.mark.parametrize("group", [3, 100])
def test_pieces_cover_every_row_once_and_in_any_order(tmp_path: Path, group: int) -> None:
    """Pieces of several row groups and files, read forwards, backwards and twice, are their rows."""
    written(tmp_path / "a.parquet", {"case_id": [f"a{n}" for n in range(10)]}, row_group_size=group)
    written(tmp_path / "b.parquet", {"case_id": [f"b{n}" for n in range(5)]}, row_group_size=group)
    expected = [f"a{n}" for n in range(10)] + [f"b{n}" for n in range(5)]
    cut = list(pieces(parquet_files(tmp_path), 2))
    reader = PieceReader()

    def ids(piece: Piece) -> list[str]:
        return [one for batch in reader.read(piece) for one in batch["case_id"].to_pylist()]

    for order in (cut, cut[::-1], cut[::2] + cut[1::2]):
        for piece in order:
            assert ids(piece) == expected[piece.sequence : piece.sequence + len(piece)]
            assert piece.first == int(ids(piece)[0][1:]) + 1
    assert sum(map(len, cut)) == 15


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.parquet", "{path} does not exist: name a Parquet file, or a folder of them"),
        ("empty", "{path} holds no .parquet file: name a file of cases, or a folder of Parquet files"),
        ("text.parquet", "{path} cannot be read as Parquet (ArrowInvalid): write it again"),
        ("nobody.parquet", "{path} holds no case: expected at least one row"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, message: str) -> None:
    """A missing, foreign or empty file and an empty folder raise with their path and what to do."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("case_id\nr1\n")
    written(tmp_path / "nobody.parquet", {"case_id": pa.array([], pa.string())})
    path = tmp_path / name
    with pytest.raises(CaseError) as raised:
        read_cases(path)
    assert str(raised.value) == message.format(path=path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    """Where pyarrow is not installed, the error says which extra brings it."""
    path = written(tmp_path / "a.parquet", {"case_id": ["r1"]})
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(CaseError) as raised:
        read_cases(path)
    assert str(raised.value) == "Parquet needs pyarrow, which is not installed: pip install 'nabz[cluster]'"


def test_a_case_is_the_same_from_parquet_and_from_json(tmp_path: Path) -> None:
    """Numbers as text, floats for whole numbers and 32-bit floats keep what they say."""
    path = written(
        tmp_path / "a.parquet",
        {
            "case_id": [7],
            "age_years": ["58"],
            "prior_visits": [2.0],
            "temperature_celsius": pa.array([37.5], pa.float32()),
            "pregnant": ["no"],
        },
    )
    [reading] = read_cases(path)
    assert reading == read_case(
        {"case_id": 7, "age_years": "58", "prior_visits": 2.0, "pregnant": "no", "vitals": {"temperature_celsius": 37.5}}, "x"
    )
