"""Files of cases: a broken record costs the others nothing, and every message names its case or file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.casefile import read_cases
from inference.errors import CaseError

NOT_UTF8 = "the text is not UTF-8; it was read as cp1256, so check its words and save it as UTF-8"


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_csv_row_becomes_a_nested_case(tmp_path: Path) -> None:
    """Columns of vitals, findings and one photo are gathered; several values are parted by a bar."""
    path = written(
        tmp_path,
        "a.csv",
        "case_id,age_years,complaint,spo2_percent,on_oxygen,pain_score,F_012,F_101,photo_path,photo_itch\n"
        'r1,58,"bukhar, khansi",93,no,7,present,flank|all_over,a.jpg,yes\n',
    )
    [reading] = read_cases(path)
    assert reading.problems == ()
    assert reading.case.complaint == "bukhar, khansi"
    assert (reading.case.vitals.spo2_percent, reading.case.vitals.on_oxygen, reading.case.vitals.pain_score) == (93, False, 7)
    assert reading.case.findings == {"F_012": "present", "F_101": ("flank", "all_over")}
    assert reading.case.photos[0].itch is True


def test_unknown_columns_and_wrong_widths_are_named(tmp_path: Path) -> None:
    """A column of no meaning and a row with a cell too many are problems of their rows only."""
    path = written(tmp_path, "a.csv", "case_id,age_years,colour\nr1,5,red\nr2,6\nr3,7,,9\n")
    first, second, third = read_cases(path)
    assert first.problems == ("unknown field colour was set aside",)
    assert second.problems == ("the row has 2 cells, the header 3: check for an unquoted separator",)
    assert third.problems == ("the row has 4 cells, the header 3: check for an unquoted separator",)
    assert [reading.case.age_years for reading in (first, second, third)] == [5, 6, 7]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters_of_spreadsheets(tmp_path: Path, encoding: str, delimiter: str) -> None:
    """UTF-8 and UTF-16, with and without a mark, and three separators give the same cases."""
    rows = [["case_id", "complaint"], ["r1", "بخار ہے"], ["r2", "khansi"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    readings = read_cases(written(tmp_path, "a.csv", text.encode(encoding)))
    assert [(reading.case.case_id, reading.case.complaint) for reading in readings] == [("r1", "بخار ہے"), ("r2", "khansi")]
    assert all(reading.problems == () for reading in readings)


def test_one_line_in_another_encoding_is_marked_alone(tmp_path: Path) -> None:
    """In a UTF-8 file, one line of cp1256 is read as such and only its case is marked."""
    lines = [b"case_id,complaint", "r1,بخار".encode(), "r2,خارش".encode("cp1256"), "r3,caf\xe9".encode("latin-1"), b"r4,x"]
    readings = read_cases(written(tmp_path, "a.csv", b"\n".join(lines)))
    assert [reading.case.complaint for reading in readings][:2] == ["بخار", "خارش"]
    assert [reading.problems for reading in readings] == [(), (NOT_UTF8,), (NOT_UTF8,), ()]


def test_an_open_quote_costs_one_row(tmp_path: Path) -> None:
    """A quote that is never closed does not swallow the rows behind it."""
    path = written(tmp_path, "a.csv", 'case_id,complaint,sex\nr1,"bukhar,male\nr2,khansi,female\n"r3","two\nlines",male\n')
    readings = read_cases(path)
    assert [reading.case.case_id for reading in readings] == ["r1", "r2", "r3"]
    assert readings[0].problems == ("line 2 of a.csv has a quote that is not closed, or a cell too long: check it",)
    assert readings[2].case.complaint == "two\nlines"


def test_an_enormous_cell_costs_one_row(tmp_path: Path) -> None:
    """A cell beyond the CSV limit is cut to what a complaint may hold."""
    path = written(tmp_path, "a.csv", f"case_id,complaint\nr1,{'x' * 200_000}\nr2,khansi\n")
    first, second = read_cases(path)
    assert len(first.case.complaint) == 20_000
    assert (second.case.case_id, second.problems) == ("r2", ())


def test_a_broken_line_of_jsonl_keeps_its_place(tmp_path: Path) -> None:
    """Bad JSON, a number, NaN, a giant number and deep nesting each become a case of their own."""
    lines = [
        '{"case_id": "r1"}', "{oops", "5", '{"case_id": "r4", "age_years": NaN}',
        '{"case_id": "r5", "age_years": ' + "9" * 6000 + "}", "[" * 100_000, '{"case_id": "r7"}',
    ]  # fmt: skip
    readings = read_cases(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert [reading.case.case_id for reading in readings] == ["r1", "a-2", "a-3", "r4", "r5", "a-6", "r7"]
    assert readings[1].problems[0] == "line 2 of a.jsonl is not valid JSON: the case must be entered again"
    assert readings[2].problems == ("the case is not an object with named fields: enter it again",)
    assert "age_years is nan" in readings[3].problems[0]
    assert "age_years is inf" in readings[4].problems[0]
    assert readings[6].problems == ()


def test_a_json_list_keeps_all_its_records(tmp_path: Path) -> None:
    """A list with records of every kind, and a file of one object, are read."""
    path = written(tmp_path, "a.json", '[{"case_id": "r1"}, null, [1], {"age_years": ' + "1" * 5000 + "}]")
    assert [reading.case.case_id for reading in read_cases(path)] == ["r1", "a-2", "a-3", "a-4"]
    assert read_cases(written(tmp_path, "b.json", b'\xef\xbb\xbf{"case_id": "r1"}'))[0].problems == ()


def test_duplicated_ids_all_stay_and_all_say_so(tmp_path: Path) -> None:
    """Two cases of one id are both kept, each with the message."""
    readings = read_cases(written(tmp_path, "a.jsonl", '{"case_id": "r1"}\n{"case_id": "r1"}\n{"case_id": "r2"}'))
    problem = "case_id r1 stands in this file 2 times: give each case its own"
    assert [reading.problems for reading in readings] == [(problem,), (problem,), ()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "{path} holds no case: expected at least one record"),
        ("a.csv", "case_id,age_years\n", "{path} holds no case: expected at least one record"),
        ("a.jsonl", "\n \n", "{path} holds no case: expected at least one record"),
        ("a.json", "", "{path} is not valid JSON (line 1, column 1): correct it, or send one case a line as .jsonl"),
        ("a.txt", "x", "{path}: cases are read from .json, .jsonl, .ndjson, .csv, .parquet files, not from .txt"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    """An empty or foreign file raises with its path and what to do."""
    path = written(tmp_path, name, content)
    with pytest.raises(CaseError) as raised:
        read_cases(path)
    assert str(raised.value) == message.format(path=path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist says so."""
    path = tmp_path / "none.csv"
    with pytest.raises(CaseError, match="does not exist: name a file of cases"):
        read_cases(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.jsonl"]))
def test_any_bytes_are_read_or_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    """Rubbish behind a good first record never loses that record."""
    head = b"case_id,complaint\nr1,bukhar\n" if name.endswith("csv") else b'{"case_id": "r1", "complaint": "bukhar"}\n'
    readings = read_cases(written(tmp_path, name, head + content))
    assert (readings[0].case.case_id, readings[0].case.complaint) == ("r1", "bukhar")
