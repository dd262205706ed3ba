"""Finds, verifies and holds the live bundle of each task. A task whose bundle cannot be used is named, not fatal."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inference.acuity import AcuityModel
from inference.assessment import BundleName
from inference.bundle import Bundle, load_bundle
from inference.errors import BundleError, PolicyError
from inference.lesions import LesionModel
from inference.priors import Priors
from inference.symptoms import SymptomModel

MODELS_VARIABLE = "NABZ_MODELS"
SERVING_FILE = "serving.toml"
TASKS = ("symptoms", "acuity", "lesions")

Model = TypeVar("Model")


@dataclass(frozen=True)
class Models:
    """The three models as far as they can be used; `problems` has one sentence for each that cannot."""

    symptoms: SymptomModel | None
    acuity: AcuityModel | None
    lesions: LesionModel | None
    bundles: dict[str, BundleName]
    problems: tuple[str, ...]


def default_models_folder() -> Path:
    """NABZ_MODELS, else `models/` here, else `models/` beside the installed package's source."""
    if named := os.environ.get(MODELS_VARIABLE):
        return Path(named)
    here = Path("models")
    return here if (here / SERVING_FILE).is_file() else Path(__file__).resolve().parent.parent / "models"


def live_versions(folder: Path) -> dict[str, str]:
    """The version of each task that `serving.toml` in `folder` names. Raises OSError or ValueError when it cannot be read."""
    serving = tomllib.loads((folder / SERVING_FILE).read_text(encoding="utf-8"))
    return {task: str(serving[task]) for task in TASKS if task in serving}


def load_models(folder: Path | None = None, *, photo_threads: int = 2, priors: Priors | None = None) -> Models:
    """Load what `serving.toml` names. Never raises for a bad bundle: ranking goes on with the others, or by rules.

    `priors` that do not belong to the live symptom bundle are named among the problems and left out.
    """
    folder = folder or default_models_folder()
    problems: list[str] = []
    try:
        versions = live_versions(folder)
    except (OSError, ValueError) as error:
        problems.append(f"{folder / SERVING_FILE} cannot be read ({type(error).__name__}): no model is used")
        versions = {}
    bundles: dict[str, Bundle] = {}
    for task, version in versions.items():
        try:
            bundles[task] = load_bundle(folder / task / version)
        except BundleError as error:
            problems.append(str(error))
    problems += [f"{task}: no live version in {folder / SERVING_FILE}" for task in TASKS if task not in versions and versions]
    symptoms = _made(SymptomModel, bundles.get("symptoms"), problems)
    if symptoms is not None and priors is not None:
        try:
            symptoms = symptoms.with_priors(priors)
        except PolicyError as error:
            problems.append(f"{error}: the catalogue's priors are used")
    acuity = _made(AcuityModel, bundles.get("acuity"), problems)
    lesions = _made(lambda bundle: LesionModel(bundle, photo_threads), bundles.get("lesions"), problems)
    live = {"symptoms": symptoms, "acuity": acuity, "lesions": lesions}
    names = {
        task: BundleName(version=bundles[task].contract.version, sha256=bundles[task].sha256)
        for task, model in live.items()
        if model is not None
    }
    return Models(symptoms, acuity, lesions, names, tuple(problems))


def _made(make: Callable[[Bundle], Model], bundle: Bundle | None, problems: list[str]) -> Model | None:
    if bundle is None:
        return None
    try:
        return make(bundle)
    except BundleError as error:
        problems.append(str(error))
        return None
