"""`nabz-train lesions`: skin photos with clinical answers to a calibrated, exported and signed lesion bundle.

Every photo goes through inference's own preprocessing; training adds augmentation only. Temperature and
operating point come from networks that never saw the patient; the shipped network is fitted on everything.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from inference.bundle import Contract, DataSource, TensorSpec
from inference.errors import DataError
from inference.photo import PhotoRecipe, clinical_features, encode_clinical, open_photo, photo_pixels
from training.export import PARITY_INPUTS, file_sha256, now_utc, write_bundle
from training.hardware import hardware
from training.lesion_backbones import BACKBONES
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
from training.lesion_folds import Course, HeldOut, cross_validate, hold_out
from training.lesion_holdout import holdout_report, operating_point_of, parts
from training.lesion_network import CalibratedLesionNetwork, LesionNetwork
from training.lesion_pretrained import LearnedBackbone, keep_backbone, read_backbone
from training.run_artifacts import lesion_artifacts
from training.seen import Sketch, of_photo
from training.skin_data import SkinRecord, SkinSet, grouped_folds, read_skin_data
from training.skin_sources import BODY_SITE_WORDS, BODY_SITES, NON_COMMERCIAL, SkinSource
from training.tracking import current_commit, tracked_run

CHECKPOINTS = Path("runs/lesions")
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
    checkpoint_help = "where a run that was cut goes on from; a run that is done leaves its backbone.pt and out_of_fold.npz there"
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help=checkpoint_help)


def train(args: argparse.Namespace) -> Path:
    """Fit with photos held out, calibrate, fit on everything, export and sign; returns the bundle's folder.

    Raises DataError for data that cannot be read and ExportError when ONNX and torch disagree.
    """
    if args.data is None:
        raise DataError("nabz-train lesions needs --data: the folder of PAD-UFES-20 (metadata.csv and images/)")
    data, checksum = read_skin_data(args.data), file_sha256(args.data)
    learned = read_backbone(args.pretrained) if args.pretrained else None
    plan = _plan(args, data.source)
    folds = _SMOKE_FOLDS if args.smoke else args.folds or (1 if data.source.name in _ONE_SPLIT else 5)
    data = _fewer(data) if args.smoke else data
    task = data.source.task if learned is None else f"{data.source.task}-from-{learned.source.name.lower()}"
    out = Path(args.out or f"models/{task}/{args.version}")
    torch.set_num_threads(args.threads)
    recipe, machine = photo_recipe(plan), hardware(args.device)
    checkpoints = args.checkpoints / out.parent.name / ("smoke" if args.smoke else "full")
    course = Course(plan, recipe, args.seed, checkpoints, args.pretrained, machine, args.threads)
    settings = {**asdict(plan), "folds": folds, "seed": args.seed, "smoke": args.smoke, "images": len(data.records)}
    with tracked_run(task, settings, {data.source.name: checksum}) as run:
        examples, classes = load_examples(data, plan, recipe), len(data.source.labels)
        if folds == 1:
            learns, calibrates, reports = parts(data, args.seed)
            held_out, network = hold_out(examples, learns, classes, course, run, args.quiet)
            point = operating_point_of(held_out, data, calibrates)
            report = holdout_report(held_out, data, point, reports, args.version)
        else:
            learns = np.ones(len(data.records), dtype=bool)
            fold_of = grouped_folds(data.labels, data.groups, folds, args.seed)
            held_out, network = cross_validate(examples, fold_of, classes, course, run, args.quiet)
            point = operating_point(held_out, learns, data)
            report = cross_validation_report(held_out, data, args.version)
        familiarity = fit_familiarity(embeddings(network, examples.pixels[learns], recipe), examples.targets[learns])
        _join_answers(network, point)
        scorer = CalibratedLesionNetwork(network, *_calibrated(point.calibration, data), familiarity).eval()
        model = export_onnx(scorer, plan.size, examples.clinical.shape[1])
        parity = parity_on(scorer, model, examples, recipe, args.seed, _SMOKE_PARITY if args.smoke else PARITY_INPUTS)
        settings |= {"commit": current_commit(), "calibration": asdict(point.calibration), "fusion": asdict(point.fusion), "parity": parity}
        settings |= {
            "began_from": learned.source.name if learned else "ImageNet",
            "device": machine.device.type,
        }
        contract = _contract(data, args.version, checksum, recipe, point.threshold, settings)
        contract = contract if learned is None else passed_on(contract, learned, task)
        is_held = held_out.fold_of >= 0
        held = data.part(is_held)
        unfamiliar = out_of_distribution(held_out.unfamiliarity[is_held], len(np.unique(held.groups)))
        kept = {"probe": probe_on(scorer, examples, recipe), "seen": sketch_of(data.part(learns)).as_contract()}
        write_bundle(out, model, contract.model_copy(update={"out_of_distribution": unfamiliar, **kept}), report)
        probabilities = point.probabilities(held_out.full[is_held], held_out.photo_only[is_held], held_out.known[is_held])
        scored = scored_of(probabilities, np.zeros(len(probabilities), dtype=bool), held)
        lesion_artifacts(run, scored, label_names(data), data.source.malignant, point.threshold)
        run.log_bundle(out)
    shutil.rmtree(checkpoints)
    _leave_behind(course, network, held_out, contract)
    if not args.quiet:
        _print_summary(report, out)
    _warn(report)
    return out


def passed_on(contract: Contract, learned: LearnedBackbone, task: str) -> Contract:
    """The contract of a network that began from what others' data taught: their licence and limits, and a task of its own.

    The task differs, so that such a bundle never goes live in the default's place by its version alone.
    """
    licences = dict.fromkeys((learned.source.licence, contract.licence))
    limits = tuple(dict.fromkeys((*learned.limits, *contract.limits)))
    return contract.model_copy(
        update={"task": task, "licence": " and ".join(licences), "limits": limits, "data": (*contract.data, learned.source)}
    )


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
    plan = replace(plan, backbone=args.backbone)
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


def _leave_behind(course: Course, network: LesionNetwork, held_out: HeldOut, contract: Contract) -> None:
    """What others can begin from or measure again: the backbone with its licence, and the held-out logits."""
    limits = tuple(limit for limit in contract.limits if limit == NON_COMMERCIAL)
    learned = LearnedBackbone(course.plan.backbone, network.backbone.state_dict(), contract.data[0], limits)
    keep_backbone(learned, course.checkpoints / "backbone.pt")
    np.savez(course.checkpoints / "out_of_fold.npz", **asdict(held_out))


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


def _contract(
    data: SkinSet,
    version: str,
    checksum: str,
    recipe: PhotoRecipe,
    threshold: float,
    settings: dict[str, Any],
) -> Contract:
    source, side, features = data.source, recipe.size, clinical_features(BODY_SITES)
    classes = len(source.labels)
    return Contract(
        task=source.task,
        version=version,
        created=now_utc(),
        model_sha256="",
        inputs=(
            _tensor("photo", ("n", 3, side, side), "RGB photo, upright, normalised as preprocessing says"),
            _tensor(
                "clinical",
                ("n", len(features)),
                "answers in the order of clinical_features; all zeros is unknown",
            ),
        ),
        outputs=(
            _tensor(
                "probabilities",
                ("n", classes),
                "calibrated probability of each label, were all equally common; sums to 1",
            ),
            _tensor("malignancy_probability", ("n",), f"sum over {', '.join(source.malignant)}"),
            _tensor(
                "heat_map",
                ("n", "rows", "columns"),
                "by place, rows from the top: how far the malignancy probability falls if a ninth of the photo, looking like "
                "this place, looked like the photo's mean; below 0 the place speaks against malignancy",
            ),
            _tensor(
                "unfamiliarity",
                ("n",),
                "how unlike the training photos this one is; see out_of_distribution",
            ),
        ),
        labels=source.labels,
        intended_use=(
            "Estimates from a phone photo of one skin lesion, and up to eight answers, how likely it is "
            "malignant, to help order a referral queue. It may raise a patient's urgency, never lower it."
            if source.task == "lesions"
            else f"Benchmark on the public {source.name} data. Not for patients."
        ),
        limits=source.limits,
        licence=source.licence,
        data=(DataSource(name=source.name, licence=source.licence, sha256=checksum, citation=source.citation),),
        training=settings,
        preprocessing=recipe.as_contract(),
        thresholds={"malignancy": threshold},
        vocabulary={
            "body_site": {"sites": list(BODY_SITES), "words": BODY_SITE_WORDS},
            "clinical_features": list(features),
            "malignant": list(source.malignant),
        },
    )


def _tensor(name: str, shape: tuple[int | str, ...], meaning: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, meaning=meaning)


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
