"""Reads the policy: levels with their wait caps, and the levels of what no model scored. Decides nothing itself."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import timedelta
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.case import Priority
from inference.errors import PolicyError

LEVELS = (1, 2, 3, 4, 5)
MOST_URGENT, LEAST_URGENT = LEVELS[0], LEVELS[-1]
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class LevelPolicy(BaseModel):
    """What a level is called and the longest wait for a clinician, in minutes."""

    model_config = _FROZEN

    name: str
    name_ur: str
    cap_minutes: int = Field(gt=0)

    @property
    def cap(self) -> timedelta:
        """The longest wait as a time span."""
        return timedelta(minutes=self.cap_minutes)


class QueuePolicy(BaseModel):
    """`risk_weight` in [0, 1]: how much of the cap a case of risk 1 is moved forward by.

    `lease_minutes`: how long a clinician holds a case that they claimed; `capacity_per_clinician`: how many at a time.
    """

    model_config = _FROZEN

    risk_weight: float = Field(ge=0, le=1)
    lease_minutes: int = Field(default=30, gt=0, le=24 * 60)
    capacity_per_clinician: int = Field(default=5, gt=0)

    @property
    def lease(self) -> timedelta:
        """The lease as a time span."""
        return timedelta(minutes=self.lease_minutes)


class UnscoredPolicy(BaseModel):
    """The least urgent level of cases that could not be read, and of cases that no model scored."""

    model_config = _FROZEN

    unreadable: int = Field(ge=1, le=5)
    rules_only: int = Field(ge=1, le=5)


class DifferentialPolicy(BaseModel):
    """When a differential may raise above routine: the largest 90 % set, and the fewest findings that it rests on."""

    model_config = _FROZEN

    largest_set_that_raises: int = Field(ge=0)
    least_findings_that_raise: int = Field(ge=0)


class Policy(BaseModel):
    """The whole policy, with its hash for every assessment's provenance."""

    model_config = _FROZEN

    version: str
    levels: dict[int, LevelPolicy]
    queue: QueuePolicy
    unscored: UnscoredPolicy
    differential: DifferentialPolicy
    priority: dict[Priority, Annotated[int, Field(ge=1, le=5)]]
    sha256: str = ""


@lru_cache(maxsize=8)
def load_policy(path: Path | None = None) -> Policy:
    """The shipped policy, or the one at `path`. Raises PolicyError saying what is wrong in it."""
    try:
        content = path.read_bytes() if path else resources.files("inference").joinpath("policy.toml").read_bytes()
        policy = Policy.model_validate({**tomllib.loads(content.decode()), "sha256": hashlib.sha256(content).hexdigest()})
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {path or 'policy.toml'} is not valid TOML: {error}") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"the policy {path or 'policy.toml'} cannot be used: {where}") from error
    caps = [policy.levels[level].cap_minutes for level in LEVELS if level in policy.levels]
    if sorted(policy.levels) != list(LEVELS) or caps != sorted(caps):
        raise PolicyError("a policy needs the levels 1 to 5, with wait caps that do not shrink from 1 to 5")
    return policy
