"""Runs the service under uvicorn: starts, drains on SIGTERM, and loads the samples for a demo."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop
from fastapi import FastAPI

from inference.errors import PolicyError
from inference.service.app import create_app
from inference.service.callers import Who
from inference.service.connections import IDLE_SECONDS, BoundedProtocol, connections_limit
from inference.service.fhir_validation import load_library
from inference.service.guards import Guard
from inference.service.intake import Submission
from inference.service.parts import Parts
from inference.service.request_log import configure_logging
from inference.service.settings import Settings
from inference.service.web.render import load_pages

_SAMPLE = Path("data/sample/referrals.jsonl")
_SAMPLE_NOW = datetime.fromisoformat("2026-11-22T10:00:00+05:00")
_DEMO_CLINIC = Who("demo", "clinic", "mithi")
_BACKLOG = 2048
_LOOK_SECONDS = 0.02
_ACCEPTS = 16
_log = logging.getLogger("nabz.service")


class Server(uvicorn.Server):
    """uvicorn's server, which first tells the guards and the event streams that the end is near."""

    def __init__(self, config: uvicorn.Config, guard: Guard, parts: Parts) -> None:
        super().__init__(config)
        self._guard, self._parts = guard, parts

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn's signature)
        """SIGTERM or SIGINT: new requests are sent away, those in progress end, then the server does; a second SIGINT ends it now.

        uvicorn's own method would raise the signal again at the end, and a service that stopped as asked would seem to be killed.
        """
        self._guard.drain.begin()
        self._parts.live.close()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by the server's main loop."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.close_if_late(now)
        return await super().on_tick(counter)


def run_server(settings: Settings, announce: Callable[[str], None], *, demo: bool = False) -> None:
    """Serve until told to stop. `announce` is told the address."""
    guard = create_app(settings)
    application: FastAPI = guard.app.app  # type: ignore[attr-defined]
    parts: Parts = application.state.parts

    class _Protocol(BoundedProtocol):
        most_open = connections_limit(settings.in_flight_limit)

    logging.raiseExceptions = False  # a line that cannot be written must not print the exception that it tells of, words included
    config = uvicorn.Config(
        guard,
        host=settings.host,
        port=settings.port,
        log_config=configure_logging(),
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=int(IDLE_SECONDS),
        timeout_graceful_shutdown=settings.drain_seconds,
        backlog=_BACKLOG,
        ws="none",
        http=_Protocol,
    )
    server = Server(config, guard, parts)
    listening = _listen(settings)
    port = listening.getsockname()[1]
    announce(f"serving at http://{settings.host}:{port} (API description: /openapi.json)")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, listening, application, demo=demo))


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise PolicyError(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another with --port") from error
    listening.set_inheritable(True)
    return listening


async def _serve(server: Server, listening: socket.socket, application: FastAPI, *, demo: bool) -> None:
    parts: Parts = application.state.parts
    # The loop takes one new connection a turn from each socket: under load a single one would keep callers waiting for seconds.
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    sockets = [listening, *(listening.dup() for _ in range(_ACCEPTS - 1))]
    serving = asyncio.create_task(server.serve(sockets))
    while not serving.done() and not (server.started and parts.scorer.health().ready):
        await asyncio.sleep(_LOOK_SECONDS)
    if not serving.done():
        await asyncio.to_thread(load_library)  # FHIR's classes take a while: not the first caller's
        await asyncio.to_thread(application.openapi)  # nor the description's, which the first refused field asks for
        await asyncio.to_thread(load_pages)
        gc.collect()
        gc.freeze()  # what is loaded by now stays: walking it again and again costs a tenth of the time
        if demo:
            await load_samples(parts)
    await serving


async def load_samples(parts: Parts, sample: Path = _SAMPLE) -> int:
    """Send the sample referrals, as if they had just come, into an empty queue. Returns how many."""
    who = Who("demo", "clinician")
    page, _, _ = await parts.referrals.page(who, {}, "open", 1, None)
    if page.rows or not sample.is_file():
        return 0
    shift = datetime.now(UTC) - _SAMPLE_NOW
    count = 0
    for line in sample.read_text(encoding="utf-8").splitlines():
        try:
            raw = json.loads(line)
        except ValueError:
            raw = {"unreadable": "line"}
        if isinstance(raw, dict) and isinstance(raw.get("received_at"), str):
            raw["received_at"] = (datetime.fromisoformat(raw["received_at"]) + shift).isoformat()
        uploads = {}
        for photo in raw.get("photos", ()) if isinstance(raw, dict) else ():
            path = sample.parent / str(photo.get("path"))
            if path.is_file():
                uploads[photo["path"]] = path.read_bytes()
        await parts.referrals.submit(_DEMO_CLINIC, Submission(raw, None, uploads))
        count += 1
    _log.info("%d sample referrals are in the queue", count)
    return count
