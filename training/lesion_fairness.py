"""A synthetic sweep of skin tone and light: the same photos made lighter and darker, and how far the lesion model's answer moves.

It shows stability, not accuracy: a photo shifted in CIELAB is not a photo of another person, and the shipped network has
seen every photo of PAD-UFES-20. Real figures by skin type stand in the bundle's metrics, with their n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from inference.bundle import Bundle, load_bundle
from inference.errors import DataError, PhotoError
from inference.lesions import LesionModel, LesionRequest
from inference.photo import PhotoRecipe, normalise
from inference.photo_features import judged_copy
from inference.skin_tone import DARKER_GROUPS, DARKER_SKIN_TYPES, WHITE_D65, XYZ_OF_LINEAR, SkinTone, estimate_skin_tone, lab
from training.metrics import Interval, bootstrap_interval, mean, metrics_document
from training.photo_faults import to_linear, to_srgb
from training.skin_data import read_skin_data

Array = NDArray[Any]
Pixels = NDArray[np.uint8]
NOTE = (
    "Synthetic: photos shifted in CIELAB to a target ITA, in exposure and in white balance. It shows how stable the answers are, "
    "not how accurate; the shipped network was fitted on all these photos."
)
# Inside each tone group of inference/skin_tone.py, in degrees of ITA: in the middle, where a group is closed.
TONES = {"very_light": 58.0, "light": 48.0, "intermediate": 34.5, "tan": 19.0, "brown": -10.0, "dark": -45.0}
STOPS = (-3.0, -2.0, -1.0, 1.0)
WHITE_BALANCE = {"cool": (0.75, 1.0, 1.33), "warm": (1.33, 1.0, 0.75), "green": (0.87, 1.15, 0.87)}
_LEAST_YELLOW, _MOST_YELLOW = 8.0, 22.0  # b* of skin, so that ITA says how light it is
_AROUND = 0.5
_FROM_XYZ = np.linalg.inv(XYZ_OF_LINEAR)
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Answers:
    """The model's answers to n photos: malignancy probability [n] and most probable label [n]."""

    malignancy: NDArray[np.float64]
    label: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Photos:
    """Photos as the model takes them: pixels [n, S, S, 3], answers [n, features], labels [n] and patients [n].

    `skin_types` [n] are Fitzpatrick types, 0 where not known; `tones` the estimates from the photos.
    """

    pixels: Pixels
    clinical: Array
    labels: Array
    groups: Array
    skin_types: Array
    tones: tuple[SkinTone | None, ...]


def fairness_sweep(bundle: Path, data: Path, threads: int = 2, limit: int | None = None) -> dict[str, Any]:
    """The metrics document of the sweep: a subgroup for each step, `as_taken` first.

    Of each: sensitivity and specificity at the operating point, the mean malignancy probability, its mean shift from the
    photo as taken, and the share of decisions and labels that flip; intervals draw whole patients. `tone_correlation` and the
    figures beside it are not synthetic: they hold the estimated tone against the Fitzpatrick type that is known. `limit`
    takes the first photos only. Raises NabzError when bundle or data cannot be used.
    """
    loaded = load_bundle(bundle, threads=threads)
    if not loaded.contract.task.startswith("lesions"):
        raise DataError(f"{bundle}: the sweep is for lesion bundles, not for {loaded.contract.task}")
    photos = _read(LesionModel(loaded, threads), data, limit)
    threshold = loaded.contract.thresholds["malignancy"]
    is_malignant = np.isin(photos.labels, loaded.contract.vocabulary["malignant"])
    taken = _answers(loaded, photos.pixels, photos.clinical)
    figures = {"as_taken": _figures(taken, taken, is_malignant, photos.groups, threshold)}
    for name, change in sweep_steps().items():
        changed = _answers(loaded, np.stack([change(photo) for photo in photos.pixels]), photos.clinical)
        figures[name] = _figures(changed, taken, is_malignant, photos.groups, threshold)
    worst = {
        f"worst_{name}": min((step[name] for step in figures.values()), key=lambda one: one.value)
        for name in ("sensitivity", "specificity")
    }
    flips = {"most_decision_flips": max((step["decision_flips"] for step in figures.values()), key=lambda one: one.value)}
    document = metrics_document(loaded.contract.task, bundle.as_posix(), len(photos.labels), worst | flips | _tone_figures(photos), figures)
    return document | {"note": NOTE, "is_synthetic": True, "tones_by_fitzpatrick": _tone_counts(photos)}


def sweep_steps() -> dict[str, Callable[[Pixels], Pixels]]:
    """Every step of the sweep by name, as a change of pixels [H, W, 3]."""
    steps: dict[str, Callable[[Pixels], Pixels]] = {}
    for name, ita in TONES.items():
        steps[f"tone_{name}"] = lambda pixels, ita=ita: shifted_to_tone(pixels, ita)  # type: ignore[misc]
    for stops in STOPS:
        steps[f"light_{stops:+.0f}_stops"] = lambda pixels, stops=stops: to_srgb(to_linear(pixels) * 2.0**stops)  # type: ignore[misc]
    for name, gains in WHITE_BALANCE.items():
        steps[f"white_{name}"] = lambda pixels, gains=gains: _balanced(pixels, np.array(gains))  # type: ignore[misc]
    return steps


def shifted_to_tone(pixels: Pixels, ita_degrees: float) -> Pixels:
    """The photo [H, W, 3] with the skin around its middle at an ITA: L* scaled, so that contrasts keep their share, b* moved."""
    colours = lab(pixels.astype(np.float64))
    height, width = pixels.shape[:2]
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    skin = np.median(colours[rows**2 + columns**2 > _AROUND**2], axis=0)
    yellow = float(np.clip(skin[2], _LEAST_YELLOW, _MOST_YELLOW))
    lightness = 50 + yellow * np.tan(np.radians(ita_degrees))
    colours[..., 0] *= lightness / max(skin[0], 1.0)
    colours[..., 2] += yellow - skin[2]
    return from_lab(colours)


def from_lab(colours: NDArray[np.float64]) -> Pixels:
    """sRGB pixels [..., 3] of CIELAB (D65); colours that a screen lacks are clipped."""
    y = (colours[..., 0] + 16) / 116
    root = np.stack([y + colours[..., 1] / 500, y, y - colours[..., 2] / 200], axis=-1)
    ratio = np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29))
    return to_srgb((ratio * WHITE_D65) @ _FROM_XYZ.T)


def _balanced(pixels: Pixels, gains: Array) -> Pixels:
    """Other white balance at the same mean light."""
    light = to_linear(pixels)
    changed = light * gains
    return to_srgb(changed * (light.mean() / max(float(changed.mean()), 1e-9)))


def _read(model: LesionModel, data: Path, limit: int | None) -> _Photos:
    ready = []
    for record in read_skin_data(data).records[:limit]:
        try:
            ready.append((record, model.ready(LesionRequest(record.photo, record.folder, record.age_years))))
        except PhotoError:
            continue
    if not ready:
        raise DataError(f"{data}: no photo could be read")
    return _Photos(
        np.stack([photo.pixels for _, photo in ready]),
        np.stack([photo.clinical for _, photo in ready]),
        np.array([record.label for record, _ in ready]),
        np.array([record.group for record, _ in ready]),
        np.array([record.photo.fitzpatrick or 0 for record, _ in ready]),
        tuple(estimate_skin_tone(judged_copy(photo.opened.image)) for _, photo in ready),
    )


def _tone_figures(photos: _Photos) -> dict[str, Interval]:
    """How the estimated tone agrees with the known Fitzpatrick type, over the photos that have both.

    `tone_correlation`: Spearman's, of a darker type with a smaller ITA, 1 for perfect order. `lighter_taken_for_darker`: the
    share of types I to IV that look brown or dark; `darker_recognised`: of types V and VI.
    """
    known = np.array(
        [skin_type > 0 and tone is not None for skin_type, tone in zip(photos.skin_types, photos.tones, strict=True)], dtype=bool
    )
    angle = np.array([0.0 if tone is None else tone.ita_degrees for tone in photos.tones])
    looks_darker = np.array([tone is not None and tone.group in DARKER_GROUPS for tone in photos.tones], dtype=float)
    darker = known & np.isin(photos.skin_types, sorted(DARKER_SKIN_TYPES))
    lighter = known & ~darker
    return {
        "tone_correlation": bootstrap_interval(_rank_correlation, photos.skin_types[known], -angle[known], groups=photos.groups[known]),
        "lighter_taken_for_darker": bootstrap_interval(mean, looks_darker[lighter], groups=photos.groups[lighter]),
        "darker_recognised": bootstrap_interval(mean, looks_darker[darker], groups=photos.groups[darker]),
    }


def _tone_counts(photos: _Photos) -> dict[str, dict[str, int]]:
    """Photos of each Fitzpatrick type by the tone group that they seem to show."""
    counts: dict[str, dict[str, int]] = {}
    for skin_type, tone in zip(photos.skin_types.tolist(), photos.tones, strict=True):
        row = counts.setdefault(f"fitzpatrick_{skin_type or 'unknown'}", {})
        group = tone.group if tone else "no skin seen"
        row[group] = row.get(group, 0) + 1
    return counts


def _rank_correlation(one: Array, other: Array) -> float:
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def _answers(bundle: Bundle, pixels: Pixels, clinical: Array) -> Answers:
    recipe = PhotoRecipe.from_contract(bundle.contract.preprocessing)
    outputs = [
        bundle.run({"photo": normalise(pixels[at : at + _BATCH], recipe), "clinical": clinical[at : at + _BATCH]})
        for at in range(0, len(pixels), _BATCH)
    ]
    malignancy = np.concatenate([output["malignancy_probability"] for output in outputs])
    return Answers(malignancy.astype(np.float64), np.concatenate([output["probabilities"].argmax(axis=1) for output in outputs]))


def _figures(step: Answers, taken: Answers, is_malignant: Array, groups: Array, threshold: float) -> dict[str, Interval]:
    flagged, before = step.malignancy >= threshold, taken.malignancy >= threshold
    return {
        "sensitivity": bootstrap_interval(mean, flagged[is_malignant], groups=groups[is_malignant]),
        "specificity": bootstrap_interval(mean, ~flagged[~is_malignant], groups=groups[~is_malignant]),
        "malignancy_probability": bootstrap_interval(mean, step.malignancy, groups=groups),
        "mean_shift": bootstrap_interval(mean, step.malignancy - taken.malignancy, groups=groups),
        "decision_flips": bootstrap_interval(mean, flagged != before, groups=groups),
        "label_flips": bootstrap_interval(mean, step.label != taken.label, groups=groups),
    }
