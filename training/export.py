"""From a trained model to a signed bundle: parity first, then the files, the card and the signature.

Knows the bundle's files and nothing of how any task is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.bundle import Bundle, Contract, check_graph, load_bundle
from inference.errors import ExportError
from inference.models import SERVING_FILE, TASKS, live_versions
from inference.service.durable import PUBLIC_FILE, write_durably
from training.card import render_card
from training.onnx_traces import has_traces, without_traces
from training.probe import TOLERANCE, probe_difference
from training.signing import sign

Array = NDArray[Any]
PARITY_TOLERANCE = 1e-4
PARITY_INPUTS = 1000


def check_parity(
    source: Callable[[dict[str, Array]], Mapping[str, Array]],
    model: bytes,
    feeds: dict[str, Array],
    tolerance: float = PARITY_TOLERANCE,
) -> dict[str, float | int]:
    """Compare the exported graph with the model it came from on the rows of `feeds`.

    `source` returns probabilities by output name. Returns the largest absolute difference and the number of rows,
    for the contract. Raises ExportError when any probability differs by more than `tolerance`, or is not finite.
    """
    check_graph(model, "export")
    session = one_thread_session(model)
    expected = source(feeds)
    exported = dict(zip(expected, session.run(list(expected), feeds), strict=True))
    worst = 0.0
    for name, values in expected.items():
        difference = np.max(np.abs(np.asarray(values) - exported[name]))
        if not difference <= tolerance:
            raise ExportError(
                f"the ONNX model's {name} differs from the trained model's by {difference:.2e}, more than {tolerance:.0e}: "
                "it was not written; look for an operator that the converter treats differently"
            )
        worst = max(worst, float(difference))
    return {"max_abs_difference": worst, "rows": len(next(iter(feeds.values())))}


def one_thread_session(model: bytes) -> onnxruntime.InferenceSession:
    """A model of our own, ready to run on one thread; what others made is loaded by `load_bundle`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def write_bundle(folder: Path, model: bytes, contract: Contract, metrics: dict[str, Any]) -> Bundle:
    """Write, sign and load back the bundle. Returns it as inference sees it.

    Raises ExportError when the graph gives other answers to the contract's probe than the trained model gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contract = contract.model_copy(update={"model_sha256": hashlib.sha256(model).hexdigest()})
    files = {
        "model.onnx": model,
        "contract.json": _json(contract.model_dump(mode="json")),
        "metrics.json": _json(metrics),
        "card.md": render_card(contract, metrics).encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sign(folder, files)
    bundle = load_bundle(folder)
    if contract.probe and not (difference := probe_difference(bundle)) <= TOLERANCE:
        raise ExportError(
            f"{folder}: the graph's answers to the contract's probe differ from the trained model's by {difference:.2e}: train it again"
        )
    return bundle


def rewrite_metrics(folder: Path, metrics: dict[str, Any], gained: Mapping[str, Any] | None = None) -> Bundle:
    """Replace the metrics of a bundle that exists, with its card and signature; the model stays byte for byte.

    `gained` are fields of the contract that are replaced as well. Raises BundleError when the bundle was altered: it is not signed again.
    """
    contract = load_bundle(folder).contract.model_copy(update=gained)
    return write_bundle(folder, (folder / "model.onnx").read_bytes(), contract, metrics)


def copy_as_version(folder: Path, version: str, gained: Mapping[str, Any] | None = None) -> Path:
    """Write the bundle in `folder` beside itself as another version; returns the new folder.

    The model's operators and weights stay as they are; notes of the exporter, which older bundles have, are left out. `gained`
    are fields of the contract that the new version has instead of the old ones. Raises BundleError when the bundle was altered,
    ExportError when there is such a version.
    """
    contract = load_bundle(folder).contract
    new = folder.with_name(version)
    if new.exists():
        raise ExportError(f"{new} is there already: a version is never written twice, name the next one")
    figures = (folder / "metrics.json").read_text(encoding="utf-8")
    figures = figures.replace(f"{folder.parent.name}/{folder.name}", f"{folder.parent.name}/{version}")  # in the commands that print them
    contract = contract.model_copy(update={**(gained or {}), "version": version, "created": now_utc()})
    model = (folder / "model.onnx").read_bytes()
    write_bundle(new, without_traces(model) if has_traces(model) else model, contract, json.loads(figures))
    return new


def make_live(models: Path, versions: Mapping[str, str]) -> None:
    """Name the live version of each task in `serving.toml`, in one step; tasks that `versions` leaves out keep theirs.

    Compares nothing and keeps no history: for bundles that may serve patients, use `nabz-train promote`.
    """
    path = models / SERVING_FILE
    live = {**(live_versions(models) if path.is_file() else {}), **versions}
    lines = "".join(f'{task} = "{live[task]}"\n' for task in TASKS if task in live)
    write_durably(path, f"# Which version of each task is live.\n{lines}".encode(), mode=PUBLIC_FILE)


def now_utc() -> str:
    """The time of an export, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder: of the names and hashes of its files in order."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    inner = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        inner.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return inner.hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
