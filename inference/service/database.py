"""One thread that does all the work on the database, in groups: what waits while a transaction is being synced shares the next one.

A caller is answered after the commit. If the group fails, nobody in it is told that it was stored. SQLite gets one writer,
a rollback journal and full sync; PostgreSQL may have several processes like this one. Knows no referral.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Engine, Executable, Table, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from inference.errors import OverloadedError, PolicyError, ServiceError, StorageError
from inference.service.audit import AuditEntry, append, lock_head
from inference.service.tables import events

_WAIT_FOR_LOCK_SECONDS = 5
LATE_SECONDS = 0.5  # an audit row of a read waits no longer
_ATTEMPTS = 3  # of a transaction that PostgreSQL broke off for another's sake
_BROKEN_OFF = ("40001", "40P01", "23505")  # serialization failure, deadlock, a key that another process stored first
# A server whose default is not to sync must not make an acknowledgement false. A plan for any page size would sort the whole queue.
_POSTGRES_OPTIONS = f"-c synchronous_commit=on -c plan_cache_mode=force_custom_plan -c statement_timeout=30000 -c lock_timeout={_WAIT_FOR_LOCK_SECONDS * 1000}"
_NOTICE_A_DEAD_HOST = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 8000}
_ONLY_READS = "nabz_only_reads"
_log = logging.getLogger("nabz.database")

Result = TypeVar("Result")


class Unit:
    """What one job does within a transaction. Rows that nobody reads back before the commit are collected and written together."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.rows: list[tuple[Table, dict[str, Any]]] = []
        self.audits: list[AuditEntry] = []
        self.late_audits: list[AuditEntry] = []
        self.has_written = False

    def write(self, statement: Executable, values: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        """Change something at once. A job that fails after this is undone by doing the others of its group again without it."""
        self.has_written = True
        return cast("CursorResult[Any]", self.connection.execute(statement, values))

    def add(self, table: Table, **row: Any) -> None:
        """Insert a row when the group is complete."""
        self.rows.append((table, row))

    def audit(self, entry: AuditEntry) -> None:
        """Append to the audit trail when the group is complete."""
        self.audits.append(entry)

    def audit_soon(self, entry: AuditEntry) -> None:
        """Append to the audit trail with the next change, or within half a second: so that a read needs no sync of the disk.

        While that fails, reads fail too.
        """
        self.late_audits.append(entry)


@dataclass
class _Job(Generic[Result]):
    work: Callable[[Unit], Result]
    done: Callable[[Result | None, BaseException | None], object]
    cancelled: threading.Event = field(default_factory=threading.Event)
    outcome: tuple[Any, BaseException | None] = (None, None)


def make_engine(url: str) -> Engine:
    """An engine for `url`, set so that what is committed survives a power cut. Raises PolicyError for a URL that cannot be used."""
    parsed = database_url(url)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=2,
            connect_args={"connect_timeout": 3, "options": _POSTGRES_OPTIONS, **_NOTICE_A_DEAD_HOST},
        )
    engine = create_engine(parsed, pool_size=2, connect_args={"timeout": _WAIT_FOR_LOCK_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def database_url(url: str) -> URL:
    """The URL with its driver. Raises PolicyError when it is neither SQLite's nor PostgreSQL's."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise PolicyError("NABZ_DATABASE_URL cannot be read: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME") from error
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise PolicyError("NABZ_DATABASE_URL names neither a SQLite file nor PostgreSQL: write sqlite:///FILE or postgresql://…")
    return parsed


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where the driver guesses
    for pragma in ("journal_mode = DELETE", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_ONLY_READS) else "BEGIN IMMEDIATE")


def read(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Read in a short transaction that keeps no writer waiting, now, in this thread. Raises StorageError as `transact` does."""
    return _transacted(engine.execution_options(**{_ONLY_READS: True}), work)


def transact(engine: Engine, work: Callable[[Unit], Result], audit_key: bytes) -> Result:
    """One job in a transaction of its own, now, in this thread. Raises StorageError when the database cannot do it."""

    def body(connection: Connection) -> Result:
        unit = Unit(connection)
        result = work(unit)
        _flush(connection, [unit], audit_key, unit.late_audits)
        return result

    return _transacted(engine, body)


def _transacted(engine: Engine, body: Callable[[Connection], Result]) -> Result:
    for attempt in range(_ATTEMPTS):
        try:
            with engine.begin() as connection:
                return body(connection)
        except DBAPIError as error:
            if attempt == _ATTEMPTS - 1 or getattr(error.orig, "sqlstate", None) not in _BROKEN_OFF:
                raise _storage_error(error) from error
        except SQLAlchemyError as error:
            raise _storage_error(error) from error
    raise AssertionError("the last attempt returns or raises")


def _storage_error(error: SQLAlchemyError) -> StorageError:
    # The driver's message may quote a row; its class is enough to find the cause in the database's own log.
    origin = type(getattr(error, "orig", None) or error).__name__
    code = getattr(getattr(error, "orig", None), "sqlite_errorname", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    if getattr(error, "connection_invalidated", False):
        return StorageError(f"the connection to the database was lost ({origin}): send it again, with the same Idempotency-Key if you can")
    return StorageError(f"the database could not do it ({origin}{f', {code}' if code else ''}): nothing was stored; try again")


def _flush(connection: Connection, units: Sequence[Unit], audit_key: bytes, late: Sequence[AuditEntry]) -> None:
    """Write what the units collected, table by table, and the audit entries that are `late`.

    The audit's head is locked before, so events are numbered as they commit.
    """
    alike: dict[tuple[Table, tuple[str, ...]], list[tuple[Any, ...]]] = {}
    for unit in units:
        for table, row in unit.rows:
            alike.setdefault((table, tuple(row)), []).append(tuple(row.values()))
    audits = [*late, *(entry for unit in units for entry in unit.audits)]
    head = lock_head(connection, audit_key) if audits or any(table is events for table, _ in alike) else None
    for (table, names), rows in alike.items():
        connection.exec_driver_sql(insert_sql(connection.dialect.name, table.name, names), rows)
    if head:
        append(connection, audits, audit_key, head)


@lru_cache(maxsize=64)
def insert_sql(dialect: str, table: str, names: tuple[str, ...]) -> str:
    """An insert for the driver itself: SQLAlchemy's own work on each row would cost as much as storing it."""
    marks = ", ".join("?" if dialect == "sqlite" else "%s" for _ in names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 (the names stand in tables.py)


class Database:
    """The thread, and the queue before it."""

    def __init__(
        self, url: str, audit_key: bytes, *, queue_limit: int = 1024, answer_seconds: float = 8.0, largest_group: int = 64,
        count_audit_rows: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`queue_limit`: most jobs that wait; `answer_seconds`: how long a caller waits before it hears that storing failed;
        `largest_group`: most jobs that share a transaction; `count_audit_rows` is told how many a commit added."""
        self.engine = make_engine(url)
        self.audit_key = audit_key
        self.group_sizes: list[int] = []
        self._answer_seconds = answer_seconds
        self._largest_group = largest_group
        self._count_audit_rows = count_audit_rows
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(queue_limit)
        self._listeners: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._work, name="nabz-database", daemon=True)
        self._started = self._is_ending = self._has_events = False
        self._late: list[AuditEntry] = []
        self._late_since = 0.0

    def start(self) -> None:
        """Begin to take jobs."""
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        """Do what waits, then end."""
        if self._started:
            self._jobs.put(None)
            self._thread.join(timeout=self._answer_seconds)
        self.engine.dispose()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return self._jobs.qsize()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener`, in the database's thread, after every commit that added events."""
        self._listeners.append(listener)

    async def run(self, work: Callable[[Unit], Result]) -> Result:
        """Do `work` in a transaction and return its result after the commit.

        `work` may run more than once and must not keep anything but what it returns. Raises what it raises (ServiceError
        undoes only this job), StorageError when nothing was stored, OverloadedError when too many jobs wait.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def done(result: Result | None, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)  # type: ignore[arg-type]
                else:
                    future.set_exception(error)

        job = _Job(work, lambda result, error: loop.call_soon_threadsafe(done, result, error))
        self._put(job)
        try:
            async with asyncio.timeout(self._answer_seconds):  # wait_for would lose a cancellation that comes with the answer
                return await future
        except TimeoutError as error:
            job.cancelled.set()
            raise StorageError("the database did not answer in time: send it again, with the same Idempotency-Key") from error
        except asyncio.CancelledError:
            job.cancelled.set()
            raise

    def run_now(self, work: Callable[[Unit], Result]) -> Result:
        """The same for a caller without an event loop."""
        return transact(self.engine, work, self.audit_key)

    def _put(self, job: _Job[Any]) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full as error:
            raise OverloadedError("too many changes wait to be stored: come back in a moment", 2) from error

    def _work(self) -> None:
        while not self._is_ending:
            group = self._next_group()
            if group:
                self._do(group)
            elif self._late:
                self._write_late()
        if self._late:
            self._write_late()

    def _next_group(self) -> list[_Job[Any]]:
        """The first job that comes and all that wait behind it, up to where the end was asked for. None comes: late audit rows wait."""
        group: list[_Job[Any]] = []
        try:
            job = self._jobs.get(timeout=LATE_SECONDS if self._late else None)
        except queue.Empty:
            return group
        while job is not None:
            group.append(job)
            if len(group) >= self._largest_group:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        self._is_ending = True
        return group

    def _do(self, group: list[_Job[Any]]) -> None:
        live = [job for job in group if not job.cancelled.is_set()]
        try:
            if len(live) > 1 and not self._together(live):
                for job in live:
                    if not job.cancelled.is_set():  # its caller was told by now that nothing was stored
                        self._alone(job)
            elif len(live) == 1:
                self._alone(live[0])
        except BaseException as error:  # noqa: BLE001 (the thread must outlive any job)
            _log.error("a group of %d jobs failed: %s", len(live), type(error).__name__)
            for job in live:
                job.outcome = (None, StorageError("the database could not do it: nothing was stored; try again"))
        self.group_sizes.append(len(live))
        del self.group_sizes[:-1000]
        for job in live:
            self._answer(job)
        if self._has_events:
            self._has_events = False
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except RuntimeError:
                _log.info("a listener was gone")  # its event loop has been closed

    @staticmethod
    def _answer(job: _Job[Any]) -> None:
        try:
            job.done(*job.outcome)
        except RuntimeError:
            _log.info("a caller was gone before its answer")  # its event loop has been closed

    def _together(self, group: list[_Job[Any]]) -> bool:
        """All jobs in one transaction. False when that failed, and each must be tried alone."""
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            with self.engine.begin() as connection:
                units = []
                for job in group:
                    unit = Unit(connection)
                    try:
                        outcomes.append((job.work(unit), None))
                        units.append(unit)
                    except ServiceError as error:
                        if unit.has_written:
                            raise
                        outcomes.append((None, error))
                late = self._late_due(units)
                _flush(connection, units, self.audit_key, late)
        except Exception as error:  # noqa: BLE001 (each job is tried again alone, and that says what is wrong with which)
            _log.warning("a group of %d jobs is tried one by one: %s", len(group), type(error).__name__)
            return False
        self._keep(units, late)
        for job, outcome in zip(group, outcomes, strict=True):
            job.outcome = outcome
        return True

    def _alone(self, job: _Job[Any]) -> None:
        def body(connection: Connection) -> tuple[Any, Unit, list[AuditEntry]]:
            unit = Unit(connection)
            result = job.work(unit)
            late = self._late_due([unit])
            _flush(connection, [unit], self.audit_key, late)
            return result, unit, late

        try:
            result, unit, late = _transacted(self.engine, body)
        except Exception as error:  # noqa: BLE001 (whatever it was, the caller is told)
            job.outcome = (None, error)
        else:
            self._keep([unit], late)
            job.outcome = (result, None)

    def _late_due(self, units: Sequence[Unit]) -> list[AuditEntry]:
        """The late audit entries, once something else is written anyway or they have waited long enough."""
        writes = any(unit.has_written or unit.rows or unit.audits for unit in units)
        return list(self._late) if writes or time.monotonic() - self._late_since >= LATE_SECONDS else []

    def _keep(self, units: Sequence[Unit], written: Sequence[AuditEntry]) -> None:
        """After a commit: forget the late entries that were written, keep the new ones, note what else was added."""
        self._has_events |= any(table is events for unit in units for table, _ in unit.rows)
        self._count_audit_rows(len(written) + sum(len(unit.audits) for unit in units))
        del self._late[: len(written)]
        if not self._late:
            self._late_since = time.monotonic()
        self._late += [entry for unit in units for entry in unit.late_audits]

    def _write_late(self) -> None:
        try:
            _transacted(self.engine, lambda connection: _flush(connection, [], self.audit_key, self._late))
        except ServiceError as error:
            _log.warning("%d audit rows wait: %s", len(self._late), type(error).__name__)
        else:
            self._count_audit_rows(len(self._late))
            self._late.clear()
