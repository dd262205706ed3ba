"""`nabz-train data split MYDATA`: train and held-out in the same format, with nobody and nothing on both sides.

Together stay the rows of one patient (lesion, where no patient is known; case), rows that are identical but for their ids, and photos that
show the same. Classes are spread evenly as far as that allows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import LABELS
from inference.errors import DataError
from training.export import file_sha256
from training.labelled_cases import FILE, read_lines
from training.near_duplicates import groups_of
from training.own_data import FILE_COLUMN, HELD_OUT, ROW, SPLIT, STRANGE, TRAIN, OwnData, read_own_data
from training.own_data_kinds import CASES, KTAS, NHAMCS, PATIENTS
from training.own_data_leaks import compared_images, row_prints

Array = NDArray[Any]
RECORD = "split.json"
# Where nabz-train looks for them.
_NAMES = {KTAS.name: "ktas/data.csv", NHAMCS.name: "nhamcs_ed/visits.csv.gz"}
_PATIENTS = {TRAIN: "release_train_patients.csv", HELD_OUT: "patients.csv"}
_OWN = [ROW, FILE_COLUMN, SPLIT, STRANGE]


def split_own_data(path: Path, out: Path, held_out: float, seed: int, threads: int = 2) -> dict[str, Any]:
    """Write `out`/train and `out`/held_out, and how it was done beside them; returns that.

    `held_out` is the share to hold out, in (0, 1): it is met as nearly as whole groups allow. Raises DataError when `out` is not empty,
    or there are too few groups to split.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty: name a new folder")
    if not 0 < held_out < 1:
        raise DataError(f"the share to hold out is {held_out:g}; expected a number between 0 and 1, such as 0.2")
    data = read_own_data(path)
    together = joined_groups(data, threads)
    is_held_out = held_out_rows(data.labels, together, held_out, seed)
    for side, rows in ((TRAIN, ~is_held_out), (HELD_OUT, is_held_out)):
        _write_side(data, out / side, side, np.flatnonzero(rows))
    record = {
        "of": path.as_posix(), "kind": data.kind.name, "seed": seed, "held_out": held_out,
        "groups": {side: len(set(together[rows])) for side, rows in ((TRAIN, ~is_held_out), (HELD_OUT, is_held_out))},
        "rows": {side: int(rows.sum()) for side, rows in ((TRAIN, ~is_held_out), (HELD_OUT, is_held_out))},
        "classes": {side: dict(Counter(data.labels[rows].tolist())) for side, rows in ((TRAIN, ~is_held_out), (HELD_OUT, is_held_out))},
        "joined": len(set(data.groups)) - len(set(together.tolist())),
        "sha256": {name: file_sha256(out / name) for name in _written(out)},
    }  # fmt: skip
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def joined_groups(data: OwnData, threads: int = 2) -> NDArray[np.int64]:
    """The group of each row, [n]: patients, lesions or cases, joined where rows or photos are the same."""
    pairs: list[tuple[int, int]] = []
    for names in (data.groups.tolist(), [] if data.kind.image else row_prints(data)):
        first: dict[str, int] = {}
        pairs += [(first.setdefault(name, place), place) for place, name in enumerate(names) if name]
    alike, _ = compared_images(data, threads)
    return groups_of(len(data.table), pairs + [(pair.first, pair.second) for pair in alike])


def held_out_rows(labels: Array, groups: Array, share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are held out, [n]: of every class whole groups, drawn by `seed`, as near to `share` of its rows as they come.

    A group of several classes counts as one of its rarest. A class of a single group is trained on. Raises DataError with one group.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise DataError("all rows belong together: there is nothing to split")
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(counts, kind="stable"), kind="stable")[label]  # 0 is the rarest class
    stratum = np.full(len(names), len(counts))
    np.minimum.at(stratum, group, rarity)
    size, random = np.bincount(group), np.random.default_rng(seed)
    is_held_out = np.zeros(len(names), dtype=bool)
    for one in np.unique(stratum):
        members = random.permutation(np.flatnonzero(stratum == one))
        middle = np.cumsum(size[members]) - size[members] / 2
        is_held_out[members] = middle <= share * size[members].sum()
    if not is_held_out.any() or is_held_out.all():  # too few for any class to be divided
        is_held_out[:] = False
        is_held_out[random.integers(len(names))] = True
    return np.asarray(is_held_out[group])


def _write_side(data: OwnData, folder: Path, side: str, places: Array) -> None:
    folder.mkdir(parents=True)
    if data.kind is CASES:
        _write_cases(data, folder / FILE, side, places)
        return
    table = data.table.iloc[places]
    name = _NAMES.get(data.kind.name, Path(str(table[FILE_COLUMN].iloc[0])).name)
    name = _PATIENTS[side] if data.kind is PATIENTS else name
    (folder / name).parent.mkdir(exist_ok=True)
    separator = ";" if data.kind is KTAS else ","
    own = table.drop(columns=[column for column in _OWN if column in table])
    own.to_csv(folder / name, index=False, sep=separator, encoding="latin-1" if data.kind is KTAS else "utf-8")
    if data.kind is PATIENTS:
        _copy_release(data, folder)
    elif data.kind.image:
        (folder / "images").mkdir()
        paths = data.image_paths()
        for place in places:
            _copy(paths[place], folder / "images" / paths[place].name)


def _write_cases(data: OwnData, file: Path, side: str, places: Array) -> None:
    """The chosen lines as they are, but for their side; their photos beside them."""
    wanted = {(str(data.table[FILE_COLUMN].iloc[place]), int(data.table[ROW].iloc[place])) for place in places}
    with file.open("w", encoding="utf-8") as out:
        for name, folder in data.folders.items():
            base = folder.parent if folder.name == "images" else folder
            for line, raw in read_lines(base / Path(name).name):
                if (name, line) not in wanted or not isinstance(raw, dict):
                    continue
                out.write(json.dumps(raw | {LABELS: {**(raw.get(LABELS) or {}), "split": side}}, ensure_ascii=False) + "\n")
                for photo in raw.get("photos") or ():
                    _copy_photo(base / "photos" / str(photo.get("path", "")), file.parent / "photos")


def _copy_photo(source: Path, folder: Path) -> None:
    if source.is_file():
        folder.mkdir(exist_ok=True)
        _copy(source, folder / source.name)


def _copy_release(data: OwnData, folder: Path) -> None:
    for base in set(data.folders.values()):
        for file in sorted(base.glob("release_*.json")):
            _copy(file, folder / file.name)


def _copy(source: Path, target: Path) -> None:
    """A second name of the same file where the disk allows it: a split of 10,000 photos takes no room."""
    if target.exists() or not source.is_file():
        return
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _written(out: Path) -> list[str]:
    """The tables that were written; photos are named by them."""
    tables = [path for path in out.rglob("*") if path.suffix in (".csv", ".gz", ".jsonl")]
    return sorted(path.relative_to(out).as_posix() for path in tables)
