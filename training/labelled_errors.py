"""Where the whole triage and the final levels of labelled cases differ: one row a case, a curve over thresholds, pictures of both.

Cases are taken as they are: to judge a bundle on cases that it learned from, use `nabz-train evaluate`, which scores them out of fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np

from inference.case import CaseReading
from inference.triage import Triage
from training.ktas import LAST_EMERGENCY_LEVEL
from training.labelled_cases import LabelledCase, read_labelled_cases, with_trusted_level
from training.metrics import Interval, wilson_interval

mpl.use("Agg")

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """A case as it was triaged and as it turned out. `error`: `missed` (an emergency at 4 or 5), `called` (another at 1-3), or ``.

    `without_model` is the level that everything but the acuity model's emergency threshold supports.
    """

    case_id: str
    final: int
    level: int
    without_model: int
    emergency_probability: float
    source: str
    age_years: float | None
    sex: str
    error: str
    unknown_vitals: int
    why: str


def judge_cases(cases: Sequence[LabelledCase], triage: Triage) -> tuple[JudgedCase, ...]:
    """Every case whose level somebody gave, triaged now."""
    wanted = {one.case.case_id: one for one in with_trusted_level(cases)}
    readings = [CaseReading(one.case, ()) for one in wanted.values()]
    acuity = triage.models.acuity
    kept = None if acuity is None else acuity.thresholds
    ranked = triage.rank(readings, datetime.now(UTC))
    if acuity is not None:
        acuity.thresholds = {**acuity.thresholds, "emergency_level_3": 2.0}
    without = {one.case_id: one.level for one in triage.rank(readings, datetime.now(UTC))}
    if acuity is not None and kept is not None:
        acuity.thresholds = kept
    rows = []
    for result in ranked:
        one = wanted[result.case_id]
        final = int(one.labels.level or 0)
        rows.append(
            JudgedCase(
                result.case_id,
                final,
                result.level,
                without[result.case_id],
                float("nan") if result.emergency_probability is None else result.emergency_probability,
                one.labels.level_source or "expert",
                one.case.age_years,
                one.case.sex,
                _error(final, result.level),
                len(result.unknown_vitals),
                "; ".join(reason.text for reason in result.reasons[:2]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.level - row.final, row.case_id), reverse=True))


def judge_file(path: Path, triage: Triage) -> tuple[JudgedCase, ...]:
    """The same for a file of labelled cases, the most under-triaged first."""
    return judge_cases(read_labelled_cases(path), triage)


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """Missed emergencies and others called so in one group, with their 95 % intervals."""

    group: str
    missed: Interval
    called: Interval


def by_group(rows: Iterable[JudgedCase], groups: Sequence[str]) -> tuple[GroupErrors, ...]:
    """The errors of each group; `groups` names each row's, in order."""
    pairs = list(zip(rows, groups, strict=True))
    return tuple(_errors(name, [row for row, group in pairs if group == name]) for name in dict.fromkeys(groups))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a threshold on the emergency probability would do to the whole triage."""

    threshold: float
    missed: Interval
    called: Interval


def threshold_curve(rows: Sequence[JudgedCase], thresholds: Iterable[float]) -> tuple[CurvePoint, ...]:
    """Missed and called shares at each threshold; whatever else supports an emergency still does."""
    truth = np.array([row.final <= LAST_EMERGENCY_LEVEL for row in rows])
    raised = np.array([row.without_model <= LAST_EMERGENCY_LEVEL for row in rows])
    probability = np.array([row.emergency_probability for row in rows])
    points = []
    for threshold in thresholds:
        is_called = raised | (probability >= threshold)
        missed = wilson_interval(int((truth & ~is_called).sum()), int(truth.sum()))
        points.append(CurvePoint(float(threshold), missed, wilson_interval(int((~truth & is_called).sum()), int((~truth).sum()))))
    return tuple(points)


def curve_plot(points: Sequence[CurvePoint], chosen: float) -> Figure:
    """Both shares against the threshold, with their intervals; a line at the threshold that is in force."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    places = [point.threshold for point in points]
    for name, colour in (("missed", "tab:red"), ("called", "tab:blue")):
        figures: list[Interval] = [getattr(point, name) for point in points]
        axes.plot(places, [one.value for one in figures], color=colour, label=f"{name} (n = {figures[0].n})")
        axes.fill_between(places, [one.low for one in figures], [one.high for one in figures], color=colour, alpha=0.2)
    axes.axvline(chosen, linestyle=":", color="black", label=f"in force: {chosen:.2f}")
    axes.set(xlabel="threshold on the emergency probability", ylabel="share", ylim=(0, 1))
    axes.legend()
    return figure


def group_plot(groups: Sequence[GroupErrors], title: str) -> Figure:
    """Missed and called shares of each group, with their intervals and n."""
    figure = Figure(figsize=(8, 1.5 + 0.5 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for shift, name, colour in ((0.12, "missed", "tab:red"), (-0.12, "called", "tab:blue")):
        for place, group in enumerate(groups):
            one: Interval = getattr(group, name)
            axes.plot([one.low, one.high], [place + shift] * 2, color=colour)
            axes.plot(one.value, place + shift, "o", color=colour, label=name if not place else None)
            axes.annotate(f"n = {one.n}", (1.0, place + shift), fontsize=7, ha="right", va="center", color=colour)
    axes.set_yticks(range(len(groups)), [group.group for group in groups])
    axes.set(xlim=(0, 1), xlabel="share, 95 % interval", title=title)
    axes.legend(loc="lower left")
    return figure


def level_counts(rows: Iterable[JudgedCase]) -> list[list[int]]:
    """How many cases of final level 1-5 (rows) got level 1-5 (columns)."""
    counts = [[0] * 5 for _ in range(5)]
    for row in rows:
        counts[row.final - 1][row.level - 1] += 1
    return counts


def _errors(name: str, rows: Sequence[JudgedCase]) -> GroupErrors:
    own = [row for row in rows if row.final <= LAST_EMERGENCY_LEVEL]
    others = [row for row in rows if row.final > LAST_EMERGENCY_LEVEL]
    missed, called = sum(row.error == "missed" for row in own), sum(row.error == "called" for row in others)
    return GroupErrors(name, wilson_interval(missed, len(own)), wilson_interval(called, len(others)))


def _error(final: int, level: int) -> str:
    if (final <= LAST_EMERGENCY_LEVEL) == (level <= LAST_EMERGENCY_LEVEL):
        return ""
    return "missed" if final <= LAST_EMERGENCY_LEVEL else "called"
