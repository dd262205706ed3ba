"""What a model learned from, as a sketch in its contract, so that held-out cases that it saw before are found.

The sketch is a bottom-k (KMV) one (Bar-Yossef et al. 2002; Beyer et al. 2007): of all cases' 64-bit fingerprints the 4,096 smallest.
A case whose fingerprint is below the largest kept one must be in the sketch if it was learned from, so that the share of such
cases is an estimate of the share that leaked; with up to 4,096 cases it is exact. A fingerprint gives nobody's data away, but
who holds a case can find out that it was learned from: that is its purpose. Knows no files and no models.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.case import Sex, Vitals
from inference.errors import BundleError
from training.metrics import Interval, wilson_interval

Array = NDArray[Any]
Prints = NDArray[np.uint64]
KEPT = 4096
# Two photos of which so few of the 64 bits differ show the same: see tests/test_seen.py for what was measured.
NEAR_BITS = 4
LEAST_VITALS = 3  # visits with fewer measured vitals are alike by chance
LEAST_FINDINGS = 5  # so are patients with fewer findings that are there
_EXACT, _NEAR = "equal", "near"


class Sketch:
    """Gathers fingerprints while a model is trained, and keeps the smallest."""

    def __init__(self, *, is_near: bool = False) -> None:
        """`is_near`: the fingerprints are photos', and alike ones count as the same."""
        self._is_near = is_near
        self._kept: Prints = np.zeros(0, dtype=np.uint64)
        self._added = 0

    def add(self, prints: Prints) -> None:
        """Take more cases in; one that is there already changes nothing but the count."""
        self._added += len(prints)
        if not self._is_near and len(self._kept) == KEPT:
            prints = prints[prints < self._kept[-1]]
        together = np.unique(np.concatenate([self._kept, prints]))
        order = _mixed(together) if self._is_near else together
        self._kept = together[np.argsort(order, kind="stable")][:KEPT]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"kept": self._kept.tolist(), "added": self._added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._kept, self._added = np.array(state["kept"], dtype=np.uint64), int(state["added"])

    def as_contract(self) -> dict[str, Any]:
        """The contract's `seen`."""
        return {
            "match": _NEAR if self._is_near else _EXACT,
            "added": self._added,
            "is_complete": len(self._kept) < KEPT,
            "fingerprints": base64.b64encode(self._kept.astype("<u8").tobytes()).decode(),
        }


@dataclass(frozen=True)
class Overlap:
    """The estimated `share` of held-out cases that a model learned from, and the places of those that are known to be."""

    share: Interval
    places: tuple[int, ...]


def overlap(seen: Mapping[str, Any], prints: Prints) -> Overlap:
    """How many of the held-out cases with these fingerprints the model that left `seen` learned from.

    Fingerprints of 0 are of cases that say too little to be told apart, and are left out. The share's n counts the cases
    that the sketch can tell of; it is NaN without any. Raises BundleError when the sketch cannot be read.
    """
    try:
        kept = np.frombuffer(base64.b64decode(seen["fingerprints"], validate=True), dtype="<u8").astype(np.uint64)
        match, is_complete = str(seen["match"]), bool(seen["is_complete"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError("the sketch of what the model learned from cannot be read: export it again") from error
    telling = prints > 0
    if match == _NEAR:
        known = telling & _is_near_any(prints, kept)
    else:
        telling &= is_complete | (prints <= (kept.max() if len(kept) else 0))
        known = telling & np.isin(prints, kept)
    return Overlap(wilson_interval(int(known.sum()), int(telling.sum())), tuple(np.flatnonzero(known).tolist()))


def of_patients(answers: Array, age_years: Array, sex: Array) -> Prints:
    """Fingerprints [n] of patients by the slots that are there (+1 in `answers` [n, slots]), whole years of age and sex index."""
    present = answers > 0
    years = np.rint(np.nan_to_num(age_years, nan=-1.0)).astype(np.int64).astype(np.uint64)
    total = present.astype(np.uint64) @ _keys(answers.shape[1]) + years * _keys(2, "who")[0] + sex.astype(np.uint64) * _keys(2, "who")[1]
    return np.where(present.sum(axis=1) >= LEAST_FINDINGS, np.maximum(_mixed(total), 1), 0).astype(np.uint64)


class Visit(Protocol):
    """A visit as far as it is fingerprinted: a case, or a row of NHAMCS."""

    @property
    def age_years(self) -> float | None: ...  # noqa: D102
    @property
    def sex(self) -> Sex: ...  # noqa: D102
    @property
    def vitals(self) -> Vitals: ...  # noqa: D102


def of_visits(visits: Iterable[Visit]) -> Prints:
    """Fingerprints [n] of visits by whole years of age, sex and what was measured; 0 with fewer than 3 numbers."""
    return np.array([_of_visit(visit) for visit in visits], dtype=np.uint64)


def _of_visit(visit: Visit) -> int:
    known = {name: value for name, value in visit.vitals.__dict__.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    if len(known) < LEAST_VITALS:
        return 0
    measured = [f"{name}={float(value):.1f}" for name, value in sorted(known.items())]
    return _of_text("|".join([str(None if visit.age_years is None else int(visit.age_years)), visit.sex, *measured]))


def of_photo(image: Image.Image) -> int:
    """The difference hash of a photo: of each of 8 x 8 places, whether it is brighter than its neighbour to the right."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(grey[:, 1:] < grey[:, :-1])
    return max(int.from_bytes(bits.tobytes(), "big"), 1)


def _of_text(text: str) -> int:
    return max(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"), 1)


def _keys(count: int, name: str = "slots") -> Prints:
    """The same pseudo-random numbers for ever, one a slot."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    with np.errstate(over="ignore"):
        return _mixed(np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed))


def _mixed(values: Prints) -> Prints:
    """Every bit of the result depends on every bit of the value: the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _is_near_any(prints: Prints, kept: Prints) -> NDArray[np.bool_]:
    """Whether any kept photo differs in at most NEAR_BITS bits, [n]."""
    return np.array([bool((np.bitwise_count(kept ^ one) <= NEAR_BITS).any()) for one in prints], dtype=bool)
