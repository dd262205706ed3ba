"""`nabz-train evaluate`: finds out what a bundle is and hands it, with the data, to its task's measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference.bundle import Bundle, load_bundle
from inference.errors import DataError
from training.labelled_cases import is_labelled_cases
from training.risk_control import broken


def evaluate_bundle(folder: Path, data: Path, questions: int | None, threads: int, list_questions: int = 0) -> dict[str, Any]:
    """The metrics document of the bundle in `folder` on `data`. Raises NabzError when either cannot be used.

    Its `certificates_broken` has a sentence for each certificate of the contract that the data refute; it is left out where
    none is.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist: name a data file, or a folder with photos and their table")
    bundle = load_bundle(folder, threads=threads)
    report = _measured(bundle, folder, data, (questions, list_questions), threads)
    if found := broken(bundle.contract.certificates, report["metrics"]):
        report["certificates_broken"] = found
    return report


def _measured(bundle: Bundle, folder: Path, data: Path, asked: tuple[int | None, int], threads: int) -> dict[str, Any]:
    task, name = bundle.contract.task, folder.as_posix()
    questions, list_questions = asked
    if questions is not None and not task.startswith("symptoms"):
        raise DataError(f"--questions belongs to symptom bundles, not to {task}")
    if task.startswith("symptoms"):
        from training import symptom_evaluation

        return symptom_evaluation.evaluate(bundle, name, data, questions, list_questions)
    if task.startswith("acuity") and is_labelled_cases(data):
        from training import labelled_evaluation

        return labelled_evaluation.evaluate(bundle, folder, data)
    if task.startswith("acuity"):
        from training import acuity_evaluation

        report = acuity_evaluation.evaluate(bundle, name, data)
        if acuity_evaluation.is_ktas(data):
            from training.levels import whole_triage_figures

            whole = {key: figure.as_json() for key, figure in whole_triage_figures(bundle, folder.parent.parent, data).items()}
            report["metrics"] = {**whole, **report["metrics"]}
        return report
    if task.startswith("lesions"):
        from training import lesion_evaluation

        return lesion_evaluation.evaluate(bundle, data, name, threads)
    raise DataError(f"{folder}: no measurement is known for the task {task}")
