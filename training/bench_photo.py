"""The photo part of `make bench`: a 12-megapixel JPEG to an assessment on one core, and ONNX beside PyTorch eager.

Every pair is timed in turn, so that a busy machine slows both alike. The eager network has the live bundle's layers; its weights
are ImageNet's, which costs the same time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.bundle import Bundle, load_bundle
from inference.case import Photo, read_case
from inference.lesions import LesionModel, LesionRequest
from inference.models import live_versions, load_models
from inference.photo import PhotoRecipe, normalise
from inference.triage import Triage
from training.lesion_backbones import BACKBONES
from training.lesion_familiarity import fit_familiarity
from training.lesion_network import CalibratedLesionNetwork, LesionNetwork
from training.render import render_lesion

Input = TypeVar("Input")
PHOTOS, DISTINCT_PHOTOS, REPEATS = 96, 8, 30
TWELVE_MEGAPIXELS = (4000, 3000)


def photo_rows(folder: Path, models: Path, threads: int) -> list[tuple[str, str]]:
    """Photos a second in a batch, and single photos against doing the same plainly."""
    for index in range(DISTINCT_PHOTOS):
        render_lesion(index, 2 + index % 5, (90, 60, 50), 0.1, 0.3, TWELVE_MEGAPIXELS).save(folder / f"{index}.jpg", quality=90)
    bundle = load_bundle(models / "lesions" / live_versions(models)["lesions"])
    return [*_batch(folder, bundle, threads), *_single(folder, models, bundle)]


def _batch(folder: Path, bundle: Bundle, threads: int) -> list[tuple[str, str]]:
    requests = [LesionRequest(Photo(path=f"{index % DISTINCT_PHOTOS}.jpg", body_site="arm"), folder) for index in range(PHOTOS)]
    model = LesionModel(bundle, threads)
    model.score(requests[:4])
    ours = seconds_of(lambda: model.score(requests))
    return [(f"photos of 12 megapixels, decode to score, {threads} threads: photos a second", f"{PHOTOS / ours:.1f}")]


def _single(folder: Path, models: Path, bundle: Bundle) -> list[tuple[str, str]]:
    """Medians of REPEATS photos, each on one thread."""
    torch.set_num_threads(1)
    triage, now = Triage(load_models(models, photo_threads=1)), datetime(2026, 1, 1, tzinfo=UTC)
    recipe, eager = PhotoRecipe.from_contract(bundle.contract.preprocessing), eager_network(bundle)
    files = [(folder / f"{index}.jpg").read_bytes() for index in range(DISTINCT_PHOTOS)]
    clinical = np.zeros((1, int(bundle.contract.inputs[1].shape[1])), dtype=np.float32)

    def assess(content: bytes) -> None:
        reading = read_case({"case_id": "bench", "age_years": 60, "photos": [{"path": "a.jpg", "body_site": "arm"}]}, "bench")
        triage.assess(reading, now, {"a.jpg": content})

    def plainly(content: bytes) -> None:
        image = Image.open(BytesIO(content)).convert("RGB").resize((recipe.size,) * 2, Image.Resampling.BICUBIC)
        score(normalise(np.asarray(image)[None], recipe))

    def score(photo: NDArray[np.float32]) -> None:
        with torch.inference_mode():
            eager(torch.from_numpy(photo), torch.from_numpy(clinical))

    ready = normalise(np.asarray(Image.open(BytesIO(files[0])).resize((recipe.size,) * 2))[None], recipe)
    ours, plain = in_turn([assess, plainly], files)
    onnx, torch_eager = in_turn([lambda _: bundle.run({"photo": ready, "clinical": clinical}), lambda _: score(ready)], files)
    return [
        ("a 12-megapixel JPEG to an assessment, one core: milliseconds, median", f"{1000 * ours:.1f}"),
        ("the same in Pillow at full size and PyTorch eager, without the rest: times as long", f"{plain / ours:.1f}"),
        ("the lesion model alone in onnxruntime, batch of 1, one thread: milliseconds, median", f"{1000 * onnx:.1f}"),
        ("the same network in PyTorch eager: times as long", f"{torch_eager / onnx:.1f}"),
    ]


def eager_network(bundle: Bundle) -> CalibratedLesionNetwork:
    """A network of the bundle's layers, extra outputs included."""
    contract, size = bundle.contract, len(bundle.contract.labels)
    backbone = BACKBONES[contract.training["backbone"]]()
    network = LesionNetwork(backbone, int(contract.inputs[1].shape[1]), size)
    embeddings = np.random.default_rng(0).normal(size=(200, backbone.embedding_size))
    familiarity = fit_familiarity(embeddings, np.arange(200) % size)
    return CalibratedLesionNetwork(network, 1.0, torch.zeros(size), torch.zeros(size), familiarity).eval()


def in_turn(calls: Sequence[Callable[[Input], object]], inputs: Sequence[Input], repeats: int = REPEATS) -> list[float]:
    """The median seconds of each call, called in turn `repeats` times after one that is not counted; each turn on one input."""
    taken: list[list[float]] = [[] for _ in calls]
    for index in range(repeats + 1):
        for call, seconds in zip(calls, taken, strict=True):
            seconds.append(seconds_of(partial(call, inputs[index % len(inputs)])))
    return [statistics.median(seconds[1:]) for seconds in taken]


def seconds_of(call: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
