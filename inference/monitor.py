"""Drift: recent cases against a reference, window by window, and which of the changes are alarms.

An alarm must be large (LEAST_EFFECT beyond chance) and unlikely by chance among all that is tested: within one window at
ALARM_LEVEL, or in two of three windows at WATCH_LEVEL. Samples in, a report out; it reads no file, runs no model and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Any

import numpy as np

from inference.monitor_calibration import calibration_changes, calibration_now
from inference.monitor_changes import changes_of
from inference.monitor_features import FINDING, SET_ASIDE
from inference.monitor_reference import Reference, known_outcomes
from inference.monitor_report import Change, Report, State, WindowReport
from inference.monitor_sample import Sample
from inference.monitor_statistics import adjusted
from inference.monitor_words import Evidence, advice_on, title_of, whereabouts

ALARM_LEVEL = 0.01  # chance of any false alarm among all features of one window
WATCH_LEVEL = 0.05  # of any false watch; the same feature twice in three windows is an alarm
WATCHED_WINDOWS = 2  # windows before this one that count for that
LEAST_EFFECT = 0.02  # of the stability index beyond chance: about a seventh of a standard deviation
DEFAULT_DAYS = 7


@dataclass(frozen=True)
class Window:
    """Cases of [start, end)."""

    sample: Sample
    start: datetime | None = None
    end: datetime | None = None


def windows_of(sample: Sample, days: int = DEFAULT_DAYS, last_end: datetime | None = None, most: int = 12) -> list[Window]:
    """The sample in windows of `days`, oldest first, the last one up to its newest case (or `last_end`, UTC); empty ones are left out."""
    if not sample.n:
        return []
    newest = np.datetime64(last_end.astimezone(UTC).replace(tzinfo=None), "s") if last_end else sample.received.max()
    end = newest + np.timedelta64(1, "s")  # times are whole seconds, rounded down
    length = np.timedelta64(days, "D")
    found = []
    for place in range(most - 1, -1, -1):
        upper = end - place * length
        chosen = (sample.received >= upper - length) & (sample.received < upper)
        if chosen.any():
            found.append(Window(sample.of_cases(chosen), (upper - length).astype(datetime), upper.astype(datetime)))
    return found


def monitor(
    reference: Reference, windows: Sequence[Window], *, names: Mapping[str, str] | None = None, outcomes: Mapping[str, bool] | None = None,
    notes: Sequence[str] = (),
) -> Report:  # fmt: skip
    """Compare each window with the reference. `names` are findings' and conditions' names by code; `outcomes` by case_id."""
    reports: list[WindowReport] = []
    for window in windows:
        reports.append(judged(reference, window, reports[-WATCHED_WINDOWS:], names or {}, outcomes or {}))
    seen = {name for window in windows for name in window.sample.columns}
    missing = sorted(name for name in seen if name not in reference.features and not name.startswith((FINDING, SET_ASIDE)))
    return Report(
        reference_source=reference.source,
        reference_is_synthetic=reference.is_synthetic,
        reference_n=reference.n,
        windows=tuple(reports),
        not_compared=tuple(missing),
        notes=(*_notes_on(reference), *notes),
    )


def judged(
    reference: Reference, window: Window, before: Sequence[WindowReport], names: Mapping[str, str], outcomes: Mapping[str, bool]
) -> WindowReport:
    """One window, given the reports of the windows just before it."""
    changes = changes_of(reference, window.sample)
    probability, outcome = known_outcomes(window.sample, outcomes)
    calibration = calibration_now(probability, outcome, reference.calibration)
    changes += calibration_changes(reference.calibration, calibration, LEAST_EFFECT)
    tails = adjusted(np.array([one.p for one in changes]), np.array([one.family for one in changes]))
    watched = [{one.feature for one in report.changes if one.state != "quiet"} for report in before]
    found = []
    for change, tail in zip(changes, tails.tolist(), strict=True):
        state = _state(change, tail, watched)
        update: dict[str, Any] = {"p_adjusted": tail, "state": state}
        if state != "quiet":
            update |= {"since": _since(change.feature, before), "title": title_of(change.feature, names)}
            update |= _explained(change, window.sample, names)
        found.append(change.model_copy(update=update))
    return WindowReport(start=window.start, end=window.end, n=window.sample.n, changes=tuple(found), calibration=calibration)


def _state(change: Change, tail: float, watched: Sequence[set[str]]) -> State:
    if not (change.excess >= LEAST_EFFECT and tail <= WATCH_LEVEL):  # NaN is neither
        return "quiet"
    return "alarm" if tail <= ALARM_LEVEL or any(change.feature in names for names in watched) else "watch"


def _since(feature: str, before: Sequence[WindowReport]) -> int:
    """How many windows in a row, this one included."""
    earlier = next((one for one in before[-1].changes if one.feature == feature), None) if before else None
    return 1 if earlier is None else earlier.since + 1


def _explained(change: Change, sample: Sample, names: Mapping[str, str]) -> dict[str, str]:
    column = sample.columns.get(change.feature)
    risen = next((cell.label for cell in change.cells if cell.recent > cell.reference), "")
    where = (
        whereabouts(sample, column, risen, change.reference_quantiles[2] if change.reference_quantiles else nan)
        if column is not None
        else ""
    )
    evidence = Evidence(
        change.feature, risen, {cell.label: (cell.reference, cell.recent) for cell in change.cells}, change.reference_quantiles,
        change.recent_quantiles, where, sample, names,
    )  # fmt: skip
    meaning, advice = advice_on(evidence)
    return {"where": where, "meaning": meaning, "advice": advice}


def _notes_on(reference: Reference) -> tuple[str, ...]:
    if not reference.is_synthetic:
        return ()
    return (
        "the reference is of invented cases, and any real clinic differs from it at once: make one of your own first weeks with "
        "`nabz monitor CASES --write-reference FILE`, and compare with that",
    )
