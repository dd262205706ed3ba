"""`nabz serve` as a process of its own: started, killed, limited, asked. Knows nothing of what is tried on it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from postgres import _free_port
from service_app import settings_for

from inference.service.dev_issuer import DevIssuer

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
_NO_LIMIT = 1_000_000_000
_LAUNCH = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
_SERVE = [sys.executable, "-c", "from inference.cli import entry; entry()"]
_FAULTY = [sys.executable, "-m", "reliability.faulty_serve"]
_READY_SECONDS, _STOP_SECONDS = 60.0, 40.0
_LAST_WORDS = 1500


class LiveService:
    """One process. It listens on the loopback only, and dies with this process."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        models: Path | None = None,
        faulty: bool = False,
        no_override: bool = False,
        **settings: Any,
    ) -> None:
        """`faulty` puts models that can be told to fail in front of the real ones (see faulty_serve)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.database_url = folder, _free_port(), database_url
        self.log = folder / f"service-{self.port}.log"
        self.settings = settings_for(
            folder, database_url, requests_per_minute=_NO_LIMIT, port=self.port, models=models or ROOT / "models", **settings
        )
        self._command = [*_LAUNCH, *(["--no-override"] if no_override else []), *(_FAULTY if faulty else _SERVE), "serve"]
        self._issuer = DevIssuer(self.settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """The settings as variables."""
        given = {name: value for name in type(self.settings).model_fields if (value := getattr(self.settings, name)) is not None}
        variables = {f"NABZ_{name.upper()}": str(value) for name, value in given.items()}
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        return {**{k: v for k, v in os.environ.items() if not k.startswith("NABZ_")}, **variables, "PYTHONPATH": path}

    def spawn(self) -> None:
        """Start the process; it answers later. Call it from a thread that lives as long as the service should."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> LiveService:
        """Start it and wait until it takes cases."""
        self.spawn()
        self.wait_for("ready", "degraded")
        return self

    def status(self) -> str | None:
        """What /health/ready says; None while nothing answers."""
        try:
            return str(httpx.get(f"{self.url}/health/ready", timeout=5).json()["status"])
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def wait_for(self, *statuses: str, seconds: float = _READY_SECONDS) -> float:
        """Wait for one of these; the seconds that it took. Raises RuntimeError with the log's end."""
        began = time.monotonic()
        while (status := self.status()) not in statuses:
            if time.monotonic() - began > seconds or not self.is_alive:
                raise RuntimeError(
                    f"the service says {status} after {seconds:.0f} s, expected {' or '.join(statuses)}: {self.last_words()}"
                )
            time.sleep(0.05)
        return time.monotonic() - began

    def kill9(self) -> None:
        """End it as an out-of-memory killer would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM, as an operator does; its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise

    def last_words(self) -> str:
        """The end of what it logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]

    def token(self, role: str, name: str = "1") -> dict[str, str]:
        """The header of a caller: a clinic by its name, anybody else by a subject."""
        return {"Authorization": f"Bearer {self._issuer.mint(f'{role}-{name}', role, name if role == 'clinic' else None)}"}

    def client(self, connections: int = 16, timeout_seconds: float = 30.0) -> httpx.AsyncClient:
        """A client for many requests at a time."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(base_url=self.url, limits=limits, timeout=httpx.Timeout(timeout_seconds, pool=None), trust_env=False)

    def resident_megabytes(self) -> float:
        """The memory that it holds now (Linux)."""
        return _status(self.pid, "VmRSS")

    def peak_megabytes(self) -> float:
        """The most memory that it has held (Linux)."""
        return _status(self.pid, "VmHWM")

    def limit_files(self, largest_bytes: int | None) -> None:
        """Let no file of the process grow beyond this size, or lift that again (Linux)."""
        assert self._process is not None
        soft = resource.RLIM_INFINITY if largest_bytes is None else largest_bytes
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command of `nabz` with the same settings."""
        return subprocess.run([*_SERVE, *arguments], cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=False)


@contextmanager
def live_service(folder: Path, database_url: str, **options: Any) -> Iterator[LiveService]:
    """A running service, stopped afterwards."""
    service = LiveService(folder, database_url, **options)
    try:
        yield service.start()
    finally:
        service.kill9()


def _status(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {field} of process {pid}")
