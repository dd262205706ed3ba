"""Cross-validation of the lesion network: one process a fold, so that every core works on its own fold.

Two processes of one thread fit faster than one of two threads and do not stall each other on a busy machine.
A finished fold is its checkpoint: a run that was cut reads it back. This module does not know labels or
metrics.
"""

from __future__ import annotations

import multiprocessing
import queue
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inference.photo import PhotoRecipe
from training.lesion_familiarity import fit_familiarity, unfamiliarity
from training.lesion_fitting import Examples, Plan, embeddings, fit, logits
from training.lesion_network import LesionNetwork
from training.tracking import TrackedRun

_POLL_SECONDS = 0.5
_Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits [n, classes] of each image from a network that never saw its patient, and without answers.

    `unfamiliarity` [n] is that network's of each image; `fold_of` [n] says which network that was.
    """

    full: NDArray[np.float32]
    photo_only: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    fold_of: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Job:
    """One network to fit on `rows`, and the rows to score with it."""

    name: str
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    seed: int
    checkpoint: Path


def cross_validate(
    examples: Examples,
    fold_of: NDArray[np.int64],
    classes: int,
    plan: Plan,
    recipe: PhotoRecipe,
    seed: int,
    checkpoints: Path,
    processes: int,
    run: TrackedRun,
    quiet: bool = False,
) -> tuple[HeldOut, LesionNetwork]:
    """Fit one network without each fold, and one on everything. Returns held-out logits and the last
    network."""
    every = np.arange(len(fold_of))
    jobs = [
        _Job(
            f"fold {fold + 1}",
            every[fold_of != fold],
            every[fold_of == fold],
            seed + 1 + int(fold),
            checkpoints / f"fold_{fold}.pt",
        )
        for fold in np.unique(fold_of)
    ]
    final = _Job("all", every, every[:0], seed, checkpoints / "all.pt")
    results = _run_jobs([*jobs, final], examples, classes, plan, recipe, processes, run, quiet)
    full = np.zeros((len(fold_of), classes), dtype=np.float32)
    photo_only, distance = np.zeros_like(full), np.zeros(len(fold_of), dtype=np.float32)
    for job, found in zip(jobs, results[:-1], strict=True):
        full[job.held], photo_only[job.held], distance[job.held] = found
    # Its checkpoint is complete: nothing is fitted again, the weights are read back.
    network = fit(examples, final.rows, classes, plan, final.seed, final.checkpoint, lambda _epoch, _loss: None)
    return HeldOut(full, photo_only, distance, fold_of), network


def _run_jobs(
    jobs: list[_Job],
    examples: Examples,
    classes: int,
    plan: Plan,
    recipe: PhotoRecipe,
    processes: int,
    run: TrackedRun,
    quiet: bool,
) -> list[_Found]:
    """Fit the jobs in processes, drawing and logging each epoch as it is heard of."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        _progress(quiet) as progress,
    ):
        heard: Any = manager.Queue()
        bars = {job.name: progress.add_task(job.name, total=plan.epochs, loss="waits") for job in jobs}
        futures = [pool.submit(_fit_and_score, job, examples, classes, plan, recipe, heard) for job in jobs]
        while not _all_done(futures) or not heard.empty():
            try:
                name, epoch, loss = heard.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            progress.update(bars[name], completed=epoch + 1, loss=f"loss {loss:.3f}")
            run.log_metrics({f"loss.{name.replace(' ', '_')}": loss}, step=epoch)
        for bar in bars.values():  # a fold that was read back whole told of no epoch
            progress.update(bar, completed=plan.epochs)
        return [future.result() for future in futures]


def _all_done(futures: list[Future[Any]]) -> bool:
    """Whether every future is done; one that failed raises here, not after the others have run on."""
    done, waiting = wait(futures, timeout=0)
    for future in done:
        if future.exception() is not None:
            for other in waiting:
                other.cancel()
            future.result()
    return not waiting


def _fit_and_score(job: _Job, examples: Examples, classes: int, plan: Plan, recipe: PhotoRecipe, heard: Any) -> _Found:
    """Fit one job here, on one thread; of the held-out rows, logits with and without clinical answers, and unfamiliarity."""
    torch.set_num_threads(1)
    on_epoch = partial(_tell, heard, job.name)
    network = fit(examples, job.rows, classes, plan, job.seed, job.checkpoint, on_epoch)
    if not len(job.held):
        return np.zeros((0, classes), np.float32), np.zeros((0, classes), np.float32), np.zeros(0, np.float32)
    pixels, clinical = examples.pixels[job.held], examples.clinical[job.held]
    familiarity = fit_familiarity(embeddings(network, examples.pixels[job.rows], recipe), examples.targets[job.rows])
    distance = unfamiliarity(familiarity, embeddings(network, pixels, recipe))
    return logits(network, pixels, clinical, recipe), logits(network, pixels, np.zeros_like(clinical), recipe), distance


def _tell(heard: Any, name: str, epoch: int, loss: float) -> None:
    heard.put((name, epoch, loss))


def _progress(quiet: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)
