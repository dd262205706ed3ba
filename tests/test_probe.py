"""The probe: a bundle's graph is asked again what the trained model answered."""

from __future__ import annotations

import json
from math import isnan

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_bundle import contract, model, signed_again

from inference.bundle import load_bundle
from inference.errors import BundleError, ExportError
from training.export import write_bundle
from training.probe import make_probe, probe_difference

EVIDENCE = np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=np.float32)


@pytest.fixture(autouse=True)
def _own_signing_key(monkeypatch):
    """Each test signs with a key of its own temporary folder."""
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)


def softmax(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The trained model."""
    powers = np.exp(feeds["evidence"])
    return {"probabilities": powers / powers.sum(axis=1, keepdims=True)}


def written(tmp_path, probe):
    """A bundle of a softmax with that probe."""
    folder = tmp_path / "models" / "tiny" / "1.0.0"
    write_bundle(folder, model().SerializeToString(), contract(probe=probe), {"command": "none", "evaluations": {}})
    return folder


def test_a_faithful_graph_gives_the_kept_answers(tmp_path):
    """Through the contract's JSON and back."""
    bundle = load_bundle(written(tmp_path, make_probe(softmax, {"evidence": EVIDENCE})))
    assert probe_difference(bundle) < 1e-6


def test_a_bundle_without_a_probe_says_nothing(tmp_path):
    """Not that it is right."""
    assert isnan(probe_difference(load_bundle(written(tmp_path, {}))))


def test_a_graph_that_is_another_model_is_not_written(tmp_path):
    """The probe's answers are those of a sharper model: 0.982 against 0.881."""
    probe = make_probe(lambda feeds: softmax({"evidence": 2 * feeds["evidence"]}), {"evidence": EVIDENCE})
    with pytest.raises(ExportError) as caught:
        written(tmp_path, probe)
    assert str(caught.value) == (
        f"{tmp_path / 'models' / 'tiny' / '1.0.0'}: the graph's answers to the contract's probe differ from the trained model's by 1.01e-01: train it again"
    )


@pytest.mark.parametrize(
    "probe", [{"inputs": {}}, {"inputs": {}, "outputs": 3}, {"inputs": {"evidence": {"dtype": "float32"}}, "outputs": {}}]
)
def test_a_probe_that_cannot_be_read_is_refused(tmp_path, probe):
    """Whoever signed it."""
    folder = written(tmp_path, {})
    fields = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**fields, "probe": probe}))
    signed_again(folder)
    with pytest.raises(BundleError, match=r"tiny 1\.0\.0: its probe cannot be read \(.*\): export it again"):
        probe_difference(load_bundle(folder))


def test_photos_are_kept_as_flat_tiles():
    """A photo of 3 x 96 x 96 takes 192 numbers, and the answers are those to the tiles, not to the photo."""
    photos = np.random.default_rng(0).random((5, 3, 96, 96)).astype(np.float32)
    asked = []

    def source(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        asked.append(feeds["photo"])
        return {"mean": feeds["photo"].mean(axis=(1, 2, 3))}

    probe = make_probe(source, {"photo": photos})
    assert probe["inputs"]["photo"]["shape"] == [4, 3, 8, 8] and probe["inputs"]["photo"]["tile"] == 12
    tiles = asked[0]
    assert tiles.shape == (4, 3, 96, 96)
    assert (tiles[..., :12, :12] == tiles[..., :1, :1]).all()
    assert tiles[0, 0, 0, 0] == pytest.approx(photos[0, 0, :12, :12].mean(), abs=1e-6)


def test_a_changed_weight_is_found(tmp_path):
    """A graph that multiplies by 1 is exported and becomes one that multiplies by 1.01."""
    scaled = model(
        onnx.helper.make_node("Mul", ["evidence", "scale"], ["scaled"]),
        onnx.helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=1),
        initializers=[numpy_helper.from_array(np.float32(1.01), "scale")],
    )
    folder = tmp_path / "models" / "tiny" / "1.0.0"
    write_bundle(folder, scaled.SerializeToString(), contract(), {"command": "none", "evaluations": {}})
    fields = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**fields, "probe": make_probe(softmax, {"evidence": EVIDENCE})}))
    signed_again(folder)
    assert probe_difference(load_bundle(folder)) == pytest.approx(0.0021, abs=2e-4)
