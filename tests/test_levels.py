"""The choice of thresholds: small sets that can be counted by hand, and the shipped choice on real visits."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from inference.bundle import load_bundle
from inference.errors import DataError
from inference.models import live_versions
from training import levels
from training.evaluate import evaluate_bundle
from training.ktas import FILE
from training.levels import TITLE, Judged, flagged, largest_safe_threshold, triage_figures


def judged(emergency, level_without, probability) -> Judged:
    """Visits from plain lists."""
    return Judged(np.array(emergency, dtype=bool), np.array(level_without), np.array(probability, dtype=float))


def test_the_threshold_is_the_largest_safe_one():
    """With 59 emergencies none may be missed, so the threshold is the lowest emergency's probability."""
    visits = judged([1] * 59 + [0] * 3, [5] * 62, [0.4 + n / 1000 for n in range(59)] + [0.1, 0.39, 0.9])
    assert largest_safe_threshold(visits) == pytest.approx(0.4)
    assert flagged(visits, 0.4).tolist() == [True] * 59 + [False, False, True]


def test_what_rules_raise_needs_no_probability():
    """Emergencies that the rules already raise do not pull the threshold down."""
    visits = judged([1] * 60, [2] + [5] * 59, [0.01] + [0.7] * 59)
    assert largest_safe_threshold(visits) == pytest.approx(0.7)


def test_too_few_emergencies_give_no_certificate():
    """With 10 emergencies not even missing none can be certified."""
    with pytest.raises(DataError, match="more visits are needed"):
        largest_safe_threshold(judged([1] * 10, [5] * 10, [0.9] * 10))


def test_under_and_over_triage_are_shares_of_their_own_kind():
    """One of four emergencies missed, one of two others raised."""
    figures = triage_figures(np.array([1, 1, 1, 1, 0, 0], dtype=bool), np.array([1, 1, 1, 0, 1, 0], dtype=bool))
    assert (figures["under_triage"].value, figures["under_triage"].n) == (0.25, 4)
    assert (figures["over_triage"].value, figures["over_triage"].n) == (0.5, 2)


def test_the_shipped_certificate_holds_on_its_visits(models_folder):
    """The recorded held-out under-triage is at most 5 %, and the over-triage that it costs is recorded beside it."""
    metrics = json.loads(next(models_folder.glob("acuity/*/metrics.json")).read_text(encoding="utf-8"))
    figures = metrics["evaluations"][TITLE]["metrics"]
    assert figures["under_triage"]["value"] <= 0.05
    assert 0 < figures["over_triage"]["value"] < 1


def test_a_new_version_changes_contracts_alone(shared_data, models_folder, tmp_path, monkeypatch):
    """`levels --version`: the same models and thresholds under a new version, live and signed; the old ones stay as they were."""
    monkeypatch.setattr(levels, "_measure_again", lambda *_: None)  # bootstrap intervals, which take longest and are tested elsewhere
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)
    monkeypatch.chdir(models_folder.parent)
    models = tmp_path / "models"
    shutil.copytree(models_folder, models, ignore=shutil.ignore_patterns("symptoms-ddxplus"))
    old = live_versions(models)
    levels.choose_levels(shared_data, models, 1, "9.0.0")
    assert live_versions(models) == {**old, "symptoms": "9.0.0", "acuity": "9.0.0"}
    for task in ("symptoms", "acuity"):
        before, after = (load_bundle(models / task / version).contract for version in (old[task], "9.0.0"))
        assert before == load_bundle(models_folder / task / old[task]).contract
        told = after.model_copy(update={"version": old[task], "created": before.created}).model_dump()
        assert _rounded(told) == _rounded(before.model_dump())  # the last digits of a sum differ from processor to processor


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def test_levels_without_the_visits_change_nothing(tmp_path, models_folder):
    """The missing file is named before any bundle is touched."""
    with pytest.raises(DataError) as caught:
        levels.choose_levels(tmp_path, models_folder, 1, "9.0.0")
    assert str(caught.value) == (
        f"{tmp_path / FILE} not found: name the folder of data sets with --data (data/sources.toml says where from)"
    )
    assert not (models_folder / "acuity" / "9.0.0").exists()


def test_the_whole_triage_misses_few_real_emergencies(shared_data, models_folder):
    """`evaluate` on the KTAS visits, out of fold: at most 5 % of the experts' emergencies get level 4 or 5."""
    metrics = evaluate_bundle(models_folder / "acuity" / live_versions(models_folder)["acuity"], shared_data / FILE, None, 1)["metrics"]
    assert metrics["under_triage_whole_triage"]["value"] <= 0.05
    assert metrics["under_triage_whole_triage"]["n"] == 431
