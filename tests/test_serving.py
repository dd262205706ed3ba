"""`nabz serve` and the commands beside it, as an operator runs them: `serve` in a process of its own."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_app import CASE, MILD, Service, running_service

from inference.cli import main
from inference.service import vault
from inference.service.serving import load_samples
from inference.service.settings import Settings

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from inference.cli import entry; entry()"]
SAMPLES = len((ROOT / "data/sample/referrals.jsonl").read_text(encoding="utf-8").splitlines())


def environment(folder: Path, **given: str) -> dict[str, str]:
    """This process's variables without any setting of Nabz, and the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NABZ_")}
    return {
        **kept,
        "NABZ_DATABASE_URL": f"sqlite:///{folder}/nabz.db",
        "NABZ_DATA_DIR": str(folder / "data"),
        "NABZ_MODELS": str(ROOT / "models"),
        **given,
    }


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Nabz = Callable[..., Done]


@pytest.fixture
def nabz(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nabz:
    """Run a command to its end, in this process, where there is no `.env`; the models are the shipped ones."""

    def run(folder: Path, *arguments: str, **given: str) -> Done:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name in [name for name in os.environ if name.startswith("NABZ_")]:
                patch.delenv(name)
            for name, value in environment(folder, **given).items():
                patch.setenv(name, value)
            capsys.readouterr()
            status = main(arguments)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(folder: Path, *arguments: str, cwd: Path | None = None, **given: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """`nabz serve` on a free port, ready; it is asked to stop at the end, if it has not."""
    port = free_port()
    log = folder / f"serve-{port}.log"
    with log.open("w", encoding="utf-8") as words:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), *arguments],
            cwd=cwd or folder,
            env=environment(folder, **given),
            stdout=words,
            stderr=words,
            text=True,
        )
        process.log = log  # type: ignore[attr-defined]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                _wait_until_ready(process, client, log)
                yield process, client
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[str], client: httpx.Client, log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"nabz serve did not become ready: {log.read_text(encoding='utf-8')[-2000:]}")


def token(client: httpx.Client, role: str, clinic: str = "") -> dict[str, str]:
    """The header of a caller, from the demo's issuer."""
    given = {"role": role, **({"clinic": clinic} if clinic else {})}
    answer = client.post("/dev/token", data=given)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def stored(folder: Path) -> set[str]:
    """The ids in the database."""
    with sqlite3.connect(folder / "nabz.db") as database:
        return {row[0] for row in database.execute("SELECT id FROM referrals")}


def test_the_demo_issues_tokens_and_ranks_the_samples(tmp_path: Path):
    """`nabz serve --demo` says where it is, has the sample referrals in its queue, logs no words of theirs, and ends with status 0."""
    with serving(tmp_path, "--demo", cwd=ROOT) as (process, client):
        clinician = token(client, "clinician")
        ends = time.monotonic() + 30
        while len(rows := client.get("/v1/worklist", headers=clinician).json()["items"]) < SAMPLES and time.monotonic() < ends:
            time.sleep(0.1)
        assert len(rows) == SAMPLES
        assert [row["level"] for row in rows] == sorted(row["level"] for row in rows)
        assert rows[0]["level"] == 1
        assert client.get("/health/ready").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    words = next(tmp_path.glob("serve-*.log")).read_text(encoding="utf-8")
    assert re.search(r"serving at http://127\.0\.0\.1:\d+ \(API description: /openapi\.json\)", words)
    assert f"{SAMPLES} sample referrals are in the queue" in words
    assert "seenay" not in words and "Traceback" not in words


def test_the_samples_are_loaded_into_an_empty_queue_only(tmp_path: Path):
    """A demo that is started again has what it had."""
    with running_service(tmp_path) as service:
        load = functools.partial(service.client.portal.call, load_samples, service.parts, ROOT / "data/sample/referrals.jsonl")
        assert (load(), load()) == (SAMPLES, 0)
        assert service.client.get("/v1/worklist", params={"level": 1}, headers=service.token("clinician")).json()["items"]


def test_sigterm_answers_what_was_begun(tmp_path: Path):
    """Requests in progress are answered, new ones are sent away, every 201 is in the database, and the exit status is 0."""
    answers: list[tuple[int, str]] = []
    with serving(tmp_path, NABZ_DEV_ISSUER="true", NABZ_REQUESTS_PER_MINUTE="1000000") as (process, client):
        headers, begun, over = token(client, "clinic", "mithi"), threading.Event(), threading.Event()

        def send() -> None:
            with httpx.Client(base_url=client.base_url, timeout=30) as own:
                while not over.is_set():
                    try:
                        answer = own.post("/v1/referrals", json=CASE, headers=headers)
                    except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                        answers.append((0, type(error).__name__))
                        return
                    answers.append((answer.status_code, answer.json().get("id", "")))
                    begun.set()
                    if answer.status_code != 201:
                        return

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert begun.wait(30)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=30)
        over.set()
        for thread in threads:
            thread.join(30)
    kept = {id_ for status_code, id_ in answers if status_code == 201}
    assert status == 0
    assert {status_code for status_code, _ in answers} <= {0, 201, 503}
    assert kept and kept == stored(tmp_path)


def test_a_second_instance_says_that_the_port_is_taken(nabz: Nabz, tmp_path: Path):
    """One sentence with what to do, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = nabz(tmp_path, "serve", "--demo", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == f"nabz: cannot listen on 127.0.0.1:{port} (Address already in use): choose another with --port\n"


def test_serve_without_an_issuer_says_what_to_set(nabz: Nabz, tmp_path: Path):
    """A service that nobody could sign in to does not start."""
    done = nabz(tmp_path, "serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NABZ_AUTH_ISSUER" in done.stderr and "NABZ_AUTH_KEYS" in done.stderr and "Traceback" not in done.stderr


def test_settings_lists_every_setting(nabz: Nabz, tmp_path: Path):
    """Each variable with what it is for and its default, in the class's order."""
    done = nabz(tmp_path, "serve", "--settings")
    assert done.returncode == 0
    names = [f"NABZ_{name.upper()}" for name in Settings.model_fields]
    assert re.findall(r"^NABZ_\w+$", done.stdout, re.MULTILINE) == names
    assert done.stdout.count("; default ") == len(names)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NABZ_PORT", "seventy", "NABZ_PORT: Input should be a valid integer"),
        ("NABZ_IN_FLIGHT_LIMIT", "0", "NABZ_IN_FLIGHT_LIMIT: Input should be greater than 0"),
        ("NABZ_DATABASE_URL", "mysql://u:secret-word@h/d", "NABZ_DATABASE_URL names neither a SQLite file nor PostgreSQL"),
        ("NABZ_DATABASE_URL", "nonsense", "NABZ_DATABASE_URL cannot be read"),
        ("NABZ_POLICY", "/nowhere/policy.toml", "/nowhere/policy.toml"),
        ("NABZ_DATA_DIR", "/dev/null/data", "/dev/null"),
    ],
)
def test_a_wrong_setting_is_named(nabz: Nabz, tmp_path: Path, name: str, value: str, said: str):
    """One sentence, status 2, and no password in it."""
    done = nabz(tmp_path, "serve", NABZ_DEV_ISSUER="true", **{name: value})
    assert (done.returncode, "Traceback" in done.stderr, "secret-word" in done.stderr) == (2, False, False), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("command", [["audit", "verify"], ["keys", "rotate"], ["keys", "forget"], ["backup", "copy"], ["restore", "copy"]])
def test_commands_without_a_database_say_so(nabz: Nabz, tmp_path: Path, command: list[str]):
    """Nothing is made, nothing is printed but a sentence."""
    done = nabz(tmp_path, *command)
    assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, ""), done.stderr
    assert done.stderr.startswith("nabz: ") and len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "nabz.db").exists()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that took two cases, one with a photo, and was stopped."""
    folder = tmp_path_factory.mktemp("used")
    photo = ("mole.jpg", (ROOT / "data/sample/photos/mole.jpg").read_bytes(), "image/jpeg")
    with running_service(folder) as service:
        service.send({**CASE, "patient": {"name": "x"}})
        form: dict[str, Any] = {"data": {"case": '{"complaint": "til"}'}, "files": [("photos", photo)]}
        assert service.client.post("/v1/referrals", headers=service.token("clinic"), **form).status_code == 201
    return folder


def copy_of(used: Path, folder: Path) -> Path:
    """A used service's folder of this test's own."""
    return Path(shutil.copytree(used, folder / "own"))


def test_audit_verify_finds_what_was_altered(nabz: Nabz, used: Path, tmp_path: Path):
    """Whole: status 0. A row that was altered: status 1, and its number."""
    folder = copy_of(used, tmp_path)
    whole = nabz(folder, "audit", "verify")
    assert whole.returncode == 0
    assert re.fullmatch(r"the audit trail is whole: \d+ rows\n", whole.stdout)
    with sqlite3.connect(folder / "nabz.db") as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 2")
    altered = nabz(folder, "audit", "verify")
    assert altered.returncode == 1
    assert altered.stdout.startswith("the audit trail is not whole: row 2 was altered, or put in another row's place; 1 rows before it")


def test_missing_keys_are_never_replaced_while_there_is_something_to_open(nabz: Nabz, used: Path, tmp_path: Path):
    """A service whose key file is gone does not start with a new one: it says what to do."""
    folder = copy_of(used, tmp_path)
    (folder / "data/keys.json").unlink()
    done = nabz(folder, "serve", "--demo", "--port", str(free_port()))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "keys.json" in done.stderr and not (folder / "data/keys.json").exists()
    assert re.search(r"backup|copy|put", done.stderr)


def test_backup_and_restore(nabz: Nabz, used: Path, tmp_path: Path):
    """A backup restored elsewhere, with the keys put beside it, is whole and can be served; nothing is overwritten."""
    folder = copy_of(used, tmp_path)
    made = nabz(folder, "backup", str(tmp_path / "copy"))
    assert (made.returncode, made.stderr) == (0, "nabz: database\nnabz: photos\n")
    assert not list((tmp_path / "copy").rglob("keys.json"))
    assert "is not empty" in nabz(folder, "backup", str(tmp_path / "copy")).stderr
    assert "is there already" in nabz(folder, "restore", str(tmp_path / "copy")).stderr
    other = tmp_path / "other"
    other.mkdir()
    assert nabz(other, "restore", str(tmp_path / "copy")).returncode == 0
    shutil.copy(folder / "data/keys.json", other / "data/keys.json")
    assert nabz(other, "audit", "verify").returncode == 0
    assert stored(other) == stored(folder)
    with running_service(other) as service:
        rows = service.client.get("/v1/worklist", headers=service.token("clinician")).json()["items"]
        assert {row["summary"]["complaint"] for row in rows} == {CASE["complaint"], "til"}


def test_keys_are_rotated_while_the_service_runs(nabz: Nabz, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was sealed can be read before, during and after; the old key goes when nothing needs it."""
    folder = copy_of(used, tmp_path)
    monkeypatch.setattr(vault, "_LOOK_SECONDS", 0.0)  # the service looks at the key file each time, not once a second

    def read(service: Service) -> None:
        headers = service.token("clinician")
        rows = service.client.get("/v1/worklist", headers=headers).json()["items"]
        assert {CASE["complaint"], "til"} <= {row["summary"]["complaint"] for row in rows}
        id_ = next(row["id"] for row in rows if row["summary"]["photos"])
        (photo,) = service.client.get(f"/v1/referrals/{id_}", headers=headers).json()["photos"]
        assert service.client.get(f"/v1/referrals/{id_}/photos/{photo['sha256']}", headers=headers).status_code == 200

    with running_service(folder) as service:
        done = nabz(folder, "keys", "rotate")
        assert (done.returncode, done.stdout.split(" ", 1)[1][:28]) == (0, "sealed values have a new key"), done.stderr
        service.send(MILD)
        read(service)
        early = nabz(folder, "keys", "forget")
        assert (early.returncode, early.stdout) == (2, "")
        assert "the newest key was made less than 5 minutes ago" in early.stderr
        keys = service.parts.settings.keys
        keys.write_text(
            re.sub(r'("created": )"[^"]+"', r'\1"2026-01-01T00:00:00+00:00"', keys.read_text(encoding="utf-8")), encoding="utf-8"
        )
        forgotten = nabz(folder, "keys", "forget")
        words = "1 old keys are forgotten: older backups can be read only with a copy of the key file from before\n"
        assert (forgotten.returncode, forgotten.stdout) == (0, words), forgotten.stderr
        service.send(MILD)
    with running_service(folder) as service:
        read(service)
    assert nabz(folder, "audit", "verify").returncode == 0
