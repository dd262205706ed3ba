"""Pictures of a data check: class balance, what is missing for whom, how large the subgroups are. The document in, figures out."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib.figure import Figure

_SHOWN = 25


def class_balance(report: dict[str, Any]) -> Figure:
    """Rows of each class, the largest 25."""
    classes = list(report["classes"].items())[:_SHOWN]
    figure = Figure(figsize=(8, 1.2 + 0.25 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.barh([label or "none given" for label, _ in classes][::-1], [n for _, n in classes][::-1], color="tab:blue")
    axes.set(xlabel="rows", title=f"classes, n = {report['counts']['rows']}")
    return figure


def missing_by_class(report: dict[str, Any]) -> Figure | None:
    """Share of blanks of each column (rows) in each class (columns); a row whose colour changes gives classes away. None without blanks."""
    columns = list(report["missing"])[:_SHOWN]
    labels = [label for label in report["classes"] if label][:_SHOWN]
    if not columns or not labels:
        return None
    shares = np.array([[report["missing"][column]["by_class"].get(label, 0.0) for label in labels] for column in columns])
    figure = Figure(figsize=(2.5 + 0.45 * len(labels), 1.5 + 0.28 * len(columns)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(columns)), columns, fontsize=8)
    axes.set(title="share that is blank")
    figure.colorbar(image)
    return figure


def subgroup_sizes(report: dict[str, Any]) -> Figure | None:
    """Rows of each subgroup, and the share of serious classes with its interval where it is known. None without subgroups."""
    bars = [(f"{name}: {group}", one) for name, groups in report["subgroups"].items() for group, one in list(groups.items())[:_SHOWN]]
    if not bars:
        return None
    figure = Figure(figsize=(10, 1.5 + 0.24 * len(bars)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(bars))[::-1]
    left.barh(places, [one["n"] for _, one in bars], color="tab:blue")
    left.set_yticks(places, [name for name, _ in bars], fontsize=8)
    left.set(xlabel="rows")
    for place, (_, one) in zip(places, bars, strict=True):
        share = one["serious"]
        if share is not None and share["value"] is not None:
            right.plot([share["low"], share["high"]], [place, place], color="tab:orange")
            right.plot(share["value"], place, "o", color="tab:orange", markersize=4)
    right.set(xlabel="share of serious classes, 95 %", xlim=(0, 1))
    return figure
