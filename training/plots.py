"""The plots that people would rather look at than read: calibration, ROC and precision-recall, confusion, a sweep.

Arrays in, matplotlib figures out; colours are the Okabe-Ito ones and never needed alone. Knows no task and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.metrics import auc, average_precision, wilson_interval

Array = NDArray[Any]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#000000")
_STYLES = ("-", "--", "-.", ":")
_BINS = 10
_LEAST_OF_EACH = 10
_GREY = "#888888"


def reliability_diagram(correct: Array, confidence: Array, title: str) -> Figure:
    """Observed share with its 95 % Wilson interval against stated probability, in ten equal-width bins; their counts below."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    which = np.minimum((np.asarray(confidence) * _BINS).astype(int), _BINS - 1)
    for index in np.unique(which):
        rows = which == index
        share = wilson_interval(int(np.sum(correct[rows])), int(rows.sum()))
        bounds = [[share.value - share.low], [share.high - share.value]]
        upper.errorbar(confidence[rows].mean(), share.value, yerr=bounds, fmt="o", color=COLOURS[0], capsize=3, markersize=5)
    upper.plot([0, 1], [0, 1], ":", color=_GREY, label="as stated")
    upper.set(ylabel="observed share (95 % interval)", title=f"{title}, n = {len(correct):,}", xlim=(0, 1), ylim=(0, 1))
    upper.legend(frameon=False, loc="upper left", fontsize=9)
    counts = np.bincount(which, minlength=_BINS) if len(correct) else np.zeros(_BINS)
    lower.bar((np.arange(_BINS) + 0.5) / _BINS, counts, width=0.9 / _BINS, color=_GREY)
    lower.set(xlabel="stated probability", ylabel="cases (log)", yscale="symlog", ylim=(0, None))
    for axes in (upper, lower):
        tidy(axes)
    return figure


def roc_and_precision_recall(truth: Array, score: Array, title: str, groups: Mapping[str, Array] | None = None) -> Figure:
    """ROC and precision-recall curves side by side: of everybody, and of the subgroups (masks [n]) with ten cases of each outcome.

    The curve of fewer would say more about these few than about the group.
    """
    shown = {"all": np.ones(len(truth), dtype=bool)} if len(np.unique(truth)) == 2 else {}
    shown |= {name: rows for name, rows in (groups or {}).items() if np.bincount(truth[rows], minlength=2).min() >= _LEAST_OF_EACH}
    figure = Figure(figsize=(11, 5 + 0.17 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, rows) in enumerate(shown.items()):
        look = _look(place)
        positives = f"{int(truth[rows].sum()):,} of {int(rows.sum()):,}"
        false_positive_rate, sensitivity, _ = roc_curve(truth[rows], score[rows])
        left.plot(false_positive_rate, sensitivity, label=f"{name}: AUC {auc(truth[rows], score[rows]):.2f} ({positives})", **look)
        precision, recall, _ = precision_recall_curve(truth[rows], score[rows])
        ap = average_precision(truth[rows], score[rows])
        right.plot(recall, precision, label=f"{name}: AP {ap:.2f}, share {truth[rows].mean():.3f}", **look)
    left.plot([0, 1], [0, 1], ":", color=_GREY, linewidth=1)
    left.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01), title="ROC")
    right.set(xlabel="sensitivity", ylabel="positive predictive value", xlim=(0, 1), ylim=(0, 1.01), title="Precision and recall")
    figure.suptitle(title if shown else f"{title}: one of the outcomes does not occur")
    for axes in (left, right):
        tidy(axes)
        if shown:
            axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12))
    return figure


def confusion_matrix_plot(counts: Array, names: Sequence[str], title: str, axis_names: tuple[str, str] = ("true", "predicted")) -> Figure:
    """Counts of truth (rows) against prediction (columns), shaded by share of the row; `names` are of both."""
    side = max(4.5, 0.55 * len(names) + 2.5)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=9)
    is_long = max(len(name) for name in names) > 3
    axes.set_xticks(range(len(names)), names, rotation=45 if is_long else 0, ha="right" if is_long else "center")
    axes.set_yticks(range(len(names)), [f"{name} (n = {int(counts[row].sum()):,})" for row, name in enumerate(names)])
    axes.set(xlabel=axis_names[1], ylabel=axis_names[0])
    figure.suptitle(title, fontsize=11, wrap=True)
    figure.colorbar(image, shrink=0.8, label="share of the row")
    return figure


def tidy(axes: Axes) -> None:
    """Without a box, with a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.7)
    axes.set_axisbelow(True)


def _look(place: int) -> dict[str, Any]:
    """A curve's colour and dashes: no two of the first 32 are alike, and the first, for all, is the thickest."""
    style = _STYLES[place // len(COLOURS) % len(_STYLES)]
    return {"color": "black", "linewidth": 2.2} if place == 0 else {"color": COLOURS[place % 7], "linestyle": style, "linewidth": 1.2}


def sweep_plot(steps: dict[str, dict[str, dict[str, float | None]]], title: str) -> Figure:
    """How sensitivity, specificity and the mean malignancy probability move over the steps of a sweep, with their intervals."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    names, places = list(steps), np.arange(len(steps))
    for shift, metric in ((-0.15, "sensitivity"), (0.0, "specificity"), (0.15, "malignancy_probability")):
        figures = [steps[name][metric] for name in names]
        value, low, high = (
            np.array([np.nan if one[bound] is None else one[bound] for one in figures], dtype=float) for bound in ("value", "low", "high")
        )
        axes.errorbar(
            places + shift, value, yerr=np.abs(np.stack([value - low, high - value])), fmt="o", markersize=4, capsize=2, label=metric
        )
    axes.set_xticks(places, names, rotation=60, ha="right", fontsize=8)
    axes.set(ylim=(0, 1.02), title=title)
    axes.legend(fontsize=8)
    return figure
