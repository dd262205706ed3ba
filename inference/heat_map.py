"""Where in a photo the lesion model's malignancy probability rests: occlusion sensitivity (Zeiler and Fergus, ECCV 2014).

Overlapping windows are covered with the photo's mean colour, one at a time; how far the probability falls is what a window
was worth. A heat map is no proof and no outline of a lesion: it shows one model's answers to altered photos, says nothing
of why, and can look convincing where the model is wrong. So nothing here decides anything, and a page shows it only to a
clinician who switches it on. Knows no files, no web and no labels but "malignant".
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.lesions import LesionModel, LesionRequest

CELLS = 9  # cells along a side of the grid
WINDOW_CELLS = 3  # a window covers 3 x 3 of them: large enough to hide a lesion's middle
_POSITIONS = CELLS - WINDOW_CELLS + 1
_SOFT_SHARE = 1 / 6  # of a window's side: hard edges are something new to the model, which answers to them
_WEIGHTS = np.outer((1.0, 2.0, 1.0), (1.0, 2.0, 1.0))  # a window tells most of its middle
BATCH = 8  # larger ones gain nothing on a processor

LONGEST_SIDE = 256  # of an overlay, in pixels
LEAST_FULL_FALL = 0.1  # a smaller fall is never shown at full strength: it would look like more than it is
STEPS = 6  # what is worth less than a sixth of the most is not shown
# From faint amber to strong pale yellow: lighter and denser step by step, so that it can be read without colours. Skin and what
# grows on it has neither, and a bluish veil would look like a sign of melanoma.
_FAINT, _STRONG = (255, 160, 0, 45), (255, 255, 170, 180)
_OUTLINE = (20, 20, 20, 230)  # around what is worth at least half as much as the most: shows on light skin too


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How far the malignancy probability falls when a part is covered.

    `grid` [CELLS, CELLS], rows from the top, in [-1, 1]: above 0 the part speaks for malignancy, below 0 against it. It lies
    over what the model saw of the upright photo of `photo_size` (width and height in pixels): all of it, or with
    `geometry` "centre_crop" the largest square in its middle. `malignancy_probability` in [0, 1] is the uncovered photo's.
    """

    grid: NDArray[np.float32]
    malignancy_probability: float
    photo_size: tuple[int, int]
    geometry: Literal["squash", "centre_crop"]


def heat_map(model: LesionModel, request: LesionRequest) -> HeatMap:
    """Score the photo once as it is and once with each window covered: 50 times the cost of its score, without the decoding.

    Raises PhotoError as reading the photo does, and BundleError when the model fails.
    """
    photo = model.ready(request)
    pixels = np.concatenate([photo.pixels[None], _covered(photo.pixels)])
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    probability = np.concatenate([model.malignancy(batch, photo.clinical) for batch in batches]).astype(np.float64)
    falls = (probability[0] - probability[1:]).reshape(_POSITIONS, _POSITIONS)
    return HeatMap(_spread(falls), float(probability[0]), photo.size, model.geometry)


def overlay_png(heat: HeatMap) -> bytes:
    """A transparent PNG with the photo's aspect, to be laid over the whole upright photo; a few kB.

    It shows only what speaks for malignancy. Full strength is the largest fall in the grid, or LEAST_FULL_FALL.
    """
    steps = _steps(heat)
    strong = np.pad(steps >= STEPS // 2, 1)
    inside = strong[:-2, 1:-1] & strong[2:, 1:-1] & strong[1:-1, :-2] & strong[1:-1, 2:]
    steps[strong[1:-1, 1:-1] & ~inside] = STEPS + 1
    palette = [(0, 0, 0, 0), *_ramp(), _OUTLINE]
    image = Image.fromarray(steps)
    image.putpalette([channel for colour in palette for channel in colour[:3]])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=bytes(colour[3] for colour in palette))
    return file.getvalue()


def _covered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo [S, S, 3] with each window covered, [windows, S, S, 3], row by row from the top."""
    values, fill = pixels.astype(np.float32), pixels.mean(axis=(0, 1), dtype=np.float32)
    edges = [round(cell * len(pixels) / CELLS) for cell in range(CELLS + 1)]
    spans = [(edges[first], edges[first + WINDOW_CELLS]) for first in range(_POSITIONS)]
    covered = np.repeat(pixels[None], _POSITIONS**2, axis=0)
    for copy, (top, bottom, left, right) in zip(covered, ((*rows, *columns) for rows in spans for columns in spans), strict=True):
        cover = np.outer(_cover(bottom - top), _cover(right - left))[..., None]
        window = values[top:bottom, left:right]
        copy[top:bottom, left:right] = np.rint(window + (fill - window) * cover)
    return covered


def _cover(side: int) -> NDArray[np.float32]:
    """How densely a window of `side` pixels covers along a side: 1, but less towards both ends."""
    from_end = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.clip(from_end / (side * _SOFT_SHARE), 0, 1).astype(np.float32)


def _spread(falls: NDArray[np.float64]) -> NDArray[np.float32]:
    """The windows' falls [positions, positions] over the cells that they cover, averaged by weight."""
    total, weight = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for row in range(_POSITIONS):
        for column in range(_POSITIONS):
            place = slice(row, row + WINDOW_CELLS), slice(column, column + WINDOW_CELLS)
            total[place] += falls[row, column] * _WEIGHTS
            weight[place] += _WEIGHTS
    return (total / weight).astype(np.float32)


def _steps(heat: HeatMap) -> NDArray[np.uint8]:
    """The overlay's strength in whole steps, 0 to STEPS, [height, width]; 0 where the model did not look."""
    scale = LONGEST_SIDE / max(heat.photo_size)
    width, height = (max(1, round(side * scale)) for side in heat.photo_size)
    seen = (width, height) if heat.geometry == "squash" else (min(width, height),) * 2
    falls = np.asarray(Image.fromarray(heat.grid).resize(seen, Image.Resampling.BICUBIC))
    share = np.clip(falls / max(float(heat.grid.max()), LEAST_FULL_FALL), 0, 1)
    steps = np.zeros((height, width), dtype=np.uint8)
    left, top = (width - seen[0]) // 2, (height - seen[1]) // 2
    steps[top : top + seen[1], left : left + seen[0]] = np.floor(share * STEPS)
    return steps


def _ramp() -> list[tuple[int, ...]]:
    """The colours with their opacity, R, G, B, A from 0 to 255, faintest first."""
    return [tuple(round(a + (b - a) * step / (STEPS - 1)) for a, b in zip(_FAINT, _STRONG, strict=True)) for step in range(STEPS)]
