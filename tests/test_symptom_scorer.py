"""What is exported of the network: reasons that add up, hidden layers included, and the fit worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from inference.evidence import demographic_index
from training.knowledge import load_knowledge
from training.symptom_network import SymptomNetwork
from training.symptom_scorer import OUTPUTS, SymptomScorer

SLOTS = 9
TEMPERATURE = 1.5


@pytest.fixture
def scorer(tiny_release) -> SymptomScorer:
    """On two conditions; every layer of its network speaks."""
    knowledge = load_knowledge(tiny_release)
    torch.manual_seed(0)
    network = SymptomNetwork(knowledge, hidden=16)
    torch.nn.init.normal_(network.correction[-1].weight)
    torch.nn.init.normal_(network.correction[-1].bias)
    return SymptomScorer(network, TEMPERATURE, knowledge).eval()


def outputs(scorer: SymptomScorer, evidence: np.ndarray, who: int = 10, shift: float = 0.0) -> dict[str, np.ndarray]:
    """The scorer's outputs for rows of evidence."""
    n = len(evidence)
    with torch.no_grad():
        found = scorer(
            torch.tensor(evidence, dtype=torch.float32), torch.full((n,), who), torch.full((n, 2), shift) * torch.tensor([1.0, 0])
        )
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


def test_the_reasons_add_up(scorer):
    """Findings alone, the person, and the findings together: the leading condition's calibrated logit less the average one."""
    random = np.random.default_rng(0)
    evidence = random.integers(-1, 2, (200, SLOTS))
    found = outputs(scorer, evidence, shift=0.7)
    logs = np.log(found["probabilities"].astype(np.float64))
    prior = np.array([0.2, 0.8])
    expected = logs.max(axis=1) - logs @ prior
    assert found["contributions"].sum(axis=1) + found["shared"].sum(axis=1) == pytest.approx(expected, abs=1e-4)
    assert np.abs(found["shared"][:, 1]).max() > 0.01  # the hidden layers do bend


def test_what_is_unknown_adds_nothing(scorer):
    """Nothing known: all is said by the person; one answer: it alone has a contribution."""
    one = np.zeros((2, SLOTS))
    one[1, 0] = 1
    found = outputs(scorer, one)
    assert (found["contributions"][0] == 0).all() and found["shared"][0, 1] == pytest.approx(0, abs=1e-5)
    assert (found["contributions"][1][1:] == 0).all() and found["contributions"][1][0] != 0


def test_without_hidden_layers_the_reasons_are_bayes_rule(tiny_release):
    """Fever in flu against the average of flu and cold: (1 - 0.2) of log 0.8 - log 0.1, at temperature 1; nothing together."""
    knowledge = load_knowledge(tiny_release)
    scorer = SymptomScorer(SymptomNetwork(knowledge), 1.0, knowledge).eval()
    fever = np.zeros((1, SLOTS))
    fever[0, 0] = 1
    found = outputs(scorer, fever)
    assert found["probabilities"][0].argmax() == 0
    assert found["contributions"][0, 0] == pytest.approx(0.8 * log(0.8 / 0.1), abs=1e-4)
    assert found["shared"][0, 1] == pytest.approx(0, abs=1e-5)


def test_the_fit_is_the_probability_of_what_is_there(tiny_release):
    """A man of 30 with fever: flu 0.206 with 0.8, cold 0.4 with 0.1; what is denied does not count."""
    knowledge = load_knowledge(tiny_release)
    scorer = SymptomScorer(SymptomNetwork(knowledge), 1.0, knowledge).eval()
    rows = np.zeros((3, SLOTS))
    rows[1, 0], rows[2, 0] = 1, -1
    fit = outputs(scorer, rows, demographic_index(30, "male"))["fit"]
    flu, cold = 0.2 / 0.97, 0.4
    assert fit == pytest.approx([0, log((flu * 0.8 + cold * 0.1) / (flu + cold)), 0], abs=1e-4)
