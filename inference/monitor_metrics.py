"""A report as Prometheus figures. The labels are features' names, a closed set: findings and places have one figure together.

Knows no registry; the service sets its gauges from the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isnan

from inference.monitor_features import FINDING
from inference.monitor_report import Report
from inference.monitor_words import GROUPS

INDEX, ALARMS, CHECKED, CASES = "nabz_drift_psi", "nabz_drift_alarms", "nabz_drift_checked_timestamp_seconds", "nabz_drift_cases"
HELP = {
    INDEX: "Population stability index beyond chance, by feature; findings: the largest of all",
    ALARMS: "Features whose drift is an alarm in the last window, by kind",
    CHECKED: "When drift was last looked for",
    CASES: "Cases in the last window",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What is exported of a report: the index by feature, 0 or more, alarms by group, cases of the last window."""

    index: Mapping[str, float]
    alarms: Mapping[str, int]
    cases: int


def figures_of(report: Report) -> Figures:
    """The last window's figures."""
    index: dict[str, float] = {}
    for change in report.last.changes:
        if isnan(change.psi):
            continue
        name = "findings" if change.feature.startswith(FINDING) else change.feature
        index[name] = max(change.excess, index.get(name, 0.0), 0.0)
    alarms = [one.group for one in report.last.alarms]
    return Figures(index, {group: alarms.count(group) for group in GROUPS}, report.last.n)


def metrics_text(report: Report, at: datetime) -> str:
    """The figures in Prometheus' text format, as node_exporter's textfile collector reads them."""
    figures = figures_of(report)
    series = {
        INDEX: [(f'{{feature="{name}"}}', f"{value:.6g}") for name, value in sorted(figures.index.items())],
        ALARMS: [(f'{{group="{group}"}}', str(count)) for group, count in figures.alarms.items()],
        CASES: [("", str(figures.cases))],
        CHECKED: [("", f"{at.timestamp():.0f}")],
    }
    lines = [
        line
        for name, values in series.items()
        for line in (f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge", *(f"{name}{labels} {value}" for labels, value in values))
    ]
    return "\n".join(lines) + "\n"
