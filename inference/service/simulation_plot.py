"""A study's answer as a picture (SVG or PNG): waits against caps, minutes saved, share past the cap.

matplotlib is imported when a picture is asked for, and draws without a screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import PolicyError
from inference.service.simulation_report import level_label
from inference.service.simulation_results import EMERGENCIES, Estimate
from inference.service.simulation_study import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png")
_DPI = 150
_LEAST_MINUTES = 0.05  # the foot of the logarithmic axis; a wait of 0 stands there
_TICKS = {"6 s": 0.1, "1 min": 1, "10 min": 10, "1 h": 60, "6 h": 360, "1 d": 1440, "7 d": 10080, "30 d": 43200, "1 y": 525600}
# the Okabe-Ito colours and a mark each, so that colour is never needed alone
_LOOKS = {
    "fifo": ("#555555", "s"),
    "strict": ("#0072B2", "^"),
    "weighted": ("#E69F00", "D"),
    "accumulating": ("#CC79A7", "v"),
    "nabz": ("#009E73", "o"),
}


def check_format(path: Path) -> None:
    """Refuse a picture's name before the work is done, not after. Raises PolicyError."""
    if path.suffix.lower() not in FORMATS:
        raise PolicyError(f"the plot {path} would be of an unknown kind: end its name in {' or '.join(FORMATS)}")


def save_plot(answer: Answer, path: Path) -> None:
    """Draw the picture. Raises PolicyError where it cannot be written."""
    check_format(path)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(11, 8), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1))
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["waits", "waits"], ["saved", "late"]], height_ratios=[3, 2])
    _draw_waits(panels["waits"], answer)
    _draw_bars(panels["saved"], answer)
    _draw_late(panels["late"], answer)
    scenario = answer.scenario
    title = f"{scenario.name}: {scenario.arrivals_per_hour:.3g} cases an hour, {scenario.readers} readers, load {scenario.load:.2f}"
    figure.suptitle(f"{title} (every parameter is an estimate)" if "estimate" in scenario.sources.values() else title, fontsize=13)
    try:
        with mpl.rc_context({"svg.hashsalt": "nabz", "svg.fonttype": "none"}):  # the same answer gives the same file
            figure.savefig(path, dpi=_DPI, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise PolicyError(f"the plot {path} cannot be written: {error.strerror}") from error


def _draw_waits(axes: Axes, answer: Answer) -> None:
    """By level and policy: the mean (filled), the 95th percentile (hollow), and the level's cap."""
    levels = sorted(answer.scenario.levels)
    step = 0.8 / len(answer.policies)
    for place, (name, one) in enumerate(answer.policies.items()):
        colour, mark = _LOOKS[name]
        for column, level in enumerate(levels):
            group = one.groups[level]
            x = column + (place - (len(answer.policies) - 1) / 2) * step
            mean, p95 = (max(figure.value, _LEAST_MINUTES) for figure in (group.mean, group.p95))
            label = name if column == 0 else "_again"
            axes.plot([x, x], [mean, p95], color=colour, linewidth=1.5, zorder=2)
            axes.plot([x], [mean], marker=mark, color=colour, markersize=8, linestyle="none", label=label, zorder=3)
            axes.plot([x], [p95], marker=mark, color=colour, markerfacecolor="white", markersize=8, linestyle="none", zorder=3)
    for column, level in enumerate(levels):
        cap = answer.policy.levels[level].cap_minutes
        axes.hlines(
            cap, column - 0.45, column + 0.45, color="#B00020", linestyle="--", linewidth=1.2, label="cap" if column == 0 else "_again"
        )
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.set_yticks(list(_TICKS.values()), list(_TICKS))
    axes.minorticks_off()
    axes.set_ylim(bottom, top)
    axes.set_xticks(range(len(levels)), [level_label(answer, level) for level in levels])
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.set_title("Wait by true level: mean (filled) to 95th percentile (hollow)", loc="left", fontsize=11)
    axes.legend(ncols=6, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9, frameon=False, columnspacing=1.2, handletextpad=0.4)
    _strip(axes)


def _draw_bars(axes: Axes, answer: Answer) -> None:
    """Minutes that emergencies are saved against FIFO, with the interval."""
    rows = [(name, one.groups[EMERGENCIES].saved_against_fifo) for name, one in answer.policies.items() if name != "fifo"]
    axes.barh(
        [name for name, _ in rows],
        [saved.value for _, saved in rows],
        xerr=[_half(saved) for _, saved in rows],
        color=[_LOOKS[name][0] for name, _ in rows],
        error_kw={"ecolor": "black", "capsize": 3},
        height=0.6,
    )
    axes.set_ylim(max(len(rows), 3) - 0.5, -0.5)
    axes.set_title("Minutes that an emergency waits less than under FIFO", loc="left", fontsize=11)
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_axisbelow(True)
    _strip(axes)


def _draw_late(axes: Axes, answer: Answer) -> None:
    """The share past the cap of every level that has any."""
    levels = [
        level
        for level in sorted(answer.scenario.levels)
        if any(one.groups[level].past_cap.value >= 0.0005 for one in answer.policies.values())
    ]
    step = 0.8 / max(len(answer.policies), 4)
    for place, (name, one) in enumerate(answer.policies.items()):
        shares = [one.groups[level].past_cap for level in levels]
        axes.bar(
            [column + (place - (len(answer.policies) - 1) / 2) * step for column in range(len(levels))],
            [100 * share.value for share in shares],
            yerr=[100 * _half(share) for share in shares],
            width=step * 0.9,
            color=_LOOKS[name][0],
            error_kw={"ecolor": "black", "capsize": 2, "linewidth": 0.8},
        )
    axes.set_xticks(range(len(levels)), [level_label(answer, level) for level in levels])
    axes.set_title("Past the cap of the true level, %" if levels else "Past the cap of the true level: none", loc="left", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    _strip(axes)


def _half(one: Estimate) -> float:
    return (one.high - one.low) / 2 if one.replications > 1 else 0.0


def _strip(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
