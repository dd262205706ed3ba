"""Own data in numbers: rows, classes, what is missing for whom, subgroups, and which of them are too small. Reads rows, changes nothing.

A finding is a `problem` where what `nabz-train` reads is spoilt, and a `warning` where a person should look before they train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.metrics import wilson_interval
from training.own_data import FILE_COLUMN, ROW, SPLIT, STRANGE, OwnData

Array = NDArray[Any]
Severity = Literal["problem", "warning"]
SMALLEST_CLASS = 20
SMALLEST_GROUP = 30
MOST_IMBALANCE = 50.0
_FEWEST_SHOWN = 5
_NAMED = 10
_AGE_STARTS_YEARS = (0, 1, 5, 12, 16, 40, 65, 200)
OWN_COLUMNS = frozenset({ROW, FILE_COLUMN, SPLIT, STRANGE})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the whole: `code` names it for programs, `n` counts it, `ids` are the first rows that show it."""

    code: str
    severity: Severity
    says: str
    n: int
    ids: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self) | {"ids": list(self.ids)}


def counts(data: OwnData) -> dict[str, Any]:
    """Rows, groups (patients, lesions or cases), files, images and rows of each side."""
    sides = Counter(side or "no side" for side in data.column(SPLIT))
    return {
        "rows": len(data.table), "groups": len(set(data.groups)), "files": data.table[FILE_COLUMN].nunique(),
        "images": len(set(data.image_paths())), "sides": dict(sorted(sides.items())),
    }  # fmt: skip


def classes(data: OwnData) -> dict[str, int]:
    """How many rows each class has, the largest first; "" is no class."""
    return dict(Counter(data.labels.tolist()).most_common())


def missingness(data: OwnData) -> dict[str, dict[str, Any]]:
    """Of each column the share of blanks, over all rows and by class; columns that are never blank are left out."""
    labels, found = data.labels, {}
    for column in inputs_of(data):
        blank = is_blank(data, column)
        if blank.any():
            by_class = {label: round(float(blank[labels == label].mean()), 4) for label in classes(data) if label}
            found[column] = {"share": round(float(blank.mean()), 4), "n": len(blank), "by_class": by_class}
    return found


def subgroups(data: OwnData) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows of each subgroup, and how many of its labelled rows are of a serious class, with a 95 % interval where there is such."""
    is_serious = np.isin(data.labels, sorted(data.kind.serious))
    labelled = data.labels != ""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, column in data.kind.subgroups.items():
        values = data.column(column)
        groups = _age_bands(values) if name == "age" else _shown_groups(values)
        for group, n in sorted(Counter(groups.tolist()).items(), key=lambda one: _in_order(one[0])):
            rows = (groups == group) & labelled
            share = wilson_interval(int((rows & is_serious).sum()), int(rows.sum())).as_json() if data.kind.serious else None
            found.setdefault(name, {})[group] = {"n": n, "serious": share}
    return found


def balance(data: OwnData) -> list[Finding]:
    """Classes and subgroups that are too small, or too unlike in size."""
    return [*_small_classes(data), *_small_groups(data)]


def _small_classes(data: OwnData) -> Iterable[Finding]:
    counted = {label: n for label, n in classes(data).items() if label}
    small = [f"{label} ({n})" for label, n in counted.items() if n < SMALLEST_CLASS]
    if not counted:
        yield Finding("no_class", "problem", f"no row has a class: expected {data.kind.label}", len(data.table))
    elif len(counted) == 1:
        yield Finding("one_class", "problem", f"every row is {next(iter(counted))}: there is nothing to tell apart", len(data.table))
    if small:
        shown = f"{', '.join(small[:_NAMED])}{' …' if len(small) > _NAMED else ''}"
        yield Finding(
            "small_class", "warning", f"fewer than {SMALLEST_CLASS} rows of {shown}: their figures will be too wide to use", len(small)
        )
    if len(counted) > 1 and max(counted.values()) / min(counted.values()) > MOST_IMBALANCE:
        ratio = max(counted.values()) / min(counted.values())
        says = f"the largest class has {ratio:.0f} times the rows of the smallest: report balanced figures, and recalibrate to the clinic's shares"
        yield Finding("imbalanced_classes", "warning", says, len(counted))


def _small_groups(data: OwnData) -> Iterable[Finding]:
    for name, groups in subgroups(data).items():
        small = [f"{group} ({one['n']})" for group, one in groups.items() if group != "unknown" and one["n"] < SMALLEST_GROUP]
        if len(groups) == 1 and "unknown" in groups:
            yield Finding("subgroup_unknown", "warning", f"{name} is known of nobody: figures by {name} cannot be given", len(data.table))
        elif small:
            says = f"{name}: fewer than {SMALLEST_GROUP} rows of {', '.join(small[:_NAMED])}: a difference there cannot be seen"
            yield Finding("small_subgroup", "warning", says, len(small))


def inputs_of(data: OwnData) -> list[str]:
    """The columns that could be inputs: all but ids, groups and what belongs to the label."""
    out = {data.kind.identity, data.kind.label, data.kind.image, *data.kind.groups, *data.kind.beside, *OWN_COLUMNS}
    return [str(column) for column in data.table if column not in out]


def is_blank(data: OwnData, column: str) -> NDArray[np.bool_]:
    """Whether a cell says nothing: blank, or a negative number where NHAMCS has one."""
    values = data.column(column)
    blank = np.isin(np.char.lower(values), ("", "unk", "unknown", "nan"))
    return blank | np.char.startswith(values, "-") if data.kind.name.startswith("nhamcs") else blank


def _shown_groups(values: Array) -> Array:
    """The values as groups. Words that fewer than five rows share may be anything, a name too: they are one group."""
    alike = Counter(values.tolist())
    return np.array([
        "unknown" if value == "" else value if alike[value] >= _FEWEST_SHOWN or value.replace(".", "", 1).isdigit() else "others"
        for value in values.tolist()
    ])  # fmt: skip


def _age_bands(values: Array) -> Array:
    years = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy()
    bands = np.full(len(values), "unknown", dtype=object)
    for start, end in pairwise(_AGE_STARTS_YEARS):
        bands[(years >= start) & (years < end)] = (
            (f"{start}-{end - 1}" if end - start > 1 else f"under {end}") if end < _AGE_STARTS_YEARS[-1] else f"{start} and over"
        )
    return bands.astype(str)


def _in_order(group: str) -> tuple[float, str]:
    """Bands by their start, other groups by name, `unknown` last."""
    start = group.removeprefix("under ").partition("-")[0].partition(" ")[0] if group != "under 1" else "0"
    return (float(start), group) if start.replace(".", "", 1).isdigit() else (1e9 if group != "unknown" else 1e10, group)
