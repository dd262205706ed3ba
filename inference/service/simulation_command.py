"""`nabz simulate`: parses, runs a study, prints. Data go to stdout, words to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from inference.command_line import add_command
from inference.errors import NabzError, PolicyError
from inference.policy import load_policy
from inference.service.simulation_presets import PRESETS, Study, preset
from inference.service.simulation_scenario import Scenario, load_scenario

DONE = 0
_TABLE_WIDTH = 130
_DEFAULT_PRESET = "clinic"
_DEFAULT_SEED = 1


def add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command `simulate`; `run` of the parsed arguments returns the exit status, and raises NabzError."""
    text = "Compare queue policies by simulation: FIFO, strict priority, weighted score, accumulating priority, Nabz."
    simulate = add_command(commands, "simulate", text, "nabz simulate --preset qucad --json")
    what = simulate.add_mutually_exclusive_group()
    what.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=_DEFAULT_PRESET,
        help="clinic: a telemedicine hub, all figures estimates (default); qucad: the published FDA-DIDSR QuCAD example",
    )
    what.add_argument(
        "--file", type=Path, metavar="SCENARIO", help="a scenario of your own, TOML or JSON; `scenario` in a preset's --json is a pattern"
    )
    simulate.add_argument("--policy", type=Path, metavar="FILE", help="a queue policy of your own (default: the shipped policy.toml)")
    simulate.add_argument("--readers", type=int, metavar="N", help="that many readers instead of the scenario's; arrivals stay the same")
    simulate.add_argument("--replications", type=int, metavar="N", help="that many instead of the scenario's; more make intervals narrower")
    simulate.add_argument(
        "--seed", type=_seed, default=_DEFAULT_SEED, metavar="N", help=f"of the random numbers (default: {_DEFAULT_SEED})"
    )
    simulate.add_argument("--json", action="store_true", help="print everything as JSON")
    simulate.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture too: .svg or .png")
    simulate.set_defaults(run=simulate_policies)


def simulate_policies(args: argparse.Namespace) -> int:
    """Run the study that the arguments describe."""
    try:  # here and not above: the parser is built in an install without the service extra too
        from inference.service.simulation_plot import check_format, save_plot
        from inference.service.simulation_report import as_json, print_answer
        from inference.service.simulation_study import run_study, steps
    except ModuleNotFoundError as error:
        raise NabzError(f"nabz simulate needs {error.name}: install the extra with pip install 'nabz[service]'") from error
    if args.plot:
        check_format(args.plot)
    study, policy = _study(args), load_policy(args.policy)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("simulating", total=steps(study))
        answer = run_study(study, policy, args.seed, lambda: progress.advance(bar))
    for warning in answer.warnings:
        sys.stderr.write(f"nabz: {warning}\n")
    if args.plot:
        save_plot(answer, args.plot)
    if args.json:
        sys.stdout.write(json.dumps(as_json(answer), indent=1, allow_nan=False) + "\n")
    else:
        print_answer(answer, Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH))
    return DONE


def _study(args: argparse.Namespace) -> Study:
    study = Study(load_scenario(args.file)) if args.file else preset(args.preset)
    changes = {name: getattr(args, name) for name in ("readers", "replications") if getattr(args, name) is not None}
    if not changes:
        return study
    try:
        scenario = Scenario.model_validate({**study.scenario.model_dump(), **changes})
    except ValidationError as error:
        where = "; ".join(f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"the scenario {study.scenario.name} cannot be changed so: {where}") from error
    # with other readers it is another example than the one that was published
    return replace(study, scenario=scenario, published=study.published if scenario.readers == study.scenario.readers else None)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
