"""The lesion network: a pretrained backbone over the photo, fused with the encoded clinical fields.

It knows layer shapes, never photos, augmentation or a label's meaning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.lesion_backbones import Backbone
from training.lesion_familiarity import Familiarity

OUTPUTS = ("probabilities", "malignancy_probability", "heat_map", "unfamiliarity")
_WINDOW_SHARE = 1 / 9  # of the photo, that the heat map thinks away at each place


class LesionNetwork(nn.Module):
    """Photo [N, 3, S, S] and clinical fields [N, F] to logits [N, classes].

    The two branches add their logits, so that each stays useful when the other says nothing.
    """

    def __init__(self, backbone: Backbone, clinical_size: int, class_count: int) -> None:
        super().__init__()
        self.backbone = backbone.network
        self.dropout = nn.Dropout(0.3)
        self.photo_logits = nn.Linear(backbone.embedding_size, class_count)
        self.clinical_logits = nn.Linear(clinical_size, class_count)

    def forward(self, photo: Tensor, clinical: Tensor) -> Tensor:
        """Score a batch."""
        return self.fuse(self.feature_map(photo).mean(dim=(2, 3)), clinical)

    def feature_map(self, photo: Tensor) -> Tensor:
        """What the photo branch sees at each place, [N, embedding_size, h, w]; its mean is the embedding.

        The mean of what it sees in the photo and in its mirror image, laid back: a lesion has no left and right.
        """
        straight, mirrored = self.backbone(torch.cat([photo, photo.flip(3)])).unflatten(0, (2, -1))
        features: Tensor = (straight + mirrored.flip(3)) / 2
        return features

    def fuse(self, embedding: Tensor, clinical: Tensor) -> Tensor:
        """Logits [N, classes] of embeddings [N, embedding_size] and clinical fields."""
        logits: Tensor = self.photo_logits(self.dropout(embedding)) + self.clinical_logits(clinical)
        return logits


class CalibratedLesionNetwork(nn.Module):
    """The network as it is exported: calibration inside; probabilities, a heat map and unfamiliarity out."""

    offsets: Tensor
    malignant: Tensor

    def __init__(self, network: LesionNetwork, temperature: float, offsets: Tensor, malignant: Tensor, familiarity: Familiarity) -> None:
        """`offsets` [classes] are added to the tempered logits; `malignant` [classes] is 1.0 for every
        malignant label, in label order, and 0.0 for the others."""
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.register_buffer("offsets", offsets)
        self.register_buffer("malignant", malignant)
        self.familiarity = familiarity

    def forward(self, photo: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give probabilities [N, classes], the malignancy probability [N], the heat map [N, h, w] and the
        unfamiliarity [N], as in OUTPUTS."""
        features = self.network.feature_map(photo)
        embedding = features.mean(dim=(2, 3))
        logits = self.network.fuse(embedding, clinical) / self.temperature + self.offsets
        probabilities = torch.softmax(logits, dim=1)
        malignancy = probabilities @ self.malignant
        return probabilities, malignancy, self._heat_map(features, logits, malignancy), self.familiarity(embedding)

    def _heat_map(self, features: Tensor, logits: Tensor, malignancy: Tensor) -> Tensor:
        """How far the malignancy probability falls if a ninth of the photo, looking like this place, looked like the
        photo's mean instead: [N, h, w] in [-1, 1].

        The photo's logits are linear in the mean over places (class activation mapping, Zhou et al., CVPR 2016), so
        this is exact for the features, without running the backbone again.
        """
        places = features.flatten(2).transpose(1, 2)
        beyond_mean = (places - places.mean(dim=1, keepdim=True)) @ self.network.photo_logits.weight.T / self.temperature
        without = torch.softmax(logits[:, None, :] - _WINDOW_SHARE * beyond_mean, dim=2) @ self.malignant
        falls = malignancy[:, None] - without
        return falls.reshape(features.shape[0], features.shape[2], features.shape[3])
