"""Tests of the tracking: what a run, its model, its registered version and its aliases hold, and stores that cannot be used."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import mlflow
import numpy as np
import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from mlflow.tracking import MlflowClient
from onnx import TensorProto, helper, numpy_helper

from inference.bundle import Bundle, Contract, load_bundle
from inference.errors import TrackingError
from training import cli, queue_waits, tracking
from training.export import write_bundle
from training.tracking import alias_promoted, tracked_run
from training.tracking_model import input_example, pip_requirements

CHECKSUM = "c6fd7c8de6daa4f9a8ba66696b411d7327d0bd5d555f21b30643aae5042243ca"  # of the NHAMCS visits in data/sources.toml
OLD_REVISION = "4465047574b1"  # of MLflow's tables
FIGURE = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 16}
UNDEFINED = {"value": None, "low": None, "high": None, "n": 0}
REPORT = {
    "command": "nabz-train evaluate models/tiny",
    "evaluations": {
        "NHAMCS visits, made up": {"n": 16, "metrics": {"under_triage": FIGURE, "auc": UNDEFINED}, "subgroups": {}},
        "others": {"n": 16, "metrics": {"under_triage": {**FIGURE, "value": 0.375}}, "subgroups": {}},
    },
}
ROWS = {"features": np.array([[0.0, 0.0], [1.0, -2.0], [3.0, 0.5]], dtype=np.float32), "group": np.array([0, 1, 1])}


def graph(bias: float) -> bytes:
    """`probability`: the sigmoid of the features' sum, the group and a bias."""
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["group"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["sum", "as_float"], ["more"]),
        helper.make_node("Add", ["more", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("group", TensorProto.INT64, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n"])]
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        numpy_helper.from_array(np.array(bias, dtype=np.float32), "bias"),
    ]
    made = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def made_bundle(folder: Path, bias: float = 0.0, intended_use: str = "Shows how a model is tracked.") -> Bundle:
    """A signed bundle of that graph; its folder's name is its version."""
    contract = Contract.model_validate(
        {
            "task": "tiny",
            "version": folder.name,
            "created": "2026-01-01T00:00:00+00:00",
            "model_sha256": "",
            "inputs": [
                {"name": "features", "dtype": "float32", "shape": ["n", 2], "meaning": "two numbers"},
                {"name": "group", "dtype": "int64", "shape": ["n"], "meaning": "0 or 1"},
            ],
            "outputs": [{"name": "probability", "dtype": "float32", "shape": ["n"], "meaning": "in [0, 1]"}],
            "labels": [{"name": "a", "name_en": "A"}],
            "intended_use": intended_use,
            "limits": ["Made up."],
            "licence": "Apache-2.0",
            "data": [{"name": "made-up", "licence": "CC0", "sha256": "ab12", "citation": "Nobody."}],
            "training": {"seed": 7, "commit": "0123456789ab"},
        }
    )
    return write_bundle(folder, graph(bias), contract, REPORT)


def logged(folder: Path, bias: float, *, smoke: bool = False, experiment: str = "tiny") -> tuple[Bundle, str, str]:
    """A bundle made and logged as trainers do it: the bundle, its run and its registered version."""
    bundle = made_bundle(folder, bias)
    with tracked_run(
        experiment, {"seed": 7, "smoke": smoke}, {"nhamcs_ed": CHECKSUM, "ktas": "ab" * 32}, {"rows": 16, "row_is": "visits"}
    ) as run:
        run.log_metrics({"loss": 0.5, "undefined": float("nan")}, 0)
        version = run.log_bundle(folder)
    return bundle, run.run_id, version


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose store and key are this module's own, with the list of data sources that the project has."""
    folder = tmp_path_factory.mktemp("tracking")
    (folder / "data").mkdir()
    listed = Path(__file__).resolve().parent.parent / "data" / "sources.toml"
    (folder / "data" / "sources.toml").write_bytes(listed.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("NABZ_SIGNING_KEY", raising=False)
        yield folder


@pytest.fixture(scope="module")
def first(home: Path) -> tuple[Bundle, str, str]:
    """The first bundle that was logged there."""
    return logged(home / "models" / "tiny" / "1.0.0", 0.25)


def aliases_of(client: MlflowClient) -> dict[str, str]:
    """The registered versions by alias."""
    return {alias: str(version) for alias, version in client.get_registered_model("nabz-tiny").aliases.items()}


@pytest.fixture
def client(first: tuple[Bundle, str, str]) -> MlflowClient:
    """MLflow's own client on that store."""
    mlflow.set_tracking_uri(tracking.DEFAULT_STORE)
    return MlflowClient()


def test_the_store_is_a_local_file_and_nothing_is_sent_or_unpickled(home, first):
    """Without any setting: the database and the files lie where the command was called."""
    assert (home / "mlflow.db").is_file()
    assert sorted(path.name for path in (home / "mlruns").iterdir()) == ["nabz-tiny"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_a_run_has_its_settings_commit_and_data_but_no_row(client, first):
    """Data are inputs by name, origin, checksum and counts; a checksum in data/sources.toml is told with its licence."""
    run = client.get_run(first[1])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "7", "smoke": "False"}
    assert run.data.metrics["loss"] == 0.5
    assert "undefined" not in run.data.metrics
    assert run.data.tags["data.nhamcs_ed"] == CHECKSUM
    assert len(run.data.tags["settings_sha256"]) == 64
    inputs = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    assert sorted(inputs) == ["ktas", "nhamcs_ed"]
    visits = inputs["nhamcs_ed"].dataset
    assert visits.digest == CHECKSUM[:36]
    assert json.loads(visits.profile) == {"sha256": CHECKSUM, "rows": 16, "row_is": "visits"}
    assert json.loads(visits.source)["tags"] == {
        "sha256": CHECKSUM,
        "title": "NHAMCS-ED public-use visits 2015-2019",
        "from": "National Center for Health Statistics, Ambulatory Health Care Data",
        "licence": "US public domain; statistics only, no re-identification",
    }
    assert json.loads(inputs["ktas"].dataset.source)["tags"]["from"].startswith("not in data/sources.toml")
    assert [tag.value for tag in inputs["ktas"].tags if tag.key == "mlflow.data.context"] == ["training"]


def test_the_model_has_the_contract_s_signature_and_pinned_requirements(client, first):
    """Names, types and shapes are the contract's, with -1 for its `n`; nothing in the model's folder is pickled."""
    bundle, _, version = first
    info = mlflow.models.get_model_info(f"models:/nabz-tiny/{version}")
    for schema, specs in ((info.signature.inputs, bundle.contract.inputs), (info.signature.outputs, bundle.contract.outputs)):
        told = [(one.name, str(one.type), one.shape) for one in schema]
        assert told == [(spec.name, spec.dtype, tuple(-1 if size == "n" else size for size in spec.shape)) for spec in specs]
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/nabz-tiny/{version}"))
    needed = (folder / "requirements.txt").read_text().split()
    assert sorted(needed) == sorted([*pip_requirements(), f"mlflow=={mlflow.__version__}"])
    assert {one.split("==")[0] for one in pip_requirements()} == {"numpy", "onnx", "onnxruntime"}
    assert not [path.name for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib"}]
    assert info.metadata == {"task": "tiny", "bundle_sha256": bundle.sha256}
    assert json.loads((folder / "serving_input_example.json").read_text())["inputs"] == {"features": [[0.0, 0.0]], "group": [0]}


def test_the_logged_model_answers_as_the_bundle_does(client, first):
    """Loaded back in both of MLflow's ways; the onnx flavour's graph is the bundle's."""
    bundle, _, version = first
    ours = bundle.run(ROWS)["probability"]
    assert ours[0] == pytest.approx(1 / (1 + np.exp(-0.25)))
    loaded = mlflow.pyfunc.load_model(f"models:/nabz-tiny/{version}")
    np.testing.assert_array_equal(loaded.predict(ROWS)["probability"], ours)
    assert mlflow.onnx.load_model(f"models:/nabz-tiny/{version}").SerializeToString() == graph(0.25)
    assert sorted(loaded.predict(input_example(bundle.contract))) == ["probability"]


def test_figures_are_linked_to_the_model_and_to_the_data_they_are_of(client, first):
    """Each with its bounds; an undefined one is left out; the title of an evaluation says which data it is of."""
    _, run_id, version = first
    model = client.get_logged_model(client.get_model_version("nabz-tiny", version).source.removeprefix("models:/"))
    assert (model.source_run_id, model.model_type) == (run_id, "tiny")
    figures = {metric.key: metric for metric in model.metrics}
    assert {name: metric.value for name, metric in figures.items()} == {
        "loss": 0.5,
        "NHAMCS visits_ made up.under_triage": 0.25,
        "NHAMCS visits_ made up.under_triage.low": 0.125,
        "NHAMCS visits_ made up.under_triage.high": 0.5,
        "others.under_triage": 0.375,
        "others.under_triage.low": 0.125,
        "others.under_triage.high": 0.5,
    }
    assert figures["NHAMCS visits_ made up.under_triage"].dataset_name == "nhamcs_ed"
    assert figures["NHAMCS visits_ made up.under_triage"].dataset_digest == CHECKSUM[:36]
    assert figures["others.under_triage"].dataset_name is None
    assert client.get_run(run_id).data.metrics["others.under_triage"] == 0.375


def test_the_registered_version_stands_for_exactly_this_bundle(client, first):
    """By tags, a description and the alias of the newest; the run keeps the whole bundle."""
    bundle, run_id, version = first
    registered = client.get_model_version("nabz-tiny", version)
    assert registered.tags == {
        "bundle_version": "1.0.0",
        "bundle_sha256": bundle.sha256,
        "model_sha256": bundle.contract.model_sha256,
        "settings_sha256": client.get_run(run_id).data.tags["settings_sha256"],
        "commit": "0123456789ab",
    }
    assert registered.description == (
        "Shows how a model is tracked. Bundle 1.0.0. Decision support; not clinically validated. "
        "Its card lies in the run's files, bundle/card.md."
    )
    assert aliases_of(client)["challenger"] == version
    kept = sorted(one.path for one in client.list_artifacts(run_id, "bundle"))
    assert kept == [f"bundle/{name}" for name in ("card.md", "contract.json", "metrics.json", "model.onnx", "signature")]


def test_promotion_moves_champion_and_says_so(client, first, home):
    """The second bundle takes over from the first, and the first comes back; a challenger that was promoted is none any more."""
    bundle, _, version = first
    told = alias_promoted("tiny", "1.0.0", bundle.sha256)
    assert told == f"MLflow: champion of nabz-tiny is version {version}, bundle 1.0.0"
    assert aliases_of(client) == {"champion": version}
    newer, _, second = logged(home / "models" / "tiny" / "1.1.0", 0.5)
    assert aliases_of(client) == {"champion": version, "challenger": second}
    told = alias_promoted("tiny", "1.1.0", newer.sha256)
    assert told == f"MLflow: champion of nabz-tiny is version {second}, bundle 1.1.0; it was version {version}"
    assert alias_promoted("tiny", "1.0.0", bundle.sha256) == (
        f"MLflow: champion of nabz-tiny is version {version}, bundle 1.0.0; it was version {second}"
    )


def test_a_smoke_run_never_becomes_the_challenger(client, home):
    """It gets an alias of its own, and its description says what it is."""
    before = aliases_of(client).get("challenger")
    _, _, version = logged(home / "models" / "tiny" / "0.0.1", 0.75, smoke=True)
    aliases = aliases_of(client)
    assert (aliases["smoke"], aliases.get("challenger")) == (version, before)
    told = client.get_model_version("nabz-tiny", version).description
    assert told.startswith("**A smoke run: it shows that training works and is not for use.** Shows how")


def test_a_bundle_that_was_never_logged_is_logged_when_it_goes_live(client, home):
    """Without its folder nothing is changed, and the sentence says why."""
    folder = home / "models" / "tiny" / "1.2.0"
    bundle = made_bundle(folder, 1.0)
    _, _, waiting = logged(home / "models" / "tiny" / "1.3.0", 1.5)
    before = aliases_of(client)
    assert alias_promoted("tiny", "1.2.0", bundle.sha256) == (
        f"MLflow's nabz-tiny has no version of bundle 1.2.0 (SHA-256 {bundle.sha256[:12]}): no alias was changed"
    )
    assert aliases_of(client) == before
    told = alias_promoted("tiny", "1.2.0", bundle.sha256, folder)
    champion = client.get_model_version_by_alias("nabz-tiny", "champion")
    assert told is not None and told.startswith(f"MLflow: champion of nabz-tiny is version {champion.version}, bundle 1.2.0")
    assert champion.tags["bundle_sha256"] == bundle.sha256
    assert aliases_of(client)["challenger"] == waiting
    assert client.get_run(champion.run_id).data.params == {"logged": "after its training", "seed": "7"}


def test_a_promotion_needs_no_mlflow(client, tmp_path, monkeypatch):
    """No store: nothing, and none is made. A store without such a model: nothing. One that is broken: a sentence."""
    assert alias_promoted("never-trained", "1.0.0", "ab" * 32) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert alias_promoted("tiny", "1.0.0", "ab" * 32) is None
    assert not (tmp_path / "none.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = alias_promoted("tiny", "1.0.0", "ab" * 32)
    assert told is not None
    assert told.startswith("MLflow was not told: the experiment store http://someone:…@127.0.0.1:9 cannot be used: ")
    assert told.endswith("; set MLFLOW_TRACKING_URI to a server that answers, or unset it for the local file")
    assert "secret" not in told


def store_of_revision(path: Path, revision: str) -> str:
    """The address of a database as MLflow left it at that revision of its tables, with one experiment in it."""
    url = f"sqlite:///{path}"
    engine = sqlalchemy.create_engine(url)
    InitialBase.metadata.create_all(engine)
    config = _get_alembic_config(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.execute(
            sqlalchemy.text("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'nabz-old', 'active')")
        )
    engine.dispose()
    return url


def test_a_store_of_an_older_mlflow_opens_and_keeps_what_it_has(tmp_path, monkeypatch):
    """One of 2023, before there were logged models: MLflow brings it up to date, and the new run stands beside the old experiment."""
    url = store_of_revision(tmp_path / "old.db", OLD_REVISION)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with tracked_run("tiny", {"seed": 1}, {}) as run:
        assert MlflowClient().get_run(run.run_id).data.params == {"seed": "1"}
    assert {"nabz-old", "nabz-tiny"} <= {one.name for one in MlflowClient().search_experiments()}


def test_a_store_that_mlflow_refuses_says_what_to_do(first, home, tmp_path, monkeypatch):
    """The tables of this version under the mark of another one: nobody knows what is in it."""
    path = tmp_path / "other.db"
    shutil.copy(home / "mlflow.db", path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (OLD_REVISION,))
    connection.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(TrackingError) as caught, tracked_run("tiny", {"seed": 1}, {}):
        pass
    assert str(caught.value) == (
        f"the experiment store sqlite:///{path} is not of this version of MLflow ({mlflow.__version__}): copy it away, then run "
        f"`mlflow db upgrade sqlite:///{path}`; if a newer MLflow made it, install that one"
    )


def test_the_trainer_s_run_holds_model_plots_and_tables(tiny_release, home, monkeypatch):
    """A whole `nabz-train symptoms` on a release of two conditions: its version, its plots, its errors, its simulated waits."""
    monkeypatch.setattr(queue_waits, "_HOURS", {"replications": 2, "warm_up_hours": 4.0, "measured_hours": 24.0})
    out = home / "models" / "symptoms-ddxplus" / "0.0.1"
    words = ["symptoms", "--data", str(tiny_release), "--out", str(out), "--version", "0.0.1", "--steps", "2", "--smoke", "--quiet"]
    assert cli.main([*words, "--threads", "1"]) == cli.DONE
    client = MlflowClient()
    registered = client.get_model_version_by_alias("nabz-symptoms-ddxplus", "smoke")
    assert registered.tags["bundle_sha256"] == load_bundle(out).sha256
    (run,) = mlflow.search_runs(experiment_names=["nabz-symptoms-ddxplus"], output_format="list")
    assert registered.run_id == run.info.run_id
    files = {one.path for folder in ("plots", "tables", "bundle") for one in client.list_artifacts(run.info.run_id, folder)}
    assert files >= {
        "plots/leading_reliability.png",
        "plots/severe_reliability.png",
        "plots/severe_roc.png",
        "plots/severe_decision_curve.png",
        "plots/set_sizes.png",
        "plots/levels_confusion.png",
        "plots/queue_waits.png",
        "tables/queue_waits.json",
        "tables/confused_conditions.json",
        "bundle/card.md",
    }
    assert "real test patients_ full evidence.missed_severe" in run.data.metrics
    errors = json.loads(Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/tables/confused_conditions.json")).read_text())
    assert {row["true"] for row in errors["rows"]} <= {"flu", "cold"}
    assert all(set(row) == {"true", "predicted", "cases", "of", "is_milder"} for row in errors["rows"])


def test_mlflow_is_spoken_to_in_one_place():
    """The tracking files alone, and the bench that measures MLflow's own server; the inference package never."""
    root = Path(__file__).resolve().parent.parent
    speaks = {
        path.relative_to(root).as_posix()
        for package in ("training", "inference")
        for path in (root / package).rglob("*.py")
        if re.search(r"^\s*(import|from) mlflow", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    ours = {f"training/{name}.py" for name in ("tracking", "tracking_data", "tracking_model")}
    assert speaks == ours | {"training/bench_mlflow.py"}


def asked(port: int, path: str) -> bytes:
    """What the server answers to a GET; an error unless it is well."""
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read()


def test_the_server_opens_the_store_shows_what_is_in_it_and_takes_runs(first, home, monkeypatch):
    """As `make mlflow` starts it: page, files and aliases are there, and a run is logged through it when its address is set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--backend-store-uri", tracking.DEFAULT_STORE, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (home / "server.log").open("wb") as log:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        call = [sys.executable, "-m", "mlflow", *words]
        server = subprocess.Popen(call, cwd=home, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            page = patiently(port, server, home / "server.log")
            card = asked(port, f"/get-artifact?{urlencode({'run_uuid': first[1], 'path': 'bundle/card.md'})}")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            bundle, run_id, version = logged(home / "models" / "tiny" / "2.0.0", 2.0, experiment="remote")
            query = urlencode({"name": "nabz-tiny", "alias": "challenger"})
            told = json.loads(asked(port, f"/api/2.0/mlflow/registered-models/alias?{query}"))["model_version"]
            files = MlflowClient().list_artifacts(run_id, "bundle")
            loaded = mlflow.pyfunc.load_model(f"models:/nabz-tiny/{version}").predict(ROWS)["probability"]
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # its worker with it; nothing of it has to be kept
            server.wait()
    assert b"<title>MLflow</title>" in page
    assert card.startswith(b"# tiny 1.0.0\n")
    assert told["version"] == version
    assert {tag["key"]: tag["value"] for tag in told["tags"]}["bundle_sha256"] == bundle.sha256
    assert len(files) == 5
    np.testing.assert_array_equal(loaded, bundle.run(ROWS)["probability"])


def patiently(port: int, server: subprocess.Popen[bytes], log: Path) -> bytes:
    """The page, once the server has started; its log where it did not."""
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            return asked(port, "/")
        except (URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError(log.read_text(errors="replace"))
