"""The questions of a symptom bundle as arrays, so that many patients can be asked at once.

Knows which questions are open to whom and how likely each answer is; chooses none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.answers import AnswerModel, answer_rows
from inference.bundle import Bundle
from inference.case import Sex
from inference.evidence import DEMOGRAPHICS, EvidenceEncoder, Slot
from inference.prediction_sets import PredictionSets
from inference.prospects import limited_findings, outside_of

Array = NDArray[Any]
Bools = NDArray[np.bool_]
_ROWS_AT_ONCE = 4096
LEAST = 1e-12  # below it a probability is 0


@dataclass(frozen=True)
class Questionnaire:
    """Every question of a bundle as arrays: Q questions, their A answers one after the other, S slots, C conditions.

    `patterns` [A, S] has an answer's slots, `slots` [Q, S] whose slots are whose, `parent` [Q] the question that must be
    answered with yes first (-1: none), `likelihood` [A, C] is P(answer | condition).
    """

    codes: tuple[str, ...]
    counts: NDArray[np.int64]
    patterns: NDArray[np.float32]
    slots: Bools
    parent: NDArray[np.int64]
    likelihood: Array
    severity: NDArray[np.int64]
    thresholds: Mapping[str, float]
    limits: dict[str, frozenset[str]]
    set_sizes: Callable[[Array, Array], NDArray[np.int64]]
    has_lists: bool

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of each question's first answer, [Q]."""
        return np.cumsum(self.counts) - self.counts

    def reached(self, known: Array) -> Bools:
        """Which questions may be asked, [n, Q]: all the parents of a question were answered with something there."""
        yes = (known @ self.slots.T.astype(np.float32) > -self.slots.sum(axis=1)) & (np.abs(known) @ self.slots.T > 0)
        open_now = np.ones_like(yes)
        above = self.parent.copy()
        while (has := above >= 0).any():
            open_now[:, has] &= yes[:, above[has]]
            above = np.where(has, self.parent[above], -1)
        return open_now

    def answered(self, known: Array) -> Bools:
        """Which questions are answered, [n, Q]."""
        return np.abs(known) @ self.slots.T.astype(np.float32) > 0

    def concerning(self, age_years: Array, sex: tuple[Sex, ...]) -> Bools:
        """Which questions concern each patient, [n, Q]: not pregnancy for a man."""
        places = {code: place for place, code in enumerate(self.codes)}
        table = np.ones((len(sex), len(self.codes)), dtype=bool)
        for row, (age, one) in enumerate(zip(age_years, sex, strict=True)):
            for rule in outside_of(None if np.isnan(age) else float(age), one):
                table[row, [places[code] for code in self.limits[rule] if code in places]] = False
        return table


def expected_bits(likelihood: Array, starts: NDArray[np.int64], belief: Array, weights: Array | float = 1.0) -> Array:
    """What each question is expected to tell by Bayes' rule alone, [n, Q], in bits weighted by condition; see `expected_information`.

    `likelihood` [A, C] has P(answer | condition) of all answers, each question's from its place in `starts` on; `belief`
    [n, C] is P(condition), `weights` [C] what each condition counts.
    """
    weighted = belief * weights
    chances = np.maximum(belief @ likelihood.T, LEAST)
    told: Array = np.add.reduceat(weighted @ plogp(likelihood).T - np.log2(chances) * (weighted @ likelihood.T), starts, axis=1)
    return told


def plogp(p: Array) -> Array:
    """p log2 p, 0 at 0."""
    found: Array = p * np.log2(np.maximum(p, LEAST))
    return found


def outputs_of(bundle: Bundle, evidence: Array, demographics: Array, log_shift: Array) -> dict[str, Array]:
    """The bundle's outputs by name, [n, ...], in batches that fit the memory."""
    feeds = {"evidence": evidence, "demographics": demographics, "log_shift": log_shift}
    parts = [
        bundle.run({name: values[start : start + _ROWS_AT_ONCE] for name, values in feeds.items()})
        for start in range(0, max(len(evidence), 1), _ROWS_AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def questionnaire(bundle: Bundle) -> Questionnaire:
    """The questions of a symptom bundle."""
    contract = bundle.contract
    vocabulary, n_conditions = contract.vocabulary, len(contract.labels)
    encoder = EvidenceEncoder([Slot(*slot) for slot in vocabulary["slots"]], vocabulary["parents"])

    def of_nobody(rows: Array) -> Array:
        who, shift = np.full(len(rows), DEMOGRAPHICS - 1), np.zeros((len(rows), n_conditions))
        return outputs_of(bundle, rows, who, shift)["probabilities"].astype(np.float64)

    temperature = float(contract.training.get("temperature", 1.0))
    likely = AnswerModel(encoder, vocabulary["evidences"], vocabulary["parents"], temperature, of_nobody)
    codes = tuple(sorted(encoder.codes))
    place = {code: index for index, code in enumerate(codes)}
    nothing = np.zeros(len(encoder.slots), dtype=np.float32)
    return Questionnaire(
        codes=codes,
        counts=np.array([len(encoder.values(code)) for code in codes]),
        patterns=answer_rows(encoder, {}, nothing, codes),
        slots=np.array([[slot.code == code for slot in encoder.slots] for code in codes]),
        parent=np.array([place.get(vocabulary["parents"].get(code, ""), -1) for code in codes]),
        likelihood=np.concatenate([likely.likelihood(code) for code in codes]),
        severity=np.array([label.severity or 5 for label in contract.labels]),
        thresholds=contract.thresholds,
        limits=limited_findings(vocabulary),
        set_sizes=PredictionSets(contract).sizes,
        has_lists=any(spec.name == "listed" for spec in contract.outputs),
    )
