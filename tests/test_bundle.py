"""Tests of reading a bundle: what is accepted, and everything that must be refused before it runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference import bundle as bundle_module
from inference.bundle import SIGNATURE_FILE, SIGNED_FILES, Contract, TensorSpec, check_graph, load_bundle
from inference.errors import BundleError
from training.export import write_bundle
from training.signing import sign

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
EVIDENCE = np.array([[2.0, 0.0], [0.0, 0.0]], dtype=np.float32)


@pytest.fixture(autouse=True)
def _own_signing_key(monkeypatch):
    """Each test signs with a key of its own temporary folder."""
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)


def model(*nodes, initializers=(), inputs=None, outputs=None, functions=(), opsets=(("", 17),)) -> onnx.ModelProto:
    """A graph from `evidence` to `probabilities`; by default it is a softmax over two classes."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Softmax", ["evidence"], ["probabilities"], axis=1)],
        "tiny",
        inputs or [helper.make_tensor_value_info("evidence", FLOAT, ["n", 2])],
        outputs or [helper.make_tensor_value_info("probabilities", FLOAT, ["n", 2])],
        initializer=list(initializers),
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)


def contract(**changes) -> Contract:
    """The contract of the tiny model."""
    fields = {
        "task": "tiny",
        "version": "1.0.0",
        "created": "2026-01-01T00:00:00+00:00",
        "model_sha256": "",
        "inputs": [{"name": "evidence", "dtype": "float32", "shape": ["n", 2], "meaning": "two numbers"}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": ["n", 2], "meaning": "sum to 1"}],
        "labels": [{"name": "a", "name_en": "A"}, {"name": "b", "name_en": "B"}],
        "intended_use": "Tests.",
        "limits": ["Knows nothing."],
        "licence": "Apache-2.0",
        "data": [],
    }
    return Contract.model_validate({**fields, **changes})


def written(tmp_path: Path, proto: onnx.ModelProto | None = None, **changes) -> Path:
    """A signed bundle in `tmp_path`, laid out as the shipped ones are."""
    folder = tmp_path / "models" / "tiny" / "1.0.0"
    write_bundle(folder, (proto or model()).SerializeToString(), contract(**changes), {"command": "none", "evaluations": {}})
    return folder


def refusal(folder: Path) -> str:
    """What `load_bundle` says when it refuses a bundle."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


def signed_again(folder: Path) -> None:
    """Sign what lies in the folder now, as its owner could."""
    sign(folder, {name: (folder / name).read_bytes() for name in SIGNED_FILES})


def test_a_signed_bundle_loads_and_scores(tmp_path):
    """Softmax of (2, 0) is e^2 / (e^2 + 1) = 0.8808, of (0, 0) it is a half each."""
    loaded = load_bundle(written(tmp_path))
    scores = loaded.run({"evidence": EVIDENCE})["probabilities"]
    assert scores == pytest.approx(np.array([[0.880797, 0.119203], [0.5, 0.5]]), abs=1e-6)
    assert loaded.contract.task == "tiny"
    assert [label.name for label in loaded.contract.labels] == ["a", "b"]


def test_the_bundle_hash_names_all_of_its_bytes(tmp_path):
    """It is the hash of a list of the four files' hashes, as `sha256sum` would print them."""
    folder = written(tmp_path)
    listing = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in SIGNED_FILES)
    assert load_bundle(folder).sha256 == hashlib.sha256(listing.encode()).hexdigest()


@pytest.mark.parametrize("name", SIGNED_FILES)
def test_one_changed_byte_in_any_signed_file_is_refused(tmp_path, name):
    """Whichever file it is, and even when the change is a letter of the card."""
    folder = written(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert refusal(folder) == (
        f"{folder} was altered after it was signed (or its signature was); it will not be used: "
        "restore it from where it came, or train it again"
    )


def test_one_changed_byte_in_the_signature_is_refused(tmp_path):
    """A signature of other bytes does not fit."""
    folder = written(tmp_path)
    record = json.loads((folder / SIGNATURE_FILE).read_text())
    signature = bytearray(base64.b64decode(record["signature"]))
    signature[5] ^= 1
    record["signature"] = base64.b64encode(signature).decode()
    (folder / SIGNATURE_FILE).write_text(json.dumps(record))
    assert refusal(folder).startswith(f"{folder} was altered after it was signed")


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"key_id": "a", "signature": "?"}', "[" * 100_000, b"\xff\xfe"])
def test_an_unreadable_signature_is_refused(tmp_path, content):
    """Empty, of another kind, incomplete, not base64, deeply nested, not text."""
    folder = written(tmp_path)
    (folder / SIGNATURE_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refusal(folder) == f"{folder / SIGNATURE_FILE} cannot be read; restore the bundle"


@pytest.mark.parametrize("name", [*SIGNED_FILES, SIGNATURE_FILE])
def test_a_missing_file_is_named(tmp_path, name):
    """Each of the five files is needed."""
    folder = written(tmp_path)
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name} is missing or is not a plain file; restore the bundle, or train it again"


def test_a_folder_that_does_not_exist_is_a_bundle_error(tmp_path):
    """The first file that is looked for is named."""
    folder = tmp_path / "models" / "none" / "1.0.0"
    assert refusal(folder).startswith(f"{folder / 'model.onnx'} is missing")


def test_a_link_is_not_followed_even_to_the_same_bytes(tmp_path):
    """A link could point elsewhere between the check and the use."""
    folder = written(tmp_path)
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    assert refusal(folder).startswith(f"{folder / 'model.onnx'} is missing or is not a plain file")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    """It is no plain file."""
    folder = written(tmp_path)
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()
    assert refusal(folder).startswith(f"{folder / 'card.md'} is missing or is not a plain file")


def test_a_stranger_s_signature_is_refused_until_the_key_is_trusted(tmp_path):
    """The bundle says who signed it; only keys in the folder of trusted keys count."""
    ours = written(tmp_path / "ours")
    theirs = written(tmp_path / "theirs")
    keys = ours.parent.parent / "trusted_keys"
    with pytest.raises(BundleError) as caught:
        load_bundle(theirs, trusted_keys=keys)
    key_id = json.loads((theirs / SIGNATURE_FILE).read_text())["key_id"]
    assert str(caught.value) == (
        f"{theirs} is signed by key {key_id!r}, which is not among the trusted keys: add its public key to {keys} if you trust who made it"
    )
    (keys / f"{key_id}.pub").write_bytes((theirs.parent.parent / "trusted_keys" / f"{key_id}.pub").read_bytes())
    assert load_bundle(theirs, trusted_keys=keys).contract.task == "tiny"


def test_a_trusted_name_with_a_stranger_s_key_is_refused(tmp_path):
    """A file that claims a trusted key's name but was signed by another key is an altered one."""
    ours, theirs = written(tmp_path / "ours"), written(tmp_path / "theirs")
    record = json.loads((theirs / SIGNATURE_FILE).read_text())
    record["key_id"] = json.loads((ours / SIGNATURE_FILE).read_text())["key_id"]
    (theirs / SIGNATURE_FILE).write_text(json.dumps(record))
    with pytest.raises(BundleError, match="was altered after it was signed"):
        load_bundle(theirs, trusted_keys=ours.parent.parent / "trusted_keys")


@pytest.mark.parametrize("key_id", ["../trusted_keys/x", "", "a" * 5000, "a\x00b", "/etc/passwd"])
def test_a_key_id_cannot_leave_the_folder_of_trusted_keys(tmp_path, key_id):
    """Only letters and digits name a key."""
    folder = written(tmp_path)
    record = json.loads((folder / SIGNATURE_FILE).read_text())
    (folder / SIGNATURE_FILE).write_text(json.dumps({**record, "key_id": key_id}))
    assert "which is not among the trusted keys" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"c2hvcnQ=", b"\x80\x81", b"no key"])
def test_a_broken_public_key_verifies_nothing(tmp_path, content):
    """Empty, too short, not text, not base64."""
    folder = written(tmp_path)
    (key,) = (folder.parent.parent / "trusted_keys").glob("*.pub")
    key.write_bytes(content)
    assert refusal(folder).startswith(f"{folder} was altered after it was signed")


def test_another_model_with_a_fitting_contract_needs_a_new_signature(tmp_path):
    """Both hashes agree with each other, but not with what was signed."""
    folder = written(tmp_path)
    other = model(helper.make_node("Sigmoid", ["evidence"], ["probabilities"])).SerializeToString()
    described = contract(model_sha256=hashlib.sha256(other).hexdigest())
    (folder / "model.onnx").write_bytes(other)
    (folder / "contract.json").write_text(described.model_dump_json())
    assert refusal(folder).startswith(f"{folder} was altered after it was signed")


def test_a_signed_contract_of_another_model_is_refused(tmp_path):
    """A signature does not make a contract fit."""
    folder = written(tmp_path)
    (folder / "model.onnx").write_bytes(model(helper.make_node("Sigmoid", ["evidence"], ["probabilities"])).SerializeToString())
    signed_again(folder)
    assert refusal(folder) == f"{folder}: model.onnx is not the model that contract.json describes; restore the bundle"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"licence": None}, "licence"),
        ({"surprise": 1}, "surprise"),
        ({"thresholds": {"level": "NaN"}}, "thresholds.level"),
        ({"labels": [{"name": "a", "name_en": "A", "severity": 9}]}, "labels.0.severity"),
        ({"inputs": [{"name": "evidence", "dtype": "float64", "shape": ["n", 2], "meaning": "x"}]}, "inputs.0.dtype"),
    ],
)
def test_a_contract_that_does_not_follow_the_schema_is_refused(tmp_path, change, where):
    """The place in the contract is named; a threshold that is no number would switch a rule off."""
    folder = written(tmp_path)
    fields = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**fields, **change}))
    signed_again(folder)
    assert refusal(folder) == f"{folder / 'contract.json'} does not follow the contract's schema at: {where}"


def test_a_contract_is_frozen(tmp_path):
    """Nobody changes a threshold after loading."""
    loaded = load_bundle(written(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        loaded.contract.task = "other"


def refused_operators() -> list[str]:
    """Operators that can loop, branch, hold sequences, draw random numbers or make strings."""
    return [
        "Loop", "If", "Scan", "SequenceConstruct", "SequenceMap", "SequenceAt", "Optional", "RandomNormal",
        "Multinomial", "StringNormalizer", "StringConcat", "ImageDecoder", "NonZero", "Compress",
    ]  # fmt: skip


@pytest.mark.parametrize("operator", refused_operators())
def test_operators_outside_the_list_are_refused(operator):
    """A list of what is allowed, not of what is known to be bad."""
    graph = model(helper.make_node(operator, ["evidence"], ["probabilities"])).SerializeToString()
    with pytest.raises(BundleError) as caught:
        check_graph(graph, "tiny")
    assert str(caught.value) == f"tiny: model.onnx uses operators that are not accepted: ai.onnx:{operator}"


def external(tensor: TensorProto, location: str = "/etc/passwd") -> TensorProto:
    """The tensor with its data said to lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def weight(values=(0.0, 0.0)) -> TensorProto:
    """A constant named `w`."""
    return numpy_helper.from_array(np.array(values, dtype=np.float32), "w")


ADD = helper.make_node("Add", ["evidence", "w"], ["probabilities"])


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    """A sparse constant."""
    return helper.make_sparse_tensor(values, indices, [2])


def with_sparse_initializer(*, is_external: bool) -> onnx.ModelProto:
    """A model that adds a sparse constant, whose values may lie in another file."""
    graph = model(ADD)
    values = external(weight((1.0,))) if is_external else weight((1.0,))
    graph.graph.sparse_initializer.append(sparse(values, numpy_helper.from_array(np.array([0]), "i")))
    return graph


def custom_function() -> onnx.ModelProto:
    """A model that brings its own operator, made of known ones."""
    inner = [helper.make_node("Relu", ["x"], ["y"])]
    function = helper.make_function("mine", "Trick", ["x"], ["y"], inner, [helper.make_opsetid("", 17)])
    node = helper.make_node("Trick", ["evidence"], ["probabilities"], domain="mine")
    return model(node, functions=[function], opsets=(("", 17), ("mine", 1)))


def hidden_subgraph() -> onnx.ModelProto:
    """An allowed operator that carries a graph in an attribute."""
    inner = helper.make_graph([helper.make_node("Loop", ["a"], ["b"])], "inner", [], [])
    return model(helper.make_node("Softmax", ["evidence"], ["probabilities"], body=inner))


def hidden_subgraphs() -> onnx.ModelProto:
    """The same with a list of graphs."""
    inner = helper.make_graph([helper.make_node("Loop", ["a"], ["b"])], "inner", [], [])
    return model(helper.make_node("Softmax", ["evidence"], ["probabilities"], bodies=[inner]))


def external_constant() -> onnx.ModelProto:
    """A constant whose value lies in another file."""
    return model(helper.make_node("Constant", [], ["w"], value=external(weight())), ADD)


def external_constant_without_a_place() -> onnx.ModelProto:
    """A constant that claims to lie in another file and does not say where."""
    tensor = weight()
    tensor.data_location = TensorProto.EXTERNAL
    return model(helper.make_node("Constant", [], ["w"], value=tensor), ADD)


def external_sparse_constant() -> onnx.ModelProto:
    """A sparse constant whose indices lie in another file."""
    tensor = sparse(weight((1.0,)), external(numpy_helper.from_array(np.array([0]), "i")))
    return model(helper.make_node("Constant", [], ["w"], sparse_value=tensor), ADD)


OPERATORS, ELSEWHERE = "uses operators that are not accepted", "keeps data in other files, which are not accepted"
MALICIOUS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "custom function": (custom_function, "defines functions of its own, which are not accepted"),
    "custom domain": (
        lambda: model(helper.make_node("Relu", ["evidence"], ["probabilities"], domain="evil"), opsets=(("", 17), ("evil", 1))),
        f"{OPERATORS}: evil:Relu",
    ),
    "runtime's own domain": (
        lambda: model(helper.make_node("Gelu", ["evidence"], ["probabilities"], domain="com.microsoft")),
        f"{OPERATORS}: com.microsoft:Gelu",
    ),
    "python operator": (
        lambda: model(helper.make_node("PyOp", ["evidence"], ["probabilities"], domain="pyopmulti_1")),
        f"{OPERATORS}: pyopmulti_1:PyOp",
    ),
    "subgraph in an attribute": (hidden_subgraph, f"{OPERATORS}: ai.onnx:Softmax"),
    "subgraphs in an attribute": (hidden_subgraphs, f"{OPERATORS}: ai.onnx:Softmax"),
    "external initializer": (lambda: model(ADD, initializers=[external(weight())]), ELSEWHERE),
    "external initializer up the tree": (
        lambda: model(ADD, initializers=[external(weight(), "../../../secret")]),
        ELSEWHERE,
    ),
    "external sparse initializer": (lambda: with_sparse_initializer(is_external=True), ELSEWHERE),
    "external constant": (external_constant, f"{OPERATORS}: ai.onnx:Constant"),
    "external constant without a place": (external_constant_without_a_place, f"{OPERATORS}: ai.onnx:Constant"),
    "external sparse constant": (external_sparse_constant, f"{OPERATORS}: ai.onnx:Constant"),
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_graph_that_could_do_more_than_compute_is_refused(kind):
    """Each of them is refused by reading the graph alone, before onnxruntime sees it."""
    build, reason = MALICIOUS[kind]
    with pytest.raises(BundleError) as caught:
        check_graph(build().SerializeToString(), "tiny")
    assert str(caught.value) == f"tiny: model.onnx {reason}"


def test_harmless_relatives_of_refused_graphs_pass():
    """The refusals above are for what they name: the same constants inside the file are fine."""
    check_graph(model().SerializeToString(), "tiny")
    check_graph(model(ADD, initializers=[weight()]).SerializeToString(), "tiny")
    check_graph(with_sparse_initializer(is_external=False).SerializeToString(), "tiny")
    check_graph(model(helper.make_node("Constant", [], ["w"], value=weight()), ADD).SerializeToString(), "tiny")


def test_garbage_is_no_model():
    """Bytes that no reader of the format accepts."""
    with pytest.raises(BundleError) as caught:
        check_graph(b"\x80 this is no model", "tiny")
    assert str(caught.value) == "tiny: model.onnx is not an ONNX model"


def test_a_model_over_the_size_limit_is_refused_unread(monkeypatch):
    """The limit stands before the parser."""
    monkeypatch.setattr(bundle_module, "MODEL_BYTES_LIMIT", 10)
    with pytest.raises(BundleError) as caught:
        check_graph(b"x" * 11, "tiny")
    assert str(caught.value) == "tiny: model.onnx has 11 bytes; at most 10 are accepted"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A card of any length would otherwise fill the memory."""
    folder = written(tmp_path)
    monkeypatch.setattr(bundle_module, "MODEL_BYTES_LIMIT", 1000)
    monkeypatch.setattr(bundle_module, "CONTRACT_BYTES_LIMIT", 1000)
    (folder / "card.md").write_bytes(b"x" * 1001)
    (folder / "contract.json").write_bytes(b"{}")
    assert refusal(folder) == f"{folder / 'card.md'} is too large for a bundle's file"


def ort_format(tmp_path: Path) -> bytes:
    """The tiny model in onnxruntime's own format, which check_graph cannot read."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "tiny.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return (tmp_path / "tiny.ort").read_bytes()


def signed_with_model(tmp_path: Path, content: bytes, **changes) -> Path:
    """A bundle whose owner signed these bytes as its model: the checks behind the signature must hold too."""
    folder = written(tmp_path)
    (folder / "model.onnx").write_bytes(content)
    described = contract(model_sha256=hashlib.sha256(content).hexdigest(), **changes)
    (folder / "contract.json").write_text(described.model_dump_json())
    signed_again(folder)
    return folder


@pytest.mark.parametrize("kind", ["empty", "garbage", "truncated", "ort"])
def test_signed_bytes_that_are_no_onnx_model_are_refused(tmp_path, kind):
    """A signature says who made a file, not that it is a model."""
    whole = model().SerializeToString()
    content = {"empty": b"", "garbage": b"MZ\x90", "truncated": whole[:-20], "ort": b""}[kind]
    folder = signed_with_model(tmp_path, ort_format(tmp_path) if kind == "ort" else content)
    assert refusal(folder) in (f"{folder}: model.onnx is not an ONNX model", f"{folder}: onnxruntime cannot load model.onnx")


def test_a_file_that_is_two_formats_at_once_is_read_as_onnx_only(tmp_path):
    """onnxruntime would tell its own format by four letters, and run what check_graph did not see."""
    disguised = b"\x12\x06\x00\x00ORTM" + model().SerializeToString()
    check_graph(disguised, "tiny")
    folder = signed_with_model(tmp_path, disguised)
    assert load_bundle(folder).run({"evidence": EVIDENCE})["probabilities"][1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", sorted(MALICIOUS))
def test_a_signature_does_not_let_a_malicious_graph_in(tmp_path, kind):
    """`load_bundle` reads every graph, whoever signed it."""
    folder = signed_with_model(tmp_path, MALICIOUS[kind][0]().SerializeToString())
    assert refusal(folder) == f"{folder}: model.onnx {MALICIOUS[kind][1]}"


def test_a_graph_that_computes_nonsense_is_refused(tmp_path):
    """Shapes that cannot be multiplied, and a node without its input."""
    wide = numpy_helper.from_array(np.zeros((3, 2), dtype=np.float32), "w")
    product = model(helper.make_node("MatMul", ["evidence", "w"], ["probabilities"]), initializers=[wide])
    for broken in (product, model(helper.make_node("Softmax", ["nothing"], ["probabilities"]))):
        folder = signed_with_model(tmp_path, broken.SerializeToString())
        assert refusal(folder) == f"{folder}: onnxruntime cannot load model.onnx"


def renamed(old: str, new: str) -> bytes:
    """The tiny model with one of its ends renamed."""
    names = {"evidence": "evidence", "probabilities": "probabilities", old: new}
    return model(
        helper.make_node("Softmax", [names["evidence"]], [names["probabilities"]], axis=1),
        inputs=[helper.make_tensor_value_info(names["evidence"], FLOAT, ["n", 2])],
        outputs=[helper.make_tensor_value_info(names["probabilities"], FLOAT, ["n", 2])],
    ).SerializeToString()


@pytest.mark.parametrize(("kind", "name"), [("inputs", "evidence"), ("outputs", "probabilities")])
def test_names_that_the_contract_does_not_promise_are_refused(tmp_path, kind, name):
    """Both ends of the model are checked before a case is scored."""
    folder = signed_with_model(tmp_path, renamed(name, "other"))
    assert refusal(folder) == f"{folder}: the contract promises {kind} ['{name}'], the model has ['other']"


def test_an_input_that_the_contract_leaves_out_is_refused_and_an_output_is_not(tmp_path):
    """Nobody could feed the input; an output may be left unread."""
    more = model(
        ADD,
        inputs=[helper.make_tensor_value_info(name, FLOAT, ["n", 2]) for name in ("evidence", "w")],
    )
    folder = signed_with_model(tmp_path / "a", more.SerializeToString())
    assert refusal(folder) == f"{folder}: the contract promises inputs ['evidence'], the model has ['evidence', 'w']"
    two = model(
        helper.make_node("Softmax", ["evidence"], ["probabilities"]),
        helper.make_node("Relu", ["evidence"], ["extra"]),
        outputs=[helper.make_tensor_value_info(name, FLOAT, ["n", 2]) for name in ("probabilities", "extra")],
    )
    loaded = load_bundle(signed_with_model(tmp_path / "b", two.SerializeToString()))
    assert list(loaded.run({"evidence": EVIDENCE})) == ["probabilities"]


@pytest.mark.parametrize(("kind", "said"), [(STRING, "tensor(string)"), (INT64, "tensor(int64)")])
def test_a_tensor_of_another_type_than_promised_is_refused(tmp_path, kind, said):
    """Strings and whole numbers where the contract promises float32."""
    other = model(
        helper.make_node("Identity", ["evidence"], ["probabilities"]),
        inputs=[helper.make_tensor_value_info("evidence", kind, ["n", 2])],
        outputs=[helper.make_tensor_value_info("probabilities", kind, ["n", 2])],
    )
    folder = signed_with_model(tmp_path, other.SerializeToString())
    assert refusal(folder) == f"{folder}: the contract promises evidence as float32, the model has {said}"


def test_a_missing_input_is_named(tmp_path):
    """The caller learns which one."""
    loaded = load_bundle(written(tmp_path))
    with pytest.raises(BundleError) as caught:
        loaded.run({"evidences": EVIDENCE})
    assert str(caught.value) == "tiny: inputs ['evidence'] are missing; the contract lists them"


@pytest.mark.parametrize(
    "evidence",
    [np.zeros((2, 3)), np.zeros(2), np.zeros((1, 1, 2)), np.array([["a", "b"]]), [[1.0], [1.0, 2.0]], None],
    ids=["too wide", "too flat", "too deep", "text", "ragged", "nothing"],
)
def test_an_input_of_the_wrong_shape_is_a_bundle_error(tmp_path, evidence):
    """The model's own complaint is the cause, the message names the model."""
    loaded = load_bundle(written(tmp_path))
    with pytest.raises(BundleError) as caught:
        loaded.run({"evidence": evidence})
    assert str(caught.value) == "tiny 1.0.0: the model failed on this batch"
    assert caught.value.__cause__ is not None


def test_arrays_are_cast_to_the_contract_s_type(tmp_path):
    """Whole numbers are as good as float32 where float32 is wanted; what is not asked for is ignored."""
    loaded = load_bundle(written(tmp_path))
    scores = loaded.run({"evidence": np.zeros((1, 2), dtype=int), "unasked": np.zeros(1)})
    assert scores["probabilities"].tolist() == [[0.5, 0.5]]


def test_a_tensor_spec_takes_names_for_free_sizes():
    """`n` stands for the batch."""
    spec = TensorSpec(name="x", dtype="uint8", shape=("n", 3), meaning="pixels")
    assert spec.shape == ("n", 3)
