"""A drift report as pictures: reference against recent for each feature that moved, and the index over the windows.

matplotlib is imported when a picture is asked for, and draws without a screen.
"""

from __future__ import annotations

import io
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.errors import PolicyError
from inference.monitor import LEAST_EFFECT
from inference.monitor_report import Change, Report
from inference.service.simulation_plot import check_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
_MOST = 12
_DPI = 150
_THEN, _NOW, _ALARM = "#777777", "#0072B2", "#B00020"  # Okabe-Ito blue; told apart by place and mark as well
_LABEL_LENGTH = 22
_LINES = 6


def shown_changes(report: Report) -> list[Change]:
    """What is drawn: alarms, then watches, largest first."""
    watches = sorted((one for one in report.last.changes if one.state == "watch"), key=lambda one: -one.excess)
    return [*report.last.alarms, *watches][:_MOST]


def save_plot(report: Report, path: Path) -> None:
    """Draw both pictures, one above the other. Raises PolicyError where it cannot be written."""
    check_format(path)
    figure = _figure(report)
    try:
        _save(figure, path, path.suffix.lower().lstrip("."))
    except OSError as error:
        raise PolicyError(f"the plot {path} cannot be written: {error.strerror}") from error


def plot_svg(report: Report) -> str:
    """The pictures as an SVG element, for a page."""
    buffer = io.BytesIO()
    _save(_figure(report), buffer, "svg")
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]


def _save(figure: Figure, target: Any, kind: str) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "nabz", "svg.fonttype": "none"}):  # the same report gives the same file
        figure.savefig(target, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)


def _figure(report: Report) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    changes = shown_changes(report)
    rows = -(-len(changes) // COLUMNS)
    figure = Figure(figsize=(12, 3.1 + 2.5 * rows), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows + 1, COLUMNS)
    _draw_windows(figure.add_subplot(grid[0, :]), report, changes)
    for place, change in enumerate(changes):
        axes = figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS])
        (_draw_shares if change.kind == "shares" else _draw_numbers)(axes, change)
        colour = _ALARM if change.state == "alarm" else "black"
        mark = "alarm: " if change.state == "alarm" else "watch: "
        axes.set_title(_short(mark + change.title, 42), loc="left", fontsize=9, color=colour)
    return figure


def _draw_windows(axes: Axes, report: Report, changes: list[Change]) -> None:
    """The index beyond chance of the shown features, window by window."""
    names = [f"{window.start:%d %b}" if window.start else str(place + 1) for place, window in enumerate(report.windows)]
    marks = "osD^vP"
    for place, change in enumerate(changes[:_LINES]):
        series = [next((one.excess for one in window.changes if one.feature == change.feature), float("nan")) for window in report.windows]
        axes.plot(
            range(len(names)), [max(one, 0.0) if not isnan(one) else one for one in series], marker=marks[place], markersize=5,
            linewidth=1.3, color=_LINE_COLOURS[place], label=_short(change.title, 34),
        )  # fmt: skip
    axes.axhline(LEAST_EFFECT, color=_ALARM, linestyle="--", linewidth=1, label=f"smallest that counts ({LEAST_EFFECT:g})")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.3, max(len(names) - 0.7, 0.7))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.set_ylabel("stability index beyond chance", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, columnspacing=1.2, handletextpad=0.4)
    axes.spines[["top", "right"]].set_visible(False)


_LINE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#555555", "#56B4E9")


def _draw_shares(axes: Axes, change: Change) -> None:
    """The labels that moved most: share then (grey) and now (blue)."""
    cells = change.cells[:4]
    places = range(len(cells))
    axes.barh([at - 0.2 for at in places], [100 * one.reference for one in cells], height=0.38, color=_THEN, label="reference")
    axes.barh([at + 0.2 for at in places], [100 * one.recent for one in cells], height=0.38, color=_NOW, label="recent")
    axes.set_yticks(list(places), [_short(one.label.replace("_", " "), _LABEL_LENGTH) for one in cells], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("% of cases", fontsize=8)
    _finish(axes)


def _draw_numbers(axes: Axes, change: Change) -> None:
    """5 to 95 % (thin), 25 to 75 % (thick) and median (dot), then and now."""
    for place, (quantiles, colour) in enumerate(((change.reference_quantiles, _THEN), (change.recent_quantiles, _NOW))):
        low, quarter, middle, three, high = quantiles
        axes.plot([low, high], [place, place], color=colour, linewidth=1.5)
        axes.plot([quarter, three], [place, place], color=colour, linewidth=8, solid_capstyle="butt")
        axes.plot([middle], [place], marker="o", markersize=6, color="white", markeredgecolor="black")
    axes.set_yticks([0, 1], ["reference", "recent"], fontsize=8)
    axes.set_ylim(1.7, -0.7)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
