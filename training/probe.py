"""A few inputs with the trained model's own answers, kept in the contract, so that whoever holds a bundle can ask its graph again.

A graph that was changed after the export, or that a converter treated differently, gives other answers. Inputs of many values (a
photo) are kept as a few flat tiles, which costs a contract some kilobytes instead of megabytes. Knows no task.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.errors import BundleError

Array = NDArray[Any]
Source = Callable[[dict[str, Array]], Mapping[str, Array]]
PROBE_ROWS = 4
TOLERANCE = 1e-4  # that of the parity check at export
_TILES = 8  # a side of a tiled input
_LARGEST_ROW = 4096  # values of one row that are kept as they are
_DTYPES = {"float32": np.float32, "int64": np.int64, "uint8": np.uint8}


def make_probe(source: Source, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """The contract's `probe`: the first rows of `feeds` and what the trained model (`source`) answers to them."""
    inputs = {name: _tiled(values[:PROBE_ROWS]) for name, values in feeds.items()}
    answers = source({name: values for name, (values, _) in inputs.items()})
    return {
        "inputs": {name: _packed(values, tile) for name, (values, tile) in inputs.items()},
        "outputs": {name: _packed(np.asarray(values, dtype=np.float32), 1) for name, values in answers.items()},
    }


def probe_difference(bundle: Bundle) -> float:
    """The largest absolute difference between the bundle's answers to its probe and the kept ones; NaN without a probe.

    Raises BundleError when the probe cannot be read, or names outputs that the bundle does not have.
    """
    probe, model = bundle.contract.probe, f"{bundle.contract.task} {bundle.contract.version}"
    if not probe:
        return float("nan")
    try:
        feeds = {name: _unpacked(packed) for name, packed in probe["inputs"].items()}
        expected = {name: _unpacked(packed) for name, packed in probe["outputs"].items()}
        answers = bundle.run(feeds)
        gaps = [float(np.max(np.abs(answers[name] - values))) for name, values in expected.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{model}: its probe cannot be read ({type(error).__name__}): export it again") from error
    if not gaps:
        raise BundleError(f"{model}: its probe holds no answer: export it again")
    return max(gaps)


def _tiled(values: Array) -> tuple[Array, int]:
    """The rows, and the side of the flat tiles that they were made of; 1 where they are as they were."""
    if values[0].size <= _LARGEST_ROW or values.ndim < 3:
        return values, 1
    tile = values.shape[-1] // _TILES
    if values.shape[-1] != values.shape[-2] or tile * _TILES != values.shape[-1]:
        raise ValueError(f"an input of shape {values.shape} cannot be kept in tiles: its sides must be equal and divisible by {_TILES}")
    small = values.reshape(*values.shape[:-2], _TILES, tile, _TILES, tile).mean(axis=(-3, -1)).astype(values.dtype)
    return _spread(small, tile), tile


def _spread(small: Array, tile: int) -> Array:
    return small.repeat(tile, axis=-2).repeat(tile, axis=-1)


def _packed(values: Array, tile: int) -> dict[str, Any]:
    small = values if tile == 1 else values[..., ::tile, ::tile]
    data = base64.b64encode(np.ascontiguousarray(small).tobytes()).decode()
    return {"dtype": str(values.dtype), "shape": list(small.shape), "tile": tile, "data": data}


def _unpacked(packed: Mapping[str, Any]) -> Array:
    flat = np.frombuffer(base64.b64decode(packed["data"], validate=True), dtype=_DTYPES[packed["dtype"]])
    small, tile = flat.reshape([int(side) for side in packed["shape"]]), int(packed["tile"])
    return small if tile == 1 else _spread(small, tile)
