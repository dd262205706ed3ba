"""The service behind a real uvicorn server on this machine, in a thread: for what an in-process client cannot do."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from service_app import Clock, Service, settings_for

from inference.service.app import create_app
from inference.service.dev_issuer import DevIssuer
from inference.service.serving import Server


@dataclass
class Loopback(Service):
    """A service with an address; `stop` asks it to end as SIGTERM does."""

    url: str
    loop: asyncio.AbstractEventLoop
    server: Server
    thread: threading.Thread

    def stop(self) -> None:
        """Ask the server to end, and wait until it has."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.server.handle_exit, signal.SIGTERM, None)
            self.thread.join(timeout=30)


@contextmanager
def served(folder: Path, database_url: str | None = None, **given: Any) -> Iterator[Loopback]:
    """Start the app under uvicorn on a free port, and wait until its models are loaded."""
    settings, clock = settings_for(folder, database_url, **given), Clock()
    guard = create_app(settings, clock)
    app: Any = guard
    while not hasattr(app, "state"):
        app = app.app
    server = Server(uvicorn.Config(guard, log_config=None, timeout_graceful_shutdown=5), guard, app.state.parts)
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listening])

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="nabz-test-server", daemon=True)
    thread.start()
    with httpx.Client(base_url=url, timeout=30) as client:
        ends = time.monotonic() + 60
        while (not server.started or client.get("/health/ready").status_code != 200) and time.monotonic() < ends:
            time.sleep(0.02)
        running = Loopback(client, app.state.parts, DevIssuer(settings), clock, url, loops[0], server, thread)  # type: ignore[arg-type]
        try:
            yield running
        finally:
            running.stop()
