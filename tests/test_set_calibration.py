"""The calibration of prediction sets: limits counted by hand, the asker's question, and coverage on patients of its own."""

from __future__ import annotations

import numpy as np
import pytest

from inference.prediction_sets import FindingCounts
from training import set_calibration
from training.generator import PatientGenerator
from training.knowledge import Knowledge, load_knowledge
from training.set_calibration import Asker, Known, fit_limits, knowledge_states


@pytest.fixture(scope="module")
def catalogue(catalogue_folder) -> Knowledge:
    """The knowledge of the shipped catalogue."""
    return load_knowledge(catalogue_folder)


def limits(probabilities: list[float], condition: list[int], prior: list[float]) -> np.ndarray:
    """The limits of the band of one finding and a leading probability of 0.4 to 0.7, from each patient's probability of condition 0."""
    p = np.array([[value, 1 - value] for value in probabilities])
    found = fit_limits(Known(np.array(condition), p, np.ones(len(p), dtype=int)), np.array(prior))
    return found[0, 1]


def test_the_common_limit_covers_nine_of_ten():
    """Twenty patients of one condition who trail with 0.31 to 0.5: its own limit, at 88 %, covers 19 of them, more than 90 %."""
    found = limits([0.31 + n / 105 for n in range(20)], [0] * 20, [1.0, 0.0])
    assert found[0] == pytest.approx(0.31 + 1 / 105)


def test_a_rare_condition_has_a_lower_limit_of_its_own():
    """Of the common one all lead; the rare one, a thousandth of the patients, trails with 0.31 and up and is still covered."""
    rare = [0.31 + n / 105 for n in range(16)]
    found = limits([0.4] * 100 + rare, [1] * 100 + [0] * 16, [0.001, 0.999])
    assert found[0] == pytest.approx(0.31 + 1 / 105)
    assert found[1] == 1.0  # what leads needs no limit


def test_few_patients_get_no_limit_of_their_own():
    """With fewer than 15 the band's common limit counts; a band without patients leaves nothing out."""
    found = limits([0.4] * 100 + [0.31] * 5, [1] * 100 + [0] * 5, [0.001, 0.999])
    assert found.tolist() == [1.0, 1.0]
    empty = fit_limits(Known(np.array([0]), np.array([[0.5, 0.5]]), np.array([1])), np.array([0.5, 0.5]))
    assert (empty[-1] == 0).all()


def test_the_asker_asks_what_tells_most(tiny_release):
    """E_1 tells flu from cold (0.8 to 0.1), E_2 does better (0.5 to never) once known; E_5 (0.3 in both) tells nothing."""
    knowledge = load_knowledge(tiny_release)
    patients = PatientGenerator(knowledge).draw(6, np.random.default_rng(0))
    evidence = np.zeros(patients.answers.shape, dtype=np.int8)
    asker, even = Asker(knowledge), np.full((6, 2), 0.5, dtype=np.float32)
    counts = FindingCounts([slot.code for slot in knowledge.slots])
    once = asker.ask(evidence, patients, even)
    assert counts.known(once).tolist() == [1] * 6
    assert (once[:, 0] != 0).all() and (once[:, 8] == 0).all()
    twice = asker.ask(once, patients, even)
    assert (twice[:, 1] != 0).all() and (twice[:, 8] == 0).all()
    assert (twice[once != 0] == once[once != 0]).all()
    everything = patients.answers
    assert (asker.ask(everything, patients, even) == everything).all()


def test_more_and_more_is_known(tiny_release):
    """By lot: from the complaint alone to most answers; then the complaint again and one question after another."""
    knowledge = load_knowledge(tiny_release)

    def even(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": np.full((len(feeds["evidence"]), 2), 0.5, dtype=np.float32)}

    states = list(knowledge_states(even, knowledge, 50, np.random.default_rng(1), is_single=True))
    assert len(states) == len(set_calibration.SHARES_KNOWN) + set_calibration.QUESTIONS
    known = [state.known.mean() for state in states]
    lots = len(set_calibration.SHARES_KNOWN)
    assert known[:lots] == sorted(known[:lots]) and known[lots:] == sorted(known[lots:])
    assert (states[0].condition == states[-1].condition).all()


def test_sets_cover_what_they_promise(catalogue, monkeypatch):
    """Bayes' rule as the model: 90 % of other patients of the catalogue, weighted by the priors, have their condition in the set."""
    monkeypatch.setattr(set_calibration, "QUESTIONS", 1)
    monkeypatch.setattr(set_calibration, "SHARES_KNOWN", (0.01, 0.05))
    generator = PatientGenerator(catalogue)
    logs = np.log(np.clip(catalogue.presence, 1e-4, 1 - 1e-4)), np.log(np.clip(1 - catalogue.presence, 1e-4, 1 - 1e-4))

    def bayes(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        evidence = feeds["evidence"]
        logits = np.maximum(evidence, 0) @ logs[0].T + np.maximum(-evidence, 0) @ logs[1].T
        logits += catalogue.log_demographics[feeds["demographics"]] + feeds["log_shift"]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {"probabilities": p / p.sum(axis=1, keepdims=True)}

    states = list(knowledge_states(bayes, catalogue, 1200, np.random.default_rng(2), is_single=False))
    rows = Known(*(np.concatenate([getattr(state, name) for state in states]) for name in Known.__dataclass_fields__))
    found = fit_limits(rows, catalogue.prior)
    fresh = generator.draw(1000, np.random.default_rng(3))
    evidence = generator.mask_to_complaint(fresh, np.random.default_rng(4), single=False, asked_share=0.03).astype(np.float32)
    p = bayes({"evidence": evidence, "demographics": fresh.demographics(), "log_shift": generator.log_shift(fresh)})["probabilities"]
    counts = FindingCounts([slot.code for slot in catalogue.slots])
    starts = np.array(set_calibration.KNOWN_BANDS, dtype=float), np.array(set_calibration.LEADING_BANDS)
    by_known, by_leading = set_calibration.bands_of(p, counts.known(evidence), *starts)
    own = p[np.arange(1000), fresh.condition]
    covered = (own >= found[by_known, by_leading, fresh.condition]) | (p.argmax(axis=1) == fresh.condition)
    assert covered.mean() > 0.87
