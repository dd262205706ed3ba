"""What is exported of a symptom network: calibrated probabilities, exact reasons, and how well the findings fit any condition.

Trains nothing. The reasons are those of the network as it is, its hidden layers included: they add up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.knowledge import Floats, Knowledge
from training.symptom_network import SymptomNetwork, evidence_weights

OUTPUTS = ("probabilities", "contributions", "shared", "fit")


class SymptomScorer(nn.Module):
    """Gives `probabilities` [N, C], `contributions` [N, S], `shared` [N, 2] and `fit` [N].

    `contributions` are what each slot adds to the log-odds of the leading condition against the average one, conditions
    weighted by their priors. `shared[:, 0]` is what age, sex, season and place add, and `shared[:, 1]` what the findings
    add together and none of them alone. All of them sum to the leading condition's calibrated logit less the average one.

    The hidden layers are linear between the kinks of their ReLUs, so that each input's part is its value times the slope
    there; the rest, less what the layers give for nothing known, belongs to the findings together.

    `fit` is the log probability, by the knowledge, that somebody of this age and sex has the findings that are there.
    """

    def __init__(self, network: SymptomNetwork, temperature: float, knowledge: Knowledge) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        first, second, last = (layer for layer in network.correction if isinstance(layer, nn.Linear))
        self.first, self.second, self.last = first, second, last
        self.average = nn.Parameter(_tensor(knowledge.prior), requires_grad=False)
        with torch.no_grad():
            self.relative_present = nn.Parameter(self._relative(network.present.T), requires_grad=False)
            self.relative_absent = nn.Parameter(self._relative(network.absent.T), requires_grad=False)
            self.relative_last = nn.Parameter(self._relative(last.weight), requires_grad=False)
        present, _ = evidence_weights(knowledge)
        self.known_present = nn.Parameter(_tensor(present), requires_grad=False)
        self.known_prior = nn.Embedding.from_pretrained(_tensor(knowledge.log_demographics))  # type: ignore[no-untyped-call]

    def forward(self, evidence: Tensor, demographics: Tensor, log_shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Probabilities, contributions, shared and fit."""
        positive, negative = torch.relu(evidence), torch.relu(-evidence)
        who = self.network.demographics(demographics)
        base = self.network.prior(demographics) + log_shift
        kinked = self.first(torch.cat([positive, negative, who], dim=1))
        hidden = self.second(torch.relu(kinked))
        logits = base + positive @ self.network.present + negative @ self.network.absent + self.last(torch.relu(hidden))
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        leading = torch.argmax(probabilities, dim=1)
        slopes = self._slopes(leading, kinked, hidden)
        slots = evidence.shape[1]
        present = torch.index_select(self.relative_present, 0, leading) + slopes[:, :slots]
        absent = torch.index_select(self.relative_absent, 0, leading) + slopes[:, slots : 2 * slots]
        contributions = (positive * present + negative * absent) / self.temperature
        nothing = self.first.bias + who @ self.first.weight[:, 2 * slots :].T
        unasked = base + self.last(torch.relu(self.second(torch.relu(nothing))))
        person = self._lead(unasked, leading) / self.temperature
        together = self._lead(logits, leading) / self.temperature - contributions.sum(dim=1, keepdim=True) - person
        return probabilities, contributions, torch.cat([person, together], dim=1), self._fit(positive, demographics, log_shift)

    def _slopes(self, leading: Tensor, kinked: Tensor, hidden: Tensor) -> Tensor:
        """How the leading condition's logit less the average one rises with each input of the hidden layers, [N, inputs]."""
        after = torch.index_select(self.relative_last, 0, leading) * (hidden > 0).to(hidden.dtype)
        before = (after @ self.second.weight) * (kinked > 0).to(kinked.dtype)
        return before @ self.first.weight

    def _lead(self, logits: Tensor, leading: Tensor) -> Tensor:
        """The leading condition's logit less the average one, [N, 1]."""
        return torch.gather(logits, 1, leading[:, None]) - logits @ self.average[:, None]

    def _fit(self, positive: Tensor, demographics: Tensor, log_shift: Tensor) -> Tensor:
        prior = torch.log_softmax(self.known_prior(demographics) + log_shift, dim=1)
        joint = prior + positive @ self.known_present
        most = torch.amax(joint, dim=1)
        return most + torch.log(torch.exp(joint - most[:, None]).sum(dim=1))

    def _relative(self, weights: Tensor) -> Tensor:
        """Each condition's weights less the average one's; `weights` [C, ...]."""
        return (weights - self.average[None, :] @ weights).contiguous()


def _tensor(values: Floats) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
