"""The batch part of `make bench`: `nabz rank` on Parquet beside raw onnxruntime on the same arrays, its memory, and Dask workers.

`python -m training.bench_batch --n 1000000` is the full size. Raw onnxruntime is measured before and after every ranking, with as
many processes, so that a busy machine slows both alike. Needs `make bench`'s installation, and /proc for the memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.batch import BatchRanker, job_of
from inference.batch_input import look_over
from inference.cluster import rank_on_cluster
from inference.models import live_versions, load_models
from inference.triage import Triage
from training.catalogue import CATALOGUE
from training.synthetic import write_synthetic

NOW = "2026-11-22T10:00:00+05:00"
RAW_ROWS = 1024  # a call: the fastest size for the live bundles on a CPU
_SAMPLE_CASES, _RAW_REPEATS = 8192, 4
_SAMPLE_SECONDS = 0.2
_NABZ = (sys.executable, "-c", "from inference.cli import entry; entry()", "rank")
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """One ranking: seconds from start to end, processor seconds, and the most memory of all its processes together, in bytes."""

    seconds: float
    processor_seconds: float
    peak_rss: int


def main() -> None:
    """Print the rows for an input of `--n` cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-dask", action="store_true", help="leave the Dask rows out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in batch_rows(Path(folder), args.models, args.n, args.jobs, with_dask=not args.no_dask):
            sys.stdout.write(f"{name:<98} {value}\n")
            sys.stdout.flush()


def batch_rows(folder: Path, models: Path, n: int, jobs: int, *, with_dask: bool = True) -> Iterator[tuple[str, str]]:
    """Names and figures, as they are measured."""
    cases = folder / "cases.parquet"
    begun = time.perf_counter()
    write_synthetic(CATALOGUE, n, 7, cases)
    yield f"drawing {n} coded cases: seconds", f"{time.perf_counter() - begun:.1f}"
    symptoms, acuity = fed_arrays(cases, models)
    rows_a_case = len(symptoms["demographics"]) / len(acuity["features"])
    before = raw_cases_a_second(models, symptoms, acuity, jobs)
    run = ranked(cases, folder / "out.parquet", models, ["--jobs", str(jobs)])
    after = raw_cases_a_second(models, symptoms, acuity, jobs)
    raw, ours = (before.by_clock + after.by_clock) / 2, n / run.seconds
    raw_work, our_work = (before.by_processor + after.by_processor) / 2, n / run.processor_seconds
    yield f"nabz rank, {n} cases from Parquet to Parquet, {jobs} processes: cases a second, start included", f"{ours:.0f}"
    yield f"raw onnxruntime on the same arrays ({rows_a_case:.2f} symptom rows and 1 acuity row a case): cases a second", f"{raw:.0f}"
    spread = f"{ours / before.by_clock:.2f} / {ours / after.by_clock:.2f}"
    yield "ratio of the two by the clock (to raw before / after the ranking)", f"{ours / raw:.2f} ({spread})"
    yield "cases a second of processor time: nabz rank, raw, ratio", f"{our_work:.0f}, {raw_work:.0f}, {our_work / raw_work:.2f}"
    yield "ratio by processor time to raw with one symptom row a case, without the second", f"{our_work / (raw_work * rows_a_case):.2f}"
    yield "the most memory of all its processes together (sum of VmRSS, read five times a second): MB", f"{run.peak_rss / 1e6:.0f}"
    if with_dask:
        one, two = (dask_seconds(cases, folder, models, workers) for workers in (1, 2))
        yield "ranking all parts on Dask, two workers of one thread against one: ratio", f"{one / two:.2f} ({one:.1f} s, {two:.1f} s)"


def fed_arrays(cases: Path, models: Path) -> tuple[Feeds, Feeds]:
    """What ranking the first cases feeds to the symptom and the acuity model: all rows, in the order in which they are fed."""
    live = load_models(models)
    symptoms, acuity = live.symptoms, live.acuity
    assert symptoms is not None and acuity is not None  # noqa: PT018 (the bench needs the shipped bundles)
    rows: list[tuple[NDArray[Any], ...]] = []
    features: list[NDArray[np.float32]] = []
    score_rows, score = symptoms.score_rows, acuity.score

    def noted_rows(*arrays: NDArray[Any]) -> Any:
        rows.append(arrays)
        return score_rows(*arrays)

    def noted_features(array: NDArray[np.float32]) -> Any:
        features.append(array)
        return score(array)

    object.__setattr__(symptoms, "score_rows", noted_rows)  # on these two objects alone
    object.__setattr__(acuity, "score", noted_features)
    told = look_over(cases, _SAMPLE_CASES)
    BatchRanker(Triage(live)).rank(told.parts[0], datetime.now(UTC))
    names = ("evidence", "demographics", "log_shift")
    fed = {name: np.concatenate([arrays[place] for arrays in rows]) for place, name in enumerate(names)}
    return fed, {"features": np.concatenate(features)}


@dataclass(frozen=True)
class Raw:
    """Cases a second: of all processes together, and of one second of processor time."""

    by_clock: float
    by_processor: float


def raw_cases_a_second(models: Path, symptoms: Feeds, acuity: Feeds, jobs: int) -> Raw:
    """The live models alone in `jobs` processes at once, over ready arrays, all outputs asked for."""
    with get_context("spawn").Pool(jobs) as pool:
        told = pool.starmap(_raw, [(str(models), symptoms, acuity)] * jobs, chunksize=1)
    return Raw(sum(clock for clock, _ in told), statistics.fmean(processor for _, processor in told))


def _raw(models: str, symptoms: Feeds, acuity: Feeds) -> tuple[float, float]:
    versions = live_versions(Path(models))
    seconds = processor_seconds = 0.0
    for task, feeds in (("symptoms", symptoms), ("acuity", acuity)):
        session = _session((Path(models) / task / versions[task] / "model.onnx").read_bytes())
        n = len(next(iter(feeds.values())))
        batches = [{name: array[start : start + RAW_ROWS] for name, array in feeds.items()} for start in range(0, n, RAW_ROWS)]
        session.run(None, batches[0])
        begun, work = time.perf_counter(), time.process_time()
        for batch in batches * _RAW_REPEATS:
            session.run(None, batch)
        seconds += time.perf_counter() - begun
        processor_seconds += time.process_time() - work
    cases = _RAW_REPEATS * len(acuity["features"])
    return cases / seconds, cases / processor_seconds


def _session(model: bytes) -> Any:
    from training.export import one_thread_session

    return one_thread_session(model)


def ranked(cases: Path, out: Path, models: Path, options: Sequence[str]) -> Run:
    """One `nabz rank` in processes of its own."""
    begun, work = time.perf_counter(), _children_seconds()
    process = subprocess.Popen([*_NABZ, str(cases), "--out", str(out), "--models", str(models), "--now", NOW, *options])
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_rss(pid) for pid in _family(process.pid)))
        time.sleep(_SAMPLE_SECONDS)
    if process.returncode not in (0, 1):
        raise SystemExit(f"nabz rank ended with status {process.returncode}")
    return Run(time.perf_counter() - begun, _children_seconds() - work, peak)


def _children_seconds() -> float:
    """Processor seconds of all processes that this one started, and theirs, once they have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
    return found


def _rss(pid: int) -> int:
    """Resident bytes; pages that processes share count in each."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def dask_seconds(cases: Path, folder: Path, models: Path, workers: int) -> float:
    """Seconds in which a cluster that is up, with its models loaded, ranks all parts of the input; merging is not its work."""
    told = look_over(cases)
    job = job_of(Triage(load_models(models)), models, None, None, datetime.fromisoformat(NOW))
    few = look_over(cases, 64).parts[: 2 * workers]
    with _cluster(workers) as address:
        rank_on_cluster(few, job, folder, address, lambda _: None)
        begun = time.perf_counter()
        rank_on_cluster(told.parts, job, folder, address, lambda _: None)
        return time.perf_counter() - begun


@contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """A Dask scheduler with workers of one thread on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    start: Callable[[list[str]], subprocess.Popen[bytes]] = lambda command: subprocess.Popen(  # noqa: E731 (one use)
        [sys.executable, "-m", "dask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    running = [start(["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"])]
    running += [start(["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]) for _ in range(workers)]
    try:
        from dask.distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(workers, timeout=60)
        yield address
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
