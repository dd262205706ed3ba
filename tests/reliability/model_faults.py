"""Bundles that are missing, corrupt or wrongly signed, and models that raise, answer NaN or hang: every case is stored, soon."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inference.bundle import SIGNATURE_FILE, SIGNED_FILES, signed_message
from inference.models import live_versions
from reliability.cases import cases, rule_levels
from reliability.faulty_serve import FILE
from reliability.live_service import ROOT, LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.stored import check_stored

HANG_SECONDS = 30.0
ANSWER_SECONDS = 2.0
_CLIENTS = 8
_RECOVERY_SECONDS = 60.0


def run_bundles(size: int, ground: Ground) -> Outcome:
    """`size` cases for each way in which all bundles are unusable; then sound ones are put back while it runs. A short form has one way."""
    outcome = Outcome("bundles")
    stored: dict[str, str] = {}
    for kind, ways in _WAYS.items() if ground.is_timed else list(_WAYS.items())[:1]:
        folder = ground.folder / kind.replace(" ", "-")
        shutil.copytree(ROOT / "models", folder)
        for (task, version), spoil in zip(live_versions(folder).items(), ways, strict=True):
            spoil(folder / task / version)
        with live_service(ground.folder, ground.database_url, models=folder) as service:
            _check_fault(outcome, service, kind, size, stored, rule_levels(with_reader=False), is_timed=ground.is_timed)
            shutil.rmtree(folder)
            shutil.copytree(ROOT / "models", folder)
            _check_recovery(outcome, service, kind)
            check_stored(outcome, service, stored)
    outcome.done["cases a fault"] = size
    return outcome


def run_models(size: int, ground: Ground, hang_seconds: float = HANG_SECONDS) -> Outcome:
    """`size` cases for each way in which the models fail; then they are sound again."""
    outcome = Outcome("models")
    stored: dict[str, str] = {}
    with live_service(ground.folder, ground.database_url, faulty=True) as service:
        file = service.settings.data_dir / FILE
        for kind in ("raise", "nan", f"hang {hang_seconds}"):
            file.write_text(kind, encoding="ascii")
            _check_fault(outcome, service, kind, size, stored, rule_levels(with_reader=True), is_timed=ground.is_timed)
            file.unlink()
            _check_recovery(outcome, service, kind)
        check_stored(outcome, service, stored)
    outcome.done["cases a fault"] = size
    return outcome


def _check_fault(
    outcome: Outcome, service: LiveService, kind: str, size: int, stored: dict[str, str], levels: tuple[int, ...], *, is_timed: bool
) -> None:
    slowest = asyncio.run(_post(outcome, service, kind, size, stored, levels))
    is_soon = slowest <= ANSWER_SECONDS or not is_timed
    outcome.require(is_soon, f"{kind}: the slowest answer took {slowest:.2f} s, expected at most {ANSWER_SECONDS:.0f}")
    status = service.status()
    outcome.require(status == "degraded", f"{kind}: /health/ready says {status}, expected degraded")
    outcome.done[f"{kind}: slowest answer, s"] = round(slowest, 2)


async def _post(outcome: Outcome, service: LiveService, kind: str, size: int, stored: dict[str, str], levels: tuple[int, ...]) -> float:
    """Posts `size` cases; the seconds of the slowest answer."""
    headers, numbers, slowest = service.token("clinic", "mithi"), iter(range(size)), 0.0

    async def one_client(client: httpx.AsyncClient) -> None:
        nonlocal slowest
        for number in numbers:
            place = number % len(cases())
            case = {**cases()[place], "case_id": f"{kind}-{number}"}
            began = time.perf_counter()
            answer = await client.post("/v1/referrals", json=case, headers=headers)
            slowest = max(slowest, time.perf_counter() - began)
            outcome.require(answer.status_code == 201, f"{kind}: status {answer.status_code}, expected 201")
            if answer.status_code == 201:
                content = answer.json()
                stored[case["case_id"]] = content["id"]
                expected, scored_by = levels[place], content["scored_by"]
                outcome.require(content["level"] == expected, f"{kind}: level {content['level']}, by the rules it is {expected}")
                outcome.require(scored_by in ("rules alone", "nothing"), f"{kind}: scored by {scored_by}")

    async with service.client(_CLIENTS) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(one_client(client))
    return slowest


def _check_recovery(outcome: Outcome, service: LiveService, kind: str) -> None:
    """By itself: nobody restarts it, and nobody asks it to reload."""
    began, headers = time.monotonic(), service.token("clinic", "mithi")
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        while time.monotonic() - began < _RECOVERY_SECONDS:
            answer = client.post("/v1/assess", json=cases()[0], headers=headers)
            if answer.json().get("scored_by") == "models and rules" and service.status() == "ready":
                outcome.done[f"{kind}: recovered after, s"] = round(time.monotonic() - began, 1)
                return
            time.sleep(0.1)
    outcome.require(False, f"{kind}: not ready {_RECOVERY_SECONDS:.0f} s after the cause was gone, but {service.status()}")


def _corrupt(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def _sign_as_stranger(folder: Path) -> None:
    key_id = json.loads((folder / SIGNATURE_FILE).read_text(encoding="utf-8"))["key_id"]
    message = signed_message({name: (folder / name).read_bytes() for name in SIGNED_FILES})
    signature = base64.b64encode(Ed25519PrivateKey.generate().sign(message)).decode()
    (folder / SIGNATURE_FILE).write_text(json.dumps({"key_id": key_id, "signature": signature}), encoding="utf-8")


_WAYS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "one of each": (shutil.rmtree, _corrupt, _sign_as_stranger),
    "missing": (shutil.rmtree,) * 3,
    "corrupt": (_corrupt,) * 3,
    "wrongly signed": (_sign_as_stranger,) * 3,
}
