"""`nabz ask CASE`: the next best questions for one case, in words or as JSON. Decides nothing."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from inference.casefile import read_cases
from inference.command_line import add_command
from inference.errors import CaseError
from inference.models import load_models
from inference.policy import load_policy
from inference.questions import Question, Questions
from inference.triage import Triage

COUNT = 3


def add_ask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ask` to the command's parser."""
    text = "Say what to ask or measure next for one case, and why."
    ask = add_command(commands, "ask", text, "nabz ask data/sample/case.json --count 5")
    ask.add_argument("case", type=Path, metavar="CASE", help="a JSON file with one case")
    ask.add_argument("--count", type=_count, default=COUNT, metavar="N", help=f"at most so many questions (default: {COUNT})")
    ask.add_argument("--json", action="store_true", help="print the questions as JSON")
    ask.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles (default: NABZ_MODELS, or models/)")
    ask.add_argument("--policy", type=Path, metavar="FILE", help="a policy of your own (default: the shipped policy.toml)")
    ask.set_defaults(run=_ask)


def print_questions(asked: Questions, console: Console) -> None:
    """Print the questions in English and Urdu with their reasons, or why there is none."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False)

    size = "" if asked.set_size is None else f", 90 % set of {asked.set_size}"
    line(f"{asked.case_id}: level {asked.level}{size}", "bold")
    if asked.stop:
        line(f"nothing to ask. {asked.stop_reason_en}")
        line(asked.stop_reason_ur)
    elif asked.set_size is None:
        line("no symptom model: only measurements that the rules use")
    for place, question in enumerate(asked.questions, start=1):
        line(f"{place}. {question.text_en}")
        for text in (question.text_ur, f"answers: {_answers(question)}", question.why_en, question.why_ur, f"{_worth(question)}"):
            line(f"   {text}")
    console.print(asked.notice, style="italic", highlight=False)


def _answers(question: Question) -> str:
    shown = [
        answer.text_en if answer.probability is None else f"{answer.text_en} ({100 * answer.probability:.0f} %)"
        for answer in question.answers
    ]
    return ", ".join(shown) or "a number"


def _worth(question: Question) -> str:
    reach = f", could reach level {question.could_reach_level}" if question.could_reach_level else ""
    return f"{question.kind} {question.code}: {question.information:.2f} severity-weighted bits{reach}"


def _ask(args: argparse.Namespace) -> int:
    readings = read_cases(args.case)
    if len(readings) != 1:
        raise CaseError(f"{args.case} holds {len(readings)} cases: name a file with one")
    models = load_models(args.models)
    words = Console(stderr=True, soft_wrap=True)
    for problem in (*models.problems, *readings[0].problems):
        words.print(f"nabz: {problem}", markup=False, highlight=False)
    asked = Triage(models, load_policy(args.policy)).ask(readings[0], datetime.now(UTC), args.count)
    if args.json:
        Console(soft_wrap=True).print(asked.model_dump_json(indent=1), markup=False, highlight=False)
    else:
        print_questions(asked, Console())
    return 1 if readings[0].problems or models.problems else 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of questions: expected 1 or more")
    return int(text)
