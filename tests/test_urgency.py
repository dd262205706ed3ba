"""Tests of the level: nothing lowers it, and each threshold holds on both sides."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.policy import load_policy
from inference.urgency import (
    Raise,
    decide_level,
    raise_from_priority,
    raises_from_acuity,
    raises_from_darker_skin,
    raises_from_differential,
    raises_from_lesion,
    raises_from_unbelieved_photo,
)

ACUITY = {"critical_level_2": 0.2, "emergency_level_3": 0.5, "routine_level_4": 0.1}
DIFFERENTIAL = {"severity_level_2": 0.2, "severity_level_3": 0.4, "severity_level_4": 0.6}
BELOW = math.nextafter(0.2, 0)

raises = st.builds(Raise, st.integers(1, 5), st.sampled_from(["rules", "acuity", "symptoms"]), st.sampled_from("abc"), st.just(""))
probabilities = st.floats(0, 1)


def levels(found: list[Raise]) -> list[int]:
    """The levels of the raises."""
    return [one.level for one in found]


@given(st.lists(raises), st.lists(raises))
def test_adding_any_raise_never_lowers_urgency(some, more):
    """A smaller number is more urgent; whatever is added, in whatever place, it never grows."""
    assert decide_level([*some, *more]).level <= decide_level(some).level
    assert decide_level([*more, *some]).level == decide_level([*some, *more]).level


@given(st.lists(raises, min_size=1))
def test_the_level_is_the_most_urgent_raise_and_no_reason_is_lost(some):
    """The reasons stand with the most urgent first."""
    urgency = decide_level(some)
    assert urgency.level == min(levels(some))
    assert levels(list(urgency.raises)) == sorted(levels(some))
    assert sorted(urgency.raises, key=repr) == sorted(some, key=repr)


def test_without_any_raise_the_level_is_advice():
    """The least urgent one."""
    assert decide_level([]).level == 5
    assert decide_level([]).raises == ()


def test_equal_levels_keep_their_order():
    """The rule comes before the model that agrees with it."""
    rule, model = Raise(2, "rules", "a", ""), Raise(2, "acuity", "b", "")
    assert decide_level([rule, model]).raises == (rule, model)


@pytest.mark.parametrize(
    ("critical", "emergency", "expected"),
    [
        (0.2, 0.0, [2]),
        (BELOW, 0.0, []),
        (0.0, 0.5, [3]),
        (0.0, math.nextafter(0.5, 0), [4]),
        (0.0, 0.1, [4]),
        (0.0, math.nextafter(0.1, 0), []),
        (0.2, 0.5, [2, 3]),
        (1.0, 1.0, [2, 3]),
    ],
)
def test_acuity_thresholds_on_both_sides(critical, emergency, expected):
    """At a threshold it counts, just below it does not; never more than level 2."""
    assert levels(raises_from_acuity(critical, emergency, ACUITY)) == expected


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        ({1: 0.2}, [2]),
        ({1: 0.1, 2: 0.1}, [2]),
        ({1: BELOW}, []),
        ({2: 0.1, 3: 0.3}, [3]),
        ({2: 0.125, 3: 0.25}, []),
        ({4: 0.6}, [4]),
        ({4: math.nextafter(0.6, 0)}, []),
        ({5: 1.0}, []),
        ({}, []),
        ({1: 1.0}, [2]),
    ],
)
def test_differential_thresholds_on_both_sides(mass, expected):
    """Severities add up from the worst; self-care conditions never count; level 1 is left to the rules."""
    assert levels(raises_from_differential(mass, DIFFERENTIAL, is_certain=True)) == expected


@pytest.mark.parametrize(("probability", "expected"), [(0.2, [4]), (BELOW, []), (1.0, [4]), (0.0, [])])
def test_lesion_threshold_on_both_sides(probability, expected):
    """A suspicious lesion is seen by a dermatologist: routine, never advice alone."""
    assert levels(raises_from_lesion(probability, 0.2)) == expected


def test_a_photo_that_nobody_judged_is_never_advice_alone():
    """A bad photo, and a benign result on darker skin, are seen by a clinician: routine, in both languages."""
    for found in (raises_from_unbelieved_photo(), raises_from_darker_skin()):
        assert levels(found) == [4]
        assert found[0].source == "policy"
        assert found[0].text_en and found[0].text_ur


@given(probabilities, probabilities, probabilities, probabilities)
def test_a_higher_probability_never_lowers_urgency(critical, more_critical, emergency, more_emergency):
    """Worse by the acuity model is at least as urgent."""
    low = raises_from_acuity(min(critical, more_critical), min(emergency, more_emergency), ACUITY)
    high = raises_from_acuity(max(critical, more_critical), max(emergency, more_emergency), ACUITY)
    assert decide_level(high).level <= decide_level(low).level


@given(st.dictionaries(st.integers(1, 5), probabilities), st.integers(1, 5), probabilities)
def test_more_mass_on_any_severity_never_lowers_urgency(mass, severity, more):
    """Worse by the differential is at least as urgent."""
    heavier = {**mass, severity: mass.get(severity, 0.0) + more}
    before, after = (raises_from_differential(one, DIFFERENTIAL, is_certain=True) for one in (mass, heavier))
    assert decide_level(after).level <= decide_level(before).level


@pytest.mark.parametrize(("word", "expected"), [("stat", [1]), ("asap", [2]), ("urgent", [3]), ("routine", []), (None, [])])
def test_the_referrer_s_priority_has_a_level(word, expected):
    """FHIR's words; "routine" raises nothing."""
    assert levels(raise_from_priority(word, load_policy())) == expected


def test_a_differential_that_is_not_certain_supports_no_more_than_routine():
    """However severe its conditions are, a large set raises to level 4 at most."""
    assert levels(raises_from_differential({1: 1.0}, DIFFERENTIAL, is_certain=False)) == [4]


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.001, "about 1 in 100"),
        (0.06, "about 6 in 100"),
        (0.094, "about 9 in 100"),
        (0.1, "about 1 in 10"),
        (0.25, "about 2 in 10"),
        (0.71, "about 7 in 10"),
        (0.949, "about 9 in 10"),
        (0.95, "nearly all"),
        (1.0, "nearly all"),
    ],
)
def test_reasons_speak_in_natural_frequencies(probability, said):
    """Small shares out of a hundred, others out of ten."""
    (found,) = raises_from_differential({1: probability}, dict.fromkeys(DIFFERENTIAL, 0.0), is_certain=True)
    assert found.text_en == f"differential: {said} such patients have a condition of severity 2 or worse"


def test_every_reason_is_said_in_english_and_urdu_with_its_source():
    """The Urdu text is in Arabic script and has the same numbers."""
    found = [
        *raises_from_acuity(0.3, 0.6, ACUITY),
        *raises_from_differential({1: 0.3}, DIFFERENTIAL, is_certain=True),
        *raises_from_lesion(0.3, 0.2),
        *raise_from_priority("stat", load_policy()),
    ]
    assert [one.source for one in found] == ["acuity", "acuity", "symptoms", "lesions", "referrer"]
    assert [one.text_en for one in found] == [
        "acuity model: about 3 in 10 patients like this need critical care",
        "acuity model: experts call about 6 in 10 patients like this urgent",
        "differential: about 3 in 10 such patients have a condition of severity 2 or worse",
        "lesion model: the photo is above the point from which a dermatologist must look for skin cancer",
        "the referrer asked for stat",
    ]
    for one in found:
        assert any("\u0600" <= letter <= "\u06ff" for letter in one.text_ur)
        assert {letter for letter in one.text_ur if letter.isdigit()} == {letter for letter in one.text_en if letter.isdigit()}
