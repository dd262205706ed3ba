"""The data card of the lesion trainer: images by label, patients, unknown answers, and the splits.

Counts only; nothing is trained and no photo is opened.
"""

from __future__ import annotations

import numpy as np

from inference.photo import YES_NO_FIELDS
from training.data_card import DataCard, counts
from training.lesion_holdout import parts
from training.skin_data import SkinRecord, SkinSet, grouped_folds

_ONE_SPLIT = ("to learn from", "to calibrate and to choose by", "to report on")


def lesion_card(data: SkinSet, checksum: str, folds: int, seed: int, *, is_watched: bool) -> DataCard:
    """`folds` of 1 is one split. `is_watched`: held-out images decide when to stop, or which recipe is best."""
    if folds == 1:
        splits = {name: int(part.sum()) for name, part in zip(_ONE_SPLIT, parts(data, seed), strict=True)}
        held = "the part to calibrate on"
    else:
        fold_of = grouped_folds(data.labels, data.groups, folds, seed)
        splits = {f"fold {fold + 1}, held out from its network": int((fold_of == fold).sum()) for fold in range(folds)}
        held = "the images that each fold holds out, which are reported on too, so that the figures flatter a little"
    objective = (
        f"the photo branch's log loss on {held}, classes weighing the same" if is_watched else "nothing: recipe and epochs are fixed"
    )
    return DataCard(
        task=data.source.task,
        sources={data.source.name: checksum},
        rows=len(data.records),
        row_is=f"images of {len(set(data.groups))} patients or lesions",
        classes=counts(data.labels),
        missing=_missing(data.records),
        splits=splits,
        objective=objective,
    )


def _missing(records: tuple[SkinRecord, ...]) -> dict[str, float]:
    found = {"age": float(np.mean([record.age_years is None for record in records]))}
    for field in ("body_site", *YES_NO_FIELDS):
        found[field] = float(np.mean([getattr(record.photo, field) is None for record in records]))
    return found
