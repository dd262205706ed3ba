"""The interactive protocol: age, sex and the first complaint known, then one answer after another from the patient's own.

Question choice and stopping are those of `nabz ask`: `inference.answers` and `inference.settled`, here for many patients at
once. Decides no rules, no vitals and no metric; trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from inference.answers import expected_information, severity_weights
from inference.bundle import Bundle
from inference.case import Sex
from inference.policy import LEAST_URGENT
from inference.prospects import LIKELY
from inference.settled import MOST_FINDINGS, StopRule
from training.questionnaire import LEAST, Array, Bools, Questionnaire, expected_bits, outputs_of, plogp

# (evidence rows [n, S], whose they are [n]) -> probabilities [n, C], or all outputs by name
Posterior = Callable[[Array, Array], Array]
Outputs = Callable[[Array, Array], dict[str, Array]]
# Questions whose answers the model itself is asked about, of those that the likelihoods put first. The model's order differs
# from theirs by a few places; with all questions the same are asked, and it takes twenty times as long.
SHORTLIST = 3
LIST_SHORTLIST = 16
LEAST_ABOUT_LIST = 0.1  # bits below which an answer hardly changes the list
_PATIENTS_AT_ONCE = 100


@dataclass(frozen=True)
class Answering:
    """N patients who answer: everything they would say [N, S], what is known at first [N, S], who they are."""

    full: NDArray[np.float32]
    initial: NDArray[np.float32]
    demographics: NDArray[np.int64]
    log_shift: NDArray[np.float32]
    age_years: Array
    sex: tuple[Sex, ...]


def interview(
    questions: Questionnaire, patients: Answering, bundle: Bundle, rule: StopRule, cap: int, list_questions: int = 0
) -> tuple[Array, Array]:
    """Ask every patient at most `cap` questions, the next best one each time, until the rule has all that it wants.

    Of a bundle that has the output `listed`, at most `list_questions` more are about the list, once the rule wants none.
    Returns what is known then, [N, S], and the questions in their order, [N, cap], -1 where none was asked any more.
    """
    known, spent = patients.initial.copy(), np.zeros(len(patients.initial), dtype=np.int64)
    order = np.full((len(known), cap), -1)
    concerning = questions.concerning(patients.age_years, patients.sex)
    asking = np.arange(len(known))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("asking", total=cap * len(known))
        for turn in range(cap):
            for rows in np.array_split(asking, np.arange(_PATIENTS_AT_ONCE, len(asking), _PATIENTS_AT_ONCE)):
                may = concerning[rows] & ~questions.answered(known[rows]) & questions.reached(known[rows])
                for before in order[rows, :turn].T:
                    may[np.arange(len(rows)), before] = False  # asked, and the patient had no answer
                outputs = _outputs_of(bundle, patients, rows)
                chosen = next_questions(questions, known[rows], may, lambda *feeds, of=outputs: of(*feeds)["probabilities"], rule)
                listing = np.flatnonzero((chosen < 0) & (spent[rows] < list_questions))
                if questions.has_lists and len(listing):
                    chosen[listing] = next_list_questions(
                        questions, known[rows[listing]], may[listing], _outputs_of(bundle, patients, rows[listing])
                    )
                    spent[rows[listing]] += 1
                order[rows, turn] = chosen
                progress.advance(bar, len(rows))
            asking = np.flatnonzero(order[:, turn] >= 0)
            progress.advance(bar, len(known) - len(asking))
            known[asking] = np.where(questions.slots[order[asking, turn]], patients.full[asking], known[asking])
            if not len(asking):
                break
    return known, order


def next_questions(questions: Questionnaire, known: Array, may: Bools, posterior: Posterior, rule: StopRule) -> NDArray[np.int64]:
    """The next question for each of n patients, [n], or -1 where the rule asks no more.

    `may` [n, Q]: the questions that are open. `posterior` gives probabilities [rows, C] for evidence rows and the place of
    each row's patient. The likelihoods put a few questions before the others; the model's answers to these decide.
    """
    n = len(known)
    now = posterior(known, np.arange(n))
    weights = severity_weights(questions.severity)
    expected = np.where(may, expected_bits(questions.likelihood, questions.starts, now, weights), -np.inf)
    short, kept = shortlist(expected, SHORTLIST)
    asked = answers_to(questions, short, known, now)
    after = posterior(asked.evidence, asked.whose)
    told = expected_information(after, asked.chances, asked.starts, weights).sum(axis=1).reshape(n, kept)
    raising = (asked.chances >= LIKELY) & (supported_level(after, questions) < supported_level(now, questions)[asked.whose])
    could_raise = np.logical_or.reduceat(raising, asked.starts).reshape(n, kept)
    settled = rule.is_settled(questions.set_sizes(now, known), now.max(axis=1))
    many = questions.answered(known).sum(axis=1) >= MOST_FINDINGS
    worth = (
        (told >= rule.least_information)
        & (could_raise | ~settled[:, None])
        & ~many[:, None]
        & np.isfinite(np.take_along_axis(expected, short, axis=1))
    )
    return best_of(short, told, worth)


def next_list_questions(questions: Questionnaire, known: Array, may: Bools, outputs: Outputs) -> NDArray[np.int64]:
    """The question that tells most about who else is on the list, [n], or -1 where none tells LEAST_ABOUT_LIST bits.

    The information is that of each condition being listed or not, summed over the conditions as if they were independent.
    """
    n = len(known)
    now = outputs(known, np.arange(n))["probabilities"]
    chances = now @ questions.likelihood.T
    unsure = np.add.reduceat(plogp(chances), questions.starts, axis=1)
    short, kept = shortlist(np.where(may, -unsure, -np.inf), LIST_SHORTLIST)
    asked = answers_to(questions, short, known, now)
    likely = asked.chances >= LIKELY  # of 165 places that may hurt a few are
    listed = np.full((len(likely), now.shape[1]), 0.5)
    listed[likely] = outputs(asked.evidence[likely], asked.whose[likely])["listed"]
    chance = np.where(likely, asked.chances, 0.0)
    total = np.maximum(np.add.reduceat(chance, asked.starts), LEAST)
    mixture = np.add.reduceat(chance[:, None] * listed, asked.starts) / total[:, None]
    after = np.add.reduceat(chance * _unsure(listed), asked.starts) / total
    told = (_unsure(mixture) - after).reshape(n, kept)
    return best_of(short, told, (told >= LEAST_ABOUT_LIST) & np.take_along_axis(may, short, axis=1))


@dataclass(frozen=True)
class Answers:
    """All A answers to each patient's short list of questions, one after the other: each question's begin at `starts`.

    `evidence` [A, S] is what would be known, `whose` [A] the patient's place, `chances` [A] how likely the answer is.
    """

    evidence: Array
    whose: NDArray[np.int64]
    starts: NDArray[np.int64]
    chances: Array


def answers_to(questions: Questionnaire, short: NDArray[np.int64], known: Array, now: Array) -> Answers:
    """Every answer to the questions `short` [n, kept], on top of what is `known` [n, S] of patients with probabilities `now`."""
    counts = questions.counts[short.ravel()]
    starts = np.cumsum(counts) - counts
    answers = np.repeat(questions.starts[short.ravel()] - starts, counts) + np.arange(counts.sum())
    whose = np.repeat(np.repeat(np.arange(len(short)), short.shape[1]), counts)
    patterns = questions.patterns[answers]
    chances = np.einsum("ac,ac->a", questions.likelihood[answers], now[whose]) / now[whose].sum(axis=1)
    return Answers(np.where(patterns != 0, patterns, known[whose]), whose, starts, chances)


def shortlist(expected: Array, size: int) -> tuple[NDArray[np.int64], int]:
    """The places of the `size` largest of each row, largest first, [n, kept], and how many those are."""
    kept = min(size, expected.shape[1])
    return np.argsort(-expected, axis=1, kind="stable")[:, :kept], kept


def best_of(short: NDArray[np.int64], told: Array, worth: Bools) -> NDArray[np.int64]:
    """The question of each short list that tells most among those worth asking, [n]; -1 where none is."""
    best = np.where(worth, told, -np.inf).argmax(axis=1)
    found: NDArray[np.int64] = np.where(worth.any(axis=1), short[np.arange(len(short)), best], -1)
    return found


def _unsure(p: Array) -> Array:
    """The entropy of every condition's being listed, summed, in bits, [rows]."""
    unsure: Array = -(plogp(p) + plogp(1 - p)).sum(axis=1)
    return unsure


def supported_level(p: Array, questions: Questionnaire) -> NDArray[np.int64]:
    """The level that each settled differential supports by the contract's thresholds, [n]; 5 without thresholds."""
    level = np.full(len(p), LEAST_URGENT)
    for one in (4, 3, 2):
        threshold = questions.thresholds.get(f"severity_level_{one}")
        if threshold is not None:
            level[p[:, questions.severity <= one].sum(axis=1) >= threshold] = one
    return level


def _outputs_of(bundle: Bundle, patients: Answering, rows: Array) -> Outputs:
    def outputs(evidence: Array, whose: Array) -> dict[str, Array]:
        mine = rows[whose]
        found = outputs_of(bundle, evidence, patients.demographics[mine], patients.log_shift[mine])
        return {name: values.astype(np.float64) for name, values in found.items() if name != "contributions"}

    return outputs
