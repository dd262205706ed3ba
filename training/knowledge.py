"""What a symptom model is born knowing: slots, and each condition's probability of each slot, as arrays.

Reads the DDXPlus release format and the compiled catalogue through one door. Knows no network and draws no patient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import DataError
from inference.evidence import AGE_BANDS, DEMOGRAPHICS, SEXES, Slot
from training.catalogue import PROVINCES, SEASONS, compile_catalogue, compile_lexicon, load_catalogue
from training.ddxplus import read_patients

Floats = NDArray[np.float64]

# `train_statistics.json` counts only the first value of a multi-valued evidence, so its shares are not probabilities;
# the release's patients have each possible value about this often (measured on its validation patients).
MULTI_VALUE_PROBABILITY = 0.65
# A value that never came first may be there all the same, behind one that always does; estimate.
UNSEEN_VALUE_PROBABILITY = 0.05
TRAINING_FILES = ("train_statistics.json", "release_train_patients.csv")
_FLOOR = 1e-5
_NEVER = 1e-6
# Share of each age band among consultations where the age is unknown; estimate.
BAND_SHARES = np.array([0.03, 0.10, 0.25, 0.52, 0.10])


@dataclass(frozen=True)
class Knowledge:
    """Conditions, slots and probabilities. C conditions, S slots.

    `presence[c, s]` is P(slot s is +1 | condition c, its parent present); `kind[s]` is B, C or M; `parent[s]` is the
    slot of the binary parent or -1. `log_demographics[d, c]` is the log prior by age band and sex.
    """

    conditions: dict[str, Any]
    evidences: dict[str, Any]
    labels: tuple[str, ...]
    slots: tuple[Slot, ...]
    kind: tuple[str, ...]
    parent: NDArray[np.int64]
    presence: Floats
    prior: Floats
    log_demographics: Floats
    season: dict[str, Floats]
    province: dict[str, Floats]
    chief: NDArray[np.bool_]
    vitals: tuple[dict[str, float], ...]
    lexicon: dict[str, Any]
    applies: dict[str, list[str]]

    def parents_by_code(self) -> dict[str, str]:
        """Each child finding's parent, by code."""
        evidences = self.evidences  # a few DDXPlus questions stand under a code that is no evidence
        return {c: e["code_question"] for c, e in evidences.items() if e["code_question"] != c and e["code_question"] in evidences}


def load_knowledge(folder: Path) -> Knowledge:
    """The catalogue's folder, or one in DDXPlus release format.

    The latter has `release_conditions.json`, `release_evidences.json`, and either `train_statistics.json` or the training
    patients themselves, `release_train_patients.csv`. Raises DataError when it is neither.
    """
    if (folder / "findings").is_dir():
        catalogue = load_catalogue(folder)
        release = compile_catalogue(catalogue)
        applies = {rule: [catalogue.findings[slug]["code"] for slug in slugs] for rule, slugs in catalogue.applies.items()}
        return _assemble(release["conditions"], release["evidences"], release["statistics"], compile_lexicon(catalogue), applies)
    source = training_source(folder)
    names = ("release_conditions.json", "release_evidences.json")
    try:
        conditions, evidences = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
        if source.suffix == ".csv":
            return _assemble(conditions, evidences, _counted(source, conditions, evidences), {}, {})
        statistics = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is neither a catalogue nor a folder with {', '.join(names)} and {' or '.join(TRAINING_FILES)}"
        ) from error
    return _assemble(conditions, evidences, _given_parent(statistics, evidences), {}, {})


def training_source(folder: Path) -> Path:
    """The file of a DDXPlus folder that the probabilities come from: the statistics, else the training patients."""
    return next((folder / name for name in TRAINING_FILES if (folder / name).is_file()), folder / TRAINING_FILES[0])


def _counted(path: Path, conditions: Mapping[str, Any], evidences: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics counted from training patients: P(slot | condition, parent present), and who has the condition.

    Each count is smoothed by one patient who has the slot as often as all patients do.
    """
    labels = tuple(conditions)
    slots = tuple(Slot(code, value) for code, evidence in evidences.items() for value in _values(evidence))
    table = read_patients(path, slots, labels, evidences)
    overall = _shares(table.full, np.full(len(slots), 0.5))
    bands, sexes = table.demographics // len(SEXES), table.demographics % len(SEXES)
    statistics = {}
    for index, label in enumerate(labels):
        rows = table.condition == index
        findings: dict[str, dict[str, float]] = {}
        for slot, share in zip(slots, _shares(table.full[rows], overall), strict=True):
            findings.setdefault(slot.code, {})[slot.value or "1"] = float(share)
        statistics[label] = {
            "prior": (rows.sum() + 1) / (len(rows) + len(labels)),
            "findings": findings,
            "age": {band: _lift(bands == number, rows) for number, band in enumerate(AGE_BANDS)},
            "sex": {sex: _lift(sexes == number, rows) for number, sex in enumerate(SEXES[:2])},
        }
    return statistics


def _shares(answers: NDArray[np.float32], expected: Floats) -> Floats:
    """How often each slot is +1 among the patients who were asked, smoothed by one patient at `expected`."""
    asked, present = (answers != 0).sum(axis=0), (answers > 0).sum(axis=0)
    return (present + expected) / (asked + 1)


def _lift(group: NDArray[np.bool_], rows: NDArray[np.bool_]) -> float:
    """How many times as often a group has the condition as everybody does, smoothed by one patient; 1 for no group."""
    if not group.any():
        return 1.0
    return float(((group & rows).sum() + group.mean()) / ((rows.sum() + 1) * group.mean()))


def _given_parent(statistics: dict[str, Any], evidences: dict[str, Any]) -> dict[str, Any]:
    """DDXPlus statistics, which are unconditional, as probabilities given that the parent is present."""
    result = {}
    for condition, entry in statistics.items():
        findings = {}
        for code, values in entry["findings"].items():
            evidence = evidences[code]
            parent = evidence["code_question"]
            is_asked_of_all = parent == code or parent not in evidences  # a few DDXPlus questions stand under a code that is no evidence
            reach = 1.0 if is_asked_of_all else entry["findings"].get(parent, {}).get("1", 0.0)
            if reach <= 0:
                continue
            default = str(evidence["default_value"])
            given = {
                value: max(p - (1 - reach) * (value == default and evidence["data_type"] != "B"), 0.0) / reach
                for value, p in values.items()
            }
            if evidence["data_type"] == "M":
                real = [value for value in given if value != default and given[value] > 0]
                rest = given.get(default, 0.0)
                unseen = dict.fromkeys(_values(evidence), (1 - rest) * UNSEEN_VALUE_PROBABILITY)
                given = unseen | dict.fromkeys(real, (1 - rest) * MULTI_VALUE_PROBABILITY) | {default: rest}
            findings[code] = {value: min(p, 1.0) for value, p in given.items()}
        result[condition] = {**entry, "findings": findings}
    return result


def _assemble(
    conditions: dict[str, Any],
    evidences: dict[str, Any],
    statistics: Mapping[str, Any],
    lexicon: dict[str, Any],
    applies: dict[str, list[str]],
) -> Knowledge:
    labels = tuple(conditions)
    slots = tuple(Slot(code, value) for code, evidence in evidences.items() for value in _values(evidence))
    place = {(slot.code, slot.value): index for index, slot in enumerate(slots)}
    parent = np.full(len(slots), -1)
    for index, slot in enumerate(slots):
        question = evidences[slot.code]["code_question"]
        if question != slot.code:
            parent[index] = place.get((question, ""), -1)  # a few DDXPlus parents are not yes-or-no questions
    presence = np.empty((len(labels), len(slots)))
    for row, label in enumerate(labels):
        for code, evidence in evidences.items():
            listed = statistics[label]["findings"].get(code)
            for value in _values(evidence):
                presence[row, place[(code, value)]] = _probability(evidence, value, listed)
    prior = np.array([statistics[label]["prior"] for label in labels])
    chief = np.zeros((len(labels), len(slots)), dtype=bool)
    for row, label in enumerate(labels):
        for code in statistics[label].get("chief", ()):
            for value in _values(evidences[code]):
                chief[row, place[(code, value)]] = True
    return Knowledge(
        conditions=conditions,
        evidences=evidences,
        labels=labels,
        slots=slots,
        kind=tuple(evidences[slot.code]["data_type"] for slot in slots),
        parent=parent,
        presence=np.clip(presence, 0.0, 1.0),
        prior=prior / prior.sum(),
        log_demographics=_log_demographics(labels, statistics),
        season={name: _multipliers(labels, statistics, "season", name) for name in SEASONS},
        province={name: _multipliers(labels, statistics, "province", name) for name in PROVINCES},
        chief=chief,
        vitals=tuple(statistics[label].get("vitals", {}) for label in labels),
        lexicon=lexicon,
        applies=applies,
    )


def _values(evidence: Mapping[str, Any]) -> list[str]:
    if evidence["data_type"] == "B":
        return [""]
    values = [str(value) for value in evidence["possible-values"]]
    default = str(evidence["default_value"])
    return values if not default or default in values else [*values, default]


def _probability(evidence: Mapping[str, Any], value: str, listed: Mapping[str, float] | None) -> float:
    """P(value | condition, parent present); what a condition does not list falls back to the finding's background."""
    if evidence["data_type"] == "B":
        return listed["1"] if listed is not None else float(evidence.get("background", _FLOOR))
    default = str(evidence["default_value"])
    if listed is not None:
        return listed.get(value, _FLOOR if default else 0.02)
    if default:
        return 1.0 if value == default else _FLOOR
    return 1.0 / len(_values(evidence))


def _log_demographics(labels: tuple[str, ...], statistics: Mapping[str, Any]) -> Floats:
    """log of prior times the multipliers of age band and sex; unknown age or sex averages over the known ones.

    A condition's multipliers are scaled so that they average 1 over the population: they say who has the condition,
    the prior says how often it is seen.
    """
    table = np.empty((DEMOGRAPHICS, len(labels)))
    total = sum(statistics[label]["prior"] for label in labels)
    for column, label in enumerate(labels):
        entry = statistics[label]
        ages = np.array([entry.get("age", {}).get(band, 1.0) for band in AGE_BANDS])
        ages = np.append(ages, float(ages @ BAND_SHARES))
        sexes = np.array([entry.get("sex", {}).get(sex, 1.0) for sex in SEXES[:2]])
        sexes = np.append(sexes, sexes.mean())
        table[:, column] = (entry["prior"] / total * np.outer(ages / ages[-1], sexes / sexes[-1])).ravel()
    return np.log(np.maximum(table, _NEVER * table.max(axis=1, keepdims=True)))


def _multipliers(labels: tuple[str, ...], statistics: Mapping[str, Any], key: str, name: str) -> Floats:
    return np.log(np.maximum([statistics[label].get(key, {}).get(name, 1.0) for label in labels], 1e-3))
