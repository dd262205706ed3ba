"""What `nabz simulate` is told: who arrives, who reads, how good the AI is. Validated here, run elsewhere.

A scenario knows no clock, no queue order and no random numbers. Levels are the true ones, 1 (immediate) to 5
(advice), as a panel that had seen everything would give them; the AI and the rules only see a part of that.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.errors import PolicyError
from inference.policy import LEVELS

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_EVEN_DAY = (1.0,) * 24
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=1, le=5)]
Row = Annotated[tuple[Share, ...], Field(min_length=5, max_length=5)]
Matrix = Annotated[tuple[Row, ...], Field(min_length=5, max_length=5)]


class LevelMix(BaseModel):
    """The cases of one true level. `share` of all arrivals; `service_minutes` is the reader's mean time for one.

    `unknown_share`: cases whose condition the AI was never taught. `floor_catches`: cases that the written rules
    alone put at their true level or above. `risk_mean`: the mean risk that the model gives them, in (0, 1).
    """

    model_config = _FROZEN

    share: Share
    service_minutes: float = Field(gt=0)
    unknown_share: Share = 0.0
    floor_catches: Share = 0.0
    risk_mean: float = Field(default=0.5, gt=0, lt=1)
    label: str = ""


class BinaryAI(BaseModel):
    """An AI that says yes or no. Cases of `positive_levels` are flagged with `sensitivity`, others falsely.

    A case whose condition the AI does not know is flagged as if it had nothing to find: `false_positive_rate`.
    """

    model_config = _FROZEN

    kind: Literal["binary"] = "binary"
    sensitivity: Share
    false_positive_rate: Share
    positive_levels: frozenset[Level]
    flagged_level: Level
    unflagged_level: Level


class ConfusionAI(BaseModel):
    """An AI that gives a level: row = true level, column = level given; one matrix for conditions that it was taught,
    one for those that it was not.
    """

    model_config = _FROZEN

    kind: Literal["confusion"] = "confusion"
    known: Matrix
    unknown: Matrix

    @model_validator(mode="after")
    def _rows_are_probabilities(self) -> Self:
        for name, matrix in (("known", self.known), ("unknown", self.unknown)):
            for level, row in zip(LEVELS, matrix, strict=True):
                if abs(sum(row) - 1) > 1e-6:
                    raise ValueError(f"the {name} row of level {level} adds up to {sum(row):g}, expected 1")
        return self


class Scores(BaseModel):
    """The weights of the two score policies; see simulation_orders.py for the formulas."""

    model_config = _FROZEN

    level_points: dict[Level, float] = {1: 100.0, 2: 75.0, 3: 50.0, 4: 25.0, 5: 0.0}
    points_per_hour: float = Field(default=5.0, gt=0)
    accumulation_rates: dict[Level, Annotated[float, Field(gt=0)]] = {1: 16.0, 2: 8.0, 3: 4.0, 4: 2.0, 5: 1.0}

    @model_validator(mode="after")
    def _every_level(self) -> Self:
        for name in ("level_points", "accumulation_rates"):
            if sorted(getattr(self, name)) != list(LEVELS):
                raise ValueError(f"{name} needs the levels 1 to 5")
        return self


class Scenario(BaseModel):
    """Everything that one comparison of queue policies needs, except the queue policy itself.

    `hourly_shape`: relative arrivals in each hour of the day. `service_cv` is the coefficient of variation of
    lognormal service times. `interrupting_levels`: recognised by everybody at once and first under every policy.
    `preemptive`: a more urgent class stops a reader's work, which is resumed later where it stopped.
    """

    model_config = _FROZEN

    name: str
    arrivals_per_hour: float = Field(gt=0, le=10_000)
    hourly_shape: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=24, max_length=24)] = _EVEN_DAY
    readers: int = Field(ge=1, le=1000)
    service_distribution: Literal["exponential", "lognormal"] = "exponential"
    service_cv: float = Field(default=1.0, ge=0, le=5)
    levels: dict[Level, LevelMix]
    ai: Annotated[BinaryAI | ConfusionAI, Field(discriminator="kind")]
    scores: Scores = Scores()
    interrupting_levels: frozenset[Level] = frozenset()
    preemptive: bool = False
    warm_up_hours: float = Field(gt=0)
    measured_hours: float = Field(gt=0)
    replications: int = Field(default=20, ge=2, le=10_000)
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(mix.share for mix in self.levels.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the levels' shares add up to {total:g}, expected 1")
        if not sum(self.hourly_shape):
            raise ValueError("hourly_shape is 0 in every hour, so nobody would ever arrive")
        most = 2_000_000
        if (cases := self.arrivals_per_hour * (2 * self.warm_up_hours + self.measured_hours)) > most:
            raise ValueError(f"one replication would hold about {cases:,.0f} cases, expected at most {most:,}: shorten measured_hours")
        return self

    @property
    def mean_service_minutes(self) -> float:
        """The reader's mean time for a case."""
        return sum(mix.share * mix.service_minutes for mix in self.levels.values())

    @property
    def offered_readers(self) -> float:
        """How many readers the work keeps busy on average; with fewer, the queue grows without end."""
        return self.arrivals_per_hour * self.mean_service_minutes / 60

    @property
    def load(self) -> float:
        """The traffic intensity: offered work over readers."""
        return self.offered_readers / self.readers


def load_scenario(path: Path) -> Scenario:
    """The scenario in a TOML file, or a JSON file by its name. Raises PolicyError saying what is wrong in it."""
    kind, read = ("JSON", json.loads) if path.suffix.lower() == ".json" else ("TOML", tomllib.loads)
    try:
        return Scenario.model_validate(read(path.read_bytes().decode()))
    except OSError as error:
        raise PolicyError(f"the scenario {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"the scenario {path} is not valid {kind}: {error}") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the whole file'}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"the scenario {path} cannot be used: {where}") from error
