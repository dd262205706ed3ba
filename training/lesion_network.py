"""The lesion network: a pretrained backbone over the photo, fused with the encoded clinical fields.

It knows layer shapes, never photos, augmentation or a label's meaning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.lesion_backbones import Backbone


class LesionNetwork(nn.Module):
    """Photo [N, 3, S, S] and clinical fields [N, F] to logits [N, classes].

    The two branches add their logits, so that each stays useful when the other says nothing.
    """

    def __init__(self, backbone: Backbone, clinical_size: int, class_count: int) -> None:
        super().__init__()
        hidden = 64
        self.backbone = backbone.network
        self.clinical = nn.Sequential(nn.Linear(clinical_size, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, hidden), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.photo_logits = nn.Linear(backbone.embedding_size, class_count)
        self.clinical_logits = nn.Linear(hidden, class_count)

    def forward(self, photo: Tensor, clinical: Tensor) -> Tensor:
        """Score a batch."""
        embedding = self.dropout(self.backbone(photo))
        logits: Tensor = self.photo_logits(embedding) + self.clinical_logits(self.clinical(clinical))
        return logits


class CalibratedLesionNetwork(nn.Module):
    """The network as it is exported: calibration inside, probabilities out."""

    offsets: Tensor
    malignant: Tensor

    def __init__(self, network: nn.Module, temperature: float, offsets: Tensor, malignant: Tensor) -> None:
        """`offsets` [classes] are added to the tempered logits; `malignant` [classes] is 1.0 for every
        malignant label, in label order, and 0.0 for the others."""
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.register_buffer("offsets", offsets)
        self.register_buffer("malignant", malignant)

    def forward(self, photo: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor]:
        """Give probabilities [N, classes] and the malignancy probability [N]."""
        logits = self.network(photo, clinical) / self.temperature + self.offsets
        probabilities = torch.softmax(logits, dim=1)
        return probabilities, probabilities @ self.malignant
