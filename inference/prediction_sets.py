"""The prediction set: which conditions are still possible, with a stated coverage. One implementation for training and inference.

A condition belongs to the set when its probability is at least its own limit, which depends on how many findings are known
and on how probable the leading condition is. Knows no case and no words; it calibrates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Contract
from inference.errors import BundleError

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]


class FindingCounts:
    """Counts the findings in rows of evidence: a finding with several slots counts once."""

    def __init__(self, codes: Sequence[str]) -> None:
        """`codes` has the finding's code of each slot; the slots of a finding stand side by side."""
        starts = [place for place, code in enumerate(codes) if place == 0 or codes[place - 1] != code]
        self._several = [(start, end) for start, end in pairwise([*starts, len(codes)]) if end - start > 1]

    def known(self, evidence: NDArray[Any]) -> Counts:
        """How many findings are known to be there or not, [n]."""
        return self._count(np.asarray(evidence) != 0)

    def present(self, evidence: NDArray[Any]) -> Counts:
        """How many findings are there, [n]."""
        return self._count(np.asarray(evidence) > 0)

    def _count(self, holds: Bools) -> Counts:
        """The findings of which any slot holds, [n]: all slots, less what a finding with several counts too much."""
        counts: Counts = np.count_nonzero(holds, axis=1).astype(np.int64)
        for start, end in self._several:
            own = np.count_nonzero(holds[:, start:end], axis=1)
            counts -= np.maximum(own - 1, 0)
        return counts


class PredictionSets:
    """The sets of one bundle, as its contract's `conformal` defines them.

    `known` and `leading` are the lower ends of bands of the number of known findings and of the largest probability;
    `least_probability` [known bands][leading bands][conditions] has the limits. The leading condition always belongs.
    Contracts of before have one `mass` instead: a condition belongs when its more probable rivals together have at most
    so much.
    """

    def __init__(self, contract: Contract) -> None:
        """Raises BundleError when `conformal` is neither."""
        self.counts = FindingCounts([code for code, _ in contract.vocabulary["slots"]])
        told: Mapping[str, Any] = contract.conformal or {"mass": 0.9}
        self._mass: float | None = None
        try:
            if "mass" in told:
                self._mass = float(told["mass"])
                return
            self._known, self._leading = band_starts(told["known"]), band_starts(told["leading"])
            self._limits = np.array(told["least_probability"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{contract.task} {contract.version}: conformal cannot be read; export it again") from error
        if self._limits.shape != (len(self._known), len(self._leading), len(contract.labels)):
            raise BundleError(f"{contract.task} {contract.version}: conformal has not one limit a condition and band; export it again")

    def members(self, probabilities: NDArray[Any], evidence: NDArray[Any]) -> Bools:
        """Whether each condition belongs to each row's set, [n, conditions]; at least one does."""
        if self._mass is not None:
            return _within_mass(probabilities, self._mass)
        known, leading = bands_of(probabilities, self.counts.known(evidence), self._known, self._leading)
        found: Bools = probabilities >= self._limits[known, leading]
        found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
        return found

    def sizes(self, probabilities: NDArray[Any], evidence: NDArray[Any]) -> Counts:
        """How many conditions each row's set has, [n]."""
        sizes: Counts = self.members(probabilities, evidence).sum(axis=1)
        return sizes


def bands_of(
    probabilities: NDArray[Any], known: Counts, known_starts: NDArray[np.float64], leading_starts: NDArray[np.float64]
) -> tuple[Counts, Counts]:
    """The band of each row by its number of known findings and by its leading probability, [n] each."""
    by_known: Counts = np.maximum(np.searchsorted(known_starts, known, side="right") - 1, 0)
    by_leading: Counts = np.maximum(np.searchsorted(leading_starts, probabilities.max(axis=1), side="right") - 1, 0)
    return by_known, by_leading


def band_starts(told: Sequence[float]) -> NDArray[np.float64]:
    """The lower ends of bands. Raises ValueError when there is none or they do not rise."""
    starts = np.array(told, dtype=np.float64)
    if starts.ndim != 1 or not len(starts) or (np.diff(starts) <= 0).any():
        raise ValueError("bands must rise")
    return starts


def _within_mass(probabilities: NDArray[Any], mass: float) -> Bools:
    order = np.argsort(-probabilities, axis=1, kind="stable")
    descending = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(descending, axis=1) - descending
    found = np.zeros(probabilities.shape, dtype=bool)
    np.put_along_axis(found, order, before <= mass, axis=1)
    found[np.arange(len(found)), order[:, 0]] = True
    return found
