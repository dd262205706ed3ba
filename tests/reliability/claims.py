"""Two clinicians and one case, again and again: exactly one of them may hold it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, ExitStack

import httpx
from sqlalchemy import select

from inference.service.database import make_engine
from inference.service.tables import events
from reliability.keys import start_services
from reliability.live_service import LiveService
from reliability.outcome import Ground, Outcome
from reliability.posting import case_of

WORKERS = 20
_BATCH = 500


def run(size: int, ground: Ground) -> Outcome:
    """`size` races: half of them for one case by its id, half for whatever is next; on PostgreSQL over two processes."""
    outcome = Outcome("claims")
    with ExitStack() as stack:
        services = start_services(stack, ground)
        held = asyncio.run(_race(services, size, outcome))
        twice = [id_ for id_, n in Counter(held).items() if n > 1]
        outcome.require(not twice, f"{len(twice)} cases were given to two clinicians, as {twice[:3]}")
        _check_history(outcome, ground.database_url, held)
        outcome.done |= {"races": size, "workers": WORKERS, "claims": len(held), "double claims": len(twice), "processes": len(services)}
    return outcome


async def _race(services: list[LiveService], size: int, outcome: Outcome) -> list[str]:
    """The cases that were claimed, once for each answer that said so."""
    held: list[str] = []
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(service.client(4 * WORKERS)) for service in services]
        ids = await _cases(clients[0], services[0], size)
        by_id, by_turn = iter(ids[: size // 2]), iter(range(size - size // 2))

        async def worker(number: int) -> None:
            pair = [services[0].token("clinician", f"{number}-{side}") for side in "ab"]
            ends = [clients[0], clients[-1]]
            for id_ in by_id:
                held.extend(await _race_for(id_, pair, ends, outcome))

        async def turn_worker(number: int) -> None:
            pair = [services[0].token("clinician", f"{number}-{side}") for side in "cd"]
            for _ in by_turn:
                held.extend(await _race_for_next(pair, [clients[0], clients[-1]], outcome))

        await asyncio.gather(*(worker(n) for n in range(WORKERS)))
        await asyncio.gather(*(turn_worker(n) for n in range(WORKERS)))
    return held


async def _cases(client: httpx.AsyncClient, service: LiveService, size: int) -> list[str]:
    ids: list[str] = []
    extra = size // 2  # two are claimed in a race for whatever is next
    for start in range(0, size + extra, _BATCH):
        cases = [case_of(n) for n in range(start, min(start + _BATCH, size + extra))]
        answer = await client.post("/v1/referrals:batch", json=cases, headers=service.token("clinic", "mithi"))
        ids += [one["id"] for one in answer.raise_for_status().json()["referrals"]]
    return ids


async def _race_for(id_: str, pair: list[dict[str, str]], clients: list[httpx.AsyncClient], outcome: Outcome) -> list[str]:
    """Both ask for the same case; the winner closes it."""
    answers = await asyncio.gather(*(c.post(f"/v1/referrals/{id_}/claim", headers=who) for c, who in zip(clients, pair, strict=True)))
    statuses = sorted(answer.status_code for answer in answers)
    outcome.require(statuses == [200, 409], f"a race for one case was answered with {statuses}, expected one 200 and one 409")
    for client, who, answer in zip(clients, pair, answers, strict=True):
        if answer.status_code == 200:
            closed = await client.post(f"/v1/referrals/{id_}/complete", headers=who, json={"outcome": "referred"})
            outcome.require(closed.status_code == 200, f"who holds a case could not complete it: {closed.status_code}")
    return [id_ for answer in answers if answer.status_code == 200]


async def _race_for_next(pair: list[dict[str, str]], clients: list[httpx.AsyncClient], outcome: Outcome) -> list[str]:
    """Both ask for the next case, and must get two different ones."""
    answers = await asyncio.gather(*(c.post("/v1/worklist:claim-next", headers=who) for c, who in zip(clients, pair, strict=True)))
    statuses = [answer.status_code for answer in answers]
    outcome.require(statuses == [200, 200], f"asking for the next case was answered with {statuses}, expected 200 twice")
    got = []
    for client, who, answer in zip(clients, pair, answers, strict=True):
        row = answer.json()["referral"] if answer.status_code == 200 else None
        if row:
            got.append(row["id"])
            await client.post(f"/v1/referrals/{row['id']}/complete", headers=who, json={"outcome": "referred"})
    return got


def _check_history(outcome: Outcome, url: str, held: list[str]) -> None:
    """In the history too each case was claimed once, and by one clinician."""
    engine = make_engine(url)
    with engine.begin() as connection:
        claimed = Counter(connection.execute(select(events.c.referral_id).where(events.c.kind == "claimed")).scalars())
    engine.dispose()
    outcome.require(max(claimed.values(), default=0) <= 1, "the history has a case that was claimed twice")
    outcome.require(set(claimed) == set(held), f"the history has {len(claimed)} claimed cases, the answers {len(set(held))}")
