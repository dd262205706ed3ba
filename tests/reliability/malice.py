"""Malicious models and images against the running service: refused or cleaned with a reason in words, and it goes on."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import hostile_models
import httpx
from hostile_photos import Hostile, hostile_photos

from inference.models import live_versions
from reliability.cases import cases
from reliability.live_service import ROOT, LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.stored import check_stored

_CLIENTS = 2
_LONGEST_REASON = 400
_TASKS = ("acuity", "symptoms", "lesions")
_ACUITY = live_versions(ROOT / "models")["acuity"]


def run_models(size: int, ground: Ground) -> Outcome:
    """Up to `size` hostile models, each signed by a trusted key, take a live model's place one after the other."""
    outcome = Outcome("hostile models")
    folder, made = ground.folder / "models", ground.folder / "made"
    for name in ("acuity", "trusted_keys"):
        shutil.copytree(ROOT / "models" / name, folder / name)
    sound = {"acuity": _ACUITY}
    _serve(folder, sound)
    with live_service(ground.folder, ground.database_url, models=folder) as service:
        client = httpx.Client(base_url=service.url, timeout=60, trust_env=False)
        with client:
            for number, hostile in enumerate(_spread(list(hostile_models.hostile_models()), size)):
                version = made / "models" / f"tiny{number}" / "1.0.0"
                hostile_models.write_bundle_of(hostile, version)
                for key in version.parent.parent.glob("trusted_keys/*"):
                    shutil.copy(key, folder / "trusted_keys")
                task = _TASKS[number % len(_TASKS)]
                shutil.move(version, folder / task / f"9.0.{number}")
                _serve(folder, {**sound, task: f"9.0.{number}"})
                _check_reload(outcome, service, client, hostile.kind, task)
                outcome.count("kinds")
            _serve(folder, sound)
            client.post("/v1/models:reload", headers=service.token("admin"))
            _check_scoring(outcome, service, client, "at the end")
    return outcome


def _check_reload(outcome: Outcome, service: LiveService, client: httpx.Client, kind: str, task: str) -> None:
    try:
        answer = client.post("/v1/models:reload", headers=service.token("admin"))
    except httpx.HTTPError as error:
        outcome.require(False, f"{kind}: no answer ({type(error).__name__}), and the process is {'alive' if service.is_alive else 'dead'}")
        return
    outcome.require(answer.status_code == 200, f"{kind}: status {answer.status_code}")
    content = answer.json() if answer.status_code == 200 else {"problems": [], "bundles": {}}
    named = [problem for problem in content["problems"] if task in problem or "tiny" in problem]
    outcome.require(bool(named), f"{kind}: as {task}, no problem names it: {content['problems']}")
    outcome.require(
        all(problem.isprintable() and len(problem) < _LONGEST_REASON for problem in named), f"{kind}: the reason is not in plain words"
    )
    outcome.require(content["bundles"].get("acuity", {}).get("version") == _ACUITY, f"{kind}: the sound acuity model is not live any more")
    _check_scoring(outcome, service, client, kind)


def _check_scoring(outcome: Outcome, service: LiveService, client: httpx.Client, kind: str) -> None:
    answer = client.post("/v1/assess", json=cases()[0], headers=service.token("clinic", "mithi"))
    outcome.require(answer.status_code == 200 and service.is_alive, f"{kind}: afterwards a case was answered with {answer.status_code}")


def _serve(folder: Path, versions: dict[str, str]) -> None:
    (folder / "serving.toml").write_text("".join(f'{task} = "{version}"\n' for task, version in versions.items()), encoding="utf-8")


def run_photos(size: int, ground: Ground) -> Outcome:
    """Up to `size` hostile files posted as photos: each case is stored, and each file is cleaned or named in a review reason."""
    outcome = Outcome("hostile photos")
    stored: dict[str, str] = {}
    with live_service(ground.folder, ground.database_url) as service:
        asyncio.run(_post(outcome, service, _spread(list(hostile_photos()), size), stored))
        outcome.require(service.is_alive, "the process ended")
        check_stored(outcome, service, stored)
        outcome.done["MB at most"] = round(service.peak_megabytes())
    return outcome


async def _post(outcome: Outcome, service: LiveService, files: list[Hostile], stored: dict[str, str]) -> None:
    waiting, statuses = iter(enumerate(files)), Counter[int]()
    clinic, clinician = service.token("clinic", "mithi"), service.token("clinician")

    async def one_client(client: httpx.AsyncClient) -> None:
        for number, hostile in waiting:
            case = json.dumps({**cases()[number % len(cases())], "case_id": f"photo-{number}"})
            name = "".join(letter for letter in hostile.name if letter.isprintable()) or "a.jpg"
            form = {"case": (None, case, "application/json"), "photos": (name, hostile.content, "image/jpeg")}
            answer = await client.post("/v1/referrals", files=form, headers=clinic)
            statuses[answer.status_code] += 1
            outcome.require(answer.status_code < 500, f"{hostile.kind}: status {answer.status_code}")
            if answer.status_code == 201:
                content = answer.json()
                stored[str(number)] = content["id"]
                await _check_photo(outcome, client, clinician, content, hostile)
            else:
                outcome.require("detail" in answer.json(), f"{hostile.kind}: refused with {answer.status_code} and without words")

    async with service.client(_CLIENTS, 60) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(one_client(client))
    outcome.done |= {"files": len(files), **dict(sorted(statuses.items()))}


async def _check_photo(
    outcome: Outcome, client: httpx.AsyncClient, who: dict[str, str], content: dict[str, object], hostile: Hostile
) -> None:
    full = (await client.get(f"/v1/referrals/{content['id']}", headers=who)).json()
    if not full["photos"]:
        why = full["assessment"]["review"]["why"]
        outcome.require(any("photo" in reason for reason in why), f"{hostile.kind}: the photo is gone, and no review reason says so: {why}")
        outcome.count("refused with a reason")
        return
    photo = await client.get(f"/v1/referrals/{content['id']}/photos/{full['photos'][0]['sha256']}", headers=who)
    is_clean = photo.content.startswith(b"\xff\xd8") and hostile.payload not in photo.content and b"Exif" not in photo.content
    outcome.require(photo.status_code == 200 and is_clean, f"{hostile.kind}: what is stored is no clean JPEG")
    outcome.count("cleaned")


def _spread(items: list[Any], size: int) -> list[Any]:
    """`size` of the items, from the whole range."""
    step = max(1, len(items) // size) if size else 1
    return list(islice(items, 0, None, step))[:size]
