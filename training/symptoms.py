"""`nabz-train symptoms`: knowledge (the catalogue, or data in DDXPlus format) to a calibrated, exported symptom bundle.

Patients are drawn afresh for every step, with answers lost in several ways, so that unknown is never "no".
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from inference.bundle import Contract, DataSource, Label, TensorSpec
from inference.evidence import DEMOGRAPHICS
from training import symptom_evaluation
from training.catalogue import CATALOGUE
from training.export import PARITY_INPUTS, check_parity, file_sha256, now_utc, write_bundle
from training.generator import MISSING_SHARE, PatientGenerator, Patients
from training.knowledge import Knowledge, load_knowledge, training_source
from training.list_head import ListingScorer, read_lists, with_list_contract, with_lists
from training.probe import make_probe
from training.scope_calibration import calibrate_scope
from training.seen import Sketch, of_patients
from training.set_calibration import calibrate_sets
from training.symptom_network import SymptomNetwork
from training.symptom_scorer import OUTPUTS, SymptomScorer
from training.tracking import TrackedRun, current_commit, tracked_run

CALIBRATION_SEED_OFFSET = 1_000_003
EVALUATION_SEED_OFFSET = 2_000_003
DECISION_SEED_OFFSET = 3_000_017
SET_SEED_OFFSET = 4_000_037
MISSED_SHARE = 0.05
# The benchmark is scored by its first condition alone, so that questions must not stop at a small set.
BENCHMARK_STOP = {"settled_set": 0.0, "settled_probability": 0.98, "least_information": 0.0}


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters. `tempering` flattens the prior in training; the export puts the real one back."""

    steps: int = 800
    batch: int = 2048
    rate: float = 2e-3
    hidden: int = 128
    tempering: float = 0.5
    single_complaint: bool = False
    calibration_patients: int = 20_000
    soft_weight: float = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this trainer beyond the common ones."""
    parser.add_argument(
        "--steps", type=int, default=None, help="optimiser steps of 2,048 patients (default 800; 40 small ones for DDXPlus data)"
    )


def train(args: argparse.Namespace) -> Path:
    """Train, calibrate, evaluate and export; returns the bundle's folder."""
    data = Path(args.data or CATALOGUE)
    knowledge = load_knowledge(data)
    is_catalogue = bool(knowledge.lexicon)
    task = "symptoms" if is_catalogue else "symptoms-ddxplus"
    recipe = _recipe(args, is_catalogue)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    out = Path(args.out or f"models/{task}/{args.version}")
    checksum = file_sha256(data) if is_catalogue else file_sha256(training_source(data))
    with tracked_run(task, {"seed": args.seed, "smoke": args.smoke, **vars(recipe)}, {task: checksum}) as run:
        seen = Sketch()
        network = _fit(knowledge, recipe, args, run, seen)
        scorer = _calibrated(network, knowledge, recipe, args.seed)
        lists = None if is_catalogue else read_lists(data, knowledge)
        whole = scorer if lists is None else with_lists(scorer, lists, knowledge, args)
        model = _exported(whole)
        feeds = _parity_feeds(knowledge, recipe, args.seed)
        parity = check_parity(_torch_source(whole), model, feeds)
        kept = {"probe": make_probe(_torch_source(whole), feeds), "seen": seen.as_contract()}
        measured = calibrate_decisions(scorer, knowledge, recipe, args.seed)
        source = "catalogue" if is_catalogue else training_source(data).name
        contract = _contract(task, args, knowledge, recipe, scorer.temperature, parity, source, checksum, measured)
        contract = contract if lists is None else with_list_contract(contract, lists)
        write_bundle(out, model, contract.model_copy(update=kept), symptom_evaluation.unevaluated(task))
        bundle = symptom_evaluation.evaluate_and_record(out, data, args)
        run.log_report(bundle)
        run.log_bundle(out)
        _plot(run, scorer, knowledge, recipe, args.seed)
    return out


def _recipe(args: argparse.Namespace, is_catalogue: bool) -> Recipe:
    smoke = {"steps": 60, "batch": 512, "calibration_patients": 3000} if args.smoke else {}
    steps = {"steps": args.steps} if args.steps else {}
    # Bayes' rule, from which the network starts, is already right for patients drawn from DDXPlus's statistics; what the release's
    # patients do otherwise they do not show. A few small steps keep it there, and 500 large ones cost accuracy with few questions.
    kind = {} if is_catalogue else {"single_complaint": True, "tempering": 0.7, "steps": 40, "rate": 1e-4, "calibration_patients": 8_000}
    return Recipe(**{**kind, **smoke, **steps})


def _fit(knowledge: Knowledge, recipe: Recipe, args: argparse.Namespace, run: TrackedRun, seen: Sketch) -> SymptomNetwork:
    """Train on patients drawn afresh at every step, sketched in `seen`. Soft targets mix the drawn condition with the differential."""
    network = SymptomNetwork(knowledge, recipe.hidden)
    teacher = SymptomNetwork(knowledge, recipe.hidden).requires_grad_(False)
    generator = PatientGenerator(knowledge, recipe.tempering)
    shift_to_training = torch.tensor(np.log(generator.weights / knowledge.prior), dtype=torch.float32)
    random = np.random.default_rng(args.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    with Progress(disable=args.quiet) as progress:
        bar = progress.add_task("training", total=recipe.steps)
        for step in range(recipe.steps):
            patients = generator.draw(recipe.batch, random)
            seen.add(of_patients(patients.answers, patients.age_years, patients.sex))
            evidence = torch.from_numpy(mixed_masks(generator, patients, recipe, random).astype(np.float32))
            who = torch.from_numpy(patients.demographics())
            shift = torch.from_numpy(generator.log_shift(patients, random))
            logits = network(evidence, who, shift) + shift_to_training
            with torch.no_grad():
                differential = torch.softmax(teacher(evidence, who, shift) + shift_to_training, dim=1)
            loss = _loss(logits, torch.from_numpy(patients.condition), differential, recipe.soft_weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(bar, advance=1, description=f"training, loss {loss.item():.3f}")
            if step % 50 == 0:
                run.log_metrics({"loss": loss.item()}, step)
    return network.eval()


def _loss(logits: Tensor, condition: Tensor, differential: Tensor, soft_weight: float) -> Tensor:
    log_p = torch.log_softmax(logits, dim=1)
    hard = torch.nn.functional.nll_loss(log_p, condition)
    soft = -(differential * log_p).sum(dim=1).mean()
    return (1 - soft_weight) * hard + soft_weight * soft


def mixed_masks(generator: PatientGenerator, patients: Patients, recipe: Recipe, random: np.random.Generator) -> NDArray[np.int8]:
    """Each batch in four parts: everything asked; a random share lost; the complaint alone; the complaint and some answers."""
    n = len(patients.condition)
    cuts = (0, n // 5, 3 * n // 5, 4 * n // 5, n)
    parts = [_slice(patients, slice(a, b)) for a, b in pairwise(cuts)]
    lost = random.random(len(parts[1].condition)) * 0.97
    asked = random.random(len(parts[3].condition)) ** 2
    return np.concatenate(
        [
            parts[0].answers,
            generator.mask_missing(parts[1], lost, random),
            generator.mask_to_complaint(parts[2], random, recipe.single_complaint),
            generator.mask_to_complaint(parts[3], random, recipe.single_complaint, asked),
        ]
    )


def _slice(patients: Patients, rows: slice) -> Patients:
    return Patients(*(getattr(patients, name)[rows] for name in Patients.__dataclass_fields__))


def _calibrated(network: SymptomNetwork, knowledge: Knowledge, recipe: Recipe, seed: int) -> SymptomScorer:
    """Fit one temperature (Guo et al. 2017) on patients drawn from the real prior, a random share of answers lost."""
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed + CALIBRATION_SEED_OFFSET)
    patients = generator.draw(recipe.calibration_patients, random)
    evidence = torch.from_numpy(mixed_masks(generator, patients, recipe, random).astype(np.float32))
    with torch.no_grad():
        logits = network(evidence, torch.from_numpy(patients.demographics()), torch.from_numpy(generator.log_shift(patients)))
    log_temperature = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], lr=0.2, max_iter=60)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), torch.from_numpy(patients.condition))
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
    return program.model_proto.SerializeToString()


@dataclass(frozen=True)
class Decisions:
    """What turns probabilities into sets and levels, chosen on held-out patients; see `calibrate_decisions`."""

    thresholds: dict[str, float]
    conformal: dict[str, Any]
    out_of_distribution: dict[str, Any]


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


def decision_patients(knowledge: Knowledge, recipe: Recipe, seed: int) -> tuple[Patients, dict[str, NDArray[Any]]]:
    """Fresh patients that neither the network nor its temperature was fitted on, and the model's inputs for them."""
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed + DECISION_SEED_OFFSET)
    patients = generator.draw(recipe.calibration_patients, random)
    return patients, {
        "evidence": mixed_masks(generator, patients, recipe, random).astype(np.float32),
        "demographics": patients.demographics(),
        "log_shift": generator.log_shift(patients),
    }


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


def _contract(
    task: str,
    args: argparse.Namespace,
    knowledge: Knowledge,
    recipe: Recipe,
    temperature: float,
    parity: dict[str, Any],
    source: str,
    checksum: str,
    decisions: Decisions,
) -> Contract:
    slots, conditions = len(knowledge.slots), len(knowledge.labels)
    is_catalogue = task == "symptoms"
    return Contract(
        task=task,
        version=args.version,
        created=now_utc(),
        model_sha256="",
        inputs=(
            TensorSpec(
                name="evidence",
                dtype="float32",
                shape=("n", slots),
                meaning="+1 present or chosen, -1 absent or not chosen, 0 unknown; slots in the vocabulary's order",
            ),
            TensorSpec(name="demographics", dtype="int64", shape=("n",), meaning=f"age band times 3 plus sex, in [0, {DEMOGRAPHICS})"),
            TensorSpec(
                name="log_shift",
                dtype="float32",
                shape=("n", conditions),
                meaning="log multiplier of each condition's prior for season and province; 0 when unknown",
            ),
        ),
        outputs=(
            TensorSpec(
                name="probabilities",
                dtype="float32",
                shape=("n", conditions),
                meaning="calibrated probability of each condition; sums to 1",
            ),
            TensorSpec(
                name="contributions",
                dtype="float32",
                shape=("n", slots),
                meaning="log-odds that each slot adds for the leading condition against the average one",
            ),
            TensorSpec(
                name="shared",
                dtype="float32",
                shape=("n", 2),
                meaning="log-odds that age, sex, season and place add, and that the findings add together; with the contributions they sum to all",
            ),
            TensorSpec(
                name="fit",
                dtype="float32",
                shape=("n",),
                meaning="log probability of the findings that are there, for somebody of this age and sex with one of the conditions",
            ),
        ),
        labels=tuple(_label(name, entry) for name, entry in knowledge.conditions.items()),
        intended_use=(
            "Ranks the conditions that fit a complaint, answers, age and sex, to help order a referral queue in primary care."
            if is_catalogue
            else "Benchmark on the public DDXPlus data. Not for patients."
        ),
        limits=_limits(is_catalogue),
        licence="Apache-2.0" if is_catalogue else "CC BY 4.0",
        data=(_source(source, checksum),),
        training={"seed": args.seed, "commit": current_commit(), "parity": parity, "temperature": temperature, **vars(recipe)},
        thresholds=decisions.thresholds | ({} if is_catalogue else BENCHMARK_STOP),
        conformal=decisions.conformal,
        out_of_distribution=decisions.out_of_distribution,
        vocabulary={
            "slots": [[slot.code, slot.value] for slot in knowledge.slots],
            "parents": knowledge.parents_by_code(),
            "evidences": knowledge.evidences,
            "lexicon": knowledge.lexicon,
            "season": {name: shift.round(5).tolist() for name, shift in knowledge.season.items() if shift.any()},
            "province": {name: shift.round(5).tolist() for name, shift in knowledge.province.items() if shift.any()},
        },
    )


def _label(name: str, entry: dict[str, Any]) -> Label:
    return Label(
        name=name,
        name_en=entry["cond-name-eng"],
        name_ur=entry.get("name_ur", ""),
        icd10=entry["icd10-id"],
        severity=entry["severity"],
        specialty=entry.get("specialty"),
    )


def _limits(is_catalogue: bool) -> tuple[str, ...]:
    if not is_catalogue:
        return ("Learned from and measured on synthetic patients; says nothing about real care.",)
    return (
        "Learned from synthetic patients that were drawn from the catalogue; its probabilities are mostly estimates.",
        "Its figures are on synthetic patients of the same kind; accuracy on real patients is not known.",
        "Knows only the catalogue's conditions; a patient may have another one, or two at once.",
    )


def _source(source: str, checksum: str) -> DataSource:
    if source.endswith(".csv"):
        return DataSource(name=f"{source}, patients in DDXPlus format", licence="its owner's", sha256=checksum, citation="Its owner.")
    if source != "train_statistics.json":
        return DataSource(
            name="Nabz catalogue (data/catalogue), synthetic patients",
            licence="Apache-2.0",
            sha256=checksum,
            citation="This repository; every number carries its basis there.",
        )
    return DataSource(
        name="DDXPlus train_statistics.json, derived from the release's training patients (synthetic)",
        licence="CC BY 4.0",
        sha256=checksum,
        citation="Fansi Tchango et al., DDXPlus: A New Dataset For Automatic Medical Diagnosis, NeurIPS 2022 Datasets and Benchmarks; figshare 20043374.",
    )


def _plot(run: TrackedRun, scorer: SymptomScorer, knowledge: Knowledge, recipe: Recipe, seed: int) -> None:
    """A reliability diagram of the leading condition on fresh patients."""
    from training.plots import reliability_diagram

    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed + EVALUATION_SEED_OFFSET)
    patients = generator.draw(min(5000, recipe.calibration_patients), random)
    masked = generator.mask_missing(patients, MISSING_SHARE, random).astype(np.float32)
    feeds = {"evidence": masked, "demographics": patients.demographics(), "log_shift": generator.log_shift(patients)}
    p = _torch_source(scorer)(feeds)["probabilities"]
    run.log_figure(reliability_diagram(p.argmax(1) == patients.condition, p.max(1), "leading condition"), "reliability")
