"""Trains every shipped bundle, one after the other, then chooses the levels' thresholds: what `make train` runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from inference.models import SERVING_FILE, TASKS
from training import acuity, lesions, symptoms
from training.catalogue import CATALOGUE
from training.levels import choose_levels


def train_everything(args: argparse.Namespace) -> list[tuple[Path, float]]:
    """Train into `args.models`; returns each bundle's folder with the seconds that it took."""
    sources: tuple[tuple[str, Any, Path], ...] = (
        ("symptoms", symptoms, CATALOGUE),
        ("symptoms-ddxplus", symptoms, args.data / "ddxplus"),
        ("acuity", acuity, args.data),
        ("lesions", lesions, args.data / "pad_ufes_20"),
    )
    done = []
    for task, trainer, data in sources:
        started = time.monotonic()
        folder = trainer.train(_arguments(trainer, args, task, data))
        done.append((folder, time.monotonic() - started))
    lines = "".join(f'{task} = "{args.version}"\n' for task in TASKS)
    (args.models / SERVING_FILE).write_text(f"# Which version of each task is live.\n{lines}", encoding="utf-8")
    choose_levels(args.data, args.models, args.threads)
    return done


def _arguments(trainer: Any, args: argparse.Namespace, task: str, data: Path) -> argparse.Namespace:
    """The trainer's own options at their defaults, with the common ones from the command line."""
    parser = argparse.ArgumentParser()
    trainer.add_arguments(parser)
    common = {name: getattr(args, name) for name in ("seed", "smoke", "threads", "quiet", "version")}
    return argparse.Namespace(**vars(parser.parse_args([])), **common, data=data, out=args.models / task / args.version)
