"""`nabz replay ASSESSMENT`: whether a stored assessment can be reproduced bit for bit, and what differs if not. Decides nothing."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from inference.casefile import read_cases
from inference.command_line import add_command
from inference.errors import CaseError
from inference.models import default_models_folder
from inference.policy import load_policy
from inference.priors import load_priors
from inference.replay import Replay, Replayer, summary_of
from inference.stored_assessments import cases_of, read_assessments

IDENTICAL, DIFFERS, IMPOSSIBLE = 0, 1, 2
_REFERRAL_ID = re.compile(r"r-[0-9a-f]{8,}")
_SHOWN_DIFFERENCES = 20
_SHOWN_HASH = 12


def add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the command's parser."""
    replay = add_command(
        commands,
        "replay",
        "Compute stored assessments again, with the bundles that they name; compare every byte, and say what differs and why.",
        "nabz replay ranked.jsonl --case data/sample/referrals.jsonl\n"
        "of the service's database: nabz replay r-0199f1c2a3b4d5e6f708192a3b4c5d6e --version 1\n"
        "exit status: 0 all are identical, 1 some differ, 2 some could not be replayed",
    )
    replay.add_argument(
        "assessment", metavar="ASSESSMENT", help="a file of assessments as nabz rank --format json writes it, or a referral's id"
    )
    replay.add_argument("--case", type=Path, metavar="FILE", help="the file of cases that the assessments were made from")
    replay.add_argument("--version", type=int, metavar="N", help="of a referral: this assessment alone (default: every one)")
    replay.add_argument("--photos", type=Path, metavar="DIR", help="the folder that photo paths start from (default: the cases' own)")
    replay.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles, old ones too (default: NABZ_MODELS, or models/)")
    replay.add_argument(
        "--policy", type=Path, metavar="FILE", help="the policy of then (default: the shipped one; the service's of a referral)"
    )
    replay.add_argument("--priors", type=Path, metavar="FILE", help="the local priors of then, where the assessment names any")
    replay.add_argument("--json", action="store_true", help="print one JSON object for each assessment")
    replay.set_defaults(run=_replay)


def _replay(args: argparse.Namespace) -> int:
    path = Path(args.assessment)
    is_referral = args.case is None and not path.is_file() and _REFERRAL_ID.fullmatch(args.assessment)
    replays = _of_referral(args) if is_referral else _of_file(args, path)
    out = Console(soft_wrap=True)
    for one in replays:
        if args.json:
            _say(json.dumps(one.as_json(), ensure_ascii=False), out)
        elif one.status != "identical" or len(replays) == 1:
            _print(one, out)
    counts = summary_of(replays)
    words = f"nabz: {counts['identical']} identical, {counts['differs']} differ, {counts['impossible']} could not be replayed"
    _say(words, Console(stderr=True, soft_wrap=True))
    return IMPOSSIBLE if counts["impossible"] else DIFFERS if counts["differs"] else IDENTICAL


def _of_file(args: argparse.Namespace, path: Path) -> list[Replay]:
    stored = read_assessments(path)
    if args.case is None:
        raise CaseError(f"{path} holds assessments without their cases: name the file of cases that it was made from with --case")
    replayer = Replayer(args.models or default_models_folder(), load_policy(args.policy), load_priors(args.priors) if args.priors else None)
    photos = args.photos if args.photos is not None else args.case.parent
    cases = cases_of(stored, read_cases(args.case), args.case)
    return [replayer.replay(one, reading, photos) for one, reading in zip(stored, cases, strict=True)]


def _of_referral(args: argparse.Namespace) -> list[Replay]:
    from inference.service.replaying import replay_referral
    from inference.service.settings import load_settings

    settings = load_settings()
    priors = args.priors or settings.priors
    replayer = Replayer(
        args.models or settings.models or default_models_folder(),
        load_policy(args.policy or settings.policy),
        load_priors(priors) if priors else None,
    )
    return replay_referral(settings, replayer, args.assessment, args.version, datetime.now(UTC))


def _print(one: Replay, out: Console) -> None:
    bundles = ", ".join(f"{task} {name.version} ({name.sha256[:_SHOWN_HASH]}…)" for task, name in one.bundles.items()) or "no bundle"
    words = {"identical": "identical", "differs": "DIFFERS", "impossible": "COULD NOT BE REPLAYED"}[one.status]
    _say(f"{one.name}: {words}; {bundles}", out)
    unknown = ["not known: what was stored was changed since, or this code computes something else from the same input"]
    for why in one.why or (unknown if one.status == "differs" else ()):
        _say(f"  why: {why}", out)
    for difference in one.differences[:_SHOWN_DIFFERENCES]:
        _say(f"  {difference}", out)
    if (more := len(one.differences) - _SHOWN_DIFFERENCES) > 0:
        _say(f"  and {more} more fields (--json names all)", out)
    for note in one.notes:
        _say(f"  note: {note}", out)


def _say(line: str, out: Console) -> None:
    out.print(line, markup=False, highlight=False)
