"""The symptom trainer's hyper-parameters: the shipped ones, a smoke run's, and those of the DDXPlus benchmark.

Numbers only. It trains nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters. `tempering` flattens the prior in training; the export puts the real one back.

    `checks` times in a run the loss on `held_out_patients` is measured; training stops after `patience` checks without a
    better one, and the best weights are the result.
    """

    steps: int = 800
    batch: int = 2048
    rate: float = 2e-3
    hidden: int = 128
    tempering: float = 0.5
    single_complaint: bool = False
    calibration_patients: int = 20_000
    soft_weight: float = 0.2
    weight_decay: float = 1e-4
    checks: int = 16
    patience: int = 8
    held_out_patients: int = 4096

    @property
    def check_every(self) -> int:
        """Steps from one check to the next."""
        return max(1, self.steps // self.checks)


def recipe_of(args: argparse.Namespace, *, is_catalogue: bool) -> Recipe:
    """The recipe that the command line asks for; `--steps` has the last word."""
    smoke = {"steps": 60, "batch": 512, "calibration_patients": 3000, "held_out_patients": 1024} if args.smoke else {}
    steps = {"steps": args.steps} if args.steps else {}
    # Bayes' rule, from which the network starts, is already right for patients drawn from DDXPlus's statistics; what the release's
    # patients do otherwise they do not show. A few small steps keep it there, and 500 large ones cost accuracy with few questions.
    kind = {} if is_catalogue else {"single_complaint": True, "tempering": 0.7, "steps": 40, "rate": 1e-4, "calibration_patients": 8_000}
    return Recipe(**{**kind, **smoke, **steps})
