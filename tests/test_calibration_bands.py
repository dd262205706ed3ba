"""Calibration bands: counted by hand on a few patients, read from a contract, and the shipped ones against what they count."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from inference.assessment import Assessment, CalibrationBand
from inference.bundle import Contract, load_bundle
from inference.calibration import BANDS_KEY, band_of, calibration_bands
from inference.case import read_case
from inference.errors import BundleError, DataError
from inference.models import Models, live_versions, load_models
from inference.triage import Triage
from training.calibration_bands import count_bands, decision_scores, synthetic_bands, visit_bands
from training.levels import judge

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DOCUMENT = {
    "data": "made-up visits",
    "is_synthetic": False,
    "event": "any",
    "bands": [{"low": 0.0, "high": 0.3, "n": 20, "events": 1}, {"low": 0.3, "high": 1.0, "n": 10, "events": 6}],
}


def contract(**training: object) -> Contract:
    """A contract with nothing in it but what `training` says."""
    empty: dict[str, object] = dict.fromkeys(("inputs", "outputs", "labels", "limits", "data"), ())
    words = dict.fromkeys(("created", "model_sha256", "intended_use", "licence"), "")
    return Contract.model_validate({"task": "acuity", "version": "0.0.1", **words, **empty, "training": training})


def test_patients_and_events_are_counted_by_tenths():
    """Twelve patients below 0.1 with three events, ten from 0.1 on, and eleven at the very top."""
    probability = [0.05] * 12 + [0.1] * 10 + [0.95] * 10 + [1.0]
    event = [1] * 3 + [0] * 9 + [0] * 10 + [1] * 11
    bands = count_bands(np.array(probability), np.array(event))
    assert bands == [
        {"low": 0.0, "high": 0.1, "n": 12, "events": 3},
        {"low": 0.1, "high": 0.2, "n": 10, "events": 0},
        {"low": 0.2, "high": 1.0, "n": 11, "events": 11},
    ]


def test_a_band_of_few_patients_takes_in_its_neighbours():
    """Four and six make ten; the three at the top join the band below them; nobody is lost."""
    bands = count_bands(np.array([0.05] * 4 + [0.15] * 6 + [0.95] * 3), np.array([1] * 5 + [0] * 8))
    assert bands == [{"low": 0.0, "high": 1.0, "n": 13, "events": 5}]
    assert count_bands(np.array([0.5]), np.array([True])) == [{"low": 0.0, "high": 1.0, "n": 1, "events": 1}]


@pytest.mark.parametrize("probability", [[], [1.5], [-0.1], [float("nan")]])
def test_what_is_no_probability_is_not_counted(probability):
    """An empty band would say nothing, and a score outside [0, 1] is a fault upstream."""
    with pytest.raises(DataError, match=r"^calibration bands need probabilities between 0 and 1, of at least one patient$"):
        count_bands(np.array(probability), np.zeros(len(probability)))


def test_a_probability_lies_in_one_band():
    """A band has its lower edge, not its upper one; the last one has both; a contract from before has none."""
    bands = calibration_bands(contract(**{BANDS_KEY: DOCUMENT}))
    assert [band_of(bands, p).n for p in (0.0, 0.29, 0.3, 1.0)] == [20, 20, 10, 10]
    assert band_of(bands, 0.3) == CalibrationBand(
        task="acuity", data="made-up visits", is_synthetic=False, low=0.3, high=1.0, n=10, events=6
    )
    assert calibration_bands(contract()) == () and band_of((), 0.3) is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {**DOCUMENT, "bands": [{"low": 0.0, "high": 1.0, "n": 3, "events": 4}]},
        {**DOCUMENT, "bands": [{"low": 0.5, "high": 0.5, "n": 3, "events": 1}]},
        {**DOCUMENT, "bands": [{"low": 0.0, "high": 1.0, "n": 0, "events": 0}]},
        {**DOCUMENT, "is_synthetic": None},
    ],
)
def test_bands_that_cannot_be_are_refused(document):
    """More events than patients, a band of no width, of nobody, or of what kind is not said."""
    with pytest.raises(BundleError) as error:
        calibration_bands(contract(**{BANDS_KEY: document}))
    assert str(error.value) == "acuity 0.0.1: training.calibration_bands cannot be read; export again"


@pytest.fixture(scope="module")
def live(models_folder: Path) -> Models:
    """The shipped models."""
    return load_models(models_folder)


def test_an_assessment_names_the_band_of_the_model_that_decided(live):
    """Vitals alone: the acuity model's visits. Words alone that mean a heart attack: the synthetic patients. Neither: none."""
    triage = Triage(live)

    def assessed(**fields: object) -> Assessment:
        reading = read_case({"case_id": "a", "age_years": 60, **fields}, "a")
        return triage.assess(reading, NOW)

    vitals = assessed(vitals={"pulse_per_minute": 80, "systolic_mmhg": 120, "spo2_percent": 97})
    assert vitals.calibration.task == "acuity" and not vitals.calibration.is_synthetic
    assert vitals.calibration.low <= vitals.emergency_probability < vitals.calibration.high
    words = assessed(complaint="severe crushing chest pain for 1 hour, going into the arm, cold sweat", sex="male")
    masses = {one.severity: 0.0 for one in words.differential} | {1: 0.0, 2: 0.0}
    for one in words.differential:
        masses[one.severity] += one.probability
    assert words.emergency_probability == pytest.approx(masses[1] + masses[2], abs=0.05)
    assert words.calibration.task == "symptoms" and words.calibration.is_synthetic
    assert words.calibration.low <= words.emergency_probability <= words.calibration.high
    assert assessed().calibration is None


def test_an_assessment_of_before_is_still_read(live):
    """Stored assessments that know no bands stay valid, and say nothing of them."""
    triage, reading = Triage(live), read_case({"case_id": "a", "vitals": {"pulse_per_minute": 80}}, "a")
    stored = json.loads(triage.assess(reading, NOW).model_dump_json())
    assert stored.pop("calibration")["n"] >= 10
    assert Assessment.model_validate_json(json.dumps(stored)).calibration is None


def test_the_shipped_bands_cover_every_probability(live, models_folder):
    """From 0 to 1 without a gap, ten patients in each at least, and 760 visits in all."""
    for model, total in ((live.acuity, 760), (live.symptoms, 20_000)):
        bands = model._calibration
        assert (bands[0].low, bands[-1].high) == (0.0, 1.0)
        assert all(below.high == above.low for below, above in pairwise(bands))
        assert all(band.n >= 10 for band in bands) and sum(band.n for band in bands) == total
    card = (models_folder / "acuity" / live.bundles["acuity"].version / "card.md").read_text(encoding="utf-8")
    first = live.acuity._calibration[0]
    assert f"| 0.0 to 0.1 | {first.n} | {first.events} | {first.events / first.n:.3f} |" in card


def test_the_shipped_bands_are_what_training_counts(models_folder, catalogue_folder, shared_data):
    """Counted again from the visits, out of fold, and from the synthetic patients: the same numbers."""
    versions = live_versions(models_folder)
    acuity, symptoms = (load_bundle(models_folder / task / versions[task]) for task in ("acuity", "symptoms"))
    judged = judge(shared_data / "ktas" / "data.csv", models_folder, acuity)
    assert visit_bands(judged.probability, judged.emergency)[BANDS_KEY] == acuity.contract.training[BANDS_KEY]
    condition, probabilities, _ = decision_scores(symptoms, catalogue_folder)
    assert synthetic_bands(symptoms, condition, probabilities)[BANDS_KEY] == symptoms.contract.training[BANDS_KEY]
