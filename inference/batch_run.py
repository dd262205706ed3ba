"""A whole batch, from Parquet files to a written worklist: look over, rank in parts, merge in the queue's order.

Reads no clock and prints nothing; the command does.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.assessment import NOTICE
from inference.batch import Job, triage_provenance
from inference.batch_input import Input
from inference.batch_merge import merged
from inference.batch_processes import Progress, part_path, rank_in_processes
from inference.errors import CaseError
from inference.triage import Triage

Write = Callable[[Iterator[Any]], int]


@dataclass(frozen=True, slots=True)
class Engine:
    """Who ranks: `jobs` processes of this machine, or the Dask cluster of `scheduler`."""

    jobs: int = 1
    scheduler: str | None = None


def rank_batch(told: Input, job: Job, engine: Engine, write: Write, folder: Path | None = None, progress: Progress = lambda _: None) -> int:
    """Rank an input that was looked over and hand its rows, in rank order, to `write`; returns what that does.

    `folder` is where the parts are kept meanwhile (default: the system's place for such files); they need about as much room as
    the input.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".nabz-rank-", dir=folder) as kept:
            _rank_parts(told, job, engine, Path(kept), progress)
            return write(merged([part_path(Path(kept), part) for part in told.parts]))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CaseError(f"the worklist, or a part of it, cannot be written: {error.strerror}") from error


def _rank_parts(told: Input, job: Job, engine: Engine, folder: Path, progress: Progress) -> None:
    if engine.scheduler is None:
        rank_in_processes(told.parts, job, folder, engine.jobs, progress)
        return
    from inference.cluster import rank_on_cluster

    rank_on_cluster(told.parts, job, folder, engine.scheduler, progress)


def provenance_json(triage: Triage, job: Job) -> str:
    """What stands in a worklist's metadata: what the rows were ranked with, until when waits were counted, and the notice."""
    return json.dumps({**triage_provenance(triage), "now": job.now.isoformat(), "notice": NOTICE}, sort_keys=True)


def own_cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
