"""Ranks one part of a large batch: rows of Parquet files in, an Arrow table of ranked rows out, in the queue's order.

The same function for one process, several and a cluster: what it gives depends on the rows alone, never on who ran it or with what
other rows. Knows nothing of processes, and not the order of the whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.batch_order import queue_order
from inference.batch_rows import RowWriter, keys_of
from inference.casefile import duplicate_problem, read_rows
from inference.columns import read_columns
from inference.columns_rules import FloorColumns
from inference.columns_triage import ColumnTriage
from inference.errors import BundleError
from inference.models import load_models
from inference.parquet import Piece, PieceReader, parquet_library
from inference.policy import load_policy
from inference.priors import load_priors
from inference.rule_tables import rule_tables
from inference.triage import BATCH, Triage, package_version


@dataclass(frozen=True, slots=True)
class Job:
    """What every part of a batch is ranked with. Paths are text, so that a job can travel.

    `expected` names what must be in use wherever a part is ranked: see `in_use`.
    """

    models: str | None
    priors: str | None
    policy: str | None
    now: datetime
    expected: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive pieces that are ranked together; `duplicates` maps the place in the input of a row to how often its id stands there."""

    number: int
    pieces: tuple[Piece, ...]
    duplicates: Mapping[int, int]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


class BatchRanker:
    """A triage with everything that ranking columns needs; made once a process."""

    def __init__(self, triage: Triage) -> None:
        self._triage = triage
        self._columns = ColumnTriage(triage) if ColumnTriage.is_possible(triage) else None
        rules = (self._columns.floors if self._columns else FloorColumns(rule_tables(), {})).rules
        self._writer = RowWriter(triage, self._columns, rules)
        self._reader = PieceReader()

    def rank(self, part: Part, now: datetime) -> Any:
        """The part's ranked rows, as `RowWriter` makes them, in the queue's order. Raises CaseError when a file is broken."""
        tables: list[Any] = []
        for piece in part.pieces:
            first = piece.first
            for batch in self._reader.read(piece):
                tables += self._ranked(batch, piece, first, part.duplicates, now)
                first += len(batch)
        table = parquet_library().concat_tables(tables).combine_chunks()
        table = table.take(np.argsort(table["sequence"].to_numpy()))  # the last ties go by the place in the input
        ids = table["case_id"]
        return table.take(queue_order(keys_of(table), lambda places: ids.take(places).to_pylist())).combine_chunks()

    def _ranked(self, batch: Any, piece: Piece, first: int, duplicates: Mapping[int, int], now: datetime) -> Iterator[Any]:
        """The plain rows of a batch as columns, the others one by one."""
        sequence = piece.sequence + first - piece.first
        repeated = {row: duplicates[sequence + row] for row in range(len(batch)) if sequence + row in duplicates} if duplicates else {}
        plain = np.zeros(len(batch), dtype=bool)
        if self._columns is not None:
            columns = read_columns(batch)
            columns.plain[list(repeated)] = False
            try:
                found = self._columns.assess(columns)
                plain = columns.plain
            except BundleError:  # one by one, the cases on which the model does not fail keep their scores
                found = None
            if found is not None and plain.any():
                yield self._writer.from_columns(columns, found, np.flatnonzero(plain), sequence, now)
        rows = np.flatnonzero(~plain)
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            yield self._one_by_one(batch, piece, first, some, repeated, now)

    def _one_by_one(self, batch: Any, piece: Piece, first: int, rows: NDArray[np.int64], repeated: Mapping[int, int], now: datetime) -> Any:
        readings = read_rows(batch.take(parquet_library().array(rows)), piece.path, (first + rows).tolist())
        for place, row in enumerate(rows.tolist()):
            if row in repeated:
                one = readings[place]
                readings[place] = replace(one, problems=(*one.problems, duplicate_problem(one.case.case_id, repeated[row])))
        told = self._triage.assess_each(readings, [now] * len(readings))
        return self._writer.from_assessments(readings, told, piece.sequence + first - piece.first + rows, now)


def rank_part(part: Part, job: Job) -> Any:
    """One part of a job as an Arrow table. Raises BundleError where other models are live here than where the job began."""
    return _ranker(job).rank(part, job.now)


@lru_cache(maxsize=1)
def _ranker(job: Job) -> BatchRanker:
    """Models are loaded once a process."""
    models = load_models(Path(job.models) if job.models else None, priors=load_priors(Path(job.priors)) if job.priors else None)
    triage = Triage(models, load_policy(Path(job.policy) if job.policy else None))
    if differing := sorted({name for name, _ in set(in_use(triage)) ^ set(job.expected)}):
        raise BundleError(
            f"{', '.join(differing)}: not the same here as where the batch began; give every machine the same Nabz and models"
        )
    return BatchRanker(triage)


def job_of(triage: Triage, models: Path, priors: Path | None, policy: Path | None, now: datetime) -> Job:
    """The job of ranking with what `triage` was made from."""
    paths = [str(path.resolve()) if path else None for path in (models, priors, policy)]
    return Job(paths[0], paths[1], paths[2], now, in_use(triage))


def in_use(triage: Triage) -> tuple[tuple[str, str], ...]:
    """All that decides what a case gets, by name, each with its version or hash."""
    told = triage_provenance(triage)
    bundles = [(task, bundle["sha256"]) for task, bundle in sorted(told.pop("bundles").items())]
    return (*bundles, *((name, str(value)) for name, value in told.items()))


def triage_provenance(triage: Triage) -> dict[str, Any]:
    """The provenance that all rows of a batch share."""
    priors = triage.models.symptoms.priors if triage.models.symptoms else None
    return {
        "nabz_version": package_version(),
        "rule_version": rule_tables().version,
        "policy_sha256": triage.policy.sha256,
        "priors_sha256": priors.sha256 if priors else None,
        "bundles": {task: name.model_dump() for task, name in triage.models.bundles.items()},
    }


def parts_of(pieces: Sequence[Piece], rows: int, duplicates: Mapping[int, int]) -> list[Part]:
    """Pieces gathered into parts of about `rows` rows, in order."""
    groups: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if len(piece) > room:
            groups.append([])
            room = rows
        groups[-1].append(piece)
        room -= len(piece)
    repeated = sorted(duplicates)
    found = []
    for number, group in enumerate(groups):
        first = bisect_left(repeated, group[0].sequence)
        last = bisect_left(repeated, group[-1].sequence + len(group[-1]))
        found.append(Part(number, tuple(group), {row: duplicates[row] for row in repeated[first:last]}))
    return found
