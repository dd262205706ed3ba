"""What a bundle costs a clinic: bytes to fetch, and time for one case, both models in turn in the same run. Judges nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.bundle import SIGNATURE_FILE, SIGNED_FILES, Bundle

_SECONDS, _LEAST_ROUNDS, _MOST_ROUNDS = 2.0, 15, 400
_DTYPES = {"float32": np.float32, "int64": np.int64, "uint8": np.uint8}


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of all files and milliseconds for one case. `speed` is champion / challenger: above 1 the challenger is quicker."""

    champion_bytes: int
    challenger_bytes: int
    champion_ms: float
    challenger_ms: float

    @property
    def speed(self) -> float:
        """How many times the champion's speed the challenger's is."""
        return self.champion_ms / self.challenger_ms

    def as_json(self) -> dict[str, float | int]:
        """The figures and their ratio."""
        return {**asdict(self), "speed": self.speed}


def cost_of(champion: Bundle, champion_folder: Path, challenger: Bundle, challenger_folder: Path) -> Cost:
    """Both bundles' bytes, and the lower quartile of their times on an empty case, which a busy machine moves least."""
    feeds = [(bundle, _empty_case(bundle)) for bundle in (champion, challenger)]
    seconds: list[list[float]] = [[], []]
    for bundle, inputs in feeds:
        bundle.run(inputs)
    end = time.perf_counter() + _SECONDS
    while len(seconds[0]) < _LEAST_ROUNDS or (len(seconds[0]) < _MOST_ROUNDS and time.perf_counter() < end):
        for times, (bundle, inputs) in zip(seconds, feeds, strict=True):
            start = time.perf_counter()
            bundle.run(inputs)
            times.append(time.perf_counter() - start)
    old, new = (1000 * float(np.quantile(times, 0.25)) for times in seconds)
    return Cost(_bytes(champion_folder), _bytes(challenger_folder), old, new)


def _empty_case(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """One case of zeros: the models' time does not depend on what a case holds."""
    return {
        spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], dtype=_DTYPES[spec.dtype])
        for spec in bundle.contract.inputs
    }


def _bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (*SIGNED_FILES, SIGNATURE_FILE))
