"""Webhooks: every event reaches every receiver at least once and in order, signed as the Standard Webhooks specification says.

A receiver that does not answer is tried again, ever more rarely; nothing is skipped. A body names referrals, states and levels,
nothing of the patient's. https://github.com/standard-webhooks/standard-webhooks is the source of the signature's form.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
from sqlalchemy import Row, func, select, update

from inference.errors import NotFoundError, ServiceError, StorageError, UnprocessableError
from inference.service import store
from inference.service.access import require
from inference.service.callers import Who
from inference.service.database import Database, Unit
from inference.service.intake import new_id
from inference.service.live import described
from inference.service.tables import events, from_us, webhooks
from inference.service.vault import Vault

if TYPE_CHECKING:
    import httpx

_IDLE_SECONDS = 1.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 2, 3600
_BATCH = 50
_HOLD_SECONDS = 10  # the longest that one round keeps a receiver to itself
_URL_LENGTH = 2000
_ANSWER_BYTES = 16 * 1024  # of an answer's body, which nobody reads; after more the connection is closed
_ACCEPTED = range(200, 300)
_log = logging.getLogger("nabz.outbox")


class Outbox:
    """The receivers, and the task that delivers to them."""

    def __init__(self, database: Database, vault: Vault, *, timeout_seconds: float = 5.0) -> None:
        self._database, self._vault = database, vault
        self._timeout = timeout_seconds
        self._task: asyncio.Task[None] | None = None

    async def register(self, who: Who, url: str, now_us: int) -> dict[str, Any]:
        """Send events from now on to `url`. The secret is returned this once. Raises UnprocessableError for a URL that is refused."""
        require(who, "webhooks.manage")
        _check_url(url)
        id_, secret = new_id().replace("r-", "w-"), os.urandom(32)

        def work(unit: Unit) -> None:
            newest = unit.connection.execute(select(func.coalesce(func.max(events.c.sequence), 0))).scalar_one()
            unit.add(
                webhooks, id=id_, url=url, secret=self._vault.seal(secret, f"webhooks:{id_}"), is_active=True,
                delivered=newest, failures=0, next_try_us=0,
            )  # fmt: skip
            store.record(unit, who, "webhook_added", None, from_us(now_us), webhook=id_)

        await self._database.run(work)
        return {"id": id_, "url": url, "secret": f"whsec_{base64.b64encode(secret).decode()}"}

    async def listed(self, who: Who) -> list[dict[str, Any]]:
        """The receivers, with how far each one is."""
        require(who, "webhooks.manage")
        rows = await self._database.run(lambda unit: unit.connection.execute(select(webhooks).order_by(webhooks.c.id)).fetchall())
        return [
            {"id": row.id, "url": row.url, "is_active": row.is_active, "delivered": row.delivered, "failures": row.failures} for row in rows
        ]

    async def remove(self, who: Who, id_: str, now_us: int) -> None:
        """Send nothing more to a receiver."""
        require(who, "webhooks.manage")

        def work(unit: Unit) -> None:
            if not unit.write(webhooks.delete().where(webhooks.c.id == id_)).rowcount:
                raise NotFoundError("there is no such webhook")
            store.record(unit, who, "webhook_removed", None, from_us(now_us), webhook=id_)

        await self._database.run(work)

    def start(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.create_task(self._deliver_forever(), name="nabz-outbox")

    async def stop(self) -> None:
        """Stop; what was not delivered is delivered after the next start."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _deliver_forever(self) -> None:
        while not await self._has_receivers():
            await asyncio.sleep(_IDLE_SECONDS)
        import httpx  # takes a quarter of a second, which most services never need

        async with httpx.AsyncClient(timeout=self._timeout, follow_redirects=False) as client:
            await self.deliver_with(client)

    async def deliver_with(self, client: httpx.AsyncClient) -> None:
        """Deliver until cancelled; a receiver that is slow holds up nobody else."""
        running: set[asyncio.Task[int]] = set()
        try:
            while True:
                try:
                    running |= set(await self._begin(client, time.time_ns() // 1000))
                except Exception as error:  # noqa: BLE001 (this must outlive a database that is gone for a while)
                    _log.warning("webhooks wait: %s", type(error).__name__)
                if not running:
                    await asyncio.sleep(_IDLE_SECONDS)
                    continue
                ended, running = await asyncio.wait(running, timeout=_IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for failed in filter(None, (task.exception() for task in ended)):
                    _log.warning("a webhook waits: %s", type(failed).__name__)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _has_receivers(self) -> bool:
        try:
            first = await self._database.run(lambda unit: unit.connection.execute(select(webhooks.c.id).limit(1)).first())
        except ServiceError as error:
            _log.warning("webhooks wait: %s", type(error).__name__)
            return False
        return first is not None

    async def deliver_once(self, client: httpx.AsyncClient, now_us: int) -> int:
        """Send what is due to every receiver whose turn it is. Returns how many events were accepted."""
        counts = await asyncio.gather(*await self._begin(client, now_us), return_exceptions=True)
        for failed in (count for count in counts if isinstance(count, BaseException)):
            raise failed  # once all have ended: two rounds at a time would send things twice
        return sum(count for count in counts if isinstance(count, int))

    async def _begin(self, client: httpx.AsyncClient, now_us: int) -> list[asyncio.Task[int]]:
        """A task for each receiver whose turn it is. It ends before the receiver's next turn."""
        hold_us = int((_HOLD_SECONDS + 2 * self._timeout) * 1_000_000)
        due = await self._database.run(lambda unit: _due(unit, now_us, hold_us))
        return [asyncio.create_task(self._deliver(client, hook, rows, now_us), name="nabz-webhook") for hook, rows in due]

    async def _deliver(self, client: httpx.AsyncClient, hook: Row[Any], rows: list[Row[Any]], now_us: int) -> int:
        accepted, has_failed, began = 0, False, time.monotonic()
        for row in rows:
            has_failed = not await self._is_accepted(client, hook, row, now_us)
            if has_failed:
                break
            accepted += 1
            if time.monotonic() - began > _HOLD_SECONDS:
                break
        delivered = rows[accepted - 1].sequence if accepted else hook.delivered
        await self._database.run(lambda unit: _note(unit, hook, delivered, now_us, has_failed=has_failed))
        return accepted

    async def _is_accepted(self, client: httpx.AsyncClient, hook: Row[Any], row: Row[Any], now_us: int) -> bool:
        import httpx

        status = 0
        body = orjson.dumps({"type": f"referral.{row.kind}", "timestamp": from_us(row.at_us).isoformat(), "data": described(row)})
        try:
            secret = self._vault.unseal(hook.secret, f"webhooks:{hook.id}")
            headers = signed(secret, f"{hook.id}_{row.sequence}", now_us // 1_000_000, body)
            async with asyncio.timeout(self._timeout):  # in all: a receiver that answers byte by byte must not hold up its events
                async with client.stream("POST", hook.url, content=body, headers=headers) as answer:
                    status = answer.status_code
                    await _drop(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, StorageError) as error:
            _log.info("webhook %s: %s", hook.id, type(error).__name__)
        return status in _ACCEPTED  # which was said, whatever came after it


async def _drop(answer: httpx.Response) -> None:
    """Read a short body to its end, so that the connection can be used again; of a long one no more than its beginning."""
    size = 0
    async for chunk in answer.aiter_raw():
        size += len(chunk)
        if size > _ANSWER_BYTES:
            return


def signed(secret: bytes, message_id: str, timestamp_seconds: int, body: bytes) -> dict[str, str]:
    """The headers of a signed message: HMAC-SHA256 over id, time and body."""
    content = f"{message_id}.{timestamp_seconds}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_seconds),
        "webhook-signature": f"v1,{signature}",
    }


def _due(unit: Unit, now_us: int, hold_us: int) -> list[tuple[Row[Any], list[Row[Any]]]]:
    """Receivers whose turn it is, with their next events. Other processes leave them alone for a while."""
    hooks = unit.connection.execute(
        select(webhooks).where(webhooks.c.is_active, webhooks.c.next_try_us <= now_us).with_for_update(skip_locked=True)
    ).fetchall()
    found = []
    for hook in hooks:
        rows = unit.connection.execute(
            select(events).where(events.c.sequence > hook.delivered).order_by(events.c.sequence).limit(_BATCH)
        ).fetchall()
        if rows:
            unit.write(update(webhooks).where(webhooks.c.id == hook.id).values(next_try_us=now_us + hold_us))
            found.append((hook, list(rows)))
    return found


def _note(unit: Unit, hook: Row[Any], delivered: int, now_us: int, *, has_failed: bool) -> None:
    if has_failed:
        wait = min(_FIRST_RETRY_SECONDS * 2 ** min(hook.failures, 20), _LONGEST_RETRY_SECONDS)
        values = {"failures": hook.failures + 1, "next_try_us": now_us + wait * 1_000_000}
    else:
        values = {"failures": 0, "next_try_us": 0}
    is_ours = (webhooks.c.id == hook.id) & (webhooks.c.delivered == hook.delivered)  # no other process got further meanwhile
    unit.write(update(webhooks).where(is_ours).values(delivered=delivered, **values))


def _check_url(url: str) -> None:
    """Only https, or this machine itself: an event must not travel in the clear."""
    parts = urlsplit(url) if len(url) <= _URL_LENGTH else urlsplit("")
    host = parts.hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not host or parts.username or parts.password or not (parts.scheme == "https" or (parts.scheme == "http" and is_here)):
        raise UnprocessableError("url: expected https://HOST/… without a user name, or http:// on this machine")


def lag(unit: Unit) -> int:
    """How many events the slowest receiver has not accepted yet."""
    newest = unit.connection.execute(select(func.coalesce(func.max(events.c.sequence), 0))).scalar_one()
    oldest = unit.connection.execute(select(func.min(webhooks.c.delivered)).where(webhooks.c.is_active)).scalar_one()
    return 0 if oldest is None else int(newest - oldest)
