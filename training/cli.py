"""The `nabz-train` command: parses, calls, prints, exits. Data go to stdout, words to stderr.

With the command files beside it the only module of training that prints. Exit status: 0 done, 1 checks found problems, 2 could not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.command_line import add_command
from inference.errors import NabzError
from training.comparison_command import add_compare
from training.data_command import add_data
from training.drift_command import add_drift
from training.keys_command import add_keys
from training.promotion_command import add_promotion
from training.reissue_command import add_reissue

DONE, FAILED = 0, 2
TASKS = ("symptoms", "acuity", "lesions")
_SUBPARSERS = Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    args = parser(words[0] if words else "").parse_args(words)
    try:
        return int(args.run(args))
    except NabzError as error:
        print(f"nabz-train: {error}", file=sys.stderr)
        return FAILED


def entry() -> None:
    """The console script."""
    sys.exit(main())


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command's parser, with an example for every command.

    Trainers are heavy to import: with `command` given, only that one's own options are added.
    """
    top = argparse.ArgumentParser(
        prog="nabz-train",
        description="Train, measure and export Nabz's models; check the data they learn from.",
        epilog="exit status: 0 done, 1 checks found problems, 2 could not run",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_trainers(commands, command)
    _add_evaluate(commands)
    _add_fairness(commands)
    _add_photo_gate(commands)
    _add_levels(commands)
    _add_priors(commands)
    _add_all(commands)
    add_data(commands)
    add_compare(commands)
    add_promotion(commands)
    add_keys(commands)
    add_drift(commands)
    add_reissue(commands)
    return top


def _add_trainers(commands: _SUBPARSERS, wanted: str | None) -> None:
    texts = {
        "symptoms": ("Train the symptom model on the catalogue, or on data in DDXPlus format.", "nabz-train symptoms --smoke --out runs/smoke/symptoms/1.0.0"),
        "acuity": ("Train the acuity model on NHAMCS-ED and KTAS visits.", "nabz-train acuity --data ../shared/data --smoke --out runs/smoke/acuity/1.0.0"),
        "lesions": ("Train the lesion model on photos with clinical answers.", "nabz-train lesions --data ../shared/data/pad_ufes_20 --smoke --out runs/smoke/lesions/1.0.0"),
    }  # fmt: skip
    for task, (text, example) in texts.items():
        command = add_command(commands, task, text, example)
        command.add_argument("--data", type=Path, help="what to learn from (symptoms: the catalogue by default)")
        command.add_argument("--out", type=Path, help="the bundle's folder (default models/<task>/<version>)")
        command.add_argument("--version", default="1.0.0", help="the bundle's version (default 1.0.0)")
        _add_common(command)
        if wanted in (None, task):
            _trainer(task).add_arguments(command)
        command.set_defaults(run=_train, task=task)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    command.add_argument("--threads", type=int, default=2, help="processor threads to use (default 2)")
    command.add_argument("--smoke", action="store_true", help="a tiny run that shows that everything works")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_evaluate(commands: _SUBPARSERS) -> None:
    evaluate = add_command(
        commands,
        "evaluate",
        "Measure a bundle on data in a supported format, with 95 % intervals and subgroups.",
        "nabz-train evaluate models/symptoms-ddxplus/1.1.1 --data ../shared/data/ddxplus/patients_all49.csv --questions 7 --json",
    )
    evaluate.add_argument("bundle", type=Path, metavar="BUNDLE")
    evaluate.add_argument("--data", type=Path, required=True, help="a patients or visits file, or a folder of photos with its table")
    evaluate.add_argument(
        "--questions",
        type=int,
        default=None,
        metavar="N",
        help="symptoms: only age, sex and the first complaint known, then at most N answers",
    )
    evaluate.add_argument(
        "--list-questions", type=int, default=0, metavar="N", help="of these, at most N about who else is on the list (default 0)"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON (default: a table)")
    evaluate.add_argument("--threads", type=int, default=2)
    evaluate.set_defaults(run=_evaluate)


def _add_fairness(commands: _SUBPARSERS) -> None:
    fairness = add_command(
        commands,
        "fairness",
        "Make the same photos lighter, darker and of other colour, synthetically, and show how far a lesion bundle's answers move.",
        "nabz-train fairness models/lesions/1.1.1 --data ../shared/data/pad_ufes_20 --limit 40 --json",
    )
    fairness.add_argument("bundle", type=Path, metavar="BUNDLE")
    fairness.add_argument("--data", type=Path, required=True, help="a folder of photos with its table")
    fairness.add_argument("--limit", type=int, default=None, metavar="N", help="the first N photos only (default all)")
    fairness.add_argument("--plot", type=Path, default=None, metavar="FILE", help="also draw the sweep into this .png or .svg file")
    fairness.add_argument("--json", action="store_true", help="print JSON (default: a table)")
    fairness.add_argument("--threads", type=int, default=2)
    fairness.set_defaults(run=_fairness)


def _add_photo_gate(commands: _SUBPARSERS) -> None:
    gate = add_command(
        commands,
        "photo-gate",
        "Spoil real photos in stated grades, and show how many bad ones the photo gate catches and how many good ones it refuses.",
        "nabz-train photo-gate --data ../shared/data/pad_ufes_20 --limit 20 --json",
    )
    gate.add_argument("--data", type=Path, required=True, help="a folder of good photos with its table")
    gate.add_argument(
        "--others", type=Path, default=None, metavar="DIR", help="a folder of pictures without skin lesions, which the gate must refuse too"
    )
    gate.add_argument("--bundle", type=Path, default=None, help="a lesion bundle: also show from which grade on its answers change")
    gate.add_argument(
        "--fit",
        type=Path,
        default=None,
        metavar="FILE",
        help="fit the gate on half of the patients, write its numbers to this .toml file, and report nothing",
    )
    gate.add_argument(
        "--limit", type=int, default=None, metavar="N", help="the first N photos, and pictures of each kind, only (default all)"
    )
    gate.add_argument("--json", action="store_true", help="print JSON (default: a table)")
    gate.set_defaults(run=_photo_gate)


def _add_levels(commands: _SUBPARSERS) -> None:
    levels = add_command(
        commands,
        "levels",
        "Choose the thresholds that turn probabilities into levels, count what calibration rests on, both on held-out patients, and record them.",
        "nabz-train levels --data ../shared/data --models models",
    )
    levels.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    levels.add_argument("--models", type=Path, default=Path("models"))
    levels.add_argument(
        "--version", default=None, help="write them into new bundles of this version and make these live (default: into the live ones)"
    )
    levels.add_argument("--threads", type=int, default=2)
    levels.set_defaults(run=_levels)


def _add_priors(commands: _SUBPARSERS) -> None:
    priors = add_command(
        commands,
        "priors",
        "Estimate from recent cases without labels how much more or less often than in the catalogue each condition is seen.",
        "nabz-train priors models/symptoms/1.1.1 --cases runs/cases.jsonl --out runs/priors.json",
    )
    priors.add_argument("bundle", type=Path, metavar="BUNDLE", help="the symptom bundle that they are for")
    priors.add_argument("--cases", type=Path, required=True, metavar="FILE", help="recent cases, as nabz rank reads them")
    priors.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .json file for nabz rank --priors")
    priors.add_argument("--threads", type=int, default=2)
    priors.set_defaults(run=_priors)


def _add_all(commands: _SUBPARSERS) -> None:
    every = add_command(
        commands,
        "all",
        "Train every shipped bundle again, one after the other, and print a summary.",
        "nabz-train all --data ../shared/data --smoke --models runs/smoke",
    )
    every.add_argument("--data", type=Path, required=True, help="the folder of data sets (see data/sources.toml)")
    every.add_argument("--models", type=Path, default=Path("models"), help="where the bundles go (default models)")
    every.add_argument("--version", default=None, help="the bundles' version (default: of each task the live one)")
    _add_common(every)
    every.set_defaults(run=_all)


def _trainer(task: str) -> Any:
    """The module of a task's trainer."""
    if task == "symptoms":
        from training import symptoms as trainer
    elif task == "acuity":
        from training import acuity as trainer  # type: ignore[no-redef]
    else:
        from training import lesions as trainer  # type: ignore[no-redef]
    return trainer


def _train(args: argparse.Namespace) -> int:
    from training.distributed import own_ranks

    folder = _trainer(args.task).train(args)
    if own_ranks().is_first:
        print(folder)
    return DONE


def _evaluate(args: argparse.Namespace) -> int:
    from training.evaluate import evaluate_bundle

    return _printed(evaluate_bundle(args.bundle, args.data, args.questions, args.threads, args.list_questions), as_json=args.json)


def _fairness(args: argparse.Namespace) -> int:
    from training.lesion_fairness import fairness_sweep

    report = fairness_sweep(args.bundle, args.data, args.threads, args.limit)
    if args.plot is not None:
        from training.plots import sweep_plot

        sweep_plot(report["subgroups"], f"{report['bundle']}, synthetic, n = {report['n']}").savefig(args.plot)
    return _printed(report, as_json=args.json)


def _photo_gate(args: argparse.Namespace) -> int:
    from training.photo_gate import fit_photo_gate, photo_gate_report

    if args.fit is not None:
        fit_photo_gate(args.data, args.others, args.fit, args.limit)
        print(args.fit)
        return DONE
    return _printed(photo_gate_report(args.data, args.others, args.bundle, args.limit), as_json=args.json)


def _printed(report: dict[str, Any], *, as_json: bool) -> int:
    if "warning" in report:
        print(f"nabz-train: WARNING: {report['warning']}", file=sys.stderr)
    if as_json:
        print(json.dumps(report, allow_nan=False))
    else:
        _print_report(report)
    for sentence in report.get("certificates_broken", ()):
        print(f"nabz-train: THE CERTIFICATE DOES NOT HOLD on this data: {sentence}", file=sys.stderr)
    return DONE


def _levels(args: argparse.Namespace) -> int:
    from training.levels import choose_levels

    _print_report(choose_levels(args.data, args.models, args.threads, args.version))
    return DONE


def _priors(args: argparse.Namespace) -> int:
    from training.label_shift import estimate_priors, moved

    priors = estimate_priors(args.bundle, args.cases, args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(priors.model_dump_json(indent=1, exclude={"sha256"}) + "\n", encoding="utf-8")
    for line in moved(priors):
        print(line)
    print(f"wrote priors from {priors.n} cases to {args.out}", file=sys.stderr)
    return DONE


def _all(args: argparse.Namespace) -> int:
    from training.everything import train_everything

    for folder, seconds in train_everything(args):
        print(f"{folder}  {seconds:.0f} s")
    return DONE


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report['task']}, n = {report['n']}")
    for column in ("group", "metric", "value", "95 % interval", "n"):
        table.add_column(column, no_wrap=True)
    for group, figures in {"all": report["metrics"], **report["subgroups"]}.items():
        for name, figure in figures.items():
            value = "undefined" if figure["value"] is None else f"{figure['value']:.4f}"
            interval = "" if figure["low"] is None else f"{figure['low']:.4f} to {figure['high']:.4f}"
            table.add_row(group, name, value, interval, str(figure["n"]))
    console.print(table)
