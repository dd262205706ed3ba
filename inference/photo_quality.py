"""The photo gate: whether a photo can be read at all, and if not, what the health worker should do.

Works on a small copy of the photo, so that it costs a few milliseconds. It knows nothing of files, models or diagnoses.
A photo that fails is not believed: its lesion score is not used (inference/photo_checks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from inference.photo_features import (
    JUDGED_SIDE,
    LEAST_JUDGED_SIDE,
    LEAST_RELATIVE_LUMA,
    LEAST_SKIN_RED,
    LUMA,
    MID_GREY,
    SKIN_RED_TO_BLUE,
    SKIN_RED_TO_GREEN,
    Array,
    is_skin_hued,
    judged_copy,
    luma_of,
    picture_features,
    relative_detail,
)
from inference.photo_gate import fitted_gate
from inference.skin_tone import SkinTone, estimate_skin_tone

LEAST_SIDE = 128
UNFAMILIAR = "unfamiliar"  # also found by the lesion model: the photo is unlike all that it learned from
# Chosen with `nabz-train photo-gate` in view, on all photos: darker skin in good light keeps clear of both.
DARK_PERCENTILE, DARK_LUMA = 95, 41.0
BRIGHT_PERCENTILE, BRIGHT_LUMA = 50, 232.0
LEAST_SKIN_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class PhotoProblem:
    """One thing wrong with a photo, and what to do, in English and Urdu."""

    code: str
    advice_en: str
    advice_ur: str


@dataclass(frozen=True, slots=True)
class PhotoQuality:
    """The gate's verdict: `ok` when no problem was found.

    `light` is the median luma in 0-255 and `detail` the logarithm of the detail relative to it, None of a photo too small for
    it: no verdict, but what drift of cameras and light is told from.
    """

    ok: bool
    problems: tuple[PhotoProblem, ...] = ()
    tone: SkinTone | None = None
    light: float | None = None
    detail: float | None = None


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
    """The gate's numbers, for a phone that judges a photo before it is sent: `static/intake_photo.js` goes by these.

    The phone knows size, light, blur and skin; colour casts and what covers a lesion are found only here.
    """
    blur = fitted_gate().blur
    return {
        "judged_side": JUDGED_SIDE,
        "least_judged": LEAST_JUDGED_SIDE,
        "least_side": LEAST_SIDE,
        "blur": {"bias": blur.bias, "weights": blur.weights},
        "dark": [DARK_PERCENTILE, DARK_LUMA],
        "bright": [BRIGHT_PERCENTILE, BRIGHT_LUMA],
        "least_skin": LEAST_SKIN_SHARE,
        "skin": [SKIN_RED_TO_BLUE, SKIN_RED_TO_GREEN, LEAST_SKIN_RED],
        "grey": [MID_GREY, LEAST_RELATIVE_LUMA],
        "luma": LUMA,
    }


def judge_quality(image: Image.Image, original_size: tuple[int, int]) -> PhotoQuality:
    """Judge an RGB photo; `original_size` is its width and height in pixels before any reduction."""
    small = judged_copy(image)
    codes = ["too_small"] if min(original_size) < LEAST_SIDE else []
    pixels = np.asarray(small, dtype=np.float32)
    luma = luma_of(pixels)
    codes += _problems(small, pixels, luma)
    detail = relative_detail(luma) if min(luma.shape) >= LEAST_JUDGED_SIDE else None
    return PhotoQuality(not codes, tuple(_PROBLEMS[code] for code in codes), estimate_skin_tone(small), float(np.median(luma)), detail)


def _problems(small: Image.Image, pixels: Array, luma: Array) -> list[str]:
    dark, bright = np.percentile(luma, (DARK_PERCENTILE, BRIGHT_PERCENTILE))
    if dark < DARK_LUMA:
        return ["too_dark"]
    if bright > BRIGHT_LUMA:
        return ["too_bright"]
    # Neither blur nor colour means anything in a photo that is black or burnt out.
    gate, features = fitted_gate(), picture_features(small, pixels, luma)
    codes = ["blurred"] if features and gate.blur.score(features) > 0 else []
    if (features["skin"] if features else is_skin_hued(pixels).mean()) < LEAST_SKIN_SHARE:
        return [*codes, "no_skin"]
    # What a blurred photo shows cannot be told; the picture network never saw one.
    if not codes and features and (problem := gate.picture.problem(features)):
        codes.append(problem)
    return codes
