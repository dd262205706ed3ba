"""The `nabz` command: parses, calls, prints, exits. Data go to stdout, words to stderr.

The only module of the core that prints or exits. Exit status: 0 done, 1 done with cases marked for review, 2 could
not run.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress

from inference.ask_command import add_ask
from inference.assessment import Assessment
from inference.batch import Job, job_of
from inference.batch_input import look_over
from inference.batch_merge import CSV_COLUMNS, write_csv, write_parquet
from inference.batch_run import Engine, own_cores, provenance_json, rank_batch
from inference.bundle import load_bundle
from inference.case import Case, CaseReading
from inference.casefile import read_cases
from inference.command_line import add_command
from inference.errors import CaseError, NabzError
from inference.explain import print_assessment
from inference.models import Models, default_models_folder, load_models
from inference.monitor_command import add_monitor
from inference.parquet import is_parquet
from inference.policy import load_policy
from inference.priors import load_priors
from inference.service.commands import add_service_commands
from inference.service.replay_command import add_replay
from inference.service.simulation_command import add_simulate
from inference.triage import Triage
from inference.worklist import print_worklist, worklist_svg

DONE, REVIEW, FAILED = 0, 1, 2
_PROGRESS_FROM_CASES = 2 * 1024
_TABLE_WIDTH = 180
_MOST_JOBS = 256
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".svg": "svg", ".parquet": "parquet"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except NabzError as error:
        print(f"nabz: {error}", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        print(f"nabz: {error.name} is not installed: this command needs the service extra, pip install 'nabz[service]'", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def entry() -> None:
    """The console script."""
    sys.exit(main())


def parser() -> argparse.ArgumentParser:
    """The command's parser, with an example for every command."""
    top = argparse.ArgumentParser(
        prog="nabz",
        description="Rank telemedicine referrals by urgency, offline. Decision support, not a medical device.",
        epilog="exit status: 0 done, 1 done with cases marked for review, 2 could not run",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_rank(commands)
    _add_assess(commands)
    _add_verify(commands)
    add_ask(commands)
    add_monitor(commands)
    add_replay(commands)
    add_service_commands(commands)
    add_simulate(commands)
    return top


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--photos", type=Path, metavar="DIR", help="the folder that photo paths start from (default: the cases' own)")
    command.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles (default: NABZ_MODELS, or models/)")
    command.add_argument("--policy", type=Path, metavar="FILE", help="a policy of your own (default: the shipped policy.toml)")
    command.add_argument(
        "--priors", type=Path, metavar="FILE", help="local priors that nabz-train priors estimated (default: the catalogue's)"
    )
    command.add_argument("--now", type=_moment, metavar="TIME", help="count waits up to this ISO 8601 time (default: the clock)")


def _add_rank(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rank = add_command(
        commands, "rank", "Rank a file of cases (JSON, JSON Lines, CSV or Parquet, also a folder) into a worklist.",
        "nabz rank data/sample/referrals.jsonl --format json --out ranked.jsonl",
    )  # fmt: skip
    rank.add_argument("cases", type=Path, metavar="CASES")
    rank.add_argument(
        "--format",
        choices=("table", "json", "csv", "svg", "parquet"),
        help="table for a reader (default), one JSON object a case, CSV, a picture of the table, or Parquet",
    )
    rank.add_argument(
        "--out", type=Path, metavar="FILE", help="write there instead of to stdout; .jsonl, .json, .csv, .svg or .parquet choose the format"
    )
    rank.add_argument(
        "--jobs", type=_count, default=own_cores(), metavar="N", help="processes, for Parquet to Parquet or CSV (default: the processors)"
    )
    rank.add_argument(
        "--engine",
        choices=("local", "dask"),
        default="local",
        help="who ranks Parquet to Parquet or CSV: this machine (default) or a cluster",
    )
    rank.add_argument("--scheduler", metavar="ADDRESS", help="of the Dask cluster, such as tcp://10.0.0.5:8786")
    _add_common(rank)
    rank.set_defaults(run=_rank)


def _add_assess(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    assess = add_command(
        commands, "assess", "Assess one case and say why.", "nabz assess data/sample/case.json",
    )  # fmt: skip
    assess.add_argument("case", type=Path, metavar="CASE", help="a JSON file with one case")
    assess.add_argument("--json", action="store_true", help="print the assessment as JSON")
    _add_common(assess)
    assess.set_defaults(run=_assess)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = add_command(
        commands, "verify", "Check a bundle's signature, hashes, operators and names without running it on a case.",
        "nabz verify models/symptoms/1.1.1",
    )  # fmt: skip
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")
    verify.add_argument("--trusted-keys", type=Path, metavar="DIR", help="public keys to trust (default: trusted_keys/ beside the tasks)")
    verify.set_defaults(run=_verify)


def _rank(args: argparse.Namespace) -> int:
    chosen = _chosen_format(args)
    if is_parquet(args.cases) and chosen in ("parquet", "csv"):
        return _rank_columns(args, chosen)
    if args.engine == "dask":
        raise CaseError("--engine dask ranks Parquet files and folders to Parquet or CSV: name such CASES, and --out with .parquet or .csv")
    gc.disable()  # a batch makes millions of objects without cycles; walking them again and again costs a third of the time
    readings = read_cases(args.cases)
    triage = _triage(args)
    now = args.now or datetime.now(UTC)
    with Progress(console=Console(stderr=True), disable=len(readings) < _PROGRESS_FROM_CASES or not sys.stderr.isatty()) as progress:
        bar = progress.add_task("ranking", total=len(readings))
        assessments = triage.rank(readings, now, _photos(args, args.cases), lambda done: progress.advance(bar, done))
    _write(assessments, readings, args, now)
    marked = [assessment for assessment in assessments if assessment.review.needed]
    if marked:
        print(f"nabz: {len(marked)} of {len(assessments)} cases are marked for review", file=sys.stderr)
        _say_problems(readings)
    return REVIEW if marked or triage.models.problems else DONE


def _rank_columns(args: argparse.Namespace, chosen: str) -> int:
    """Parquet to Parquet or CSV: as columns, in parts, in memory that hardly grows with the input."""
    if args.engine == "dask" and not args.scheduler:
        raise CaseError("--engine dask needs a cluster: name its --scheduler ADDRESS, such as tcp://10.0.0.5:8786")
    if chosen == "parquet" and not args.out:
        raise CaseError("Parquet is not written to stdout: name a file with --out")
    told = look_over(args.cases)
    triage, now = _triage(args), args.now or datetime.now(UTC)
    job = job_of(triage, args.models or default_models_folder(), args.priors, args.policy, now)
    engine = Engine(args.jobs, args.scheduler if args.engine == "dask" else None)
    with Progress(console=Console(stderr=True), disable=told.n < _PROGRESS_FROM_CASES or not sys.stderr.isatty()) as progress:
        bar = progress.add_task("ranking", total=told.n)
        folder = args.out.resolve().parent if args.out else None
        marked = rank_batch(told, job, engine, _writer_of(args, chosen, triage, job), folder, lambda done: progress.advance(bar, done))
    if marked:
        print(f"nabz: {marked} of {told.n} cases are marked for review; the column review_why says why", file=sys.stderr)
    return REVIEW if marked or triage.models.problems else DONE


def _writer_of(args: argparse.Namespace, chosen: str, triage: Triage, job: Job) -> Callable[[Iterator[Any]], int]:
    def write(blocks: Iterator[Any]) -> int:
        if chosen == "parquet":
            return write_parquet(blocks, args.out, provenance_json(triage, job))
        labels = triage.models.symptoms.labels if triage.models.symptoms else ()
        with args.out.open("w", encoding="utf-8", newline="") if args.out else nullcontext(sys.stdout) as out:
            return write_csv(blocks, out, {label.name: label.icd10 for label in labels})

    return write


def _assess(args: argparse.Namespace) -> int:
    readings = read_cases(args.case)
    if len(readings) != 1:
        raise CaseError(f"{args.case} holds {len(readings)} cases: rank them with `nabz rank`, or name a file with one")
    now = args.now or datetime.now(UTC)
    assessment = _triage(args).assess(readings[0], now, _photos(args, args.case))
    if args.json:
        print(assessment.model_dump_json(indent=1))
    else:
        print_assessment(assessment, readings[0].case, Console())
    return REVIEW if assessment.review.needed else DONE


def _verify(args: argparse.Namespace) -> int:
    bundle = load_bundle(args.bundle, trusted_keys=args.trusted_keys)
    print(f"{bundle.contract.task} {bundle.contract.version}: signature, hashes, operators and names are right")
    print(f"bundle sha256 {bundle.sha256}")
    return DONE


def _triage(args: argparse.Namespace) -> Triage:
    models = load_models(args.models, priors=load_priors(args.priors) if args.priors else None)
    _say_models(models)
    return Triage(models, load_policy(args.policy))


def _say_models(models: Models) -> None:
    for problem in models.problems:
        print(f"nabz: {problem}", file=sys.stderr)
    if not models.bundles:
        print("nabz: no model can be used: ranking goes on by rules alone", file=sys.stderr)


def _say_problems(readings: Sequence[CaseReading], most: int = 20) -> None:
    lines = [f"nabz: {reading.case.case_id}: {problem}" for reading in readings for problem in reading.problems]
    for line in lines[:most]:
        print(line, file=sys.stderr)
    if len(lines) > most:
        print(f"nabz: {len(lines) - most} more problems stand in the output's review reasons", file=sys.stderr)


def _photos(args: argparse.Namespace, cases: Path) -> Path:
    return args.photos if args.photos is not None else cases.parent


def _write(assessments: list[Assessment], readings: list[CaseReading], args: argparse.Namespace, now: datetime) -> None:
    chosen = _chosen_format(args)
    if chosen == "parquet":
        raise CaseError(f"Parquet is written of cases that are read from Parquet, not from {args.cases.suffix} files: choose json or csv")
    try:
        with args.out.open("w", encoding="utf-8", newline="") if args.out else nullcontext(sys.stdout) as out:
            if chosen == "svg":
                out.write(worklist_svg(assessments, _by_id(readings), now, _TABLE_WIDTH))
            elif chosen == "json":
                out.writelines(assessment.model_dump_json() + "\n" for assessment in assessments)
            elif chosen == "csv":
                _write_csv(assessments, out)
            else:
                console = Console(file=out, width=None if sys.stdout.isatty() and not args.out else _TABLE_WIDTH)
                print_worklist(assessments, _by_id(readings), now, console)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CaseError(f"{args.out} cannot be written: {error.strerror}") from error


def _chosen_format(args: argparse.Namespace) -> str:
    return str(args.format or _FORMATS.get(args.out.suffix.casefold() if args.out else "", "table"))


def _by_id(readings: list[CaseReading]) -> dict[str, Case]:
    return {reading.case.case_id: reading.case for reading in readings}


def _write_csv(assessments: list[Assessment], out: IO[str]) -> None:
    rows = csv.writer(out)
    rows.writerow(CSV_COLUMNS)
    for one in assessments:
        first = one.differential[0] if one.differential else None
        lesion = one.lesion
        rows.writerow(
            (
                one.rank, one.case_id, one.level, one.level_name, one.wait_cap_minutes, one.emergency_probability,
                one.critical_probability, one.floor_level, one.specialty, one.scored_by, "; ".join(one.red_flags),
                first.condition if first else None, first.icd10 if first else None, first.probability if first else None,
                lesion.malignancy_probability if lesion else None, one.review.needed, "; ".join(one.review.why),
            )
        )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes from 1 to {_MOST_JOBS}")
    return int(text)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 8601 time such as 2026-11-22T08:30:00+05:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
