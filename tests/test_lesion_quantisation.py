"""INT8: what the graph holds, that it may be shipped by the bundle's rules, and when it is worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from test_lesions import FEATURES, tiny_backbone

from inference.bundle import check_graph
from training.lesion_export import export_onnx
from training.lesion_familiarity import fit_familiarity
from training.lesion_network import CalibratedLesionNetwork, LesionNetwork
from training.lesion_quantisation import Quantised, quantised

Array = NDArray[Any]


def test_a_quantised_model_is_qdq_per_channel_and_answers_alike() -> None:
    """Its convolution has a weight scale for each output channel, the bundle's rules accept it, and labels stay as they were."""
    torch.manual_seed(0)
    network = LesionNetwork(tiny_backbone(), len(FEATURES), 6)
    generator = np.random.default_rng(0)
    familiarity = fit_familiarity(generator.normal(size=(30, 4)), np.arange(30) % 6)
    scorer = CalibratedLesionNetwork(network, 1.0, torch.zeros(6), torch.ones(6), familiarity).eval()
    model = export_onnx(scorer, 16, len(FEATURES))
    feeds: dict[str, Array] = {
        "photo": generator.normal(size=(24, 3, 16, 16)).astype(np.float32),
        "clinical": generator.random((24, len(FEATURES))).astype(np.float32),
    }
    with torch.no_grad():
        labels = scorer(*(torch.from_numpy(feed) for feed in feeds.values()))[0].numpy().argmax(axis=1)
    found = quantised(model, feeds, feeds, labels)
    check_graph(found.model, "int8")
    graph = onnx.load_model_from_string(found.model).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    channels = {tuple(tensor.dims) for tensor in graph.initializer if "weight" in tensor.name and "scale" in tensor.name}
    assert (4,) in channels
    assert (found.n, found.fp32_balanced_accuracy) == (24, 1.0)
    assert found.int8_balanced_accuracy >= 0.9
    assert found.fp32_seconds > 0 and found.int8_seconds > 0


@pytest.mark.parametrize(
    ("int8_seconds", "int8_accuracy", "is_worth"),
    [(0.5, 0.700, True), (0.5, 0.695, True), (0.5, 0.694, False), (1.0, 0.700, False), (1.2, 0.9, False)],
)
def test_it_ships_only_where_faster_and_hardly_worse(int8_seconds: float, int8_accuracy: float, is_worth: bool) -> None:
    """Twice as fast and half a point worse is worth it; more than that, or no faster, is not."""
    found = Quantised(b"", 1.0, int8_seconds, 0.700, int8_accuracy, 100)
    assert found.is_worth_shipping is is_worth
    assert found.as_json()["speedup"] == pytest.approx(1 / int8_seconds, abs=0.01)
