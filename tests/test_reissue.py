"""Bundles issued again: the same weights and answers, with what a contract gained since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from inference.bundle import load_bundle
from inference.case import read_case
from inference.errors import DataError, ExportError
from training.cli import main
from training.drift_reference import reference_of
from training.onnx_traces import has_traces
from training.probe import TOLERANCE, probe_difference
from training.reissue import reissue


@pytest.fixture
def models(tmp_path, models_folder) -> Path:
    """The shipped bundles, to write beside."""
    folder = tmp_path / "models"
    shutil.copytree(models_folder, folder)
    return folder


def live(models: Path, task: str) -> Path:
    """The folder of a task's live bundle."""
    from inference.models import live_versions

    return models / task / live_versions(models)[task]


@pytest.fixture
def few_cases(monkeypatch) -> None:
    """A reference of six cases instead of thousands."""
    readings = [
        read_case(
            {"case_id": f"c-{place}", "age_years": 30 + place, "complaint": "bukhar, khansi", "vitals": {"pulse_per_minute": 90}}, "c"
        )
        for place in range(6)
    ]
    monkeypatch.setattr(
        "training.reissue.reference_for", lambda task, models, _: reference_of(task, models, readings, "six cases", is_synthetic=True)
    )


def weights(folder: Path) -> list[bytes]:
    """Operators and weights of a bundle's graph, in order."""
    graph = onnx.load(folder / "model.onnx").graph
    return [*(node.op_type.encode() for node in graph.node), *(one.SerializeToString() for one in graph.initializer)]


def without_probe(folder: Path) -> None:
    """Take the probe out, as in bundles from before there was one."""
    from inference.bundle import Contract
    from training.export import write_bundle

    contract = Contract.model_validate_json((folder / "contract.json").read_bytes()).model_copy(update={"probe": {}})
    write_bundle(folder, (folder / "model.onnx").read_bytes(), contract, json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


@pytest.mark.usefixtures("few_cases")
def test_a_bundle_issued_again_has_the_same_graph_and_gains_probe_and_reference(models, catalogue_folder):
    """Weights and thresholds stay; the probe is answered as it was kept, and the reference counts the cases."""
    old = live(models, "symptoms")
    without_probe(old)
    before = load_bundle(old)
    new = reissue(old, "9.9.9", catalogue_folder)
    after = load_bundle(new)
    assert weights(new) == weights(old)
    assert not has_traces((new / "model.onnx").read_bytes())
    assert after.contract.thresholds == before.contract.thresholds
    assert after.contract.version == "9.9.9"
    assert not before.contract.probe and probe_difference(after) <= TOLERANCE
    assert np.prod(after.contract.probe["inputs"]["evidence"]["shape"]) == 4 * 362
    assert after.contract.reference["n"] == 6
    assert "models/symptoms/9.9.9" in (new / "card.md").read_text(encoding="utf-8")


def test_without_data_only_the_card_is_new(models, capsys):
    """A benchmark bundle is issued again by the command; its contract gains nothing."""
    old = next((models / "symptoms-ddxplus").iterdir())
    assert main(["reissue", str(old), "--version", "9.9.9"]) == 0
    new = Path(capsys.readouterr().out.strip())
    told = [load_bundle(folder).contract.model_dump(exclude={"version", "created", "model_sha256"}) for folder in (old, new)]
    assert told[0] == told[1]


def test_a_bundle_that_no_service_runs_gets_no_reference(models, catalogue_folder):
    """Only live tasks are watched for drift."""
    old = next((models / "symptoms-ddxplus").iterdir())
    with pytest.raises(DataError) as error:
        reissue(old, "9.9.9", catalogue_folder)
    assert str(error.value) == (f"{old}: only bundles that a service runs (symptoms, acuity, lesions) get a reference: leave --data out")


def test_a_version_is_never_written_twice(models):
    """The version that is there stays as it is."""
    old = live(models, "acuity")
    with pytest.raises(ExportError) as error:
        reissue(old, old.name, None)
    assert str(error.value) == f"{old} is there already: a version is never written twice, name the next one"
