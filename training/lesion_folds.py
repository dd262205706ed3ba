"""Cross-validation of the lesion network: one process a fold, so that every core works on its own fold.

Two processes of one thread fit faster than one of two threads and do not stall each other on a busy machine.
On a GPU the networks are fitted one after the other. A finished fold is its checkpoint: a run that was cut reads
it back. This module does not know labels or metrics.
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
from training.hardware import CPU, Hardware
from training.lesion_familiarity import fit_familiarity, unfamiliarity
from training.lesion_fitting import Examples, Plan, begun_backbone, embeddings, fit, logits
from training.lesion_fusion import known_share
from training.lesion_network import LesionNetwork
from training.lesion_views import LiveViews, keep_views
from training.tracking import TrackedRun

_POLL_SECONDS = 0.5
_Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits [n, classes] of each image from a network that never saw its patient, and without answers.

    `known` [n] is the share of the clinical fields that is known; `unfamiliarity` [n] is that network's of each image;
    `fold_of` [n] says which network that was.
    """

    full: NDArray[np.float32]
    photo_only: NDArray[np.float32]
    known: NDArray[np.float64]
    unfamiliarity: NDArray[np.float32]
    fold_of: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Course:
    """How networks are fitted: by which plan, from which weights (`start`, ImageNet's without), on what, and where a
    run that was cut goes on from."""

    plan: Plan
    recipe: PhotoRecipe
    seed: int
    checkpoints: Path
    start: Path | None = None
    machine: Hardware = CPU
    processes: int = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """One network to fit on `rows`, and the rows to score with it."""

    name: str
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    seed: int
    checkpoint: Path


def cross_validate(
    examples: Examples, fold_of: NDArray[np.int64], classes: int, course: Course, run: TrackedRun, quiet: bool = False
) -> tuple[HeldOut, LesionNetwork]:
    """Fit one network without each fold, and one on everything. Returns held-out logits and the last
    network."""
    every = np.arange(len(fold_of))
    jobs = [
        _Job(
            f"fold {fold + 1}",
            every[fold_of != fold],
            every[fold_of == fold],
            course.seed + 1 + int(fold),
            course.checkpoints / f"fold_{fold}.pt",
        )
        for fold in np.unique(fold_of)
    ]
    final = _Job("all", every, every[:0], course.seed, course.checkpoints / "all.pt")
    *results, _ = _run_jobs([*jobs, final], examples, classes, course, run, quiet)
    return _held_out(jobs, results, examples, classes, fold_of), _read_back(final, examples, classes, course)


def hold_out(
    examples: Examples, learns: NDArray[np.bool_], classes: int, course: Course, run: TrackedRun, quiet: bool = False
) -> tuple[HeldOut, LesionNetwork]:
    """Fit one network on the images that `learns` [N] says, and score the others with it; `fold_of` is 0 for these and
    -1 for those that it learned from, whose logits are zeros."""
    every = np.arange(len(learns))
    job = _Job("network", every[learns], every[~learns], course.seed, course.checkpoints / "network.pt")
    results = _run_jobs([job], examples, classes, course, run, quiet)
    return _held_out([job], results, examples, classes, np.where(learns, -1, 0)), _read_back(job, examples, classes, course)


def _held_out(jobs: list[_Job], results: list[_Found], examples: Examples, classes: int, fold_of: NDArray[np.int64]) -> HeldOut:
    """What the jobs found of the images that they held out, in the images' order; zeros where none did."""
    n = len(fold_of)
    full, photo_only = (np.zeros((n, classes), dtype=np.float32) for _ in range(2))
    distance = np.zeros(n, dtype=np.float32)
    for job, found in zip(jobs, results, strict=True):
        full[job.held], photo_only[job.held], distance[job.held] = found
    return HeldOut(full, photo_only, known_share(examples.clinical), distance, fold_of)


def _read_back(job: _Job, examples: Examples, classes: int, course: Course) -> LesionNetwork:
    """The job's network: its checkpoint is complete, so nothing is fitted again."""
    return fit(examples, job.rows, classes, course.plan, job.seed, job.checkpoint, lambda _epoch, _loss: None, start=course.start)


def _run_jobs(jobs: list[_Job], examples: Examples, classes: int, course: Course, run: TrackedRun, quiet: bool) -> list[_Found]:
    """Fit the jobs in processes, drawing and logging each epoch as it is heard of."""
    context = multiprocessing.get_context("spawn")
    processes = course.processes if course.machine == CPU else 1
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
        _progress(quiet) as progress,
    ):
        views = _kept_views(examples, course, progress)
        heard: Any = manager.Queue()
        bars = {job.name: progress.add_task(job.name, total=course.plan.epochs, loss="waits") for job in jobs}
        futures = [pool.submit(_fit_and_score, job, examples, classes, course, views, heard) for job in jobs]
        while not _all_done(futures) or not heard.empty():
            try:
                name, epoch, loss = heard.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            progress.update(bars[name], completed=epoch + 1, loss=f"loss {loss:.3f}")
            run.log_metrics({f"loss.{name.replace(' ', '_')}": loss}, step=epoch)
        for bar in bars.values():  # a fold that was read back whole told of no epoch
            progress.update(bar, completed=course.plan.epochs)
        return [future.result() for future in futures]


def _kept_views(examples: Examples, course: Course, progress: Progress) -> Path | None:
    """The file of kept views that the folds share; None where the plan augments live."""
    plan = course.plan
    if not plan.views:
        return None
    frozen = begun_backbone(plan, course.start).network[: plan.frozen_stages].eval()
    live = LiveViews(examples.stored, frozen.to(course.machine.device), course.recipe, plan.least_crop, course.machine)
    bar = progress.add_task("views", total=plan.views, loss="")
    name = f"{plan.backbone} {plan.frozen_stages} {course.recipe} {plan.least_crop} {course.start}"
    return keep_views(live, plan.views, course.checkpoints, course.seed, name, lambda done: progress.update(bar, completed=done))


def _all_done(futures: list[Future[Any]]) -> bool:
    """Whether every future is done; one that failed raises here, not after the others have run on."""
    done, waiting = wait(futures, timeout=0)
    for future in done:
        if future.exception() is not None:
            for other in waiting:
                other.cancel()
            future.result()
    return not waiting


def _fit_and_score(job: _Job, examples: Examples, classes: int, course: Course, views: Path | None, heard: Any) -> _Found:
    """Fit one job here, on one thread; of the held-out rows, logits with and without clinical answers, and unfamiliarity."""
    torch.set_num_threads(1)
    on_epoch = partial(_tell, heard, job.name)
    network = fit(
        examples, job.rows, classes, course.plan, job.seed, job.checkpoint, on_epoch,
        views=views, start=course.start, machine=course.machine,
    )  # fmt: skip
    recipe = course.recipe
    if not len(job.held):
        return np.zeros((0, classes), np.float32), np.zeros((0, classes), np.float32), np.zeros(0, np.float32)
    clinical = examples.clinical[job.held]
    familiarity = fit_familiarity(embeddings(network, examples.pixels[job.rows], recipe), examples.targets[job.rows])
    embedded = embeddings(network, examples.pixels[job.held], recipe)
    distance = unfamiliarity(familiarity, embedded)
    return logits(network, embedded, clinical), logits(network, embedded, np.zeros_like(clinical)), distance


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
