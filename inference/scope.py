"""Whether any of a bundle's conditions fits the findings at all: a differential always adds up to one, also over the wrong list.

Compares the model's `fit` with that of held-out patients who had as many findings. Knows no case and no words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Contract
from inference.errors import BundleError
from inference.prediction_sets import FindingCounts, band_starts

OUTPUT = "fit"


class Scope:
    """The limits of one bundle's `out_of_distribution`; a contract of before has none, and nothing lies outside.

    `present` has the lower ends of bands of the number of findings that are there, `least` the fit of each band below which
    hardly a held-out patient fell.
    """

    def __init__(self, contract: Contract) -> None:
        """Raises BundleError when `out_of_distribution` cannot be read, or names an output that the model does not have."""
        self.counts = FindingCounts([code for code, _ in contract.vocabulary["slots"]])
        told = contract.out_of_distribution
        self.is_known = told is not None
        if told is None:
            return
        try:
            self._present, self._least = band_starts(told["present"]), np.array(told["least"], dtype=np.float64)
            has_output = told["output"] == OUTPUT and OUTPUT in {spec.name for spec in contract.outputs}
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{contract.task} {contract.version}: out_of_distribution cannot be read; export it again") from error
        if not has_output or self._least.shape != self._present.shape:
            raise BundleError(f"{contract.task} {contract.version}: out_of_distribution does not go with the model; export it again")

    def is_outside(self, fit: NDArray[Any], evidence: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether no condition fits each row's findings, [n]; `fit` [n] is the model's. Never with nothing there."""
        present = self.counts.present(evidence)
        if not self.is_known:
            return np.zeros(len(present), dtype=bool)
        band = np.maximum(np.searchsorted(self._present, present, side="right") - 1, 0)
        outside: NDArray[np.bool_] = (fit < self._least[band]) & (present > 0)
        return outside
