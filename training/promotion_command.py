"""`nabz-train promote`, `rollback` and `live`: parses, has it judged and switched, prints what was done. Decides nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.command_line import add_command
from inference.models import TASKS, default_models_folder, live_versions

if TYPE_CHECKING:
    from training.promotion import Judged
    from training.promotion_history import Switch

_DONE, _HELD_BACK = 0, 1
_SHOWN_HASH = 12


def add_promotion(commands: Any) -> None:
    """Add `promote`, `rollback` and `live` to the command's parser."""
    promote = add_command(
        commands,
        "promote",
        "Compare a challenger with the live bundle on held-out cases and, when every gate is passed, make it live.",
        "nabz-train promote runs/symptoms/1.2.0 --data data/catalogue --reason 'cases of the third quarter'\n"
        "exit status: 0 live, 1 HOLD, 2 could not run\n"
        "nothing overrides a gate: a clinical lead changes its limit in models/gates.toml (see docs/models.md)",
    )
    promote.add_argument("bundle", type=Path, metavar="BUNDLE", help="the challenger")
    promote.add_argument("--data", type=Path, required=True, help="held-out cases, as nabz-train compare takes them")
    promote.add_argument("--reason", metavar="TEXT", help="why, for the history: no person's name")
    promote.add_argument("--html", type=Path, metavar="FILE", help="write the comparison's report")
    promote.add_argument("--json", action="store_true", help="print what was found and done as JSON")
    promote.add_argument("--threads", type=int, default=2)
    _add_models(promote)
    promote.set_defaults(run=_promote)
    rollback = add_command(
        commands,
        "rollback",
        "Make live again what was live before; once more goes one further back. A running service takes it over by itself.",
        "nabz-train rollback symptoms --reason 'too many alarms'",
    )
    rollback.add_argument("task", nargs="?", choices=TASKS, metavar="TASK", help="default: the task that was switched last")
    rollback.add_argument("--to", metavar="VERSION", help="a version that was live earlier (default: the one before)")
    rollback.add_argument("--reason", metavar="TEXT", help="why, for the history: no person's name")
    rollback.add_argument("--json", action="store_true", help="print what was done as JSON")
    _add_models(rollback)
    rollback.set_defaults(run=_rollback)
    live = add_command(commands, "live", "Show which bundle of each task is live, and what was live when.", "nabz-train live")
    live.add_argument("--json", action="store_true", help="print JSON")
    _add_models(live)
    live.set_defaults(run=_live)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", type=Path, metavar="DIR", help="the folder that a service reads (default: NABZ_MODELS, or models/)")


def _promote(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from training.promotion import judge, promote, tell_registry

    models = args.models or default_models_folder()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("comparing", total=1.0)
        judged = judge(
            args.bundle,
            args.data,
            models,
            threads=args.threads,
            told=lambda what, share: progress.update(bar, completed=share, description=what),
        )
    _write_report(judged, args.html)
    if judged.because:
        if args.json:
            print(
                json.dumps(
                    {"promoted": False, "because": list(judged.because), "comparison": judged.comparison.as_json()}, ensure_ascii=False
                )
            )
        else:
            print("HOLD because " + "\n  and ".join(judged.because))
        return _HELD_BACK
    switch = promote(args.bundle, judged, models, args.reason)
    registry = tell_registry(switch, models)
    if args.json:
        done = {
            "promoted": True,
            "because": [],
            "switch": switch.as_json(),
            "registry": registry,
            "comparison": judged.comparison.as_json(),
        }
        print(json.dumps(done, ensure_ascii=False))
    else:
        print(_sentence(switch))
        print(f"{len(judged.gates)} gates passed on {judged.comparison.data}, n = {judged.comparison.n}", file=sys.stderr)
        print(registry, file=sys.stderr)
    return _DONE


def _write_report(judged: Judged, file: Path | None) -> None:
    if file is None:
        return
    from training.comparison_report import render_html

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render_html(judged.comparison), encoding="utf-8")
    note = " (no bundle of the task is live: it is compared with itself)" if judged.is_first else ""
    print(f"wrote {file}{note}", file=sys.stderr)


def _rollback(args: argparse.Namespace) -> int:
    from training.promotion import roll_back, tell_registry

    models = args.models or default_models_folder()
    switch = roll_back(models, args.task, args.to, args.reason)
    registry = tell_registry(switch, models)
    if args.json:
        print(json.dumps({"switch": switch.as_json(), "registry": registry}, ensure_ascii=False))
    else:
        print(_sentence(switch))
        print(registry, file=sys.stderr)
    return _DONE


def _live(args: argparse.Namespace) -> int:
    from training.promotion_history import read_history, versions_back

    models = args.models or default_models_folder()
    history, live = read_history(models), live_versions(models)
    back = {task: versions_back(history, task, version) for task, version in live.items()}
    if args.json:
        print(json.dumps({"live": live, "back_to": back, "history": [one.as_json() for one in history]}, ensure_ascii=False))
        return _DONE
    for task, version in live.items():
        print(f"{task} {version} is live; rollback goes to {back[task][0] if back[task] else 'nothing: no other was live before'}")
    _print_history(history)
    return _DONE


def _print_history(history: list[Switch]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not history:
        return
    table = Table("time (UTC)", "what", "task", "from", "to", "SHA-256", "why", title="What was live when")
    for one in history:
        table.add_row(one.time, one.action, one.task, one.before or "", one.after, one.after_sha256[:_SHOWN_HASH], one.reason or "")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _sentence(switch: Switch) -> str:
    before = f"; {switch.before} was until now" if switch.before else ""
    return f"{switch.task} {switch.after} ({switch.after_sha256[:_SHOWN_HASH]}…) is live{before}"
