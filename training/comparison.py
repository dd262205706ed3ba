"""Champion and challenger on the same held-out cases: differences, gates and a verdict.

Knows no files but the bundles' and draws nothing: see comparison_report.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.gates import Gate

Verdict = Literal["PROMOTE", "HOLD"]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. `because` names the reasons for HOLD, most serious first; it is empty for PROMOTE."""

    task: str
    champion: str
    challenger: str
    champion_sha256: str
    challenger_sha256: str
    data: str
    n: int
    gates: tuple[Gate, ...]

    @property
    def because(self) -> tuple[str, ...]:
        """Why the challenger is held back, one sentence for each gate that it fails."""
        return tuple(f"{gate.name}: {gate.why}" for gate in self.gates if not gate.passed)

    @property
    def verdict(self) -> Verdict:
        """PROMOTE when every gate is passed."""
        return "HOLD" if self.because else "PROMOTE"

    def as_json(self) -> dict[str, Any]:
        """The whole comparison for a file: no NaN, keys in a fixed order."""
        return {"verdict": self.verdict, "because": list(self.because), "gates": [gate.as_json() for gate in self.gates]}


def compare_bundles(challenger: Path, champion: Path, data: Path, *, threads: int) -> Comparison:
    """Both bundles on the held-out cases in `data`, and the verdict. Raises NabzError when something cannot be used."""
    raise NotImplementedError
