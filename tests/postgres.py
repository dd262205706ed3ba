"""A private PostgreSQL server for tests: its own folder, socket and port; it can be stopped, paused and killed.

PostgreSQL refuses to run as root, so under root it runs as `postgres`, or as `nobody` where there is no such user.
Knows nothing of Nabz's tables.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

NOT_INSTALLED = "PostgreSQL is not installed: apt-get install postgresql"
SUPERUSER = "nabz"
START_SECONDS, STOP_SECONDS = 30.0, 30.0
# Below the ports that Linux hands to clients, so that nobody takes ours while the server is stopped.
_PORTS = range(20_000, 30_000)
# Waits for the end of the process that started it (its standard input closes), however that ended, and cleans up.
_GUARD = """
cat >/dev/null
[ -f "$1/data/postmaster.pid" ] && kill -CONT "$(head -n 1 "$1/data/postmaster.pid")"
"$2/pg_ctl" -D "$1/data" -m immediate -t 10 -w stop
rm -rf "$1"
"""


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: the one on PATH, else Debian's newest; None where there is none."""
    on_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    folders = [*([Path(on_path).resolve().parent] if on_path else []), *debian]
    needed = ("initdb", "postgres", "pg_ctl")
    return next((folder for folder in folders if all((folder / name).is_file() for name in needed)), None)


class PostgresServer:
    """One server with an empty cluster. `close` removes it; so does the end of this process, whatever ends it.

    `fsync=False` is faster, and still safe against the kill of a process (not of the machine).
    """

    def __init__(self, binaries: Path, *, fsync: bool = True) -> None:
        """Makes the cluster; `start` starts it. Raises RuntimeError with the program's own words when it cannot."""
        self._binaries = binaries
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as_user = _unprivileged()
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="nabz-pg-"))  # a short path: a socket's has at most 107 bytes
        if self._as_user:
            shutil.chown(self.folder, self._as_user["user"])
        guard = ["/bin/sh", "-c", _GUARD, "sh", str(self.folder), str(binaries)]
        self._guard = self._popen(guard, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._initdb()

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database, over the loopback port."""
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server on the same data and port, and wait until it answers. Nothing to do where it runs."""
        if self.is_running:
            return
        fsync = "on" if self._fsync else "off"
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", f"fsync={fsync}")
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *(word for s in settings for word in ("-c", s))]
        with self._log.open("ab") as log:
            self._process = self._popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError as error:
                if not self.is_running or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self._last_words()}") from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """A fast shutdown: open connections are cut, the data are kept."""
        if self._process is None:
            return
        if self.is_running:
            self.resume()
            self._process.send_signal(signal.SIGINT)
        self._process.wait(STOP_SECONDS)
        self._process = None

    def pause(self) -> None:
        """SIGSTOP the server and all its backends: connections stay open, and nothing answers."""
        if self.is_running:
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGSTOP)  # first, so that no backend is started meanwhile
            self._signal_backends(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT what `pause` stopped."""
        if self.is_running:
            assert self._process is not None
            self._signal_backends(signal.SIGCONT)
            os.kill(self._process.pid, signal.SIGCONT)

    def kill9(self) -> None:
        """SIGKILL the server and all its backends, as an out-of-memory killer would; `start` then recovers."""
        if self._process is None:
            return
        self.pause()
        backends = self._signal_backends(signal.SIGKILL)
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._process = None
        deadline = time.monotonic() + STOP_SECONDS
        while any(is_alive(pid) for pid in backends):  # its shared memory must be free before it can start again
            assert time.monotonic() < deadline, "backends outlived SIGKILL"
            time.sleep(0.01)

    def close(self) -> None:
        """End the server and remove its folder."""
        self.resume()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
            self._process = None

    @contextmanager
    def fresh_database(self, template: str = "template0") -> Iterator[str]:
        """The URL of a new database, copied from `template` (which nobody may be connected to); dropped afterwards.

        A test may leave the server stopped, paused or killed: it is running again afterwards.
        """
        self._databases += 1
        name = f"test_{self._databases}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            yield self.url(name)
        finally:
            self.resume()
            self.start()
            with self._connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), port=self.port, user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5)

    def _initdb(self) -> None:
        options = ("--locale=C.UTF-8", "--encoding=UTF8", "--auth=trust", "--no-sync", f"--username={SUPERUSER}")
        command = [str(self._binaries / "initdb"), "-D", str(self.folder / "data"), *options]
        with self._log.open("ab") as log:
            code = self._popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).wait()
        if code:
            words = self._last_words()
            self.close()
            raise RuntimeError(f"initdb failed: {words}")

    def _popen(self, command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        """In its own session, so that Ctrl-C reaches pytest alone, which then ends it in order."""
        return subprocess.Popen(command, cwd=self.folder, start_new_session=True, **streams, **self._as_user)

    def _signal_backends(self, number: signal.Signals) -> list[int]:
        """Signal the server's children. Each leads a session of its own, so no process group holds them all."""
        assert self._process is not None
        backends = _children(self._process.pid)
        for pid in backends:
            with _gone_is_fine():
                os.kill(pid, number)
        return backends

    def _last_words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()


def _unprivileged() -> dict[str, Any]:
    """What subprocess needs to run as somebody else than root; nothing where we are somebody else."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in known else "nobody"
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port among 100 tried in {_PORTS.start}-{_PORTS.stop - 1}")


def _stat(pid: int | str) -> list[str]:
    """State, parent and more from Linux's process table; empty when there is no such process."""
    with _gone_is_fine():
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []


def _children(parent: int) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if (stat := _stat(pid)) and int(stat[1]) == parent]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """A process may end between two looks at it."""
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        return
