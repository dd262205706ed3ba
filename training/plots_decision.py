"""Plots of what a model's figures mean for decisions: net benefit over thresholds, prediction-set sizes.

Arrays in, matplotlib figures out. Knows no task and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.metrics import mean, net_benefit
from training.plots import COLOURS, tidy

Array = NDArray[Any]
_REPEATS = 200
_THRESHOLDS = 60
_LARGEST_SHOWN = 15  # conditions in a set; larger ones share the last bar


def decision_curve(truth: Array, probability: Array, title: str, highest: float, marked: Mapping[str, float] | None = None) -> Figure:
    """Net benefit of acting on the model from thresholds 0 to `highest`, beside acting on everybody and on nobody.

    After Vickers and Elkin (2006), with a 95 % band from bootstrap draws of the cases. `marked` are thresholds in use, by name.
    """
    truth, probability = np.asarray(truth, dtype=np.int64), np.asarray(probability, dtype=np.float64)
    thresholds = np.linspace(0, highest, _THRESHOLDS + 1)[1:]
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    odds = thresholds / (1 - thresholds)
    prevalence = float(truth.mean()) if len(truth) else float("nan")
    everybody = prevalence - odds * (1 - prevalence)
    model = np.array([net_benefit(truth, probability, at) for at in thresholds])
    low, high = _band(truth, probability, thresholds)
    axes.fill_between(thresholds, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(thresholds, model, color=COLOURS[0], linewidth=2, label="the model")
    axes.plot(thresholds, everybody, "--", color=COLOURS[1], label="everybody")
    axes.axhline(0, color="black", linewidth=1, label="nobody")
    for place, (name, at) in enumerate((marked or {}).items()):
        if at <= highest:
            axes.axvline(at, color="#888888", linestyle=":", linewidth=1)
            axes.annotate(
                f"{name} {at:.3g}",
                (at, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -10 - 11 * place),
                textcoords="offset points",
                fontsize=8,
            )
    top = max(float(np.max(high)), prevalence, 1e-3)
    axes.set(xlim=(0, highest), ylim=(-0.25 * top, 1.12 * top))
    axes.set(xlabel="threshold: the risk from which one would act", ylabel="net benefit (true alarms per case)")
    axes.set_title(f"{title}, {int(truth.sum()):,} of {len(truth):,}")
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    tidy(axes)
    return figure


def set_sizes_plot(sizes: Array, known: Array, starts: Sequence[int], title: str) -> Figure:
    """How many conditions the prediction set holds, [n], and how that falls as more findings are `known`, [n].

    `starts` are the first numbers of known findings of the bands that are told apart, in rising order.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.bincount(np.minimum(sizes, _LARGEST_SHOWN), minlength=_LARGEST_SHOWN + 1)
    left.bar(range(len(counts)), 100 * counts / max(len(sizes), 1), color=COLOURS[0])
    left.set_xticks(range(len(counts)), [*map(str, range(_LARGEST_SHOWN)), f"{_LARGEST_SHOWN}+"])
    left.set(xlabel="conditions in the set", ylabel="% of cases", title=f"all: mean {mean(sizes):.1f}, n = {len(sizes):,}")
    band, names = np.searchsorted(starts, known, side="right") - 1, _band_names(starts)
    shown = [place for place in range(len(starts)) if np.any(band == place)]
    for place in shown:
        low, middle, high = np.quantile(sizes[band == place], [0.1, 0.5, 0.9])
        right.plot([place, place], [low, high], color=COLOURS[0], linewidth=6, alpha=0.3, solid_capstyle="butt")
        right.plot(place, middle, "o", color=COLOURS[0])
    right.set_xticks(shown, [f"{names[place]}\nn = {np.sum(band == place):,}" for place in shown], fontsize=8)
    right.set(xlabel="findings known", ylabel="conditions in the set", ylim=(0, None), title="median, 10th to 90th percentile")
    figure.suptitle(title)
    for axes in (left, right):
        tidy(axes)
    return figure


def _band_names(starts: Sequence[int]) -> list[str]:
    last = [f"{start} and more" for start in starts[-1:]]
    return [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise(starts)] + last


def _band(truth: Array, probability: Array, thresholds: Array) -> tuple[Array, Array]:
    """The 95 % bounds at each threshold: draws of cases are draws of how often each counts."""
    random = np.random.default_rng(0)
    called = probability[:, None] >= thresholds
    gain = np.where(truth[:, None] == 1, 1.0, -(thresholds / (1 - thresholds))[None, :]) * called
    weights = random.multinomial(len(truth), np.full(len(truth), 1 / max(len(truth), 1)), size=_REPEATS)
    draws = weights @ gain / max(len(truth), 1)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high
