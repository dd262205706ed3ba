"""A generator of models that must never do harm, although a trusted key signed them. Used by test_hostile_models.

Each is a model from `evidence` [n, 2] to `probabilities` [n, 2], as its contract promises, with one thing wrong.
Run as a program with a folder it writes and signs a bundle of each there, loads it and scores a case with it, and
prints one line of JSON: what stopped it, and by how many megabytes the process grew meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
HUGE = 20_000  # squared and in float32 it makes 1.6 GB, more than models may have
Node = onnx.NodeProto


@dataclass(frozen=True)
class HostileModel:
    """One model: what is wrong with it, the file's content, what to score, and other files of its folder."""

    kind: str
    content: bytes
    evidence: tuple[tuple[float, float], ...] = ((2.0, 0.0),)
    prepare: Callable[[Path], None] = field(default=lambda folder: None)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    """A node; names are separated by spaces."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def tensor(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    """A constant."""
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def ends(kind: int = FLOAT, name: str = "evidence", shape: Any = ("n", 2)) -> list[onnx.ValueInfoProto]:
    """One input or output."""
    return [helper.make_tensor_value_info(name, kind, shape)]


def model(
    *nodes: Node, constants: Any = (), inputs: Any = None, outputs: Any = None, opset: int = 17, ir: int = 8, **more: Any
) -> onnx.ModelProto:
    """A model of these nodes; opset and ir are its versions."""
    graph = helper.make_graph(list(nodes), "g", inputs or ends(), outputs or ends(name="probabilities"), initializer=list(constants))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, **more)


def softmax() -> Node:
    """The honest model."""
    return node("Softmax", "evidence", "probabilities", axis=1)


def subgraph(*nodes: Node) -> onnx.GraphProto:
    """A graph inside an attribute."""
    return helper.make_graph(list(nodes) or [node("Identity", "a", "b")], "inner", [], ends(name="b"))


def external(location: str) -> TensorProto:
    """A constant that lies in another file."""
    outside = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value=location)
    return outside


def control_flow() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Graphs that loop, branch, call or carry other graphs."""
    yes = tensor("yes", True, bool)
    yield (
        "Loop",
        model(node("Loop", "times yes evidence", "probabilities", body=subgraph()), constants=[yes, tensor("times", 2**62, np.int64)]),
    )
    yield "If", model(node("If", "yes", "probabilities", then_branch=subgraph(), else_branch=subgraph()), constants=[yes])
    yield "Scan", model(node("Scan", "evidence", "probabilities", body=subgraph(), num_scan_inputs=1))
    yield "subgraph on an operator that takes none", model(node("Softmax", "evidence", "probabilities", body=subgraph()))
    yield "a list of subgraphs", model(node("Softmax", "evidence", "probabilities", bodies=[subgraph(), subgraph()]))
    yield "custom domain", model(helper.make_node("Relu", ["evidence"], ["probabilities"], domain="evil"))
    yield "Microsoft's domain", model(helper.make_node("Gelu", ["evidence"], ["probabilities"], domain="com.microsoft"))
    yield "control operators' domain", model(helper.make_node("PyOp", ["evidence"], ["probabilities"], domain="pyopmulti_1"))
    function = helper.make_function("", "Softmax", ["x"], ["y"], [node("Exp", "x", "y")], [helper.make_opsetid("", 17)])
    yield "function that takes an operator's name", model(softmax(), functions=[function])
    recursive = helper.make_function(
        "mine", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="mine")], [helper.make_opsetid("mine", 1)]
    )
    yield "function that calls itself", model(helper.make_node("F", ["evidence"], ["probabilities"], domain="mine"), functions=[recursive])
    training = model(softmax())
    training.training_info.add().algorithm.CopyFrom(subgraph(node("Loop", "a", "b")))
    yield "training graph", training
    for operator in (
        "SequenceConstruct",
        "Optional",
        "StringNormalizer",
        "RandomNormalLike",
        "NonZero",
        "Unique",
        "ImageDecoder",
        "RegexFullMatch",
        "Tile",
        "Resize",
    ):
        yield operator, model(node(operator, "evidence", "probabilities"))


def outside_files() -> Iterator[HostileModel]:
    """Graphs that would read other files."""
    add = node("Add", "evidence w", "probabilities")
    for location in ("weights.bin", "../../../../etc/passwd", "/etc/passwd", "/proc/self/environ", "file:///etc/passwd", "card.md", ""):
        yield HostileModel(f"external data in {location!r}", model(add, constants=[external(location)]).SerializeToString())

    def hard_link(folder: Path) -> None:
        (folder.parent / "secret").write_bytes(b"secret!!")
        os.link(folder.parent / "secret", folder / "weights.bin")

    yield HostileModel(
        "external data in a hard link", model(add, constants=[external("weights.bin")]).SerializeToString(), prepare=hard_link
    )
    constant = helper.make_node("Constant", [], ["w"], value=external("weights.bin"))
    yield HostileModel("external data in a node", model(constant, add).SerializeToString())
    sparse = model(add)
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(external("weights.bin"), tensor("i", [0, 1], np.int64), [2]))
    yield HostileModel("external sparse data", sparse.SerializeToString())


def giants() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Graphs whose shapes, told in the graph, are larger than any memory; or a few gigabytes, which would fit."""
    tail = [node("ReduceMax", "big", "top", keepdims=0), node("Add", "evidence top", "probabilities")]
    one = helper.make_tensor("value", FLOAT, [1], [1.0])
    for size in (HUGE, 10**6, 2**31, 2**62):
        shape = tensor("shape", [size, size], np.int64)
        yield f"ConstantOfShape {size} squared", model(node("ConstantOfShape", "shape", "big", value=one), *tail, constants=[shape])
        yield f"Expand to {size} squared", model(node("Expand", "w shape", "big"), *tail, constants=[shape, tensor("w", [[1.0]])])
    column, row = tensor("a", np.ones((HUGE, 1))), tensor("b", np.ones((1, HUGE)))
    for operator in ("MatMul", "Add"):
        yield f"outer {operator}", model(node(operator, "a b", "big"), *tail, constants=[column, row])
    doubling = [node("Concat", f"x{n} x{n}", f"x{n + 1}", axis=0) for n in range(40)]
    yield "doubling forty times", model(*doubling, node("Identity", "x40", "big"), *tail, constants=[tensor("x0", [1.0])])
    pads = tensor("pads", [0, 0, HUGE, HUGE], np.int64)
    yield "Pad", model(node("Pad", "w pads", "big"), *tail, constants=[tensor("w", [[1.0]]), pads])
    many = [node("ConstantOfShape", "shape", f"b{n}", value=one) for n in range(60)]
    sums = [node("Add", f"b{n} b{n + 1}", f"b{n + 1}s") for n in range(59)]
    yield (
        "sixty of 64 MB each",
        model(*many, *sums, node("Identity", "b59s", "big"), *tail, constants=[tensor("shape", [4_000, 4_000], np.int64)]),
    )
    claimed = TensorProto(name="w", data_type=FLOAT, dims=[10**6, 10**6], raw_data=b"\0" * 8)
    yield "constant that claims a terabyte", model(node("Add", "evidence w", "probabilities"), constants=[claimed])
    claimed = TensorProto(name="w", data_type=FLOAT, dims=[-5, 2], raw_data=b"\0" * 8)
    yield "constant of negative size", model(node("Add", "evidence w", "probabilities"), constants=[claimed])
    yield "twenty thousand operators", model(*[node("Relu", f"x{n}", f"x{n + 1}") for n in range(20_000)], softmax())
    wide = model(softmax(), inputs=ends(shape=("n", 2**40)), outputs=ends(name="probabilities", shape=("n", 2**40)))
    yield "input of a terabyte", wide


def hidden_giants() -> Iterator[HostileModel]:
    """Graphs whose shapes come out of a calculation, or out of the case itself: only running shows them."""
    tail = [node("ReduceMax", "big", "top", keepdims=0), node("Add", "evidence top", "probabilities")]
    one = helper.make_tensor("value", FLOAT, [1], [1.0])
    for size in (HUGE, 10**7):
        logs = tensor("logs", np.log([size, size]))
        hidden = [node("Exp", "logs", "e"), node("Cast", "e", "shape", to=INT64), node("ConstantOfShape", "shape", "big", value=one)]
        yield HostileModel(f"hidden {size} squared", model(*hidden, *tail, constants=[logs]).SerializeToString())
        asked = [node("ReduceMax", "evidence", "e", axes=[0], keepdims=0), node("Cast", "e", "shape", to=INT64)]
        for maker in (node("ConstantOfShape", "shape", "big", value=one), node("Expand", "w shape", "big")):
            graph = model(*asked, maker, *tail, constants=[tensor("w", [[1.0]])])
            yield HostileModel(
                f"{maker.op_type} as large as the case says, {size}", graph.SerializeToString(), ((float(size), float(size)),)
            )
    logs = tensor("logs", np.log([4_000.2, 4_000.2]))
    many = [node("ConstantOfShape", "shape", f"b{n}", value=helper.make_tensor("value", FLOAT, [1], [n + 1.0])) for n in range(60)]
    total = [helper.make_node("Sum", [f"b{n}" for n in range(60)], ["big"])]
    hidden = [node("Exp", "logs", "e"), node("Cast", "e", "shape", to=INT64), *many, *total]
    yield HostileModel("sixty hidden ones of 64 MB each", model(*hidden, *tail, constants=[logs]).SerializeToString())


def wrong_ends() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Inputs and outputs that the contract does not promise."""
    yield "another input name", model(node("Softmax", "x", "probabilities"), inputs=ends(name="x"))
    yield "another output name", model(node("Softmax", "evidence", "y"), outputs=ends(name="y"))
    yield "a second input", model(node("Add", "evidence x", "probabilities"), inputs=ends() + ends(name="x"))
    yield "no nodes", model()
    for kind, name in (
        (DOUBLE, "float64"),
        (INT64, "int64"),
        (STRING, "strings"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.BOOL, "bool"),
        (0, "no type"),
        (99, "an unknown type"),
    ):
        yield name, model(node("Identity", "evidence", "probabilities"), inputs=ends(kind), outputs=ends(kind, "probabilities"))
    inner = helper.make_tensor_type_proto(FLOAT, ["n", 2])
    for name, kind in (("sequence", helper.make_sequence_type_proto(inner)), ("optional", helper.make_optional_type_proto(inner)),
                       ("map", helper.make_map_type_proto(INT64, inner)), ("sparse", helper.make_sparse_tensor_type_proto(FLOAT, ["n", 2]))):  # fmt: skip
        values = [helper.make_value_info(end, kind) for end in ("evidence", "probabilities")]
        yield f"{name} type", model(node("Identity", "evidence", "probabilities"), inputs=values[:1], outputs=values[1:])
    listed = [helper.make_value_info("probabilities", helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, inner)))]
    yield (
        "list of maps",
        model(helper.make_node("ZipMap", ["evidence"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]), outputs=listed),
    )
    yield (
        "no inputs",
        model(
            helper.make_node("Constant", [], ["probabilities"], value=tensor("v", [[0.5, 0.5]])),
            inputs=[helper.make_tensor_value_info("unused", FLOAT, [1])],
        ),
    )


def broken_graphs() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Graphs that contradict the format, or of versions that do not exist."""
    for version in (0, -1, 999, 2**40):
        yield f"opset {version}", model(softmax(), opset=version)
    yield "IR version 999", model(softmax(), ir=999)
    yield "IR version 0", model(softmax(), ir=0)
    imports = model(softmax())
    del imports.opset_import[:]
    yield "no opset", imports
    yield "a circle", model(node("Add", "evidence b", "a"), node("Relu", "a", "b"), node("Softmax", "b", "probabilities"))
    yield "the same name twice", model(softmax(), node("Relu", "evidence", "probabilities"))
    yield "a missing input", model(node("Softmax", "nothing", "probabilities"))
    yield "shapes that do not fit", model(node("MatMul", "evidence w", "probabilities"), constants=[tensor("w", np.zeros((3, 2)))])
    yield "an attribute of another type", model(node("Softmax", "evidence", "probabilities", axis="first"))
    yield "an axis outside", model(node("Softmax", "evidence", "probabilities", axis=2**40))
    words = helper.make_tensor("w", STRING, [2], [b"a", b"b"])
    yield "strings added", model(node("Add", "evidence w", "probabilities"), constants=[words])
    yield "a name of a megabyte", model(node("Softmax", "evidence", "x" * 2**20), node("Relu", "y", "probabilities"))


def other_bytes() -> Iterator[tuple[str, bytes]]:
    """Files that are no ONNX model."""
    whole = model(softmax()).SerializeToString()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("model.onnx", whole)
    yield from {
        "empty": b"", "zip": archive.getvalue(), "cut to half": whole[: len(whole) // 2], "cut by a byte": whole[:-1], "pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
        "onnxruntime's own format": b"\x18\0\0\0ORTM" + bytes(200), "an endless varint": b"\xff" * 1_000, "a length of four gigabytes": b"\x3a\xff\xff\xff\xff\x0f" + bytes(50),
        "nested ten thousand deep": nested(10_000), "over the limit": bytes(64 * 2**20 + 1),
    }.items()  # fmt: skip


def nested(depth: int) -> bytes:
    """Graph in attribute in node in graph, as protobuf bytes."""
    content = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = tag + varint(len(content)) + content
    return b"\x3a" + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Protobuf's variable-length number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def wrong_answers() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models that load, and answer with what is no probability of this batch."""
    for value in (np.nan, np.inf, -np.inf):
        yield f"weights of {value}", model(node("Add", "evidence w", "probabilities"), constants=[tensor("w", [value, 0.0])])
    yield (
        "logarithm of less than nothing",
        model(node("Sub", "evidence w", "x"), node("Log", "x", "probabilities"), constants=[tensor("w", [9.0, 9.0])]),
    )
    yield "nothing over nothing", model(node("Sub", "evidence evidence", "x"), node("Div", "x x", "probabilities"))
    free = ends(name="probabilities", shape=None)
    shape = tensor("shape", [-1], np.int64)
    yield "a flat answer", model(node("Reshape", "evidence shape", "probabilities"), constants=[shape], outputs=free)
    yield "a wider answer", model(node("Concat", "evidence evidence", "probabilities", axis=1), outputs=free)
    yield "more rows than cases", model(node("Concat", "evidence evidence", "probabilities", axis=0), outputs=free)
    yield "one number", model(node("ReduceSum", "evidence", "probabilities", keepdims=0), outputs=free)
    yield "no rows", model(node("Slice", "evidence a a", "probabilities"), constants=[tensor("a", [0], np.int64)], outputs=free)


def crashes() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Operators that are accepted, with arguments that native code might not check."""
    zero, cast, back = tensor("w", [0, 0], np.int64), node("Cast", "evidence", "x", to=INT64), node("Cast", "y", "probabilities", to=FLOAT)
    yield "whole numbers over zero", model(cast, node("Div", "x w", "y"), back, constants=[zero])
    yield (
        "the least whole number over minus one",
        model(node("Div", "v w", "y"), back, constants=[tensor("v", [[-(2**63)] * 2], np.int64), tensor("w", [-1, -1], np.int64)]),
    )
    for index in (5, -5, 2**62):
        chosen = tensor("i", [index, index], np.int64)
        yield f"Gather of {index}", model(node("Gather", "evidence i", "probabilities", axis=1), constants=[chosen])
        yield (
            f"GatherElements of {index}",
            model(node("GatherElements", "evidence i", "probabilities", axis=1), constants=[tensor("i", [[index, index]], np.int64)]),
        )
        yield f"GatherND of {index}", model(node("GatherND", "evidence i", "probabilities"), constants=[tensor("i", [[[index]]], np.int64)])
        extractor = helper.make_node("ArrayFeatureExtractor", ["evidence", "i"], ["probabilities"], domain="ai.onnx.ml")
        yield f"ArrayFeatureExtractor of {index}", model(extractor, constants=[chosen])
    steps = [tensor("a", [0], np.int64), tensor("b", [2], np.int64), tensor("c", [1], np.int64), tensor("d", [0], np.int64)]
    yield "Slice of step 0", model(node("Slice", "evidence a b c d", "probabilities"), constants=steps)
    yield "Reshape to nonsense", model(node("Reshape", "evidence s", "probabilities"), constants=[tensor("s", [-7, 2**40], np.int64)])
    yield "Split into nothing", model(node("Split", "evidence s", "probabilities y", axis=1), constants=[tensor("s", [-1, 3], np.int64)])
    image = node("Reshape", "evidence s", "x")
    four, weights = tensor("s", [1, 1, 1, 2], np.int64), tensor("k", [[[[1.0]]]])
    for name, value in (
        ("strides", [0, 0]),
        ("dilations", [0, 0]),
        ("kernel_shape", [0, 0]),
        ("kernel_shape", [2**40, 2**40]),
        ("pads", [-9, -9, -9, -9]),
        ("strides", [-1, -1]),
    ):
        given = {"kernel_shape": [1, 1]} | {name: value}
        yield (
            f"MaxPool with {name} {value}",
            model(image, node("MaxPool", "x", "probabilities", **given), constants=[four], outputs=ends(name="probabilities", shape=None)),
        )
        yield (
            f"AveragePool with {name} {value}",
            model(
                image,
                node("AveragePool", "x", "probabilities", **given),
                constants=[four],
                outputs=ends(name="probabilities", shape=None),
                opset=19,
            ),
        )
        yield (
            f"Conv with {name} {value}",
            model(
                image,
                node("Conv", "x k", "probabilities", **given),
                constants=[four, weights],
                outputs=ends(name="probabilities", shape=None),
            ),
        )
    for group in (0, -1, 2**40):
        yield (
            f"Conv of {group} groups",
            model(
                image,
                node("Conv", "x k", "probabilities", group=group),
                constants=[four, weights],
                outputs=ends(name="probabilities", shape=None),
            ),
        )
    yield (
        "LinearClassifier without its numbers",
        model(
            helper.make_node(
                "LinearClassifier",
                ["evidence"],
                ["y", "probabilities"],
                domain="ai.onnx.ml",
                coefficients=[1.0],
                intercepts=[0.0],
                classlabels_ints=[0, 1],
                multi_class=0,
            )
        ),
    )
    yield (
        "LinearRegressor without its numbers",
        model(helper.make_node("LinearRegressor", ["evidence"], ["probabilities"], domain="ai.onnx.ml", coefficients=[1.0], targets=2)),
    )
    yield (
        "Scaler without its numbers",
        model(helper.make_node("Scaler", ["evidence"], ["probabilities"], domain="ai.onnx.ml", offset=[1.0], scale=[1.0, 2.0, 3.0])),
    )
    for kind, true, false in (("circle", 0, 0), ("place outside", 2**40, 7), ("place before the start", -3, -9)):
        yield f"tree with a {kind}", tree([0, 1, 2], [true, 0, 0], [false, 0, 0], ["BRANCH_LEQ", "LEAF", "LEAF"])
    yield "tree with a long circle", tree([0, 1, 2], [1, 0, 0], [2, 0, 0], ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"])
    yield "tree of a feature outside", tree([0, 1, 2], [1, 0, 0], [2, 0, 0], ["BRANCH_LEQ", "LEAF", "LEAF"], feature=10**6)
    yield "tree of a target outside", tree([0, 1, 2], [1, 0, 0], [2, 0, 0], ["BRANCH_LEQ", "LEAF", "LEAF"], target=10**6)
    yield "tree of lists of different length", tree([0, 1, 2], [1], [2, 0, 0], ["BRANCH_LEQ", "LEAF", "LEAF"])
    deep = 50_000
    yield (
        "tree of fifty thousand storeys",
        tree(
            range(2 * deep + 1),
            [*range(1, 2 * deep, 2), *[0] * (deep + 1)],
            [*range(2, 2 * deep + 1, 2), *[0] * (deep + 1)],
            ["BRANCH_LEQ"] * deep + ["LEAF"] * (deep + 1),
        ),
    )


def empties() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Accepted operators over no values at all, and other arguments at the edge."""
    free, none = ends(name="probabilities", shape=None), tensor("a", [0], np.int64)
    rows = node("Slice", "evidence a a", "y")
    numbers = [node("Cast", "evidence", "x", to=INT64), node("Slice", "x a a", "y"), node("Cast", "z", "probabilities", to=FLOAT)]
    for operator, given in (("ReduceMean", {"axes": [0]}), ("ReduceMax", {"axes": [0]}), ("ArgMax", {"axis": 0})):
        graph = model(*numbers[:2], node(operator, "y", "z", **given), numbers[2], constants=[none], outputs=free)
        yield f"{operator} of no whole numbers", graph
    picture = [node("Reshape", "evidence s", "x"), node("Slice", "x a a d", "y")]
    constants = [none, tensor("s", [1, 1, 1, 2], np.int64), tensor("d", [3], np.int64)]
    one = {"kernel_shape": [1, 1]}
    for operator, given in (("GlobalAveragePool", {}), ("AveragePool", one), ("MaxPool", one), ("Softmax", {}), ("Flatten", {"axis": 9})):
        yield f"{operator} of no picture", model(*picture, node(operator, "y", "probabilities", **given), constants=constants, outputs=free)
    shape = tensor("s", [0, 2**40], np.int64)
    yield "Reshape of nothing", model(rows, node("Reshape", "y s", "probabilities", allowzero=1), constants=[none, shape], outputs=free)
    scales = [tensor("s", [0.0, 0.0]), tensor("z", [0, 0], np.uint8)]
    for size in (0, -1, 3, 2**40):
        there = node("QuantizeLinear", "evidence s z", "q", axis=1, block_size=size)
        back = node("DequantizeLinear", "q s z", "probabilities", axis=1, block_size=size)
        yield f"quantised in blocks of {size}", model(there, back, constants=scales, opset=21, ir=10)
    layer = node("LayerNormalization", "evidence s", "probabilities", axis=-(2**31))
    yield "LayerNormalization of an axis outside", model(layer, constants=scales[:1])
    normaliser = helper.make_node("Normalizer", ["y"], ["probabilities"], domain="ai.onnx.ml", norm="L2")
    yield "Normalizer of no rows", model(rows, normaliser, constants=[none], outputs=free)
    pads = tensor("p", [-9, -9, -(2**62), 2**62], np.int64)
    yield "Pad by less than nothing", model(node("Pad", "evidence p", "probabilities"), constants=[pads], outputs=free)


def tree(places: Any, true: Any, false: Any, modes: Any, feature: int = 0, target: int = 0) -> onnx.ModelProto:
    """A regression tree over the evidence, one number per class."""
    count = len(list(places))
    given = {
        "nodes_treeids": [0] * count, "nodes_nodeids": list(places), "nodes_featureids": [feature] * count, "nodes_values": [0.5] * count,
        "nodes_modes": modes, "nodes_truenodeids": true, "nodes_falsenodeids": false, "n_targets": 2,
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [target, 1], "target_weights": [0.5, 0.5],
    }  # fmt: skip
    return model(helper.make_node("TreeEnsembleRegressor", ["evidence"], ["probabilities"], domain="ai.onnx.ml", **given))


def hostile_models() -> Iterator[HostileModel]:
    """All of them, in a fixed order."""
    for make in (control_flow, giants, wrong_ends, broken_graphs, wrong_answers, crashes, empties):
        for kind, proto in make():
            yield HostileModel(f"{make.__name__}: {kind}", proto.SerializeToString())
    for kind, content in other_bytes():
        yield HostileModel(f"other_bytes: {kind}", content)
    for every in (outside_files, hidden_giants):
        for hostile in every():
            yield HostileModel(f"{every.__name__}: {hostile.kind}", hostile.content, hostile.evidence, hostile.prepare)


def write_bundle_of(hostile: HostileModel, folder: Path) -> None:
    """A bundle that a trusted key signed, in `folder` (…/<task>/<version>)."""
    from inference.bundle import SIGNED_FILES, Contract
    from training.export import sign

    ends_of = {"dtype": "float32", "shape": ["n", 2], "meaning": "two numbers"}
    contract = Contract.model_validate(
        {
            "task": "tiny", "version": "1.0.0", "created": "2026-01-01T00:00:00+00:00", "model_sha256": hashlib.sha256(hostile.content).hexdigest(),
            "inputs": [{"name": "evidence", **ends_of}], "outputs": [{"name": "probabilities", **ends_of}],
            "labels": [{"name": "a", "name_en": "A"}, {"name": "b", "name_en": "B"}], "intended_use": "Tests.", "limits": [], "licence": "Apache-2.0", "data": [],
        }
    )  # fmt: skip
    folder.mkdir(parents=True)
    content = {
        "model.onnx": hostile.content,
        "contract.json": contract.model_dump_json().encode(),
        "metrics.json": b"{}",
        "card.md": b"# Tiny",
    }
    for name in SIGNED_FILES:
        (folder / name).write_bytes(content[name])
    sign(folder, content)
    hostile.prepare(folder)


def main(place: Path) -> None:
    """Try every bundle and say what came of it; any exception but BundleError ends the run, as a crash does."""
    from hostile_photos import peak_megabytes

    from inference.bundle import load_bundle
    from inference.errors import BundleError

    for number, hostile in enumerate(hostile_models()):
        folder = place / "models" / f"tiny{number}" / "1.0.0"
        write_bundle_of(hostile, folder)
        sys.stdout.write(json.dumps({"begins": hostile.kind}) + "\n")
        sys.stdout.flush()
        before, answer = peak_megabytes(reset=True), {"kind": hostile.kind, "stopped": "never", "said": ""}
        try:
            answer["stopped"] = "never"
            bundle = load_bundle(folder)
            answer["stopped"] = "loaded"
            bundle.run({"evidence": np.array(hostile.evidence, np.float32)})
        except BundleError as error:
            answer |= {
                "stopped": "at loading" if answer["stopped"] == "never" else "at scoring",
                "said": str(error).replace(str(folder), "FOLDER"),
            }
        sys.stdout.write(json.dumps(answer | {"grew": peak_megabytes() - before}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main(Path(sys.argv[1]))
