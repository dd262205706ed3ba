"""The same Idempotency-Key many times at once: one referral a key, whoever comes first, and another body is refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack

from reliability.live_service import LiveService
from reliability.outcome import Ground, Outcome
from reliability.posting import case_of
from reliability.stored import check_stored

AT_ONCE = 50


def run(size: int, ground: Ground) -> Outcome:
    """`size` keys, each `AT_ONCE` times at once; on PostgreSQL over two processes."""
    outcome = Outcome("keys")
    with ExitStack() as stack:
        services = start_services(stack, ground)
        ids = asyncio.run(_post(services, size, outcome))
        outcome.done |= {"keys": size, "requests": size * (AT_ONCE + 1), "processes": len(services)}
        check_stored(outcome, services[0], ids, expected=size)
    return outcome


def start_services(stack: ExitStack, ground: Ground, **options: object) -> list[LiveService]:
    """One process on SQLite, two on PostgreSQL, with the same keys and database."""
    services = []
    for _ in range(2 if ground.is_postgres else 1):
        service = LiveService(ground.folder, ground.database_url, **options)
        stack.callback(service.kill9)
        services.append(service.start())
    return services


async def _post(services: list[LiveService], size: int, outcome: Outcome) -> dict[int, str]:
    ids: dict[int, str] = {}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(service.client(AT_ONCE)) for service in services]
        for number in range(size):
            headers = {**services[0].token("clinic", "mithi"), "Idempotency-Key": f"key-{number}"}
            posts = (clients[n % len(clients)].post("/v1/referrals", json=case_of(number), headers=headers) for n in range(AT_ONCE))
            answers = await asyncio.gather(*posts)
            statuses = {answer.status_code for answer in answers}
            outcome.require(statuses == {201}, f"key {number}: statuses {sorted(statuses)}, expected 201 alone")
            found = {answer.json()["id"] for answer in answers if answer.status_code == 201}
            outcome.require(len(found) == 1, f"key {number}: {len(found)} different referrals")
            replays = sum(answer.headers.get("Idempotency-Replayed") == "true" for answer in answers)
            outcome.require(replays == AT_ONCE - 1, f"key {number}: {replays} answers are marked as repeated, expected {AT_ONCE - 1}")
            ids[number] = min(found, default="")
            changed = await clients[0].post("/v1/referrals", json={**case_of(number), "age_years": 99}, headers=headers)
            outcome.require(changed.status_code == 422, f"key {number} with another body: {changed.status_code}, expected 422")
    return ids
