"""The plots that people would rather look at than read. Arrays in, matplotlib figures out."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")

from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

Array = NDArray[Any]
_BINS = 10


def reliability_diagram(correct: Array, confidence: Array, title: str) -> Figure:
    """Observed share against stated probability, in ten equal-width bins with their counts."""
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    which = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    for index in range(_BINS):
        rows = which == index
        if rows.any():
            x, y = confidence[rows].mean(), correct[rows].mean()
            axes.plot(x, y, "o", color="tab:blue")
            axes.annotate(str(rows.sum()), (x, y), textcoords="offset points", xytext=(5, -10), fontsize=7)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="stated probability", ylabel="observed share", title=title, xlim=(0, 1), ylim=(0, 1))
    return figure


def roc_and_precision_recall(truth: Array, score: Array, title: str) -> Figure:
    """ROC and precision-recall curves side by side."""
    figure = Figure(figsize=(9, 4.5))
    left, right = figure.subplots(1, 2)
    false_positive_rate, sensitivity, _ = roc_curve(truth, score)
    left.plot(false_positive_rate, sensitivity)
    left.plot([0, 1], [0, 1], ":", color="grey")
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title=title)
    precision, recall, _ = precision_recall_curve(truth, score)
    right.plot(recall, precision)
    right.set(xlabel="sensitivity", ylabel="positive predictive value", ylim=(0, 1))
    return figure


def confusion_matrix_plot(counts: Array, names: list[str], title: str) -> Figure:
    """Counts of truth (rows) against prediction (columns), shaded by share of the row."""
    figure = Figure(figsize=(5.5, 5))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


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
