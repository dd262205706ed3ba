"""The fitted lesion network as one ONNX file, compared with torch before it may be shipped.

It does not know folds, labels or what a bundle's contract says.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.errors import ExportError
from inference.photo import PhotoRecipe
from training.export import PARITY_INPUTS, check_parity
from training.lesion_answers import hide_answers
from training.lesion_fitting import Examples
from training.lesion_network import OUTPUTS, CalibratedLesionNetwork
from training.lesion_views import to_input
from training.onnx_traces import without_traces
from training.probe import PROBE_ROWS, Source, make_probe

Array = NDArray[Any]
LARGEST_MODEL_BYTES = 20_000_000
_PARITY_BATCH = 100


def export_onnx(scorer: CalibratedLesionNetwork, size: int, clinical_size: int) -> bytes:
    """The scorer as one ONNX file without external data. Raises ExportError when it is too large to ship."""
    batch = torch.export.Dim("n", min=1, max=100_000)
    program = torch.onnx.export(
        scorer.to(memory_format=torch.contiguous_format),
        (torch.zeros(2, 3, size, size), torch.zeros(2, clinical_size)),
        dynamo=True,
        external_data=False,
        input_names=["photo", "clinical"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: batch}, {0: torch.export.Dim.AUTO}),
        verbose=False,
    )
    if program is None:
        raise ExportError("torch did not export the lesion network")
    buffer = io.BytesIO()
    program.save(buffer)  # type: ignore[arg-type]  # the stub knows paths only
    model = without_traces(buffer.getvalue())
    if len(model) > LARGEST_MODEL_BYTES:
        raise ExportError(f"the lesion model has {len(model)} bytes; at most {LARGEST_MODEL_BYTES} are shipped")
    return model


def parity_on(
    scorer: CalibratedLesionNetwork, model: bytes, examples: Examples, recipe: PhotoRecipe, seed: int, inputs: int = PARITY_INPUTS
) -> dict[str, float | int]:
    """Compare every output of ONNX with torch's on so many inputs: the photos in turn, each time with other answers unknown."""
    generator = np.random.default_rng(seed)
    rows = np.resize(generator.permutation(len(examples.targets)), inputs)
    clinical = hide_answers(examples.clinical[rows], examples.targets[rows], 0.5, generator)
    worst, compared = 0.0, 0
    for at in range(0, len(rows), _PARITY_BATCH):
        part = slice(at, at + _PARITY_BATCH)
        photo = to_input(examples.pixels[rows[part]], recipe).contiguous().numpy()
        found = check_parity(_source(scorer), model, {"photo": photo, "clinical": clinical[part]})
        worst, compared = max(worst, found["max_abs_difference"]), compared + len(photo)
    return {"max_abs_difference": worst, "rows": compared}


def probe_on(scorer: CalibratedLesionNetwork, examples: Examples, recipe: PhotoRecipe) -> dict[str, Any]:
    """The contract's probe: the first photos as flat tiles, which show nobody, with their answers."""
    photo = to_input(examples.pixels[:PROBE_ROWS], recipe).contiguous().numpy()
    return make_probe(_source(scorer), {"photo": photo, "clinical": examples.clinical[:PROBE_ROWS]})


def _source(scorer: CalibratedLesionNetwork) -> Source:
    def source(feeds: dict[str, Array]) -> dict[str, Array]:
        with torch.no_grad():
            outputs = scorer(torch.from_numpy(feeds["photo"]), torch.from_numpy(feeds["clinical"]))
        return dict(zip(OUTPUTS, (output.numpy() for output in outputs), strict=True))

    return source
