"""Puts the ranked parts of a batch together in the order of the whole queue, block by block, and writes the worklist.

Every part is in the queue's order already, so that a block of ranks is one stretch of each part. Memory: some tens of bytes a row for
the order, and one block. Ranks nothing itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from inference.batch_order import OrderKeys, queue_order
from inference.batch_rows import KEYS, keys_of
from inference.parquet import parquet_library

BLOCK_ROWS = 65_536
METADATA = b"nabz"
CSV_COLUMNS = (
    "rank", "case_id", "level", "level_name", "wait_cap_minutes", "emergency_probability", "critical_probability",
    "floor_level", "specialty", "scored_by", "red_flags", "condition", "icd10", "probability",
    "malignancy_probability", "review_needed", "review_why",
)  # fmt: skip


def write_part(table: Any, path: Path) -> None:
    """Keep a part's rows in a file that can be read where it lies."""
    library = parquet_library()
    with library.OSFile(str(path), "wb") as file, library.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def merged(paths: Sequence[Path]) -> Iterator[Any]:
    """The rows of all parts as Arrow tables in rank order, with a first column `rank` from 1 on."""
    library = parquet_library()
    parts = [library.ipc.open_file(library.memory_map(str(path))).read_all() for path in paths]
    ranks = _ranks(parts)
    n = sum(map(len, ranks))
    for start in range(0, n, BLOCK_ROWS):
        stretches, places = [], []
        for part, rank in zip(parts, ranks, strict=True):
            low, high = np.searchsorted(rank, [start, start + BLOCK_ROWS])
            if low < high:
                stretches.append(part.slice(low, high - low))
                places.append(rank[low:high])
        order = np.argsort(np.concatenate(places))
        block = library.concat_tables(stretches).combine_chunks().take(order).drop_columns([*KEYS, "sequence"])
        yield block.add_column(0, "rank", library.array(np.arange(start, start + len(block)) + 1))


def _ranks(parts: Sequence[Any]) -> list[Any]:
    """The rank, from 0, of every row of every part."""
    library = parquet_library()
    # By the place in the input, so that the last ties are broken by it.
    sequence = np.concatenate([part["sequence"].to_numpy() for part in parts])
    arrival = np.argsort(sequence)
    told = [keys_of(part) for part in parts]
    names = OrderKeys.__dataclass_fields__
    keys = OrderKeys(**{name: np.concatenate([getattr(one, name) for one in told])[arrival] for name in names})
    ids = library.chunked_array([chunk for part in parts for chunk in part["case_id"].chunks])
    order = arrival[queue_order(keys, lambda places: ids.take(library.array(arrival[places])).to_pylist())]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.split(rank, np.cumsum([len(part) for part in parts])[:-1])


def write_parquet(blocks: Iterator[Any], path: Path, provenance: str) -> int:
    """Write the worklist with its provenance (JSON) in the file's metadata; returns how many cases are marked for review."""
    library = parquet_library()
    marked = 0
    unfinished = path.with_name(f".{path.name}.unfinished")
    writer = None
    try:
        for block in blocks:
            noted = block.replace_schema_metadata({METADATA: provenance.encode()})
            writer = writer or library.parquet.ParquetWriter(unfinished, noted.schema)
            writer.write_table(noted)
            marked += library.compute.sum(block["review_needed"]).as_py() or 0
    finally:
        if writer is not None:
            writer.close()
    unfinished.replace(path)
    return marked


def write_csv(blocks: Iterator[Any], out: IO[str], icd10: Mapping[str, str | None]) -> int:
    """Write the worklist as `nabz rank --format csv` does; returns how many cases are marked for review."""
    rows = csv.writer(out)
    rows.writerow(CSV_COLUMNS)
    marked = 0
    for block in blocks:
        for row in block.to_pylist():
            first = row["conditions"][0] if row["conditions"] else None
            rows.writerow(
                (
                    row["rank"], row["case_id"], row["level"], row["level_name"], row["wait_cap_minutes"], row["emergency_probability"],
                    row["critical_probability"], row["floor_level"], row["specialty"], row["scored_by"], "; ".join(row["red_flags"]),
                    first, icd10.get(first) if first else None, row["condition_probabilities"][0] if first else None,
                    None, row["review_needed"], "; ".join(row["review_why"]),
                )
            )  # fmt: skip
            marked += row["review_needed"]
    return marked
