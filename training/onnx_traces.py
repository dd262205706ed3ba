"""An exported graph without the exporter's notes on where it came from.

They name folders of the machine that trained it, and change with every line of code, which the model does not.
"""

from __future__ import annotations

import onnx


def has_traces(model: bytes) -> bool:
    """Whether any operator says where in the trainer's code it came from."""
    return any(node.metadata_props for node in onnx.load_model_from_string(model).graph.node)


def without_traces(model: bytes) -> bytes:
    """The model without stack traces and other metadata of its parts."""
    proto = onnx.load_model_from_string(model)
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        del part.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    return bytes(proto.SerializeToString())
