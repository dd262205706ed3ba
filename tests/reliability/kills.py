"""kill -9 while cases are posted: the service again and again, and on PostgreSQL the database server as well."""

from __future__ import annotations

import asyncio
import random

import httpx

from reliability.live_service import LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.posting import Posted, case_of, post_all
from reliability.stored import check_stored

KILLS = 20
_SERVER_KILL_EVERY = 5
_REPLAYS = 200
_ALLOWED = {201, 429, 503}


def run(size: int, ground: Ground, kills: int = KILLS) -> Outcome:
    """`size` posts, `kills` kills; what was acknowledged must be there, once."""
    outcome = Outcome("kills")
    posted = Posted()
    with live_service(ground.folder, ground.database_url) as service:
        asyncio.run(_post_and_kill(service, ground, size, kills, posted, outcome))
        service.wait_for("ready")
        outcome.done |= {"acknowledged": len(posted.acknowledged), "unanswered": posted.unanswered, "503": posted.statuses[503]}
        outcome.require(posted.statuses.keys() <= _ALLOWED, f"statuses {sorted(posted.statuses)}: expected 201, 429 and 503 alone")
        outcome.require(len(posted.acknowledged) == size, f"{size - len(posted.acknowledged)} cases were never acknowledged")
        check_stored(outcome, service, dict(posted.acknowledged), expected=size)
        _check_replays(outcome, service, posted)
    return outcome


async def _post_and_kill(service: LiveService, ground: Ground, size: int, kills: int, posted: Posted, outcome: Outcome) -> None:
    posting = asyncio.create_task(post_all(service, range(size), posted))
    chance = random.Random(7)
    for kill in range(kills):
        while len(posted.acknowledged) < size * (kill + 1) // (kills + 1) and not posting.done():
            await asyncio.sleep(0.002)
        await asyncio.sleep(chance.random() * 0.05)
        if ground.postgres and kill % _SERVER_KILL_EVERY == _SERVER_KILL_EVERY - 1:
            await asyncio.to_thread(ground.postgres.kill9)
            await asyncio.to_thread(ground.postgres.start)
            outcome.count("database kills")
        else:
            service.kill9()
            service.spawn()
            outcome.count("kills")
    await posting


def _check_replays(outcome: Outcome, service: LiveService, posted: Posted) -> None:
    """The keys still answer with the referrals that were acknowledged."""
    headers = service.token("clinic", "mithi")
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        for number in list(posted.acknowledged)[-_REPLAYS:]:
            answer = client.post("/v1/referrals", json=case_of(number), headers={**headers, "Idempotency-Key": f"key-{number}"})
            same = answer.status_code == 201 and answer.json()["id"] == posted.acknowledged[number]
            outcome.require(same, f"the key of case {number} is answered with {answer.status_code} and another referral")
