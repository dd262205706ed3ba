"""Synthetic labelled cases to try the tools with: cases of the catalogue, each with the level that its drawn condition's severity means.

Everything is invented. The labels are those of somebody who knows the condition, which no clinic does: figures measured on them say that
the tools work, and nothing about patients.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inference.case import LABELS, CaseReading, read_case
from inference.triage import Triage
from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.labelled_cases import FILE
from training.synthetic import draw_cases

WRONG_SHARE = 0.15  # of levels that the invented expert gives one step off; estimate


def write_labelled_sample(folder: Path, catalogue: Path, n: int, seed: int, triage: Triage | None = None) -> Path:
    """Write `n` cases into `folder`; returns the file. With `triage` each has the `machine_level` that it gives.

    Half of the levels are an expert's, a quarter overrides and a quarter outcomes, by chance.
    """
    knowledge, random = load_knowledge(catalogue), np.random.default_rng(seed)
    generator = PatientGenerator(knowledge)
    patients = generator.draw(n, random)
    cases = draw_cases(knowledge, generator, patients, random)
    machine = _levels(cases, triage) if triage is not None else {}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with path.open("w", encoding="utf-8") as file:
        for number, case in enumerate(cases):
            slug = knowledge.labels[patients.condition[number]]
            severity = int(knowledge.conditions[slug]["severity"])
            off = int(random.choice((-1, 1))) if random.random() < WRONG_SHARE else 0
            labels = {
                "level": min(max(severity + off, 1), 5), "level_source": str(random.choice(("expert", "expert", "override", "outcome"))),
                "condition": slug, "machine_level": machine.get(str(case["case_id"])),
            }  # fmt: skip
            file.write(json.dumps({**case, LABELS: labels}, ensure_ascii=False) + "\n")
    return path


def _levels(cases: list[dict[str, object]], triage: Triage) -> dict[str, int]:
    readings = [CaseReading(read_case(case, "case").case, ()) for case in cases]
    return {one.case_id: one.level for one in triage.rank(readings, datetime.now(UTC))}
