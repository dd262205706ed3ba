"""`nabz monitor`: recent cases against the reference, in words, as JSON, as a page and as metrics. Decides nothing itself."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isnan
from pathlib import Path

from rich.console import Console
from rich.table import Table

from inference.casefile import read_cases
from inference.command_line import add_command
from inference.errors import CaseError, DataError
from inference.models import default_models_folder, load_models
from inference.monitor import ALARM_LEVEL, DEFAULT_DAYS, LEAST_EFFECT, WATCH_LEVEL, monitor, windows_of
from inference.monitor_metrics import metrics_text
from inference.monitor_outcomes import read_outcomes
from inference.monitor_reference import Reference, read_reference, reference_document, reference_of_sample
from inference.monitor_report import Change, Report
from inference.monitor_sample import Sample
from inference.monitor_scoring import live_reference, names_of, sample_of_cases, scripts_of
from inference.monitor_words import GROUPS, sentence
from inference.policy import load_policy
from inference.triage import Triage

QUIET, DRIFT = 0, 1
_TABLE_WIDTH = 150
_SHOWN_WATCHES = 10
_LEAST_SHOWN_P = 1e-4


def add_monitor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `monitor` to the command's parser."""
    text = "Compare recent cases with the reference and say what has drifted, by how much, and what to do."
    command = add_command(
        commands,
        "monitor",
        text,
        "nabz monitor data/sample/referrals.jsonl --write-reference reference.json\n"
        "later: nabz monitor recent.jsonl --reference reference.json --html drift.html\n"
        "exit status: 0 quiet, 1 drift was found, 2 could not run",
    )
    command.add_argument("cases", type=Path, nargs="?", metavar="CASES", help="a file of cases, as `nabz rank` reads them")
    command.add_argument("--service", action="store_true", help="read the service's stored referrals instead, by the NABZ_… settings")
    command.add_argument(
        "--reference", type=Path, metavar="FILE", help="a reference of your own first weeks (default: what the live bundles carry)"
    )
    command.add_argument("--write-reference", type=Path, metavar="FILE", help="write a reference of these cases, and compare nothing")
    command.add_argument(
        "--outcomes", type=Path, metavar="FILE", help="which cases were emergencies: case_id with emergency or final_level"
    )
    command.add_argument("--photos", type=Path, metavar="DIR", help="the folder that photo paths start from (default: the cases' own)")
    command.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles (default: NABZ_MODELS, or models/)")
    command.add_argument("--days", type=_count, default=DEFAULT_DAYS, metavar="N", help=f"days of a window (default: {DEFAULT_DAYS})")
    command.add_argument("--weeks", type=_count, default=12, metavar="N", help="windows back from the newest case, the last one is judged (default: 12)")  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the report as JSON")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, which needs nothing else")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw the plots alone: .svg or .png")
    command.add_argument("--metrics", type=Path, metavar="FILE", help="write the figures for Prometheus' textfile collector")
    command.set_defaults(run=_monitor)


def _monitor(args: argparse.Namespace) -> int:
    words = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if (args.cases is None) == (not args.service):
        raise CaseError("name a file of cases, or --service for the service's stored referrals: one of the two")
    models = load_models(args.models)
    for problem in models.problems:
        words.print(f"nabz: {problem}")
    triage = Triage(models, load_policy())
    sample, outcomes, notes = _read(args, triage)
    if args.outcomes:
        outcomes = {**outcomes, **read_outcomes(args.outcomes)}
    if args.write_reference:
        return _write_reference(args.write_reference, args, sample, outcomes, triage, words)
    reference = read_reference(args.reference) if args.reference else live_reference(args.models or default_models_folder())
    windows = windows_of(sample, args.days, most=args.weeks)
    report = monitor(reference, windows, names=names_of(models), outcomes=outcomes, notes=[*notes, *_other_bundles(reference, triage)])
    _write(report, args, words)
    if args.json:
        sys.stdout.write(report.model_dump_json(indent=1) + "\n")
    else:
        print_report(report, Console(width=_TABLE_WIDTH))
    return DRIFT if report.last.alarms else QUIET


def _read(args: argparse.Namespace, triage: Triage) -> tuple[Sample, dict[str, bool], tuple[str, ...]]:
    if args.service:
        from inference.service.monitor_referrals import read_service

        stored = read_service(scripts_of(triage.models), datetime.now(UTC), args.days * args.weeks)
        lost = (f"{stored.unreadable} stored referrals could not be read",) if stored.unreadable else ()
        return stored.sample, stored.outcomes, lost
    readings = read_cases(args.cases)
    sample = sample_of_cases(readings, triage, args.photos if args.photos is not None else args.cases.parent, now=datetime.now(UTC))
    undated = sum(reading.case.received_at is None for reading in readings)
    return sample, {}, (f"{undated} cases carry no time: they count as received now",) if undated else ()


def _write_reference(
    path: Path, args: argparse.Namespace, sample: Sample, outcomes: Mapping[str, bool], triage: Triage, words: Console
) -> int:
    source = "the service's own referrals" if args.service else f"own cases ({args.cases.name})"
    bundles = {task: name.version for task, name in triage.models.bundles.items()}
    reference = reference_of_sample(sample, source, is_synthetic=False, outcomes=outcomes, bundles=bundles)
    try:
        path.write_text(json.dumps(reference_document(reference), separators=(",", ":")) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"the reference {path} cannot be written: {error.strerror}") from error
    words.print(f"nabz: wrote {path}: {reference.n} cases, {len(reference.features)} features")
    if not reference.weeks:
        words.print("nabz: with fewer than 4 weeks of 50 cases, week-to-week variation is unknown: expect more false alarms")
    return QUIET


def _other_bundles(reference: Reference, triage: Triage) -> list[str]:
    """A score of another bundle need not be alike: said, where the reference's is not the live one."""
    live = {task: name.version for task, name in triage.models.bundles.items()}
    return [
        f"the reference was scored by {task} {version}, live is {live[task]}: make it again after a promotion"
        for task, version in sorted(reference.bundles.items())
        if task in live and live[task] != version
    ]


def _write(report: Report, args: argparse.Namespace, words: Console) -> None:
    if args.plot:
        from inference.service.monitor_plot import save_plot

        save_plot(report, args.plot)
    try:
        if args.html:
            from inference.service.monitor_page import page_of

            args.html.write_text(page_of(report), encoding="utf-8")
        if args.metrics:  # the collector must never read half a file
            fresh = args.metrics.with_name(args.metrics.name + ".new")
            fresh.write_text(metrics_text(report, datetime.now(UTC)), encoding="utf-8")
            fresh.replace(args.metrics)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be written: {error.strerror}") from error
    for path in (args.plot, args.html, args.metrics):
        if path:
            words.print(f"nabz: wrote {path}")


def print_report(report: Report, console: Console) -> None:
    """The last window in words: alarms by whom they are for, then what to keep an eye on."""
    last = report.last
    span = f"{last.start:%Y-%m-%d} to {last.end:%Y-%m-%d}" if last.start and last.end else "the last window"
    verdict = f"{len(last.alarms)} alarms" if last.alarms else "quiet"
    console.print(f"{span}: {last.n} cases against {report.reference_n} ({report.reference_source}): {verdict}", style="bold", markup=False, highlight=False)  # fmt: skip
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    for group in GROUPS:
        alarms = [one for one in last.alarms if one.group == group]
        if alarms:
            console.print(f"\n{group}", style="bold", markup=False)
        for one in alarms:
            console.print(f"- {one.title}: {sentence(one.meaning)} {figures(one)}", markup=False, highlight=False)
            console.print(f"  do: {one.advice}", markup=False, highlight=False)
    watches = [one for one in last.changes if one.state == "watch"]
    if watches:
        console.print("\nto keep an eye on (an alarm if it comes again within two windows)", style="bold", markup=False)
        for one in watches[:_SHOWN_WATCHES]:
            console.print(f"- {one.title}: {one.meaning}", markup=False, highlight=False)
    if last.calibration is not None:
        console.print(_calibration_table(report))
    if report.not_compared:
        console.print(f"\nnot compared, because the reference knows nothing of it: {', '.join(report.not_compared)}", markup=False)
    console.print(
        f"an alarm is a change of at least {LEAST_EFFECT:g} (stability index beyond chance) with a chance of at most "
        f"{ALARM_LEVEL:.0%} among all features, or of {WATCH_LEVEL:.0%} in two of three windows",
        style="italic", markup=False, highlight=False,
    )  # fmt: skip


def figures(change: Change) -> str:
    """The figures behind an alarm."""
    index = "" if isnan(change.psi) else f"PSI {change.psi:.2f}, by chance {change.psi_by_chance:.3f}; "
    again = f"; {change.since} windows in a row" if change.since > 1 else ""
    return f"({index}p {_chance(change.p_adjusted)}, n {change.n_recent} against {change.n_reference}{again})"


def _chance(p: float) -> str:
    return "below 0.0001" if p < _LEAST_SHOWN_P else f"{p:.2g}"


def _calibration_table(report: Report) -> Table:
    table = Table(title="\nemergency probabilities against outcomes", title_justify="left")
    for column in ("window", "n", "emergencies", "predicted", "observed / expected", "in the large", "slope", "ECE"):
        table.add_column(column, no_wrap=True)
    for window in report.windows:
        one = window.calibration
        if one is None:
            continue
        table.add_row(
            f"{window.start:%Y-%m-%d}" if window.start else "", str(one.n), str(one.events), f"{one.expected:.1f}",
            f"{one.observed_to_expected:.2f} ({one.ratio_interval[0]:.2f} to {one.ratio_interval[1]:.2f})",
            _with_error(one.intercept, one.intercept_error), _with_error(one.slope, one.slope_error),
            f"{one.ece:.3f} ({one.ece_interval[0]:.3f} to {one.ece_interval[1]:.3f})",
        )  # fmt: skip
    return table


def _with_error(value: float, error: float) -> str:
    return "undefined" if isnan(value) else f"{value:.2f} ({value - 1.96 * error:.2f} to {value + 1.96 * error:.2f})"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)
