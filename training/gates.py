"""The gates that a challenger must pass before it may go live, and their limits from `gates.toml`.

Knows numbers and limits, not where a number comes from.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import PolicyError
from training.paired import Difference

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


class _Limits(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _ByTask(_Limits):
    """A limit for each kind of model."""

    symptoms: float = Field(ge=0)
    acuity: float = Field(ge=0)
    lesions: float = Field(ge=0)

    def of(self, task: str) -> float:
        """The limit for a task; `lesions-ham10000` has that of `lesions`."""
        return float(getattr(self, task.split("-", maxsplit=1)[0]))


class _RedFlags(_Limits):
    lowered: int = Field(ge=0)


class _NonInferiority(_Limits):
    margin: _ByTask
    least_cases: int = Field(ge=1)


class _Subgroup(_Limits):
    margin: float = Field(gt=0, lt=1)
    significance: float = Field(gt=0, lt=1)
    least_cases: int = Field(ge=1)


class _Margin(_Limits):
    margin: float = Field(gt=0, lt=1)


class _Parity(_Limits):
    largest_difference: float = Field(gt=0, lt=1)


class _Leak(_Limits):
    share: float = Field(ge=0, lt=1)


class _Card(_Limits):
    missing: int = Field(ge=0)


class _Latency(_Limits):
    ratio: float = Field(ge=1)
    quick_enough_ms: float = Field(ge=0)


class Limits(_Limits):
    """Everything in `gates.toml`; the file says what each limit means."""

    red_flags: _RedFlags
    under_triage: _NonInferiority
    emergencies_late: _NonInferiority
    worst_subgroup: _Subgroup
    over_triage: _Margin
    accuracy: _Margin
    calibration: _Margin
    parity: _Parity
    leak: _Leak
    card: _Card
    size: _ByTask
    latency: _Latency


def gates_file(models: Path) -> Path:
    """The limits that hold for the bundles in `models`: its own `gates.toml`, which a clinical lead put there, else the shipped ones."""
    own = models / GATES_FILE.name
    return own if own.is_file() else GATES_FILE


def load_limits(path: Path | None = None) -> Limits:
    """The shipped limits, or those in a file of one's own. Raises PolicyError saying what is wrong in it."""
    path = path or GATES_FILE
    try:
        return Limits.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PolicyError(f"the gates {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"the gates {path} are not valid TOML: {error}") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"the gates {path} cannot be used: {where}; take training/gates.toml as the pattern") from error


def non_inferior(name: str, what: str, found: Difference | None, margin: float, least_cases: int) -> Gate:
    """Passed when the upper end of the harm's interval is within the margin: absence of proof is no proof of absence."""
    if found is None or found.change.n < least_cases:
        n = 0 if found is None else found.change.n
        return Gate(name, False, nan, margin, f"only {n} held-out cases tell of {what}; at least {least_cases} are needed")
    harm = found.harm
    passed = harm.high <= margin
    verdict = "within the margin" if passed else "it may be more than the margin"
    return Gate(name, passed, harm.high, margin, f"{what}: {_moved(found)}; {verdict} of {_points(margin)}")


def not_worse(name: str, what: str, found: Difference | None, margin: float) -> Gate:
    """Failed when the harm exceeds the margin and its interval lies above 0."""
    if found is None or found.change.n == 0:
        return Gate(name, True, nan, margin, f"{what}: not measured on these data")
    harm = found.harm
    failed = not harm.value <= margin and not harm.low <= 0
    verdict = "worse by more than the margin" if failed else "not worse by more than the margin"
    return Gate(name, not failed, harm.value, margin, f"{what}: {_moved(found)}; {verdict} of {_points(margin)}")


def at_most(name: str, measured: float, limit: float, why: str) -> Gate:
    """Passed when what was measured is at or below the limit; NaN is not."""
    return Gate(name, measured <= limit, measured, limit, why)


def _moved(found: Difference) -> str:
    change = found.change
    return (
        f"{_share(found.champion.value)} with the champion, {_share(found.challenger.value)} with the challenger, "
        f"change {change.value * 100:+.1f} points ({change.low * 100:+.1f} to {change.high * 100:+.1f}, n = {change.n})"
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(margin: float) -> str:
    return f"{100 * margin:.1f} points"
