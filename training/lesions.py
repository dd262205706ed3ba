"""`nabz-train lesions`: skin photos with clinical answers to a calibrated, exported and signed lesion bundle.

Every photo goes through inference's own preprocessing; training adds augmentation only. Temperature and
operating point come from networks that never saw the patient; the shipped network is fitted on everything.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from inference.bundle import Contract
from inference.errors import DataError
from inference.photo import PhotoRecipe, clinical_features, encode_clinical, open_photo, photo_pixels
from training.announcement import Announcement
from training.card_facts import read_own_facts
from training.distributed import joined, own_ranks
from training.export import PARITY_INPUTS, file_sha256, write_bundle
from training.hardware import CPU, Hardware, hardware
from training.lesion_backbones import BACKBONES
from training.lesion_card import lesion_card
from training.lesion_contract import lesion_contract, passed_on
from training.lesion_evaluation import (
    OperatingPoint,
    cross_validation_report,
    label_names,
    operating_point,
    scored_of,
    targets,
)
from training.lesion_export import export_onnx, parity_on, probe_on
from training.lesion_familiarity import fit_familiarity, out_of_distribution
from training.lesion_figures import Calibration
from training.lesion_fitting import Examples, Plan, embeddings, photo_recipe
from training.lesion_folds import Course, CrossValidated, cross_validate, hold_out, take_part
from training.lesion_holdout import holdout_report, operating_point_of, parts
from training.lesion_network import CalibratedLesionNetwork, LesionNetwork
from training.lesion_pretrained import LearnedBackbone, keep_backbone, read_backbone
from training.lesion_search import search_lesions
from training.run_artifacts import lesion_artifacts
from training.seen import Sketch, of_photo
from training.settings import RunOptions, Settings, add_run_options
from training.skin_data import SkinRecord, SkinSet, grouped_folds, read_skin_data
from training.skin_sources import BODY_SITE_WORDS, BODY_SITES, NON_COMMERCIAL, SkinSource
from training.step_rate import bare_steps_per_second, step_rate_report
from training.tracking import TrackedRun, current_commit, tracked_run

CHECKPOINTS, BACKBONE, OUT_OF_FOLD = "checkpoints", "backbone.pt", "out_of_fold.npz"
_SMOKE_FOLDS, _SMOKE_RECORDS_A_LABEL, _SMOKE_PARITY = 2, 16, 100
_SMOKE_PLAN = Plan(size=96, stored_size=112, epochs=1, batch_size=16, views=1)
# Thousands of photos: fewer rounds, augmented live, one split, and the rare classes drawn less often than equally.
_MANY_PHOTOS = Plan(epochs=8, views=0, class_balance=0.7, averaging_decay=0.99, backbone_rate=4e-4)
_ONE_SPLIT = ("HAM10000", "DermaMNIST")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this trainer beyond the common ones."""
    folds_help = "folds of the cross-validation by patient; 1 holds three tenths of the lesions out once (default 5; dermoscopy sets 1)"
    parser.add_argument("--folds", type=int, default=None, help=folds_help)
    parser.add_argument("--epochs", type=int, default=None, help=f"epochs of each network (default {Plan().epochs}; dermoscopy sets 8)")
    backbone_help = "efficientnet_lite0 is installed with nabz; the others come from packages of their own, or torchvision downloads them"
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default=Plan().backbone, help=backbone_help)
    pretrained_help = "a backbone.pt that another run left, to begin from instead of ImageNet; its licence and limits pass on to the bundle"
    parser.add_argument("--pretrained", type=Path, default=None, metavar="FILE", help=pretrained_help)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to fit on (default auto: a GPU where there is one)"
    )
    patience_help = "stop a network after so many epochs without a better held-out loss (default 0: never, see Plan)"
    parser.add_argument("--patience", type=int, default=0, metavar="N", help=patience_help)
    parser.add_argument(
        "--profile", action="store_true", help="record the step rate against a bare loop on noise; on a GPU that is always done"
    )
    add_run_options(parser)


def train(args: argparse.Namespace) -> Path:
    """Fit with photos held out, calibrate, fit on everything, export and sign; returns the bundle's folder.

    A dry run, and every process of several but the first, writes no bundle. Raises DataError for data that cannot be read and
    ExportError when ONNX and torch disagree.
    """
    if args.data is None:
        raise DataError("nabz-train lesions needs --data: the folder of PAD-UFES-20 (metadata.csv and images/)")
    work, options, ranks = _work(args), RunOptions.of(args), own_ranks()
    if options.trials and ranks.world > 1:
        raise DataError("--search tries one recipe after the other in one process: start it without torchrun, then train with torchrun")
    torch.set_num_threads(args.threads)
    announced, quiet = _announcement(args, work), args.quiet or not ranks.is_first
    if options.dry_run:
        announced.make(quiet=quiet)
        return work.out
    examples, found = load_examples(work.data, work.plan, photo_recipe(work.plan)), dict[str, Any]()
    course = Course(
        work.plan, photo_recipe(work.plan), args.seed, announced.folder / CHECKPOINTS, args.pretrained, work.machine, args.threads
    )
    if options.trials:
        sides = work.split.of_search()
        plan, found = search_lesions(examples, *sides, work.classes, course, announced.settings, options, quiet=quiet)
        work = replace(work, plan=plan)
        announced = replace(_announcement(args, work), options=replace(options, trials=0))
    folder, settings = announced.make(quiet=quiet) if ranks.is_first else announced.folder, announced.settings
    course = replace(course, plan=work.plan, checkpoints=folder / CHECKPOINTS, settings_sha256=settings.sha256)
    if not ranks.is_first:
        with joined(work.machine.device.type) as ranks:
            take_part(examples, *work.split.of_part(), classes=work.classes, course=replace(course, ranks=ranks))
        return work.out
    checksums = {work.data.source.name: work.checksum}
    with tracked_run(work.task, settings.parameters(), checksums, asdict(announced.card)) as run:
        with joined(work.machine.device.type) as ranks:
            fitted = _fit(work, examples, replace(course, ranks=ranks), run, quiet=quiet)
        more = found | _step_rate(fitted, work, examples, always=args.profile)
        contract, report = _exported(work, examples, fitted, settings, more, args, run)
        run.log_bundle(work.out)
    shutil.rmtree(course.checkpoints)
    _leave_behind(folder, work.plan, fitted, contract)
    if not args.quiet:
        _print_summary(report, work.out)
    _warn(report)
    return work.out


def _fit(work: _Work, examples: Examples, course: Course, run: TrackedRun, *, quiet: bool) -> CrossValidated:
    """Fit with the other processes, if there are any."""
    split = work.split
    if split.fold_of is None:
        return hold_out(examples, split.learns, split.calibrates, work.classes, course, run.log_metrics, quiet)
    return cross_validate(examples, split.fold_of, work.classes, course, run.log_metrics, quiet)


def _exported(
    work: _Work,
    examples: Examples,
    fitted: CrossValidated,
    settings: Settings,
    more: dict[str, Any],
    args: argparse.Namespace,
    run: TrackedRun,
) -> tuple[Contract, dict[str, Any]]:
    """Calibrate, export, measure and write the bundle; `more` is what its contract says of training beside the settings."""
    data, plan, split, held_out, network = work.data, work.plan, work.split, fitted.held_out, fitted.network
    recipe = photo_recipe(plan)
    if split.fold_of is None:
        point = operating_point_of(held_out, data, split.calibrates)
        report = holdout_report(held_out, data, point, split.reports, args.version)
    else:
        point = operating_point(held_out, split.learns, data)
        report = cross_validation_report(held_out, data, args.version)
    familiarity = fit_familiarity(embeddings(network, examples.pixels[split.learns], recipe), examples.targets[split.learns])
    _join_answers(network, point)
    scorer = CalibratedLesionNetwork(network, *_calibrated(point.calibration, data), familiarity).eval()
    model = export_onnx(scorer, plan.size, examples.clinical.shape[1])
    parity = parity_on(scorer, model, examples, recipe, args.seed, _SMOKE_PARITY if args.smoke else PARITY_INPUTS)
    training = {
        **settings.recipe, "settings_sha256": settings.sha256, "seed": args.seed, "smoke": args.smoke, "commit": current_commit(),
        "calibration": asdict(point.calibration), "fusion": asdict(point.fusion), "parity": parity,
        "device": work.machine.device.type, "epochs": fitted.epochs, **more, "card": read_own_facts(args.data),
    }  # fmt: skip
    contract = lesion_contract(data, args.version, work.checksum, recipe, point.threshold, training)
    contract = contract if work.learned is None else passed_on(contract, work.learned, work.task)
    is_held = held_out.fold_of >= 0
    held = data.part(is_held)
    unfamiliar = out_of_distribution(held_out.unfamiliarity[is_held], len(np.unique(held.groups)))
    kept = {"probe": probe_on(scorer, examples, recipe), "seen": sketch_of(data.part(split.learns)).as_contract()}
    contract = contract.model_copy(update={"out_of_distribution": unfamiliar, **kept})
    write_bundle(work.out, model, contract, report)
    probabilities = point.probabilities(held_out.full[is_held], held_out.photo_only[is_held], held_out.known[is_held])
    scored = scored_of(probabilities, np.zeros(len(probabilities), dtype=bool), held)
    lesion_artifacts(run, scored, label_names(data), data.source.malignant, point.threshold)
    return contract, report


@dataclass(frozen=True)
class _Split:
    """Which images [N] are learned from, calibrated on and reported on; with folds all are all three, and `fold_of` says when."""

    learns: NDArray[np.bool_]
    calibrates: NDArray[np.bool_]
    reports: NDArray[np.bool_]
    fold_of: NDArray[np.int64] | None

    def of_search(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """What a search learns from, and by what it chooses: the first fold, or the part to calibrate on."""
        return (self.learns, self.calibrates) if self.fold_of is None else (self.fold_of != 0, self.fold_of == 0)

    def of_part(self) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """What the processes that only take part need to know."""
        return (self.learns, self.calibrates) if self.fold_of is None else (self.fold_of, None)


def _split(data: SkinSet, folds: int, seed: int) -> _Split:
    if folds == 1:
        return _Split(*parts(data, seed), None)
    every = np.ones(len(data.records), dtype=bool)
    return _Split(every, every, every, grouped_folds(data.labels, data.groups, folds, seed))


@dataclass(frozen=True)
class _Work:
    """What is fitted from what, as resolved from the command line and the data."""

    data: SkinSet
    checksum: str
    learned: LearnedBackbone | None
    plan: Plan
    folds: int
    split: _Split
    task: str
    out: Path
    machine: Hardware

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.data.source.labels)


def _work(args: argparse.Namespace) -> _Work:
    data, checksum = read_skin_data(args.data), file_sha256(args.data)
    learned = read_backbone(args.pretrained) if args.pretrained else None
    folds = _SMOKE_FOLDS if args.smoke else args.folds or (1 if data.source.name in _ONE_SPLIT else 5)
    data = _fewer(data) if args.smoke else data
    task = data.source.task if learned is None else f"{data.source.task}-from-{learned.source.name.lower()}"
    out = Path(args.out or f"models/{task}/{args.version}")
    machine = hardware(args.device, own_ranks().local)
    return _Work(data, checksum, learned, _plan(args, data.source), folds, _split(data, folds, args.seed), task, out, machine)


def _announcement(args: argparse.Namespace, work: _Work) -> Announcement:
    plan, options = work.plan, RunOptions.of(args)
    began_from = work.learned.source.name if work.learned else "ImageNet"
    sources = {work.data.source.name: work.checksum, **({"backbone": file_sha256(args.pretrained)} if work.learned else {})}
    recipe = {**asdict(plan), "folds": work.folds, "images": len(work.data.records), "began_from": began_from}
    settings = Settings(work.task, recipe, sources, args.seed, args.threads, args.smoke, own_ranks().world, work.machine.device.type)
    is_watched = plan.patience > 0 or options.trials > 0
    card = lesion_card(work.data, work.checksum, work.folds, args.seed, is_watched=is_watched)
    seconds = _estimated_seconds(work, args.threads) if options.dry_run else None
    kept = (f"{CHECKPOINTS}/", BACKBONE, OUT_OF_FOLD)
    return Announcement(settings, card, options, work.out, kept, seconds, "from bare steps on noise; views or augmentation come on top")


def _estimated_seconds(work: _Work, threads: int) -> float:
    """How long all networks take to fit by the wall clock, from a few steps of one on one thread."""
    folds, plan, is_cpu = work.folds, work.plan, work.machine == CPU
    torch.set_num_threads(1 if is_cpu else threads)
    rate = bare_steps_per_second(plan, len(clinical_features(BODY_SITES)), work.classes, work.machine, steps=2)
    torch.set_num_threads(threads)
    networks, share = (1, 0.7) if folds == 1 else (folds + 1, (folds - 1) / folds)
    steps = networks * plan.epochs * max(1, int(share * len(work.data.records)) // plan.batch_size)
    return steps / rate / (min(threads, networks) if is_cpu else 1)


def _step_rate(fitted: CrossValidated, work: _Work, examples: Examples, *, always: bool) -> dict[str, Any]:
    """The step rate for the contract: on a GPU always, on a CPU when asked for."""
    if fitted.steps_per_second is None or not (always or work.machine.is_gpu):
        return {}
    bare = bare_steps_per_second(work.plan, examples.clinical.shape[1], work.classes, work.machine)
    return step_rate_report(fitted.steps_per_second, bare, work.machine, work.plan)


def load_examples(data: SkinSet, plan: Plan, recipe: PhotoRecipe) -> Examples:
    """Decode every photo once, the way inference does, and encode the clinical answers."""
    stored, pixels = [], []
    for record in data.records:
        image = _image(record)
        stored.append(photo_pixels(image, plan.stored_size, recipe.geometry))
        pixels.append(photo_pixels(image, plan.size, recipe.geometry))
    clinical = [encode_clinical(r.photo, r.age_years, BODY_SITES, BODY_SITE_WORDS) for r in data.records]
    return Examples(np.stack(stored), np.stack(pixels), np.stack(clinical), targets(data))


def sketch_of(data: SkinSet) -> Sketch:
    """The photos' fingerprints, by which held-out photos that were learned from are found."""
    seen = Sketch(is_near=True)
    seen.add(np.array([of_photo(_image(record)) for record in data.records], dtype=np.uint64))
    return seen


def _plan(args: argparse.Namespace, source: SkinSource) -> Plan:
    plan = _SMOKE_PLAN if args.smoke else _MANY_PHOTOS if source.name in _ONE_SPLIT else Plan()
    plan = replace(plan, backbone=args.backbone, patience=args.patience)
    return replace(plan, epochs=args.epochs) if args.epochs else plan


def _calibrated(calibration: Calibration, data: SkinSet) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Temperature, offsets and which labels are malignant, as the exported network takes them."""
    malignant = torch.tensor([float(name in data.source.malignant) for name in label_names(data)])
    return calibration.temperature, torch.tensor(calibration.offsets, dtype=torch.float32), malignant


def _join_answers(network: LesionNetwork, point: OperatingPoint) -> None:
    """Put into the clinical branch how answers join the photo, so that what follows divides and shifts all alike."""
    weights = network.clinical_logits.weight
    fused = point.fusion.answer_weights(weights.detach().numpy(), point.calibration.temperature)
    with torch.no_grad():
        weights.copy_(torch.from_numpy(fused.astype(np.float32)))


def _leave_behind(folder: Path, plan: Plan, fitted: CrossValidated, contract: Contract) -> None:
    """What others can begin from or measure again: the backbone with its licence, and the held-out logits."""
    limits = tuple(limit for limit in contract.limits if limit == NON_COMMERCIAL)
    learned = LearnedBackbone(plan.backbone, fitted.network.backbone.state_dict(), contract.data[0], limits)
    keep_backbone(learned, folder / BACKBONE)
    np.savez(folder / OUT_OF_FOLD, **asdict(fitted.held_out))


def _fewer(data: SkinSet) -> SkinSet:
    """The first records of each label, enough to run every step."""
    seen: dict[str, int] = {}
    kept = []
    for record in data.records:
        seen[record.label] = seen.get(record.label, 0) + 1
        if seen[record.label] <= _SMOKE_RECORDS_A_LABEL:
            kept.append(record)
    return replace(data, records=tuple(kept))


def _image(record: SkinRecord) -> Image.Image:
    if record.pixels is not None:
        return Image.fromarray(record.pixels)
    return open_photo(record.folder / record.photo.path).image


def _print_summary(report: dict[str, Any], out: Path) -> None:
    console = Console(stderr=True)
    for title, part in report["evaluations"].items():
        console.print(f"[bold]{title}[/bold], n = {part['n']}")
        for name, figure in part["metrics"].items():
            bounds = (figure["value"], figure["low"], figure["high"])
            shown = " ".join("undefined" if bound is None else f"{bound:.3f}" for bound in bounds)
            console.print(f"  {name:32} {shown}")
    console.print(f"bundle: {out}")


def _warn(report: dict[str, Any]) -> None:
    """Say what speaks against making the bundle live, --quiet or not."""
    for title, part in report["evaluations"].items():
        for problem in part["release_problems"]:
            Console(stderr=True).print(f"[bold red]DO NOT MAKE LIVE[/bold red]: {title}: {problem}")
