"""The live table of a run: one line for each thing that is being fitted, with its losses, its rate and how long it still takes.

Drawn on a terminal, again and again in the same place. Where stderr is none, a plain line now and then; with `quiet`, nothing.
It knows no task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

LINE_SECONDS = 30.0  # between two plain lines
_REDRAWS_A_SECOND = 4
Clock = Callable[[], float]


@dataclass
class Row:
    """What is known of one thing that is fitted. `done` counts from 0 to `total`; None is not known (yet)."""

    name: str
    total: int
    unit: str
    done: int = 0
    loss: float | None = None
    held_out: float | None = None
    best: float | None = None
    patience_left: int | None = None
    note: str = "waits"
    since: float | None = None
    begun_at: int = 0

    def rate(self, now: float) -> float | None:
        """Steps a second since this process began with it; what an earlier one did does not count."""
        made = self.done - self.begun_at
        if self.since is None or made <= 0 or now <= self.since:
            return None
        return made / (now - self.since)

    def seconds_left(self, now: float) -> float | None:
        """At the rate so far; None until there is one."""
        rate = self.rate(now)
        return None if rate is None else (self.total - self.done) / rate


@dataclass
class LiveTable:
    """The rows and when they were last shown; made by `live_table`."""

    title: str
    console: Console
    quiet: bool
    clock: Clock
    rows: dict[str, Row] = field(default_factory=dict)
    _live: Live | None = None
    _last_line: float | None = None

    def add(self, name: str, total: int, unit: str = "steps") -> None:
        """A line for something that takes `total` steps (or epochs: `unit`)."""
        self.rows[name] = Row(name, total, unit)

    def begin(self, name: str, done: int = 0) -> None:
        """It begins now, with so many steps already made by an earlier run."""
        row = self.rows[name]
        row.since, row.begun_at, row.done, row.note = self.clock(), done, done, ""

    def update(
        self,
        name: str,
        done: int,
        *,
        loss: float | None = None,
        held_out: float | None = None,
        best: float | None = None,
        patience_left: int | None = None,
        note: str = "",
    ) -> None:
        """So far; what is not given keeps its last value."""
        row = self.rows[name]
        if row.since is None:
            self.begin(name, done)  # its first word: from here on it is timed
        row.done, row.note = done, note
        for what, value in (("loss", loss), ("held_out", held_out), ("best", best), ("patience_left", patience_left)):
            if value is not None:
                setattr(row, what, value)
        self._show(row)

    def finish(self, name: str, note: str = "done") -> None:
        """Nothing more is to come of it."""
        row = self.rows[name]
        row.note = note
        self._show(row, always=True)

    def _show(self, row: Row, *, always: bool = False) -> None:
        now = self.clock()
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(self.table())
        elif always or self._last_line is None or now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self.console.print(self.line(row), markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """All rows, as drawn on a terminal."""
        drawn = Table(title=self.title, title_justify="left")
        for heading in ("", "done", "loss", "held-out loss", "best", "patience left", "rate", "time left", ""):
            drawn.add_column(heading, justify="left" if not heading else "right")
        for row in self.rows.values():
            drawn.add_row(row.name, *(text for _, text in self._cells(row)))
        return drawn

    def line(self, row: Row) -> str:
        """One row as a plain line; what is not known is left out."""
        return f"{self.title}, {row.name}: " + ", ".join(f"{what} {text}".strip() for what, text in self._cells(row) if text)

    def _cells(self, row: Row) -> list[tuple[str, str]]:
        now = self.clock()
        rate, left = row.rate(now), row.seconds_left(now)
        return [
            ("", f"{row.done}/{row.total} {row.unit}"),
            ("loss", _loss(row.loss)),
            ("held-out loss", _loss(row.held_out)),
            ("best", _loss(row.best)),
            ("patience left", "" if row.patience_left is None else str(row.patience_left)),
            ("rate", "" if rate is None else f"{rate:.2f}/s" if rate >= 0.1 else f"{60 * rate:.2f}/min"),
            ("time left", "" if row.note or left is None else duration(left)),
            ("", row.note),
        ]


@contextmanager
def live_table(title: str, *, quiet: bool, console: Console | None = None, clock: Clock = time.monotonic) -> Iterator[LiveTable]:
    """A table on stderr while the body runs."""
    shown = console or Console(stderr=True)
    table = LiveTable(title, shown, quiet, clock)
    if quiet or not shown.is_terminal:
        yield table
        return
    with Live(console=shown, refresh_per_second=_REDRAWS_A_SECOND, get_renderable=table.table) as live:
        table._live = live
        yield table


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _loss(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"
