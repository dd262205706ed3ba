"""`nabz-train symptoms`: knowledge (the catalogue, or data in DDXPlus format) to a calibrated, exported symptom bundle.

Patients are drawn afresh for every step, with answers lost in several ways, so that unknown is never "no".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.errors import DataError
from training import symptom_evaluation
from training.announcement import Announcement
from training.card_facts import read_own_facts
from training.catalogue import CATALOGUE
from training.distributed import joined, own_ranks
from training.export import PARITY_INPUTS, check_parity, file_sha256, write_bundle
from training.generator import PatientGenerator
from training.hardware import hardware
from training.knowledge import Knowledge, load_knowledge, training_source
from training.list_head import ListingScorer, ListPatients, read_lists, with_list_contract, with_lists
from training.live_table import live_table
from training.onnx_traces import without_traces
from training.probe import make_probe
from training.run_artifacts import symptom_artifacts
from training.scope_calibration import calibrate_scope
from training.set_calibration import calibrate_sets
from training.settings import RunOptions, Settings, add_run_options
from training.symptom_batches import (
    CALIBRATION_SEED_OFFSET,
    EVALUATION_SEED_OFFSET,
    SET_SEED_OFFSET,
    decision_patients,
    masked_batch,
    mixed_masks,
)
from training.symptom_card import symptom_card
from training.symptom_contract import Decisions, symptom_contract
from training.symptom_fitting import Course, Fitted, Heard, estimated_seconds, fit_symptoms
from training.symptom_network import SymptomNetwork
from training.symptom_recipe import Recipe, recipe_of
from training.symptom_scorer import OUTPUTS, SymptomScorer
from training.symptom_search import search_symptoms
from training.tracking import current_commit, tracked_run

MISSED_SHARE = 0.05
CHECKPOINT = "checkpoint.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this trainer beyond the common ones."""
    parser.add_argument(
        "--steps", type=int, default=None, help="optimiser steps of 2,048 patients (default 800; 40 small ones for DDXPlus data)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to fit on (default auto: a GPU where there is one)"
    )
    add_run_options(parser)


def train(args: argparse.Namespace) -> Path:
    """Train, calibrate, evaluate and export; returns the bundle's folder.

    A dry run, and every process of several but the first, writes no bundle. Raises DataError for data that are neither the
    catalogue's nor of the DDXPlus format.
    """
    work, options, ranks = _work(args), RunOptions.of(args), own_ranks()
    if options.trials and ranks.world > 1:
        raise DataError("--search tries one recipe after the other in one process: start it without torchrun, then train with torchrun")
    torch.set_num_threads(args.threads)
    course = Course(args.seed, hardware(getattr(args, "device", "auto"), ranks.local))
    plan, quiet = _announcement(work, course, args), args.quiet or not ranks.is_first
    if options.dry_run:
        plan.make(quiet=quiet)
        return work.out
    found: dict[str, Any] = {}
    if options.trials:
        recipe, found = search_symptoms(work.knowledge, work.recipe, course, plan.settings, options, quiet=quiet)
        work = replace(work, recipe=recipe)
        plan = replace(_announcement(work, course, args), options=replace(options, trials=0))
    settings, folder = plan.settings, plan.make(quiet=quiet) if ranks.is_first else plan.folder
    course = replace(course, checkpoint=folder / CHECKPOINT, settings_sha256=settings.sha256)
    if not ranks.is_first:
        _fit(work.knowledge, work.recipe, course, lambda _values, _step: None, quiet=True)
        return work.out
    with tracked_run(work.task, settings.parameters(), {work.task: work.checksum}, asdict(plan.card)) as run:
        fitted = _fit(work.knowledge, work.recipe, course, run.log_metrics, quiet=args.quiet)
        _export(work, fitted, {"settings_sha256": settings.sha256, **found}, args)
        run.log_bundle(work.out)
        shown, seed = min(5000, work.recipe.calibration_patients), args.seed + EVALUATION_SEED_OFFSET
        symptom_artifacts(run, work.out, work.knowledge, patients=shown, seed=seed)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # done: the same settings begin anew
    return work.out


@dataclass(frozen=True)
class _Work:
    """What is trained from what, as resolved from the command line and the data."""

    data: Path
    knowledge: Knowledge
    lists: ListPatients | None
    checksum: str
    recipe: Recipe
    task: str
    out: Path


def _work(args: argparse.Namespace) -> _Work:
    data = Path(args.data or CATALOGUE)
    knowledge = load_knowledge(data)
    is_catalogue = bool(knowledge.lexicon)
    task = "symptoms" if is_catalogue else "symptoms-ddxplus"
    out = Path(args.out or f"models/{task}/{args.version}")
    checksum = file_sha256(data if is_catalogue else training_source(data))
    lists = None if is_catalogue else read_lists(data, knowledge)
    return _Work(data, knowledge, lists, checksum, recipe_of(args, is_catalogue=is_catalogue), task, out)


def _announcement(work: _Work, course: Course, args: argparse.Namespace) -> Announcement:
    options, device = RunOptions.of(args), course.machine.device.type
    checksums = {work.task: work.checksum, **(work.lists.checksums if work.lists else {})}
    settings = Settings(work.task, asdict(work.recipe), checksums, args.seed, args.threads, args.smoke, own_ranks().world, device)
    card = symptom_card(work.task, work.knowledge, work.recipe, args.seed, checksums, work.lists)
    seconds = estimated_seconds(work.knowledge, work.recipe, course) if options.dry_run else None
    return Announcement(settings, card, options, work.out, (CHECKPOINT,), seconds, "from two of its steps")


def _export(work: _Work, fitted: Fitted, more: dict[str, Any], args: argparse.Namespace) -> None:
    """Calibrate, export, measure and write the bundle; `more` is what its contract says of training beside recipe and figures."""
    knowledge, recipe, lists, data, task, out = work.knowledge, work.recipe, work.lists, work.data, work.task, work.out
    scorer = _calibrated(fitted.network, knowledge, recipe, args.seed)
    whole = scorer if lists is None else with_lists(scorer, lists, knowledge, args)
    model = _exported(whole)
    feeds = _parity_feeds(knowledge, recipe, args.seed)
    parity = check_parity(_torch_source(whole), model, feeds)
    kept = {"probe": make_probe(_torch_source(whole), feeds), "seen": fitted.seen.as_contract()}
    measured = calibrate_decisions(scorer, knowledge, recipe, args.seed)
    source = "catalogue" if knowledge.lexicon else training_source(data).name
    training = {
        **more, "seed": args.seed, "smoke": args.smoke, "commit": current_commit(), "parity": parity,
        "temperature": scorer.temperature, "best_step": fitted.best_step, "held_out_loss": fitted.held_out_loss, **vars(recipe),
        "card": read_own_facts(data),
    }  # fmt: skip
    contract = symptom_contract(task, args.version, knowledge, source, work.checksum, training, measured)
    contract = contract if lists is None else with_list_contract(contract, lists)
    write_bundle(out, model, contract.model_copy(update=kept), symptom_evaluation.unevaluated(task))
    symptom_evaluation.evaluate_and_record(out, data, args)


def _fit(knowledge: Knowledge, recipe: Recipe, course: Course, log: Callable[[dict[str, float], int], None], *, quiet: bool) -> Fitted:
    """Fit with the other processes, if there are any, telling the table of every step and the tracker of every check."""
    with joined(course.machine.device.type) as ranks, live_table("symptoms", quiet=quiet) as table:
        table.add("network", recipe.steps)

        def tell(heard: Heard) -> None:
            table.update(
                "network", heard.step, loss=heard.loss, held_out=heard.held_out, best=heard.best, patience_left=heard.patience_left
            )
            if heard.is_check:
                log({"loss": heard.loss, "held_out_loss": heard.held_out}, heard.step)

        fitted = fit_symptoms(knowledge, recipe, replace(course, ranks=ranks), tell)
        stopped = f", stopped at {fitted.steps}" if fitted.steps < recipe.steps else ""
        table.finish("network", f"done: the best was step {fitted.best_step}{stopped}")
        return fitted


def _calibrated(network: SymptomNetwork, knowledge: Knowledge, recipe: Recipe, seed: int) -> SymptomScorer:
    """Fit one temperature (Guo et al. 2017) on patients drawn from the real prior, a random share of answers lost."""
    random = np.random.default_rng(seed + CALIBRATION_SEED_OFFSET)
    batch = masked_batch(PatientGenerator(knowledge), recipe, recipe.calibration_patients, random)
    condition = torch.from_numpy(batch.condition)
    with torch.no_grad():
        logits = network(*(torch.from_numpy(values) for values in batch.feeds().values()))
    log_temperature = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], lr=0.2, max_iter=60)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), condition)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return SymptomScorer(network, float(log_temperature.exp().item()), knowledge).eval()


def _exported(scorer: SymptomScorer | ListingScorer) -> bytes:
    slots = scorer.network.present.shape[0]
    conditions = scorer.network.present.shape[1]
    example = (torch.zeros(2, slots), torch.zeros(2, dtype=torch.int64), torch.zeros(2, conditions))
    batch = torch.export.Dim("n", min=1, max=1_000_000)
    program = torch.onnx.export(
        scorer,
        example,
        dynamo=True,
        external_data=False,
        input_names=["evidence", "demographics", "log_shift"],
        output_names=list(_outputs(scorer)),
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
        verbose=False,
    )
    assert program is not None
    return without_traces(program.model_proto.SerializeToString())


def calibrate_decisions(scorer: SymptomScorer, knowledge: Knowledge, recipe: Recipe, seed: int) -> Decisions:
    """The prediction sets' limits, the least fit and the severity thresholds, on fresh patients.

    A severity threshold is the probability mass below which at most 5 % of the patients who have a condition of that
    severity or worse fall.
    """
    patients, feeds = decision_patients(knowledge, recipe, seed)
    source = _torch_source(scorer)
    scored = source(feeds)
    p = scored["probabilities"]
    severity = np.array([knowledge.conditions[label]["severity"] for label in knowledge.labels])
    thresholds = {}
    for level in (2, 3, 4):
        mass = p[:, severity <= level].sum(axis=1)
        thresholds[f"severity_level_{level}"] = float(np.quantile(mass[severity[patients.condition] <= level], MISSED_SHARE))
    seed_of_sets = seed + SET_SEED_OFFSET
    conformal = calibrate_sets(
        source, knowledge, patients=recipe.calibration_patients, is_single=recipe.single_complaint, seed=seed_of_sets
    )
    scope = calibrate_scope(scored["fit"], feeds["evidence"], [slot.code for slot in knowledge.slots])
    return Decisions(thresholds, conformal, scope)


def _outputs(scorer: SymptomScorer | ListingScorer) -> tuple[str, ...]:
    return scorer.outputs if isinstance(scorer, ListingScorer) else OUTPUTS


def _torch_source(scorer: SymptomScorer | ListingScorer) -> Any:
    def source(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            tensors = (torch.from_numpy(feeds[name]) for name in ("evidence", "demographics", "log_shift"))
            outputs = dict(zip(_outputs(scorer), scorer(*tensors), strict=True))
            return {name: outputs[name].numpy() for name in ("probabilities", "fit", "listed") if name in outputs}

    return source


def _parity_feeds(knowledge: Knowledge, recipe: Recipe, seed: int) -> dict[str, NDArray[Any]]:
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed)
    patients = generator.draw(PARITY_INPUTS, random)
    return {
        "evidence": mixed_masks(generator, patients, recipe, random).astype(np.float32),
        "demographics": patients.demographics(),
        "log_shift": generator.log_shift(patients, random),
    }
