"""The sentinel set: the textbook presentation of every condition of severity 1 or 2 in the catalogue.

A patient who has what most patients with the condition have, told by codes and in words of each script. A model that no longer sees
such a patient as an emergency has forgotten the condition, however good its averages are. Knows no bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import CaseReading, read_case
from inference.evidence import SEXES
from training.generator import PatientGenerator, finding_map
from training.knowledge import Knowledge
from training.synthetic import SCRIPTS

MOST_SEVERE = 2  # severities 1 and 2 are emergencies
_DRAWN, _SEED = 64, 20_261_129
_USUAL = 0.5  # what at least half of the patients have is usual
_LEAST_SHOWN = 3
_BY_CODES = "codes"


@dataclass(frozen=True)
class Sentinel:
    """One presentation of `condition`, told in `wording`: codes, en, ur or roman."""

    condition: str
    wording: str
    reading: CaseReading


def sentinels(knowledge: Knowledge) -> tuple[Sentinel, ...]:
    """Every severe condition's presentation, in each wording that the lexicon has for all of its findings."""
    phrases = _first_phrases(knowledge)
    found = []
    for index, condition in enumerate(knowledge.labels):
        if knowledge.conditions[condition]["severity"] <= MOST_SEVERE:
            found += [Sentinel(condition, wording, read_case(case, "sentinel")) for wording, case in _cases(knowledge, index, phrases)]
    return tuple(found)


def _cases(knowledge: Knowledge, index: int, phrases: dict[tuple[str, str, str], str]) -> Iterator[tuple[str, dict[str, Any]]]:
    answers, age_years, sex = _usual(knowledge, index)
    about = {"age_years": age_years, "sex": sex, "case_id": f"sentinel-{knowledge.labels[index]}"}
    yield _BY_CODES, {**about, "findings": finding_map(knowledge, answers)}
    shown = [knowledge.slots[place] for place in np.flatnonzero(answers)]
    for script in SCRIPTS:
        words = [phrases.get((slot.code, slot.value, script)) for slot in shown]
        if all(words):
            comma = "، " if script == "ur" else ", "
            yield script, {**about, "case_id": f"{about['case_id']}-{script}", "complaint": comma.join(map(str, words))}


def _usual(knowledge: Knowledge, index: int) -> tuple[NDArray[np.int8], float, str]:
    """Which slots are there in at least half of the patients (the 3 commonest, if fewer are), and the median patient."""
    one = replace(knowledge, prior=np.eye(len(knowledge.labels))[index])
    patients = PatientGenerator(one).draw(_DRAWN, np.random.default_rng(_SEED + index))
    share = (patients.answers == 1).mean(axis=0)
    is_usual = share >= _USUAL
    if is_usual.sum() < _LEAST_SHOWN:
        is_usual[np.argsort(-share, kind="stable")[:_LEAST_SHOWN]] = True
    sex = SEXES[int(np.bincount(patients.sex, minlength=2).argmax())]
    return (is_usual & (share > 0)).astype(np.int8), round(float(np.median(patients.age_years)), 2), sex


def _first_phrases(knowledge: Knowledge) -> dict[tuple[str, str, str], str]:
    """The first wording of each (code, value) that is there, by script."""
    first: dict[tuple[str, str, str], str] = {}
    for code, value, polarity, script, text in knowledge.lexicon.get("phrases", ()):
        if polarity == "present":
            first.setdefault((code, value, script), text)
    return first
