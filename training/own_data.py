"""Recognises a data scientist's own data and reads it as text, row by row: nothing is repaired, nothing is left out.

What may be wrong with a row is own_data_schema.py's business, what with the whole own_data_checks.py's.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference.case import LABELS, Case, Vitals
from inference.errors import DataError
from training.labelled_cases import FILE, Labels, read_lines
from training.own_data_kinds import CASES, KINDS, LESIONS, PATIENTS, PHOTOS, Kind

TRAIN, HELD_OUT = "train", "held_out"
ROW, FILE_COLUMN, SPLIT, STRANGE = "_row", "_file", "_split", "_strange"
_KNOWN_FILES = ("ktas/data.csv", "nhamcs_ed/visits.csv.gz", "data.csv", "visits.csv.gz", "visits.csv")
_NESTED = {"vitals": frozenset(Vitals.model_fields), LABELS: frozenset(Labels.model_fields)}
_FIELDS = frozenset(Case.model_fields) | _NESTED.keys()
_SHOWN_NAMES = 40


@dataclass(frozen=True)
class OwnData:
    """The rows of all files as text, "" where blank, with the columns `_file`, `_row` (in the file, where the header is row 1; for
    cases the line) and `_split` (`train`, `held_out` or ""). `folders` maps each file to the folder of its images."""

    kind: Kind
    path: Path
    table: pd.DataFrame
    folders: Mapping[str, Path]

    @property
    def ids(self) -> list[str]:
        """What each row is called in a report: its id, or its row."""
        if self.kind.identity in self.table:
            return [name or f"row {row}" for name, row in zip(self.table[self.kind.identity], self.table[ROW], strict=True)]
        return [f"row {row}" for row in self.table[ROW]]

    @property
    def groups(self) -> NDArray[np.str_]:
        """Whose row it is: patient, lesion or case, by the first of the kind's columns that is filled, else the row alone."""
        names = np.array([f"row:{file}:{row}" for file, row in zip(self.table[FILE_COLUMN], self.table[ROW], strict=True)], dtype=object)
        for column in reversed(self.kind.groups):
            if column in self.table:
                filled = (self.table[column] != "").to_numpy()
                names[filled] = (f"{column}:" + self.table[column][filled]).to_numpy()
        return names.astype(str)

    @property
    def labels(self) -> NDArray[np.str_]:
        """The class of each row, "" where it is not known."""
        return self.column(self.kind.label)

    def column(self, name: str) -> NDArray[np.str_]:
        """A column as text; blanks where the data lack it."""
        return self.table[name].to_numpy(dtype=str) if name in self.table else np.full(len(self.table), "")

    def without(self, cells: Iterable[tuple[str, int, str]]) -> OwnData:
        """The same rows with these cells (file, row, column) blank, as the trainers read them; ids, groups and images stay."""
        wrong = list(cells)
        if not wrong:
            return self
        kept = {self.kind.identity, self.kind.image, *self.kind.groups}
        places = {place: index for index, place in enumerate(zip(self.table[FILE_COLUMN], self.table[ROW], strict=True))}
        table = self.table.copy()
        for file, row, column in wrong:
            if (file, row) in places and column in table and column not in kept:
                table.loc[places[file, row], column] = ""
        return replace(self, table=table)

    def image_paths(self) -> list[Path]:
        """Where each row's image should be; of cases none."""
        if not self.kind.image:
            return []
        suffix = ".jpg" if self.kind is LESIONS else ""
        return [
            self.folders[file] / f"{name}{suffix}" for file, name in zip(self.table[FILE_COLUMN], self.table[self.kind.image], strict=True)
        ]


def read_own_data(path: Path) -> OwnData:
    """Read a file or folder of one of the known kinds, or a folder with `train/` and `held_out/` of one kind.

    Raises DataError when nothing known is there, or the two sides are of different kinds.
    """
    sides = [(side, path / side) for side in (TRAIN, HELD_OUT) if (path / side).is_dir()]
    parts = [_read_side(side, folder) for side, folder in sides] if len(sides) == 2 else [_read_side("", path)]
    kinds = {part.kind.name for part in parts}
    if len(kinds) > 1:
        raise DataError(f"{path}: {TRAIN}/ and {HELD_OUT}/ hold {' and '.join(sorted(kinds))}; expected one kind of data")
    table = pd.concat([part.table for part in parts], ignore_index=True).fillna("")
    if table.empty:
        raise DataError(f"{path}: the file has no rows")
    return OwnData(parts[0].kind, path, table, {name: folder for part in parts for name, folder in part.folders.items()})


def _read_side(side: str, path: Path) -> OwnData:
    if not path.exists():
        raise DataError(f"{path} does not exist: name a file, or a folder, of your data")
    files, kind = _recognised(path)
    tables, folders = [], {}
    for file in files:
        name = file.relative_to(path.parent if path.is_file() else path).as_posix()
        name = f"{side}/{name}" if side else name
        table = _cases_table(file) if kind is CASES else _csv_table(file)
        table[FILE_COLUMN] = name
        table[SPLIT] = side or _own_split(table)
        tables.append(table)
        images = file.parent / "images"
        folders[name] = images if images.is_dir() else file.parent
    return OwnData(kind, path, pd.concat(tables, ignore_index=True).fillna(""), folders)


def _recognised(path: Path) -> tuple[list[Path], Kind]:
    """The files of the data, and their kind."""
    if path.is_dir():
        for name, kind in ((FILE, CASES), ("metadata.csv", PHOTOS), ("labels.csv", LESIONS)):
            if (path / name).is_file():
                return [path / name], kind
        known = [path / name for name in _KNOWN_FILES if (path / name).is_file()]
        files = known[:1] or sorted(path.glob("*.csv"))
        kinds = [(file, _kind_of_header(_header(file))) for file in files]
        patients = [file for file, kind in kinds if kind is PATIENTS]
        if patients:
            return patients, PATIENTS
        for file, of in kinds:
            if of is not None:
                return [file], of
        raise DataError(f"{path}: no known data found; expected one of {_known_words()} (docs/own_data.md says how each looks)")
    if path.suffix in (".jsonl", ".ndjson"):
        return [path], CASES
    found = {"metadata.csv": PHOTOS, "labels.csv": LESIONS}.get(path.name) or _kind_of_header(_header(path))
    if found is None:
        raise DataError(f"{path}: its columns are of no known kind; expected {_known_words()} (docs/own_data.md says how each looks)")
    return [path], found


def _known_words() -> str:
    return "; ".join(kind.words for kind in KINDS)


def _kind_of_header(header: Sequence[str]) -> Kind | None:
    """The kind that most of whose columns are there, at least half of them: a misspelt one is for the schema to name."""
    share = {kind.name: len(set(header) & set(kind.reads)) / len(set(kind.reads) - kind.optional) for kind in KINDS if kind is not CASES}
    best = max(KINDS, key=lambda kind: share.get(kind.name, 0.0))
    return best if share[best.name] >= 0.5 else None


def _header(file: Path) -> list[str]:
    """The first line's columns; none where the file cannot be read as text."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as content:
            line = content.readline().decode("latin-1")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}): expected a CSV file") from error
    return [name.strip().strip('"').removeprefix("ï»¿") for name in line.split(";" if line.count(";") > line.count(",") else ",")]


def _csv_table(file: Path) -> pd.DataFrame:
    header = _header(file)
    separator = ";" if _is_semicolon(file) else ","
    for encoding in ("utf-8-sig", "latin-1"):
        try:
            table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding=encoding, index_col=False)
            break
        except UnicodeDecodeError:
            continue
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as CSV with the columns {', '.join(header[:6])} …: {error}") from error
    table = table.apply(lambda column: column.str.strip())
    table[ROW] = np.arange(2, len(table) + 2)
    return table


def _is_semicolon(file: Path) -> bool:
    if file.suffix == ".gz":
        return False
    with file.open("rb") as content:
        line = content.readline()
    return line.count(b";") > line.count(b",")


def _cases_table(file: Path) -> pd.DataFrame:
    """One row a case, nested fields as `vitals.pulse_per_minute` and `labels.level`; `_strange` lists fields that no case has."""
    rows = []
    for line, raw in read_lines(file):
        row: dict[str, Any] = {ROW: line, STRANGE: ""}
        if not isinstance(raw, dict):
            row[STRANGE] = "the line is no JSON object"
        else:
            row |= _flat(raw)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.fillna("") if len(table) else pd.DataFrame({ROW: [], STRANGE: []})


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    strange = _strange(raw, _FIELDS)
    for name, value in raw.items():
        if name in _NESTED:
            inner = value if isinstance(value, dict) else {}
            strange += [] if isinstance(value, dict | None) else [name]
            strange += [f"{name}.{key}" for key in _strange(inner, _NESTED[name])]
            flat |= {f"{name}.{key}": _text(one) for key, one in inner.items() if key in _NESTED[name]}
        elif name in _FIELDS:
            flat[name] = _text(value)
    return flat | {STRANGE: ", ".join(strange)}


def _strange(given: Iterable[str], known: frozenset[str]) -> list[str]:
    return [str(name)[:_SHOWN_NAMES] for name in given if name not in known]


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "|".join(sorted(f"{code}={_text(one)}" for code, one in value.items()))
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _own_split(table: pd.DataFrame) -> Any:
    """The side that the rows name themselves, if any column does."""
    for name in ("labels.split", "split"):
        if name in table:
            return table[name].str.casefold().replace({"test": HELD_OUT, "val": HELD_OUT, "valid": HELD_OUT, "holdout": HELD_OUT})
    return ""
