"""How the answers join the photo: how much they count and what they add, set on patients that neither branch learned from.

A branch is too sure of what it learned from, and the photo branch more so. Arrays in, numbers out; it does not know
networks or labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from training.lesion_answers import field_of_feature

Array = NDArray[Any]
_CONSTANT_SHRINKAGE = 0.01
_AGE_VALUE = 0  # the one feature that measures instead of saying that something is known


@dataclass(frozen=True, slots=True)
class Fusion:
    """How answers change a photo's calibrated logits: their own count `weight` times, and each class gets its constant
    times the share of the fields that are known. No answers change nothing."""

    weight: float
    constants: tuple[float, ...]

    def apply(self, photo: Array, answers: Array, known: Array) -> Array:
        """Logits [n, classes] of calibrated photo logits and answers' logits [n, classes], `known` [n] of the fields."""
        fused: Array = photo + self.weight * answers + np.array(self.constants) * known[:, None]
        return fused

    def answer_weights(self, weights: Array, temperature: float) -> Array:
        """The clinical branch's weights [classes, features] that give the same once everything is divided by `temperature`."""
        fields = field_of_feature(weights.shape[1])
        tells = np.arange(weights.shape[1]) != _AGE_VALUE
        constant = np.array(self.constants)[:, None] * tells / len(np.unique(fields))
        fused: Array = temperature * (self.weight * weights + constant)
        return fused


def known_share(clinical: Array) -> NDArray[np.float64]:
    """The share of the fields that are known [n], of encoded answers [n, features]."""
    fields = field_of_feature(clinical.shape[1])
    is_known = [(clinical[:, fields == field] != 0).any(axis=1) for field in np.unique(fields)]
    share: NDArray[np.float64] = np.mean(is_known, axis=0)
    return share


def fit_fusion(photo: Array, answers: Array, known: Array, truth: NDArray[np.int64]) -> Fusion:
    """The fusion that makes held-out truths likeliest, each class weighing the same, the constants drawn gently to zero.

    `photo` are calibrated logits [n, classes], `answers` the clinical branch's. The weight is above 0, because answers
    never count against what they say.
    """
    counts = np.bincount(truth, minlength=photo.shape[1])
    balance = torch.from_numpy(len(truth) / (photo.shape[1] * np.maximum(counts, 1)))
    before, said, share = (torch.from_numpy(part.astype(np.float64)) for part in (photo, answers, known[:, None]))
    log_weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    constants = torch.zeros(photo.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_weight, constants], max_iter=100, line_search_fn="strong_wolfe")
    target = torch.from_numpy(truth)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(before + log_weight.exp() * said + constants * share, target, weight=balance)
        loss = loss + _CONSTANT_SHRINKAGE * constants.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    occurring = np.where(counts > 0, constants.detach().numpy(), 0.0)
    return Fusion(float(log_weight.detach().exp()), tuple(occurring.tolist()))
