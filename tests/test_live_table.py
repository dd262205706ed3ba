"""Tests of the live table: what a row knows, how a terminal and a pipe are shown it, and how long is left."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from training.live_table import Row, duration, live_table


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def printed(console: Console) -> str:
    """What was written to the console's file."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_rate_counts_from_where_this_process_began() -> None:
    """Of 100 steps 60 were made before; 10 more in 5 seconds are 2 a second, so the last 30 take 15 seconds."""
    row = Row("network", 100, "steps", done=70, since=0.0, begun_at=60)
    assert row.rate(5.0) == 2.0
    assert row.seconds_left(5.0) == 15.0
    assert Row("network", 100, "steps").seconds_left(5.0) is None


def test_a_pipe_gets_a_line_now_and_then() -> None:
    """The first, one after thirty seconds, and the end; not every step."""
    console, clock = Console(file=StringIO(), width=200), Clock()
    with live_table("symptoms", quiet=False, console=console, clock=clock) as table:
        table.add("network", 100)
        table.begin("network")
        for step in range(1, 101):
            clock.now = step / 2
            table.update("network", step, loss=1.0, held_out=0.5, best=0.4, patience_left=3)
        table.finish("network")
    lines = printed(console).splitlines()
    assert lines == [
        "symptoms, network: 1/100 steps, loss 1.0000, held-out loss 0.5000, best 0.4000, patience left 3, rate 2.00/s, time left 50 s",
        "symptoms, network: 61/100 steps, loss 1.0000, held-out loss 0.5000, best 0.4000, patience left 3, rate 2.00/s, time left 20 s",
        "symptoms, network: 100/100 steps, loss 1.0000, held-out loss 0.5000, best 0.4000, patience left 3, rate 2.00/s, done",
    ]


def test_quiet_is_quiet() -> None:
    """Neither on a terminal nor on a pipe is anything written."""
    for is_terminal in (True, False):
        console = Console(file=StringIO(), width=200, force_terminal=is_terminal)
        with live_table("symptoms", quiet=True, console=console) as table:
            table.add("network", 1)
            table.update("network", 1, loss=1.0)
            table.finish("network")
        assert printed(console) == ""


def test_a_terminal_gets_one_table_of_all_rows() -> None:
    """What is fitted and what waits stand in it, with their headings."""
    console, clock = Console(file=StringIO(), width=160, force_terminal=True, color_system=None), Clock()
    with live_table("lesions", quiet=False, console=console, clock=clock) as table:
        table.add("fold 1", 4, "epochs")
        table.add("fold 2", 4, "epochs")
        table.begin("fold 1")
        clock.now = 20.0
        table.update("fold 1", 1, loss=1.25)
    text = printed(console)
    for word in ("held-out loss", "patience left", "time left", "fold 1", "1/4 epochs", "1.2500", "3.00/min", "60 s", "fold 2", "waits"):
        assert word in text


def test_durations_in_words() -> None:
    """Seconds up to a minute and a half, minutes up to one hour and a half, then hours."""
    assert [duration(seconds) for seconds in (4.4, 89, 91, 5_100, 5_400, 11_100)] == [
        "4 s",
        "89 s",
        "2 min",
        "85 min",
        "1 h 30 min",
        "3 h 05 min",
    ]
