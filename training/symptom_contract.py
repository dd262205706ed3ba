"""What a symptom bundle says of itself: inputs, outputs, labels, limits, data, and how it was trained.

Words and shapes only. It trains nothing and measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.bundle import Contract, DataSource, Label, TensorSpec
from inference.evidence import DEMOGRAPHICS
from training.export import now_utc
from training.knowledge import Knowledge

# The benchmark is scored by its first condition alone, so that questions must not stop at a small set.
BENCHMARK_STOP = {"settled_set": 0.0, "settled_probability": 0.98, "least_information": 0.0}


@dataclass(frozen=True)
class Decisions:
    """What turns probabilities into sets and levels, chosen on held-out patients; see `symptoms.calibrate_decisions`."""

    thresholds: dict[str, float]
    conformal: dict[str, Any]
    out_of_distribution: dict[str, Any]


def symptom_contract(
    task: str, version: str, knowledge: Knowledge, source: str, checksum: str, training: dict[str, Any], decisions: Decisions
) -> Contract:
    """The contract; `source` names the file that the knowledge came from (or `catalogue`), `checksum` is its SHA-256.

    `training` is what the bundle tells of its training; it is written as it is.
    """
    slots, conditions = len(knowledge.slots), len(knowledge.labels)
    is_catalogue = task == "symptoms"
    return Contract(
        task=task,
        version=version,
        created=now_utc(),
        model_sha256="",
        inputs=(
            TensorSpec(
                name="evidence",
                dtype="float32",
                shape=("n", slots),
                meaning="+1 present or chosen, -1 absent or not chosen, 0 unknown; slots in the vocabulary's order",
            ),
            TensorSpec(name="demographics", dtype="int64", shape=("n",), meaning=f"age band times 3 plus sex, in [0, {DEMOGRAPHICS})"),
            TensorSpec(
                name="log_shift",
                dtype="float32",
                shape=("n", conditions),
                meaning="log multiplier of each condition's prior for season and province; 0 when unknown",
            ),
        ),
        outputs=(
            TensorSpec(
                name="probabilities",
                dtype="float32",
                shape=("n", conditions),
                meaning="calibrated probability of each condition; sums to 1",
            ),
            TensorSpec(
                name="contributions",
                dtype="float32",
                shape=("n", slots),
                meaning="log-odds that each slot adds for the leading condition against the average one",
            ),
            TensorSpec(
                name="shared",
                dtype="float32",
                shape=("n", 2),
                meaning="log-odds that age, sex, season and place add, and that the findings add together; with the contributions they sum to all",
            ),
            TensorSpec(
                name="fit",
                dtype="float32",
                shape=("n",),
                meaning="log probability of the findings that are there, for somebody of this age and sex with one of the conditions",
            ),
        ),
        labels=tuple(_label(name, entry) for name, entry in knowledge.conditions.items()),
        intended_use=(
            "Ranks the conditions that fit a complaint, answers, age and sex, to help order a referral queue in primary care."
            if is_catalogue
            else "Benchmark on the public DDXPlus data. Not for patients."
        ),
        limits=_limits(is_catalogue),
        licence="Apache-2.0" if is_catalogue else "CC BY 4.0",
        data=(_source(source, checksum),),
        training=training,
        thresholds=decisions.thresholds | ({} if is_catalogue else BENCHMARK_STOP),
        conformal=decisions.conformal,
        out_of_distribution=decisions.out_of_distribution,
        vocabulary={
            "slots": [[slot.code, slot.value] for slot in knowledge.slots],
            "parents": knowledge.parents_by_code(),
            "evidences": knowledge.evidences,
            "lexicon": knowledge.lexicon,
            "season": {name: shift.round(5).tolist() for name, shift in knowledge.season.items() if shift.any()},
            "province": {name: shift.round(5).tolist() for name, shift in knowledge.province.items() if shift.any()},
        },
    )


def _label(name: str, entry: dict[str, Any]) -> Label:
    return Label(
        name=name,
        name_en=entry["cond-name-eng"],
        name_ur=entry.get("name_ur", ""),
        icd10=entry["icd10-id"],
        severity=entry["severity"],
        specialty=entry.get("specialty"),
    )


def _limits(is_catalogue: bool) -> tuple[str, ...]:
    if not is_catalogue:
        return ("Learned from and measured on synthetic patients; says nothing about real care.",)
    return (
        "Learned from synthetic patients that were drawn from the catalogue; its probabilities are mostly estimates.",
        "Its figures are on synthetic patients of the same kind; accuracy on real patients is not known.",
        "Knows only the catalogue's conditions; a patient may have another one, or two at once.",
    )


def _source(source: str, checksum: str) -> DataSource:
    if source.endswith(".csv"):
        return DataSource(name=f"{source}, patients in DDXPlus format", licence="its owner's", sha256=checksum, citation="Its owner.")
    if source != "train_statistics.json":
        return DataSource(
            name="Nabz catalogue (data/catalogue), synthetic patients",
            licence="Apache-2.0",
            sha256=checksum,
            citation="This repository; every number carries its basis there.",
        )
    return DataSource(
        name="DDXPlus train_statistics.json, derived from the release's training patients (synthetic)",
        licence="CC BY 4.0",
        sha256=checksum,
        citation="Fansi Tchango et al., DDXPlus: A New Dataset For Automatic Medical Diagnosis, NeurIPS 2022 Datasets and Benchmarks; figshare 20043374.",
    )
