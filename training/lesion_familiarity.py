"""How unlike the photos of training a photo is: the Mahalanobis distance of its embedding.

Knows embeddings and class indices, never what a photo shows or what follows from being unfamiliar.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]
# Of the photos of patients that the network did not learn from, so many are familiar.
FAMILIAR_SHARE = 0.99
DIRECTIONS = 64
METHOD = (
    "Mahalanobis distance of the embedding, scaled to one length (Müller and Hein, ICML 2025), to the nearest class mean, shared "
    f"covariance (Lee et al., NeurIPS 2018), shrunk to {DIRECTIONS} directions and one variance for the rest (Tipping and Bishop "
    "1999), divided by the number of features"
)


class Familiarity(nn.Module):
    """Embeddings [N, D] to unfamiliarity [N]: the mean squared distance per feature, 1 on average where nothing is new.

    Embeddings are scaled to one length first. Measured on held-out photos of PAD-UFES-20: at the threshold that 1 % of them
    exceed, paper, plain colours, noise and photos without skin are all caught with it and hardly any without, because
    what a network does not know gives short embeddings, near to everything.
    """

    means: Tensor
    directions: Tensor
    discounts: Tensor

    def __init__(self, means: Tensor, directions: Tensor, discounts: Tensor, rest: float) -> None:
        """`means` [classes, D]; `directions` [D, r] are orthonormal, and along each a squared distance counts by
        `discounts` [r] less than the rest, which counts 1 / `rest`."""
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("directions", directions)
        self.register_buffer("discounts", discounts)
        self.rest = rest

    def forward(self, embedding: Tensor) -> Tensor:
        """Measure a batch."""
        away = _of_one_length(embedding)[:, None, :] - self.means
        distance = (away * away).sum(dim=2) / self.rest
        along = away @ self.directions
        distance = distance - (along * along) @ self.discounts
        nearest: Tensor = -(-distance).amax(dim=1) / self.means.shape[1]  # a bundle may not use ReduceMin
        return nearest


def fit_familiarity(embeddings: Array, targets: NDArray[np.int64], directions: int = DIRECTIONS) -> Familiarity:
    """The class means and the shared covariance of training embeddings [n, D] with class indices [n].

    The covariance keeps its `directions` strongest directions (fewer where there are fewer examples) and takes one
    variance for all others: with hundreds of photos for a thousand features it could not be inverted otherwise.
    """
    values = _of_one_length(torch.from_numpy(embeddings.astype(np.float64))).numpy()
    present = np.unique(targets)
    means = np.stack([values[targets == label].mean(axis=0) for label in present])
    within = values - means[np.searchsorted(present, targets)]
    degrees = max(1, len(values) - len(present))
    _, spread, axes = np.linalg.svd(within, full_matrices=False)
    variances = spread**2 / degrees
    kept = min(directions, max(1, (len(variances) - 1) // 2))
    features = values.shape[1]
    rest = max(float(variances[kept:].sum()) / max(1, features - kept), 1e-6)
    discounts = 1 / rest - 1 / np.maximum(variances[:kept], rest)
    return Familiarity(_tensor(means), _tensor(axes[:kept].T), _tensor(discounts), rest)


def unfamiliarity(familiarity: Familiarity, embeddings: Array) -> NDArray[np.float32]:
    """The unfamiliarity [n] of embeddings [n, D]."""
    with torch.no_grad():
        found: NDArray[np.float32] = familiarity(torch.from_numpy(embeddings)).numpy()
    return found


def out_of_distribution(held_out: Array, patients: int) -> dict[str, Any]:
    """What the contract says: the threshold that FAMILIAR_SHARE of the held-out photos' unfamiliarity [n] do not exceed."""
    threshold = float(np.quantile(held_out, FAMILIAR_SHARE, method="higher"))
    return {
        "output": "unfamiliarity",
        "method": METHOD,
        "threshold": threshold,
        "quantile": FAMILIAR_SHARE,
        "n": len(held_out),
        "patients": patients,
    }


def _of_one_length(embedding: Tensor) -> Tensor:
    """Scaled so that the mean square of its features is 1; an embedding of zeros stays as it is."""
    mean_square = (embedding * embedding).mean(dim=1, keepdim=True)
    return embedding / (mean_square + 1e-12).sqrt()


def _tensor(values: Array) -> Tensor:
    return torch.tensor(values.copy(), dtype=torch.float32)
