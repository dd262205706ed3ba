"""What a look for drift found, as plain objects whose JSON form is stable. Measures and decides nothing."""

from __future__ import annotations

from datetime import datetime
from math import nan
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["quiet", "watch", "alarm"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Frozen):
    """One label's share in [0, 1] then and now; `change` is what it adds to the stability index."""

    label: str
    reference: float
    recent: float
    change: float


class Change(_Frozen):
    """One feature then and now. NaN (null in JSON) is what could not be told.

    `psi_by_chance` is what the index is on average when nothing moved, `excess` the index beyond it; `p` is of this feature
    alone, `p_adjusted` among all. `since` counts the windows in a row in which it was at least a watch, this one included.
    """

    feature: str
    title: str
    family: str
    group: str
    kind: Literal["shares", "numbers", "calibration"]
    n_reference: int
    n_recent: int
    psi: float
    psi_by_chance: float
    excess: float
    p: float
    p_adjusted: float = nan
    state: State = "quiet"
    since: int = 0
    cells: tuple[Cell, ...] = ()
    reference_quantiles: tuple[float, ...] = ()
    recent_quantiles: tuple[float, ...] = ()
    where: str = ""
    meaning: str = ""
    advice: str = ""


class CalibrationNow(_Frozen):
    """How emergency probabilities fit the known outcomes of a window. Pairs are 95 % intervals.

    `odds_shift` is by how much the log odds of an emergency differ from the reference's at the same probability.
    """

    n: int
    events: int
    expected: float
    observed_to_expected: float
    ratio_interval: tuple[float, float]
    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    ece: float
    ece_interval: tuple[float, float]
    odds_shift: float
    odds_shift_error: float


class WindowReport(_Frozen):
    """One window: [start, end), its cases, every feature's index, and what was at least a watch."""

    start: datetime | None
    end: datetime | None
    n: int
    changes: tuple[Change, ...]
    calibration: CalibrationNow | None = None

    @property
    def alarms(self) -> tuple[Change, ...]:
        """The alarms, largest first."""
        found = [one for one in self.changes if one.state == "alarm"]
        return tuple(sorted(found, key=lambda one: (-one.excess if one.excess == one.excess else -1.0, one.feature)))


class Report(_Frozen):
    """What `nabz monitor` found. The last window is the one that is judged; the others lead up to it."""

    format: Literal[1] = 1
    reference_source: str
    reference_is_synthetic: bool
    reference_n: int
    windows: tuple[WindowReport, ...]
    not_compared: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def last(self) -> WindowReport:
        """The window that is judged."""
        return self.windows[-1]
