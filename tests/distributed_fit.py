"""What torchrun starts in tests/test_distributed.py: each process fits both networks with the others and leaves its weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from test_lesions import some_examples, tiny_backbone

from training import lesion_fitting
from training.distributed import ALONE, Ranks, joined
from training.knowledge import load_knowledge
from training.lesion_fitting import Plan, fit
from training.symptom_fitting import Course, fit_symptoms
from training.symptom_recipe import Recipe

RECIPE = Recipe(steps=6, batch=64, hidden=8, checks=3, held_out_patients=64)
PLAN = Plan(backbone="tiny", size=16, stored_size=20, epochs=2, batch_size=8, frozen_stages=0, views=2)


def fit_both(release: Path, views: Path, folder: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The weights of a symptom network and of a lesion network, by name."""
    torch.nn.Dropout.forward = lambda _self, values: values  # type: ignore[method-assign]  # each process drops at random for itself
    lesion_fitting.BACKBONES["tiny"] = tiny_backbone
    course = Course(3, ranks=ranks, checkpoint=folder / "symptoms.pt", settings_sha256="tests")
    symptoms = fit_symptoms(load_knowledge(release), RECIPE, course, lambda _heard: None)
    lesions = fit(some_examples(), np.arange(24), 2, PLAN, 5, folder / "lesions.pt", lambda _epoch: None, views=views, ranks=ranks)
    weights = {f"symptoms.{name}": values for name, values in symptoms.network.state_dict().items()}
    weights |= {f"lesions.{name}": values for name, values in lesions.state_dict().items()}
    return {**weights, "seen": torch.tensor(symptoms.seen.state_dict()["added"])}


if __name__ == "__main__":
    torch.set_num_threads(1)
    release, views, folder = (Path(word) for word in sys.argv[1:])
    if folder.name == "alone":
        torch.save(fit_both(release, views, folder, ALONE), folder / "weights.pt")
    else:
        with joined("cpu") as ranks:
            torch.save(fit_both(release, views, folder, ranks), folder / f"weights_{ranks.rank}.pt")
