"""Whether any condition fits: limits by the number of findings, and what an assessment says when none does."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from test_prediction_sets import NOTHING, ONE, SLOTS, TWO, contract

from inference.assessment import Assessment
from inference.bundle import Contract, TensorSpec
from inference.case import read_case
from inference.errors import BundleError
from inference.models import load_models
from inference.scope import Scope
from inference.triage import Triage
from training.scope_calibration import LEAST_PATIENTS, calibrate_scope, outside_share

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LIMITS = {"output": "fit", "present": [0, 2], "least": [-5.0, -9.0]}


def scoped(limits: dict[str, object] | None) -> Contract:
    """A contract whose model has a fit."""
    fit = TensorSpec(name="fit", dtype="float32", shape=("n",), meaning="fit")
    return contract(None).model_copy(update={"outputs": (fit,), "out_of_distribution": limits})


def outside(limits: dict[str, object] | None, fit: float, row: list[int]) -> bool:
    """One patient's verdict."""
    return bool(Scope(scoped(limits)).is_outside(np.array([fit]), np.array([row]))[0])


def test_what_fits_worse_than_hardly_anybody_is_outside():
    """One finding: from -5 on; two, which are rarer together: from -9 on; at the limit it still fits."""
    assert outside(LIMITS, -5.1, ONE) and not outside(LIMITS, -5.0, ONE)
    assert outside(LIMITS, -9.1, TWO) and not outside(LIMITS, -8.0, TWO)


def test_nothing_there_fits_everything():
    """Without a finding nothing can be unlike anything; neither can it by a contract of before."""
    assert not outside(LIMITS, -99.0, NOTHING)
    assert not outside(None, -99.0, TWO)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"output": "fit", "present": [0]}, "symptoms 0.0.1: out_of_distribution cannot be read; export it again"),
        ({**LIMITS, "least": [-5.0]}, "symptoms 0.0.1: out_of_distribution does not go with the model; export it again"),
        ({**LIMITS, "output": "energy"}, "symptoms 0.0.1: out_of_distribution does not go with the model; export it again"),
    ],
)
def test_limits_that_cannot_be_are_refused(limits, message):
    """Without limits, with too few, and for an output that the model does not have."""
    with pytest.raises(BundleError) as error:
        Scope(scoped(limits))
    assert str(error.value) == message


def test_one_in_a_hundred_lies_outside():
    """Of 1,999 patients with one finding, 20 in 2,000 may: the limit is the twentieth lowest fit, and 19 lie below it."""
    fit = -np.arange(1999, dtype=np.float64)
    rows = np.tile(ONE, (1999, 1))
    found = calibrate_scope(fit, rows, [code for code, _ in SLOTS])
    assert found["present"] == [0] and found["least"] == [-1979.0]
    share = outside_share(scoped(found), fit, rows)["outside_scope"]
    assert (share.value, share.n) == (pytest.approx(19 / 1999), 1999)


def test_bands_have_patients_enough():
    """A thousand with one finding, ten with two: the ten join the first band; a thousand more open one of their own."""
    codes = [code for code, _ in SLOTS]
    few = calibrate_scope(np.zeros(LEAST_PATIENTS + 10), np.array([ONE] * LEAST_PATIENTS + [TWO] * 10), codes)
    many = calibrate_scope(np.zeros(2 * LEAST_PATIENTS), np.array([ONE] * LEAST_PATIENTS + [TWO] * LEAST_PATIENTS), codes)
    assert few["present"] == [0] and many["present"] == [0, 2]
    assert calibrate_scope(np.array([-3.0]), np.array([ONE]), codes)["least"] == [-6.0]  # too few to leave anybody out


@pytest.fixture(scope="module")
def triage(models_folder) -> Triage:
    """The shipped models."""
    return Triage(load_models(models_folder))


def assessed(triage: Triage, *slugs: str, **fields: object) -> Assessment:
    """A case with these findings, by slug."""
    evidences = triage.models.symptoms.vocabulary["evidences"]
    findings = {code: "present" for code, one in evidences.items() if one["slug"] in slugs}
    assert len(findings) == len(slugs)
    return triage.assess(read_case({"case_id": "a", "age_years": 30, "sex": "male", "findings": findings, **fields}, "a"), NOW)


def test_findings_that_no_condition_explains_go_to_a_person(triage):
    """Rice-water stool with a snake bite, a toothache and a recent fit: the assessment says that nothing fits, and why."""
    found = assessed(triage, "rice_water_stool", "snake_bite", "toothache", "recent_seizure")
    assert found.is_outside_scope and found.review.needed
    assert f"none of the {len(triage.models.symptoms.labels)} conditions fits these findings: a person must look" in found.review.why


def test_findings_that_belong_together_are_inside(triage):
    """Cholera, and a single finding."""
    assert not assessed(triage, "rice_water_stool", "vomiting", "diarrhoea", "sunken_eyes").is_outside_scope
    assert not assessed(triage, "cough").is_outside_scope


def test_nothing_that_fits_lowers_no_level(triage):
    """With and without the signal the level is the same: it is a reason to look, and no probability."""
    slugs = ("rice_water_stool", "snake_bite", "toothache", "recent_seizure")
    with_signal = assessed(triage, *slugs)
    model = copy(triage.models.symptoms)
    model._scope = Scope(scoped(None).model_copy(update={"vocabulary": model.vocabulary}))
    without = assessed(Triage(replace(triage.models, symptoms=model)), *slugs)
    assert with_signal.is_outside_scope and not without.is_outside_scope
    assert with_signal.level == without.level
