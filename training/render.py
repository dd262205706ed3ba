"""Renders invented skin photos, so that the sample and the tests need no patient's picture. Synthetic, and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Plausible sRGB of skin from light to dark, by Fitzpatrick type; drawn by eye.
SKIN_TONES = {2: (226, 188, 162), 3: (208, 165, 132), 4: (178, 132, 98), 5: (134, 92, 66), 6: (88, 60, 45)}


def render_lesion(
    seed: int, skin_type: int, colour: tuple[int, int, int], radius: float, roughness: float, size: tuple[int, int] = (800, 600)
) -> Image.Image:
    """A skin patch with pores and uneven light, and one blotch: `radius` as a share of the width, edge by `roughness`."""
    random = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    skin = np.array(SKIN_TONES[skin_type], dtype=np.float32) + 7 * _noise(random, height, width, 3)[..., None]
    skin += 5 * _noise(random, height, width, 40)[..., None] + 12 * ((x / width - 0.5) * random.uniform(-1, 1))[..., None]
    angle = np.arctan2(y - height / 2, x - width / 2)
    waves = sum(random.uniform(-1, 1) * np.sin(k * angle + random.uniform(0, 6.3)) / k for k in range(2, 9))
    edge = radius * width * (1 + roughness * waves)
    inside = 1 / (1 + np.exp(np.clip((np.hypot(x - width / 2, (y - height / 2) * 1.1) - edge) / 4, -30, 30)))
    blotch = np.array(colour, dtype=np.float32) + 14 * roughness * 3 * _noise(random, height, width, 12)[..., None]
    pixels = skin * (1 - inside[..., None]) + blotch * inside[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))


def write_sample_photos(folder: Path) -> None:
    """The photos of `data/sample`: a mole, a dark irregular patch, a pearly lump, and one that is far too blurred."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "mole.jpg": render_lesion(1, 4, (110, 74, 52), 0.07, 0.05),
        "dark_patch.jpg": render_lesion(2, 3, (52, 36, 38), 0.16, 0.55),
        "pearly_lump.jpg": render_lesion(3, 3, (222, 150, 140), 0.09, 0.15),
        "blurred.jpg": render_lesion(4, 5, (80, 50, 44), 0.12, 0.3).filter(ImageFilter.GaussianBlur(22)),
    }
    for name, picture in pictures.items():
        picture.save(folder / name, quality=82)


def _noise(random: np.random.Generator, height: int, width: int, scale: int) -> NDArray[np.float32]:
    """Smooth noise with unit spread and grains of about `scale` pixels."""
    coarse = random.standard_normal((height // scale + 2, width // scale + 2)).astype(np.float32)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32)
