"""The symptom network: evidence weights that start as the knowledge's log probabilities, and a small learned correction.

logits = prior by age band and sex + shift by season and province + weights of present and absent evidence + MLP.
The first three are Bayes' rule under independence; the MLP learns what independence gets wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from training.knowledge import Floats, Knowledge

_FLOOR = 1e-4


class SymptomNetwork(nn.Module):
    """Input: evidence [N, S] in {-1, 0, +1}, demographics [N] (index), log_shift [N, C]. Output: logits [N, C]."""

    def __init__(self, knowledge: Knowledge, hidden: int = 128) -> None:
        super().__init__()
        slots, conditions = len(knowledge.slots), len(knowledge.labels)
        present, absent = evidence_weights(knowledge)
        prior = _tensor(knowledge.log_demographics)
        self.prior = nn.Embedding(prior.shape[0], prior.shape[1], _weight=prior)
        self.present = nn.Parameter(_tensor(present))
        self.absent = nn.Parameter(_tensor(absent))
        self.demographics = nn.Embedding(knowledge.log_demographics.shape[0], 8)
        self.correction = nn.Sequential(
            nn.Linear(2 * slots + 8, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, conditions)
        )
        last = self.correction[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, evidence: Tensor, demographics: Tensor, log_shift: Tensor) -> Tensor:
        """Logits [N, C] under the real prior."""
        wide = torch.cat([torch.relu(evidence), torch.relu(-evidence), self.demographics(demographics)], dim=1)
        return self.linear(evidence, demographics, log_shift) + self.correction(wide)

    def linear(self, evidence: Tensor, demographics: Tensor, log_shift: Tensor) -> Tensor:
        """The logits without the correction, [N, C]: before training, Bayes' rule under independence."""
        weighed = torch.relu(evidence) @ self.present + torch.relu(-evidence) @ self.absent
        return self.prior(demographics) + log_shift + weighed


def evidence_weights(knowledge: Knowledge) -> tuple[Floats, Floats]:
    """log P(slot | condition) and, for binary and multi-valued findings, log P(not slot | condition), both [S, C]."""
    p = np.clip(knowledge.presence, _FLOOR, 1 - _FLOOR)
    independent = np.array([kind != "C" for kind in knowledge.kind])
    return np.log(p).T, np.where(independent[:, None], np.log1p(-p).T, 0.0)


def _tensor(values: Floats) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
