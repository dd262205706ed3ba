"""Ranks the parts of a batch on a Dask cluster: the same function as on one machine, tried again where a worker dies.

Needs the extra `cluster`. Workers must see the input and the models under the same paths, and have this version installed.
"""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.batch import Job, Part, rank_part
from inference.batch_processes import Progress, part_path
from inference.errors import CaseError
from inference.parquet import parquet_library

RETRIES = 3
PARTS_A_THREAD = 3  # handed out at a time for each of the cluster's threads: enough to keep them busy, few enough to hold
CONNECT_SECONDS = 20
_one_at_a_time = threading.Lock()


def rank_on_cluster(parts: Sequence[Part], job: Job, folder: Path, scheduler: str, progress: Progress) -> None:
    """Rank every part into its file in `folder`. Raises CaseError without Dask, without a scheduler, or when parts keep failing."""
    try:
        dask: Any = importlib.import_module("dask.distributed")
        from distributed.scheduler import KilledWorker
    except ModuleNotFoundError as error:
        raise CaseError("--engine dask needs Dask, which is not installed: pip install 'nabz[cluster]'") from error
    with _connected(dask, scheduler) as client:
        try:
            _work(dask, client, list(parts), job, folder, progress)
        except KilledWorker as error:
            raise CaseError(
                "several Dask workers died on the same rows, perhaps for want of memory: give them more, or fewer threads"
            ) from error


def _connected(dask: Any, scheduler: str) -> Any:
    client = None
    try:
        client = dask.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        if client is not None:
            client.close()
        raise CaseError(
            f"no Dask scheduler with a worker answers at {scheduler}: start `dask scheduler` and `dask worker`, and name its address"
        ) from error
    return client


def _work(dask: Any, client: Any, waiting: list[Part], job: Job, folder: Path, progress: Progress) -> None:
    """A part counts once, by its number, when its rows are here; what a dead worker had, the scheduler has done again."""
    batch = uuid.uuid4().hex
    waiting.reverse()
    running = {}

    def submit() -> Any:
        part = waiting.pop()
        future = client.submit(rank_to_bytes, part, job, key=f"nabz-rank-{batch}-{part.number}", retries=RETRIES, pure=False)
        running[future.key] = part
        return future

    threads = sum(client.nthreads().values()) or 1
    done = dask.as_completed([submit() for _ in range(min(len(waiting), PARTS_A_THREAD * threads))], loop=client.loop)
    for future in done:
        content = future.result()
        part = running.pop(future.key)
        part_path(folder, part).write_bytes(content)
        future.release()
        progress(len(part))
        if waiting:
            done.add(submit())


def rank_to_bytes(part: Part, job: Job) -> bytes:
    """One part as the bytes of an Arrow file. A worker's threads take turns: one set of models a worker."""
    library = parquet_library()
    with _one_at_a_time:
        table = rank_part(part, job)
    sink = library.BufferOutputStream()
    with library.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
