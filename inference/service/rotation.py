"""Key rotation: a new key, everything sealed again with it; old keys are forgotten once nothing needs them. May be broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Engine, Row, Select, Table, and_, select, tuple_, update

from inference.errors import ConflictError
from inference.service.database import Unit, make_engine, read, transact
from inference.service.parts import CLOCK
from inference.service.photo_store import PhotoStore
from inference.service.settings import Settings
from inference.service.store import record
from inference.service.tables import assessments, events, feedback, fhir_resources, referrals, webhooks
from inference.service.vault import Vault

_AT_ONCE = 500
# Old keys are kept until whatever a service sealed before it noticed the new one is long stored.
_SETTLED = timedelta(minutes=5)
# Each sealed column, with the context that its values were sealed in, by the row.
SEALED: tuple[tuple[Table, str, Callable[[Any], str]], ...] = (
    (referrals, "summary", lambda row: f"referrals.summary:{row.id}"),
    (referrals, "patient", lambda row: f"referrals.patient:{row.id}"),
    (assessments, "content", lambda row: f"assessments:{row.referral_id}:{row.version}"),
    (events, "detail", lambda row: f"events:{row.referral_id}"),
    (webhooks, "secret", lambda row: f"webhooks:{row.id}"),
    (fhir_resources, "content", lambda row: f"fhir:{row.type}:{row.id}"),
    (feedback, "content", lambda row: f"feedback:{row.service}"),
)


def forget_keys(settings: Settings) -> int:
    """Drop the keys that nothing is sealed with any more. Returns how many.

    What a running service sealed with an older key, before it noticed the new one, is sealed again first. Raises ConflictError
    while a service may not have noticed yet. The service's writes go on meanwhile.
    """
    vault = Vault.open(settings.keys)
    old = [key_id for key_id in vault.key_ids if key_id != vault.primary]
    if old and vault.primary_age < _SETTLED:
        raise ConflictError(
            f"the newest key was made less than {_SETTLED // timedelta(minutes=1)} minutes ago: what was sealed with an older one "
            "may still be on its way; run `nabz keys forget` later"
        )
    with _engine(settings) as engine:
        for sealed in SEALED:
            if _is_needed(engine, vault, *sealed[:2]):
                _reseal_all(engine, vault, *sealed, lambda _: None)
        PhotoStore(settings.photos, vault).reseal_all()
        needed = [f"{table.name}.{column}" for table, column, _ in SEALED if _is_needed(engine, vault, table, column)]
    if needed:
        raise ConflictError(f"a service still seals {needed[0]} with an older key: restart it, then run `nabz keys forget` again")
    for key_id in old:
        vault.forget(key_id)
    return len(old)


def rotate_keys(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> int:
    """Seal everything with a new key. Returns how many values were sealed again.

    Each batch is a transaction of its own, and both keys open until the end: a rotation that was broken off loses nothing.
    """
    vault = Vault.open(settings.keys)
    vault.rotate()
    with _engine(settings) as engine:
        total = sum(_reseal_all(engine, vault, *sealed, progress) for sealed in SEALED)
        resealed = PhotoStore(settings.photos, vault).reseal_all()
        progress(f"photos: {resealed.count} sealed again, {len(resealed.unreadable)} cannot be read")
        now = datetime.now(UTC)
        transact(engine, lambda unit: record(unit, CLOCK, "keys_rotated", None, now, values=total), vault.mac_key("audit"))
    return total


def _reseal_all(
    engine: Engine, vault: Vault, table: Table, column: str, context: Callable[[Any], str], progress: Callable[[str], None]
) -> int:
    """Seal a whole column again, batch by batch. Returns how many values were changed."""
    count, last = 0, None
    while True:
        last, changed = transact(
            engine,
            lambda unit, last=last: _reseal(unit, vault, table, table.c[column], context, last),  # type: ignore[misc]
            vault.mac_key("audit"),
        )
        count += changed
        if last is None:
            break
    progress(f"{table.name}.{column}: {count} sealed again")
    return count


def _is_needed(engine: Engine, vault: Vault, table: Table, column: str) -> bool:
    """Whether an older key sealed something in a column. Reads it page by page, so that no writer waits for the walk."""
    keys, last = list(table.primary_key.columns), None
    while True:
        query = select(*keys, table.c[column].label("sealed")).where(table.c[column].is_not(None)).order_by(*keys).limit(_AT_ONCE)
        page = read(engine, _rows_of(query if last is None else query.where(tuple_(*keys) > tuple_(*last))))
        if any(not vault.is_current(row.sealed) for row in page):
            return True
        if len(page) < _AT_ONCE:
            return False
        last = page[-1][:-1]


def _rows_of(query: Select[Any]) -> Callable[[Connection], Sequence[Row[Any]]]:
    return lambda connection: connection.execute(query).fetchall()


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def _reseal(
    unit: Unit, vault: Vault, table: Table, column: Column[Any], context: Callable[[Any], str], last: tuple[Any, ...] | None
) -> tuple[tuple[Any, ...] | None, int]:
    """Seal the next rows again. Returns the last row's key (None at the end) and how many were changed."""
    keys = list(table.primary_key.columns)
    query = select(table).where(column.is_not(None)).order_by(*keys).limit(_AT_ONCE).with_for_update()
    rows = unit.connection.execute(query if last is None else query.where(tuple_(*keys) > tuple_(*last))).fetchall()
    changed = 0
    for row in rows:
        sealed = row._mapping[column.name]
        if not vault.is_current(sealed):
            again = vault.seal(vault.unseal(sealed, context(row)), context(row))
            unit.write(update(table).where(and_(*(key == row._mapping[key.name] for key in keys))).values({column.name: again}))
            changed += 1
    return (tuple(rows[-1]._mapping[key.name] for key in keys) if len(rows) == _AT_ONCE else None), changed
