"""`nabz-train photo-gate`: how many bad photos the gate catches, by fault and grade, and how many good ones it refuses.

The gate is fitted on half of the patients and only the other half is reported; its thresholds for light, and which grades
count as good or bad, were settled with figures of both halves in view, so that the report may be a little optimistic. Does
not know how photos are spoiled, and trains no network of the lesion bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.bundle import load_bundle
from inference.errors import DataError, PhotoError
from inference.photo import PhotoRecipe, normalise, open_photo, photo_pixels
from inference.photo_features import judged_copy, luma_of, picture_features
from inference.photo_quality import PhotoQuality, judge_quality
from training.metrics import Interval, bootstrap_interval, mean, metrics_document
from training.photo_gate_fitting import Judged, as_toml, fit_gate
from training.photo_grades import (
    PICTURES_A_KIND,
    GradedPhoto,
    cut_pictures,
    graded_photos,
    is_for_fitting,
    other_pictures,
    rendered_lesions,
)
from training.skin_data import SkinRecord, read_skin_data

_FURTHER_GRADES = 2  # the fit sees each photo twice, the second time in grades this much further on
_LEAST_SIDE = 288  # photos are decoded as inference decodes them
_FIT_NOTE = """The fitted part of the photo gate (inference/photo_gate.py). Written by:
    nabz-train photo-gate --data PAD-UFES-20 --others PICTURES --fit inference/photo_gate.toml
from {patients} patients of {source} ({licence}), spoiled in stated grades, and pictures of other things. The other half of the
patients is what `nabz-train photo-gate` reports."""
NOTE = (
    "Good photos: as taken, in the tones of the sweep (synthetic), and with faults too slight to change the lesion model's answer. "
    "Faults and rendered pictures are synthetic. Patients on whom the gate was fitted are left out; intervals draw whole patients."
)


def fit_photo_gate(data: Path, others: Path | None, file: Path, limit: int | None = None) -> None:
    """Fit the gate on the half of the patients that is for it, and write its numbers to a .toml file."""
    photos = read_skin_data(data)
    records = [record for record in photos.records if is_for_fitting(record.group)][:limit]
    graded = (*_graded(records), *_graded(records, _FURTHER_GRADES), *_pictures(others, limit), *rendered_lesions())
    numbers = fit_gate([_features_of(one) for one in graded if is_for_fitting(one.group)])
    note = _FIT_NOTE.format(patients=len({record.group for record in records}), source=photos.source.name, licence=photos.source.licence)
    file.write_text(as_toml(numbers, note), encoding="utf-8")


def photo_gate_report(data: Path, others: Path | None = None, bundle: Path | None = None, limit: int | None = None) -> dict[str, Any]:
    """The metrics document: `bad_caught` and `good_refused`, and both by kind, grade and skin type.

    `others` is a folder of pictures without lesions, `bundle` a lesion bundle whose changed answers are counted beside.
    Raises NabzError when data or bundle cannot be used.
    """
    reported = [record for record in read_skin_data(data).records if not is_for_fitting(record.group)][:limit]
    judged = [(graded, judge_quality(graded.image, graded.original_size)) for graded in _graded(reported)]
    judged += [(one, judge_quality(one.image, one.original_size)) for one in _pictures(others, limit) if not is_for_fitting(one.group)]
    if not any(graded.kind == "as_taken" for graded, _ in judged):
        raise DataError(f"{data}: no photo could be read")
    metrics = {
        "bad_caught": _share([pair for pair in judged if pair[0].grade.verdict == "bad"]),
        "good_refused": _share([pair for pair in judged if pair[0].kind == "as_taken"]),
        "good_or_slightly_spoiled_refused": _share([pair for pair in judged if pair[0].grade.verdict == "good"]),
    }
    subgroups = _by_kind(judged) | _by_skin_type(judged)
    if bundle is not None:
        for name, figure in _label_changes(reported, bundle).items():
            subgroups.setdefault(name, {})["label_changes"] = figure
    document = metrics_document("photo-gate", "inference/photo_gate.toml", len(judged), metrics, subgroups)
    return document | {"note": NOTE, "reasons": _reasons(judged)}


def _graded(records: Iterable[SkinRecord], further: int = 0) -> Iterator[GradedPhoto]:
    """Each photo with one grade of each fault; `further` turns to other grades."""
    for place, record in enumerate(records, start=further):
        try:
            image = open_photo(record.folder / record.photo.path, _LEAST_SIDE).image
        except PhotoError:
            continue
        yield from graded_photos(image, record.group, record.photo.fitzpatrick or 0, place)


def _pictures(others: Path | None, limit: int | None) -> Iterator[GradedPhoto]:
    yield from other_pictures(count=PICTURES_A_KIND if limit is None else min(limit, PICTURES_A_KIND))
    if others is not None:
        yield from cut_pictures(others)


def _features_of(graded: GradedPhoto) -> Judged:
    small = judged_copy(graded.image)
    pixels = np.asarray(small, dtype=np.float32)
    features = picture_features(small, pixels, luma_of(pixels))
    return Judged(features, graded.kind, graded.grade.grade, graded.grade.verdict, graded.group)


Pairs = Sequence[tuple[GradedPhoto, PhotoQuality]]


def _share(pairs: Pairs) -> Interval:
    """The share that the gate refuses, with its interval over patients."""
    refused = np.array([not quality.ok for _, quality in pairs], dtype=float)
    return bootstrap_interval(mean, refused, groups=np.array([graded.group for graded, _ in pairs]))


def _by_kind(judged: Pairs) -> dict[str, dict[str, Interval]]:
    names = dict.fromkeys((graded.kind, graded.grade) for graded, _ in judged)
    words = {"bad": "bad_caught", "good": "good_refused", "between": "between_refused"}
    return {
        f"{kind} {grade.grade:g}": {
            words[grade.verdict]: _share([pair for pair in judged if (pair[0].kind, pair[0].grade) == (kind, grade)])
        }
        for kind, grade in names
    }


def _by_skin_type(judged: Pairs) -> dict[str, dict[str, Interval]]:
    """Photos as taken that are refused, by Fitzpatrick type; types that do not occur have n = 0."""
    taken = [pair for pair in judged if pair[0].kind == "as_taken"]
    return {
        f"fitzpatrick_{skin_type or 'unknown'}": {"good_refused": _share([pair for pair in taken if pair[0].skin_type == skin_type])}
        for skin_type in (1, 2, 3, 4, 5, 6, 0)
    }


def _reasons(judged: Pairs) -> dict[str, dict[str, int]]:
    """How often each problem was named, by kind."""
    counts: dict[str, dict[str, int]] = {}
    for graded, quality in judged:
        kind = counts.setdefault(graded.kind, {})
        for problem in quality.problems:
            kind[problem.code] = kind.get(problem.code, 0) + 1
    return counts


def _label_changes(records: Sequence[SkinRecord], folder: Path) -> dict[str, Interval]:
    """The share of photos whose most probable label is another one than the photo's as taken, by kind and grade."""
    bundle = load_bundle(folder, threads=1)
    recipe = PhotoRecipe.from_contract(bundle.contract.preprocessing)
    width = len(bundle.contract.vocabulary["clinical_features"])
    first = ""
    changed: dict[str, list[tuple[str, bool]]] = {}
    for graded in _graded(records):
        pixels = photo_pixels(graded.image, recipe.size, recipe.geometry)[None]
        outputs = bundle.run({"photo": normalise(pixels, recipe), "clinical": np.zeros((1, width), dtype=np.float32)})
        label = str(outputs["probabilities"][0].argmax())
        if graded.kind == "as_taken":
            first = label
        else:
            changed.setdefault(f"{graded.kind} {graded.grade.grade:g}", []).append((graded.group, label != first))
    return {
        name: bootstrap_interval(mean, np.array([float(one) for _, one in pairs]), groups=np.array([group for group, _ in pairs]))
        for name, pairs in changed.items()
    }
