"""Where in a photo the lesion model's malignancy probability rests: its bundle's heat map, drawn to lie over the photo.

The bundle's own output (class activation mapping, Zhou et al., CVPR 2016) says how far the probability falls if a part of
the photo, looking like one place, looked like the photo's mean. A place sees its surroundings too, so the map is coarse: no
proof and no outline of a lesion. It says nothing of why, and can look convincing where the model is wrong. So nothing here
decides anything, and a page shows it only to a clinician who switches it on. Knows no files, no web and no labels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.lesions import LesionModel, LesionRequest

LONGEST_SIDE = 256  # of an overlay, in pixels
LEAST_FULL_FALL = 0.03  # a smaller fall is never shown at full strength: it would look like more than it is
STEPS = 6  # what is worth less than a sixth of the most is not shown
# From faint amber to strong pale yellow: lighter and denser step by step, so that it can be read without colours. Skin and what
# grows on it has neither, and a bluish veil would look like a sign of melanoma.
_FAINT, _STRONG = (255, 160, 0, 45), (255, 255, 170, 180)
_OUTLINE = (20, 20, 20, 230)  # around what is worth at least half as much as the most: shows on light skin too


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How far the malignancy probability falls without what a place looks like.

    `grid` [rows, columns], rows from the top, in [-1, 1]: above 0 the place speaks for malignancy, below 0 against it. It
    lies over what the model saw of the upright photo of `photo_size` (width and height in pixels): all of it, or with
    `geometry` "centre_crop" the largest square in its middle. `malignancy_probability` in [0, 1] is the photo's.
    """

    grid: NDArray[np.float32]
    malignancy_probability: float
    photo_size: tuple[int, int]
    geometry: Literal["squash", "centre_crop"]


def heat_map(model: LesionModel, request: LesionRequest) -> HeatMap:
    """Score the photo once, heat map included.

    Raises PhotoError as reading the photo does, and BundleError when the model fails or gives no heat map.
    """
    photo = model.ready(request)
    grid, probability = model.heat(photo)
    return HeatMap(grid, probability, photo.size, model.geometry)


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
