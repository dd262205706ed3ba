"""The photo gate: whether a photo can be read at all, and if not, what the health worker should do.

Works on a small copy of the photo, so that it costs about a millisecond. It knows nothing of files, models or
diagnoses. A photo that fails is still scored; the caller decides what a failed gate means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.skin_tone import SkinTone, estimate_skin_tone

# Longest side of the copy that is judged: blur that cannot be seen at this size cannot be seen by the model.
JUDGED_SIDE = 256
LEAST_SIDE = 128
UNFAMILIAR = "unfamiliar"  # found by the lesion model, not here: the photo is unlike all that it learned from
# The thresholds leave the photos of PAD-UFES-20 in (under 2 % refused) and synthetic failures out.
LEAST_LAPLACIAN_VARIANCE = 5.0
DARK_LUMA, BRIGHT_LUMA = 40.0, 235.0
DARK_PERCENTILE, BRIGHT_PERCENTILE = 95, 20
LEAST_SKIN_SHARE = 0.10
SKIN_RED_TO_BLUE, SKIN_RED_TO_GREEN, LEAST_SKIN_RED = 1.08, 1.02, 20
MID_GREY, LEAST_RELATIVE_LUMA = 128.0, 0.2
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_LUMA = np.array(LUMA, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PhotoProblem:
    """One thing wrong with a photo, and what to do, in English and Urdu."""

    code: str
    advice_en: str
    advice_ur: str


@dataclass(frozen=True, slots=True)
class PhotoQuality:
    """The gate's verdict: `ok` when no problem was found."""

    ok: bool
    problems: tuple[PhotoProblem, ...] = ()
    tone: SkinTone | None = None


_PROBLEMS = {
    problem.code: problem
    for problem in (
        PhotoProblem(
            "too_small",
            f"The photo has fewer than {LEAST_SIDE} pixels a side: send the original, not a thumbnail.",
            "تصویر بہت چھوٹی ہے: اصل تصویر بھیجیں، اس کی چھوٹی نقل یا اسکرین شاٹ نہیں۔",
        ),
        PhotoProblem(
            "too_dark",
            "The photo is too dark: take it again in daylight or close to a lamp.",
            "تصویر بہت تاریک ہے: دن کی روشنی میں یا لیمپ کے قریب دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "too_bright",
            "The photo is too bright: turn the flash off, leave direct sun, and take it again.",
            "تصویر بہت روشن ہے: فلیش بند کریں، براہِ راست دھوپ سے ہٹیں اور دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "blurred",
            "The photo is blurred: hold the phone still, tap the lesion to focus, and take it again.",
            "تصویر دھندلی ہے: فون کو ساکت رکھیں، جلد کے نشان پر فوکس کریں اور دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "no_skin",
            "No skin can be seen: take it again, close to the affected skin and in white light.",
            "تصویر میں جلد نظر نہیں آ رہی: سفید روشنی میں کیمرا متاثرہ جلد کے قریب لا کر دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "colour_cast",
            "The light is coloured: take the photo again in daylight or under a white lamp, without a filter.",
            "روشنی رنگین ہے: دن کی روشنی یا سفید لیمپ میں، کسی فلٹر کے بغیر دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "covered",
            "Something covers the lesion: take away finger, cloth or plaster and take the photo again.",
            "جلد کا نشان ڈھکا ہوا ہے: انگلی، کپڑا یا پٹی ہٹا کر دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            "no_lesion",
            "No lesion can be seen: come closer, so that it lies in the middle, and take the photo again.",
            "جلد کا نشان نظر نہیں آ رہا: قریب آئیں، نشان کو درمیان میں رکھیں اور دوبارہ تصویر لیں۔",
        ),
        PhotoProblem(
            UNFAMILIAR,
            "The photo is unlike any that the lesion model knows: come closer, with the lesion in the middle, and take it again.",
            "یہ تصویر ان تصویروں جیسی نہیں جو جلد کا ماڈل جانتا ہے: قریب آئیں، نشان کو درمیان میں رکھیں اور دوبارہ تصویر لیں۔",
        ),
    )
}


def photo_problems() -> tuple[PhotoProblem, ...]:
    """Everything that can be wrong with a photo, with the advice."""
    return tuple(_PROBLEMS.values())


def photo_problem(code: str) -> PhotoProblem:
    """One problem by its code; KeyError for a code that the gate does not know."""
    return _PROBLEMS[code]


def gate_numbers() -> dict[str, Any]:
    """The gate's numbers, for a phone that judges a photo before it is sent: `static/intake_photo.js` goes by these."""
    return {
        "judged_side": JUDGED_SIDE,
        "least_side": LEAST_SIDE,
        "least_variance": LEAST_LAPLACIAN_VARIANCE,
        "dark": [DARK_PERCENTILE, DARK_LUMA],
        "bright": [BRIGHT_PERCENTILE, BRIGHT_LUMA],
        "least_skin": LEAST_SKIN_SHARE,
        "skin": [SKIN_RED_TO_BLUE, SKIN_RED_TO_GREEN, LEAST_SKIN_RED],
        "grey": [MID_GREY, LEAST_RELATIVE_LUMA],
        "luma": LUMA,
    }


def judge_quality(image: Image.Image, original_size: tuple[int, int]) -> PhotoQuality:
    """Judge an RGB photo; `original_size` is its width and height in pixels before any reduction."""
    small = image.copy()
    small.thumbnail((JUDGED_SIDE, JUDGED_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    luma = pixels @ _LUMA
    codes: list[str] = []
    if min(original_size) < LEAST_SIDE:
        codes.append("too_small")
    if np.percentile(luma, DARK_PERCENTILE) < DARK_LUMA:
        codes.append("too_dark")
    elif np.percentile(luma, BRIGHT_PERCENTILE) > BRIGHT_LUMA:
        codes.append("too_bright")
    else:
        # Neither blur nor colour means anything in a photo that is black or burnt out.
        if laplacian_variance(luma) < LEAST_LAPLACIAN_VARIANCE:
            codes.append("blurred")
        if skin_share(pixels) < LEAST_SKIN_SHARE:
            codes.append("no_skin")
    return PhotoQuality(not codes, tuple(_PROBLEMS[code] for code in codes), estimate_skin_tone(image))


def laplacian_variance(luma: NDArray[np.float32]) -> float:
    """Sharpness of luma [H, W] in 0-255: variance of the 4-neighbour Laplacian, contrast-corrected.

    Variance of the Laplacian after Pech-Pacheco et al. 2000 (ICPR). Dividing by the mean luma relative to
    mid-grey makes dark skin, which reflects less light and so shows smaller differences, as sharp as light
    skin.
    """
    if min(luma.shape) < 3:
        return 0.0
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    relative = max(float(inner.mean()) / MID_GREY, LEAST_RELATIVE_LUMA)
    return float(laplacian.var()) / relative**2


def skin_share(pixels: NDArray[np.float32]) -> float:
    """Share of RGB pixels [H, W, 3] whose hue could be skin, in [0, 1].

    Skin of every tone is warm: melanin and blood both absorb blue and green more than red, and lightness does
    not matter to the ratio. The rule is loose on purpose (lesions are skin too): a photo of paper, sky,
    leaves or a screen fails it, a face at dusk does not.
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return float(np.mean((red > SKIN_RED_TO_BLUE * blue) & (red > SKIN_RED_TO_GREEN * green) & (red > LEAST_SKIN_RED)))
