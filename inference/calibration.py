"""The calibration bands of a contract: how many held-out patients were given a probability like this one.

Looks up what training counted. It counts nothing, knows no model and does not judge whether a band has patients enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from inference.assessment import CalibrationBand
from inference.bundle import Contract
from inference.errors import BundleError

BANDS_KEY = "calibration_bands"  # in the contract's `training`

Bands = tuple[CalibrationBand, ...]


def calibration_bands(contract: Contract) -> Bands:
    """The contract's bands, lowest first; none from a contract of before there were any.

    Raises BundleError when they are not bands.
    """
    if BANDS_KEY not in contract.training:
        return ()
    try:
        told = contract.training[BANDS_KEY]
        shared = {"task": contract.task, "data": told["data"], "is_synthetic": told["is_synthetic"]}
        return tuple(CalibrationBand.model_validate({**shared, **band}) for band in told["bands"])
    except (ValidationError, KeyError, TypeError) as error:
        raise BundleError(f"{contract.task} {contract.version}: training.{BANDS_KEY} cannot be read; export again") from error


def band_of(bands: Sequence[CalibrationBand], probability: float) -> CalibrationBand | None:
    """The band that a probability in [0, 1] lies in; None where no patient was counted."""
    return next((band for band in bands if band.low <= probability < band.high or band.high == probability == 1), None)
