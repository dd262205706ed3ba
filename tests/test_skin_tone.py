"""The skin's tone from a photo: the angle, its groups, and what is no skin."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inference.skin_tone import estimate_skin_tone, lab, tone_group
from training.lesion_fairness import TONES, shifted_to_tone


def patch(colour: tuple[int, int, int]) -> Image.Image:
    """An even patch of one colour."""
    return Image.new("RGB", (60, 60), colour)


def test_lab_of_known_colours():
    """White is L* 100, mid-grey L* 53.6, and pure red is where the CIE puts it (Lindbloom's tables, D65)."""
    white, grey, red = lab(np.array([[255.0, 255, 255], [128, 128, 128], [255, 0, 0]]))
    assert white == pytest.approx([100, 0, 0], abs=0.02)
    assert grey == pytest.approx([53.585, 0, 0], abs=0.02)
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


@pytest.mark.parametrize(
    ("degrees", "group"),
    [(80, "very light"), (55, "light"), (41, "intermediate"), (28, "tan"), (10, "brown"), (-30, "dark"), (-90, "dark")],
)
def test_a_group_ends_where_the_next_begins(degrees: float, group: str):
    """An angle on a border belongs to the darker group, as Del Bino and Bernerd have it."""
    assert tone_group(degrees) == group


def test_the_angle_of_an_even_patch():
    """L* 65.92 and b* 21.76 make atan(15.92 / 21.76) = 36 degrees."""
    tone = estimate_skin_tone(patch((198, 150, 122)))
    assert tone is not None
    assert tone.ita_degrees == pytest.approx(np.degrees(np.arctan(15.92407 / 21.75584)), abs=0.001)
    assert (round(tone.ita_degrees), tone.group) == (36, "intermediate")


def test_the_lesion_in_the_middle_does_not_count():
    """A black disc in the middle leaves the tone of the skin around it."""
    image = patch((198, 150, 122))
    image.paste((20, 12, 10), (18, 18, 42, 42))
    assert estimate_skin_tone(image) == estimate_skin_tone(patch((198, 150, 122)))


@pytest.mark.parametrize("colour", [(40, 80, 200), (0, 0, 0), (255, 255, 255)])
def test_no_skin_has_no_tone(colour: tuple[int, int, int]):
    """Blue, black and burnt-out photos give no estimate."""
    assert estimate_skin_tone(patch(colour)) is None


@pytest.mark.parametrize("name", sorted(TONES))
def test_the_sweep_reaches_the_tone_it_aims_at(name: str):
    """A patch shifted to a target ITA is estimated within two degrees of it, and in its group."""
    shifted = Image.fromarray(shifted_to_tone(np.asarray(patch((190, 140, 115))), TONES[name]))
    tone = estimate_skin_tone(shifted)
    assert tone is not None
    assert tone.ita_degrees == pytest.approx(TONES[name], abs=2)
    assert tone.group == name.replace("_", " ")
