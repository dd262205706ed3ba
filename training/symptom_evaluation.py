"""Measures a symptom bundle: real patients in DDXPlus format, or held-out patients drawn from the catalogue.

GTPA@k, DDF1 and the severity measures follow Fansi Tchango et al. 2022 (DDXPlus). Trains nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.errors import DataError
from inference.evidence import AGE_BANDS, SEXES, Slot
from inference.symptoms import set_sizes
from training.ddxplus import read_patients
from training.export import rewrite_metrics
from training.generator import MISSING_SHARE, PatientGenerator
from training.knowledge import Knowledge, load_knowledge
from training.metrics import (
    Interval,
    bootstrap_interval,
    expected_calibration_error,
    metrics_document,
    rival_mass,
)

Array = NDArray[Any]
GENERATED_PATIENTS = 20_000
GENERATED_SEED = 20_261_122
SEVERE = 2  # DSHM and its kin speak of severities 1 and 2
RELEVANT_SHARE = 0.01  # the paper leaves out of a differential what is at or below 1 %
SMALLEST_SUBGROUP = 20
TEST_FILES = ("patients_all49.csv", "release_test_patients.csv")


@dataclass(frozen=True)
class Scored:
    """What the metrics need: truth [n], probabilities [n, C], the reference differential [n, C] (0 if none), who."""

    condition: Array
    probabilities: Array
    differential: Array
    demographics: Array


def unevaluated(task: str) -> dict[str, Any]:
    """The metrics document of a bundle that has not been measured yet."""
    return {"command": f"nabz-train evaluate models/{task}", "evaluations": {}}


def evaluate(bundle: Bundle, name: str, data: Path, questions: int | None = None) -> dict[str, Any]:
    """The metrics document of `bundle` on `data`: a DDXPlus patients CSV, or the catalogue's folder.

    `questions=0` leaves only age, sex and the first complaint known; None gives full evidence (a CSV) or 40 % of the
    answers missing (the catalogue). Raises DataError for anything else.
    """
    if questions:
        raise DataError(f"--questions {questions}: this version can ask none yet; use --questions 0 (first complaint only)")
    scored = _generated(bundle, data, questions) if data.is_dir() else _patients(bundle, data, questions)
    severity = np.array([label.severity or 5 for label in bundle.contract.labels])
    figures = _figures(scored, severity)
    if bundle.contract.conformal:
        figures |= _set_figures(scored, float(bundle.contract.conformal["mass"]))
    return metrics_document(bundle.contract.task, name, len(scored.condition), figures, _subgroups(scored))


def evaluate_and_record(folder: Path, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the bundle in `folder` on its usual data and write `metrics.json` and the card."""
    bundle = load_bundle(folder, threads=args.threads)
    if (data / "findings").is_dir():
        parts = {
            "held-out generated patients, 40 % of answers missing": (data, None),
            "held-out generated patients, complaint only": (data, 0),
        }
        note = "Synthetic patients, drawn from the catalogue with a seed that training does not use. The first complaint is never lost."
    else:
        patients = next((data / name for name in TEST_FILES if (data / name).is_file()), data / TEST_FILES[0])
        parts = {"real test patients, full evidence": (patients, None), "real test patients, first complaint only": (patients, 0)}
        note = "DDXPlus release test patients; they are themselves synthetic."
    evaluations = {
        title: {**evaluate(bundle, folder.as_posix(), path, questions), "note": note}
        for title, (path, questions) in parts.items()
        if path.exists()
    }
    report = {"command": f"nabz-train evaluate {folder.as_posix()} --data DATA [--questions 0] --json", "evaluations": evaluations}
    rewrite_metrics(folder, report)
    return report


def knowledge_of(bundle: Bundle, folder: Path) -> Knowledge:
    """The knowledge in `folder`, that of the bundle. Raises DataError when it has other findings than the bundle learned."""
    knowledge = load_knowledge(folder)
    if [s.code + s.value for s in knowledge.slots] != ["".join(slot) for slot in bundle.contract.vocabulary["slots"]]:
        raise DataError(f"{folder} has changed since this bundle was trained: train it again, then evaluate")
    return knowledge


def _patients(bundle: Bundle, path: Path, questions: int | None) -> Scored:
    vocabulary = bundle.contract.vocabulary
    labels = [label.name for label in bundle.contract.labels]
    table = read_patients(path, [Slot(*slot) for slot in vocabulary["slots"]], labels, vocabulary["evidences"])
    evidence = table.full if questions is None else table.initial
    shift = np.zeros((len(evidence), len(labels)), dtype=np.float32)
    probabilities = probabilities_of(bundle, evidence, table.demographics, shift)
    return Scored(table.condition, probabilities, table.differential, table.demographics)


def _generated(bundle: Bundle, folder: Path, questions: int | None) -> Scored:
    knowledge = knowledge_of(bundle, folder)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(GENERATED_SEED)
    patients = generator.draw(GENERATED_PATIENTS, random)
    if questions is None:
        masked = generator.mask_missing(patients, MISSING_SHARE, random)
    else:
        masked = generator.mask_to_complaint(patients, random, single=False)
    probabilities = probabilities_of(bundle, masked.astype(np.float32), patients.demographics(), generator.log_shift(patients))
    return Scored(patients.condition, probabilities, np.zeros_like(probabilities), patients.demographics())


def probabilities_of(bundle: Bundle, evidence: Array, demographics: Array, shift: Array) -> Array:
    """The bundle's probabilities, [n, conditions], in batches that fit the memory."""
    chunks = [
        bundle.run({"evidence": evidence[i : i + 4096], "demographics": demographics[i : i + 4096], "log_shift": shift[i : i + 4096]})
        for i in range(0, len(evidence), 4096)
    ]
    return np.concatenate([chunk["probabilities"] for chunk in chunks])


def _figures(scored: Scored, severity: Array) -> dict[str, Interval]:
    truth, p = scored.condition, scored.probabilities
    correct, confidence = (p.argmax(1) == truth).astype(float), p.max(1)
    severe_case = severity[truth] <= SEVERE
    severe_mass = p[:, severity <= SEVERE].sum(1)
    figures = {
        "missed_severe": bootstrap_interval(_mean, 1.0 - _in_top(p[severe_case], truth[severe_case], 3)),
        **{f"gtpa@{k}": bootstrap_interval(_mean, _in_top(p, truth, k)) for k in (1, 3, 5)},
        "ece": bootstrap_interval(expected_calibration_error, correct, confidence),
        "severe_mass_given_severe": bootstrap_interval(_mean, severe_mass[severe_case]),
    }
    listed = scored.differential.sum(1) > 0
    if listed.any():
        figures |= _differential_figures(p[listed], scored.differential[listed], severity)
    return figures


def _set_figures(scored: Scored, mass: float) -> dict[str, Interval]:
    """How often the 90 % prediction set holds the truth, and how many conditions it has on average."""
    p, truth = scored.probabilities, scored.condition
    return {
        "coverage": bootstrap_interval(_mean, (rival_mass(truth, p) <= mass).astype(float)),
        "set_size": bootstrap_interval(_mean, set_sizes(p, mass).astype(float)),
    }


def _differential_figures(p: Array, reference: Array, severity: Array) -> dict[str, Interval]:
    """DDR, DDP, DDF1 and, over severe conditions alone, DSR, DSP and their harmonic mean DSHM."""
    ours, theirs = p > RELEVANT_SHARE, reference > RELEVANT_SHARE
    severe = severity <= SEVERE
    recall, precision = _overlap(ours, theirs)
    severe_recall, severe_precision = _overlap(~ours[:, severe], ~theirs[:, severe])
    return {
        "ddr": bootstrap_interval(_mean, recall),
        "ddp": bootstrap_interval(_mean, precision),
        "ddf1": bootstrap_interval(_mean, _harmonic(recall, precision)),
        "dsr": bootstrap_interval(_mean, severe_recall),
        "dsp": bootstrap_interval(_mean, severe_precision),
        "dshm": bootstrap_interval(_mean, _harmonic(severe_recall, severe_precision)),
    }


def _overlap(ours: Array, theirs: Array) -> tuple[Array, Array]:
    both = (ours & theirs).sum(1)
    return both / np.maximum(theirs.sum(1), 1), both / np.maximum(ours.sum(1), 1)


def _harmonic(a: Array, b: Array) -> Array:
    total: Array = a + b
    return np.divide(2 * a * b, total, out=np.zeros_like(total), where=total > 0)


def _in_top(p: Array, truth: Array, k: int) -> Array:
    own = p[np.arange(len(truth)), truth]
    return ((p > own[:, None]).sum(1) < k).astype(float)


def _subgroups(scored: Scored) -> dict[str, dict[str, Interval]]:
    bands = (*AGE_BANDS, "unknown age")
    groups = {f"age {bands[band]}": scored.demographics // len(SEXES) == band for band in range(len(bands))}
    groups |= {f"sex {sex}": scored.demographics % len(SEXES) == index for index, sex in enumerate(SEXES)}
    return {
        name: {f"gtpa@{k}": bootstrap_interval(_mean, _in_top(scored.probabilities[rows], scored.condition[rows], k)) for k in (1, 3)}
        for name, rows in groups.items()
        if rows.sum() >= SMALLEST_SUBGROUP
    }


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
