"""Prediction sets: bands and limits on numbers that can be checked by hand, and what must hold for any probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bundle import Contract, Label
from inference.errors import BundleError
from inference.prediction_sets import FindingCounts, PredictionSets

SLOTS = [["F_1", ""], ["F_2", "mild"], ["F_2", "severe"], ["F_3", ""]]
NOTHING, ONE, TWO = [0, 0, 0, 0], [1, 0, 0, 0], [1, -1, 1, 0]


def contract(conformal: dict[str, object] | None) -> Contract:
    """Three conditions, three findings, and nothing else."""
    empty: dict[str, object] = dict.fromkeys(("inputs", "outputs", "limits", "data"), ())
    words = dict.fromkeys(("created", "model_sha256", "intended_use", "licence"), "")
    labels = tuple(Label(name=name, name_en=name) for name in "abc")
    return Contract.model_validate(
        {"task": "symptoms", "version": "0.0.1", **words, **empty, "labels": labels, "vocabulary": {"slots": SLOTS}, "conformal": conformal}
    )


BANDS = {
    "known": [1, 2],
    "leading": [0.0, 0.5],
    "least_probability": [[[0.3, 0.3, 0.1], [0.2, 0.2, 0.05]], [[0.4, 0.4, 0.4], [0.3, 0.3, 0.3]]],
}


def members(conformal: dict[str, object] | None, p: list[float], row: list[int]) -> list[bool]:
    """One patient's set."""
    return PredictionSets(contract(conformal)).members(np.array([p]), np.array([row])).tolist()[0]


def test_a_finding_with_several_slots_counts_once():
    """A finding with a value counts as known, and as present; one that is denied is known alone."""
    counts = FindingCounts([code for code, _ in SLOTS])
    rows = np.array([NOTHING, ONE, TWO, [-1, 0, 0, -1]])
    assert counts.known(rows).tolist() == [0, 1, 2, 2]
    assert counts.present(rows).tolist() == [0, 1, 2, 0]


def test_each_condition_has_its_own_limit():
    """With one finding and no clear leader, 0.15 is enough for c and 0.25 is not enough for b."""
    assert members(BANDS, [0.45, 0.25, 0.3], ONE) == [True, False, True]
    assert members(BANDS, [0.45, 0.4, 0.15], ONE) == [True, True, True]


def test_limits_follow_what_is_known_and_how_sure_the_model_is():
    """A clear leader, then a second finding: the same probabilities, other limits; nothing known counts as the first band."""
    p = [0.6, 0.25, 0.15]
    assert members(BANDS, p, ONE) == [True, True, True]
    assert members(BANDS, p, TWO) == [True, False, False]
    assert members(BANDS, p, NOTHING) == members(BANDS, p, ONE)


def test_the_leading_condition_always_belongs():
    """Also below its limit: a set is never empty."""
    assert members(BANDS, [0.35, 0.33, 0.32], TWO) == [True, False, False]


def test_contracts_of_before_are_still_read():
    """A mass: rivals with 0.5 together are few enough, with 0.75 they are too many; without any, a mass of 0.9."""
    assert members({"mass": 0.6}, [0.5, 0.25, 0.25], ONE) == [True, True, False]
    assert members({"mass": 0.8}, [0.25, 0.25, 0.5], ONE) == [True, True, True]
    assert members(None, [0.95, 0.04, 0.01], ONE) == [True, False, False]


@pytest.mark.parametrize(
    ("conformal", "message"),
    [
        ({"known": [1]}, "symptoms 0.0.1: conformal cannot be read; export it again"),
        ({**BANDS, "known": [2, 1]}, "symptoms 0.0.1: conformal cannot be read; export it again"),
        ({**BANDS, "known": [1]}, "symptoms 0.0.1: conformal has not one limit a condition and band; export it again"),
    ],
)
def test_a_conformal_part_that_cannot_be_is_refused(conformal, message):
    """A table that is missing, bands that fall, and a table of another shape."""
    with pytest.raises(BundleError) as error:
        PredictionSets(contract(conformal))
    assert str(error.value) == message


@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.sampled_from([NOTHING, ONE, TWO]))
def test_a_set_is_never_empty_and_holds_the_leading_condition(weights, row):
    """For any probabilities; its size is the number of its members."""
    p = np.array([weights]) / sum(weights)
    sets = PredictionSets(contract(BANDS))
    found = sets.members(p, np.array([row]))
    assert found[0, p.argmax()]
    assert sets.sizes(p, np.array([row])).tolist() == [found.sum()]
