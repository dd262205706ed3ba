"""The lesion figures that a person can check by hand: partial AUC, abstention, tones, and the release gate."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ExportError
from training import lesion_figures
from training.everything import refuse_unfair
from training.lesion_document import LEAST_CANCERS, abstention_curve, lesion_document, release_problems, worst_group
from training.lesion_figures import Scored, partial_auc_80_sensitivity
from training.metrics import Interval, bootstrap_interval

LABELS, MALIGNANT = ("BCC", "NEV"), ("BCC",)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty bootstrap draws instead of five hundred: intervals are tested where they are made."""
    monkeypatch.setattr(lesion_figures, "bootstrap_interval", partial(bootstrap_interval, repeats=20))


def scored(truth: list[int], malignancy: list[float], skin_types: list[int] | None = None, tones: list[str] | None = None) -> Scored:
    """Images with a malignancy probability each, flagged from 0.5 on."""
    chance = np.array(malignancy)
    types = np.array(skin_types or [2] * len(truth))
    shown = None if tones is None else np.array(tones)
    return Scored(np.array(truth), np.stack([chance, 1 - chance], axis=1), chance >= 0.5, np.arange(len(truth)), types, shown)


def types(**sensitivities: tuple[float, int]) -> dict[str, dict[str, Interval]]:
    """Subgroup figures of a sensitivity and a number of cancers each."""
    return {name: {"sensitivity": Interval(value, value, value, n)} for name, (value, n) in sensitivities.items()}


def test_a_perfect_score_has_the_whole_partial_area_and_chance_a_fiftieth() -> None:
    """0.2 for perfect; for a score that says nothing the triangle above 0.8, 0.2 x 0.2 / 2; for the worst none; one class: NaN."""
    truth = np.array([True] * 5 + [False] * 5)
    assert partial_auc_80_sensitivity(truth, truth.astype(float)) == pytest.approx(0.2)
    assert partial_auc_80_sensitivity(truth, np.zeros(10)) == pytest.approx(0.02)
    assert partial_auc_80_sensitivity(truth, -truth.astype(float)) == pytest.approx(0.0)
    assert np.isnan(partial_auc_80_sensitivity(truth[:5], np.zeros(5)))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_partial_area_is_that_of_the_isic_challenge(rows: list[tuple[bool, int]]) -> None:
    """It is what sklearn's standardised partial AUC of the mirrored problem gives, scaled back."""
    from sklearn.metrics import roc_auc_score

    truth, score = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    if len(np.unique(truth)) < 2:
        return
    standardised = roc_auc_score(~truth, -score, max_fpr=0.2)
    least, most = 0.2**2 / 2, 0.2
    expected = least + (most - least) * (standardised - 0.5) / 0.5
    assert partial_auc_80_sensitivity(truth, score) == pytest.approx(expected, abs=1e-9)


def test_abstaining_leaves_the_least_certain_out() -> None:
    """Of ten images the three least certain are the wrong ones: better step by step, each with its n."""
    truth, chance = [0] * 5 + [1] * 5, [0.9, 0.9, 0.9, 0.45, 0.9, 0.1, 0.1, 0.57, 0.52, 0.1]
    curve = abstention_curve(scored(truth, chance), LABELS, MALIGNANT)
    found = {name: (figures["balanced_accuracy"].n, figures["balanced_accuracy"].value) for name, figures in curve.items()}
    assert found == {
        "abstained_0_percent": (10, pytest.approx((4 / 5 + 3 / 5) / 2)),
        "abstained_5_percent": (10, pytest.approx((4 / 5 + 3 / 5) / 2)),
        "abstained_10_percent": (9, pytest.approx((4 / 5 + 3 / 4) / 2)),
        "abstained_20_percent": (8, pytest.approx((4 / 4 + 3 / 4) / 2)),
        "abstained_30_percent": (7, pytest.approx(1.0)),
    }


def test_the_gate_looks_at_the_worst_type_with_enough_cancers() -> None:
    """A type with too few cancers, and the photos of unknown type, are left out, however poor."""
    figures = types(fitzpatrick_1=(0.93, 40), fitzpatrick_3=(0.91, LEAST_CANCERS), fitzpatrick_5=(0.2, 5), fitzpatrick_unknown=(0.1, 99))
    assert worst_group(figures)[0] == "fitzpatrick_3"
    assert release_problems(figures) == ()
    assert release_problems(types(fitzpatrick_1=(0.93, 40), fitzpatrick_3=(0.8, 20))) == (
        "fitzpatrick_3: sensitivity 0.800 of 20 cancers is below 0.90",
    )
    assert release_problems(types(fitzpatrick_1=(1.0, 19))) == (
        "no Fitzpatrick type has 20 cancers: its sensitivity by skin type is not known",
    )


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 60))
def test_a_lower_sensitivity_never_passes_where_a_higher_one_did_not(one: float, other: float, cancers: int) -> None:
    """The gate is monotone in every group's sensitivity."""
    low, high = sorted((one, other))
    fails = [bool(release_problems(types(fitzpatrick_1=(0.95, 50), fitzpatrick_4=(value, cancers)))) for value in (low, high)]
    assert fails[0] >= fails[1]


def test_a_document_holds_all_of_it() -> None:
    """Forty cancers of type 2, all found, and estimated tones: the worst group with its n, the tones as subgroups."""
    images = scored([0] * 40 + [1] * 10, [0.9] * 40 + [0.1] * 10, tones=["light"] * 30 + ["dark"] * 20)
    document = lesion_document("lesions", "lesions/0", images, LABELS, MALIGNANT)
    assert (document["worst_group"], document["release_problems"]) == ("fitzpatrick_2", [])
    assert document["metrics"]["worst_group_sensitivity"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 40}
    assert document["metrics"]["partial_auc_80_sensitivity"]["value"] == pytest.approx(0.2)
    assert document["subgroups"]["estimated_tone_dark"]["sensitivity"]["n"] == 10
    assert document["subgroups"]["abstained_30_percent"]["balanced_accuracy"]["n"] == 35
    json.dumps(document, allow_nan=False)


def test_no_photos_no_figures() -> None:
    """Nothing scored: every figure is undefined with n = 0, and the gate does not pass."""
    document = lesion_document("lesions", "lesions/0", scored([], []), LABELS, MALIGNANT)
    assert document["n"] == 0 and document["release_problems"]
    assert document["metrics"]["partial_auc_80_sensitivity"] == {"value": None, "low": None, "high": None, "n": 0}


def test_a_bundle_that_fails_the_gate_is_not_made_live(tmp_path: Path) -> None:
    """What its metrics name as a problem stops it; without a problem it passes."""
    for problems in ([], ["fitzpatrick_3: sensitivity 0.800 of 20 cancers is below 0.90"]):
        report = {"evaluations": {"held out": {"release_problems": problems}, "photo alone": {"release_problems": ["x"]}}}
        (tmp_path / "metrics.json").write_text(json.dumps(report), encoding="utf-8")
        if not problems:
            refuse_unfair(tmp_path)
    message = "is not made live: fitzpatrick_3: sensitivity 0.800 of 20 cancers is below 0.90; look at its subgroups"
    with pytest.raises(ExportError, match=message):
        refuse_unfair(tmp_path)
