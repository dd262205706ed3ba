"""How dark the skin around a lesion looks in its photo: the individual typology angle (ITA) and its tone group.

An estimate from an uncalibrated photo: dim or coloured light moves it by a group or more, and it says nothing of a person.
It knows no model and no urgency. It is used where the skin type was not said, and only to ask for more care.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ToneGroup = Literal["very light", "light", "intermediate", "tan", "brown", "dark"]

# ITA in degrees from which each group starts: Del Bino and Bernerd 2013, Br J Dermatol 169 Suppl 3:33-40.
TONE_GROUPS: tuple[tuple[ToneGroup, float], ...] = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -90.0),
)
DARKER_GROUPS: frozenset[ToneGroup] = frozenset({"brown", "dark"})
DARKER_SKIN_TYPES = frozenset({5, 6})  # Fitzpatrick

_SIDE = 32
_LESION_RADIUS = 0.5  # the disc left out in the middle, as a share of half of each side
_BLACK, _BURNT = 12.0, 254.0
_LEAST_PIXELS = 40
_AXIS = np.linspace(-1, 1, _SIDE)
_AROUND = (_AXIS[:, None] ** 2 + _AXIS[None, :] ** 2) > _LESION_RADIUS**2
XYZ_OF_LINEAR = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])  # D65
_CUBE_LIMIT, _SLOPE = (6 / 29) ** 3, (29 / 6) ** 2 / 3


@dataclass(frozen=True, slots=True)
class SkinTone:
    """The estimated tone of the skin in a photo: ITA in degrees, -90 to 90, and its group."""

    ita_degrees: float
    group: ToneGroup


def estimate_skin_tone(image: Image.Image) -> SkinTone | None:
    """The tone of the warm pixels around the middle of an RGB photo; None where too few of them are skin-coloured.

    ITA = atan((L* - 50) / b*) (Chardon, Cretois and Hourseau 1991, Int J Cosmet Sci 13:191-208), of the median skin pixel.
    """
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
    pixels = small[_AROUND]
    red, green, blue = pixels.T
    is_skin = (red > green) & (green > 0.9 * blue) & (red > _BLACK) & (pixels.max(axis=1) < _BURNT)
    if np.count_nonzero(is_skin) < _LEAST_PIXELS:
        return None
    lightness, _, yellow = lab(np.median(pixels[is_skin], axis=0))
    degrees = float(np.degrees(np.arctan2(lightness - 50.0, max(yellow, 0.1))))
    return SkinTone(degrees, tone_group(degrees))


def tone_group(ita_degrees: float) -> ToneGroup:
    """The group of an angle in degrees."""
    return next((name for name, least in TONE_GROUPS if ita_degrees > least), "dark")


def linear_light(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear light in [0, 1] of sRGB in 0-255 (IEC 61966-2-1)."""
    share = srgb / 255.0
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65, 2 degrees) of sRGB [..., 3] in 0-255 (CIE 15)."""
    ratio = linear_light(srgb) @ XYZ_OF_LINEAR.T / WHITE_D65
    root = np.where(ratio > _CUBE_LIMIT, np.cbrt(ratio), _SLOPE * ratio + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
