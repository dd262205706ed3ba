"""What may be wrong with own data as a whole: leaks, duplicates, classes and groups that are too small. Reads rows, changes nothing.

A finding is a `problem` where what `nabz-train` reads is spoilt, and a `warning` where a person should look before they train.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from training.metrics import wilson_interval
from training.near_duplicates import Pair, fingerprints, near_pairs
from training.own_data import FILE_COLUMN, ROW, SPLIT, STRANGE, OwnData
from training.own_data_kinds import CASES, is_after_triage

Array = NDArray[Any]
SMALLEST_CLASS = 20
SMALLEST_GROUP = 30
MOST_IMBALANCE = 50.0
# Association of a column with the class (Cramér's V without its bias, Bergsma 2013). Measured: `biopsed` of PAD-UFES-20 0.79, the nurse's
# level beside the expert's 0.77, no honest input of the public data sets above 0.49; fields whose absence tells a cancer 0.68.
GIVES_AWAY = 0.7
MISSING_GIVES_AWAY = 0.4
_MOST_VALUES = 20
_FEWEST_SHOWN = 5
_NAMED = 10
_TELLING_CELLS = 5  # rows with fewer filled cells are alike by chance
_AGE_STARTS_YEARS = (0, 1, 5, 12, 16, 40, 65, 200)
_OWN = frozenset({ROW, FILE_COLUMN, SPLIT, STRANGE})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the whole: `code` names it for programs, `n` counts it, `ids` are the first rows that show it."""

    code: str
    severity: Literal["problem", "warning"]
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
    for column in _inputs(data):
        blank = _is_blank(data, column)
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


def findings(data: OwnData, pairs: Sequence[Pair]) -> list[Finding]:
    """All findings, problems first."""
    found = [
        *_leaking_groups(data), *_doubled_rows(data), *_after_triage(data), *_giving_away(data), *_missing_gives_away(data),
        *_alike(data, pairs), *_small_classes(data), *_small_groups(data),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: finding.severity)


def compared_images(data: OwnData, threads: int) -> tuple[list[Pair], list[Finding]]:
    """Pairs of rows whose images show the same, and what is said of images that cannot be read."""
    paths = data.image_paths()
    if not paths:
        return [], []
    prints = fingerprints(paths, threads)
    broken = [place for place in prints.unreadable if paths[place].is_file()]  # what is not there, the schema names
    unreadable = [_finding("unreadable_image", "problem", "images cannot be decoded: save them again as JPEG or PNG", data, broken)]
    return near_pairs(prints), unreadable if broken else []


def _leaking_groups(data: OwnData) -> Iterable[Finding]:
    sides = data.column(SPLIT)
    pairs = pd.DataFrame({"group": data.groups, "side": sides})[sides != ""].drop_duplicates()
    shared = set(pairs["group"][pairs["group"].duplicated()])
    if shared:
        places = [place for place, group in enumerate(data.groups) if group in shared]
        what = {"patient_id": "patients", "lesion_id": "lesions"}.get(data.kind.groups[0] if data.kind.groups else "", "patients or cases")
        yield _finding(
            "group_on_both_sides", "problem",
            f"{len(shared)} {what} are on both sides of the split: figures on the held-out side will be too good; use nabz-train data split",
            data, places, n=len(shared),
        )  # fmt: skip


def _doubled_rows(data: OwnData) -> Iterable[Finding]:
    if data.kind.image:  # photos with the same words are not the same photo
        return
    prints, sides = row_prints(data), data.column(SPLIT)
    seen: dict[str, list[int]] = {}
    for place, one in enumerate(prints):
        if one:
            seen.setdefault(one, []).append(place)
    doubled = [places for places in seen.values() if len(places) > 1]
    across = [places for places in doubled if len({sides[place] for place in places if sides[place]}) > 1]
    if across:
        says = "groups of identical rows lie on both sides of the split: use nabz-train data split, which keeps them together"
        yield _finding("same_row_on_both_sides", "problem", says, data, [place for places in across for place in places], n=len(across))
    within = [places for places in doubled if places not in across]
    if within:
        says = "groups of rows are identical but for their ids: the same case twice, or two that are alike; keep one if it is the same"
        yield _finding("same_row_twice", "warning", says, data, [place for places in within for place in places], n=len(within))


def row_prints(data: OwnData) -> list[str]:
    """A hash of each row's inputs and class without its ids; "" for rows that say too little to be told apart."""
    ids = {data.kind.identity, data.kind.image, *data.kind.groups, *data.kind.beside} - {""}
    columns = [column for column in data.table if column not in _OWN | ids]
    texts = data.table[columns].to_numpy(dtype=str)
    filled = (texts != "").sum(axis=1)
    if data.kind is CASES:  # findings and vitals are what tells one case from another
        filled = filled + data.table["findings"].str.count("=").to_numpy() if "findings" in data.table else filled
    return [
        hashlib.blake2b("\x1f".join(row).encode(), digest_size=16).hexdigest() if n >= _TELLING_CELLS else ""
        for row, n in zip(texts, filled, strict=True)
    ]


def _after_triage(data: OwnData) -> Iterable[Finding]:
    columns = [column for column in data.table if is_after_triage(column) and column not in _OWN and column != data.kind.label]
    if columns:
        says = f"known only after triage: {', '.join(columns)}. nabz-train never reads them; never add them to the inputs"
        yield Finding("known_after_triage", "warning", says, len(columns))


def _giving_away(data: OwnData) -> Iterable[Finding]:
    """Columns whose few values decide the class."""
    labels = data.labels
    for column in _inputs(data):
        values = data.column(column)
        if len(set(values)) <= _MOST_VALUES and (strength := _association(values, labels)) >= GIVES_AWAY:
            is_read = _severity(data, column) == "problem"
            then = "is it known before the class is?" if is_read else "nabz-train does not learn from it: never add it to the inputs"
            says = f"{column} nearly decides the class (Cramér's V {strength:.2f}): {then}"
            yield Finding("column_gives_class_away", _severity(data, column), says, len(values))


def _missing_gives_away(data: OwnData) -> Iterable[Finding]:
    """Columns that are blank for some classes and filled for others; those that are no input share one finding."""
    labels, unread, size = data.labels, [], len(data.table)
    for column, shares in missingness(data).items():
        by_class = shares["by_class"]
        if len(by_class) < 2 or max(by_class.values()) - min(by_class.values()) < MISSING_GIVES_AWAY:
            continue
        strength = _association(_is_blank(data, column).astype(str), labels)
        if strength < MISSING_GIVES_AWAY:
            continue
        most, least = max(by_class, key=by_class.__getitem__), min(by_class, key=by_class.__getitem__)
        says = f"{column} is blank for {by_class[most]:.0%} of {most} and {by_class[least]:.0%} of {least} (Cramér's V {strength:.2f})"
        if _severity(data, column) == "problem":
            yield Finding("missing_gives_class_away", "problem", f"{says}: that it is missing gives the class away", size)
        else:
            unread.append((column, says))
    if unread:
        columns = ", ".join(column for column, _ in unread)
        says = f"{len(unread)} columns give the class away by being missing: {columns}. {unread[0][1]}. nabz-train does not learn from them"
        yield Finding("missing_gives_class_away", "warning", f"{says}: never add them to the inputs", size)


def _alike(data: OwnData, pairs: Sequence[Pair]) -> Iterable[Finding]:
    """Photos that show the same on both sides, under two classes, or of two patients."""
    sides, labels, groups = data.column(SPLIT), data.labels, data.groups
    across = [pair for pair in pairs if sides[pair.first] and sides[pair.second] and sides[pair.first] != sides[pair.second]]
    contradicting = [pair for pair in pairs if labels[pair.first] != labels[pair.second]]
    strangers = [pair for pair in pairs if groups[pair.first] != groups[pair.second] and pair not in across]
    if across:
        says = "pairs of photos that show the same lie on both sides of the split: use nabz-train data split, which keeps them together"
        yield _pairs_finding("near_duplicates_on_both_sides", "problem", says, data, across)
    if contradicting:
        says = "pairs of photos that show the same have two classes: one is wrong"
        yield _pairs_finding("near_duplicates_of_two_classes", "problem", says, data, contradicting)
    if strangers:
        says = "pairs of photos that show the same belong to different patients or lesions: probably one; nabz-train data split keeps them together"
        yield _pairs_finding("near_duplicates_of_two_groups", "warning", says, data, strangers)


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


def _inputs(data: OwnData) -> list[str]:
    """The columns that could be inputs: all but ids, groups and what belongs to the label."""
    out = {data.kind.identity, data.kind.label, data.kind.image, *data.kind.groups, *data.kind.beside, *_OWN}
    return [column for column in data.table if column not in out]


def _is_blank(data: OwnData, column: str) -> NDArray[np.bool_]:
    """Whether a cell says nothing: blank, or a negative number where NHAMCS has one."""
    values = data.column(column)
    blank = np.isin(np.char.lower(values), ("", "unk", "unknown", "nan"))
    return blank | np.char.startswith(values, "-") if data.kind.name.startswith("nhamcs") else blank


def _association(values: Array, labels: Array) -> float:
    """Cramér's V of two columns with its bias taken off; 0 where either has one value only. Rows without a class are left out."""
    known = labels != ""
    table = pd.crosstab(values[known], labels[known]).to_numpy()
    if min(table.shape, default=0) < 2:
        return 0.0
    n, (rows, columns) = table.sum(), table.shape
    phi2 = max(0.0, chi2_contingency(table, correction=False).statistic / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi2 / smaller)) if smaller > 0 else 0.0


def _severity(data: OwnData, column: str) -> Literal["problem", "warning"]:
    """A problem in an input, a warning elsewhere."""
    return "problem" if column in set(data.kind.reads) - data.kind.reported else "warning"


def _finding(
    code: str, severity: Literal["problem", "warning"], says: str, data: OwnData, places: Sequence[int], n: int | None = None
) -> Finding:
    count = len(places) if n is None else n
    ids = data.ids
    text = says if says[0].isdigit() else f"{count} {says}"
    return Finding(code, severity, text, count, tuple(ids[place] for place in places[:_NAMED]))


def _pairs_finding(code: str, severity: Literal["problem", "warning"], says: str, data: OwnData, pairs: Sequence[Pair]) -> Finding:
    ids = data.ids
    return Finding(code, severity, f"{len(pairs)} {says}", len(pairs), tuple(f"{ids[p.first]} and {ids[p.second]}" for p in pairs[:_NAMED]))


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
