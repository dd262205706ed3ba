"""Rows of the table that are test files of their own: run by pytest as a process, at full size, and counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

from reliability.live_service import ROOT
from reliability.outcome import Ground, Outcome

FULL = {"NABZ_RELIABILITY": "full"}  # tells the test files that have a longer form to run it
_COUNTED = re.compile(r"(\d+) (passed|failed|error|errors|skipped|xfailed|xpassed)\b")
_SHOWN = 5


def running(name: str, *files: str, only: str = "") -> Callable[[float, Ground], Outcome]:
    """A row that passes when these test files do."""

    def run(_size: float, _ground: Ground) -> Outcome:
        outcome = Outcome(name)
        _pytest(outcome, files, only)
        return outcome

    return run


def run_fuzz(size: float, _ground: Ground) -> Outcome:
    """At least `size` requests made from the API's description, then the test file's other ways to break requests."""
    from test_api_fuzz import run_fuzz as send

    outcome = Outcome("fuzz")
    result = send(int(size), seed=17)
    for failure in result.failures:
        outcome.require(False, failure[-600:])
    outcome.require(result.server_errors == 0, f"{result.server_errors} answers were a 5xx")
    outcome.require(result.cases >= size, f"{result.cases} requests were made, expected {size:.0f}")
    outcome.done |= {"requests": result.cases, "5xx": result.server_errors}
    _pytest(outcome, ("test_api_fuzz.py",), "not made_from_the_description")
    return outcome


def _pytest(outcome: Outcome, files: tuple[str, ...], only: str = "") -> None:
    missing = [file for file in files if not (ROOT / "tests" / file).is_file()]
    outcome.require(not missing, f"{', '.join(missing)}: there is no such test file")
    paths = [f"tests/{file}" for file in files if file not in missing]
    if not paths:
        return
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(["-k", only] if only else []), *paths]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **FULL}, capture_output=True, text=True, check=False)
    counts = {word.removesuffix("s"): int(number) for number, word in _COUNTED.findall(done.stdout.splitlines()[-1] if done.stdout else "")}
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))][:_SHOWN]
    outcome.require(done.returncode == 0, f"pytest ended with {done.returncode}: {failed or done.stdout[-300:]}")
    outcome.require(counts.get("passed", 0) > 0, "no test has passed")
    outcome.done |= {f"tests {word}": number for word, number in counts.items()} | {"files": ", ".join(files)}
