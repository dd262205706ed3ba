"""`nabz-train levels`: the thresholds that turn probabilities into levels, chosen on visits that no model was fitted on.

A missed emergency is a visit that experts put at levels 1-3 and the whole triage at 4 or 5. The threshold is the
largest one whose missed share stays, with 95 % confidence, at or below 5 % on the KTAS visits, each scored by a model
that did not see it; over-triage is the price, and is reported beside it. Beside the thresholds the contracts get the counts
of held-out patients that each probability's calibration rests on. Fits no model: `model.onnx` stays byte for byte.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from inference.bundle import Bundle, Certificate, Contract, load_bundle
from inference.case import Case, CaseReading
from inference.errors import DataError
from inference.models import load_models
from inference.triage import Triage
from training import acuity_evaluation, symptom_evaluation
from training.acuity_head import read_ktas
from training.calibration_bands import decision_scores, synthetic_bands, visit_bands
from training.catalogue import CATALOGUE
from training.export import copy_as_version, file_sha256, make_live, rewrite_metrics
from training.ktas import FILE, LAST_EMERGENCY_LEVEL
from training.metrics import Interval, metrics_document, wilson_interval
from training.risk_control import certify, largest_certified, recheck
from training.severity_levels import choose_severity_levels

Array = NDArray[Any]
TARGET_MISSED = 0.05
EMERGENCY = "emergency_level_3"
NEVER = 2.0
TASKS = ("symptoms", "acuity")  # whose contracts are written
TITLE = "whole triage on KTAS visits, vitals and complaint only"


@dataclass(frozen=True)
class Judged:
    """Visits for choosing: the expert's call, the level without the emergency threshold, the held-out probability."""

    emergency: NDArray[np.bool_]
    level_without: Array
    probability: Array


def choose_levels(data: Path, models: Path, threads: int, version: str | None = None) -> dict[str, Any]:
    """Choose all thresholds, count the calibration bands, write both into the live bundles' contracts, and report on KTAS.

    With `version` the live bundles stay as they are: copies under that version get the new contracts and go live.
    Raises DataError when the visits or the bundles are not there, ExportError when there is such a version.
    """
    if not (data / FILE).is_file():
        raise DataError(f"{data / FILE} not found: name the folder of data sets with --data (data/sources.toml says where from)")
    live = _live(models)
    symptoms, acuity = (models / task / live[task] for task in TASKS)
    if version is not None:
        symptoms, acuity = (copy_as_version(folder, version) for folder in (symptoms, acuity))
        make_live(models, dict.fromkeys(TASKS, version))
    _record_severity(symptoms, threads)
    judged = judge(data / FILE, models, load_bundle(acuity, threads=threads))
    threshold = largest_safe_threshold(judged)
    report = held_out_report(judged, acuity.as_posix())
    certificate = _emergency_certificate(judged, threshold)
    training = visit_bands(judged.probability, judged.emergency)
    _record(acuity, {EMERGENCY: threshold}, {EMERGENCY: certificate}, training, report)
    _measure_again(symptoms, acuity, data / FILE, threads)
    return report


def _record_severity(folder: Path, threads: int) -> None:
    """Choose the severity thresholds of the symptom bundle in `folder`, and write them with what its calibration rests on."""
    bundle = load_bundle(folder, threads=threads)
    condition, probabilities, evidence = decision_scores(bundle, CATALOGUE)
    thresholds, certificates = choose_severity_levels(bundle.contract, condition, probabilities, evidence)
    _record(folder, thresholds, certificates, synthetic_bands(bundle, condition, probabilities))


def _emergency_certificate(judged: Judged, threshold: float) -> Certificate:
    return certify(
        event="a visit that experts put at KTAS level 1, 2 or 3",
        miss="the whole triage gives it level 4 or 5",
        target=TARGET_MISSED,
        is_event=judged.emergency,
        is_called=flagged(judged, threshold),
        data="KTAS visits, each scored by a model that did not see it",
        is_synthetic=False,
    )


def _measure_again(symptoms: Path, acuity: Path, path: Path, threads: int) -> None:
    """Write anew the figures that depend on the thresholds: the symptom model's, and the acuity model's own on KTAS."""
    symptom_evaluation.evaluate_and_record(symptoms, CATALOGUE, argparse.Namespace(threads=threads, smoke=False))
    metrics = json.loads((acuity / "metrics.json").read_text(encoding="utf-8"))
    figures = acuity_evaluation.evaluate(load_bundle(acuity), acuity.as_posix(), path)
    metrics["evaluations"][acuity_evaluation.KTAS_TITLE] = {**figures, "note": acuity_evaluation.KTAS_NOTE}
    rewrite_metrics(acuity, metrics)


def judge(path: Path, models: Path, bundle: Bundle) -> Judged:
    """The visits as the whole triage in `models` sees them, with the acuity bundle's threshold set aside.

    Probabilities are out of fold for visits that the bundle learned from.
    """
    visits = read_ktas(path, CATALOGUE)
    live = load_models(models)
    if live.acuity is not None:
        live.acuity.thresholds = {**live.acuity.thresholds, EMERGENCY: NEVER}
    is_known = file_sha256(path) in {source.sha256 for source in bundle.contract.data}
    return Judged(
        emergency=visits.is_emergency,
        level_without=levels_of(Triage(live), list(visits.cases)),
        probability=acuity_evaluation.ktas_probability(bundle, visits, is_known=is_known),
    )


def whole_triage_figures(bundle: Bundle, models: Path, path: Path) -> dict[str, Interval]:
    """Under- and over-triage of the whole triage in `models` around the acuity bundle, at the threshold it ships with.

    With them, the bundle's certificate measured again on these visits.
    """
    judged = judge(path, models, bundle)
    called = flagged(judged, bundle.contract.thresholds[EMERGENCY])
    figures = {f"{name}_whole_triage": figure for name, figure in triage_figures(judged.emergency, called).items()}
    certificates = bundle.contract.certificates
    return figures | recheck(certificates, {EMERGENCY: (judged.emergency, called)} if EMERGENCY in certificates else {})


def levels_of(triage: Triage, cases: list[Case]) -> Array:
    """The level that the whole triage gives each case, in their order."""
    now = datetime.now(UTC)
    by_id = {one.case_id: one.level for one in triage.rank([CaseReading(case, ()) for case in cases], now)}
    return np.array([by_id[case.case_id] for case in cases])


def largest_safe_threshold(judged: Judged) -> float:
    """The largest threshold whose missed share is certified to be at or below the target: see `largest_certified`.

    Raises DataError when not even 0 would do.
    """
    own = judged.probability[judged.emergency]
    # Who is raised anyway is missed at no threshold: as good as the highest probability.
    is_raised = judged.level_without[judged.emergency] <= LAST_EMERGENCY_LEVEL
    try:
        return largest_certified(np.where(is_raised, own.max(initial=0.0), own), TARGET_MISSED)
    except DataError as error:
        raise DataError("no threshold keeps missed emergencies at the target: more visits are needed") from error


def flagged(judged: Judged, threshold: float) -> NDArray[np.bool_]:
    """Which visits get a level of 1-3: by the model's threshold, or by everything else."""
    return (judged.probability >= threshold) | (judged.level_without <= LAST_EMERGENCY_LEVEL)


def held_out_report(judged: Judged, bundle: str, folds: int = 10) -> dict[str, Any]:
    """Under- and over-triage with the threshold chosen on nine tenths of the visits and applied to the last."""
    called = np.zeros(len(judged.emergency), dtype=bool)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    for rest, held_out in splitter.split(called, judged.emergency):
        threshold = largest_safe_threshold(_rows(judged, rest))
        called[held_out] = flagged(_rows(judged, held_out), threshold)
    report = metrics_document("acuity", bundle, len(called), triage_figures(judged.emergency, called), {})
    note = "Out of fold twice: probabilities from models that did not see the visit, thresholds from the other nine tenths."
    return {**report, "note": note}


def triage_figures(emergency: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, Interval]:
    """`under_triage`: emergencies not called so; `over_triage`: others called emergencies; with Wilson intervals."""
    return {
        "under_triage": wilson_interval(int(np.sum(emergency & ~called)), int(emergency.sum())),
        "over_triage": wilson_interval(int(np.sum(~emergency & called)), int((~emergency).sum())),
    }


def _rows(judged: Judged, rows: Array) -> Judged:
    return replace(judged, emergency=judged.emergency[rows], level_without=judged.level_without[rows], probability=judged.probability[rows])


def _live(models: Path) -> dict[str, str]:
    loaded = load_models(models)
    if loaded.problems:
        raise DataError("; ".join(loaded.problems))
    return {task: name.version for task, name in loaded.bundles.items()}


def _record(
    folder: Path,
    thresholds: dict[str, float],
    certificates: dict[str, Certificate],
    training: dict[str, Any],
    report: dict[str, Any] | None = None,
) -> None:
    """Write thresholds, certificates, facts of training and a report, if there is one, into a bundle that exists; its model stays byte for byte."""
    contract = Contract.model_validate_json((folder / "contract.json").read_bytes())
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if report is not None:
        metrics["evaluations"][TITLE] = report
    gained = {
        "thresholds": {**contract.thresholds, **thresholds},
        "certificates": {**contract.certificates, **certificates},
        "training": {**contract.training, **training},
    }
    rewrite_metrics(folder, metrics, gained)
