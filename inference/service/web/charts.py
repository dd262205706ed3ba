"""Small plots as inline SVG: marks, lines, bars and axes, with presentation attributes and classes only (no style, no script).

Time and numbers run from left to right in both languages, as plots in Urdu journals have it. What distinguishes two series is a
shape or a dash as well as a colour. Knows no figure of the service: it draws numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 330  # in the plot's own units, about a small phone's; text is 12 of them high
_MARK: Final = 9


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to [start, end] in the plot's units; `is_log` needs low > 0. What lies outside is drawn at the border."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is drawn."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = log10(value / self.low) / log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def ticks(high: float, most: int = 5) -> list[float]:
    """Round numbers from 0 up to at least `high`: steps of 1, 2 or 5 times a power of ten, whole ones for counts."""
    if high <= 0:
        return [0, 1]
    step = next(
        size * 10.0**power for power in range(floor(log10(high)) - 1, 20) for size in (1, 2, 5) if ceil(high / (size * 10.0**power)) < most
    )
    return [round(step * number, 10) for number in range(ceil(high / step - 1e-9) + 1)]


def count_ticks(high: float) -> list[float]:
    """The same for counts, which have no halves."""
    return ticks(high) if high > 4 else [float(number) for number in range(max(ceil(high), 1) + 1)]


def svg(title: str, description: str, height: float, parts: Iterable[Markup], width: float = WIDTH) -> Markup:
    """A plot with its name and what it shows, for those who do not see it."""
    head = f'<svg class="plot" role="img" viewBox="0 0 {_n(width)} {_n(height)}" xmlns="http://www.w3.org/2000/svg">'
    return Markup("{}<title>{}</title><desc>{}</desc>{}</svg>").format(Markup(head), title, description, Markup("").join(parts))  # noqa: S704 (numbers)


def text(x: float, y: float, words: object, anchor: str = "start", kind: str = "") -> Markup:
    """Words that begin, end or are centred (`start`, `end`, `middle`) at a point."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return _element("text", f'x="{_n(x)}" y="{_n(y)}"{where}{_class(kind)}', words)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return _element("path", f'd="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"{_class(kind)}')


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A line through points."""
    return _element("path", f'd="M{"L".join(f"{_n(x)} {_n(y)}" for x, y in points)}"{_class(kind)}') if points else Markup("")


def bar(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A filled rectangle."""
    return _element("rect", f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(height)}"{_class(kind)}')


def mark(shape: str, x: float, y: float, kind: str, size: float = _MARK) -> Markup:
    """One of the shapes of the page's sprites (`s1` to `s5`), centred at a point."""
    where = f'href="#{shape}" x="{_n(x - size / 2)}" y="{_n(y - size / 2)}" width="{_n(size)}" height="{_n(size)}"'
    return _element("use", where + _class(kind))


def whisker(low: tuple[float, float], high: tuple[float, float], kind: str) -> Markup:
    """A line between two points with a short stroke across each end; level or upright."""
    (x1, y1), (x2, y2) = low, high
    across, along = (0.0, 3.0) if y1 == y2 else (3.0, 0.0)
    ends = "".join(f"M{_n(x - across)} {_n(y - along)}L{_n(x + across)} {_n(y + along)}" for x, y in (low, high))
    return _element("path", f'd="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}{ends}"{_class(kind)}')


def sparkline(counts: Sequence[int], title: str, width: float = 96, height: float = 22) -> Markup:
    """A line without axes, from 0 up, with a dot at its end: how one count went."""
    x, y = Scale(0, max(len(counts) - 1, 1), 3, width - 5), Scale(0, max(*counts, 1), height - 4, 4)
    points = [(x(place), y(count)) for place, count in enumerate(counts)]
    head = f'<svg class="spark" role="img" viewBox="0 0 {_n(width)} {_n(height)}" xmlns="http://www.w3.org/2000/svg">'
    drawn = path(points, "k0") + mark("s4", *points[-1], "f0", 5)
    return Markup("{}<title>{}</title>{}</svg>").format(Markup(head), title, drawn)  # noqa: S704 (numbers)


def columns(counts: Sequence[int], title: str, width: float = 96, height: float = 26) -> Markup:
    """One column for each count; the last one is filled, the others are outlined."""
    y, step = Scale(0, max(*counts, 1), 0, height - 3), width / len(counts)
    drawn = [
        bar(step * place + 0.5, height - 1 - y(count), step - 1.5, y(count), "f0" if place == len(counts) - 1 else "b0")
        for place, count in enumerate(counts)
        if count
    ]
    head = f'<svg class="spark" role="img" viewBox="0 0 {_n(width)} {_n(height)}" xmlns="http://www.w3.org/2000/svg">'
    base = line(0, height - 0.5, width, height - 0.5, "axis")
    return Markup("{}<title>{}</title>{}{}</svg>").format(Markup(head), title, base, Markup("").join(drawn))  # noqa: S704 (numbers)


def _element(name: str, attributes: str, words: object = None) -> Markup:
    """An element; the attributes are numbers and names of ours."""
    if words is None:
        return Markup(f"<{name} {attributes}/>")  # noqa: S704 (numbers and names of ours)
    return Markup(f"<{name} {attributes}>{escape(words)}</{name}>")  # noqa: S704 (escaped here)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _n(value: float) -> str:
    """A number as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")
