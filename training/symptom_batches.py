"""The patients of the symptom trainer as the network sees them: training batches, and the held-out ones.

A batch is drawn in shards, each from a seed of its own, so that any step can be drawn again, and several processes
draw together what one would. Every use of patients has its own seed. Knows no network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import DataError
from training.distributed import Ranks
from training.generator import PatientGenerator, Patients
from training.knowledge import Knowledge
from training.seen import Prints, of_patients
from training.symptom_recipe import Recipe

CALIBRATION_SEED_OFFSET = 1_000_003
EVALUATION_SEED_OFFSET = 2_000_003
DECISION_SEED_OFFSET = 3_000_017
SET_SEED_OFFSET = 4_000_037
STOPPING_SEED_OFFSET = 5_000_059
SHARDS = 4  # of a batch, for one, two and four processes alike; with other numbers of processes there are more


@dataclass(frozen=True)
class Batch:
    """`evidence` [N, S] in {-1, 0, +1}, `demographics` [N], `log_shift` [N, C], and the true `condition` [N]."""

    evidence: NDArray[np.float32]
    demographics: NDArray[np.int64]
    log_shift: NDArray[np.float32]
    condition: NDArray[np.int64]

    def feeds(self) -> dict[str, NDArray[Any]]:
        """The model's inputs by name."""
        return {"evidence": self.evidence, "demographics": self.demographics, "log_shift": self.log_shift}


def check_ranks(recipe: Recipe, ranks: Ranks) -> None:
    """Raise DataError when the batch cannot be split evenly."""
    if recipe.batch % math.lcm(SHARDS, ranks.world):
        raise DataError(
            f"a batch of {recipe.batch} patients cannot be split evenly over {ranks.world} processes in shards of {SHARDS}: "
            "start 1, 2, 4, 8 or another power of two with --nproc-per-node"
        )


def training_batch(generator: PatientGenerator, recipe: Recipe, seed: int, step: int, ranks: Ranks) -> tuple[Batch, Prints]:
    """This process's part of the patients of one step, with their fingerprints: some of the shards, whole ones.

    With one, two or four processes the parts together are the same patients. Of some season and province are not known.
    """
    shards = math.lcm(SHARDS, ranks.world)
    drawn, prints = [], []
    for shard in range(ranks.rank, shards, ranks.world):
        random = np.random.default_rng((seed, step, shard))
        patients = generator.draw(recipe.batch // shards, random)
        prints.append(of_patients(patients.answers, patients.age_years, patients.sex))
        evidence = mixed_masks(generator, patients, recipe, random).astype(np.float32)
        drawn.append(Batch(evidence, patients.demographics(), generator.log_shift(patients, random), patients.condition))
    joined = Batch(*(np.concatenate([getattr(part, name) for part in drawn]) for name in Batch.__dataclass_fields__))
    return joined, np.concatenate(prints)


def held_out_batch(knowledge: Knowledge, recipe: Recipe, seed: int) -> Batch:
    """Patients of the real prior that are never trained on, season and province known: what decides when to stop."""
    generator = PatientGenerator(knowledge)
    return masked_batch(generator, recipe, recipe.held_out_patients, np.random.default_rng(seed + STOPPING_SEED_OFFSET))


def masked_batch(generator: PatientGenerator, recipe: Recipe, n: int, random: np.random.Generator) -> Batch:
    """`n` patients of `generator`, masked as in training, season and province known."""
    patients = generator.draw(n, random)
    evidence = mixed_masks(generator, patients, recipe, random).astype(np.float32)
    return Batch(evidence, patients.demographics(), generator.log_shift(patients), patients.condition)


def decision_patients(knowledge: Knowledge, recipe: Recipe, seed: int) -> tuple[Patients, dict[str, NDArray[Any]]]:
    """Fresh patients that neither the network nor its temperature was fitted on, and the model's inputs for them."""
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(seed + DECISION_SEED_OFFSET)
    patients = generator.draw(recipe.calibration_patients, random)
    return patients, {
        "evidence": mixed_masks(generator, patients, recipe, random).astype(np.float32),
        "demographics": patients.demographics(),
        "log_shift": generator.log_shift(patients),
    }


def mixed_masks(generator: PatientGenerator, patients: Patients, recipe: Recipe, random: np.random.Generator) -> NDArray[np.int8]:
    """Each batch in four parts: everything asked; a random share lost; the complaint alone; the complaint and some answers."""
    n = len(patients.condition)
    cuts = (0, n // 5, 3 * n // 5, 4 * n // 5, n)
    parts = [_slice(patients, slice(a, b)) for a, b in pairwise(cuts)]
    lost = random.random(len(parts[1].condition)) * 0.97
    asked = random.random(len(parts[3].condition)) ** 2
    return np.concatenate(
        [
            parts[0].answers,
            generator.mask_missing(parts[1], lost, random),
            generator.mask_to_complaint(parts[2], random, recipe.single_complaint),
            generator.mask_to_complaint(parts[3], random, recipe.single_complaint, asked),
        ]
    )


def _slice(patients: Patients, rows: slice) -> Patients:
    return Patients(*(getattr(patients, name)[rows] for name in Patients.__dataclass_fields__))
