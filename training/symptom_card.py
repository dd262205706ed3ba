"""The data card of the symptom trainer: patients that are drawn, the knowledge they are drawn from, and who is held out.

Counts only; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from training.data_card import DataCard
from training.knowledge import Knowledge
from training.list_head import ListPatients
from training.symptom_batches import held_out_batch
from training.symptom_recipe import Recipe


def symptom_card(
    task: str, knowledge: Knowledge, recipe: Recipe, seed: int, checksums: Mapping[str, str], lists: ListPatients | None
) -> DataCard:
    """Shares of the conditions by the real prior, and the share of held-out patients of whom each finding is not known.

    `lists` are the patients of the DDXPlus release from whom the list head learns.
    """
    splits = {
        "drawn to learn from (each once)": recipe.steps * recipe.batch,
        "drawn to stop by, and to choose recipes by": recipe.held_out_patients,
        "drawn to calibrate": recipe.calibration_patients,
        "drawn to choose thresholds": recipe.calibration_patients,
        "drawn to choose prediction sets": recipe.calibration_patients,
    }
    if lists is not None:
        splits["real, with lists to learn from"] = sum(len(table.condition) for table in lists.tables)
    return DataCard(
        task=task,
        sources=checksums,
        rows=recipe.steps * recipe.batch,
        row_is="synthetic patients to learn from, drawn once each; shares by the prior",
        classes={label: float(share) for label, share in zip(knowledge.labels, knowledge.prior, strict=True)},
        missing=_missing(knowledge, recipe, seed),
        splits=splits,
        objective=f"the log loss of {recipe.held_out_patients:,} generated patients of the real prior, of a seed of their own, masked as in training",
    )


def _missing(knowledge: Knowledge, recipe: Recipe, seed: int) -> dict[str, float]:
    """The share of held-out patients of whom nothing is known of a finding, by the finding's name; all findings together first."""
    is_unknown = held_out_batch(knowledge, recipe, seed).evidence == 0
    codes = [slot.code for slot in knowledge.slots]
    found = {"answers, over all findings": 0.0}
    for code in dict.fromkeys(codes):
        slots = np.flatnonzero([one == code for one in codes])
        found[str(knowledge.evidences[code].get("slug", code))] = float(is_unknown[:, slots].all(axis=1).mean())
    found["answers, over all findings"] = float(np.mean(list(found.values())[1:]))
    return found
