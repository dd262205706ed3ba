"""The dashboard's plots and the tables behind them, from its figures. Draws with charts.py; computes no figure itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from inference.service.web.charts import (
    WIDTH,
    Scale,
    bar,
    columns,
    count_ticks,
    line,
    mark,
    path,
    sparkline,
    svg,
    text,
    ticks,
    whisker,
)
from inference.service.web.dashboard_drift import ACT, LOOK, Shift
from inference.service.web.dashboard_figures import OverrideWeek, QueueFigure, ReviewFigure, WaitFigure
from inference.service.web.dashboard_rises import Alarm
from inference.service.web.dashboard_words import Wording
from inference.service.web.rates import Rate

_LEAST_RATIO, _MOST_RATIO = 0.001, 10.0  # of the cap: what is shorter or longer is drawn at the border
_RATIO_TICKS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)
_LEFT: Final = 110
_LARGEST_INDEX: Final = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot, or None where there is nothing to draw, and the same numbers as a table: heads, and rows of a name and its values."""

    plot: Markup | None
    heads: tuple[str | Markup, ...]
    rows: tuple[tuple[str | Markup, ...], ...]


def wait_plot(say: Wording, waits: Sequence[WaitFigure]) -> Figure:
    """Median and 90th percentile of each level as a share of its cap, on a logarithmic axis, with the cap as a line."""
    t, x = say.speech.t, Scale(_LEAST_RATIO, _MOST_RATIO, _LEFT, WIDTH - 14, is_log=True)
    bottom = 34 * len(waits) + 6
    parts = [line(x(ratio), 4, x(ratio), bottom, "cap" if ratio == 1 else "grid") for ratio in _RATIO_TICKS]
    names = ("1/1000", "1/100", "1/10", t("cap"), t("10 caps"))
    anchors = ("middle", "middle", "middle", "middle", "end")
    places = [*(x(ratio) for ratio in _RATIO_TICKS[:-1]), WIDTH]
    parts += [text(place, bottom + 15, name, anchor) for place, name, anchor in zip(places, names, anchors, strict=True)]
    for row, one in enumerate(waits):
        parts += _wait_row(say, one, 34 * row + 20, x)
    title = t("Wait until the first claim, as a share of the cap")
    told = "; ".join(
        t("%(level)s: median %(median)s, 90th percentile %(p90)s", level=say.level(one.level),
          median=say.duration(one.median_minutes), p90=say.duration(one.p90_minutes))
        for one in waits
        if one.n
    )  # fmt: skip
    heads = (t("Level"), t("Cap"), t("Claimed"), t("Median"), t("90th percentile"), t("Within the cap"), t("Past the cap, unclaimed"))
    rows = tuple(
        (
            say.level(one.level),
            say.duration(one.cap_minutes),
            str(one.n),
            say.duration(one.median_minutes),
            say.duration(one.p90_minutes),
            say.share_of_n(one.in_time),
            _late(say, one),
        )
        for one in waits
    )
    return Figure(svg(title, told or t("No case was claimed yet."), bottom + 22, parts), heads, rows)


def _late(say: Wording, one: WaitFigure) -> str:
    """How many wait past the cap, and the longest of these waits."""
    longest = say.speech.t("longest %(time)s", time=say.duration(one.longest_late_minutes))
    return f"{one.late} · {longest}" if one.late else "0"


def _wait_row(say: Wording, one: WaitFigure, y: float, x: Scale) -> list[Markup]:
    shade = f"c{one.level}"
    parts = [mark(f"s{one.level}", 6, y - 4, shade), text(14, y, say.level(one.level)), text(14, y + 12, f"n = {one.n}", kind="quiet")]
    if one.n:
        median, p90 = (x(value / one.cap_minutes) for value in (one.median_minutes, one.p90_minutes))
        parts += [whisker((median, y), (p90, y), f"k {shade}"), mark(f"s{one.level}", median, y, shade, 11)]
    if one.late:
        parts.append(text(18 + 7 * len(f"n = {one.n}"), y + 12, say.speech.tn("%(n)s late", "%(n)s late", one.late), kind="late"))
    return parts


def queue_plot(say: Wording, queue: QueueFigure) -> Figure:
    """Open cases at the end of each day: one strip for each level, each with a scale of its own."""
    t, first, last = say.speech.t, queue.days[0], queue.days[-1]
    x, high = Scale(first, last, _LEFT + 22, WIDTH - 34), 48
    parts: list[Markup] = []
    for row, (level, counts) in enumerate(queue.levels.items()):
        most = count_ticks(max(counts))[-1]
        y = Scale(0, most, high * row + 42, high * row + 10)
        parts += [line(x.start, y(0), x.end, y(0), "axis"), line(x.start, y(most), x.end, y(most), "grid")]
        parts += [text(x.start - 5, y(value) + 4, f"{value:g}", "end", "quiet") for value in (0, most)]
        parts += [mark(f"s{level}", 6, y(0) - 20, f"c{level}"), text(14, y(0) - 16, say.level(level))]
        points = [(x(day), y(count)) for day, count in zip(queue.days, counts, strict=True)]
        parts += [
            path(points, f"k c{level}"),
            mark(f"s{level}", *points[-1], f"c{level}", 7),
            text(WIDTH, points[-1][1] + 4, counts[-1], "end", "b"),
        ]
    bottom = high * len(queue.levels) + 10
    parts += [text(x.start, bottom, say.day(first)), text(x.end, bottom, say.day(last), "end")]
    title = t("Open cases at the end of each day, by level")
    told = "; ".join(f"{say.level(level)}: {say.plain(f'{counts[0]} → {counts[-1]}')}" for level, counts in queue.levels.items())
    heads = (t("Day"), *(say.level(level) for level in queue.levels), t("Arrived"))
    rows = tuple(
        (say.day(day), *(str(counts[place]) for counts in queue.levels.values()), str(queue.arrivals[place]))
        for place, day in enumerate(queue.days)
    )
    return Figure(svg(title, told, bottom + 6, parts), heads, rows[::-1])


def district_rows(say: Wording, queue: QueueFigure) -> Figure:
    """The longest queues: each with how it went; behind it, every day of it."""
    t = say.speech.t
    rows = tuple(
        (say.district(name), sparkline(counts, say.plain(f"{counts[0]} → {counts[-1]}")), str(counts[0]), str(counts[-1]))
        for name, counts in queue.districts
    )
    heads = (t("District"), t("Open cases"), say.day(queue.days[0]), t("now"))
    return Figure(None, heads, rows)


def district_days(say: Wording, queue: QueueFigure) -> Figure:
    """The days behind the districts' lines."""
    heads = (say.speech.t("Day"), *(say.district(name) for name, _ in queue.districts))
    rows = tuple((say.day(day), *(str(counts[place]) for _, counts in queue.districts)) for place, day in enumerate(queue.days))
    return Figure(None, heads, rows[::-1])


def override_plot(say: Wording, weeks: Sequence[OverrideWeek]) -> Figure:
    """How many levels clinicians changed each week, upwards and downwards, with intervals."""
    t, bottom = say.speech.t, 150
    most = ticks(100 * max((one.high for week in weeks for one in (week.more_urgent, week.less_urgent) if one.n), default=0.05), 5)
    x, y = Scale(-0.5, len(weeks) - 0.5, 40, WIDTH - 6), Scale(0, most[-1], bottom, 34)
    parts = [line(x.start, y(value), x.end, y(value), "axis" if value == 0 else "grid") for value in most]
    parts += [text(x.start - 5, y(value) + 4, f"{value:g}%", "end", "quiet") for value in most]
    parts += [
        mark("s2", 8, 10, "c1"),
        text(16, 14, t("more urgent")),
        mark("s4", WIDTH / 2 + 8, 10, "c5"),
        text(WIDTH / 2 + 16, 14, t("less urgent")),
    ]
    for place, week in enumerate(weeks):
        for one, shape, shade, aside in ((week.more_urgent, "s2", "c1", -6), (week.less_urgent, "s4", "c5", 6)):
            if one.n:
                at = x(place) + aside * min(1, 6 / len(weeks))
                ends = (at, y(100 * one.low)), (at, y(100 * one.high))
                parts += [whisker(*ends, f"k {shade}"), mark(shape, at, y(100 * one.share), shade)]
        if (len(weeks) - 1 - place) % (-(-len(weeks) // 5)) == 0:  # five labels have room
            at, anchor = (x.end, "end") if len(weeks) > 5 and place == len(weeks) - 1 else (x(place), "middle")
            parts += [
                text(at, bottom + 15, say.day(week.last_day), anchor),
                text(at, bottom + 28, f"n = {week.more_urgent.n}", anchor, "quiet"),
            ]
    title = t("Levels that a clinician changed, by week")
    told = "; ".join(
        t("week to %(day)s: %(more)s more urgent, %(less)s less urgent", day=say.day(week.last_day), more=say.share(week.more_urgent), less=say.share(week.less_urgent))
        for week in weeks
    )  # fmt: skip
    heads = (t("Seven days to"), t("Cases decided"), t("more urgent"), t("less urgent"))
    rows = tuple(
        (say.day(week.last_day), str(week.more_urgent.n), *(f"{one.k} · {say.share(one)}" if one.n else say.share(one) for one in (week.more_urgent, week.less_urgent)))
        for week in weeks
    )  # fmt: skip
    return Figure(svg(title, told, bottom + 34, parts), heads, rows[::-1])


def review_rows(say: Wording, reviews: ReviewFigure) -> Figure:
    """Each kind of reason with its share of the cases, as a bar with its interval."""
    t = say.speech.t
    most = max((one.high for _, one in reviews.kinds), default=1)
    rows = tuple((say.review(kind), share_bar(say, one, most), str(one.k), say.share(one)) for kind, one in reviews.kinds)
    return Figure(None, (t("Reason"), t("Share of cases"), t("Cases"), t("with its interval")), rows)


def share_bar(say: Wording, one: Rate, most: float) -> Markup:
    """A share as a bar with its interval."""
    x = Scale(0, most, 1, 118)
    parts = [bar(1, 5, x(one.share) - 1, 10, "f0"), whisker((x(one.low), 10), (x(one.high), 10), "k w")]
    return _small(f"{say.share(one)}", parts)


def drift_rows(say: Wording, shifts: Sequence[Shift]) -> Figure:
    """Each feature with its index beside the two conventional lines, how it reads, and what moved."""
    t = say.speech.t
    rows = tuple(
        (
            say.feature(one.feature),
            index_bar(say, one),
            Markup('<strong class="r-{}">{}</strong>').format(one.reading, say.reading(one.reading)),
            say.moved(one),
            say.plain(f"{one.n_before} · {one.n}"),
        )
        for one in shifts
    )
    return Figure(None, (t("What is watched"), t("Index"), t("Reading"), t("What moved most"), t("before · now")), rows)


def index_bar(say: Wording, one: Shift) -> Markup:
    """An index as a bar, with lines at 0.1 and 0.25; a hollow one where it tells nothing."""
    x, value = Scale(0, _LARGEST_INDEX, 1, 90), say.number(one.index, 2)
    parts = [line(x(limit), 1, x(limit), 19, "cap" if limit == ACT else "grid2") for limit in (LOOK, ACT)]
    if one.index == one.index:
        parts.insert(0, bar(1, 5, max(x(one.index) - 1, 1), 10, "b0" if one.reading == "few" else "f0"))
    return _small(value, [*parts, text(120, 14, value, "end")])


def drift_days(say: Wording, shifts: Sequence[Shift]) -> Figure:
    """The shares behind the indexes."""
    t = say.speech.t
    rows = tuple(
        (
            f"{say.feature(one.feature)}: {say.category(one.feature, code)}",
            *(
                f"{counts[code]} · {say.speech.percent(counts[code] / n) if n else '–'}"
                for counts, n in ((one.before, one.n_before), (one.now, one.n))
            ),
        )
        for one in shifts
        for code in one.now
    )
    return Figure(None, (t("Category"), t("before"), t("now")), rows)


def rise_rows(say: Wording, alarms: Sequence[Alarm]) -> Figure:
    """Each alarm with its last twelve days."""
    t = say.speech.t
    rows = tuple(
        (
            Markup("{} · {}").format(say.syndrome(one.syndrome), say.district(one.district)),
            columns(one.counts, t("Cases on twelve days: %(counts)s", counts=", ".join(map(str, one.counts)))),
            say.day(one.day) if one.days == 1 else t("%(day)s (one of %(n)s days)", day=say.day(one.day), n=one.days),
            say.plain(f"{one.rise.cases} · {say.number(one.rise.expected)}"),
            _alarming(say.number(one.rise.c2), is_alarm=one.rise.is_c2),
            _alarming(say.number(one.rise.c3), is_alarm=one.rise.is_c3),
        )
        for one in alarms
    )
    return Figure(None, (t("Syndrome · district"), t("Twelve days"), t("to the day"), t("Cases · expected"), "C2", "C3"), rows)


def rise_days(say: Wording, alarms: Sequence[Alarm]) -> Figure:
    """The daily counts behind the alarms, oldest first."""
    t: Callable[..., str] = say.speech.t
    rows = tuple(
        (Markup("{} · {} · {}").format(say.syndrome(one.syndrome), say.district(one.district), say.day(one.day)), *map(str, one.counts))
        for one in alarms
    )
    return Figure(None, (t("Series, to the day"), *(str(back) if back else "0" for back in range(-11, 1))), rows)


def _alarming(value: str, *, is_alarm: bool) -> str | Markup:
    return Markup("<strong>{} ▲</strong>").format(value) if is_alarm else value


def _small(title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="spark" role="img" viewBox="0 0 120 20" xmlns="http://www.w3.org/2000/svg">')
    return Markup("{}<title>{}</title>{}</svg>").format(head, title, Markup("").join(parts))
