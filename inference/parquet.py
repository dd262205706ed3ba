"""Reads Parquet files and folders of cases: which columns there are, pieces of rows, and every row as a record for `read_case`.

Knows the format and the layout of the columns (docs/batch.md); what a field means is the case module's business. pyarrow comes with
the extra `cluster` and is imported only when a Parquet file is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from inference.case import ABSENT, PRESENT, Vitals
from inference.errors import CaseError

SUFFIX = ".parquet"
FINDINGS_PRESENT, FINDINGS_ABSENT, FINDINGS_VALUES = "findings_present", "findings_absent", "findings_values"
FINDING_COLUMNS = (FINDINGS_PRESENT, FINDINGS_ABSENT, FINDINGS_VALUES)
PHOTO_COLUMNS = ("photos", "photo_path")
NO_PHOTOS = "photos are not read from Parquet: send the case with its photos as .json or .csv"
BATCH_ROWS = 8192
_FINDING_PREFIXES = ("F_", "E_")
_MICROSECONDS = 1_000_000
# Times that Python's datetime can hold in any zone.
EARLIEST, LATEST = (round(datetime(*day, tzinfo=UTC).timestamp()) * _MICROSECONDS for day in ((2, 1, 1), (9998, 1, 1)))


Record = tuple[dict[str, Any], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of rows of one file: those in [start, stop) of a row group; `first` is the place of its first row in its file, from 1.

    `sequence` is the place of the same row in the whole input, from 0.
    """

    path: str
    row_group: int
    start: int
    stop: int
    first: int
    sequence: int

    def __len__(self) -> int:
        return self.stop - self.start


def is_parquet(path: Path) -> bool:
    """Whether cases at this path are read from Parquet: a file of that suffix, or a folder."""
    return path.suffix.casefold() == SUFFIX or path.is_dir()


def parquet_library() -> ModuleType:
    """pyarrow. Raises CaseError saying which extra brings it."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise CaseError("Parquet needs pyarrow, which is not installed: pip install 'nabz[cluster]'") from error
    return pa


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or the Parquet files anywhere under a folder, by name. Raises CaseError when there is none."""
    if path.is_dir():
        hidden = ("_", ".")  # what writers of Parquet folders use for marks and unfinished files
        found = sorted(
            file for file in path.rglob(f"*{SUFFIX}") if not any(part.startswith(hidden) for part in file.relative_to(path).parts)
        )
        if not found:
            raise CaseError(f"{path} holds no {SUFFIX} file: name a file of cases, or a folder of Parquet files")
        return found
    if not path.is_file():
        raise CaseError(f"{path} does not exist: name a Parquet file, or a folder of them")
    return [path]


def open_parquet(path: Path | str) -> Any:
    """The file, with the texts of its findings and choices as numbers into a dictionary. Raises CaseError when it is no Parquet file."""
    library = parquet_library()
    try:
        with library.parquet.ParquetFile(path) as file:
            columns = [file.schema.column(index) for index in range(len(file.schema))]
        once = {"case_id", "complaint"}  # texts that hardly repeat
        repeated = [one.path for one in columns if one.physical_type == "BYTE_ARRAY" and one.path not in once]
        return library.parquet.ParquetFile(path, read_dictionary=repeated, memory_map=True)
    except (OSError, library.ArrowException) as error:
        raise CaseError(f"{path} cannot be read as Parquet ({type(error).__name__}): write it again") from error


class PieceReader:
    """Reads pieces. It goes on where the last one ended where it can: a row group of millions of rows is then decoded once."""

    def __init__(self) -> None:
        self._group: tuple[str, int] | None = None
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None  # what of the batch under way lies behind the last piece
        self._at = 0

    def read(self, piece: Piece) -> Iterator[Any]:
        """The piece's rows as Arrow record batches, in order. Raises CaseError when the file has fewer rows, or is broken."""
        library = parquet_library()
        try:
            if self._group != (piece.path, piece.row_group) or piece.start < self._at:
                self._open(piece)
            while self._at < piece.stop:
                batch = self._rest if self._rest is not None else next(self._batches)
                skipped = max(piece.start - self._at, 0)
                taken = batch.slice(skipped, piece.stop - self._at - skipped) if skipped < len(batch) else batch.slice(0, 0)
                used = min(skipped, len(batch)) + len(taken)
                self._rest = batch.slice(used) if used < len(batch) else None
                self._at += used
                if len(taken):
                    yield taken
        except (OSError, StopIteration, library.ArrowException) as error:
            raise CaseError(f"{piece.path} changed or is broken in its row group {piece.row_group}: write it again") from error

    def _open(self, piece: Piece) -> None:
        self._batches = open_parquet(piece.path).iter_batches(batch_size=BATCH_ROWS, row_groups=[piece.row_group])
        self._group, self._rest, self._at = (piece.path, piece.row_group), None, 0


def pieces(files: list[Path], rows: int) -> Iterator[Piece]:
    """The whole input in pieces of at most `rows` rows, in order. Raises CaseError when it holds no row."""
    sequence = 0
    for path in files:
        with open_parquet(path) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        first = 1
        for group, count in enumerate(counts):
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                yield Piece(str(path), group, start, stop, first + start, sequence + start)
            first += count
            sequence += count
    if not sequence:
        raise CaseError(f"{files[0]} holds no case: expected at least one row")


def records(batch: Any) -> Iterator[Record]:
    """Every row of an Arrow record batch as a nested case, with what is wrong about the row as such."""
    columns = {name: _values(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    for row in range(len(batch)):
        yield _record({name: values[row] for name, values in columns.items() if values[row] is not None})


def _values(column: Any) -> list[Any]:
    """A column as Python values; a time out of range is infinite, so that it is set aside like any other impossible number."""
    library = parquet_library()
    kind = column.type
    if library.types.is_timestamp(kind):
        instants = column.cast(library.timestamp("us", kind.tz), safe=False)
        numbers = instants.cast(library.int64()).to_pylist()
        outside = [number is not None and not EARLIEST <= number < LATEST for number in numbers]
        kept = library.compute.if_else(library.array(outside), library.scalar(None, instants.type), instants).to_pylist()
        return [math.inf if is_outside else value for value, is_outside in zip(kept, outside, strict=True)]
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, library.ArrowException):  # text that is not UTF-8, dates before year 1
        return [_value(one) for one in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, parquet_library().ArrowException):
        return math.inf


def _record(row: Mapping[str, Any]) -> Record:
    """A flat row as a nested case, as a CSV row is: vitals by their names, findings from their lists or from `F_` columns."""
    case: dict[str, Any] = {}
    vitals: dict[str, Any] = {}
    noted: list[str] = []
    findings = _findings(row, noted)
    for name, value in row.items():
        if name in Vitals.model_fields:
            vitals[name] = value
        elif name.startswith(_FINDING_PREFIXES):
            findings[name] = value
        elif name in PHOTO_COLUMNS:
            noted.append(NO_PHOTOS)
        elif name not in FINDING_COLUMNS:
            case[name] = value
    nested = {"vitals": vitals, "findings": findings}
    return {**case, **{name: value for name, value in nested.items() if value}}, tuple(dict.fromkeys(noted))


def _findings(row: Mapping[str, Any], noted: list[str]) -> dict[str, Any]:
    """The findings of the three lists. A code of two of them that disagree counts as there, and is noted."""
    findings: dict[str, Any] = {}
    several: dict[str, list[str]] = {}
    absent = _codes(row, FINDINGS_ABSENT, noted)
    present = _codes(row, FINDINGS_PRESENT, noted)
    for told in _codes(row, FINDINGS_VALUES, noted):
        code, mark, value = told.partition("=")
        if mark:
            several.setdefault(code, []).append(value)
        else:
            noted.append(f"{FINDINGS_VALUES} has an entry that is not code=value: it was set aside, send it again")
    findings.update(dict.fromkeys(absent, ABSENT))
    findings.update(dict.fromkeys(present, PRESENT))
    findings.update({code: values[0] if len(values) == 1 else tuple(values) for code, values in several.items()})
    if both := sorted(set(absent) & (set(present) | several.keys())):
        noted.append(f"findings {', '.join(code[:60] for code in both[:5])} are given as there and as absent: taken as there, check them")
    return findings


def _codes(row: Mapping[str, Any], column: str, noted: list[str]) -> list[str]:
    told = row.get(column)
    if told is None:
        return []
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        noted.append(f"{column} is not a list of texts: it was set aside, send it again")
        return []
    return told
