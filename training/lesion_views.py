"""Augmented photos in batches, as the stages that learn get them: drawn live, or made once and used by every fold.

The frozen stages are the same in every fold, so what they make of an augmented photo can be kept: `views` of
each photo, from which an epoch draws. This module does not know targets, clinical answers or losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.photo import PhotoRecipe, normalise
from training.hardware import CPU, Hardware
from training.lesion_augmentation import augmentation

Array = NDArray[Any]
_BATCH = 32


class LiveViews:
    """Augments when asked, with torch's global generator."""

    def __init__(
        self, stored: NDArray[np.uint8], frozen: nn.Module, recipe: PhotoRecipe, least_crop: float, machine: Hardware = CPU
    ) -> None:
        """`stored` [N, any, any, 3] are the photos; `frozen` is what comes before the stages that learn."""
        self.stored, self.frozen, self.recipe, self.machine = stored, frozen, recipe, machine
        self.augment = augmentation(recipe.size, least_crop)

    def batch(self, rows: NDArray[np.int64], generator: np.random.Generator, own: NDArray[np.int64] | None = None) -> Tensor:  # noqa: ARG002 (KeptViews draws with it)
        """A new view of each row, or of those at the places `own`, through the frozen stages: [rows, C, h, w]."""
        rows = rows if own is None else rows[own]
        photos = torch.stack([self.augment(torch.from_numpy(self.stored[row]).permute(2, 0, 1)) for row in rows])
        with torch.no_grad(), self.machine.arithmetic():
            seen: Tensor = self.frozen(self.machine.place(to_input(photos.permute(0, 2, 3, 1).numpy(), self.recipe)))
        return seen


class KeptViews:
    """Draws from views that were made before: [views, N, h, w, C] in a file."""

    def __init__(self, file: Path, machine: Hardware = CPU) -> None:
        self.kept: Array = np.load(file, mmap_mode="r")
        self.machine = machine

    def batch(self, rows: NDArray[np.int64], generator: np.random.Generator, own: NDArray[np.int64] | None = None) -> Tensor:
        """One of the kept views of each row, drawn for all and read for those at the places `own`: [rows, C, h, w]."""
        views = generator.integers(0, len(self.kept), len(rows))
        if own is not None:
            views, rows = views[own], rows[own]
        chosen = np.stack([self.kept[view, row] for view, row in zip(views, rows, strict=True)]).astype(np.float32)
        return self.machine.place(torch.from_numpy(chosen).permute(0, 3, 1, 2))


def keep_views(live: LiveViews, count: int, folder: Path, seed: int, recipe_name: str, on_view: Callable[[int], None]) -> Path:
    """Make `count` views of each photo and return their file; one that is there already is used as it is.

    `recipe_name` says all that the views depend on beside the photos, their count and the seed; `on_view` hears how
    many are done.
    """
    fingerprint = hashlib.sha256(f"{recipe_name} {count} {seed}".encode() + live.stored.tobytes()).hexdigest()[:16]
    file = folder / f"views_{fingerprint}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        kept: Any = None
        torch.manual_seed(seed)
        generator, everyone = np.random.default_rng(seed), np.arange(len(live.stored))
        for view in range(count):
            for at in range(0, len(everyone), _BATCH):
                seen = live.batch(everyone[at : at + _BATCH], generator).float().cpu().permute(0, 2, 3, 1).numpy()
                if kept is None:
                    shape = (count, len(everyone), *seen.shape[1:])
                    kept = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape)
                kept[view, at : at + _BATCH] = seen
            on_view(view + 1)
        kept.flush()
        unfinished.replace(file)
    on_view(count)
    return file


def to_input(pixels: Array, recipe: PhotoRecipe) -> Tensor:
    """Normalise as inference does, in the memory layout that is fastest on a CPU."""
    return torch.from_numpy(normalise(pixels, recipe)).contiguous(memory_format=torch.channels_last)
