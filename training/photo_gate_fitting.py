"""Fits the photo gate's two small functions on graded photos, and writes them as `inference/photo_gate.toml` holds them.

Thresholds are chosen on photos that the coefficients did not see: other patients of the half that is for fitting.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from inference.photo_gate import GOOD

Array = NDArray[Any]
# Of good photos of the other patients: together with what is too dark or bright well below one in twenty.
MOST_BLURRED, MOST_OTHERWISE = 0.01, 0.025
BLUR_FEATURES = (
    "detail", "least_detail", "half_detail", "fine_to_half", "least_fine_to_half", "half_to_coarse", "least_half_to_coarse",
    "across_to_down", "half_across_to_down", "half_diagonals",
)  # fmt: skip
PROBLEM_OF = {"colour_cast": "colour_cast", "finger": "covered", "cloth": "covered", "bare_skin": "no_lesion"}
OTHER_PICTURE = "unfamiliar"
BLURS = ("gaussian_blur", "motion_blur")
LIGHTS = ("too_little_light", "too_much_light")
_HIDDEN, _SHRINKAGE, _STEPS = 12, 1.0, 600
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """A graded photo without its pixels: its features and what is known of it."""

    features: dict[str, float]
    kind: str
    grade: float
    verdict: Literal["good", "between", "bad"]
    group: str


def fit_gate(photos: Sequence[Judged], seed: int = 0) -> dict[str, Any]:
    """The content of photo_gate.toml, from the graded photos of the patients that are for fitting."""
    return {"blur": _fit_blur(photos), "picture": _fit_picture(photos, seed)}


def as_toml(numbers: dict[str, Any], note: str) -> str:
    """The numbers as TOML, with a note on where they come from."""
    lines = [f"# {line}" for line in note.splitlines()]
    for table, fields in numbers.items():
        lines.append(f"\n[{table}]")
        for name, value in fields.items():
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        separator = ",\n  " if value and isinstance(value[0], list) else ", "
        return "[" + separator.join(_toml(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _fit_blur(photos: Sequence[Judged]) -> dict[str, Any]:
    """Blurred photos against all others that are sharp and lit: what covers the lesion is as sharp as any."""
    used = [one for one in photos if one.features and one.kind not in LIGHTS and one.verdict != "between" and _is_blur_case(one)]
    values = np.array([[one.features[name] for name in BLUR_FEATURES] for one in used])
    is_blurred = np.array([one.kind in BLURS and one.verdict == "bad" for one in used])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    part = _halves(used)
    cross = np.zeros(len(used))
    for half in (0, 1):
        cross[part == half] = _logistic((values - mean) / scale, is_blurred, part != half).decision_function(
            (values[part == half] - mean) / scale
        )
    is_taken = np.array([one.kind == "as_taken" for one in used])
    threshold = float(np.quantile(cross[is_taken], 1 - MOST_BLURRED)) if is_taken.any() else 0.0
    model = _logistic((values - mean) / scale, is_blurred, np.ones(len(used), dtype=bool))
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ mean - threshold)
    return {
        "bias": round(bias, _DIGITS),
        "weights": {name: round(float(w), _DIGITS) for name, w in zip(BLUR_FEATURES, weights, strict=True)},
    }


def _is_blur_case(one: Judged) -> bool:
    return one.kind in BLURS or one.kind == "as_taken" or one.kind.startswith("tone_")


def _logistic(values: Array, truth: Array, rows: Array) -> LogisticRegression:
    return LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000).fit(values[rows], truth[rows])


def _fit_picture(photos: Sequence[Judged], seed: int) -> dict[str, Any]:
    used = [(one, found) for one in photos if one.features and (found := _truth(one)) is not None]
    names = list(used[0][0].features)
    classes = [GOOD, *dict.fromkeys(PROBLEM_OF.values()), OTHER_PICTURE]
    values = np.array([[one.features[name] for name in names] for one, _ in used])
    truth = np.array([classes.index(name) for _, name in used])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    scaled = ((values - mean) / scale).clip(-8, 8)
    part = _halves([one for one, _ in used])
    good = np.zeros(len(used))
    for half in (0, 1):
        model = _network(scaled[part != half], truth[part != half], seed)
        good[part == half] = model.predict_proba(scaled[part == half])[:, 0]
    is_taken = np.array([one.kind == "as_taken" for one, _ in used])
    least_good = float(np.quantile(good[is_taken], MOST_OTHERWISE))
    model = _network(scaled, truth, seed)
    hidden = model.coefs_[0] / scale[:, None]
    return {
        "features": names,
        "classes": classes,
        "least_good": round(least_good, _DIGITS),
        "hidden": _rounded(hidden),
        "hidden_bias": _rounded(model.intercepts_[0] - mean @ hidden),
        "out": _rounded(model.coefs_[1]),
        "out_bias": _rounded(model.intercepts_[1]),
    }


def _truth(one: Judged) -> str | None:
    """The class of a photo for the picture network; None where it should not learn from it."""
    if one.verdict == "between" or one.kind == "thumbnail":
        return None
    if one.verdict == "good":
        return GOOD
    if one.kind in BLURS or one.kind in LIGHTS:
        return None
    return PROBLEM_OF.get(one.kind, OTHER_PICTURE)


def _network(values: Array, truth: Array, seed: int) -> MLPClassifier:
    return MLPClassifier((_HIDDEN,), alpha=_SHRINKAGE, solver="lbfgs", max_iter=_STEPS, random_state=seed).fit(values, truth)


def _halves(photos: Sequence[Judged]) -> NDArray[np.int64]:
    return np.array([zlib.crc32(f"half {one.group}".encode()) % 2 for one in photos], dtype=np.int64)


def _rounded(values: Array) -> list[Any]:
    rounded: list[Any] = np.round(values, _DIGITS).tolist()
    return rounded
