"""The one place that speaks to MLflow: a run with parameters, seed, commit, data checksums, metrics and plots.

Knows no task. The store is a local sqlite file unless MLFLOW_TRACKING_URI says otherwise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

import mlflow

DEFAULT_STORE = "sqlite:///mlflow.db"
_PARAMETER_LENGTH = 500


@dataclass(frozen=True)
class TrackedRun:
    """A started run: log numbers while training, and figures and files at the end."""

    run_id: str

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; NaN is left out, because trackers draw it as a value."""
        safe = {_metric_name(name): value for name, value in values.items() if value == value}
        mlflow.log_metrics(safe, step=step)

    def log_report(self, report: Mapping[str, Any]) -> None:
        """Log a metrics document: each figure with its bounds, and the document itself."""
        mlflow.log_dict(dict(report), "metrics.json")
        for title, part in report["evaluations"].items():
            for name, figure in part["metrics"].items():
                for bound in ("value", "low", "high"):
                    if figure[bound] is not None:
                        suffix = "" if bound == "value" else f".{bound}"
                        mlflow.log_metric(_metric_name(f"{title}.{name}{suffix}"), figure[bound])

    def log_figure(self, figure: Any, name: str) -> None:
        """Log a matplotlib figure as `plots/<name>.png`."""
        mlflow.log_figure(figure, f"plots/{name}.png")

    def log_bundle(self, folder: Path) -> None:
        """Attach the exported bundle's files."""
        mlflow.log_artifacts(str(folder), "bundle")


@contextmanager
def tracked_run(task: str, parameters: Mapping[str, Any], data_checksums: Mapping[str, str]) -> Iterator[TrackedRun]:
    """Run the body inside an MLflow run of the experiment `nabz-<task>`."""
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE))
    mlflow.set_experiment(f"nabz-{task}")
    with mlflow.start_run() as run:
        mlflow.set_tags({"commit": current_commit(), **{f"data.{k}": v for k, v in data_checksums.items()}})
        mlflow.log_params({name: str(value)[:_PARAMETER_LENGTH] for name, value in parameters.items()})
        yield TrackedRun(run.info.run_id)


def current_commit() -> str:
    """The git commit of the working tree, with `+` when it has changes; `unknown` outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/`."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)
