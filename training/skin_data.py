"""Readers for skin photos with labels (PAD-UFES-20, HAM10000, DermaMNIST) and splits that cannot leak.

A patient (a lesion, where no patient is known) is on one side of a split only, and that is checked. The
columns of PAD-UFES-20 that give the diagnosis away (`biopsed`, gender, smoking and the other history) are
never read; Fitzpatrick type is read for subgroup reports alone. This module does not know networks or how
photos are decoded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from inference.case import Photo
from inference.errors import DataError
from inference.photo import YES_NO_FIELDS
from training.skin_sources import DERMA_MNIST, HAM10000, PAD_UFES_20, SkinSource

PAD_COLUMNS = ("patient_id", "img_id", "diagnostic", "age", "region", "fitspatrick", *YES_NO_FIELDS)
HAM_COLUMNS = ("lesion_id", "image_id", "dx", "age", "localization")
_ANSWERS: dict[str, bool | None] = {"true": True, "false": False, "unk": None, "": None}
_NAMED_AT_MOST = 5
_OLDEST_YEARS = 125


@dataclass(frozen=True, slots=True)
class SkinRecord:
    """One labelled image. `group` is the patient, or the lesion where no patient is known.

    `photo.path` starts from `folder`; `pixels` [H, W, 3] is set instead where the images came inside one
    file.
    """

    image_id: str
    label: str
    group: str
    photo: Photo
    folder: Path
    age_years: float | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SkinSet:
    """A data set as read: where it comes from and its records, in the file's order."""

    source: SkinSource
    path: Path
    records: tuple[SkinRecord, ...]

    @property
    def labels(self) -> NDArray[np.str_]:
        """The label of each record."""
        return np.array([record.label for record in self.records])

    @property
    def groups(self) -> NDArray[np.str_]:
        """The group of each record."""
        return np.array([record.group for record in self.records])

    def part(self, chosen: NDArray[np.bool_]) -> SkinSet:
        """The chosen records [N] as a data set."""
        return replace(self, records=tuple(record for record, is_in in zip(self.records, chosen, strict=True) if is_in))


def read_skin_data(path: Path) -> SkinSet:
    """Read a folder (or its CSV, or a MedMNIST .npz) by what it holds. Raises DataError when it is none."""
    if path.suffix == ".npz":
        return read_medmnist(path)
    if path.name == "labels.csv" or (path / "labels.csv").is_file():
        return read_ham10000(path)
    if path.suffix == ".csv" or (path / "metadata.csv").is_file():
        return read_pad_ufes_20(path)
    raise DataError(
        f"{path}: no skin data found; expected a folder with metadata.csv (PAD-UFES-20) or labels.csv "
        "(HAM10000) and the images, or a MedMNIST .npz file"
    )


def read_pad_ufes_20(path: Path) -> SkinSet:
    """Read PAD-UFES-20, or data in its format: metadata.csv, with the images beside it or in `images/`.

    Answers other than True, False, UNK or nothing are an error; UNK and nothing are unknown.
    """
    table, folder = _table(path, "metadata.csv", PAD_COLUMNS, "img_id")
    records = tuple(
        SkinRecord(
            image_id=row["img_id"],
            label=row["diagnostic"].upper(),
            group=row["patient_id"],
            photo=Photo(
                path=row["img_id"],
                body_site=row["region"].lower() or None,
                fitzpatrick=_skin_type(row),
                **{name: _answer(row, name) for name in YES_NO_FIELDS},
            ),
            folder=folder,
            age_years=_number(row, "age", "img_id", 0, _OLDEST_YEARS),
        )
        for row in table
    )
    return _checked(SkinSet(PAD_UFES_20, path, records))


def read_ham10000(path: Path) -> SkinSet:
    """Read HAM10000 (labels.csv, images named by image_id), grouped by lesion: no patient is known."""
    table, folder = _table(path, "labels.csv", HAM_COLUMNS, "image_id")
    records = tuple(
        SkinRecord(
            image_id=row["image_id"],
            label=row["dx"].lower(),
            group=row["lesion_id"],
            photo=Photo(path=f"{row['image_id']}.jpg", body_site=row["localization"].replace("unknown", "") or None),
            folder=folder,
            age_years=_number(row, "age", "image_id", 0, _OLDEST_YEARS),
        )
        for row in table
    )
    return _checked(SkinSet(HAM10000, path, records))


def read_medmnist(path: Path) -> SkinSet:
    """Read DermaMNIST (.npz with {train,val,test}_{images,labels}). Identical images form one group."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = [(arrays[f"{part}_images"], arrays[f"{part}_labels"].ravel()) for part in ("train", "val", "test")]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a MedMNIST file; expected train, val and test images and labels") from error
    images, indices = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = [label.name for label in DERMA_MNIST.labels]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not set(indices) <= set(range(len(names))):
        raise DataError(f"{path}: expected DermaMNIST, RGB images of 7 classes; found {images.shape} and {len(set(indices))} classes")
    records = tuple(
        SkinRecord(
            image_id=f"{path.stem}_{index}",
            label=names[int(label)],
            group=hashlib.sha256(image.tobytes()).hexdigest(),
            photo=Photo(path=f"{path.stem}_{index}"),
            folder=path.parent,
            pixels=image,
        )
        for index, (image, label) in enumerate(zip(images, indices, strict=True))
    )
    return SkinSet(DERMA_MNIST, path, records)


def grouped_folds(labels: NDArray[Any], groups: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0 to folds - 1) of each record: stratified by label, whole groups together, checked.

    Raises DataError when there are fewer groups than folds.
    """
    if len(np.unique(groups)) < folds:
        raise DataError(f"{len(np.unique(groups))} patients cannot be split into {folds} folds; give more data or fewer folds")
    fold_of = np.full(len(labels), -1, dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        fold_of[held_out] = fold
    check_no_group_is_split(groups, fold_of)
    return fold_of


def check_no_group_is_split(groups: NDArray[Any], fold_of: NDArray[np.int64]) -> None:
    """Prove that every group lies in exactly one fold. Raises DataError naming groups that do not."""
    if (fold_of < 0).any():
        raise DataError(f"{int((fold_of < 0).sum())} records are in no fold")
    pairs = pd.DataFrame({"group": groups, "fold": fold_of}).drop_duplicates()
    shared = sorted(pairs["group"][pairs["group"].duplicated()].unique())
    if shared:
        raise DataError(f"the split leaks: {len(shared)} patients are in several folds, such as {', '.join(shared[:_NAMED_AT_MOST])}")


def _table(path: Path, name: str, columns: tuple[str, ...], key: str) -> tuple[list[dict[str, str]], Path]:
    """The rows of the CSV as text, only the columns that may be read, and the folder of the images."""
    file = path / name if path.is_dir() else path
    try:
        header = pd.read_csv(file, nrows=0).columns
        if missing := [column for column in columns if column not in header]:
            raise DataError(f"{file}: columns {', '.join(missing)} are missing; expected {', '.join(columns)}")
        frame = pd.read_csv(file, usecols=list(columns), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as CSV; expected the publisher's file") from error
    frame = frame.apply(lambda column: column.str.strip())
    if doubled := frame[key][frame[key].duplicated()].tolist():
        raise DataError(f"{file}: {key} occurs twice: {', '.join(doubled[:_NAMED_AT_MOST])}; keep one row an image")
    images = file.parent / "images"
    return frame.to_dict("records"), images if images.is_dir() else file.parent


def _checked(data: SkinSet) -> SkinSet:
    """The data set, if every image exists and every label is the source's. Raises DataError otherwise."""
    known = {label.name for label in data.source.labels}
    wrong = [record.image_id for record in data.records if record.label not in known]
    absent = [record.image_id for record in data.records if not (record.folder / record.photo.path).is_file()]
    ungrouped = [record.image_id for record in data.records if not record.group]
    for ids, what in (
        (wrong, f"have a label that is none of {', '.join(sorted(known))}"),
        (absent, "have no image file; put the images in images/"),
        (ungrouped, "have no patient or lesion id, without which a split would leak"),
    ):
        if ids:
            raise DataError(f"{data.path}: {len(ids)} records {what}: {', '.join(ids[:_NAMED_AT_MOST])}")
    if not data.records:
        raise DataError(f"{data.path}: the file has no rows")
    return data


def _answer(row: dict[str, str], name: str) -> bool | None:
    try:
        return _ANSWERS[row[name].lower()]
    except KeyError as error:
        raise DataError(f"{row['img_id']}: {name} is {row[name]!r}; expected True, False, UNK or nothing") from error


def _number(row: dict[str, str], name: str, key: str, low: float, high: float) -> float | None:
    if not row[name]:
        return None
    try:
        number = float(row[name])
    except ValueError:
        number = nan
    if not low <= number <= high:
        raise DataError(f"{row[key]}: {name} is {row[name]!r}; expected a number from {low:g} to {high:g}, or nothing")
    return number


def _skin_type(row: dict[str, str]) -> int | None:
    number = _number(row, "fitspatrick", "img_id", 1, 6)
    return None if number is None else int(number)
