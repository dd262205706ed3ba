"""Measures a symptom bundle: real patients in DDXPlus format, or held-out patients drawn from the catalogue.

GTPA@k, DDF1 and the severity measures follow Fansi Tchango et al. 2022 (DDXPlus) and their published code. GTPA, calibration
and sets are of the bundle's `probabilities`, the patient's own condition; DDR to DSHM are of its `differential`, the list that
the release's rule engine would give, where the bundle has one. Trains nothing.
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
from inference.policy import load_policy
from inference.prediction_sets import PredictionSets
from inference.settled import stop_rule
from training.condition_figures import calibration_figures, set_figures, worst_calibrated, worst_conditions
from training.ddxplus import read_patients
from training.export import file_sha256, rewrite_metrics
from training.generator import MISSING_SHARE, PatientGenerator
from training.interactive import Answering, interview
from training.knowledge import Knowledge, load_knowledge
from training.list_head import LISTS, held_out
from training.metrics import (
    Interval,
    bootstrap_interval,
    expected_calibration_error,
    mean,
    metrics_document,
)
from training.questionnaire import outputs_of, questionnaire
from training.scope_calibration import outside_share, scope_figures
from training.severity_levels import recheck_severity

Array = NDArray[Any]
GENERATED_PATIENTS = 20_000
INTERVIEWED_PATIENTS = 2_000  # fewer, because each is asked question after question
GENERATED_SEED = 20_261_122
CAP = 19  # questions; with the first complaint as many findings as `nabz ask` asks for
SEVERE = 2  # DSHM and its kin speak of severities 1 and 2
RELEVANT_SHARE = 0.01  # the paper leaves out of a differential what is at or below 1 %
SMALLEST_SUBGROUP = 20
TEST_FILES = ("patients_all49.csv", "release_test_patients.csv")


@dataclass(frozen=True)
class Scored:
    """What the metrics need of n patients over C conditions and S slots.

    The true `condition` [n], the bundle's `probabilities` and `listed` differential [n, C], the reference `differential`
    [n, C] (0 if none), who [n], what was known [n, S], the number of questions `asked` [n] (None outside the protocol),
    and the model's `fit` [n] (None where it has no such output).
    """

    condition: Array
    probabilities: Array
    listed: Array
    differential: Array
    demographics: Array
    evidence: Array
    asked: Array | None
    fit: Array | None = None


@dataclass(frozen=True)
class Asking:
    """How many questions at most, None for all answers at once, and how many of them may be about the list alone."""

    questions: int | None
    about_list: int


def unevaluated(task: str) -> dict[str, Any]:
    """The metrics document of a bundle that has not been measured yet."""
    return {"command": f"nabz-train evaluate models/{task}", "evaluations": {}}


def evaluate(bundle: Bundle, name: str, data: Path, questions: int | None = None, list_questions: int = 0) -> dict[str, Any]:
    """The metrics document of `bundle` on `data`: a DDXPlus patients CSV, or the catalogue's folder.

    `questions=N` leaves only age, sex and the first complaint known and asks at most N questions, one after the other, as
    `nabz ask` chooses them and stops, and then, of a bundle that gives a list, `list_questions` more about it; None gives
    full evidence (a CSV) or 40 % of the answers missing (the catalogue). Of patients whose lists the bundle learned
    from, DDR to DSHM leave out those that it did learn from (`training.list_head.held_out`).
    Raises DataError when the data are neither, or N is negative.
    """
    if questions is not None and questions < 0:
        raise DataError(f"--questions {questions}: a number from 0 (first complaint only) is needed")
    asking = Asking(questions, list_questions)
    scored = _generated(bundle, data, asking) if data.is_dir() else _patients(bundle, data, asking)
    severity = np.array([label.severity or 5 for label in bundle.contract.labels])
    figures = _figures(scored, severity)
    truth, p, names = scored.condition, scored.probabilities, [label.name for label in bundle.contract.labels]
    members = PredictionSets(bundle.contract).members(p, scored.evidence)
    figures |= set_figures(truth, members) | calibration_figures(truth, p)
    figures |= recheck_severity(bundle.contract, truth, p, scored.evidence)
    if scored.fit is not None:
        figures |= outside_share(bundle.contract, scored.fit, scored.evidence)
    if data.is_dir() and questions is None:
        figures |= scope_figures(bundle.run, bundle.contract, knowledge_of(bundle, data))
    groups = _subgroups(scored)
    for more in (worst_conditions(truth, members, names), worst_calibrated(truth, p, names)):
        for group, found in more.items():
            groups[group] = {**groups.get(group, {}), **found}
    return metrics_document(bundle.contract.task, name, len(truth), figures, groups)


def evaluate_and_record(folder: Path, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the bundle in `folder` on its usual data and write `metrics.json` and the card."""
    bundle = load_bundle(folder, threads=args.threads)
    if (data / "findings").is_dir():
        parts = {
            "held-out generated patients, 40 % of answers missing": (data, None, 0),
            "held-out generated patients, complaint only": (data, 0, 0),
        }
        note = "Synthetic patients, drawn from the catalogue with a seed that training does not use. The first complaint is never lost."
    else:
        patients = next((data / name for name in TEST_FILES if (data / name).is_file()), data / TEST_FILES[0])
        parts = {
            "real test patients, full evidence": (patients, None, 0),
            "real test patients, first complaint only": (patients, 0, 0),
            "real test patients, questions until the condition is clear": (patients, CAP, 0),
            "real test patients, and four questions about the list": (patients, CAP, 4),
        }
        note = (
            "DDXPlus release test patients; they are themselves synthetic. gtpa, ece and coverage are of the patient's own condition; "
            "ddr to dshm are of the list, on the third of the patients whose lists were not learned from."
        )
    evaluations = {
        title: {
            **evaluate(bundle, folder.as_posix(), path, questions, about_list),
            "note": f"{note} Command: {_command(folder, path, questions, about_list)}",
        }
        for title, (path, questions, about_list) in parts.items()
        if path.exists() and not (args.smoke and questions)
    }
    report = {"command": _command(folder, Path("DATA"), None, 0), "evaluations": evaluations}
    rewrite_metrics(folder, report)
    return report


def _command(folder: Path, path: Path, questions: int | None, about_list: int) -> str:
    asked = "" if questions is None else f" --questions {questions}"
    listed = f" --list-questions {about_list}" if about_list else ""
    data = Path("DATA") / path.name if path.is_absolute() else path  # where the data lie on this machine is nobody's concern
    return f"nabz-train evaluate {folder.as_posix()} --data {data.as_posix()}{asked}{listed} --json"


def knowledge_of(bundle: Bundle, folder: Path) -> Knowledge:
    """The knowledge in `folder`, that of the bundle. Raises DataError when it has other findings than the bundle learned."""
    knowledge = load_knowledge(folder)
    if [s.code + s.value for s in knowledge.slots] != ["".join(slot) for slot in bundle.contract.vocabulary["slots"]]:
        raise DataError(f"{folder} has changed since this bundle was trained: train it again, then evaluate")
    return knowledge


def _patients(bundle: Bundle, path: Path, asking: Asking) -> Scored:
    vocabulary = bundle.contract.vocabulary
    labels = [label.name for label in bundle.contract.labels]
    table = read_patients(path, [Slot(*slot) for slot in vocabulary["slots"]], labels, vocabulary["evidences"])
    shift = np.zeros((len(table.full), len(labels)), dtype=np.float32)
    answering = Answering(table.full, table.initial, table.demographics, shift, table.age_years, table.sex)
    learned = file_sha256(path) in {source.sha256 for source in bundle.contract.data if LISTS in source.name}
    reference = np.where(held_out(len(table.full))[:, None] | (not learned), table.differential, 0.0)
    return _scored(bundle, answering, table.full, asking, table.condition, reference)


def _generated(bundle: Bundle, folder: Path, asking: Asking) -> Scored:
    knowledge = knowledge_of(bundle, folder)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(GENERATED_SEED)
    patients = generator.draw(INTERVIEWED_PATIENTS if asking.questions else GENERATED_PATIENTS, random)
    if asking.questions is None:
        first = masked = generator.mask_missing(patients, MISSING_SHARE, random)
    else:
        first, masked = generator.mask_to_complaint(patients, random, single=False), patients.answers
    answering = Answering(
        full=masked.astype(np.float32),
        initial=first.astype(np.float32),
        demographics=patients.demographics(),
        log_shift=generator.log_shift(patients),
        age_years=patients.age_years,
        sex=tuple(SEXES[one] for one in patients.sex),
    )
    return _scored(bundle, answering, answering.full, asking, patients.condition, np.zeros((len(first), len(knowledge.labels))))


def _scored(bundle: Bundle, patients: Answering, full: Array, asking: Asking, condition: Array, differential: Array) -> Scored:
    """The patients as the bundle sees them with `full` evidence, or after at most so many questions."""
    evidence, asked = full, None
    if asking.questions is not None:
        evidence = patients.initial
    if asking.questions:
        rule = stop_rule(bundle.contract.thresholds, load_policy().differential.largest_set_that_raises)
        evidence, order = interview(questionnaire(bundle), patients, bundle, rule, asking.questions, asking.about_list)
        asked = (order >= 0).sum(axis=1)
    outputs = outputs_of(bundle, evidence, patients.demographics, patients.log_shift)
    probabilities = outputs["probabilities"]
    return Scored(
        condition,
        probabilities,
        outputs.get("differential", probabilities),
        differential,
        patients.demographics,
        evidence,
        asked,
        outputs.get("fit"),
    )


def _figures(scored: Scored, severity: Array) -> dict[str, Interval]:
    truth, p = scored.condition, scored.probabilities
    correct, confidence = (p.argmax(1) == truth).astype(float), p.max(1)
    severe_case = severity[truth] <= SEVERE
    severe_mass = p[:, severity <= SEVERE].sum(1)
    figures = {
        "missed_severe": bootstrap_interval(mean, 1.0 - _in_top(p[severe_case], truth[severe_case], 3)),
        **{f"gtpa@{k}": bootstrap_interval(mean, _in_top(p, truth, k)) for k in (1, 3, 5)},
        "ece": bootstrap_interval(expected_calibration_error, correct, confidence),
        "severe_mass_given_severe": bootstrap_interval(mean, severe_mass[severe_case]),
    }
    has_list = scored.differential.sum(1) > 0
    if has_list.any():
        figures |= _differential_figures(scored.listed[has_list], scored.differential[has_list], severity)
    if scored.asked is not None:
        figures["questions"] = bootstrap_interval(mean, scored.asked.astype(float))
    return figures


def _differential_figures(p: Array, reference: Array, severity: Array) -> dict[str, Interval]:
    """DDR, DDP, DDF1 of the lists; DSR, DSP and their harmonic mean DSHM of the severe conditions on and off them.

    DSR: of the severe conditions in the reference, the share that ours has; as in the authors' code 0, and so is DSHM, for a
    patient whose reference has none. DSP: of the severe conditions that the reference leaves out, the share that ours does.
    """
    ours, theirs = p > RELEVANT_SHARE, reference > RELEVANT_SHARE
    severe = severity <= SEVERE
    recall, precision = _overlap(ours, theirs)
    ruled_in, _ = _overlap(ours[:, severe], theirs[:, severe])
    ruled_out, _ = _overlap(~ours[:, severe], ~theirs[:, severe])
    return {
        "ddr": bootstrap_interval(mean, recall),
        "ddp": bootstrap_interval(mean, precision),
        "ddf1": bootstrap_interval(mean, _harmonic(recall, precision)),
        "dsr": bootstrap_interval(mean, ruled_in),
        "dsp": bootstrap_interval(mean, ruled_out),
        "dshm": bootstrap_interval(mean, _harmonic(ruled_in, ruled_out)),
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
        name: {f"gtpa@{k}": bootstrap_interval(mean, _in_top(scored.probabilities[rows], scored.condition[rows], k)) for k in (1, 3)}
        for name, rows in groups.items()
        if rows.sum() >= SMALLEST_SUBGROUP
    }
