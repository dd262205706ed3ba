"""Ranks the parts of a batch in processes of this machine, a bounded number at a time, and keeps each part's rows in a file.

Knows no order: parts may be done in any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from inference.batch import Job, Part, rank_part
from inference.batch_merge import write_part
from inference.errors import CaseError

Progress = Callable[[int], None]


def part_path(folder: Path, part: Part) -> Path:
    """Where a part's rows are kept until they are merged."""
    return folder / f"part-{part.number:06}.arrow"


def rank_in_processes(parts: Sequence[Part], job: Job, folder: Path, jobs: int, progress: Progress) -> None:
    """Rank every part into its file in `folder`, with `jobs` processes (1: in this one). Raises CaseError when one ends by itself."""
    if jobs == 1 or len(parts) == 1:
        for part in parts:
            rank_into(folder, job, part)
            progress(len(part))
        return
    # A fresh process each: onnxruntime's threads do not survive a fork.
    with ProcessPoolExecutor(min(jobs, len(parts)), mp_context=get_context("spawn")) as pool:
        try:
            _work(pool, partial(rank_into, folder, job), list(parts), 2 * jobs, progress)
        except BrokenProcessPool as error:
            raise CaseError("a process that ranks ended by itself, perhaps for want of memory: use fewer --jobs") from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _work(pool: ProcessPoolExecutor, rank: Callable[[Part], None], waiting: list[Part], most: int, progress: Progress) -> None:
    """Never more than `most` parts are handed out: they are read in their order, by whoever is free."""
    waiting.reverse()
    running: dict[Future[None], Part] = {}
    while waiting or running:
        while waiting and len(running) < most:
            part = waiting.pop()
            running[pool.submit(rank, part)] = part
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            done.result()
            progress(len(running.pop(done)))


def rank_into(folder: Path, job: Job, part: Part) -> None:
    """Rank one part into its file."""
    write_part(rank_part(part, job), part_path(folder, part))
