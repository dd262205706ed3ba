"""Draws synthetic patients from knowledge: who they are, every answer, and what of it gets known.

Answers are drawn independently given the condition (children given their parent). Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.evidence import AGE_BAND_STARTS_YEARS, AGE_BANDS, SEXES
from training.knowledge import BAND_SHARES, Floats, Knowledge

Generator = np.random.Generator

BAND_ENDS_YEARS = (*AGE_BAND_STARTS_YEARS[1:], 92.0)
PROVINCE_SHARES = {  # share of the population, Pakistan census 2023, rounded; territories: estimate
    "punjab": 0.52,
    "sindh": 0.23,
    "khyber_pakhtunkhwa": 0.165,
    "balochistan": 0.06,
    "islamabad": 0.01,
    "azad_kashmir": 0.01,
    "gilgit_baltistan": 0.005,
}
SEASON_SHARES = {"winter": 0.25, "spring": 1 / 6, "summer": 1 / 6, "monsoon": 0.25, "autumn": 1 / 6}
MISSING_SHARE = 0.4  # of the answers of a held-out patient
CONTEXT_KNOWN = 0.7  # share of training cases whose season and province are told to the model


@dataclass(frozen=True)
class Patients:
    """N synthetic patients. `answers` [N, S] is +1, -1 or 0 (not asked, because the parent is absent)."""

    condition: NDArray[np.int64]
    age_years: Floats
    sex: NDArray[np.int64]
    season: NDArray[np.int64]
    province: NDArray[np.int64]
    answers: NDArray[np.int8]

    def demographics(self) -> NDArray[np.int64]:
        """Each patient's index into the model's table of age bands and sexes."""
        return band_of(self.age_years) * len(SEXES) + self.sex


class PatientGenerator:
    """Draws patients and masks from one body of knowledge; the caller's random generator makes it repeatable."""

    def __init__(self, knowledge: Knowledge, tempering: float = 1.0) -> None:
        """`tempering` flattens the prior (power of it) so that rare conditions are seen often enough in training."""
        self._knowledge = knowledge
        self.weights = knowledge.prior**tempering / (knowledge.prior**tempering).sum()
        kinds = np.array(knowledge.kind)
        self._groups = _slots_by_code(knowledge)
        self._categorical = [group for group in self._groups if knowledge.kind[group[0]] == "C"]
        self._multis = [group for group in self._groups if knowledge.kind[group[0]] == "M"]
        self._depths = _depths(knowledge.parent)
        antecedent = [knowledge.evidences[slot.code].get("is_antecedent", False) for slot in knowledge.slots]
        top = (kinds == "B") & (knowledge.parent < 0) & ~np.array(antecedent)
        self._complaint_slots = np.flatnonzero(top)
        self._seasons, self._provinces = list(knowledge.season), list(knowledge.province)
        self._band_given_condition = self._posterior_of_demographics()

    def draw(self, n: int, random: Generator) -> Patients:
        """Draw `n` patients: condition by (tempered) prior, then age, sex, season, province, then every answer."""
        condition = random.choice(len(self.weights), size=n, p=self.weights)
        who = _draw_rows(self._band_given_condition[condition], random)
        band, sex = who // 2, who % 2
        age = _draw_ages(band, random)
        season = self._context(condition, SEASON_SHARES, self._knowledge.season, random)
        province = self._context(condition, PROVINCE_SHARES, self._knowledge.province, random)
        answers = self._answers(condition, random)
        self._apply_limits(answers, age, sex)
        return Patients(condition, age, sex, season, province, answers)

    def log_shift(self, patients: Patients, random: Generator | None = None) -> NDArray[np.float32]:
        """The prior's shift by season and province, [N, C]; with `random`, unknown (0) for some of the patients."""
        season = np.stack([self._knowledge.season[name] for name in self._seasons])
        province = np.stack([self._knowledge.province[name] for name in self._provinces])
        shift = season[patients.season] + province[patients.province]
        if random is not None:
            shift = shift * (random.random(len(shift)) < CONTEXT_KNOWN)[:, None]
        return shift.astype(np.float32)

    def mask_missing(self, patients: Patients, share: float | Floats, random: Generator) -> NDArray[np.int8]:
        """Lose `share` of the findings (all slots of a finding together; children fall with their parent).

        The first complaint is never lost: nobody consults without one. It plays the part of DDXPlus's initial evidence.
        """
        return self._masked(patients, ~self._drawn(patients, share, random), random)

    def first_complaint(self, patients: Patients, random: Generator) -> NDArray[np.int64]:
        """The slot of one present symptom, a leading one of the condition if there is one; -1 without any symptom."""
        slots = self._complaint_slots
        present = patients.answers[:, slots] == 1
        chief = self._knowledge.chief[patients.condition][:, slots]
        draw = np.where(present, random.random(present.shape) + chief, -1.0)
        best = draw.argmax(axis=1)
        return np.where(present.any(axis=1), slots[best], -1)

    def mask_to_complaint(self, patients: Patients, random: Generator, single: bool, asked_share: float | Floats = 0.0) -> NDArray[np.int8]:
        """Keep what a complaint would say: one symptom (`single`), or the leading ones and a few more."""
        present = patients.answers[:, self._complaint_slots] == 1
        draw = random.random(present.shape)
        chief = self._knowledge.chief[patients.condition][:, self._complaint_slots]
        said = np.zeros_like(present) if single else present & (draw < np.where(chief, 0.8, 0.12))
        known = self._drawn(patients, asked_share, random)
        known[:, self._complaint_slots] |= said
        return self._masked(patients, known, random)

    def _drawn(self, patients: Patients, share: float | Floats, random: Generator) -> NDArray[np.bool_]:
        """`share` of the findings by lot, [N, S]; all slots of a finding together."""
        drawn = np.empty(patients.answers.shape, dtype=bool)
        for group in self._groups:
            drawn[:, group] = (random.random(len(drawn)) < share)[:, None]
        return drawn

    def _masked(self, patients: Patients, known: NDArray[np.bool_], random: Generator) -> NDArray[np.int8]:
        """The answers that are known, and the first complaint; a child is known only with its parent."""
        first = self.first_complaint(patients, random)
        rows = np.flatnonzero(first >= 0)
        known[rows, first[rows]] = True
        parent = self._knowledge.parent
        for slots in self._depths[1:]:
            known[:, slots] &= known[:, parent[slots]]
        return np.where(known, patients.answers, 0).astype(np.int8)

    def _answers(self, condition: NDArray[np.int64], random: Generator) -> NDArray[np.int8]:
        presence = self._knowledge.presence[condition].astype(np.float32)
        chosen = random.random(presence.shape, dtype=np.float32) < presence
        for group in self._categorical:
            cumulative = presence[:, group].cumsum(axis=1)
            draw = random.random((len(condition), 1), dtype=np.float32) * cumulative[:, -1:]
            chosen[:, group] = np.arange(len(group)) == (draw > cumulative[:, :-1]).sum(axis=1)[:, None]
        answers = np.where(chosen, 1, -1).astype(np.int8)
        self._withdraw_unasked(answers)
        for group in self._multis:
            none = ~(answers[:, group] == 1).any(axis=1)
            answers[np.ix_(none, group)] = 0
        return answers

    def _withdraw_unasked(self, answers: NDArray[np.int8]) -> None:
        parent = self._knowledge.parent
        for slots in self._depths[1:]:
            answers[:, slots] *= answers[:, parent[slots]] == 1

    def _apply_limits(self, answers: NDArray[np.int8], age: Floats, sex: NDArray[np.int64]) -> None:
        outside = {
            "female_only": sex != 0,
            "male_only": sex != 1,
            "from_12_years": age < 12,
            "under_2_years": age >= 2,
            "under_12_years": age >= 12,
        }
        places: dict[str, list[int]] = {}
        for index, slot in enumerate(self._knowledge.slots):
            places.setdefault(slot.code, []).append(index)
        for rule, codes in self._knowledge.applies.items():
            slots = [index for code in codes for index in places[code]]
            answers[np.ix_(outside[rule], slots)] = -1
        self._withdraw_unasked(answers)

    def _context(
        self, condition: NDArray[np.int64], shares: dict[str, float], shifts: dict[str, Floats], random: Generator
    ) -> NDArray[np.int64]:
        table = np.stack([shares[name] * np.exp(shift) for name, shift in shifts.items()], axis=1)
        return _draw_rows((table / table.sum(axis=1, keepdims=True))[condition], random)

    def _posterior_of_demographics(self) -> Floats:
        """P(age band, sex | condition), [C, bands * 2], from the conditions' multipliers and the population's shares."""
        knowledge = self._knowledge
        known = knowledge.log_demographics.reshape(len(AGE_BANDS) + 1, len(SEXES), -1)[:-1, :2]
        joint = np.exp(known) * BAND_SHARES[:, None, None] * 0.5
        flat = joint.reshape(-1, len(knowledge.labels)).T
        return flat / flat.sum(axis=1, keepdims=True)


def band_of(age_years: Floats) -> NDArray[np.int64]:
    """Each age's band, as `inference.evidence.demographic_index` counts them."""
    return np.searchsorted(np.array(AGE_BAND_STARTS_YEARS), age_years, side="right") - 1


def _slots_by_code(knowledge: Knowledge) -> list[NDArray[np.int64]]:
    groups: dict[str, list[int]] = {}
    for index, slot in enumerate(knowledge.slots):
        groups.setdefault(slot.code, []).append(index)
    return [np.array(group) for group in groups.values()]


def _depths(parent: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Slots by depth in the tree of questions, so that parents are settled before their children."""
    depth = np.zeros(len(parent), dtype=int)
    for index in range(len(parent)):
        above = parent[index]
        while above >= 0:
            depth[index] += 1
            above = parent[above]
    return [np.flatnonzero(depth == level) for level in range(depth.max() + 1)]


def _draw_rows(probabilities: Floats, random: Generator) -> NDArray[np.int64]:
    cumulative = probabilities.cumsum(axis=1)
    draw = random.random((len(probabilities), 1)) * cumulative[:, -1:]
    return (draw > cumulative[:, :-1]).sum(axis=1)


def _draw_ages(band: NDArray[np.int64], random: Generator) -> Floats:
    starts, ends = np.array(AGE_BAND_STARTS_YEARS), np.array(BAND_ENDS_YEARS)
    return starts[band] + (ends - starts)[band] * random.random(len(band)) * 0.999


def finding_map(knowledge: Knowledge, answers: NDArray[Any]) -> dict[str, str | tuple[str, ...]]:
    """One patient's row of answers as a case's `findings`."""
    findings: dict[str, str | tuple[str, ...]] = {}
    for slot, kind, answer in zip(knowledge.slots, knowledge.kind, answers, strict=True):
        if kind == "B" and answer:
            findings[slot.code] = "present" if answer > 0 else "absent"
        elif kind != "B" and answer > 0:
            before = findings.get(slot.code, ())
            findings[slot.code] = (*((before,) if isinstance(before, str) else before), slot.value)
    return {code: value[0] if isinstance(value, tuple) and len(value) == 1 else value for code, value in findings.items()}
