"""Fits the symptom network: patients drawn afresh for every step, early stopping, checkpoints, one process or several.

Gets knowledge and a recipe and gives a network. It knows no calibration, bundle, tracker or terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.checkpoints import load_checkpoint, save_checkpoint
from training.distributed import ALONE, Ranks
from training.early_stopping import EarlyStopping
from training.generator import PatientGenerator
from training.hardware import CPU, Hardware, repeatable
from training.knowledge import Knowledge
from training.seen import Prints, Sketch
from training.symptom_batches import Batch, check_ranks, held_out_batch, training_batch
from training.symptom_network import SymptomNetwork
from training.symptom_recipe import Recipe


@dataclass(frozen=True, slots=True)
class Heard:
    """What a step has to tell: its number from 1, its loss, and of the last check the held-out loss, the best so far and
    the checks that are left (None without a limit)."""

    step: int
    loss: float
    held_out: float
    best: float
    patience_left: int | None
    is_check: bool


OnStep = Callable[[Heard], None]


@dataclass(frozen=True, slots=True)
class Course:
    """Where a network is fitted and by whom, and where a run that was cut goes on from (None: nothing is kept)."""

    seed: int
    machine: Hardware = CPU
    ranks: Ranks = ALONE
    checkpoint: Path | None = None
    settings_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The network of the best check, on the CPU; which step and held-out loss that was, how many steps were made, and a sketch
    of the patients that were drawn."""

    network: SymptomNetwork
    best_step: int
    held_out_loss: float
    steps: int
    seen: Sketch


def fit_symptoms(knowledge: Knowledge, recipe: Recipe, course: Course, on_step: OnStep) -> Fitted:
    """Train on drawn patients until the steps or the patience end. Soft targets mix the drawn condition with the differential.

    The checkpoint is written at every check. Each step's patients come from the step's own seed, so that a run that was
    cut goes on from there and ends with the same weights as one that was not. Raises DataError when the checkpoint is
    another run's, or the batch cannot be split over the processes.
    """
    check_ranks(recipe, course.ranks)
    with repeatable(course.machine):
        return _Fit(knowledge, recipe, course).run(on_step)


def estimated_seconds(knowledge: Knowledge, recipe: Recipe, course: Course) -> float:
    """How long all steps take by the wall clock, from two of them; the first warms up and does not count."""
    fit = _Fit(knowledge, replace(recipe, steps=max(3, recipe.steps)), course)
    fit._step(0)
    began = time.perf_counter()
    for step in (1, 2):
        fit._step(step)
    return (time.perf_counter() - began) / 2 * recipe.steps


class _Fit:
    """One fit: the network and all that changes with it."""

    def __init__(self, knowledge: Knowledge, recipe: Recipe, course: Course) -> None:
        self.recipe, self.course = recipe, course
        self.device = course.machine.device
        torch.manual_seed(course.seed)
        self.network = SymptomNetwork(knowledge, recipe.hidden).to(self.device)
        self.teacher = SymptomNetwork(knowledge, recipe.hidden).requires_grad_(False).to(self.device)
        shared = course.ranks.shared(self.network)
        self.forward: Any = torch.compile(shared) if course.machine.compiled else shared
        self.generator = PatientGenerator(knowledge, recipe.tempering)
        shift = np.log(self.generator.weights / knowledge.prior)
        self.shift_to_training = torch.tensor(shift, dtype=torch.float32, device=self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
        self.stopping = EarlyStopping(recipe.patience)
        self.best = _copied(self.network)
        self.held_out = self._placed(held_out_batch(knowledge, recipe, course.seed))
        self.last_check = math.nan
        self.seen, self.drawn = Sketch(), list[Prints]()

    def run(self, on_step: OnStep) -> Fitted:
        """All steps that are left."""
        step = self._resumed()
        while step < self.recipe.steps and not self.stopping.is_over:
            loss = self._step(step)
            step += 1
            is_check = step % self.recipe.check_every == 0 or step == self.recipe.steps
            if is_check:
                self._check(step)
            on_step(Heard(step, loss, self.last_check, self.stopping.best, self.stopping.left, is_check))
        self.network.load_state_dict(self.best)
        return Fitted(self.network.to("cpu").eval(), self.stopping.best_step, self.stopping.best, step, self.seen)

    def _step(self, step: int) -> float:
        batch, prints = training_batch(self.generator, self.recipe, self.course.seed, step, self.course.ranks)
        self.drawn.append(prints)
        evidence, who, log_shift, condition = self._placed(batch)
        with torch.no_grad():
            differential = torch.softmax(self.teacher.linear(evidence, who, log_shift) + self.shift_to_training, dim=1)
        with self.course.machine.arithmetic():
            logits = self.forward(evidence, who, log_shift).float() + self.shift_to_training
        loss = _loss(logits, condition, differential, self.recipe.soft_weight)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _check(self, step: int) -> None:
        """Measure the held-out loss, keep the weights if they are the best, and write the checkpoint."""
        evidence, who, log_shift, condition = self.held_out
        with torch.no_grad():
            own = torch.nn.functional.cross_entropy(self.network(evidence, who, log_shift), condition)
        self.last_check = float(self.course.ranks.from_first(float(own)))  # one opinion, so that all stop together
        if self.stopping.hear(step, self.last_check):
            self.best = _copied(self.network)
        for prints in self.course.ranks.gathered(np.concatenate(self.drawn)):
            self.seen.add(prints)
        self.drawn.clear()
        if self.course.checkpoint is not None and self.course.ranks.is_first:
            parts = {name: part.state_dict() for name, part in self._state().items()}
            save_checkpoint(
                self.course.checkpoint, self.course.settings_sha256, {**parts, "best": self.best, "step": step, "held_out": self.last_check}
            )

    def _resumed(self) -> int:
        """Go on from the checkpoint, if there is one; the steps that it has made. All processes take the first one's."""
        file, ranks = self.course.checkpoint, self.course.ranks
        saved = load_checkpoint(file, self.course.settings_sha256) if file is not None and ranks.is_first else None
        saved = ranks.from_first(saved)
        if saved is None:
            return 0
        for name, part in self._state().items():
            part.load_state_dict(saved[name])
        self.best = {name: values.to(self.device) for name, values in saved["best"].items()}
        self.last_check = float(saved["held_out"])
        return int(saved["step"])

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "stopping": self.stopping,
            "seen": self.seen,
        }

    def _placed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        arrays = (batch.evidence, batch.demographics, batch.log_shift, batch.condition)
        evidence, who, log_shift, condition = (torch.from_numpy(array).to(self.device) for array in arrays)
        return evidence, who, log_shift, condition


def _loss(logits: Tensor, condition: Tensor, differential: Tensor, soft_weight: float) -> Tensor:
    log_p = torch.log_softmax(logits, dim=1)
    hard = torch.nn.functional.nll_loss(log_p, condition)
    soft = -(differential * log_p).sum(dim=1).mean()
    return (1 - soft_weight) * hard + soft_weight * soft


def _copied(network: SymptomNetwork) -> dict[str, Tensor]:
    return {name: values.detach().clone() for name, values in network.state_dict().items()}
