"""The comparison as one HTML page that needs nothing else: the verdict first, who would be missed before how good it is on average.

Draws what `training.comparison` found. Measures and decides nothing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from math import isnan
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from training.comparison import SMALLEST_SUBGROUP, Comparison, Move
from training.comparison_words import TITLES, words
from training.metrics import Interval
from training.paired import Difference

TEMPLATE = Path(__file__).with_name("comparison.html.jinja")
_RAW = frozenset({"set_size"})  # numbers; all others are shares
_URGENT = 3
_INK = {"champion": "#64748b", "challenger": "#1d4ed8", "worse": "#a11622", "better": "#14663a"}


def render_html(found: Comparison) -> str:
    """The page."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    environment.filters |= {
        "plain": _plain, "change": _change, "colour": _colour, "percent": _percent, "minutes": _minutes, "minutes_change": _minutes_change, "p_value": _p_value,
    }  # fmt: skip
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        c=found,
        titles=TITLES,
        forest=_forest(found.differences),
        reliability=_reliability(found),
        lowered=sum(move.is_lowered for move in found.moves),
        move_groups=_move_groups(found.moves),
        subgroups=_subgroups(found.subgroups),
        smallest=SMALLEST_SUBGROUP,
    )


def _move_groups(moves: tuple[Move, ...]) -> list[tuple[str, list[Move], bool]]:
    """Title, moves, and whether they stand open: those who lose what they need first."""
    needy = [move for move in moves if move.is_lowered and 0 < move.true_level <= _URGENT]
    others = [move for move in moves if move.is_lowered and not 0 < move.true_level <= _URGENT]
    raised = [move for move in moves if not move.is_lowered]
    return [
        ("Less urgent, although truly of level 1 to 3", needy, True),
        ("Less urgent, truly routine or unknown", others, False),
        ("More urgent", raised, False),
    ]


def _subgroups(subgroups: Mapping[str, dict[str, Difference]]) -> list[tuple[str, list[tuple[str, dict[str, Difference]]]]]:
    """By kind: people and skin first, single conditions last."""
    conditions = [pair for pair in subgroups.items() if pair[0].startswith("condition ")]
    return [("People", [pair for pair in subgroups.items() if pair not in conditions]), ("Conditions", conditions)]


def _forest(differences: Mapping[str, Difference]) -> str:
    """Each share's harm with its interval, safety on top."""
    from matplotlib.figure import Figure

    shown = [(name, one.harm) for name, one in differences.items() if name not in _RAW and not isnan(one.change.value)]
    figure = Figure(figsize=(5.4, 0.6 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (_, harm) in enumerate(reversed(shown)):
        ink = _INK["worse"] if harm.low > 0 else _INK["better"] if harm.high < 0 else _INK["champion"]
        axes.plot([100 * harm.low, 100 * harm.high], [place, place], color=ink, linewidth=2.5, solid_capstyle="butt")
        axes.plot(100 * harm.value, place, "o", color=ink, markersize=6)
    axes.axvline(0, color="#1c2430", linewidth=1)
    widest = max([2.0, *(100 * abs(bound) for _, harm in shown for bound in (harm.low, harm.high) if not isnan(bound))])
    axes.set(xlim=(-1.1 * widest, 1.1 * widest), xlabel="points (right: worse)", ylim=(-0.6, len(shown) - 0.4))
    axes.set_yticks(range(len(shown)), [words(name) for name, _ in reversed(shown)])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return _svg(figure)


def _reliability(found: Comparison) -> str:
    """Observed share against stated probability of both, in tenths; the dot's size tells how many cases."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="#1c2430", linewidth=1, label="perfect")
    for name, points in found.calibration.items():
        total = sum(point.n for point in points) or 1
        stated, observed = [point.stated for point in points], [point.observed for point in points]
        axes.plot(stated, observed, color=_INK[name], linewidth=1.5, label=name)
        axes.scatter(stated, observed, s=[20 + 400 * point.n / total for point in points], color=_INK[name], alpha=0.5, linewidths=0)
    axes.set(xlabel="probability that the model states", ylabel="how often it came true", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: object) -> str:
    """The figure as SVG inside the page, the same bytes each time."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "nabz", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}):
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})  # type: ignore[attr-defined]
    text = file.getvalue()
    return text[text.index("<svg") :]


def _plain(value: float, name: str) -> str:
    if isnan(value):
        return "undefined"
    return f"{value:.2f}" if name in _RAW or name.endswith(("_auc", "_precision")) else f"{100 * value:.1f} %"


def _change(change: Interval, name: str) -> str:
    if isnan(change.value):
        return "undefined"
    scale, digits = (1, 2) if name in _RAW else (100, 1)
    value, low, high = (scale * bound for bound in (change.value, change.low, change.high))
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def _colour(one: Difference) -> str:
    """Worse or better only where the interval says so."""
    return "worse" if one.harm.low > 0 else "better" if one.harm.high < 0 else ""


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _percent(share: float) -> str:
    return "undefined" if isnan(share) else f"{100 * share:.1f} %"


def _minutes(value: float) -> str:
    return "undefined" if isnan(value) else f"{value:.0f}"


def _minutes_change(one: object) -> str:
    value, low, high = (getattr(one, name) for name in ("value", "low", "high"))
    return "undefined" if isnan(value) else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
