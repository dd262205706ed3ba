"""The data card of a run: how many rows, of which classes, what is missing, and which part is for what.

Counts only, never a patient. It reads no file: each trainer counts its own data (`*_card`), and the settings' hash says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

FILE = "data_card.json"
_SHOWN = 6  # classes and fields in the short table; the file has all


@dataclass(frozen=True)
class DataCard:
    """`classes` are rows (or shares, of patients that are drawn) by label, `missing` the share unknown by field.

    `splits` are rows by use; `objective` names the held-out data that choices are made on, in words.
    """

    task: str
    sources: Mapping[str, str]
    rows: int
    row_is: str
    classes: Mapping[str, float]
    missing: Mapping[str, float]
    splits: Mapping[str, int]
    objective: str

    def write(self, folder: Path) -> Path:
        """Write the whole card as JSON into the run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def show(self, console: Console) -> None:
        """The short table: the largest and the smallest classes, and what is missing most."""
        console.print(f"data card: {self.rows:,} {self.row_is}", highlight=False, markup=False, soft_wrap=True)
        table = Table(show_header=False)
        table.add_row("sources", "\n".join(f"{name} {checksum[:16]}" for name, checksum in self.sources.items()))
        table.add_row(f"{len(self.classes)} classes", _extremes(self.classes))
        table.add_row("missing", _largest(self.missing))
        table.add_row("splits", "\n".join(f"{name}: {count:,}" for name, count in self.splits.items()))
        table.add_row("chosen on", self.objective)
        console.print(table)


def counts(labels: NDArray[Any]) -> dict[str, float]:
    """Rows by label."""
    names, found = np.unique(labels, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, found, strict=True)}


def _number(value: float) -> str:
    return f"{value:,}" if value == int(value) else f"{value:.2%}"


def _extremes(classes: Mapping[str, float]) -> str:
    """The most and the least frequent."""
    ordered = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > 2 * _SHOWN:
        ordered = [*ordered[: _SHOWN // 2], ("…", float("nan")), *ordered[-_SHOWN // 2 :]]
    return "\n".join(name if value != value else f"{name}: {_number(value)}" for name, value in ordered)


def _largest(missing: Mapping[str, float]) -> str:
    ordered = sorted(missing.items(), key=lambda item: (-item[1], item[0]))
    more = [f"and {len(ordered) - _SHOWN} more"] if len(ordered) > _SHOWN else []
    return "\n".join([*(f"{name}: {share:.1%}" for name, share in ordered[:_SHOWN]), *more]) or "nothing"
