"""Bundles promoted and rolled back while cases come in: no request fails, and every score names a bundle that was live."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

from inference.bundle import load_bundle
from inference.models import live_versions
from reliability.cases import cases
from reliability.live_service import ROOT, LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.stored import check_stored
from training.export import copy_as_version
from training.promotion import Judged, promote, roll_back

TASK = "acuity"
CHALLENGER = "9.0.0"
_CLIENTS = 8
_SETTLE_SECONDS = 60.0
_UNDER_LOAD_SECONDS = 1.0  # before and after each switch
_PROBE_SECONDS = 0.1


@dataclass
class _Load:
    """What clients and probes share: the bundle that answers, from when on it alone may, and the others that may while a switch settles."""

    newest: str
    challenger: str
    both: frozenset[str]
    settled_at: float = float("-inf")
    is_switching: bool = False
    is_over: bool = False
    stored: dict[str, str] = field(default_factory=dict)


def run(size: int, ground: Ground) -> Outcome:
    """`size` switches, by promotion and by rollback in turn, under a load of posts."""
    outcome = Outcome("swaps")
    models = ground.folder / "models"
    shutil.copytree(ROOT / "models", models)
    champion = models / TASK / live_versions(models)[TASK]
    challenger = copy_as_version(champion, CHALLENGER)
    with live_service(ground.folder, ground.database_url, models=models) as service:
        service.wait_for("ready")
        load = asyncio.run(_swap_under_load(outcome, service, models, champion, challenger, size))
        outcome.require(service.status() == "ready", f"/health/ready says {service.status()} at the end, expected ready")
        check_stored(outcome, service, load.stored, expected=len(load.stored))
    outcome.done["switches"] = size
    return outcome


async def _swap_under_load(outcome: Outcome, service: LiveService, models: Path, champion: Path, challenger: Path, size: int) -> _Load:
    old, new = load_bundle(champion).sha256, load_bundle(challenger).sha256
    load = _Load(old, new, frozenset({old, new}))
    async with service.client(_CLIENTS + 1) as client, asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(_post_cases(outcome, service, client, load, number))
        try:
            for place in range(size):
                await asyncio.sleep(_UNDER_LOAD_SECONDS)
                wanted = old if place % 2 else new
                load.is_switching = True
                began = time.monotonic()
                await asyncio.to_thread(_switch, models, challenger, old, new, is_promotion=place % 2 == 0)
                await _settle(outcome, service, client, load, wanted)
                outcome.done["slowest switch, s"] = max(outcome.done.get("slowest switch, s", 0.0), round(time.monotonic() - began, 1))
            await asyncio.sleep(_UNDER_LOAD_SECONDS)
        finally:
            load.is_over = True
    return load


def _switch(models: Path, challenger: Path, old: str, new: str, *, is_promotion: bool) -> None:
    """As the commands do it; the comparison, which is another matter, is said to have passed."""
    if is_promotion:
        found: Any = SimpleNamespace(task=TASK, champion_sha256=old, challenger_sha256=new, verdict="PROMOTE", data="none", n=0)
        promote(challenger, Judged(found, (), "", is_first=False), models)
    else:
        roll_back(models, TASK)


async def _settle(outcome: Outcome, service: LiveService, client: httpx.AsyncClient, load: _Load, wanted: str) -> None:
    """Wait for the first answer of the new bundle; whoever asks after that must get it."""
    ends = time.monotonic() + _SETTLE_SECONDS
    headers = service.token("clinic", "mithi")
    while time.monotonic() < ends:
        answer = await client.post("/v1/assess", json=cases()[0], headers=headers)
        outcome.require(answer.status_code == 200, f"/v1/assess: status {answer.status_code}, expected 200")
        if answer.status_code == 200 and _hash_of(answer.json()) == wanted:
            load.newest, load.settled_at, load.is_switching = wanted, time.monotonic(), False
            return
        await asyncio.sleep(_PROBE_SECONDS)
    outcome.require(False, f"the service did not take the new bundle over within {_SETTLE_SECONDS:.0f} s")


async def _post_cases(outcome: Outcome, service: LiveService, client: httpx.AsyncClient, load: _Load, number: int) -> None:
    headers, sent = service.token("clinic", "mithi"), 0
    while not load.is_over:
        case = {**cases()[(number + sent) % len(cases())], "case_id": f"swap-{number}-{sent}"}
        sent += 1
        began = time.monotonic()
        try:
            answer = await client.post("/v1/referrals", json=case, headers=headers)
        except httpx.HTTPError as error:
            outcome.require(False, f"a request failed with {type(error).__name__}")
            continue
        outcome.count("posts")
        outcome.require(answer.status_code == 201, f"status {answer.status_code}, expected 201")
        if answer.status_code == 201:
            content = answer.json()
            load.stored[case["case_id"]] = content["id"]
            _check_score(outcome, content, load, began)


def _check_score(outcome: Outcome, content: dict[str, Any], load: _Load, began: float) -> None:
    """The score names a bundle that was live while the request ran; once the switch has settled, the new one."""
    if content["scored_by"] != "models and rules":
        outcome.count("ranked by rules, because late")
        return
    named = _hash_of(content["assessment"])
    allowed = load.both if load.is_switching or began <= load.settled_at else {load.newest}
    outcome.require(named in allowed, f"a score names the bundle {str(named)[:12]}, which was not live then")
    outcome.count("scores of the challenger" if named == load.challenger else "scores of the champion")


def _hash_of(assessment: dict[str, Any]) -> str | None:
    name = assessment["provenance"]["bundles"].get(TASK)
    return name["sha256"] if name else None
