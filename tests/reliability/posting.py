"""Clients that post cases and do not give up: each keeps its Idempotency-Key and asks again until it was acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from service_app import CASE, MILD

from reliability.live_service import LiveService

CREATED = 201
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.5


def case_of(number: int) -> dict[str, Any]:
    """One of many cases that differ."""
    return {**(CASE if number % 3 else MILD), "case_id": f"case-{number}", "age_years": 1 + number % 90}


@dataclass
class Posted:
    """What came of posting: the referral's id by the case's number, answers by status, requests that got none."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    levels: dict[int, int] = field(default_factory=dict)


async def post_all(
    service: LiveService, numbers: range, posted: Posted, *, clients: int = 16, make: Callable[[int], Mapping[str, Any]] = case_of
) -> None:
    """Post every case until it is acknowledged."""
    waiting = iter(numbers)
    headers = service.token("clinic", "mithi")

    async with service.client(clients) as client:

        async def one_client() -> None:
            for number in waiting:
                await _post_until_stored(client, number, make(number), headers, posted)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(one_client())


async def _post_until_stored(
    client: httpx.AsyncClient, number: int, case: Mapping[str, Any], headers: Mapping[str, str], posted: Posted
) -> None:
    pause = _PAUSE_SECONDS
    while True:
        try:
            answer = await client.post("/v1/referrals", json=case, headers={**headers, "Idempotency-Key": f"key-{number}"})
        except httpx.HTTPError:
            posted.unanswered += 1
        else:
            posted.statuses[answer.status_code] += 1
            if answer.status_code == CREATED:
                content = answer.json()
                posted.acknowledged[number], posted.levels[number] = content["id"], content["level"]
                return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
