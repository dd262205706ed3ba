"""The synthetic sweep of tone and light: what a step does to a photo, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference.skin_tone import lab
from training.cli import main
from training.lesion_fairness import TONES, from_lab, shifted_to_tone, sweep_steps
from training.photo_faults import to_linear, to_srgb

SKIN = np.full((8, 8, 3), (198, 150, 122), dtype=np.uint8)


def test_colours_survive_the_way_to_lab_and_back():
    """To within one level of 255."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    back = from_lab(lab(colours.astype(np.float64)))
    assert np.abs(back.astype(int) - colours).max() <= 1


def test_light_survives_the_way_to_linear_and_back():
    """Every level of 255 comes back as itself; two stops down, mid-grey 188 (half of the light) becomes 99 (an eighth)."""
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_srgb(to_linear(levels)), levels)
    assert to_srgb(to_linear(np.array([188], dtype=np.uint8)) / 4).tolist() == [99]


def test_tones_order_skin_by_lightness():
    """From very light to dark the same patch gets darker at every step."""
    lightness = [float(lab(shifted_to_tone(SKIN, ita).astype(np.float64))[0, 0, 0]) for ita in TONES.values()]
    assert lightness == sorted(lightness, reverse=True)


def test_a_shift_keeps_contrasts_in_their_share():
    """A spot of half the lightness of its skin still has half of it."""
    pixels = SKIN.copy()
    pixels[3:5, 3:5] = from_lab(lab(SKIN[:2, :2].astype(np.float64)) * np.array([0.5, 1, 1]))
    before, after = (lab(one.astype(np.float64))[..., 0] for one in (pixels, shifted_to_tone(pixels, TONES["brown"])))
    assert after[3, 3] / after[0, 0] == pytest.approx(before[3, 3] / before[0, 0], abs=0.02)


def test_every_step_changes_the_photo():
    """Six tones, four exposures and three white balances, of which none leaves the patch as it was."""
    steps = sweep_steps()
    assert len(steps) == 13
    assert all((change(SKIN) != SKIN).any() for change in steps.values())


def test_the_command_says_that_it_is_synthetic(shared_data: Path, tmp_path: Path, capsys):
    """Eight photos: all steps with their n, no flips as taken, a plot, and the words that it shows no accuracy."""
    bundle, plot = max((Path(__file__).parent.parent / "models/lesions").iterdir()), tmp_path / "sweep.svg"
    command = ["fairness", str(bundle), "--data", str(shared_data / "pad_ufes_20"), "--limit", "8", "--json", "--plot", str(plot)]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["is_synthetic"] and "not how accurate" in report["note"]
    assert list(report["subgroups"]) == ["as_taken", *sweep_steps()]
    assert report["subgroups"]["as_taken"]["decision_flips"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 8}
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
