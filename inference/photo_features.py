"""What the photo gate looks at: some forty numbers of a small copy of a photo. It judges nothing.

Sharpness in four directions at three scales, light, colour, and how the middle differs from the rim. All are made to
change little with the skin's tone: differences are taken relative to the light there is, colours as ratios.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Longest side of the copy that is judged: blur that cannot be seen at this size cannot be seen by the model.
JUDGED_SIDE = 128
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MID_GREY, LEAST_RELATIVE_LUMA = 128.0, 0.2
SKIN_RED_TO_BLUE, SKIN_RED_TO_GREEN, LEAST_SKIN_RED = 1.08, 1.02, 20
_BURNT_FROM = 250.0
_LUMA = np.array(LUMA, dtype=np.float32)
_MAP = 32  # side of the coarse map on which the middle is compared with the rim
_AXIS = np.linspace(-1, 1, _MAP)
_RADIUS = np.sqrt(_AXIS[:, None] ** 2 + _AXIS[None, :] ** 2)
_MIDDLE, _RIM = _RADIUS < 0.35, _RADIUS > 0.8
_BLOCK = 4
LEAST_JUDGED_SIDE = 16  # a copy with a shorter side has no features
_FLOOR = 1e-3

Array = NDArray[np.float32]


def judged_copy(image: Image.Image) -> Image.Image:
    """The copy that is judged: the longer side at most `JUDGED_SIDE`, each pixel the mean of those it stands for."""
    scale = min(1.0, JUDGED_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def luma_of(pixels: Array) -> Array:
    """Luma [H, W] in 0-255 of RGB pixels [H, W, 3]."""
    return pixels @ _LUMA


def detail(luma: Array) -> tuple[float, float, float, float]:
    """Mean squared second difference of luma [H, W] across, down and along both diagonals, the latter at half weight."""
    middle = luma[1:-1, 1:-1]
    if middle.size == 0:
        return (0.0, 0.0, 0.0, 0.0)
    twice = 2 * middle
    pairs = (
        (luma[1:-1, :-2], luma[1:-1, 2:], 1.0),
        (luma[:-2, 1:-1], luma[2:, 1:-1], 1.0),
        (luma[:-2, :-2], luma[2:, 2:], 0.25),
        (luma[:-2, 2:], luma[2:, :-2], 0.25),
    )
    found = []
    for one, other, weight in pairs:
        difference = (one + other - twice).ravel()
        found.append(weight * float(difference @ difference) / difference.size)
    return (found[0], found[1], found[2], found[3])


def halved(luma: Array) -> Array:
    """Luma at half the size: the mean of each 2 x 2."""
    height, width = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
    even = luma[:height, :width]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(0.25)


def relative_light(luma: Array) -> float:
    """Mean luma relative to mid-grey, at least `LEAST_RELATIVE_LUMA`: what differences are divided by.

    Dark skin reflects less light and so shows smaller differences; divided by it, it is as sharp as light skin.
    """
    return max(float(luma.mean()) / MID_GREY, LEAST_RELATIVE_LUMA)


def is_skin_hued(pixels: Array) -> NDArray[np.bool_]:
    """Which RGB pixels [..., 3] have a hue that could be skin.

    Skin of every tone is warm: melanin and blood both absorb blue and green more than red, and lightness does not matter to
    the ratio. The rule is loose on purpose (lesions are skin too): paper, sky, leaves or a screen fail it, a face at dusk
    does not.
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return (red > SKIN_RED_TO_BLUE * blue) & (red > SKIN_RED_TO_GREEN * green) & (red > LEAST_SKIN_RED)


def picture_features(small: Image.Image, pixels: Array, luma: Array) -> dict[str, float]:
    """The numbers by name, of the judged copy, its pixels [H, W, 3] and luma [H, W]. An image too small for them gives none."""
    if min(luma.shape) < LEAST_JUDGED_SIDE:
        return {}
    return _sharpness(luma) | _light(pixels, luma) | _layout(small) | _blocks(luma)


def _log(value: float) -> float:
    return float(np.log(max(value, _FLOOR)))


def relative_detail(luma: Array) -> float:
    """Logarithm of the finest detail of luma [H, W] relative to the light there is: falls with blur, not with dark skin."""
    return _log(float(np.mean(detail(luma))) / relative_light(luma) ** 2)


def _sharpness(luma: Array) -> dict[str, float]:
    half = halved(luma)
    details = [detail(luma), detail(half), detail(halved(half))]
    light = relative_light(luma) ** 2
    logs = np.log(np.maximum(np.array(details), _FLOOR))
    fine, coarse = logs[0] - logs[1], logs[1] - logs[2]
    return {
        "detail": _log(float(np.mean(details[0])) / light),
        "least_detail": _log(min(details[0]) / light),
        "half_detail": _log(float(np.mean(details[1])) / light),
        "fine_to_half": float(fine.mean()),
        "least_fine_to_half": float(fine.min()),
        "half_to_coarse": float(coarse.mean()),
        "least_half_to_coarse": float(coarse.min()),
        "across_to_down": float(abs(logs[0][0] - logs[0][1])),
        "half_across_to_down": float(abs(logs[1][0] - logs[1][1])),
        "half_diagonals": float(abs(logs[1][2] - logs[1][3])),
    }


def _light(pixels: Array, luma: Array) -> dict[str, float]:
    height, width = luma.shape
    is_skin = is_skin_hued(pixels)
    middle = is_skin[int(height * 0.3) : int(height * 0.7), int(width * 0.3) : int(width * 0.7)]
    ordered = np.sort(luma, axis=None)
    brightest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    low, mid, high = (float(ordered[int(share * (len(ordered) - 1))]) / 255 for share in (0.05, 0.5, 0.95))
    return {
        "low": low,
        "mid": mid,
        "high": high,
        "burnt": float((brightest >= _BURNT_FROM).mean()),
        "skin": float(is_skin.mean()),
        "middle_skin": float(middle.mean()),
    }


def _layout(small: Image.Image) -> dict[str, float]:
    """Light and the two colour ratios on a coarse map: middle against rim, spread, extremes and steps between neighbours."""
    coarse = np.asarray(small.resize((_MAP, _MAP), Image.Resampling.BOX), dtype=np.float32)
    light = np.log(coarse @ _LUMA + 8)
    logs = np.log(coarse + 4)
    found: dict[str, float] = {}
    for name, values in (("light", light), ("red", logs[..., 0] - logs[..., 1]), ("blue", logs[..., 2] - logs[..., 1])):
        rim = np.sort(values[_RIM])
        middle = values[_MIDDLE]
        ordered = np.sort(values, axis=None)
        median = float(ordered[len(ordered) // 2])
        apart = float(middle.mean() - rim[len(rim) // 2])
        spread = float(rim.std())
        found |= {
            name: median,
            f"{name}_apart": abs(apart),
            f"{name}_apart_relative": abs(apart) / (spread + 0.02),
            f"{name}_middle_spread": float(middle.std()),
            f"{name}_rim_spread": spread,
            f"{name}_low": median - float(ordered[len(ordered) // 100]),
            f"{name}_high": float(ordered[-1 - len(ordered) // 100]) - median,
            **_steps(name, values),
        }
    return found


def _steps(name: str, values: NDArray[np.float32]) -> dict[str, float]:
    steps = np.sort(np.maximum(np.abs(np.diff(values, axis=0))[:, :-1], np.abs(np.diff(values, axis=1))[:-1]), axis=None)
    return {f"{name}_step": float(steps[-1 - len(steps) // 100]), f"{name}_usual_step": float(steps[len(steps) // 2])}


def _blocks(luma: Array) -> dict[str, float]:
    """How much luma varies inside blocks of 4 x 4: usually, in the plainest and the busiest, and in the middle."""
    height, width = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
    blocks = luma[: height * _BLOCK, : width * _BLOCK].reshape(height, _BLOCK, width, _BLOCK)
    spread = blocks.std(axis=(1, 3))
    ordered = np.sort(spread, axis=None)
    usual = _log(float(ordered[len(ordered) // 2]))
    middle = spread[int(height * 0.3) : int(height * 0.7) + 1, int(width * 0.3) : int(width * 0.7) + 1]
    return {
        "block": usual,
        "plain_block": _log(float(ordered[len(ordered) // 10])),
        "busy_block": _log(float(ordered[len(ordered) * 9 // 10])),
        "middle_block": _log(float(np.median(middle))) - usual,
    }
