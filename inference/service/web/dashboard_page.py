"""The dashboard: how the service does, for who answers for it. Figures only; no patient's words and no referral's number.

Figures are computed in a thread of their own, once a minute at most for each choice of days and district.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from inference.errors import MalformedError
from inference.policy import Policy
from inference.service import store
from inference.service.access import require
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.database import Database
from inference.service.parts import Parts
from inference.service.vault import Vault
from inference.service.web import dashboard_plots as plots
from inference.service.web.dashboard_drift import ACT, LOOK, Shift, shifts
from inference.service.web.dashboard_figures import (
    OverrideWeek,
    QueueFigure,
    ReviewFigure,
    WaitFigure,
    override_weeks,
    queue_figure,
    review_figure,
    wait_figures,
)
from inference.service.web.dashboard_history import MOST_CASES, RISE_DAYS, History, Window
from inference.service.web.dashboard_pieces import Pieces
from inference.service.web.dashboard_reading import MOST_LATE, Reader
from inference.service.web.dashboard_rises import RiseFigure, rise_figure
from inference.service.web.dashboard_words import Wording
from inference.service.web.ears import HISTORY_DAYS, LEAST_CASES
from inference.service.web.language import N_
from inference.service.web.rates import Rate, pooled
from inference.service.web.render import page_of, render

DAYS: Final = (7, 14, 30, 90)
SHOWN_ALARMS: Final = 12
_USUAL_DAYS: Final = 14
_KEPT: Final = timedelta(seconds=60)
_MOST_KEPT: Final = 32  # choices of days and district
_NAME_LENGTH: Final = 80
_BAD_DAYS: Final = N_("The dashboard shows 7, 14, 30 or 90 days: choose one of them.")


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the page shows, as of one moment."""

    window: Window
    waits: list[WaitFigure]
    queue: QueueFigure
    weeks: list[OverrideWeek]
    reviews: ReviewFigure
    shifts: list[Shift]
    rises: RiseFigure
    cut: tuple[str, ...]  # what only the newest of are counted: cases, before, claims, decisions, late
    is_empty: bool  # the service has had no case yet
    has_cases: bool  # there are any in the window, or open ones

    @property
    def is_cut(self) -> bool:
        """Older cases, claims or decisions were left out."""
        return any(name != "late" for name in self.cut)

    @property
    def in_time(self) -> Rate:
        """Claimed within the cap, all levels together."""
        return pooled(one.in_time for one in self.waits)

    @property
    def late(self) -> int:
        """Cases past their cap that nobody ever claimed."""
        return sum(one.late for one in self.waits)

    @property
    def overridden(self) -> Rate:
        """Levels changed, either way, in the whole window."""
        more, less = (pooled(getattr(week, name) for week in self.weeks) for name in ("more_urgent", "less_urgent"))
        return pooled([Rate(more.k + less.k, more.n, 0, 0, 0)])

    @property
    def moved(self) -> int:
        """Drift signals that call for a look."""
        return sum(one.reading in ("look", "act") for one in self.shifts)


def figures_of(history: History, policy: Policy, window: Window) -> Figures:
    """The figures of what was read."""
    queue = queue_figure(history, window)
    cuts = {
        "cases": history.is_cut,
        "before": history.is_cut_before,
        "claims": history.is_cut_claims,
        "decisions": history.is_cut_decisions,
        "late": history.is_cut_late,
    }
    return Figures(
        window,
        wait_figures(history, policy),
        queue,
        override_weeks(history, window),
        review_figure(history),
        shifts([case for case in history.cases_before if case.day >= window.first_before], history.cases),
        rise_figure(history, window),
        tuple(name for name, is_cut in cuts.items() if is_cut),
        is_empty=history.first_day_ever is None,
        has_cases=bool(history.cases or any(history.claims.values()) or history.decisions or queue.open_now),
    )


class Dashboards:
    """The figures by days and district, kept for a minute."""

    def __init__(self, database: Database, vault: Vault, policy: Policy) -> None:
        self._database, self._vault, self._policy = database, vault, policy
        self._kept: dict[tuple[int, str | None], Figures] = {}
        self._one_at_a_time = asyncio.Lock()

    async def read(self, days: int, district: str | None, now: datetime) -> Figures:
        """The figures as of now, or of a minute ago at most. Raises StorageError when the database cannot be read."""
        async with self._one_at_a_time:
            kept = self._kept.pop((days, district), None)
            if kept is None or not timedelta(0) <= now - kept.window.now < _KEPT:
                window = Window(now, days, district)
                history = await asyncio.to_thread(Reader(Pieces(self._database.engine), self._vault, window).history)
                kept = await asyncio.to_thread(figures_of, history, self._policy, window)
            self._kept[days, district] = kept
            if len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return kept


async def show_dashboard(request: Request) -> Response:
    """The page. Reading it is in the audit trail."""
    page, who = page_of(request), request.scope[WHO]
    require(who, "dashboard.read")
    days, district = _asked(request)
    figures = await _dashboards(request).read(days, district, page.parts.clock())
    await _record(page.parts, who, figures)
    say = Wording(page.speech)
    return render(
        page,
        "dashboard.html",
        figures=figures,
        wording=say,
        plots=plots,
        days=days,
        district=district or "",
        choices=DAYS,
        shown_alarms=figures.rises.alarms[:SHOWN_ALARMS],
        rise_days=RISE_DAYS,
        history_days=HISTORY_DAYS,
        least_cases=LEAST_CASES,
        most_cases=MOST_CASES,
        most_late=MOST_LATE,
        limits=(LOOK, ACT),
    )


def _asked(request: Request) -> tuple[int, str | None]:
    """Days and district of the address. Raises MalformedError for days that are not offered."""
    given = request.query_params.get("days") or str(_USUAL_DAYS)
    if given not in {str(days) for days in DAYS}:
        raise MalformedError(_BAD_DAYS)
    return int(given), " ".join(request.query_params.get("district", "")[:_NAME_LENGTH].split()).casefold() or None


def _dashboards(request: Request) -> Dashboards:
    """The app's dashboards."""
    state = request.app.state
    if not hasattr(state, "dashboards"):
        state.dashboards = Dashboards(state.parts.database, state.parts.vault, state.parts.policy)
    dashboards: Dashboards = state.dashboards
    return dashboards


async def _record(parts: Parts, who: Who, figures: Figures) -> None:
    """Note who looked at what; a district only where there is one of that name, because anything may be typed there."""
    window = figures.window
    detail = {"days": window.days, "district": window.district if figures.has_cases else "?"} if window.district else {"days": window.days}
    now = parts.clock()
    await parts.database.run(lambda unit: store.record(unit, who, "dashboard", None, now, **detail))
