"""`nabz-train compare`: parses, compares, prints the verdict and writes the report. Decides nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.command_line import add_command
from inference.errors import BundleError
from inference.models import TASKS, default_models_folder, live_versions

if TYPE_CHECKING:
    from training.comparison import Comparison

_DONE, _HELD_BACK = 0, 1
_SHOWN_MOVES = 10


def add_compare(commands: Any) -> None:
    """Add `compare` to the command's parser. It ends with 0 for PROMOTE and 1 for HOLD."""
    text = "Compare a challenger with the champion on the same held-out cases, and say PROMOTE or HOLD and why."
    compare = add_command(
        commands,
        "compare",
        text,
        "nabz-train compare models/symptoms/1.1.1 --data data/catalogue --html runs/compare.html\n"
        "exit status: 0 PROMOTE, 1 HOLD, 2 could not run",
    )
    compare.add_argument("challenger", type=Path, metavar="CHALLENGER", help="the bundle that may go live")
    compare.add_argument("--champion", type=Path, metavar="BUNDLE", help="the bundle to compare with (default: the live one of its task)")
    compare.add_argument(
        "--data",
        type=Path,
        required=True,
        help="held-out cases. symptoms: the catalogue's folder, or patients with its codes in DDXPlus format (.csv); acuity: KTAS (.csv) or "
        "NHAMCS visits (.csv.gz); lesions: a folder with photos and their table; any but lesions: labelled cases (.jsonl)",
    )
    compare.add_argument(
        "--gates",
        type=Path,
        metavar="FILE",
        help="limits of your own (default: gates.toml in the folder of live bundles, or training/gates.toml)",
    )
    compare.add_argument("--models", type=Path, metavar="DIR", help="the folder of live bundles (default: NABZ_MODELS, or models/)")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page that needs nothing else")
    compare.add_argument("--json", action="store_true", help="print everything as JSON (default: a summary)")
    compare.add_argument("--threads", type=int, default=2)
    compare.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from training.comparison import compare_bundles
    from training.gates import gates_file

    champion = args.champion or _live(args.challenger, args.models)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("comparing", total=1.0)
        found = compare_bundles(
            args.challenger,
            champion,
            args.data,
            threads=args.threads,
            gates=args.gates or gates_file(args.models or default_models_folder()),
            models=args.models,
            told=lambda what, share: progress.update(bar, completed=share, description=what),
        )
    if args.html:
        from training.comparison_report import render_html

        args.html.parent.mkdir(parents=True, exist_ok=True)
        args.html.write_text(render_html(found), encoding="utf-8")
        print(f"wrote {args.html}", file=sys.stderr)
    if args.json:
        print(json.dumps(found.as_json(), ensure_ascii=False, allow_nan=False))
    else:
        _print_summary(found)
    return _DONE if found.verdict == "PROMOTE" else _HELD_BACK


def _live(challenger: Path, models: Path | None) -> Path:
    """The live bundle of the challenger's task. Raises BundleError when there is none."""
    from inference.bundle import load_bundle

    folder, task = models or default_models_folder(), load_bundle(challenger).contract.task
    try:
        versions = live_versions(folder)
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder} names no live bundles ({type(error).__name__}): name the champion with --champion") from error
    if task not in versions:
        raise BundleError(
            f"no bundle of {task} is live in {folder} (tasks that go live: {', '.join(TASKS)}): name the champion with --champion"
        )
    return folder / task / versions[task]


def _print_summary(found: Comparison) -> None:
    """Verdict, gates, figures and the first moves, as a clinician reads them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{found.verdict}: {found.challenger} against {found.champion}, {found.data}, n = {found.n}", style="bold", markup=False)
    for remark in found.remarks:
        console.print(f"note: {remark}", markup=False, highlight=False)
    gates = Table("gate", "", "why", title="Gates")
    for gate in found.gates:
        gates.add_row(gate.name, "passed" if gate.passed else "FAILED", gate.why)
    console.print(gates)
    figures = Table("figure", "champion", "challenger", "change (95 % interval)", "n", title="Figures")
    for name, one in found.differences.items():
        change = f"{one.change.value:+.4f} ({one.change.low:+.4f} to {one.change.high:+.4f})"
        figures.add_row(name, f"{one.champion.value:.4f}", f"{one.challenger.value:.4f}", change, str(one.change.n))
    console.print(figures)
    lowered = sum(move.is_lowered for move in found.moves)
    console.print(f"{len(found.moves)} patients' levels move: {lowered} become less urgent, {len(found.moves) - lowered} more urgent.")
    for move in found.moves[:_SHOWN_MOVES]:
        why = "; ".join([*(f"no longer: {text}" for text in move.lost), *(f"now: {text}" for text in move.gained)])
        console.print(
            f"  {move.case_id}: {move.champion_level} to {move.challenger_level} (true level {move.true_level or 'unknown'}). {why}",
            markup=False,
            highlight=False,
        )
