"""Local priors: how much more or less often than in the catalogue each condition is seen here, estimated from recent cases.

Read from the file that `nabz-train priors` writes. They move a differential; a level they can only raise. Estimates nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.bundle import Label
from inference.errors import PolicyError

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
LARGEST_MULTIPLIER = 20.0


class Multiplier(BaseModel):
    """How many times as often as in the catalogue, with its 95 % interval; `is_floored` where a deadly condition fell further."""

    model_config = _FROZEN

    value: float = Field(ge=1 / LARGEST_MULTIPLIER, le=LARGEST_MULTIPLIER)
    low: float
    high: float
    is_floored: bool = False


class Priors(BaseModel):
    """Multipliers of one symptom bundle's priors, by condition; a condition that is not named keeps its prior.

    `n` unlabelled cases are behind them. Conditions of severity `floor_severity` or worse never have less than `floor_share`
    of their catalogue prior.
    """

    model_config = _FROZEN

    version: str
    bundle_sha256: str
    n: int = Field(ge=1)
    method: str
    floor_share: float = Field(gt=0, le=1)
    floor_severity: int = Field(ge=1, le=5)
    multipliers: dict[str, Multiplier]
    sha256: str = ""

    def log_multipliers(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        """The log multiplier of each label, [labels]. Raises PolicyError for other conditions and for a floor that was not kept."""
        if unknown := sorted(self.multipliers.keys() - {label.name for label in labels}):
            raise PolicyError(f"the priors name conditions that the symptom model does not have ({', '.join(unknown[:3])}): estimate again")
        found = np.array([self.multipliers[label.name].value if label.name in self.multipliers else 1.0 for label in labels])
        deadly = np.array([(label.severity or 5) <= self.floor_severity for label in labels])
        if (found[deadly] < self.floor_share - 1e-9).any():
            raise PolicyError(f"the priors lower a deadly condition below {self.floor_share:.0%} of its catalogue prior: estimate again")
        logs: NDArray[np.float64] = np.log(found)
        return logs


def load_priors(path: Path) -> Priors:
    """The priors in a file, with its SHA-256. Raises PolicyError when it cannot be read."""
    try:
        content = path.read_bytes()
        priors = Priors.model_validate_json(content)
    except OSError as error:
        raise PolicyError(f"the priors {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, one["loc"])) or "the file" for one in error.errors()}))
        raise PolicyError(f"the priors {path} cannot be used, at: {where}; write them with `nabz-train priors`") from error
    return priors.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
