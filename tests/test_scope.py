"""Whether any condition fits: limits by the number of findings, and what an assessment says when none does."""

from __future__ import annotations

import numpy as np
import pytest
from test_prediction_sets import NOTHING, ONE, SLOTS, TWO, contract

from inference.bundle import Contract, TensorSpec
from inference.errors import BundleError
from inference.scope import Scope
from training.scope_calibration import LEAST_PATIENTS, calibrate_scope, outside_share

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
