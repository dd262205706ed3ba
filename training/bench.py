"""`make bench`: speed on this machine, as ratios inside one run. Prints a table; asserts nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.models import live_versions
from training.bench_batch import batch_rows
from training.bench_photo import photo_rows, seconds_of
from training.bench_queue import service_rows
from training.catalogue import CATALOGUE
from training.synthetic import write_synthetic

CASES = 10_000
BATCH_CASES = 100_000


def main() -> None:
    """Time the batch command on cases and photos, each beside a plainer way of doing the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n", type=int, default=BATCH_CASES, help="cases of the batch that is ranked from Parquet")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *_cases(Path(folder), args.models),
            *photo_rows(Path(folder), args.models, args.threads),
            *service_rows(args.models),
            *batch_rows(Path(folder), args.models, args.n, args.threads),
        ]
    for name, value in rows:
        sys.stdout.write(f"{name:<78} {value}\n")


def _cases(folder: Path, models: Path) -> list[tuple[str, str]]:
    file = folder / "cases.jsonl"
    write_synthetic(CATALOGUE, CASES, 7, file)
    command = [
        sys.executable,
        "-c",
        "from inference.cli import entry; entry()",
        "rank",
        str(file),
        "--format",
        "json",
        "--models",
        str(models),
    ]
    seconds = seconds_of(lambda: subprocess.run([*command, "--out", str(folder / "out.jsonl")], check=False, stderr=subprocess.DEVNULL))
    bundle = load_bundle(models / "symptoms" / live_versions(models)["symptoms"])
    feeds = _feeds(bundle, CASES)
    raw = seconds_of(lambda: bundle.run(feeds))
    return [
        (f"nabz rank, {CASES} cases with complaint text, no photo: seconds, start included", f"{seconds:.2f}"),
        ("the same against the bare symptom model in onnxruntime on ready arrays: ratio", f"{seconds / raw:.1f}"),
    ]


def _feeds(bundle: Bundle, n: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    _, slots = bundle.contract.inputs[0].shape
    return {
        "evidence": random.integers(-1, 2, (n, int(slots))).astype(np.float32),
        "demographics": random.integers(0, 18, n),
        "log_shift": np.zeros((n, len(bundle.contract.labels)), dtype=np.float32),
    }


if __name__ == "__main__":
    main()
