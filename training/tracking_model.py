"""A bundle as MLflow's users expect a model: the exported graph with its signature, an example and pinned requirements.

The standard onnx flavour, so that `mlflow.onnx.load_model`, `mlflow.pyfunc` and `mlflow models serve` all take it; nothing is
pickled. Registered names, aliases and runs are tracking.py's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema
from mlflow.types import TensorSpec as MlflowTensor
from numpy.typing import NDArray

from inference.bundle import Bundle, Contract, TensorSpec

# What runs a bundle outside of this project, as it is installed here; mlflow writes its own version beside them.
_NEEDED = ("numpy", "onnx", "onnxruntime")


def log_onnx_model(bundle: Bundle, folder: Path, name: str, tags: Mapping[str, str], parameters: Mapping[str, str]) -> ModelInfo:
    """Log the bundle's graph to the active run as a LoggedModel called `name`, and register it under that name.

    One thread, as the bundle's parity was checked. The version that the registry gave is `registered_model_version`.
    """
    with warnings.catch_warnings():
        # mlflow advises on integer inputs and type hints, for whoever wrote a signature by hand; ours is the contract's.
        warnings.filterwarnings("ignore", category=UserWarning)
        return mlflow.onnx.log_model(
            onnx.load(folder / "model.onnx"),
            name=name,
            registered_model_name=name,
            signature=mlflow_signature(bundle.contract),
            input_example=input_example(bundle.contract),
            pip_requirements=pip_requirements(),
            onnx_execution_providers=["CPUExecutionProvider"],
            onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
            save_as_external_data=False,
            metadata={"task": bundle.contract.task, "bundle_sha256": bundle.sha256},
            model_type=bundle.contract.task,
            tags=dict(tags),
            params=dict(parameters),
        )


def mlflow_signature(contract: Contract) -> ModelSignature:
    """The contract's inputs and outputs, by name, type and shape; what a contract names (`n`) MLflow calls -1."""
    return ModelSignature(inputs=_schema(contract.inputs), outputs=_schema(contract.outputs))


def input_example(contract: Contract) -> dict[str, NDArray[Any]]:
    """One case of which nothing is known, all zeros: it shows names and shapes and is nobody's."""
    return {
        spec.name: np.zeros([1 if isinstance(size, str) else size for size in spec.shape], dtype=spec.dtype) for spec in contract.inputs
    }


def pip_requirements() -> list[str]:
    """The packages that run the graph, at the versions that are installed here."""
    return [f"{name}=={version(name)}" for name in _NEEDED]


def _schema(specs: Sequence[TensorSpec]) -> Schema:
    shapes = [tuple(-1 if isinstance(size, str) else size for size in spec.shape) for spec in specs]
    return Schema([MlflowTensor(np.dtype(spec.dtype), shape, spec.name) for spec, shape in zip(specs, shapes, strict=True)])
