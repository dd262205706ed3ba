"""Trains every shipped bundle, one after the other, then chooses the levels' thresholds, counts what calibration rests on and records the references for drift: what `make train` runs."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from inference.errors import ExportError
from inference.models import SERVING_FILE, TASKS, live_versions
from training import acuity, lesions, symptoms
from training.catalogue import CATALOGUE
from training.export import make_live
from training.levels import choose_levels
from training.reissue import record_reference

FIRST_VERSION = "1.0.0"


def train_everything(args: argparse.Namespace) -> list[tuple[Path, float]]:
    """Train into `args.models`; returns each bundle's folder with the seconds that it took."""
    sources: tuple[tuple[str, Any, Path], ...] = (
        ("symptoms", symptoms, CATALOGUE),
        ("symptoms-ddxplus", symptoms, args.data / "ddxplus"),
        ("acuity", acuity, args.data),
        ("lesions", lesions, args.data / "pad_ufes_20"),
    )
    live = live_versions(args.models) if (args.models / SERVING_FILE).is_file() else {}
    versions = {task: args.version or live.get(task, FIRST_VERSION) for task, _, _ in sources}
    done = []
    for task, trainer, data in sources:
        started = time.monotonic()
        folder = trainer.train(_arguments(trainer, args, task, versions[task], data))
        done.append((folder, time.monotonic() - started))
    if not args.smoke:
        refuse_unfair(args.models / "lesions" / versions["lesions"])
    make_live(args.models, {task: versions[task] for task in TASKS})
    choose_levels(args.data, args.models, args.threads)
    if not args.smoke:
        for task, _, data in sources:
            if task in TASKS:
                record_reference(args.models / task / versions[task], data)
    return done


def refuse_unfair(folder: Path) -> None:
    """Raise ExportError when a lesion bundle misses too many cancers of some skin type to go live (see lesion_document)."""
    first = next(iter(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["evaluations"].values()))
    if problems := first["release_problems"]:
        raise ExportError(
            f"{folder} is not made live: {'; '.join(problems)}; look at its subgroups, then change the recipe or the threshold"
        )


def _arguments(trainer: Any, args: argparse.Namespace, task: str, version: str, data: Path) -> argparse.Namespace:
    """The trainer's own options at their defaults, with the common ones from the command line."""
    parser = argparse.ArgumentParser()
    trainer.add_arguments(parser)
    common = {name: getattr(args, name) for name in ("seed", "smoke", "threads", "quiet")}
    return argparse.Namespace(**vars(parser.parse_args([])), **common, version=version, data=data, out=args.models / task / version)
