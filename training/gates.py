"""The gates that a challenger must pass before it may go live, and their limits from `gates.toml`.

Knows numbers and limits, not where a number comes from.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import PolicyError

GATES_FILE = Path(__file__).with_name("gates.toml")


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of promotion: what was `measured` (NaN where it could not be), its `limit`, and in a sentence `why`."""

    name: str
    passed: bool
    measured: float
    limit: float
    why: str

    def as_json(self) -> dict[str, Any]:
        """The gate as JSON holds it: null where nothing could be measured."""
        return {**asdict(self), "measured": self.measured if isfinite(self.measured) else None}
