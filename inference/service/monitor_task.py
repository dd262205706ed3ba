"""The service's own look for drift: once in so many hours, over what was stored in the last days, in a thread beside the requests.

Sets the gauges of /metrics and keeps the last report. It reads pages of referrals and no model runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from inference.errors import NabzError
from inference.models import default_models_folder
from inference.monitor import WATCHED_WINDOWS, monitor, windows_of
from inference.monitor_metrics import figures_of
from inference.monitor_reference import read_reference
from inference.monitor_report import Report
from inference.monitor_scoring import live_reference, names_of, scripts_of
from inference.service.callers import Who
from inference.service.database import Database
from inference.service.monitor_referrals import note_monitored, read_stored
from inference.service.scoring import Scorer
from inference.service.settings import Settings
from inference.service.telemetry import Telemetry
from inference.service.vault import Vault

_LOOK_SECONDS = 1.0
_log = logging.getLogger("nabz.monitor")


class DriftMonitor:
    """Looks for drift when it is told to. `report` is the last one, None until there is one."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vault: Vault,
        scorer: Scorer,
        telemetry: Telemetry,
        who: Who,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings, self._database, self._vault = settings, database, vault
        self._scorer, self._telemetry, self._who, self._clock = scorer, telemetry, who, clock
        self.report: Report | None = None

    async def check(self) -> None:
        """Look once, as soon as the models are loaded. Whatever is wrong is logged, and the gauges stay as they were."""
        while not self._scorer.ready:
            await asyncio.sleep(_LOOK_SECONDS)
        now = self._clock()
        try:
            report = await asyncio.to_thread(self._look, now)
        except NabzError as error:
            # Bundles without a reference are no fault of anybody's here; a reference that was named and cannot be used is.
            _log.log(logging.WARNING if self._settings.monitor_reference else logging.INFO, "drift was not looked for: %s", error)
            return
        if report is None:
            return
        days = self._settings.monitor_days
        cases = sum(window.n for window in report.windows)
        await self._database.run(lambda unit: note_monitored(unit, self._who, cases, days * (WATCHED_WINDOWS + 1), now))
        self.report = report
        self._telemetry.set_drift(figures_of(report), now.timestamp())
        for alarm in report.last.alarms:
            _log.warning("drift: %s: %s", alarm.title, alarm.advice)

    def _look(self, now: datetime) -> Report | None:
        settings, models = self._settings, self._scorer.models
        file = settings.monitor_reference
        reference = read_reference(file) if file else live_reference(settings.models or default_models_folder())
        days = settings.monitor_days
        stored = read_stored(self._database.engine, self._vault, scripts_of(models), now, days * (WATCHED_WINDOWS + 1))
        windows = windows_of(stored.sample, days, last_end=now, most=WATCHED_WINDOWS + 1)
        if not windows:
            return None
        return monitor(reference, windows, names=names_of(models), outcomes=stored.outcomes)
