"""The photo gate's fitted part, its features, the graded photos that it is fitted and measured on, and its report."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.photo_features import detail, halved, judged_copy, luma_of, picture_features
from inference.photo_gate import BlurRule, PictureNetwork, fitted_gate
from inference.photo_quality import gate_numbers, judge_quality, photo_problems
from training.cli import main
from training.lesion_fairness import TONES, shifted_to_tone
from training.photo_gate_fitting import BLUR_FEATURES, as_toml
from training.photo_grades import FAULTS, graded_photos, is_for_fitting, other_pictures
from training.render import SKIN_TONES, render_lesion

SIZE = (3000, 4000)


def codes(image: Image.Image) -> set[str]:
    """What the gate finds in a photo of many pixels."""
    return {problem.code for problem in judge_quality(image, SIZE).problems}


def features(image: Image.Image) -> dict[str, float]:
    """The features of a photo."""
    small = judged_copy(image)
    pixels = np.asarray(small, dtype=np.float32)
    return picture_features(small, pixels, luma_of(pixels))


def test_detail_by_hand():
    """A single bright pixel of 2 in the middle of 3 x 3 has second differences of -4, half as much along the diagonals."""
    luma = np.zeros((3, 3), dtype=np.float32)
    luma[1, 1] = 2
    assert detail(luma) == (16, 16, 4, 4)
    assert detail(np.zeros((2, 2), dtype=np.float32)) == (0, 0, 0, 0)


def test_stripes_have_detail_across_them_only():
    """Upright stripes: nothing changes downwards."""
    across, down, _, _ = detail(np.tile(np.array([0, 9], dtype=np.float32), (6, 3)))
    assert (across, down) == (18**2, 0)


def test_halved_by_hand():
    """Each 2 x 2 becomes its mean; an odd row and column are left out."""
    assert halved(np.arange(15, dtype=np.float32).reshape(3, 5)).tolist() == [[3, 5]]


def test_the_blur_rule_by_hand():
    """2 x 3 - 5 is above 0, so it is blurred."""
    assert BlurRule({"detail": 2.0}, -5.0).score({"detail": 3.0}) == 1.0


def test_the_network_names_the_worst_problem_of_a_bad_photo():
    """With logits 0, 0, ln 2 the classes have a quarter, a quarter and a half; good enough from 0.3 on, as a third is."""
    one = PictureNetwork(("a",), ("good", "covered", "no_lesion"), np.ones((1, 1)), np.zeros(1), np.log([[1, 1, 2]]), np.zeros(3), 0.3)
    assert one.probabilities({"a": 1.0}) == pytest.approx({"good": 0.25, "covered": 0.25, "no_lesion": 0.5})
    assert one.problem({"a": 1.0}) == "no_lesion"
    assert one.problem({"a": -1.0}) is None


def test_the_shipped_gate_fits_the_features_and_the_advice():
    """Every feature it asks for is there, and every problem it names has advice."""
    gate, known = fitted_gate(), features(render_lesion(0, 3, (90, 60, 50), 0.1, 0.2))
    assert set(gate.picture.features) | set(gate.blur.weights) <= set(known)
    assert set(gate.picture.classes) - {"good"} <= {problem.code for problem in photo_problems()}
    assert set(gate_numbers()["blur"]["weights"]) == set(BLUR_FEATURES)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_any_image_has_a_verdict(width: int, height: int, grey: int):
    """However small or even, the gate answers."""
    assert not judge_quality(Image.new("RGB", (width, height), (grey, grey, grey)), (width, height)).ok


@pytest.mark.parametrize("skin_type", sorted(SKIN_TONES))
def test_rendered_lesions_of_every_skin_type_pass(skin_type: int):
    """From light to dark skin a sharp, lit photo is not sent back."""
    assert codes(render_lesion(skin_type, skin_type, (60, 40, 36), 0.1, 0.3)) == set()


@pytest.mark.parametrize("tone", sorted(TONES))
def test_no_tone_is_refused_for_its_darkness_or_hue(tone: str):
    """A rendered lesion shifted to any tone of the sweep is neither too dark nor without skin."""
    shifted = Image.fromarray(shifted_to_tone(np.asarray(render_lesion(5, 3, (110, 74, 52), 0.1, 0.2, (320, 240))), TONES[tone]))
    assert not codes(shifted) & {"too_dark", "too_bright", "no_skin"}


def test_pictures_of_other_things_are_refused():
    """One of each rendered kind."""
    found = {graded.kind: codes(graded.image) for graded in other_pictures(count=1)}
    assert {kind for kind, wrong in found.items() if not wrong} == set()


def test_a_photo_has_one_grade_of_each_fault_and_the_same_again():
    """Nothing is left to chance: the same photo at the same place is spoiled in the same way."""
    image = render_lesion(0, 3, (90, 60, 50), 0.1, 0.2, (256, 192))
    first, again = (list(graded_photos(image, "P1", 3, place=4)) for _ in range(2))
    assert [one.kind for one in first] == ["as_taken", "tone_brown", *FAULTS]
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(first, again, strict=True))
    assert {one.group for one in first} == {"P1"}


def test_about_half_of_the_patients_are_for_fitting():
    """By the patient's name alone, so that all photos of a patient are on one side."""
    assert 0.45 < np.mean([is_for_fitting(f"PAT_{n}") for n in range(2000)]) < 0.55


def test_numbers_come_back_from_toml():
    """What the fit writes is what inference reads."""
    numbers = {"blur": {"bias": -1.5, "weights": {"detail": 2.0}}, "picture": {"features": ["a"], "hidden": [[1.0, -2.0], [0.5, 3.0]]}}
    text = as_toml(numbers, "two lines\nof note")
    assert text.startswith("# two lines\n# of note\n")
    assert tomllib.loads(text) == numbers


def test_the_command_reports_kinds_and_skin_types(shared_data: Path, capsys):
    """Six photos: every figure has its n, and skin types that do not occur are undefined with n = 0."""
    assert main(["photo-gate", "--data", str(shared_data / "pad_ufes_20"), "--limit", "6", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["metrics"]["good_refused"]["n"]) == ("photo-gate", 6)
    assert report["subgroups"]["fitzpatrick_6"]["good_refused"] == {"value": None, "low": None, "high": None, "n": 0}
    assert report["subgroups"]["sky 1"]["bad_caught"]["value"] == 1.0
    assert report["metrics"]["bad_caught"]["value"] > 0.8
