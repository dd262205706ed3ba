"""A lesion model in INT8 (QDQ, per channel, calibrated on real photos), measured beside the fp32 model that it came from.

`python -m training.lesion_quantisation BUNDLE --data FOLDER` prints what it would bring on this machine. It is worth shipping
only where it is faster and hardly worse, which for EfficientNet-Lite0 it was not: so it writes no bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from inference.bundle import load_bundle
from inference.lesions import LesionModel, LesionRequest
from inference.photo import PhotoRecipe, normalise
from training.bench_photo import in_turn
from training.export import one_thread_session
from training.metrics import balanced_accuracy
from training.skin_data import read_skin_data

Array = NDArray[Any]
Feeds = dict[str, Array]
LARGEST_FALL = 0.005  # of balanced accuracy
LEAST_SPEEDUP = 1.05
_REPEATS = 60
_BATCH = 64
_CALIBRATION_PHOTOS, _TEST_PHOTOS = 100, 300
_FIRST, _REST = slice(None, _CALIBRATION_PHOTOS), slice(_CALIBRATION_PHOTOS, None)


def main() -> None:
    """Quantise a bundle's model on photos of a data set and print what it is worth on others of it, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos with its table")
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    model, records = LesionModel(bundle, 1), list(read_skin_data(args.data).records)
    chosen = np.random.default_rng(0).permutation(len(records))[: _CALIBRATION_PHOTOS + _TEST_PHOTOS]
    ready = [model.ready(LesionRequest(records[i].photo, records[i].folder, records[i].age_years)) for i in chosen]
    feeds = {
        "photo": normalise(np.stack([one.pixels for one in ready]), PhotoRecipe.from_contract(bundle.contract.preprocessing)),
        "clinical": np.stack([one.clinical for one in ready]),
    }
    targets = np.array([model.labels.index(records[i].label) for i in chosen])
    calibration, test = ({name: values[part] for name, values in feeds.items()} for part in (_FIRST, _REST))
    found = quantised((args.bundle / "model.onnx").read_bytes(), calibration, test, targets[_REST])
    sys.stdout.write(json.dumps(found.as_json()) + "\n")


@dataclass(frozen=True, slots=True)
class Quantised:
    """An INT8 model and what it is worth: seconds a photo (batch of 1, one thread, median) and balanced accuracy, beside fp32's."""

    model: bytes
    fp32_seconds: float
    int8_seconds: float
    fp32_balanced_accuracy: float
    int8_balanced_accuracy: float
    n: int

    @property
    def is_worth_shipping(self) -> bool:
        """Whether it is measurably faster and its balanced accuracy falls by LARGEST_FALL at most."""
        is_faster = self.fp32_seconds >= LEAST_SPEEDUP * self.int8_seconds
        return is_faster and self.fp32_balanced_accuracy - self.int8_balanced_accuracy <= LARGEST_FALL + 1e-9

    def as_json(self) -> dict[str, float | int | bool]:
        """The figures for contract.training and the card."""
        return {
            "speedup": round(self.fp32_seconds / self.int8_seconds, 2),
            "fp32_balanced_accuracy": self.fp32_balanced_accuracy,
            "int8_balanced_accuracy": self.int8_balanced_accuracy,
            "n": self.n,
            "is_worth_shipping": self.is_worth_shipping,
        }


def quantised(model: bytes, calibration: Feeds, test: Feeds, targets: NDArray[np.int64]) -> Quantised:
    """Quantise `model` on the photos and answers of `calibration`, and measure both on `test` with class indices [n].

    Both accuracies are of photos that the network may have learned from: they say what INT8 costs, not how good the model is.
    """
    small = quantise(model, calibration)
    sessions = [one_thread_session(one) for one in (model, small)]
    one = {name: values[:1] for name, values in test.items()}
    fp32, int8 = in_turn([partial(session.run, None) for session in sessions], [one], _REPEATS)
    before, after = (balanced_accuracy(targets, _labels(session, test)) for session in sessions)
    return Quantised(small, fp32, int8, before, after, len(targets))


def quantise(model: bytes, calibration: Feeds) -> bytes:
    """Weights and activations of the convolutions in INT8, per channel; what follows the feature map stays fp32."""
    with tempfile.TemporaryDirectory() as folder:
        source, ready, small = (Path(folder) / name for name in ("fp32.onnx", "ready.onnx", "int8.onnx"))
        source.write_bytes(model)
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(small),
            _Photos(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration photos over one by one."""

    def __init__(self, feeds: Feeds) -> None:
        count = len(next(iter(feeds.values())))
        self._rows: Iterator[Feeds] = ({name: values[row : row + 1] for name, values in feeds.items()} for row in range(count))

    def get_next(self) -> Feeds | None:
        """The next photo, or None after the last."""
        return next(self._rows, None)


def _labels(session: onnxruntime.InferenceSession, feeds: Feeds) -> NDArray[np.int64]:
    count = len(next(iter(feeds.values())))
    parts = [{name: values[at : at + _BATCH] for name, values in feeds.items()} for at in range(0, count, _BATCH)]
    return np.concatenate([session.run(["probabilities"], part)[0].argmax(axis=1) for part in parts])


if __name__ == "__main__":
    main()
