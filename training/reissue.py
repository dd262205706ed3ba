"""`nabz-train reissue`: the same weights under a new version, with today's card and what a contract can gain without training.

That is the reference for drift, and, where the bundle is from before there were such things, the probe and the sketch of what it
learned from. Operators, weights and thresholds stay, and so does every answer. Trains nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.acuity import AcuityModel
from inference.assessment import BundleName
from inference.bundle import Bundle, Contract, load_bundle
from inference.errors import DataError
from inference.lesions import LesionModel
from inference.models import TASKS, Models, load_models
from inference.symptoms import SymptomModel
from training import ktas, nhamcs
from training.acuity import LAST_TRAINING_YEAR
from training.catalogue import CATALOGUE
from training.drift_reference import reference_for
from training.export import copy_as_version, rewrite_metrics
from training.lesions import sketch_of
from training.probe import PROBE_ROWS, make_probe
from training.seen import Sketch, of_visits
from training.skin_data import read_skin_data

Array = NDArray[Any]
_MODELS = {"symptoms": SymptomModel, "acuity": AcuityModel, "lesions": LesionModel}


def reissue(folder: Path, version: str, data: Path | None) -> Path:
    """Write the bundle in `folder` beside itself as `version`; returns the new folder.

    `data` is what its reference is made from: the catalogue (symptoms), the folder of data sets (acuity) or a photo set
    (lesions); without it the new bundle gets today's card and nothing else. Raises BundleError when the bundle was altered,
    ExportError when there is such a version, and DataError when the data do not fit.
    """
    bundle = load_bundle(folder)
    if data is not None and bundle.contract.task not in TASKS:
        raise DataError(f"{folder}: only bundles that a service runs ({', '.join(TASKS)}) get a reference: leave --data out")
    return copy_as_version(folder, version, None if data is None else _gained(bundle, folder, data))


def record_reference(folder: Path, data: Path) -> None:
    """Write the reference into the contract of a bundle that was just trained and is nobody's version yet; its model stays byte for byte."""
    contract = load_bundle(folder).contract
    reference = reference_for(contract.task, load_models(folder.parent.parent), data)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rewrite_metrics(folder, metrics, {"reference": reference})


def _gained(bundle: Bundle, folder: Path, data: Path) -> dict[str, Any]:
    """The contract's fields that can be filled now."""
    contract, recorder = bundle.contract, _Recorder(bundle)
    reference = reference_for(contract.task, _with_bundle(load_models(folder.parent.parent), recorder.bundle()), data)
    gained: dict[str, Any] = {"reference": reference}
    if not contract.probe:
        gained["probe"] = make_probe(bundle.run, recorder.first)
        gained["training"] = {**contract.training, "probe": "answers of the exported graph itself, when it was issued again"}
    if not contract.seen and (sketch := _sketch(contract, data)):
        gained["seen"] = sketch.as_contract()
    return gained


def _with_bundle(models: Models, bundle: Bundle) -> Models:
    """The live models with this bundle in the place of its task's."""
    contract = bundle.contract
    name = BundleName(version=contract.version, sha256=bundle.sha256)
    model: Any = _MODELS[contract.task](bundle)
    return replace(models, **{contract.task: model}, bundles={**models.bundles, contract.task: name})


class _Recorder:
    """Keeps the first inputs that a bundle's graph is asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.first: dict[str, Array] = {}

    def bundle(self) -> Bundle:
        """The same bundle, listened to."""
        return replace(self._bundle, _session=self)

    def run(self, names: list[str], feeds: Mapping[str, Array]) -> Any:
        """What onnxruntime's session answers."""
        found = len(next(iter(self.first.values()), ()))
        if found < PROBE_ROWS:
            rows = {name: values[: PROBE_ROWS - found] for name, values in feeds.items()}
            self.first = {name: np.concatenate([self.first[name], part]) if found else part for name, part in rows.items()}
        return self._bundle._session.run(names, feeds)


def _sketch(contract: Contract, data: Path) -> Sketch | None:
    """What the bundle learned from, where `data` hold exactly that; of drawn patients nothing can be told afterwards."""
    if contract.task == "acuity":
        visits = nhamcs.read_visits(data / nhamcs.FILE, nhamcs.load_groups(CATALOGUE / nhamcs.GROUPS.name)).of_years(0, LAST_TRAINING_YEAR)
        seen = Sketch()
        seen.add(of_visits(visits.visits))
        seen.add(of_visits([case for case, _ in ktas.ktas_cases(data / ktas.FILE)]))
        return seen
    return sketch_of(read_skin_data(data)) if contract.task == "lesions" else None
