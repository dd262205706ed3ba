"""Tests of the acuity and the lesion trainer's data cards, on data that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.case import Case, Photo, Vitals
from training.acuity_card import acuity_card
from training.acuity_head import KtasVisits
from training.lesion_card import lesion_card
from training.nhamcs import Visit, Visits
from training.skin_data import SkinRecord, SkinSet
from training.skin_sources import HAM10000


def skin(lesions: int) -> SkinSet:
    """Two images of each lesion, two labels in turn; of every fourth lesion the age is known."""
    records = [
        SkinRecord(
            f"{lesion}{image}",
            HAM10000.labels[lesion % 2].name,
            f"L{lesion}",
            Photo(path="a.jpg"),
            Path(),
            50.0 if lesion % 4 == 0 else None,
        )
        for lesion in range(lesions)
        for image in "ab"
    ]
    return SkinSet(HAM10000, Path(), tuple(records))


def test_a_lesion_card_counts_images_labels_unknowns_and_folds() -> None:
    """80 images of 40 lesions, half of each label, the age unknown of three quarters, no answer of any; five folds hold out all once."""
    card = lesion_card(skin(40), "ab", 5, 0, is_watched=False)
    assert card.rows == 80
    assert card.row_is == "images of 40 patients or lesions"
    assert sorted(card.classes.values()) == [40, 40]
    assert card.missing["age"] == 0.75
    assert card.missing["body_site"] == 1.0
    assert len(card.splits) == 5
    assert sum(card.splits.values()) == 80
    assert card.objective == "nothing: recipe and epochs are fixed"


def test_a_lesion_card_says_when_held_out_images_choose() -> None:
    """With folds the same images are reported on; with one split they are not, and the parts are 7, 1 and 2 tenths."""
    assert "flatter" in lesion_card(skin(40), "ab", 5, 0, is_watched=True).objective
    one = lesion_card(skin(100), "ab", 1, 0, is_watched=True)
    assert one.objective == "the photo branch's log loss on the part to calibrate on, classes weighing the same"
    assert list(one.splits.values()) == [140, 20, 40]


def test_an_acuity_card_counts_outcomes_levels_years_and_what_was_not_measured() -> None:
    """Three visits of two years, one critical; two visits with levels 2 and 3; a pulse of one visit in three."""
    visits = Visits(
        (Visit(50.0, "male", None, 0, Vitals(pulse_per_minute=80), ()), *(Visit(9.0, "female", True, 0, Vitals(), ()),) * 2),
        np.array([2015, 2016, 2016]),
        np.array([1, 0, 0]),
    )
    cases = tuple(Case(case_id=name, vitals={"pulse_per_minute": 90}) for name in "ab")
    expert = KtasVisits(cases, ({}, {}), np.array([2, 3]), np.array([5, 5]), (None, None))
    card = acuity_card(visits, expert, {"nhamcs_ed": "ab", "ktas": "cd"})
    assert card.rows == 5
    assert (card.classes["critical care"], card.classes["no critical care"]) == (1, 2)
    assert [card.classes[f"expert level {level}"] for level in range(1, 6)] == [0, 1, 1, 0, 0]
    assert card.missing["NHAMCS pulse_per_minute"] == pytest.approx(2 / 3)
    assert card.missing["experts' pulse_per_minute"] == 0.0
    assert card.missing["NHAMCS arrival"] == pytest.approx(1 / 3)
    assert list(card.splits.values()) == [1, 2, 2]
