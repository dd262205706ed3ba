"""The fitted part of the photo gate: whether a photo is blurred, and whether what it shows is a lesion on bare skin in white light.

Two small functions of the numbers of inference/photo_features.py, with coefficients from `photo_gate.toml` beside this
file, which `nabz-train photo-gate --fit` writes. It does not know advice, thumbnails or darkness.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOOD = "good"
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlurRule:
    """Blurred where `bias` + the sum of weight x feature is above 0."""

    weights: dict[str, float]
    bias: float

    def score(self, features: dict[str, float]) -> float:
        """Above 0: blurred."""
        return self.bias + sum(weight * features[name] for name, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class PictureNetwork:
    """A network of one hidden layer: features [f] to probabilities of `classes`, the first of which is `good`.

    `hidden` is [f, h], `out` [h, classes]. A photo whose probability of being good is below `least_good` has the problem
    that is the most probable of the others.
    """

    features: tuple[str, ...]
    classes: tuple[str, ...]
    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array
    least_good: float

    def probabilities(self, features: dict[str, float]) -> dict[str, float]:
        """The probability of each class; they sum to 1."""
        values = np.array([features[name] for name in self.features])
        logits = np.maximum(values @ self.hidden + self.hidden_bias, 0) @ self.out + self.out_bias
        powers = np.exp(logits - logits.max())
        return dict(zip(self.classes, (powers / powers.sum()).tolist(), strict=True))

    def problem(self, features: dict[str, float]) -> str | None:
        """What is wrong with the picture, by code; None when it is good."""
        found = self.probabilities(features)
        if found.pop(GOOD) >= self.least_good:
            return None
        return max(found, key=lambda code: found[code])


@dataclass(frozen=True, slots=True)
class FittedGate:
    """Both parts."""

    blur: BlurRule
    picture: PictureNetwork


@cache
def fitted_gate() -> FittedGate:
    """The gate that is shipped."""
    return read_gate(tomllib.loads(resources.files("inference").joinpath("photo_gate.toml").read_text("utf-8")))


def read_gate(numbers: dict[str, Any]) -> FittedGate:
    """The gate of the numbers in a parsed photo_gate.toml."""
    blur, picture = numbers["blur"], numbers["picture"]
    arrays = {name: np.array(picture[name], dtype=np.float64) for name in ("hidden", "hidden_bias", "out", "out_bias")}
    return FittedGate(
        BlurRule(dict(blur["weights"]), float(blur["bias"])),
        PictureNetwork(tuple(picture["features"]), tuple(picture["classes"]), least_good=float(picture["least_good"]), **arrays),
    )
