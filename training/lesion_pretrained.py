"""A backbone that one run learned, kept as a file from which another can begin, with where it comes from.

The licence of what it learned from travels inside, so that a network begun from it cannot lose it. This module
does not know photos, folds or bundles.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.bundle import DataSource
from inference.errors import DataError


@dataclass(frozen=True)
class LearnedBackbone:
    """Weights of the backbone called `backbone`, the data they were learned from, and the limits these set."""

    backbone: str
    weights: Mapping[str, Tensor]
    source: DataSource
    limits: tuple[str, ...]


def keep_backbone(learned: LearnedBackbone, file: Path) -> None:
    """Write it, replacing what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    content = {"backbone": learned.backbone, "source": learned.source.model_dump(), "limits": list(learned.limits)}
    torch.save({**content, "weights": dict(learned.weights)}, unfinished)
    unfinished.replace(file)


def read_backbone(file: Path) -> LearnedBackbone:
    """Read what `keep_backbone` wrote. Raises DataError when it is something else."""
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu")
        return LearnedBackbone(saved["backbone"], saved["weights"], DataSource(**saved["source"]), tuple(saved["limits"]))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{file}: not a learned backbone; expected the backbone.pt that a run of nabz-train lesions left") from error


def begin_from(learned: LearnedBackbone, network: nn.Module, backbone: str) -> None:
    """Load its weights into `network`. Raises DataError when that is of another kind."""
    if learned.backbone != backbone:
        raise DataError(f"the learned backbone is {learned.backbone} and the plan wants {backbone}; give --backbone {learned.backbone}")
    network.load_state_dict(dict(learned.weights))
