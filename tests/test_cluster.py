"""The Dask engine on a scheduler and worker processes of this machine: the local engine's bytes, also when a worker is killed."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from batch_cases import NOW, random_rows, table_of

from inference.batch import Job, job_of
from inference.batch_input import Input, look_over
from inference.batch_merge import merged, write_parquet
from inference.batch_processes import part_path, rank_in_processes
from inference.cli import main
from inference.cluster import rank_on_cluster
from inference.errors import BundleError, CaseError
from inference.models import load_models
from inference.triage import Triage

ROWS = 600


@dataclass
class Cluster:
    address: str
    workers: list[subprocess.Popen]

    def add_worker(self) -> None:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--death-timeout", "30"]
        self.workers.append(start("worker", self.address, *options))


def start(kind: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dask", kind, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A scheduler with two workers of one thread each, as `dask scheduler` and `dask worker` start them."""
    port = free_port()
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    running = Cluster(f"tcp://127.0.0.1:{port}", [])
    try:
        running.add_worker()
        running.add_worker()
        yield running
    finally:
        for process in (*running.workers, scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def job(models_folder: Path) -> Job:
    return job_of(Triage(load_models(models_folder)), models_folder, None, None, NOW)


@pytest.fixture(scope="module")
def told(models_folder: Path, tmp_path_factory) -> Input:
    """600 cases in parts of 30 rows; some share their ids, some must be read one by one."""
    path = tmp_path_factory.mktemp("in") / "cases.parquet"
    pq.write_table(table_of(random_rows(load_models(models_folder).symptoms, ROWS, seed=9)), path)
    return look_over(path, 30)


@pytest.fixture(scope="module")
def local(told: Input, job: Job, tmp_path_factory) -> bytes:
    """The worklist of the local engine, as its file's bytes."""
    folder = tmp_path_factory.mktemp("local")
    rank_in_processes(told.parts, job, folder, 1, lambda _: None)
    return worklist(told, folder)


def worklist(told: Input, folder: Path) -> bytes:
    write_parquet(merged([part_path(folder, part) for part in told.parts]), folder / "out.parquet", "{}")
    return (folder / "out.parquet").read_bytes()


def wait_for_workers(address: str, count: int) -> None:
    from dask.distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_a_killed_worker_costs_no_row_and_doubles_none(cluster, told, job, local, tmp_path):
    """One of two workers gets SIGKILL while it ranks: the worklist has the bytes of the local engine's."""
    wait_for_workers(cluster.address, 2)
    done: list[int] = []

    def kill_one(rows: int) -> None:
        done.append(rows)
        if len(done) == 4:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)

    rank_on_cluster(told.parts, job, tmp_path, cluster.address, kill_one)
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    assert len(done) == len(told.parts) == 20
    assert sum(done) == ROWS
    assert worklist(told, tmp_path) == local


def test_the_command_ranks_on_a_cluster(cluster, told, models_folder, tmp_path):
    """`nabz rank --engine dask` writes the bytes that it writes without."""
    source = told.parts[0].pieces[0].path
    for name, options in (("local", ["--jobs", "1"]), ("dask", ["--engine", "dask", "--scheduler", cluster.address])):
        arguments = ["rank", source, "--out", str(tmp_path / f"{name}.parquet"), "--now", NOW.isoformat(), "--models", str(models_folder)]
        assert main([*arguments, *options]) == 1
    assert (tmp_path / "dask.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


def test_a_worker_with_other_models_refuses(cluster, told, job, tmp_path):
    """What a worker raises reaches the one who asked, in its words."""
    with pytest.raises(BundleError, match="acuity: not the same here as where the batch began"):
        rank_on_cluster(told.parts[:1], replace(job, expected=(("acuity", "0"), *job.expected[1:])), tmp_path, cluster.address, print)


def test_a_scheduler_that_is_not_there_is_named(told, job, tmp_path, monkeypatch):
    """Nobody at the address: one sentence with the address."""
    monkeypatch.setattr("inference.cluster.CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    with pytest.raises(CaseError) as raised:
        rank_on_cluster(told.parts, job, tmp_path, address, print)
    assert str(raised.value) == (
        f"no Dask scheduler with a worker answers at {address}: start `dask scheduler` and `dask worker`, and name its address"
    )
    assert time.monotonic() - begun < 30


def test_without_dask_the_extra_is_named(told, job, tmp_path, monkeypatch):
    """Where Dask is not installed, the error says which extra brings it."""

    def refuse(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(CaseError) as raised:
        rank_on_cluster(told.parts, job, tmp_path, "tcp://127.0.0.1:1", print)
    assert str(raised.value) == "--engine dask needs Dask, which is not installed: pip install 'nabz[cluster]'"
