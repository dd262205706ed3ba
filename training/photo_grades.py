"""The graded photos that the gate is fitted and measured on: real photos spoiled step by step, and pictures of other things.

A grade is `bad` where the lesion model's most probable label changes in 30 % or more of the photos, `good` where it
changes in 15 % or less, and `between` else, which is shown and counted on neither side (`nabz-train photo-gate --bundle`
prints these shares). Covered lesions, bare skin and pictures of other things are bad by construction.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from training import photo_faults
from training.lesion_fairness import TONES, shifted_to_tone
from training.render import SKIN_TONES, render_lesion

Verdict = Literal["good", "between", "bad"]
Draw = np.random.Generator
_SIZES = ((256, 192), (192, 256), (256, 256))
_ORIGINAL = (4000, 3000)  # pictures of other things are not small
_CROPS = 12
PICTURES_A_KIND = 40
_SPOILT_SIDE = 256  # longer side at which photos are spoiled: twice that at which the gate judges


@dataclass(frozen=True, slots=True)
class Grade:
    """One step of a fault, and what the gate should say of it."""

    grade: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class GradedPhoto:
    """One photo to judge. `group` is the patient, or the picture it was cut from; `skin_type` is 0 where not known."""

    image: Image.Image
    original_size: tuple[int, int]
    kind: str
    grade: Grade
    group: str
    skin_type: int = 0


def _grades(good: str, between: str, bad: str) -> tuple[Grade, ...]:
    named: tuple[tuple[Verdict, str], ...] = (("good", good), ("between", between), ("bad", bad))
    return tuple(Grade(float(step), verdict) for verdict, steps in named for step in steps.split())


FAULTS: dict[str, tuple[photo_faults.Fault, tuple[Grade, ...]]] = {
    "gaussian_blur": (photo_faults.gaussian_blur, _grades("0.0025 0.005", "0.01", "0.015 0.02 0.03")),
    "motion_blur": (photo_faults.motion_blur, _grades("0.01 0.02", "0.04", "0.06 0.08 0.12")),
    "too_little_light": (photo_faults.exposure, _grades("-1 -2", "-3 -4", "-5 -6")),
    "too_much_light": (photo_faults.exposure, _grades("0.5 1", "1.5 2", "3 4")),
    "colour_cast": (photo_faults.colour_cast, _grades("1.2", "1.5 2", "3 5")),
    "thumbnail": (photo_faults.thumbnail, _grades("200", "128", "64 48")),
    "finger": (photo_faults.finger, _grades("0.1", "0.25", "0.5 0.75 1")),
    "cloth": (photo_faults.cloth, _grades("0.1", "0.25", "0.5 0.75 1")),
    "bare_skin": (photo_faults.bare_skin, _grades("", "", "1")),
}
PICTURES: dict[str, Callable[[tuple[int, int], Draw], Image.Image]] = {
    "paper": photo_faults.paper,
    "screen": photo_faults.screen,
    "leaves": photo_faults.leaves,
    "sky": photo_faults.sky,
    "noise": photo_faults.noise,
    "wood": photo_faults.wood,
    "woven": photo_faults.woven,
}


def graded_photos(image: Image.Image, group: str, skin_type: int, place: int) -> Iterator[GradedPhoto]:
    """A good photo as it is, in one tone of the sweep, and with one grade of each fault; `place` says which."""
    yield GradedPhoto(image, image.size, "as_taken", Grade(0.0, "good"), group, skin_type)
    size, image = image.size, image.copy()
    image.thumbnail((_SPOILT_SIDE, _SPOILT_SIDE), Image.Resampling.LANCZOS)
    tone = tuple(TONES)[place % len(TONES)]
    shifted = Image.fromarray(shifted_to_tone(np.asarray(image), TONES[tone]))
    yield GradedPhoto(photo_faults.as_sent(shifted), size, f"tone_{tone}", Grade(TONES[tone], "good"), group, skin_type)
    for kind, (fault, grades) in FAULTS.items():
        grade = grades[place % len(grades)]
        spoiled = photo_faults.as_sent(fault(image, grade.grade, drawn(kind, group, place)))
        yield GradedPhoto(spoiled, spoiled.size if kind == "thumbnail" else size, kind, grade, group, skin_type)


def other_pictures(kinds: tuple[str, ...] = tuple(PICTURES), count: int = PICTURES_A_KIND) -> Iterator[GradedPhoto]:
    """Rendered pictures of anything but skin, `count` of each kind."""
    for kind in kinds:
        for place in range(count):
            picture = photo_faults.as_sent(PICTURES[kind](_SIZES[place % len(_SIZES)], drawn(kind, "", place)))
            yield GradedPhoto(picture, _ORIGINAL, kind, Grade(1.0, "bad"), f"{kind} {place}")


def rendered_lesions(count: int = PICTURES_A_KIND) -> Iterator[GradedPhoto]:
    """Invented lesions on skin of every type, as in data/sample: good photos, for the fit alone."""
    for place in range(count):
        draw = drawn("rendered", "", place)
        dark = draw.uniform(0.4, 0.9)
        colour = (int(150 * dark), int(105 * dark), int(95 * dark))
        types = sorted(SKIN_TONES)
        image = render_lesion(place, types[place % len(types)], colour, draw.uniform(0.06, 0.2), draw.uniform(0, 0.6), (512, 384))
        yield GradedPhoto(photo_faults.as_sent(image), _ORIGINAL, "rendered", Grade(0.0, "good"), f"rendered {place}")


def cut_pictures(folder: Path) -> Iterator[GradedPhoto]:
    """Square pieces of the pictures in a folder that hold no skin lesion, several of each."""
    for path in sorted(one for one in folder.iterdir() if one.suffix.lower() in (".jpg", ".jpeg", ".png")):
        whole = Image.open(path).convert("RGB")
        for place in range(_CROPS):
            draw = drawn("cut", path.name, place)
            side = int(draw.uniform(0.35, 1) * min(whole.size))
            x, y = int(draw.integers(whole.width - side + 1)), int(draw.integers(whole.height - side + 1))
            piece = whole.crop((x, y, x + side, y + side)).resize((_SPOILT_SIDE, _SPOILT_SIDE), Image.Resampling.BICUBIC)
            yield GradedPhoto(photo_faults.as_sent(piece), _ORIGINAL, "other_photo", Grade(1.0, "bad"), path.name)


def is_for_fitting(group: str) -> bool:
    """Whether a patient (or picture) is of the half that thresholds are chosen on; the other half is reported."""
    return zlib.crc32(f"photo gate {group}".encode()) % 2 == 0


def drawn(kind: str, group: str, place: int) -> Draw:
    """A generator of its own for each spoiled photo."""
    return np.random.default_rng(zlib.crc32(f"{kind} {group} {place}".encode()))
