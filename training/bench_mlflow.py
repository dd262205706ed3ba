"""The yardstick of the service's speed: `mlflow models serve` with the bare symptom model. Knows no route of ours."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from inference.bundle import load_bundle
from inference.case import read_case
from inference.evidence import demographic_index
from inference.symptoms import SymptomModel
from training.bench_service import HOST, SECONDS, Measured, as_body, free_port, measure_service
from training.load_client import CONNECTIONS

NAME = "mlflow models serve, bare symptom model"
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true"}


def measure_mlflow(
    symptoms: Path, cases: Sequence[Mapping[str, Any]], *, connections: int = CONNECTIONS, seconds: float = SECONDS
) -> Measured:
    """One uvicorn worker, as mlflow starts it, asked for one ready row of inputs a request: no rules, no second model."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_for_mlflow(symptoms, model)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
        return measure_service(
            [*command, "--workers", "1", "--host", HOST, "--port", str(port)],
            "/ping",
            "/invocations",
            {},
            mlflow_bodies(symptoms, cases),
            port=port,
            name=NAME,
            connections=connections,
            seconds=seconds,
            environment=_ENVIRONMENT
            | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},  # it calls uvicorn by name
        )


def save_for_mlflow(symptoms: Path, folder: Path) -> None:
    """The bundle's ONNX with its contract's shapes as mlflow's signature, and one thread: it has one core, as ours has."""
    os.environ.update(_ENVIRONMENT)
    import mlflow

    from training.tracking_model import mlflow_signature

    contract = load_bundle(symptoms).contract
    mlflow.onnx.save_model(
        onnx.load(symptoms / "model.onnx"),
        str(folder),
        signature=mlflow_signature(contract),
        pip_requirements=["onnxruntime"],  # not installed from: serving runs in this environment; working it out takes seconds
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        save_as_external_data=False,
    )


def mlflow_bodies(symptoms: Path, cases: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The cases as mlflow's scoring protocol wants a model's inputs, in the shortest JSON: whole numbers, no shift of the prior."""
    bundle = load_bundle(symptoms)
    model = SymptomModel(bundle)
    shift = [0] * len(bundle.contract.labels)
    bodies = []
    for case in cases:
        read = model.read(read_case(case, "bench").case)
        evidence = model.encoder.encode(read.findings).astype(np.int8).tolist()
        who = demographic_index(read.case.age_years, read.case.sex)
        bodies.append(as_body({"inputs": {"evidence": [evidence], "demographics": [who], "log_shift": [shift]}}))
    return bodies
