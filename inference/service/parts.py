"""The service's parts, put together: opened in order, kept going by small tasks, closed in order. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from inference.errors import PolicyError
from inference.policy import LEVELS, Policy, load_policy
from inference.priors import load_priors
from inference.service import audit, outbox, retention, store
from inference.service.anchors import anchor
from inference.service.callers import Who
from inference.service.database import Database, Unit, database_url, make_engine
from inference.service.live import LiveUpdates
from inference.service.migration import migrate
from inference.service.monitor_task import DriftMonitor
from inference.service.outbox import Outbox
from inference.service.photo_store import PhotoStore
from inference.service.referrals import Referrals
from inference.service.scoring import Scorer
from inference.service.settings import Settings
from inference.service.tables import facts, from_us, referrals
from inference.service.telemetry import Telemetry
from inference.service.vault import Vault
from inference.service.web.uploads import UploadStore

CLOCK = Who("nabz", "admin")  # who does what nobody asked for: leases that end, retention
_SWEEP_SECONDS, _ANCHOR_SECONDS, _RETENTION_SECONDS = 1.0, 60.0, 3600.0
_COUNT_SECONDS = 10.0
_HOUR_SECONDS = 3600.0
_POLICY_SECONDS = 60.0
_POLICY = "policy"
_COUNT_SHARE = 300  # counting a long queue must not take more than one part in so many of the database's time
_log = logging.getLogger("nabz.service")


@dataclass
class Parts:
    """What a running service consists of."""

    settings: Settings
    policy: Policy
    vault: Vault
    database: Database
    photos: PhotoStore
    scorer: Scorer
    telemetry: Telemetry
    referrals: Referrals
    live: LiveUpdates
    outbox: Outbox
    clock: Callable[[], datetime]
    drift: DriftMonitor
    _is_policy_applied: bool = False

    @property
    def uploads(self) -> UploadStore:
        """Photos that are on their way in pieces."""
        return UploadStore(self.settings.data_dir / "uploads", self.vault)

    async def start(self) -> None:
        """Begin to work: the database at once, the models as soon as they are verified."""
        self.database.start()
        self.live.start()
        self.outbox.start()
        await self.scorer.start()
        self._tasks = [
            asyncio.create_task(_every(seconds, work), name=f"nabz-{name}")
            for name, seconds, work in (
                ("policy", _POLICY_SECONDS, self._apply_policy),
                ("sweep", _SWEEP_SECONDS, self._sweep),
                ("count", _COUNT_SECONDS, self._count),
                ("anchor", _ANCHOR_SECONDS, self._anchor),
                ("retention", _RETENTION_SECONDS, self._retain),
                ("drift", _HOUR_SECONDS * self.settings.monitor_every_hours, self.drift.check),
            )
            if seconds > 0
        ]

    async def stop(self) -> None:
        """Stop taking work, finish what was begun, close the database."""
        self.live.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.outbox.stop()
        await self.scorer.stop()
        await asyncio.to_thread(self.database.stop)

    async def _apply_policy(self) -> None:
        if not self._is_policy_applied:
            await apply_policy(self.database, self.policy, self.clock)
            self._is_policy_applied = True

    async def _sweep(self) -> None:
        now = self.clock()

        def work(unit: Unit) -> None:
            store.sweep_caps(unit, now)
            store.sweep_leases(unit, now, CLOCK)

        await self.database.run(work)
        self.referrals.swept_at = now

    async def _count(self) -> None:
        """Bring the queue's figures up to date; on a long queue more rarely."""
        began = time.monotonic()
        counts, lag = await self.database.run(lambda unit: (count_queue(unit), outbox.lag(unit)))
        took = time.monotonic() - began
        now = self.clock()
        self.telemetry.set_queue(
            {(level, state): counts.depth.get((level, state), 0) for level in LEVELS for state in (store.WAITING, store.CLAIMED)},
            {level: (now - from_us(counts.oldest[level])).total_seconds() if level in counts.oldest else 0.0 for level in LEVELS},
            {level: counts.past_cap.get(level, 0) for level in LEVELS},
        )
        self.telemetry.set_outbox_lag(lag)
        await asyncio.sleep(took * _COUNT_SHARE)

    async def _anchor(self) -> None:
        key, file = self.database.audit_key, self.settings.data_dir / "audit.anchors"
        end = await self.database.run(lambda unit: audit.read_head(unit.connection, key))
        await asyncio.to_thread(anchor, end, key, file)

    async def _retain(self) -> None:
        await retention.sweep_photos(self.database, self.photos, self.clock())
        erased = await retention.run_retention(self.database, self.photos, CLOCK, self.settings.retention_days, self.clock())
        if erased:
            _log.info("erased %d completed referrals by policy", erased)
        await asyncio.to_thread(self.uploads.sweep, self.clock().timestamp())


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Open referrals by level and state, the oldest arrival by level, and those past their cap by level."""

    depth: dict[tuple[int, str], int]
    oldest: dict[int, int]
    past_cap: dict[int, int]


def count_queue(unit: Unit, clinic: str | None = None) -> QueueCounts:
    """Count the open referrals, or a clinic's: one walk over an index."""
    own = () if clinic is None else (referrals.c.clinic == clinic,)
    columns = referrals.c.level, referrals.c.on_time, func.count(), func.min(referrals.c.received_us)
    rows = unit.connection.execute(
        select(*columns).where(referrals.c.is_open == store.ONE, *own).group_by(referrals.c.level, referrals.c.on_time)
    )
    open_, oldest, past_cap = dict.fromkeys(LEVELS, 0), dict[int, int](), dict[int, int]()
    for level, on_time, count, first in rows:
        open_[level] += count
        oldest[level] = min(first, oldest.get(level, first))
        if not on_time:
            past_cap[level] = count
    by_level = select(referrals.c.level, func.count()).where(referrals.c.state == store.CLAIMED_TEXT, *own).group_by(referrals.c.level)
    claimed = {int(level): int(count) for level, count in unit.connection.execute(by_level)}
    depth = {(level, store.CLAIMED): claimed.get(level, 0) for level in LEVELS}
    return QueueCounts(depth | {(level, store.WAITING): open_[level] - claimed.get(level, 0) for level in LEVELS}, oldest, past_cap)


async def _every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (a database that is gone for a while must not end the task)
            _log.warning("%s waits: %s", getattr(work, "__name__", "a task").strip("_"), type(error).__name__)
        await asyncio.sleep(seconds)


def open_parts(settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Parts:
    """Open keys, database and photos, and put everything together. Nothing runs yet.

    Raises PolicyError for settings that cannot be used, StorageError when the database or the keys cannot be opened.
    """
    policy = load_policy(settings.policy)
    vault = open_vault(settings)
    audit_key = vault.mac_key("audit")
    telemetry = Telemetry()
    database = Database(
        settings.database_url, audit_key, queue_limit=settings.commit_queue_limit, count_audit_rows=telemetry.count_audit_rows
    )
    photos = PhotoStore(settings.photos, vault)
    scorer = Scorer(
        settings.models,
        policy,
        timeout_seconds=settings.model_timeout_seconds,
        queue_limit=settings.scoring_queue_limit,
        telemetry=telemetry,
        priors=load_priors(settings.priors) if settings.priors else None,
    )
    live = LiveUpdates(database)
    cases = Referrals(database, vault, scorer, policy, photos, telemetry, photos_per_case=settings.photos_per_case, clock=clock)
    hooks = Outbox(database, vault, timeout_seconds=settings.webhook_timeout_seconds)
    drift = DriftMonitor(settings, database, vault, scorer, telemetry, CLOCK, clock)
    return Parts(settings, policy, vault, database, photos, scorer, telemetry, cases, live, hooks, clock, drift)


def open_vault(settings: Settings) -> Vault:
    """The keys, after the database was brought to this version. New keys are made for an empty database only."""
    prepare_folders(settings)
    engine = make_engine(settings.database_url)
    try:
        migrate(engine)
        with engine.begin() as connection:
            vault = Vault.open(settings.keys, create=audit.is_unused(connection))
            audit.check_key(connection, vault.mac_key("audit"))
    finally:
        engine.dispose()
    return vault


def prepare_folders(settings: Settings) -> None:
    """Make the folders that the settings name. Raises PolicyError when that cannot be done."""
    folders = [settings.data_dir, settings.keys.parent]
    url = database_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        folders.append(Path(url.database).parent)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise PolicyError(f"the folder {folder} cannot be made: {error.strerror}") from error


async def apply_policy(database: Database, policy: Policy, clock: Callable[[], datetime]) -> None:
    """Compute due times again when the policy is not the one that they were computed with; cases come in meanwhile."""
    if await database.run(_policy_of) == policy.sha256:
        return
    last: str | None = ""
    while last is not None:
        last = await database.run(lambda unit, last=last: store.requeue(unit, policy, clock(), last))  # type: ignore[misc]
    await database.run(lambda unit: _note_policy(unit, policy, clock()))


def _policy_of(unit: Unit) -> str | None:
    """The policy that the stored order was computed with."""
    found: str | None = unit.connection.execute(select(facts.c.value).where(facts.c.name == _POLICY)).scalar()
    return found


def _note_policy(unit: Unit, policy: Policy, now: datetime) -> None:
    # Another process may start at the same time: its row is found when this is tried again.
    if not unit.write(update(facts).where(facts.c.name == _POLICY).values(value=policy.sha256)).rowcount:
        unit.add(facts, name=_POLICY, value=policy.sha256)
    store.record(unit, CLOCK, "policy_applied", None, now, policy_sha256=policy.sha256)
