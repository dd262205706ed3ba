"""What in own data would make a model look better than it is: leaks over a split, duplicates, columns that give the class away.

Reads rows, changes nothing. Photos are compared by near_duplicates.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from training.near_duplicates import Pair, fingerprints, near_pairs
from training.own_data import SPLIT, OwnData
from training.own_data_checks import OWN_COLUMNS, Finding, Severity, inputs_of, is_blank, missingness
from training.own_data_kinds import CASES, is_after_triage

Array = NDArray[Any]
# Association of a column with the class (Cramér's V without its bias, Bergsma 2013). Measured: `biopsed` of PAD-UFES-20 0.79, the nurse's
# level beside the expert's 0.77, no honest input of the public data sets above 0.49; fields whose absence tells a cancer 0.68.
GIVES_AWAY = 0.7
MISSING_GIVES_AWAY = 0.4
_MOST_VALUES = 20
_NAMED = 10
_TELLING_CELLS = 5  # rows with fewer filled cells are alike by chance


def leaks(data: OwnData, pairs: Sequence[Pair]) -> list[Finding]:
    """Everything of that kind; `pairs` are the rows whose photos show the same."""
    return [
        *_leaking_groups(data), *_doubled_rows(data), *_after_triage(data), *_giving_away(data), *_missing_gives_away(data), *_alike(data, pairs),
    ]  # fmt: skip


def compared_images(data: OwnData, threads: int) -> tuple[list[Pair], list[Finding]]:
    """Pairs of rows whose images show the same, and what is said of images that cannot be read."""
    paths = data.image_paths()
    if not paths:
        return [], []
    prints = fingerprints(paths, threads)
    broken = [place for place in prints.unreadable if paths[place].is_file()]  # what is not there, the schema names
    unreadable = [_finding("unreadable_image", "problem", "images cannot be decoded: save them again as JPEG or PNG", data, broken)]
    return near_pairs(prints), unreadable if broken else []


def row_prints(data: OwnData) -> list[str]:
    """A hash of each row's inputs and class without its ids; "" for rows that say too little to be told apart."""
    ids = {data.kind.identity, data.kind.image, *data.kind.groups, *data.kind.beside} - {""}
    columns = [column for column in data.table if column not in OWN_COLUMNS | ids]
    texts = data.table[columns].to_numpy(dtype=str)
    filled = (texts != "").sum(axis=1)
    if data.kind is CASES:  # findings and vitals are what tells one case from another
        filled = filled + data.table["findings"].str.count("=").to_numpy() if "findings" in data.table else filled
    return [
        hashlib.blake2b("\x1f".join(row).encode(), digest_size=16).hexdigest() if n >= _TELLING_CELLS else ""
        for row, n in zip(texts, filled, strict=True)
    ]


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


def _after_triage(data: OwnData) -> Iterable[Finding]:
    columns = [name for name in map(str, data.table) if is_after_triage(name) and name not in OWN_COLUMNS and name != data.kind.label]
    if columns:
        says = f"known only after triage: {', '.join(columns)}. nabz-train never reads them; never add them to the inputs"
        yield Finding("known_after_triage", "warning", says, len(columns))


def _giving_away(data: OwnData) -> Iterable[Finding]:
    """Columns whose few values decide the class."""
    labels = data.labels
    for column in inputs_of(data):
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
        strength = _association(is_blank(data, column).astype(str), labels)
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


def _severity(data: OwnData, column: str) -> Severity:
    """A problem in an input, a warning elsewhere."""
    return "problem" if column in set(data.kind.reads) - data.kind.reported else "warning"


def _finding(code: str, severity: Severity, says: str, data: OwnData, places: Sequence[int], n: int | None = None) -> Finding:
    count = len(places) if n is None else n
    ids = data.ids
    text = says if says[0].isdigit() else f"{count} {says}"
    return Finding(code, severity, text, count, tuple(ids[place] for place in places[:_NAMED]))


def _pairs_finding(code: str, severity: Severity, says: str, data: OwnData, pairs: Sequence[Pair]) -> Finding:
    ids = data.ids
    return Finding(code, severity, f"{len(pairs)} {says}", len(pairs), tuple(f"{ids[p.first]} and {ids[p.second]}" for p in pairs[:_NAMED]))
