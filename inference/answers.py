"""How likely each answer is under each condition, and what a question would tell, weighted by severity.

The contract carries no likelihoods, so they are read off the network: started as Bayes' rule, it gives p(condition | answer)
for a patient of whom nothing else is known, and P(answer | condition) is proportional to that over the prior. Knows no
case, no rules and no wording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import ABSENT, PRESENT
from inference.evidence import EvidenceEncoder

Floats = NDArray[np.float64]

# What a condition of severity 1 to 5 counts in the information: telling a severe one from the others is worth more.
SEVERITY_WEIGHTS = (4.0, 3.0, 2.0, 1.0, 1.0)
_LEAST_PROBABILITY = 1e-9
_BACKGROUND = 0.01  # how often a finding is present in conditions that do not cause it, where the bundle does not say
_LEAST_BACKGROUND = 1e-3


class AnswerModel:
    """P(answer | condition) of every finding that the model knows, its parent present."""

    def __init__(
        self,
        encoder: EvidenceEncoder,
        evidences: Mapping[str, Mapping[str, Any]],
        parents: Mapping[str, str],
        temperature: float,
        posterior: Callable[[NDArray[np.float32]], Floats],
    ) -> None:
        """`posterior` gives the model's probabilities [rows, conditions] for evidence rows of a patient of unknown age and sex.

        Raises what `posterior` raises.
        """
        self._encoder = encoder
        self._likelihood: dict[str, Floats] = {}
        codes = sorted(encoder.codes)
        nothing = np.zeros(len(encoder.slots), dtype=np.float32)
        bases = {code: _with_parents(encoder, code, parents) for code in codes if code in parents}
        rows = answer_rows(encoder, bases, nothing, codes)
        logs = temperature * np.log(np.maximum(posterior(rows), _LEAST_PROBABILITY))
        start = 0
        for code in codes:
            stop = start + len(encoder.values(code))
            self._likelihood[code] = _likelihood(logs[start:stop], _usual(encoder.values(code), evidences.get(code, {})))
            start = stop

    def likelihood(self, code: str) -> Floats:
        """P(answer | condition), [answers, conditions]; the columns sum to 1. A multi-valued finding counts as one choice."""
        return self._likelihood[code]

    def probabilities(self, codes: Sequence[str], current: Floats) -> Floats:
        """P(answer) of every answer to every code, one after the other, given the conditions' probabilities now."""
        if not codes:
            return np.empty(0)
        table = np.concatenate([self._likelihood[code] for code in codes])
        answers: Floats = table @ current / current.sum()
        return answers


def answer_rows(
    encoder: EvidenceEncoder, bases: Mapping[str, NDArray[np.float32]], base: NDArray[np.float32], codes: Sequence[str]
) -> NDArray[np.float32]:
    """One row of evidence for every answer to every code, one after the other: that answer on top of what is known.

    `bases` has what is known for the codes for which that is not `base`.
    """
    rows = [encoder.answered(bases.get(code, base), code, value) for code in codes for value in encoder.values(code)]
    return np.stack(rows) if rows else np.empty((0, len(encoder.slots)), dtype=np.float32)


def expected_information(posterior: Floats, answer_probability: Floats, starts: NDArray[np.int64], weights: Floats) -> Floats:
    """What each question tells about each condition, weighted, in bits: [questions, conditions]; their sum is the question's.

    `posterior` [answers, conditions] and `answer_probability` [answers] list the answers to all questions, each question's
    from its place in `starts`. A question tells sum_c w_c p(c) KL(P(answer | c) || P(answer)), the weighted mutual information
    (Guiasu, Reports on Mathematical Physics 2:165, 1971): never negative, and with all weights 1 the expected fall in
    entropy. p(c) is the answers' mixture, so that a model whose answers do not average to its present belief cannot
    make a question look better.
    """
    joint = answer_probability[:, None] * posterior
    mixture = np.add.reduceat(joint, starts, axis=0)
    counts = np.diff(np.append(starts, len(posterior)))
    ratio = np.log2(np.maximum(posterior, _LEAST_PROBABILITY) / np.maximum(np.repeat(mixture, counts, axis=0), _LEAST_PROBABILITY))
    told: Floats = np.add.reduceat(joint * ratio, starts, axis=0) * weights
    return told


def severity_weights(severity: NDArray[np.int64]) -> Floats:
    """The weight of each condition in the information, [conditions]."""
    return np.array(SEVERITY_WEIGHTS)[np.clip(severity, 1, len(SEVERITY_WEIGHTS)) - 1]


def _with_parents(encoder: EvidenceEncoder, code: str, parents: Mapping[str, str]) -> NDArray[np.float32]:
    """Nothing known but that the finding's parents are present, as they are when it is asked."""
    row = np.zeros(len(encoder.slots), dtype=np.float32)
    while (code := parents.get(code, "")) in encoder.codes:
        if encoder.values(code) == (PRESENT, ABSENT):
            row = encoder.answered(row, code, PRESENT)
    return row


def _usual(values: tuple[str, ...], evidence: Mapping[str, Any]) -> Floats:
    """P(answer) in a condition that has nothing to do with the finding."""
    if values != (PRESENT, ABSENT):
        return np.full(len(values), 1 / len(values))
    present = min(max(float(evidence.get("background", _BACKGROUND)), _LEAST_BACKGROUND), 1 - _LEAST_BACKGROUND)
    return np.array([present, 1 - present])


def _likelihood(logs: Floats, usual: Floats) -> Floats:
    """P(answer | condition) from log p(condition | answer), [answers, conditions].

    Between two answers the log probabilities differ, condition by condition, as the log likelihoods do, up to one number for
    all conditions. Most findings have nothing to do with most conditions: the median condition has the usual likelihoods.
    """
    relative = logs - logs[-1]
    scores = relative - np.median(relative, axis=1, keepdims=True) + np.log(usual)[:, None]
    powers = np.exp(scores - scores.max(axis=0))
    shares: Floats = powers / powers.sum(axis=0)
    return shares
