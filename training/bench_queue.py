"""The service's part of `make bench`: requests a second beside `mlflow models serve`, and group commit beside one commit a request."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference.models import live_versions
from training.bench_mlflow import measure_mlflow
from training.bench_service import HOST, Measured, as_body, free_port, measure, ratio_rows, serving, structured_cases, write_raw
from training.catalogue import CATALOGUE

_NO_LIMIT = "1000000000"
_CALLERS, _COMMITS_EACH = 32, 100
_RAW = Path("runs/bench_service.json")


def service_rows(models: Path) -> list[tuple[str, str]]:
    """`POST /v1/assess` and `/v1/referrals` of one worker on one core against mlflow's with the bare symptom model, and group commit."""
    cases = structured_cases(CATALOGUE)
    mlflow = measure_mlflow(models / "symptoms" / live_versions(models)["symptoms"], cases)
    ours = _nabz(models, [as_body(case) for case in cases])
    _RAW.parent.mkdir(exist_ok=True)
    write_raw(_RAW, [mlflow, *ours])
    return [*ratio_rows(mlflow, ours), *_group_commit()]


def _nabz(models: Path, bodies: list[bytes]) -> list[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = {
            "NABZ_DATABASE_URL": f"sqlite:///{folder}/nabz.db",
            "NABZ_DATA_DIR": folder,
            "NABZ_MODELS": str(models.resolve()),
            "NABZ_DEV_ISSUER": "true",
            "NABZ_REQUESTS_PER_MINUTE": _NO_LIMIT,
        }
        command = [sys.executable, "-c", "from inference.cli import entry; entry()", "serve", "--port", str(port)]
        with serving(command, port, "/health/ready", environment) as pid:
            headers = {"Authorization": f"Bearer {_token(port)}", "Content-Type": "application/json"}
            assess = measure(pid, port, "/v1/assess", headers, bodies, name="POST /v1/assess")
            stored = measure(
                pid, port, "/v1/referrals", headers, bodies, name="POST /v1/referrals, durable", unique_header="Idempotency-Key"
            )
        return [assess, stored]


def _token(port: int) -> str:
    body = json.dumps({"role": "clinic", "clinic": "bench"}).encode()
    request = urllib.request.Request(f"http://{HOST}:{port}/dev/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return str(json.load(answer)["access_token"])


def _group_commit() -> list[tuple[str, str]]:
    """Referrals stored a second by 32 callers at once, in groups and one by one, SQLite with full sync."""
    rates = [asyncio.run(_stored_a_second(largest_group)) for largest_group in (64, 1)]
    return [("group commit against one commit a request, SQLite with full sync, 32 callers: ratio", f"{rates[0] / rates[1]:.1f}")]


async def _stored_a_second(largest_group: int) -> float:
    from inference.policy import load_policy
    from inference.service import database, store
    from inference.service.callers import Who
    from inference.service.intake import new_id
    from inference.service.migration import migrate

    who, policy = Who("bench", "clinic", "bench"), load_policy()
    with tempfile.TemporaryDirectory() as folder:
        base = database.Database(f"sqlite:///{folder}/nabz.db", b"k" * 32, largest_group=largest_group)
        migrate(base.engine)
        base.start()

        async def caller() -> None:
            for _ in range(_COMMITS_EACH):
                now = datetime.now(UTC)
                row: dict[str, Any] = {"summary": b"s" * 400, "patient": None, "content": b"c" * 4000, "case_token": "0" * 64}
                new = store.NewReferral(
                    id=new_id(), clinic="bench", district=None, specialty="family_medicine", level=3, floor_level=3,
                    scored_by="models and rules", needs_review=False, risk=0.1, received_at=now, **row,
                )  # fmt: skip
                await base.run(lambda unit, new=new, now=now: store.insert_referral(unit, new, who, policy, now))  # type: ignore[misc]

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        seconds = time.perf_counter() - began
        base.stop()
    return _CALLERS * _COMMITS_EACH / seconds
