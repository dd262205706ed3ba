"""Cross-validation of the lesion network: one process a fold, so that every core works on its own fold.

Two processes of one thread fit faster than one of two threads and do not stall each other on a busy machine.
On a GPU, and where torchrun started several processes that share each batch, the networks are fitted one after the other. A
finished fold is its checkpoint: a run that was cut reads it back. This module does not know labels or metrics.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.photo import PhotoRecipe
from training.distributed import ALONE, Ranks
from training.hardware import CPU, Hardware
from training.lesion_familiarity import fit_familiarity, unfamiliarity
from training.lesion_fitting import Epoch, Examples, OnEpoch, Plan, begun_backbone, best_epoch, embeddings, fit, logits
from training.lesion_fusion import known_share
from training.lesion_network import LesionNetwork
from training.lesion_views import LiveViews, keep_views
from training.live_table import LiveTable, live_table

_POLL_SECONDS = 0.5
Log = Callable[[dict[str, float], int], None]
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
    """How networks are fitted: by which plan, from which weights (`start`, ImageNet's without), on what and by whom, and where
    a run of the same settings that was cut goes on from."""

    plan: Plan
    recipe: PhotoRecipe
    seed: int
    checkpoints: Path
    start: Path | None = None
    machine: Hardware = CPU
    processes: int = 1
    ranks: Ranks = ALONE
    settings_sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    """One network to fit on `rows`, the rows to score with it, and those whose loss says when to stop (None: nothing does)."""

    name: str
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    seed: int
    checkpoint: Path
    stops_by: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class _Result:
    """What a job found of the rows that it held out; steps a second of its epochs but the first (None where a finished job was
    read back); its best epoch, if one was looked for."""

    found: _Found
    steps_per_second: float | None = None
    best_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Held-out logits, the network that is shipped, how many epochs it was fitted for, and steps a second (None: not timed)."""

    held_out: HeldOut
    network: LesionNetwork
    epochs: int
    steps_per_second: float | None


def cross_validate(
    examples: Examples, fold_of: NDArray[np.int64], classes: int, course: Course, log: Log, quiet: bool = False
) -> CrossValidated:
    """Fit one network without each fold, and one on everything.

    With patience the folds stop by their own images, and the last network is fitted for as many epochs as theirs took at the
    median.
    """
    jobs, final = _fold_jobs(fold_of, course)
    if not course.plan.patience:
        results = _run_jobs([*jobs, final], examples, classes, course, log, quiet)
    else:
        results = _run_jobs(jobs, examples, classes, course, log, quiet)
        course = _as_long_as(results, course)
        results += _run_jobs([final], examples, classes, course, log, quiet)
    held_out = _held_out(jobs, [result.found for result in results[: len(jobs)]], examples, classes, fold_of)
    return CrossValidated(held_out, _read_back(final, examples, classes, course), course.plan.epochs, _rate(results))


def hold_out(
    examples: Examples, learns: NDArray[np.bool_], stops_by: NDArray[np.bool_], classes: int, course: Course, log: Log, quiet: bool = False
) -> CrossValidated:
    """Fit one network on the images that `learns` [N] says, and score the others with it; `fold_of` is 0 for these and
    -1 for those that it learned from, whose logits are zeros. With patience it stops by the images of `stops_by` [N]."""
    job = _hold_out_job(learns, stops_by, course)
    results = _run_jobs([job], examples, classes, course, log, quiet)
    held_out = _held_out([job], [results[0].found], examples, classes, np.where(learns, -1, 0))
    return CrossValidated(held_out, _read_back(job, examples, classes, course), course.plan.epochs, _rate(results))


def take_part(examples: Examples, split: NDArray[Any], stops_by: NDArray[np.bool_] | None, *, classes: int, course: Course) -> None:
    """What all processes but the first do while that one cross-validates (`split` is `fold_of`) or holds out (`split` is
    `learns`, and `stops_by` is not None): fit with it, and nothing more."""
    if stops_by is not None:
        _run_jobs([_hold_out_job(split, stops_by, course)], examples, classes, course, _silent, quiet=True)
        return
    jobs, final = _fold_jobs(split, course)
    results = _run_jobs(jobs if course.plan.patience else [*jobs, final], examples, classes, course, _silent, quiet=True)
    if course.plan.patience:
        _run_jobs([final], examples, classes, _as_long_as(results, course), _silent, quiet=True)


def _silent(_values: dict[str, float], _step: int) -> None:
    """Only the first process logs."""


def _fold_jobs(fold_of: NDArray[np.int64], course: Course) -> tuple[list[_Job], _Job]:
    every, is_watched = np.arange(len(fold_of)), course.plan.patience > 0
    jobs = [
        _Job(
            f"fold {fold + 1}",
            every[fold_of != fold],
            every[fold_of == fold],
            course.seed + 1 + int(fold),
            course.checkpoints / f"fold_{fold}.pt",
            every[fold_of == fold] if is_watched else None,
        )
        for fold in np.unique(fold_of)
    ]
    return jobs, _Job("all", every, every[:0], course.seed, course.checkpoints / "all.pt")


def _hold_out_job(learns: NDArray[np.bool_], stops_by: NDArray[np.bool_], course: Course) -> _Job:
    every = np.arange(len(learns))
    watched = every[stops_by] if course.plan.patience else None
    return _Job("network", every[learns], every[~learns], course.seed, course.checkpoints / "network.pt", watched)


def _as_long_as(results: list[_Result], course: Course) -> Course:
    """The course without patience, for as many epochs as the best of each fold was at the median."""
    best = [result.best_epoch or course.plan.epochs for result in results]
    return replace(course, plan=replace(course.plan, epochs=max(1, int(np.median(best))), patience=0))


def _rate(results: list[_Result]) -> float | None:
    rates = [result.steps_per_second for result in results if result.steps_per_second is not None]
    return float(np.median(rates)) if rates else None


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
    return fit(
        examples, job.rows, classes, course.plan, job.seed, job.checkpoint, lambda _epoch: None,
        start=course.start, stops_by=job.stops_by, settings_sha256=course.settings_sha256,
    )  # fmt: skip


def _run_jobs(jobs: list[_Job], examples: Examples, classes: int, course: Course, log: Log, quiet: bool) -> list[_Result]:
    """Fit the jobs, drawing and logging each epoch as it is heard of."""
    with live_table("lesions", quiet=quiet) as table:
        views = _kept_views(examples, course, table)
        for job in jobs:
            table.add(job.name, course.plan.epochs, "epochs")

        def tell(name: str, epoch: Epoch) -> None:
            row = name.replace(" ", "_")
            table.update(name, epoch.number, loss=epoch.loss, held_out=epoch.held_out, best=epoch.best, patience_left=epoch.patience_left)
            held_out = {} if epoch.held_out is None else {f"held_out_loss.{row}": epoch.held_out}
            log({f"loss.{row}": epoch.loss, **held_out}, epoch.number - 1)

        if course.ranks.world > 1:
            results = [_fit_and_score(job, examples, classes, course, views, partial(tell, job.name)) for job in jobs]
        else:
            results = _run_in_processes(jobs, examples, classes, course, views, tell)
        for job in jobs:  # one that was read back whole told of no epoch
            table.finish(job.name)
        return results


def _run_in_processes(
    jobs: list[_Job], examples: Examples, classes: int, course: Course, views: Path | None, tell: Callable[[str, Epoch], None]
) -> list[_Result]:
    context = multiprocessing.get_context("spawn")
    processes = course.processes if course.machine == CPU else 1
    with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
        heard: Any = manager.Queue()
        futures = [pool.submit(_fit_and_score, job, examples, classes, course, views, partial(_put, heard, job.name)) for job in jobs]
        while not _all_done(futures) or not heard.empty():
            try:
                name, epoch = heard.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            tell(name, epoch)
        return [future.result() for future in futures]


def _kept_views(examples: Examples, course: Course, table: LiveTable) -> Path | None:
    """The file of kept views that the folds share; None where the plan augments live.

    Of several processes the first makes it, then the first of each other machine that cannot see that file.
    """
    if not course.plan.views:
        return None
    ranks = course.ranks
    for is_my_turn in (ranks.is_first, ranks.local == 0 and not ranks.is_first, ranks.local != 0):
        if is_my_turn:
            file = make_views(examples, course, table)
        ranks.wait()
    return file


def make_views(examples: Examples, course: Course, table: LiveTable) -> Path:
    """The file of kept views, made where it is not there yet."""
    plan = course.plan
    frozen = begun_backbone(plan, course.start).network[: plan.frozen_stages].eval()
    live = LiveViews(examples.stored, frozen.to(course.machine.device), course.recipe, plan.least_crop, course.machine)
    table.add("views", plan.views, "views")
    table.begin("views")
    name = f"{plan.backbone} {plan.frozen_stages} {course.recipe} {plan.least_crop} {course.start}"
    file = keep_views(live, plan.views, course.checkpoints, course.seed, name, lambda done: table.update("views", done))
    table.finish("views")
    return file


def _all_done(futures: list[Future[Any]]) -> bool:
    """Whether every future is done; one that failed raises here, not after the others have run on."""
    done, waiting = wait(futures, timeout=0)
    for future in done:
        if future.exception() is not None:
            for other in waiting:
                other.cancel()
            future.result()
    return not waiting


def _fit_and_score(job: _Job, examples: Examples, classes: int, course: Course, views: Path | None, tell: OnEpoch) -> _Result:
    """Fit one job here, on one thread; of the held-out rows, logits with and without clinical answers, and unfamiliarity.

    Of several processes that fit it together the first alone scores.
    """
    torch.set_num_threads(1)
    epochs: list[Epoch] = []

    def hear(epoch: Epoch) -> None:
        epochs.append(epoch)
        tell(epoch)

    network = fit(
        examples, job.rows, classes, course.plan, job.seed, job.checkpoint, hear, views=views, start=course.start,
        machine=course.machine, ranks=course.ranks, stops_by=job.stops_by, settings_sha256=course.settings_sha256,
    )  # fmt: skip
    found = _scored(job, network, examples, classes, course.recipe) if course.ranks.is_first else _nothing(classes)
    best = best_epoch(job.checkpoint) if job.stops_by is not None and course.ranks.is_first else None
    return _Result(found, _steps_per_second(epochs), course.ranks.from_first(best))


def _scored(job: _Job, network: LesionNetwork, examples: Examples, classes: int, recipe: PhotoRecipe) -> _Found:
    if not len(job.held):
        return _nothing(classes)
    clinical = examples.clinical[job.held]
    familiarity = fit_familiarity(embeddings(network, examples.pixels[job.rows], recipe), examples.targets[job.rows])
    embedded = embeddings(network, examples.pixels[job.held], recipe)
    distance = unfamiliarity(familiarity, embedded)
    return logits(network, embedded, clinical), logits(network, embedded, np.zeros_like(clinical)), distance


def _nothing(classes: int) -> _Found:
    return np.zeros((0, classes), np.float32), np.zeros((0, classes), np.float32), np.zeros(0, np.float32)


def _steps_per_second(epochs: list[Epoch]) -> float | None:
    """The median over the epochs; the first one warms up, and counts only where there is no other."""
    timed = epochs[1:] or epochs
    return float(np.median([epoch.steps / epoch.seconds for epoch in timed])) if timed else None


def _put(heard: Any, name: str, epoch: Epoch) -> None:
    heard.put((name, epoch))
