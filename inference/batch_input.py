"""Looks over a large input before it is ranked: how many rows, in which parts, and which ids stand there more than once.

Reads one column. Memory: eight bytes a row while ids are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.batch import Part, parts_of
from inference.case import read_case
from inference.parquet import BATCH_ROWS, open_parquet, parquet_files, pieces

PART_ROWS = 16_384
_MOST_PARTS = 256  # of a very large input the parts grow instead: one file each is open while they are merged


@dataclass(frozen=True)
class Input:
    """The parts of an input and how many rows it has."""

    parts: list[Part]
    n: int


def look_over(path: Path, part_rows: int = PART_ROWS) -> Input:
    """A Parquet file's or folder's parts. Raises CaseError when it cannot be read or holds no row."""
    files = [file.resolve() for file in parquet_files(path)]
    found = list(pieces(files, part_rows))
    n = sum(map(len, found))
    rows = max(part_rows, n // _MOST_PARTS)
    if rows > part_rows:
        found = list(pieces(files, rows))
    return Input(parts_of(found, rows, repeated_ids(files, n)), n)


def repeated_ids(files: list[Path], n: int) -> dict[int, int]:
    """The places in the input of rows that share their id with others, and how many have it."""
    hashes = np.fromiter((hash(one) for one in _ids(files)), dtype=np.int64, count=n)
    candidates = _repeated(hashes)
    if not len(candidates):
        return {}
    wanted = set(candidates.tolist())
    rows = [(place, one) for place, one in enumerate(_ids(files)) if hash(one) in wanted]
    counts = Counter(one for _, one in rows)
    return {place: counts[one] for place, one in rows if counts[one] > 1}


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _ids(files: list[Path]) -> Iterator[str]:
    """Every row's id, as its case will have it."""
    for path in files:
        with open_parquet(path) as file:
            if "case_id" not in file.schema_arrow.names:
                yield from (f"{path.stem}-{place}" for place in range(1, file.metadata.num_rows + 1))
                continue
            place = 1
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["case_id"]):
                for given in batch.column(0).to_pylist():
                    yield _id_of(given, f"{path.stem}-{place}")
                    place += 1


def _id_of(given: object, fallback: str) -> str:
    if isinstance(given, str) and given.isascii() and given.isprintable() and 0 < len(given.strip()) == len(given) <= 200:
        return given
    return read_case({"case_id": given}, fallback).case.case_id
