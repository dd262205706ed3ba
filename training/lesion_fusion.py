"""How much the answers count beside the photo: one weight, set on patients that neither branch learned from.

A branch is too sure of what it learned from, and the photo branch more so. Arrays in, numbers out; it does not
know networks or labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

Array = NDArray[Any]
_OFFSET_SHRINKAGE = 0.01


def answer_weight(full: Array, photo_only: Array, truth: NDArray[np.int64]) -> float:
    """The weight of the answers' logits (`full` less `photo_only`, each [n, classes]) that makes held-out truths likeliest.

    Each class weighs the same, and a temperature and offsets are free beside it, as in the calibration that follows.
    Above 0, because answers never count against what they say; 1 where they say nothing.
    """
    photo, answers = (torch.from_numpy(part.astype(np.float64)) for part in (photo_only, full - photo_only))
    if not bool(answers.any()):
        return 1.0
    counts = np.bincount(truth, minlength=full.shape[1])
    balance = torch.from_numpy(len(truth) / (full.shape[1] * np.maximum(counts, 1)))
    scales = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # logs of the photo's and the answers' scale
    offsets = torch.zeros(full.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scales, offsets], max_iter=100, line_search_fn="strong_wolfe")
    target = torch.from_numpy(truth)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        photo_scale, answer_scale = scales.exp()
        loss = cross_entropy(photo_scale * photo + answer_scale * answers + offsets, target, weight=balance)
        loss = loss + _OFFSET_SHRINKAGE * offsets.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    photo_scale, answer_scale = scales.detach().exp().tolist()
    return float(answer_scale / photo_scale)


def weighed(full: Array, photo_only: Array, weight: float) -> Array:
    """The logits [n, classes] with answers counting by `weight`."""
    logits: Array = photo_only + np.float32(weight) * (full - photo_only)
    return logits
