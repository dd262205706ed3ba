"""How well the monitor finds what goes wrong, and how often it cries wolf: twenty injected shifts, a hundred quiet weeks.

`python -m training.drift_experiment`, or `nabz-train drift-check`. A shift counts as found when, within three weeks, an alarm
names one of the features that tell it. It judges the rule as it is; nothing here is fitted to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from inference.monitor import WATCHED_WINDOWS, Window, judged
from inference.monitor_reference import Reference, reference_of_sample
from inference.monitor_report import WindowReport
from training.drift_faults import INJECTED, Injected
from training.drift_weeks import NOTHING, Fault, InventedService, Week
from training.metrics import Interval, wilson_interval

WEEKS_TO_FIND = 3
LEAST_CASES, MOST_CASES = 300, 1000
LEAST_FOUND_SHARE, MOST_FALSE_SHARE = 0.9, 0.05
_BASELINE_SEED, _QUIET_SEED, _SHIFT_SEED = 1_000, 10_000, 100_000


@dataclass(frozen=True)
class Outcome:
    """What became of one injected shift: the week of the alarm that tells it (None: not found) and the alarms until then."""

    name: str
    words: str
    week: int | None
    by: str
    excess: float | None
    all_alarms: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """Injected shifts and quiet weeks under one reference. `false_weeks` has the alarms of each quiet week that had any."""

    seed: int
    baseline_cases: int
    outcomes: tuple[Outcome, ...]
    quiet_weeks: int
    false_weeks: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """How many shifts were found."""
        return sum(one.week is not None for one in self.outcomes)

    @property
    def false_alarm_rate(self) -> Interval:
        """The share of quiet weeks with any alarm."""
        return wilson_interval(len(self.false_weeks), self.quiet_weeks)

    @property
    def is_good(self) -> bool:
        """Whether nine shifts of ten were found and at most one quiet week in twenty had an alarm."""
        is_found = self.found >= LEAST_FOUND_SHARE * len(self.outcomes)
        return is_found and len(self.false_weeks) <= MOST_FALSE_SHARE * self.quiet_weeks

    def as_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {
            "seed": self.seed, "baseline_cases": self.baseline_cases, "found": self.found, "shifts": [asdict(one) for one in self.outcomes],
            "quiet_weeks": self.quiet_weeks, "false_weeks": {str(week): list(names) for week, names in self.false_weeks.items()},
            "false_alarm_rate": self.false_alarm_rate.as_json(), "is_good": self.is_good,
        }  # fmt: skip


def run_experiment(
    service: InventedService, *, seed: int = 0, quiet_weeks: int = 100, baseline_weeks: int = 8, cases: tuple[int, int] = (LEAST_CASES, MOST_CASES),
    shifts: Sequence[Injected] = INJECTED, told: Callable[[str], None] = lambda _: None,
) -> Experiment:  # fmt: skip
    """Measure the monitor. `cases` are the least and the most of a week; `told` hears what is going on."""
    told(f"baseline: {baseline_weeks} weeks")
    base = service.baseline(_BASELINE_SEED + 1_000_000 * seed, baseline_weeks, sum(cases) // 2)
    reference = reference_of_sample(base.sample, "invented baseline", is_synthetic=True, outcomes=base.outcomes)
    outcomes = []
    for place, shift in enumerate(shifts):
        outcomes.append(_shifted(service, reference, shift, _SHIFT_SEED + 1_000_000 * seed + 10 * place, cases))
        told(f"{shift.name}: {'not found' if outcomes[-1].week is None else f'week {outcomes[-1].week} by {outcomes[-1].by}'}")
    false_weeks: dict[int, tuple[str, ...]] = {}
    before: list[WindowReport] = []
    for week in range(quiet_weeks):
        before.append(_report(service, reference, _QUIET_SEED + 1_000_000 * seed + week, cases, NOTHING, before))
        if alarms := before[-1].alarms:
            false_weeks[week] = tuple(one.feature for one in alarms)
        told(f"quiet week {week + 1}: {', '.join(false_weeks.get(week, ())) or 'quiet'}")
    return Experiment(seed, base.sample.n, tuple(outcomes), quiet_weeks, false_weeks)


def _shifted(service: InventedService, reference: Reference, shift: Injected, seed: int, cases: tuple[int, int]) -> Outcome:
    before: list[WindowReport] = []
    seen: list[str] = []
    for week in range(1, WEEKS_TO_FIND + 1):
        before.append(_report(service, reference, seed + week, cases, shift.fault, before))
        seen += [one.feature for one in before[-1].alarms]
        telling = [one for one in before[-1].alarms if one.feature.startswith(shift.told_by)]
        if telling:
            return Outcome(shift.name, shift.words, week, telling[0].feature, telling[0].excess, tuple(dict.fromkeys(seen)))
    return Outcome(shift.name, shift.words, None, "", None, tuple(dict.fromkeys(seen)))


def _report(
    service: InventedService, reference: Reference, seed: int, cases: tuple[int, int], fault: Fault, before: Sequence[WindowReport]
) -> WindowReport:
    n = int(np.random.default_rng((seed, 2)).integers(cases[0], cases[1] + 1))
    week: Week = service.week(seed, n, fault)
    return judged(reference, Window(week.sample), before[-WATCHED_WINDOWS:], {}, week.outcomes)


if __name__ == "__main__":
    from training.drift_command import main

    sys.exit(main(sys.argv[1:]))
