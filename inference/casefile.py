"""Reads a file of cases: JSON, JSON Lines, CSV or Parquet (also a folder). Every record becomes a case, however broken it is.

Knows formats and encodings; what a field means is the case module's business.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference.case import CaseReading, Photo, Vitals, read_case
from inference.errors import CaseError
from inference.parquet import BATCH_ROWS, SUFFIX, PieceReader, is_parquet, parquet_files, pieces, records

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", SUFFIX)
FILE_BYTES_LIMIT = 2 * 1024**3
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_LONGEST_INTEGER = 20
# What a file that is not UTF-8 is likeliest to be: Windows's Arabic-script code page, which also covers Urdu.
_FALLBACK_ENCODING = "cp1256"
_TRUE, _FALSE = frozenset({"true", "yes", "y", "1"}), frozenset({"false", "no", "n", "0"})
_FINDING_PREFIXES = ("F_", "E_")
_PHOTO_COLUMNS = {f"photo_{name}": name for name in Photo.model_fields}
_BOOLEAN_COLUMNS = frozenset(
    {"on_oxygen", "pregnant", "known_hypercapnic_failure"}
    | {f"photo_{name}" for name in ("itch", "grew", "hurt", "changed", "bleed", "elevation")}
)


def read_cases(path: Path) -> list[CaseReading]:
    """Every case of the file, or of a folder's Parquet files, in its order. Raises CaseError when the file itself cannot be used."""
    if is_parquet(path):
        return _marked_duplicates(list(parquet_cases(path)))
    suffix = path.suffix.casefold()
    if suffix not in FORMATS:
        raise CaseError(f"{path}: cases are read from {', '.join(FORMATS)} files, not from {suffix or 'a file without a suffix'}")
    content = _read_bytes(path)
    records = {".json": _json_records, ".csv": _csv_records}.get(suffix, _json_lines)(content, path)
    readings = [_read_record(raw, f"{path.stem}-{place}", noted) for place, (raw, noted) in enumerate(records, start=1)]
    if not readings:
        raise CaseError(f"{path} holds no case: expected at least one record")
    return _marked_duplicates(readings)


def parquet_cases(path: Path) -> Iterator[CaseReading]:
    """The cases of a Parquet file or folder, in order; no duplicates are marked."""
    reader = PieceReader()
    for piece in pieces(parquet_files(path), BATCH_ROWS):
        place = piece.first
        for rows in reader.read(piece):
            yield from read_rows(rows, piece.path, range(place, place + len(rows)))
            place += len(rows)


def read_rows(rows: Any, path: str, places: Sequence[int]) -> list[CaseReading]:
    """The cases of an Arrow record batch; one without a `case_id` is named by its file and its place there, from 1."""
    stem = Path(path).stem
    return [_read_record(raw, f"{stem}-{place}", noted) for place, (raw, noted) in zip(places, records(rows), strict=True)]


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_LIMIT:
            raise CaseError(f"{path} is larger than {FILE_BYTES_LIMIT} bytes: split it and rank the parts")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CaseError(f"{path} does not exist: name a file of cases ({', '.join(FORMATS)})") from error
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from error
    # UTF-16 without its mark: every other byte of ASCII text is zero.
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return b"\xff\xfe" + content
    return b"\xfe\xff" + content if content[:1] == b"\0" and content[1:2] != b"\0" else content


def _read_record(raw: Any, fallback_id: str, noted: tuple[str, ...]) -> CaseReading:
    reading = read_case(raw, fallback_id)
    return replace(reading, problems=(*noted, *reading.problems)) if noted else reading


Record = tuple[Any, tuple[str, ...]]


def _json_records(content: bytes, path: Path) -> Iterator[Record]:
    text, noted = _decode(content)
    try:
        parsed = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise CaseError(f"{path} is not valid JSON{at}: correct it, or send one case a line as .jsonl") from error
    for record in parsed if isinstance(parsed, list) else [parsed]:
        yield record, noted


def _json_lines(content: bytes, path: Path) -> Iterator[Record]:
    """One case a line, each line decoded and parsed by itself, so that a broken one costs the others nothing."""
    if any(content.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        content = _decode(content)[0].encode()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        text, noted = _decode(line)
        try:
            yield json.loads(text, parse_int=_integer), noted
        except (ValueError, RecursionError):
            yield {}, (f"line {number} of {path.name} is not valid JSON: the case must be entered again", *noted)


def _integer(digits: str) -> int | float:
    """A number of absurd length becomes infinite, and so is set aside by itself instead of breaking the file."""
    return int(digits) if len(digits) < _LONGEST_INTEGER else float("inf")


def _csv_records(content: bytes, path: Path) -> Iterator[Record]:
    """One case a row. A row that cannot be parsed, or whose open quote swallows others, is read by its first line alone."""
    if any(content.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        content = _decode(content)[0].encode()
    header_bytes, _, _ = content.partition(b"\n")
    delimiter = chr(max(b",;\t", key=lambda byte: header_bytes.count(bytes([byte]))))
    decoded = [_decode(line) for line in content.splitlines(keepends=True)]
    lines = [text for text, _ in decoded]
    header: list[str] = []
    start = 0
    while start < len(lines):
        row, end = _csv_row(lines, start, delimiter, header)
        noted = tuple(dict.fromkeys(note for _, notes in decoded[start:end] for note in notes))
        if row is None:
            end = start + 1
            row = [cell.strip().strip('"') for cell in lines[start].split(delimiter)]
            noted = (*decoded[start][1], f"line {end} of {path.name} has a quote that is not closed, or a cell too long: check it")
        start = end
        if not any(cell.strip() for cell in row):
            continue
        if header:
            yield _csv_case(header, row), (*noted, *_width_problem(header, row))
        else:
            header = [name.strip() for name in row]


def _csv_row(lines: list[str], start: int, delimiter: str, header: list[str]) -> tuple[list[str] | None, int]:
    """The row that begins at line `start`, and the line after it; None for a row that must be read by its line alone."""
    rows = csv.reader((lines[place] for place in range(start, len(lines))), delimiter=delimiter)
    try:
        row = next(rows, [])
    except csv.Error:
        return None, start + 1
    if rows.line_num > 1 and header and len(row) != len(header):
        return None, start + 1
    return row, start + max(rows.line_num, 1)


def _width_problem(header: list[str], row: list[str]) -> tuple[str, ...]:
    if len(row) == len(header):
        return ()
    return (f"the row has {len(row)} cells, the header {len(header)}: check for an unquoted separator",)


def _csv_case(header: list[str], row: list[str]) -> dict[str, Any]:
    """A flat row as a nested case: vitals, findings (`F_012` columns) and one photo (`photo_path` and so on)."""
    case: dict[str, Any] = {}
    vitals: dict[str, Any] = {}
    findings: dict[str, Any] = {}
    photo: dict[str, Any] = {}
    for name, cell in zip(header, row, strict=False):
        text = cell.strip()
        if not text:
            continue
        value = _boolean(text) if name in _BOOLEAN_COLUMNS else text
        if name in Vitals.model_fields:
            vitals[name] = value
        elif name.startswith(_FINDING_PREFIXES):
            findings[name] = tuple(text.split("|")) if "|" in text else text
        elif name in _PHOTO_COLUMNS:
            photo[_PHOTO_COLUMNS[name]] = value
        else:
            case[name] = value
    nested = {"vitals": vitals, "findings": findings, "photos": [photo] if photo else []}
    return {**case, **{name: value for name, value in nested.items() if value}}


def _boolean(text: str) -> bool | str:
    lower = text.casefold()
    return True if lower in _TRUE else False if lower in _FALSE else text


def _decode(content: bytes) -> tuple[str, tuple[str, ...]]:
    """Text, and a problem when it was not in the encoding it claims or in UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), ()
            except UnicodeDecodeError:
                break
    try:
        return content.decode("utf-8"), ()
    except UnicodeDecodeError:
        problem = f"the text is not UTF-8; it was read as {_FALLBACK_ENCODING}, so check its words and save it as UTF-8"
        return content.decode(_FALLBACK_ENCODING, errors="replace"), (problem,)


def _marked_duplicates(readings: list[CaseReading]) -> list[CaseReading]:
    """All cases stay; every one that shares its case_id with another says so."""
    counts: dict[str, int] = {}
    for reading in readings:
        counts[reading.case.case_id] = counts.get(reading.case.case_id, 0) + 1
    return [
        replace(
            reading,
            problems=(*reading.problems, duplicate_problem(reading.case.case_id, count)),
        )
        if (count := counts[reading.case.case_id]) > 1
        else reading
        for reading in readings
    ]


def duplicate_problem(case_id: str, count: int) -> str:
    """What every case says that shares its id with others of its file or folder."""
    return f"case_id {case_id} stands in this file {count} times: give each case its own"
