"""Tests of the interactive protocol, on two conditions and three questions that can be worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from inference.bundle import Label
from inference.settled import StopRule
from training import interactive
from training.interactive import Answering, interview
from training.questionnaire import expected_bits, questionnaire

A, B, C = 0, 1, 2
# P(yes | x), P(yes | y); C is asked under A only.
LIKELIHOOD = np.array([[0.9, 0.1], [0.5, 0.5], [0.8, 0.2]])
CLEAR = StopRule(largest_set=0, probability=0.95, least_information=0.0)


class BayesBundle:
    """Stands where a bundle stands. With `has_lists`, B alone decides whether y is listed."""

    def __init__(self, *, has_lists: bool = False) -> None:
        labels = tuple(Label(name=n, name_en=n, name_ur=n, icd10="J00", severity=4) for n in "xy")
        outputs = ("probabilities", "listed") if has_lists else ("probabilities",)
        self.contract = SimpleNamespace(
            task="symptoms-test",
            version="0.0.1",
            labels=labels,
            outputs=tuple(SimpleNamespace(name=name) for name in outputs),
            thresholds={},
            conformal={"mass": 0.9},
            training={},
            vocabulary={
                "slots": [["A", ""], ["B", ""], ["C", ""]],
                "parents": {"C": "A"},
                "evidences": {code: {"background": 0.5} for code in "ABC"},
            },
        )
        self.has_lists = has_lists

    def run(self, feeds):
        evidence = feeds["evidence"]
        logits = np.maximum(evidence, 0) @ np.log(LIKELIHOOD) + np.maximum(-evidence, 0) @ np.log(1 - LIKELIHOOD)
        powers = np.exp(logits)
        outputs = {"probabilities": powers / powers.sum(axis=1, keepdims=True)}
        if self.has_lists:
            outputs["listed"] = np.stack([np.ones(len(evidence)), 0.5 + 0.5 * evidence[:, B]], axis=1)
        return outputs


def people(*full: tuple[int, int, int], initial: tuple[int, int, int] = (0, 0, 0)) -> Answering:
    """Patients who would give these answers to A, B and C."""
    n = len(full)
    return Answering(
        full=np.array(full, dtype=np.float32),
        initial=np.array([initial] * n, dtype=np.float32),
        demographics=np.zeros(n, dtype=np.int64),
        log_shift=np.zeros((n, 2), dtype=np.float32),
        age_years=np.full(n, 40.0),
        sex=("female",) * n,
    )


def order_of(patients: Answering, rule: StopRule = CLEAR, cap: int = 3, list_questions: int = 0) -> list[list[int]]:
    """What each patient is asked, in order."""
    bundle = BayesBundle(has_lists=bool(list_questions))
    return interview(questionnaire(bundle), patients, bundle, rule, cap, list_questions)[1].tolist()  # type: ignore[arg-type]


def test_it_asks_what_tells_most_and_stops_when_the_condition_is_clear():
    """A makes x 0.9 likely, C under it 0.97; without A, C is out of reach and B alone is left."""
    assert order_of(people((1, 1, 1), (-1, 1, 0))) == [[A, C, -1], [A, B, -1]]


def test_the_answers_are_the_patient_s_own():
    """What is known in the end is what was asked, as the patient says it, and the first complaint."""
    bundle = BayesBundle()
    patients = people((1, -1, 1), initial=(0, -1, 0))
    known, _ = interview(questionnaire(bundle), patients, bundle, CLEAR, 1)  # type: ignore[arg-type]
    assert known.tolist() == [[1, -1, 0]]


def test_no_more_than_the_cap():
    """One question, though the condition is not clear."""
    assert order_of(people((1, 1, 1)), cap=1) == [[A]]


def test_it_stops_sooner_when_less_is_enough():
    """0.9 after A is at least 0.85; where nothing tells ten bits nothing is asked."""
    assert order_of(people((1, 1, 1)), StopRule(0, 0.85, 0.0)) == [[A, -1, -1]]
    assert order_of(people((1, 1, 1)), StopRule(0, 0.95, 10.0)) == [[-1, -1, -1]]


def test_a_question_without_an_answer_is_not_asked_twice():
    """A patient who cannot say A is asked B next, and then nothing."""
    assert order_of(people((0, 1, 0))) == [[A, B, -1]]


def test_the_list_s_questions_come_last_and_are_counted_apart():
    """B says nothing of the condition, but it decides whether y is listed."""
    assert order_of(people((1, 1, 1)), list_questions=1) == [[A, C, B]]
    assert order_of(people((1, 1, 1)), cap=2, list_questions=1) == [[A, C]]


def test_the_short_list_changes_nothing_that_it_need_not(monkeypatch):
    """With every question in it the same are asked."""
    patients = people((1, 1, 1), (1, -1, -1), (-1, -1, 0), initial=(0, 0, 0))
    few = order_of(patients)
    monkeypatch.setattr(interactive, "SHORTLIST", 1)
    assert order_of(patients) == few


def test_information_by_the_likelihoods_alone_worked_out_by_hand():
    """Even odds: A tells 1 - H(0.9) = 0.531 bits, B none, C 1 - H(0.8) = 0.278."""
    questions = questionnaire(BayesBundle())  # type: ignore[arg-type]
    told = expected_bits(questions.likelihood, questions.starts, np.array([[0.5, 0.5]]), np.ones(2))
    assert told[0] == pytest.approx([0.531, 0.0, 0.278], abs=1e-3)
