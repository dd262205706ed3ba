"""The one place that speaks to MLflow (with tracking_model.py and tracking_data.py): experiments, runs, data inputs, registered models, aliases.

Knows no task. The store is a local sqlite file, with its files beside it in `mlruns/`, unless MLFLOW_TRACKING_URI says
otherwise. An experiment and a registered model are called `nabz-<task>`; a registered version is one bundle. `champion` is the
bundle that was promoted, `challenger` the one trained last; a smoke run only gets `smoke`. Machine figures (memory, GPU) are
recorded when MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
# An unreachable server is told after seconds, not after many minutes of trying.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from inference.bundle import load_bundle
from inference.errors import TrackingError
from training.tracking_data import LearnedData, measured_on
from training.tracking_model import log_onnx_model

DEFAULT_STORE = "sqlite:///mlflow.db"
CHAMPION, CHALLENGER, SMOKE = "champion", "challenger", "smoke"
_PARAMETER_LENGTH = 500
_SQLITE = "sqlite:///"
_PASSWORD = re.compile(r"(//[^:/@\s]*):[^@/\s]*@")


@dataclass(frozen=True)
class TrackedRun:
    """A started run: log numbers while training, figures and files at the end, and the bundle once it is measured."""

    run_id: str
    task: str
    parameters: Mapping[str, str]
    data: Mapping[str, LearnedData] = field(repr=False)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of the training itself; NaN is left out, because trackers draw it as a value."""
        mlflow.log_metrics({_metric_name(name): value for name, value in values.items() if value == value}, step=step)

    def log_figure(self, figure: Any, name: str) -> None:
        """Log a matplotlib figure as `plots/<name>.png`."""
        mlflow.log_figure(figure, f"plots/{name}.png")

    def log_file(self, path: Path, folder: str) -> None:
        """Log a file that was written elsewhere into a folder of the run's files."""
        mlflow.log_artifact(str(path), folder)

    def log_document(self, document: Mapping[str, Any], name: str) -> None:
        """Log figures as `tables/<name>.json`."""
        mlflow.log_dict(dict(document), f"tables/{name}.json")

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log a table as `tables/<name>.json`. Nothing that tells who a patient is may stand in it."""
        self.log_document({"rows": rows}, name)

    def log_bundle(self, folder: Path, *, is_new: bool = True) -> str:
        """Log the measured bundle: its files, the graph as a registered model, and its figures linked to that model.

        The new version gets the alias `challenger`, or `smoke` where it was trained with --smoke; none when the bundle is not
        new. Returns the version.
        """
        with _store_errors():
            bundle = load_bundle(folder)
            contract = bundle.contract
            tags = {
                "bundle_version": contract.version,
                "bundle_sha256": bundle.sha256,
                "model_sha256": contract.model_sha256,
                "settings_sha256": str(contract.training.get("settings_sha256") or _settings_hash(self.parameters)),
                "commit": str(contract.training.get("commit", current_commit())),
            }
            mlflow.set_tags(tags)
            mlflow.log_artifacts(str(folder), "bundle")
            name = registered_name(contract.task)
            model = log_onnx_model(bundle, folder, name, tags, self.parameters)
            self._log_figures(json.loads((folder / "metrics.json").read_text(encoding="utf-8")), model.model_id)
            registered = str(model.registered_model_version)
            is_smoke = str(contract.training.get("smoke", self.parameters.get("smoke"))) == "True"
            _describe(name, registered, tags, _description(contract, is_smoke=is_smoke))
            if is_new:
                MlflowClient().set_registered_model_alias(name, SMOKE if is_smoke else CHALLENGER, registered)
            return registered

    def _log_figures(self, report: Mapping[str, Any], model_id: str) -> None:
        """Each figure with its bounds, linked to the model and, where the evaluation's title names one, to the data set."""
        for title, part in report["evaluations"].items():
            values = {}
            for name, figure in part["metrics"].items():
                for bound in ("value", "low", "high"):
                    if figure[bound] is not None:
                        values[_metric_name(f"{title}.{name}{'' if bound == 'value' else f'.{bound}'}")] = float(figure[bound])
            mlflow.log_metrics(values, model_id=model_id, dataset=measured_on(title, self.data))


@contextmanager
def tracked_run(
    task: str,
    parameters: Mapping[str, Any],
    data_checksums: Mapping[str, str],
    data_card: Mapping[str, Any] | None = None,
) -> Iterator[TrackedRun]:
    """Run the body inside an MLflow run of the experiment `nabz-<task>`, with the data that it learns from as inputs.

    `data_checksums` are SHA-256 by the data's name, `data_card` counts of what the run makes of them: never a row.
    Raises TrackingError when the store cannot be used.
    """
    kept = {name: str(value)[:_PARAMETER_LENGTH] for name, value in parameters.items()}
    data = {name: LearnedData(name, checksum, data_card or {}) for name, checksum in data_checksums.items()}
    with _store_errors():
        mlflow.set_tracking_uri(tracking_uri())
        _open_experiment(registered_name(task))
        started = mlflow.start_run()
    with started as run:
        with _store_errors():
            checksums = {f"data.{name}": checksum for name, checksum in data_checksums.items()}
            mlflow.set_tags({"commit": current_commit(), "settings_sha256": _settings_hash(kept), **checksums})
            mlflow.log_params(kept)
            for one in data.values():
                mlflow.log_input(one, context="training")
        yield TrackedRun(run.info.run_id, task, kept, data)


def alias_promoted(task: str, version: str, bundle_sha256: str, folder: Path | None = None) -> str | None:
    """Give the alias `champion` to the registered version of a bundle that went live; returns a sentence of what was done.

    A bundle that no version stands for (its contract was written again after it was logged, or it was trained elsewhere) is
    logged from its `folder` first, in a run of its own. None when there is no registered model of that task, or no store: a
    promotion does not need one. A store that cannot be used is told in the sentence and never stops a promotion.
    """
    uri = tracking_uri()
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        return None
    name = registered_name(task)
    try:
        with _store_errors():
            mlflow.set_tracking_uri(uri)
            client = MlflowClient()
            if not client.search_registered_models(f"name = '{name}'"):
                return None
            found = _version_of(client, name, bundle_sha256)
            if found is None and folder is not None:
                found = _logged_late(task, folder)
            if found is None:
                return f"MLflow's {name} has no version of bundle {version} (SHA-256 {bundle_sha256[:12]}): no alias was changed"
            return _made_champion(client, name, found, version)
    except TrackingError as error:
        return f"MLflow was not told: {error}"


def _made_champion(client: MlflowClient, name: str, registered: str, version: str) -> str:
    aliases = {alias: str(one) for alias, one in client.get_registered_model(name).aliases.items()}
    before = aliases.get(CHAMPION)
    client.set_registered_model_alias(name, CHAMPION, registered)
    if aliases.get(CHALLENGER) == registered:
        client.delete_registered_model_alias(name, CHALLENGER)
    moved = "" if before in {None, registered} else f"; it was version {before}"
    return f"MLflow: {CHAMPION} of {name} is version {registered}, bundle {version}{moved}"


def _version_of(client: MlflowClient, name: str, bundle_sha256: str) -> str | None:
    """The registered version that stands for exactly this bundle, the newest where there are several."""
    found = client.search_model_versions(f"name = '{name}' and tags.bundle_sha256 = '{bundle_sha256}'")
    return max((str(one.version) for one in found), key=int, default=None)


def _logged_late(task: str, folder: Path) -> str:
    """Log a bundle that exists, with what its contract says of its data; returns its registered version."""
    contract = load_bundle(folder).contract
    checksums = {source.name: source.sha256 for source in contract.data}
    settings = {"logged": "after its training", "seed": contract.training.get("seed")}
    with tracked_run(task, settings, checksums) as run:
        return run.log_bundle(folder, is_new=False)


def tracking_uri() -> str:
    """Where runs are kept: MLFLOW_TRACKING_URI, or the local sqlite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def registered_name(task: str) -> str:
    """The name of a task's experiment and registered model."""
    return f"nabz-{task}"


def current_commit() -> str:
    """The git commit of the working tree, with `+` when it has changes; `unknown` outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@contextmanager
def _store_errors() -> Iterator[None]:
    """MLflow's errors as ours, with what to do next; a password in the address is not repeated.

    A local store of an older MLflow is brought up to date by MLflow itself; what it refuses needs a person.
    """
    try:
        yield
    except MlflowException as error:
        where, why = (_PASSWORD.sub(r"\1:…@", text) for text in (tracking_uri(), str(error).splitlines()[0]))
        if "out-of-date database schema" in why:
            raise TrackingError(
                f"the experiment store {where} is not of this version of MLflow ({mlflow.__version__}): copy it away, then run "
                f"`mlflow db upgrade {where}`; if a newer MLflow made it, install that one"
            ) from error
        raise TrackingError(
            f"the experiment store {where} cannot be used: {why[:300]}; "
            "set MLFLOW_TRACKING_URI to a server that answers, or unset it for the local file"
        ) from error


def _open_experiment(name: str) -> None:
    """Make it the active one; one of a local store that is new keeps its files beside the database, wherever we are called."""
    uri = tracking_uri()
    if uri.startswith(_SQLITE) and mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, (Path(uri.removeprefix(_SQLITE)).resolve().parent / "mlruns" / name).as_uri())
    mlflow.set_experiment(name)


def _describe(name: str, version: str, tags: Mapping[str, str], description: str) -> None:
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.update_model_version(name, version, description)


def _description(contract: Any, *, is_smoke: bool) -> str:
    first = "**A smoke run: it shows that training works and is not for use.** " if is_smoke else ""
    return f"{first}{contract.intended_use} Bundle {contract.version}. Decision support; not clinically validated. Its card lies in the run's files, bundle/card.md."


def _settings_hash(parameters: Mapping[str, str]) -> str:
    """SHA-256 over the parameters in the order of their names, or the one that the trainer worked out."""
    return parameters.get("settings_sha256") or hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def _metric_name(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "_", name)
