"""A training run's resolved settings in one frozen record, its hash, and the folder that belongs to it.

Same hash, same result on the same machine: recipe, data, seed, threads, processes, code and libraries are all in it. It
does not know what any of them mean.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

RUNS = Path("runs")
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "onnx", "onnxscript")
_FOLDER_LETTERS = 16


def libraries() -> dict[str, str]:
    """The versions of the libraries whose arithmetic or file format a model's bytes depend on."""
    return {name: version(name) for name in _LIBRARIES}


@cache
def code_sha256() -> str:
    """SHA-256 of the Python files that training and the inference core consist of, as they are on disk at first asking."""
    top = Path(__file__).parent.parent
    found = hashlib.sha256()
    for package in ("inference", "training"):
        for file in sorted((top / package).glob("*.py")):
            found.update(f"{package}/{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Settings:
    """All that a run's result depends on. `data` is SHA-256 by source; `recipe` is plain values by name.

    `processes` are those that train one network together; `device` is cpu or cuda.
    """

    task: str
    recipe: Mapping[str, Any]
    data: Mapping[str, str]
    seed: int
    threads: int
    smoke: bool = False
    processes: int = 1
    device: str = "cpu"
    code: str = field(default_factory=code_sha256)
    libraries: Mapping[str, str] = field(default_factory=libraries)

    @property
    def sha256(self) -> str:
        """The hash of all of it, in one order whatever order it was given in."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def as_json(self) -> str:
        """The record, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, default=str, allow_nan=False)

    def folder(self, runs: Path) -> Path:
        """This run's own folder under `runs`: other settings have another one, so that nothing is mixed up."""
        return runs / self.task / self.sha256[:_FOLDER_LETTERS]

    def parameters(self) -> dict[str, Any]:
        """What a tracker is told: one flat table."""
        plain = {"seed": self.seed, "smoke": self.smoke, "threads": self.threads, "processes": self.processes, "device": self.device}
        return {"settings_sha256": self.sha256, **plain, **self.recipe}


@dataclass(frozen=True)
class RunOptions:
    """What a run is to do with its settings: where its folder goes, only show them, or first search for better ones."""

    runs: Path = RUNS
    dry_run: bool = False
    trials: int = 0

    @classmethod
    def of(cls, args: argparse.Namespace) -> RunOptions:
        """From the command line; who trains as a part of something else may leave them out."""
        return cls(Path(getattr(args, "runs", RUNS)), bool(getattr(args, "dry_run", False)), int(getattr(args, "search", 0) or 0))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--runs`, `--dry-run` and `--search` of every trainer."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=RUNS,
        metavar="DIR",
        help="where the run's folder goes: settings, data card, checkpoints (default runs)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the settings, their hash, the data card, what would be written and how long it takes; stop",
    )
    search_help = "first try N recipes and train with the one that is best on held-out data; goes on where an earlier search stopped"
    parser.add_argument("--search", type=int, default=0, metavar="N", help=search_help)
