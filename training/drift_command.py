"""`nabz-train drift-check` and `nabz-train reference`: how good the monitor is, and what goes into a bundle's `reference`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.command_line import add_command
from training.catalogue import CATALOGUE

if TYPE_CHECKING:
    from training.drift_experiment import Experiment

DONE, PROBLEMS = 0, 1
_WEEKS, _PHOTOS = 100, 400


def add_drift(commands: Any) -> None:
    """Add both commands to the parser of `nabz-train`."""
    check = add_command(
        commands, "drift-check", "Measure the monitor: twenty injected shifts to find, quiet weeks to be quiet in.",
        "nabz-train drift-check --weeks 100",
    )  # fmt: skip
    _add_check_options(check)
    reference = add_command(
        commands, "reference", "Print what goes into a bundle's `reference`: how the cases looked that it is measured on.",
        "nabz-train reference symptoms --data data/catalogue --out runs/reference.json",
    )  # fmt: skip
    reference.add_argument("task", choices=("symptoms", "acuity", "lesions"))
    reference.add_argument("--data", type=Path, required=True, help="the catalogue, the folder of data sets (acuity), or a photo set")
    reference.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles that score (default: NABZ_MODELS, or models/)")
    reference.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .json file")
    reference.set_defaults(run=_reference)


def _add_check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("--weeks", type=int, default=_WEEKS, metavar="N", help=f"quiet weeks (default: {_WEEKS})")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    check.add_argument(
        "--photos", type=int, default=_PHOTOS, metavar="N", help=f"photos in each pool; 0 leaves photos out (default: {_PHOTOS})"
    )
    check.add_argument("--catalogue", type=Path, default=CATALOGUE, metavar="DIR", help="the catalogue (default: data/catalogue)")
    check.add_argument("--json", action="store_true", help="print everything as JSON")
    check.set_defaults(run=_check)


def main(arguments: Sequence[str]) -> int:
    """`python -m training.drift_experiment`: `nabz-train drift-check` by another name."""
    parser = argparse.ArgumentParser(prog="python -m training.drift_experiment", description="See nabz-train drift-check.")
    _add_check_options(parser)
    return _check(parser.parse_args(arguments))


def _check(args: argparse.Namespace) -> int:
    from training.drift_experiment import run_experiment
    from training.drift_weeks import InventedService, shipped_triage

    service = InventedService(args.catalogue, shipped_triage(), photos=args.photos)
    found = run_experiment(service, seed=args.seed, quiet_weeks=args.weeks, told=lambda words: print(words, file=sys.stderr, flush=True))
    print(json.dumps(found.as_json(), indent=1)) if args.json else _print(found)
    return DONE if found.is_good else PROBLEMS


def _print(found: Experiment) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found.found} of {len(found.outcomes)} injected shifts found within three weeks")
    for column in ("shift", "what happens", "found", "by", "PSI beyond chance"):
        table.add_column(column)
    for one in found.outcomes:
        week = "not found" if one.week is None else f"week {one.week}"
        table.add_row(one.name, one.words, week, one.by, "" if one.excess is None else f"{one.excess:.2f}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    rate = found.false_alarm_rate
    console.print(
        f"false alarms: {len(found.false_weeks)} of {found.quiet_weeks} quiet weeks "
        f"({100 * rate.value:.0f} %, 95 % interval {100 * rate.low:.1f} to {100 * rate.high:.1f} %)"
    )
    for number, names in found.false_weeks.items():
        console.print(f"  week {number + 1}: {', '.join(names)}")


def _reference(args: argparse.Namespace) -> int:
    from inference.models import load_models
    from training.drift_reference import reference_for

    models = load_models(args.models)
    for problem in models.problems:
        print(f"nabz-train: {problem}", file=sys.stderr)
    document = reference_for(args.task, models, args.data)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    size = args.out.stat().st_size
    print(f"wrote {args.out}: {document['n']} cases, {len(document['features'])} features, {size} bytes", file=sys.stderr)
    return DONE
