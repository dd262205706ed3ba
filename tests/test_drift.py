"""The experiment on the monitor in small, the faults it injects, and the references that go into bundles."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inference.errors import DataError
from inference.models import load_models
from inference.monitor_reference import BYTES_LIMIT, reference_of_contract
from training.cli import main
from training.drift_experiment import Experiment, Outcome, run_experiment
from training.drift_faults import INJECTED
from training.drift_reference import SERVICE_ONLY, acuity_reference, lesions_reference, symptoms_reference
from training.drift_weeks import InventedService, shipped_triage
from training.export import copy_as_version, make_live
from training.skin_data import PAD_COLUMNS
from training.synthetic import write_synthetic

SMALL = ("fahrenheit", "pulse sensor", "spo2 missing", "new district", "reader without Roman Urdu", "blurred photos", "fewer emergencies")
SAMPLE_PHOTOS = Path(__file__).resolve().parent.parent / "data" / "sample" / "photos"


@pytest.fixture(scope="module")
def service(catalogue_folder) -> InventedService:
    """The invented service with few photos."""
    return InventedService(catalogue_folder, shipped_triage(), photos=40)


@pytest.fixture(scope="module")
def models(models_folder):
    """The shipped models."""
    return load_models(models_folder)


@pytest.fixture(scope="module")
def experiment(service) -> Experiment:
    """Seven shifts and five quiet weeks of 300 to 400 cases, after a baseline of four."""
    shifts = [one for one in INJECTED if one.name in SMALL]
    return run_experiment(service, quiet_weeks=5, baseline_weeks=4, cases=(300, 400), shifts=shifts)


def test_shifts_are_found_and_quiet_weeks_are_quiet(experiment, figure):
    """Even with weeks of 300 to 400 cases: at least six of seven found by the features that tell them, no false alarm in five."""
    figure(f"drift in small: {experiment.found} of {len(experiment.outcomes)} found, {len(experiment.false_weeks)} false alarms in 5 weeks")
    assert experiment.found >= 6, [one for one in experiment.outcomes if one.week is None]
    assert experiment.false_weeks == {}
    assert experiment.is_good == (experiment.found == 7)


def test_there_are_twenty_shifts_each_with_its_own_name():
    """Twenty different ones, each with the features that tell it."""
    assert len({one.name for one in INJECTED}) == len(INJECTED) == 20
    assert all(one.told_by and one.words for one in INJECTED)


def test_a_week_is_the_same_each_time(service):
    """The same seed gives the same columns, another seed others; a fault changes what it should and the outcomes' names stay."""
    one, again, other = service.week(7, 60), service.week(7, 60), service.week(8, 60)
    assert one.outcomes == again.outcomes
    for name, column in one.sample.columns.items():
        assert np.array_equal(column.values, again.sample.columns[name].values), name
    assert one.outcomes.keys() != other.outcomes.keys()
    pulse = next(shift for shift in INJECTED if shift.name == "pulse sensor")
    shifted = service.week(7, 60, pulse.fault).sample.columns["vital:pulse_per_minute"].values
    assert (shifted - one.sample.columns["vital:pulse_per_minute"].values).tolist() == [8.0] * len(shifted)


def test_the_verdict_needs_both():
    """Nine in ten found, and one quiet week in twenty with an alarm at most."""
    found, lost = Outcome("a", "", 1, "x", 0.1, ("x",)), Outcome("b", "", None, "", None, ())
    assert Experiment(0, 10, (found,) * 18 + (lost,) * 2, 100, dict.fromkeys(range(5), ("x",))).is_good
    assert not Experiment(0, 10, (found,) * 17 + (lost,) * 3, 100).is_good
    assert not Experiment(0, 10, (found,) * 20, 100, dict.fromkeys(range(6), ("x",))).is_good


def check(document: dict, task: str) -> set[str]:
    """A reference that a contract can carry; its features' names."""
    assert len(json.dumps(document)) < BYTES_LIMIT
    kept = reference_of_contract(document, task)
    assert {name.partition(":")[0] for name in kept.features}.isdisjoint(SERVICE_ONLY)
    assert kept.weeks == 0
    assert all(feature.dispersion == 1 for feature in kept.features.values())
    return set(kept.features)


def test_a_symptom_bundle_gets_its_reference(models, catalogue_folder):
    """Findings, the leading condition, scripts and scores, of invented cases, and said so; no vital, which is acuity's."""
    document = symptoms_reference(models, catalogue_folder, 120)
    names = check(document, "symptoms")
    assert {"condition", "script", "emergency_probability", "level", "understood:urdu", "finding:F_001"} <= names
    assert not [name for name in names if name.startswith("vital:")]
    assert document["is_synthetic"] is True
    assert document["n"] == 120
    assert document["bundles"] == {}


def test_an_acuity_bundle_gets_its_reference(models, shared_data):
    """Vitals, ages and the critical probability of the KTAS visits, with the calibration against the experts' levels."""
    document = acuity_reference(models, shared_data)
    assert {"vital:pulse_per_minute", "age_years", "critical_probability"} <= check(document, "acuity")
    assert document["calibration"]["n"] == document["n"]
    assert 0 < document["calibration"]["events"] < document["n"]


def test_a_lesion_bundle_gets_its_reference(models, tmp_path):
    """Light, sharpness, tone, distance and probabilities of a photo set's photos; photos inside one file are refused."""
    shutil.copytree(SAMPLE_PHOTOS, tmp_path / "images")
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, PAD_COLUMNS)
        rows.writeheader()
        for place, path in enumerate(sorted((tmp_path / "images").iterdir())):
            given = {"patient_id": f"p{place}", "img_id": path.name, "diagnostic": "NEV", "age": "40", "region": "ARM"}
            rows.writerow({name: given.get(name, "") for name in PAD_COLUMNS})
    document = lesions_reference(models, tmp_path)
    names = check(document, "lesions")
    assert {"photo_light", "photo_detail", "unfamiliarity", "photo_problem", "malignancy"} <= names
    assert document["n"] == 4
    np.savez(tmp_path / "none.npz", train_images=np.zeros((2, 28, 28, 3), np.uint8), train_labels=np.zeros((2, 1), np.int64))
    with pytest.raises(DataError):
        lesions_reference(models, tmp_path / "none.npz")


def test_a_bundle_that_carries_its_reference_is_what_the_monitor_compares_with(
    models, models_folder, catalogue_folder, tmp_path, monkeypatch, capsys
):
    """Issued again with a reference, signed, made live: `nabz monitor` needs no file, finds that all complaints are empty, and says that it is invented."""
    from inference.cli import main as nabz

    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)
    live = models.bundles["symptoms"].version
    shutil.copytree(models_folder / "symptoms" / live, tmp_path / "symptoms" / live)
    shutil.copytree(models_folder / "trusted_keys", tmp_path / "trusted_keys")
    document = symptoms_reference(models, catalogue_folder, 300)
    copy_as_version(tmp_path / "symptoms" / live, "9.0.0", {"reference": document})
    make_live(tmp_path, {"symptoms": "9.0.0"})
    cases = tmp_path / "cases.jsonl"
    write_synthetic(catalogue_folder, 60, 5, cases)
    raw = [{**json.loads(line), "complaint": ""} for line in cases.read_text(encoding="utf-8").splitlines()]
    cases.write_text("".join(json.dumps({**one, "received_at": "2026-11-20T08:00:00+05:00"}) + "\n" for one in raw), encoding="utf-8")
    assert nabz(["monitor", str(cases), "--models", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["reference_source"] == "300 invented cases drawn from the catalogue"
    assert report["notes"][0].startswith("the reference is of invented cases, and any real clinic differs from it at once")
    told = {one["feature"]: one["state"] for one in report["windows"][-1]["changes"]}
    assert told["script"] == "alarm"
    assert {"vital:pulse_per_minute", "district"} <= set(report["not_compared"])


def test_the_commands_write_and_print(tmp_path, capsys, catalogue_folder, monkeypatch):
    """`reference` writes a file; `drift-check` prints the experiment as JSON and answers 1 where it is not good enough."""
    out = tmp_path / "reference.json"
    monkeypatch.setattr("training.drift_reference.symptoms_reference", lambda models, data: {"n": 3, "features": {"level": {}}})
    assert main(["reference", "symptoms", "--data", str(catalogue_folder), "--out", str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == {"n": 3, "features": {"level": {}}}
    poor = Experiment(0, 10, (Outcome("a", "nothing", None, "", None, ()),), 2, {1: ("sex",)})
    monkeypatch.setattr("training.drift_experiment.run_experiment", lambda *_, **__: poor)
    assert main(["drift-check", "--weeks", "2", "--photos", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["false_weeks"] == {"1": ["sex"]}
    assert main(["drift-check", "--weeks", "2", "--photos", "0"]) == 1
    assert "false alarms: 1 of 2 quiet weeks (50 %" in capsys.readouterr().out
