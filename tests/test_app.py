"""Tests of the app as it is put together: readiness, and which routes say that they need a token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from service_app import running_service

from inference.service.caller_check import OPEN


def test_readiness_asks_the_database_once_for_all(tmp_path: Path, monkeypatch):
    """Anybody may ask as often as they like: it takes one place in the queue of changes a second at most."""
    with running_service(tmp_path) as service:
        asked: list[int] = []
        run = service.parts.database.run

        async def counted(*given: Any, **named: Any) -> Any:
            asked.append(1)
            return await run(*given, **named)

        monkeypatch.setattr(service.parts.database, "run", counted)

        async def ask_often() -> set[int]:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(service.client.app), base_url="http://nabz") as one:
                return {answer.status_code for answer in await asyncio.gather(*(one.get("/health/ready") for _ in range(200)))}

        assert service.client.portal.call(ask_often) == {200}
        assert len(asked) < 50


def test_the_description_says_which_routes_need_a_token(tmp_path: Path):
    """Those that the guard lets pass without one, and no others; each answers as it says."""
    with running_service(tmp_path) as service:
        document = service.client.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert (operation["security"] == []) is (path in OPEN), path
                answer = service.client.request(method, path)
                assert (answer.status_code == 401) is (path not in OPEN), (method, path)
