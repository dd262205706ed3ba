"""A model bundle: `model.onnx`, `contract.json`, `metrics.json`, `card.md` and a `signature` over all of them.

`load_bundle` runs nothing before it has checked the Ed25519 signature against the trusted keys, the hash of
every file, the operators of the graph and the names of its inputs and outputs. This module does not know what
any task means.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import BundleError

SIGNED_FILES = ("model.onnx", "contract.json", "metrics.json", "card.md")
SIGNATURE_FILE = "signature"
TRUSTED_KEYS_FOLDER = "trusted_keys"
MODEL_BYTES_LIMIT = 64 * 1024 * 1024
CONTRACT_BYTES_LIMIT = 16 * 1024 * 1024
KEY_ID_LIMIT = 64
NODES_LIMIT = 10_000
# Values that a graph holds for one case, inputs and constants included; the shipped models need 9 million at most.
ELEMENTS_LIMIT = 64 * 1024 * 1024
# What all models of a process may allocate together while they score; a large batch of the shipped ones needs a quarter.
MEMORY_BYTES_LIMIT = 1024**3

# Operators that the exporters of training/ produce; none can loop, branch, read files or call out.
_ALLOWED_OPERATORS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv
    DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
    Greater GreaterOrEqual HardSigmoid HardSwish Identity IsNaN LayerNormalization Less LessOrEqual Log LogSoftmax
    MatMul Max MaxPool Min Mul Neg Not Or Pad Pow QuantizeLinear ReduceL2 ReduceMax ReduceMean ReduceSum Relu
    Reshape Round Shape Sigmoid Sign Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze
    Where TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor LinearClassifier LinearRegressor Normalizer
    Scaler ZipMap ArrayFeatureExtractor
    """.split()
)
_ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_DTYPES = {"float32": np.float32, "int64": np.int64, "uint8": np.uint8}
_ONNX_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}

Array = NDArray[Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(_Frozen):
    """One input or output: dtype, shape (a name where the size is free) and what its values mean."""

    name: str
    dtype: Literal["float32", "int64", "uint8"]
    shape: tuple[int | str, ...]
    meaning: str


class Label(_Frozen):
    """One class of a model, in the order of its outputs; only the contract knows that order."""

    name: str
    name_en: str
    name_ur: str = ""
    icd10: str | None = None
    severity: int | None = Field(default=None, ge=1, le=5)
    specialty: str | None = None


class DataSource(_Frozen):
    """Data that a model learned from: what, under which licence, which bytes, and whom to cite."""

    name: str
    licence: str
    sha256: str
    citation: str


class Certificate(_Frozen):
    """What a threshold is certified for: of the cases that `event` describes, at most `target` are missed, as `miss` says.

    `missed` of `n` held-out cases were; `bound` is the upper confidence bound of their share and `expected_bound` the one of
    conformal risk control, which holds on average over calibration sets. `over_triage` is the price: the share, `low` to
    `high`, of the other cases that the threshold raises as well. Shares are in [0, 1].
    """

    event: str
    miss: str
    target: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    method: str
    data: str
    is_synthetic: bool
    n: int = Field(ge=1)
    missed: int = Field(ge=0)
    bound: float = Field(ge=0, le=1)
    expected_bound: float = Field(ge=0, le=1)
    over_triage: dict[str, float]


class Contract(_Frozen):
    """All that a caller must know to run a model rightly. Thresholds are probabilities in [0, 1].

    `probe` is a few inputs with the trained model's own answers, so that whoever holds the bundle can see that the graph still
    gives them. `seen` is a sketch of the cases that it learned from, so that held-out cases can be told from them. `reference` is
    how the cases looked that it was measured on, so that drift can be told from it.
    """

    schema_version: Literal[1] = 1
    task: str
    version: str
    created: str
    model_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[Label, ...]
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    data: tuple[DataSource, ...]
    training: dict[str, Any] = Field(default_factory=dict)
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    thresholds: dict[str, float] = Field(default_factory=dict)
    certificates: dict[str, Certificate] = Field(default_factory=dict)
    conformal: dict[str, Any] | None = None
    out_of_distribution: dict[str, Any] | None = None
    vocabulary: dict[str, Any] = Field(default_factory=dict)
    probe: dict[str, Any] = Field(default_factory=dict)
    seen: dict[str, Any] = Field(default_factory=dict)
    reference: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to score. `sha256` names exactly these bytes in every score's provenance."""

    contract: Contract
    sha256: str
    _session: Any
    _model: bytes = b""

    def narrowed(self, outputs: Sequence[str]) -> Bundle:
        """This bundle with some of its outputs only, and without the arithmetic that only the others need.

        The runtime computes every output of a graph, asked for or not. Names that the model does not have are passed over. Its
        `sha256` stays: it is the same model. Raises BundleError when the smaller graph cannot be loaded.
        """
        kept = tuple(spec for spec in self.contract.outputs if spec.name in outputs)
        if not self._model or not kept:
            return self
        import onnx

        graph = onnx.load_model_from_string(self._model)
        part = onnx.utils.Extractor(graph).extract_model([spec.name for spec in self.contract.inputs], [spec.name for spec in kept])
        session = _session(part.SerializeToString(), 1, Path(f"{self.contract.task} {self.contract.version}"))
        return Bundle(self.contract.model_copy(update={"outputs": kept}), self.sha256, session)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Score one batch: arrays by input name, shaped as the contract says; arrays by output name come back.

        Raises BundleError when an input is missing, when the model fails, and when it answers with other shapes than
        the contract promises or with what is no number.
        """
        wanted = {spec.name: _DTYPES[spec.dtype] for spec in self.contract.inputs}
        if missing := sorted(wanted.keys() - feeds.keys()):
            raise BundleError(f"{self.contract.task}: inputs {missing} are missing; the contract lists them")
        names = [spec.name for spec in self.contract.outputs]
        try:
            arrays = {name: np.ascontiguousarray(feeds[name], dtype=dtype) for name, dtype in wanted.items()}
            values = self._session.run(names, arrays)
        except Exception as error:  # onnxruntime raises its own unrelated classes; all mean "this model failed"
            raise BundleError(f"{self.contract.task} {self.contract.version}: the model failed on this batch") from error
        outputs = dict(zip(names, values, strict=True))
        self._check_outputs(arrays, outputs)
        return outputs

    def _check_outputs(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        model = f"{self.contract.task} {self.contract.version}"
        free = {
            name: size
            for spec in self.contract.inputs
            for name, size in zip(spec.shape, inputs[spec.name].shape, strict=False)
            if isinstance(name, str)
        }
        for spec in self.contract.outputs:
            promised = tuple(free.get(size, -1) if isinstance(size, str) else size for size in spec.shape)
            found = np.shape(outputs[spec.name])
            if len(found) != len(promised) or any(size not in (-1, got) for size, got in zip(promised, found, strict=True)):
                raise BundleError(f"{model}: the model gave {spec.name} in shape {found}, not {promised} as the contract promises")
            if not np.isfinite(outputs[spec.name]).all():
                raise BundleError(f"{model}: the model gave {spec.name} with values that are no finite numbers")


def load_bundle(folder: Path, *, threads: int = 1, trusted_keys: Path | None = None) -> Bundle:
    """Verify and load the bundle in `folder`.

    `trusted_keys` is a folder of raw 32-byte public keys as `<key id>.pub` in base64; by default
    `trusted_keys/` beside the task folders. `threads` is onnxruntime's intra-op thread count.
    Raises BundleError naming the file that is missing or was altered.
    """
    files = read_signed_files(folder, trusted_keys or folder.parent.parent / TRUSTED_KEYS_FOLDER)
    contract = _contract(folder, files["contract.json"])
    model = files["model.onnx"]
    if hashlib.sha256(model).hexdigest() != contract.model_sha256:
        raise BundleError(f"{folder}: model.onnx is not the model that contract.json describes; restore the bundle")
    check_graph(model, str(folder))
    session = _session(model, threads, folder)
    _check_names(folder, contract, session)
    return Bundle(contract, bundle_hash(files), session, model)


def bundle_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names and hashes of the bundle's signed files: one name for all of its bytes."""
    return hashlib.sha256(signed_message(files)).hexdigest()


def signed_message(files: Mapping[str, bytes]) -> bytes:
    """The bytes that the signature covers: each file's name and SHA-256, one per line, in a fixed order."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in SIGNED_FILES]
    return "".join(lines).encode()


def read_signed_files(folder: Path, trusted_keys: Path) -> dict[str, bytes]:
    """Read the bundle's files and check their signature. Raises BundleError if any is missing or altered."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    files = {name: _read(folder / name) for name in SIGNED_FILES}
    try:
        record = json.loads(_read(folder / SIGNATURE_FILE))
        key_id, signature = str(record["key_id"]), base64.b64decode(record["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{folder / SIGNATURE_FILE} cannot be read; restore the bundle") from error
    key_path = trusted_keys / f"{key_id}.pub"
    if not key_id.isalnum() or len(key_id) > KEY_ID_LIMIT or not key_path.is_file():
        raise BundleError(
            f"{folder} is signed by key {key_id[:16]!r}, which is not among the trusted keys: add "
            f"its public key to {trusted_keys} if you trust who made it"
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key_path.read_bytes()))
        key.verify(signature, signed_message(files))
    except (InvalidSignature, ValueError) as error:
        raise BundleError(
            f"{folder} was altered after it was signed (or its signature was); it will not be used: "
            "restore it from where it came, or train it again"
        ) from error
    return files


def check_graph(model: bytes, name: str) -> None:
    """Refuse a graph that could loop, read files, run custom code or fill the memory. Raises BundleError with the reason."""
    import onnx

    if len(model) > MODEL_BYTES_LIMIT:
        raise BundleError(f"{name}: model.onnx has {len(model)} bytes; at most {MODEL_BYTES_LIMIT} are accepted")
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's DecodeError lives in a private module
        raise BundleError(f"{name}: model.onnx is not an ONNX model") from error
    if proto.functions:
        raise BundleError(f"{name}: model.onnx defines functions of its own, which are not accepted")
    if proto.training_info:
        raise BundleError(f"{name}: model.onnx carries graphs for training, which are not accepted")
    if len(proto.graph.node) > NODES_LIMIT:
        raise BundleError(f"{name}: model.onnx has {len(proto.graph.node)} operators; at most {NODES_LIMIT} are accepted")
    sparse = [part for one in proto.graph.sparse_initializer for part in (one.values, one.indices)]
    for tensor in (*proto.graph.initializer, *sparse):
        if _is_external(tensor):
            raise BundleError(f"{name}: model.onnx keeps data in other files, which are not accepted")
    refused = {
        f"{node.domain or 'ai.onnx'}:{node.op_type}"
        for node in proto.graph.node
        if node.op_type not in _ALLOWED_OPERATORS
        or node.domain not in _ALLOWED_DOMAINS
        or any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        or any(_is_external(tensor) for attribute in node.attribute for tensor in _tensors_of(attribute))
    }
    if refused:
        raise BundleError(f"{name}: model.onnx uses operators that are not accepted: {', '.join(sorted(refused))}")
    graph = _with_shapes(proto, name)
    if (elements := _elements(graph)) > ELEMENTS_LIMIT:
        raise BundleError(f"{name}: model.onnx needs {elements} values for one case; at most {ELEMENTS_LIMIT} are accepted")
    if not _divides_floats_only(graph):
        raise BundleError(f"{name}: model.onnx divides whole numbers, which is not accepted")


def _with_shapes(proto: Any, name: str) -> Any:
    """The graph with the types and shapes that can be told without running it."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(proto).graph
    except Exception as error:  # onnx raises several unrelated classes
        raise BundleError(f"{name}: the shapes in model.onnx contradict each other") from error


def _elements(graph: Any) -> int:
    """How many values the graph holds for one case, constants included, as far as its shapes are known."""
    values = [value.type.tensor_type.shape for value in (*graph.input, *graph.output, *graph.value_info)]
    shapes = [[dim.dim_value for dim in shape.dim] for shape in values] + [list(tensor.dims) for tensor in graph.initializer]
    return sum(math.prod(max(size, 1) for size in shape) for shape in shapes)


def _divides_floats_only(graph: Any) -> bool:
    """Whether no division is of whole numbers: the least of them over -1 ends the whole process (SIGFPE)."""
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    return all(kinds.get(node.output[0]) in floats for node in graph.node if node.op_type == "Div")


def _tensors_of(attribute: Any) -> list[Any]:
    sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
    return [attribute.t, *attribute.tensors, *(part for one in sparse for part in (one.values, one.indices))]


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _read(path: Path) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is missing or is not a plain file; restore the bundle, or train it again")
        if path.stat().st_size > max(MODEL_BYTES_LIMIT, CONTRACT_BYTES_LIMIT):
            raise BundleError(f"{path} is too large for a bundle's file")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _contract(folder: Path, content: bytes) -> Contract:
    try:
        return Contract.model_validate_json(content)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise BundleError(f"{folder / 'contract.json'} does not follow the contract's schema at: {where}") from error


def _session(model: bytes, threads: int, folder: Path) -> Any:
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # nothing that check_graph could not see
    try:
        # Folding computes constants before any bound on memory holds, and gains nothing in the shipped models.
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # see Bundle.run
        raise BundleError(f"{folder}: onnxruntime cannot load model.onnx") from error


@cache
def _bound_memory() -> None:
    """Give onnxruntime one allocator for all models of this process, which refuses more than it may give."""
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": MEMORY_BYTES_LIMIT}))


def _check_names(folder: Path, contract: Contract, session: Any) -> None:
    for kind, specs, found in (
        ("inputs", contract.inputs, session.get_inputs()),
        ("outputs", contract.outputs, session.get_outputs()),
    ):
        promised, real = {spec.name for spec in specs}, {value.name for value in found}
        if not promised <= real or (kind == "inputs" and promised != real):
            raise BundleError(f"{folder}: the contract promises {kind} {sorted(promised)}, the model has {sorted(real)}")
        types = {value.name: value.type for value in found}
        for spec in specs:
            if types[spec.name] != _ONNX_TYPES[spec.dtype]:
                raise BundleError(f"{folder}: the contract promises {spec.name} as {spec.dtype}, the model has {types[spec.name]}")
