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
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from inference.bundle import Contract, DataSource, TensorSpec
from inference.errors import DataError
from inference.photo import PhotoRecipe, clinical_features, encode_clinical, open_photo, photo_pixels
from training.export import file_sha256, now_utc, write_bundle
from training.lesion_backbones import BACKBONES
from training.lesion_evaluation import (
    confusion,
    cross_validation_report,
    label_names,
    operating_point,
    targets,
)
from training.lesion_export import export_onnx, parity_on
from training.lesion_familiarity import fit_familiarity, out_of_distribution
from training.lesion_fitting import Examples, Plan, embeddings, photo_recipe
from training.lesion_folds import cross_validate
from training.lesion_network import CalibratedLesionNetwork
from training.plots import confusion_matrix_plot
from training.skin_data import SkinRecord, SkinSet, grouped_folds, read_skin_data
from training.skin_sources import BODY_SITE_WORDS, BODY_SITES
from training.tracking import current_commit, tracked_run

Array = NDArray[Any]
CHECKPOINTS = Path("runs/lesions")
_SMOKE_FOLDS, _SMOKE_RECORDS_A_LABEL = 2, 16
_SMOKE_PLAN = Plan(size=96, stored_size=112, epochs=1, batch_size=16)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this trainer beyond the common ones."""
    parser.add_argument("--folds", type=int, default=5, help="folds of the patient-grouped cross-validation")
    parser.add_argument("--epochs", type=int, default=None, help=f"epochs of each network (default {Plan().epochs})")
    backbone_help = "efficientnet_lite0 is installed with nabz; the others download torchvision's weights"
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default=Plan().backbone, help=backbone_help)
    checkpoint_help = "where a run that was cut goes on from; emptied when a run is done"
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help=checkpoint_help)


def train(args: argparse.Namespace) -> Path:
    """Cross-validate by patient, calibrate, fit on everything, export and sign; returns the bundle's folder.

    Raises DataError for data that cannot be read and ExportError when ONNX and torch disagree.
    """
    if args.data is None:
        raise DataError("nabz-train lesions needs --data: the folder of PAD-UFES-20 (metadata.csv and images/)")
    data, checksum = read_skin_data(args.data), file_sha256(args.data)
    plan, folds = _plan(args), args.folds
    if args.smoke:
        data, folds = _fewer(data), _SMOKE_FOLDS
    out = Path(args.out or f"models/{data.source.task}/{args.version}")
    checkpoints = args.checkpoints / out.parent.name / ("smoke" if args.smoke else "full")
    torch.set_num_threads(args.threads)
    recipe = photo_recipe(plan)
    settings = {
        **asdict(plan),
        "folds": folds,
        "seed": args.seed,
        "smoke": args.smoke,
        "images": len(data.records),
    }
    with tracked_run(data.source.task, settings, {data.source.name: checksum}) as run:
        examples = load_examples(data, plan, recipe)
        fold_of = grouped_folds(data.labels, data.groups, folds, args.seed)
        held_out, network = cross_validate(
            examples,
            fold_of,
            len(data.source.labels),
            plan,
            recipe,
            args.seed,
            checkpoints,
            args.threads,
            run,
            args.quiet,
        )
        calibration, threshold = operating_point(held_out.full, data)
        malignant = torch.tensor([float(name in data.source.malignant) for name in label_names(data)])
        offsets = torch.tensor(calibration.offsets, dtype=torch.float32)
        familiarity = fit_familiarity(embeddings(network, examples.pixels, recipe), examples.targets)
        scorer = CalibratedLesionNetwork(network, calibration.temperature, offsets, malignant, familiarity).eval()
        model = export_onnx(scorer, plan.size, examples.clinical.shape[1])
        parity = parity_on(scorer, model, examples, recipe, args.seed)
        settings |= {"commit": current_commit(), "calibration": asdict(calibration), "parity": parity}
        report = cross_validation_report(held_out, data, args.version)
        contract = _contract(data, args.version, checksum, recipe, threshold, settings)
        unfamiliar = out_of_distribution(held_out.unfamiliarity, len(np.unique(data.groups)))
        write_bundle(out, model, contract.model_copy(update={"out_of_distribution": unfamiliar}), report)
        run.log_report(report)
        counts = confusion(calibration.apply(held_out.full), data)
        run.log_figure(confusion_matrix_plot(counts, list(label_names(data)), "out of fold"), "confusion")
        run.log_bundle(out)
    shutil.rmtree(checkpoints)
    if not args.quiet:
        _print_summary(report, out)
    return out


def load_examples(data: SkinSet, plan: Plan, recipe: PhotoRecipe) -> Examples:
    """Decode every photo once, the way inference does, and encode the clinical answers."""
    stored, pixels = [], []
    for record in data.records:
        image = _image(record)
        stored.append(photo_pixels(image, plan.stored_size, recipe.geometry))
        pixels.append(photo_pixels(image, plan.size, recipe.geometry))
    clinical = [encode_clinical(r.photo, r.age_years, BODY_SITES, BODY_SITE_WORDS) for r in data.records]
    return Examples(np.stack(stored), np.stack(pixels), np.stack(clinical), targets(data))


def _plan(args: argparse.Namespace) -> Plan:
    plan = replace(_SMOKE_PLAN if args.smoke else Plan(), backbone=args.backbone)
    return replace(plan, epochs=args.epochs) if args.epochs else plan


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
