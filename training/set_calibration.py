"""Calibrates the prediction sets: each condition's limit on its probability, by how much is known and how sure the model is.

Draws its own synthetic patients, as many of each condition, and lets more and more of their answers be known, by lot and
question by question. Knows no network: it is handed one that gives probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.evidence import Slot
from inference.prediction_sets import FindingCounts, band_starts, bands_of
from training.generator import Generator, PatientGenerator, Patients
from training.knowledge import Knowledge
from training.questionnaire import LEAST, expected_bits

Array = NDArray[Any]
Source = Callable[[dict[str, Array]], dict[str, Array]]

COVERAGE = 0.9
# Of each condition's patients, in every band: what is rare must not be left out for the sake of what is common. A little
# above 0.8, the least that is asked of any condition, because a few dozen calibration patients say it only roughly.
CONDITION_COVERAGE = 0.88
KNOWN_BANDS = (1, 2, 4, 7, 13)  # findings
LEADING_BANDS = (0.0, 0.4, 0.7, 0.9)  # probability of the leading condition
SHARES_KNOWN = (0.01, 0.03, 0.1, 0.3, 0.7)
QUESTIONS = 8
LEAST_PATIENTS = 15  # of a condition in a band; with fewer the band's common limit counts


@dataclass(frozen=True)
class Known:
    """Calibration rows: the true condition [n], probabilities [n, C] and the number of known findings [n]."""

    condition: NDArray[np.int64]
    probabilities: Array
    known: NDArray[np.int64]


def calibrate_sets(source: Source, knowledge: Knowledge, *, patients: int, is_single: bool, seed: int) -> dict[str, Any]:
    """The contract's `conformal`: limits that hold the true condition in the set for 90 % of patients in every band.

    `source` gives `probabilities` for the network's inputs; `is_single` says whether the first complaint is one finding.
    """
    rows = _gathered(knowledge_states(source, knowledge, patients, np.random.default_rng(seed), is_single=is_single))
    limits = fit_limits(rows, knowledge.prior)
    return {
        "method": (
            "split conformal on a condition's probability (Sadinle et al. 2019), class-conditional (Vovk 2012), "
            "by number of known findings and by the leading probability"
        ),
        "coverage": COVERAGE,
        "condition_coverage": CONDITION_COVERAGE,
        "known": list(KNOWN_BANDS),
        "leading": list(LEADING_BANDS),
        "least_probability": [[[float(f"{limit:.3g}") for limit in band] for band in bands] for bands in limits],
        "n": patients,
        "rows": len(rows.condition),
        "data": "synthetic patients, as many of each condition, weighted by the conditions' priors",
    }


def fit_limits(rows: Known, prior: Array) -> Array:
    """The limits, [known bands, leading bands, C].

    In each band the common limit is the largest that covers COVERAGE of the patients, weighted by `prior` [C]; a condition
    whose own patients would be covered less than CONDITION_COVERAGE has a lower one of its own.
    """
    starts = band_starts(KNOWN_BANDS), band_starts(LEADING_BANDS)
    by_known, by_leading = bands_of(rows.probabilities, rows.known, *starts)
    own = rows.probabilities[np.arange(len(rows.condition)), rows.condition]
    # What leads belongs to the set whatever its probability.
    own = np.where(rows.probabilities.argmax(axis=1) == rows.condition, np.inf, own)
    limits = np.zeros((len(KNOWN_BANDS), len(LEADING_BANDS), len(prior)))
    for known in range(len(KNOWN_BANDS)):
        for leading in range(len(LEADING_BANDS)):
            chosen = (by_known == known) & (by_leading == leading)
            limits[known, leading] = _band_limits(rows.condition[chosen], own[chosen], prior)
    return limits


def _band_limits(condition: Array, own: Array, prior: Array) -> Array:
    """One band's limits, [C]; 0, which leaves nothing out, where nobody was seen."""
    if not len(condition):
        return np.zeros(len(prior))
    lowest = np.full(len(prior), np.inf)
    for label in np.unique(condition):
        mine = np.sort(own[condition == label])
        place = int((len(mine) + 1) * (1 - CONDITION_COVERAGE)) - 1
        if len(mine) >= LEAST_PATIENTS and place >= 0:
            lowest[label] = mine[place]
    # A patient is covered by the common limit or by the condition's own, whichever is lower.
    needed = np.where(own >= lowest[condition], np.inf, own)
    order = np.argsort(-needed, kind="stable")
    covered = np.cumsum(prior[condition[order]]) / prior[condition].sum()
    common = needed[order][min(int(np.searchsorted(covered, COVERAGE)), len(order) - 1)]
    limits: Array = np.minimum(np.minimum(common, lowest), 1.0)
    return limits


def _gathered(states: Iterator[Known]) -> Known:
    parts = list(states)
    return Known(*(np.concatenate([getattr(part, name) for part in parts]) for name in Known.__dataclass_fields__))


def knowledge_states(source: Source, knowledge: Knowledge, n: int, random: Generator, *, is_single: bool) -> Iterator[Known]:
    """The same n patients with more and more known: the complaint; so many answers by lot; one question after another."""
    generator = PatientGenerator(knowledge, tempering=0.0)
    patients = generator.draw(n, random)
    who, shift = patients.demographics(), generator.log_shift(patients)
    counts = FindingCounts([slot.code for slot in knowledge.slots])

    def seen(evidence: Array) -> Known:
        feeds: dict[str, Array] = {"evidence": evidence.astype(np.float32), "demographics": who, "log_shift": shift}
        return Known(patients.condition, source(feeds)["probabilities"], counts.known(evidence))

    for share in SHARES_KNOWN:
        yield seen(generator.mask_to_complaint(patients, random, is_single, share))
    asker = Asker(knowledge)
    evidence = generator.mask_to_complaint(patients, random, is_single)
    for _ in range(QUESTIONS):
        state = seen(evidence)
        yield state
        evidence = asker.ask(evidence, patients, state.probabilities)


class Asker:
    """Asks each patient the question that tells most about the condition, by the knowledge's probabilities alone."""

    def __init__(self, knowledge: Knowledge) -> None:
        codes = [slot.code for slot in knowledge.slots]
        self._starts = np.flatnonzero([place == 0 or codes[place - 1] != code for place, code in enumerate(codes)])
        self._counts = np.diff(np.append(self._starts, len(codes)))
        self._parent = knowledge.parent[self._starts]
        presence = knowledge.presence.astype(np.float32)
        self._answers, self._answer_starts = _answer_table(knowledge.slots, presence, self._starts, self._counts)

    def ask(self, evidence: Array, patients: Patients, probabilities: Array) -> Array:
        """The evidence [n, S] with one more question answered from the patients' own answers, where one is left."""
        told = expected_bits(self._answers, self._answer_starts, probabilities)
        is_open = np.add.reduceat(evidence != 0, self._starts, axis=1) == 0
        has_answer = np.add.reduceat(patients.answers != 0, self._starts, axis=1) > 0
        is_reached = (self._parent < 0) | (evidence[:, self._parent] == 1)
        told = np.where(is_open & has_answer & is_reached, told, -1.0)
        asked = told.argmax(axis=1)
        rows = np.flatnonzero(told[np.arange(len(told)), asked] >= 0)
        now_known = np.zeros(evidence.shape, dtype=bool)
        now_known[rows] = np.repeat(np.arange(len(self._starts)), self._counts) == asked[rows, None]
        answered: Array = np.where(now_known, patients.answers, evidence)
        return answered


def _answer_table(slots: tuple[Slot, ...], presence: Array, starts: Array, counts: Array) -> tuple[Array, Array]:
    """P(answer | condition) of every question's answers, one after the other, [A, C], and each question's first place."""
    tables: list[Array] = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        shares = presence[:, start : start + count].T
        is_binary = not slots[start].value
        tables.append(np.stack([shares[0], 1 - shares[0]]) if is_binary else shares / np.maximum(shares.sum(axis=0), LEAST))
    sizes = np.array([len(table) for table in tables])
    return np.concatenate(tables), np.cumsum(sizes) - sizes
