"""The clinical branch of the lesion network: answers hidden honestly, and the logistic regression that learns from them.

Arrays and one layer. It does not know photos, label names or files.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from inference.photo import YES_NO_FIELDS

_HIDDEN_COPIES = 20
# Settled on another split than the one reported: of 0.003, 0.01 and 0.03 this made held-out patients likeliest.
_ANSWER_SHRINKAGE = 0.01


def field_of_feature(feature_count: int) -> NDArray[np.int64]:
    """Which of the eight clinical fields each encoded feature belongs to: age, body site, the yes/no
    fields."""
    site_count = feature_count - 2 - 2 * len(YES_NO_FIELDS)
    answers = [2 + index for index in range(len(YES_NO_FIELDS)) for _ in range(2)]
    return np.array([0, 0, *[1] * site_count, *answers])


def hide_answers(
    clinical: NDArray[np.float32],
    targets: NDArray[np.int64],
    least_rate: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Hide clinical answers at random, so often in each class that "unknown" says nothing of the class.

    Who was asked what can give a diagnosis away (in PAD-UFES-20 `changed` is never unknown for actinic
    keratosis and for 30 % of carcinomas). Every class is brought to the rate of the class with most unknowns,
    and to `least_rate` at least, so the model learns what missing answers mean: nothing.
    """
    fields = field_of_feature(clinical.shape[1])
    hidden = clinical.copy()
    for field in np.unique(fields):
        columns = np.flatnonzero(fields == field)
        known: NDArray[np.bool_] = (clinical[:, columns] != 0).sum(axis=1) > 0
        rate_of = {label: 1 - known[targets == label].mean() for label in np.unique(targets)}
        unknown_rate = np.array([rate_of[label] for label in targets])
        wanted = min(max(least_rate, float(unknown_rate.max())), 0.95)
        chance = np.clip((wanted - unknown_rate) / np.maximum(1 - unknown_rate, 1e-9), 0.0, 1.0)
        rows = np.flatnonzero(generator.random(len(clinical)) < chance)
        hidden[np.ix_(rows, columns)] = 0.0
    return hidden


def fit_answers(branch: nn.Linear, clinical: NDArray[np.float32], targets: NDArray[np.int64], least_unknown_rate: float, seed: int) -> None:
    """Fit the clinical branch: multinomial logistic regression, each class weighing the same, answers hidden at random.

    Each answer adds its own log odds and there is no constant, so that an answer left out takes away what it said and
    no more, and no answers add nothing.
    """
    generator = np.random.default_rng(seed)
    hidden = [hide_answers(clinical, targets, least_unknown_rate, generator) for _ in range(_HIDDEN_COPIES)]
    answers, wanted = torch.from_numpy(np.concatenate(hidden)), torch.from_numpy(np.tile(targets, _HIDDEN_COPIES))
    counts = torch.bincount(wanted, minlength=branch.out_features)
    weight = len(wanted) / (counts.clamp(min=1) * (counts > 0).sum())
    optimiser = torch.optim.LBFGS([branch.weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(branch(answers), wanted, weight=weight.float()) + _ANSWER_SHRINKAGE * branch.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    nn.init.zeros_(branch.weight.requires_grad_(True))
    nn.init.zeros_(branch.bias)
    optimiser.step(closure)  # type: ignore[no-untyped-call]
