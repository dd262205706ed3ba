"""Thresholds with a certificate: bounds from the tables, thresholds counted by hand, and the recheck that finds a broken one."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prediction_sets import contract

from inference.bundle import Certificate, Label
from inference.errors import DataError
from training.export import render_card
from training.risk_control import broken, certify, expected_bound, largest_certified, recheck, upper_bound
from training.severity_levels import choose_severity_levels, recheck_severity


def test_the_upper_bound_is_clopper_pearsons():
    """No failure in 59 gives 4.95 %, one more trial than 58; all failures give 1."""
    assert upper_bound(0, 59) == pytest.approx(0.0495, abs=1e-4)
    assert upper_bound(0, 58) > 0.05
    assert upper_bound(3, 3) == 1.0


def test_conformal_risk_control_counts_one_more_failure():
    """Four failures in 99 cases bound the expected share by 5 in 100."""
    assert expected_bound(4, 99) == 0.05


def test_the_threshold_is_the_largest_that_is_certified():
    """Of 93 one may be missed and of 92 none (the bound of one failure is then 5.1 %): the second lowest score, or the lowest."""
    scores = np.arange(93) / 100
    assert upper_bound(1, 93) <= 0.05 < upper_bound(1, 92)
    assert largest_certified(scores, 0.05) == pytest.approx(0.01)
    assert largest_certified(scores[:92], 0.05) == 0.0


def test_equal_scores_are_not_missed():
    """A case at the threshold is called: with all scores alike nobody is missed."""
    assert largest_certified(np.full(100, 0.7), 0.05) == 0.7


def test_too_few_cases_certify_nothing():
    """58 cases, none missed, leave more than 5 % possible."""
    with pytest.raises(DataError) as error:
        largest_certified(np.ones(58), 0.05)
    assert str(error.value) == "58 cases are too few to certify a missed share of 5%: more are needed"


@given(st.lists(st.floats(0, 1), min_size=60, max_size=120))
def test_a_certified_threshold_keeps_its_bound(scores):
    """Whatever the scores: what lies below the threshold has a bound within the target, and one more miss would not."""
    values = np.array(scores)
    threshold = largest_certified(values, 0.05)
    assert upper_bound(int((values < threshold).sum()), len(values)) <= 0.05
    assert upper_bound(int((values <= threshold).sum()), len(values)) > 0.05


def certificate(is_event: list[int], is_called: list[int], target: float = 0.25) -> Certificate:
    """Of a few invented cases."""
    event, called = np.array(is_event, dtype=bool), np.array(is_called, dtype=bool)
    return certify(
        event="an emergency", miss="not called", target=target, is_event=event, is_called=called, data="made up", is_synthetic=True
    )


def test_a_certificate_says_what_it_rests_on():
    """One of four emergencies missed; one of two others raised."""
    found = certificate([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0])
    assert (found.n, found.missed, found.expected_bound) == (4, 1, 0.4)
    assert found.bound == pytest.approx(upper_bound(1, 4))
    assert (found.over_triage["value"], found.over_triage["n"]) == (0.5, 2)
    assert certificate([1], [1]).over_triage == {"n": 0}


def test_the_recheck_says_whether_it_holds():
    """On the cases given: a quarter missed is within the target of a quarter, and half is not."""
    certificates = {"t": certificate([1] * 4, [1] * 4)}
    ones = np.ones(4, dtype=bool)
    good = recheck(certificates, {"t": (ones, np.array([1, 1, 1, 0], dtype=bool))})
    bad = recheck(certificates, {"t": (ones, np.array([1, 1, 0, 0], dtype=bool))})
    assert (good["certificate_holds"].value, bad["certificate_holds"].value) == (1.0, 0.0)
    assert (bad["certificate_t_missed"].value, bad["certificate_t_missed"].n) == (0.5, 4)
    assert bad["certificate_t_bound"].value == pytest.approx(upper_bound(2, 4))
    assert broken(certificates, {name: figure.as_json() for name, figure in good.items()}) == []
    (sentence,) = broken(certificates, {name: figure.as_json() for name, figure in bad.items()})
    assert sentence == "t: 50.0% missed (15.0% to 85.0%, n = 4), certified for at most 25%"


def test_a_recheck_without_emergencies_is_undefined():
    """Nobody could be missed: NaN with its count, not "holds"; without certificates there is no figure."""
    nobody = recheck({"t": certificate([1], [1])}, {"t": (np.zeros(2, dtype=bool), np.ones(2, dtype=bool))})
    assert isnan(nobody["certificate_holds"].value) and nobody["certificate_holds"].n == 0
    assert broken({"t": certificate([1], [1])}, {name: figure.as_json() for name, figure in nobody.items()}) == []
    assert recheck({}, {}) == {}


def severe_contract(**more: object) -> object:
    """Conditions of severity 2, 3 and 4, each alone in its set."""
    labels = tuple(Label(name=name, name_en=name, severity=severity) for name, severity in (("a", 2), ("b", 3), ("c", 4)))
    return contract({"mass": 0.1}).model_copy(update={"labels": labels, **more})


def test_severity_thresholds_are_certified_and_checked_again():
    """Of 93 severe patients one may be missed: the second lowest mass, 0.2, and not the 0.5 above which nobody would look."""
    condition = np.array([0] * 93 + [2] * 300)
    p = np.tile([0.9, 0.05, 0.05], (393, 1))
    p[0], p[1], p[93:] = [0.1, 0.8, 0.1], [0.2, 0.1, 0.7], [0.05, 0.05, 0.9]
    two = np.tile([1, 0, 0, 1], (393, 1))
    thresholds, certificates = choose_severity_levels(severe_contract(), condition, p, two)
    assert thresholds["severity_level_2"] == pytest.approx(0.2)
    assert thresholds["severity_level_4"] == 0.05  # what is certified would be 0.9 and more: the shipped 0.05 is lower
    assert certificates["severity_level_2"].missed == 1 and certificates["severity_level_2"].is_synthetic
    sound = severe_contract(thresholds=thresholds, certificates=certificates)
    assert recheck_severity(sound, condition, p, two)["certificate_holds"].value == 1
    weak = severe_contract(thresholds={**thresholds, "severity_level_2": 0.95}, certificates=certificates)
    assert recheck_severity(weak, condition, p, two)["certificate_holds"].value == 0
    one = np.tile([1, 0, 0, 0], (393, 1))  # a single finding makes no differential certain, so level 2 is not spoken of
    assert recheck_severity(sound, condition, p, one)["certificate_severity_level_2_missed"].n == 0
    assert recheck_severity(severe_contract(), condition, p, two) == {}


def test_the_card_shows_the_certificate():
    """Target, confidence, what it rests on, its price, and that the patients were invented."""
    shown = render_card(
        contract(None).model_copy(update={"certificates": {"t": certificate([1, 1, 0], [1, 0, 1])}}), {"command": "x", "evaluations": {}}
    )
    assert "With 95 % confidence, of cases like these at most 25 % are missed." in shown
    assert "**Synthetic patients: this says nothing about real ones.**" in shown
    assert "| missed | 1, a share of 0.500 | 0.095 to 0.905 |" in shown
    assert "| price: others that are raised as well | 1.000 (n = 1) | 0.207 to 1.000 |" in shown
