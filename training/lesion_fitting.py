"""Fitting the lesion network: class balance, blended photos, weight averaging, early stopping, and resuming.

Gets arrays and gives a network and its logits. It does not know files of photos, label names, metrics or
bundles.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inference.errors import DataError
from inference.photo import PhotoRecipe
from training.checkpoints import load_checkpoint, save_checkpoint
from training.distributed import ALONE, Ranks
from training.early_stopping import EarlyStopping
from training.hardware import CPU, Hardware, repeatable
from training.lesion_answers import fit_answers
from training.lesion_backbones import BACKBONES, Backbone
from training.lesion_network import LesionNetwork
from training.lesion_pretrained import begin_from, read_backbone
from training.lesion_views import KeptViews, LiveViews, to_input

Array = NDArray[Any]
_SCORING_BATCH = 32
# Measured on 298 held-out photos cut to 4:3: squashing AUC 0.936, cropping 0.934; and a crop can lose
# a lesion that lies at the edge.
GEOMETRY: Literal["squash"] = "squash"


@dataclass(frozen=True, slots=True)
class Plan:
    """The recipe. Settled on one patient-grouped split and reported on another.

    `stored_size` is the side of the pixels before augmentation crops them to `size`. `frozen_stages` leaves
    the first stages as ImageNet taught them: with hundreds of photos they gain nothing, and they cost most of
    the time. `least_unknown_rate` is how often a clinical field is hidden at least. With a `patience` above 0 a network is
    fitted until so many epochs in a row made its held-out loss no better, and the best epoch's weights are kept. It is off: the
    images that would decide are those that the bundle is calibrated and reported on, and choosing by them flatters the figures.
    """

    backbone: str = "efficientnet_lite0"
    size: int = 160
    stored_size: int = 208
    epochs: int = 14
    batch_size: int = 32
    backbone_rate: float = 3e-4
    head_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixing: float = 0.2
    class_balance: float = 1.0
    frozen_stages: int = 6
    views: int = 14
    least_crop: float = 0.4
    averaging_decay: float = 0.98
    least_unknown_rate: float = 0.15
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """What the network learns from, row by row.

    `stored` [N, stored_size, stored_size, 3] is augmented and cropped; `pixels` [N, size, size, 3] is what
    inference would see; `clinical` [N, F] is encoded; `targets` [N] are class indices.
    """

    stored: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    clinical: NDArray[np.float32]
    targets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch has to tell: its number from 1, its mean loss, the seconds that its steps took and how many they were;
    the held-out loss, the best one so far, and the epochs that are left, where images decide (else None)."""

    number: int
    loss: float
    seconds: float
    steps: int
    held_out: float | None = None
    best: float | None = None
    patience_left: int | None = None


OnEpoch = Callable[[Epoch], None]


def fit(
    examples: Examples,
    rows: NDArray[np.int64],
    classes: int,
    plan: Plan,
    seed: int,
    checkpoint: Path,
    on_epoch: OnEpoch,
    *,
    views: Path | None = None,
    start: Path | None = None,
    machine: Hardware = CPU,
    ranks: Ranks = ALONE,
    stops_by: NDArray[np.int64] | None = None,
    settings_sha256: str = "",
) -> LesionNetwork:
    """Fit on `rows` and return the weight-averaged network on the CPU, in evaluation mode.

    The photo branch learns from photos alone and the clinical branch from answers alone: fitted together, the photo
    branch leans on the answers and is poor without them. `views` are kept views of all examples; without them photos
    are augmented live. `start` is a kept backbone to begin with instead of ImageNet's. After each epoch
    everything is written to `checkpoint`, from which a run that was cut goes on and ends with the same weights as one
    that was not. `stops_by` are the rows whose loss is measured after every epoch; the best epoch's weights are then the
    result, and `plan.patience` ends the fit early. Several processes (`ranks`) split every batch. Raises DataError when the
    checkpoint was made with another plan, seed or data, or a batch cannot be split.
    """
    names = f"{asdict(plan)} seed {seed} rows {len(rows)} sum {int(rows.sum())} start {start} {settings_sha256}"
    owner = hashlib.sha256(names.encode()).hexdigest()
    with repeatable(machine):
        fitting = _Fit(examples, rows, classes, plan, seed, views, start, machine, ranks, stops_by)
        result = fitting.run(checkpoint, owner, on_epoch)
    fit_answers(result.clinical_logits, examples.clinical[rows], examples.targets[rows], plan.least_unknown_rate, seed)
    return result


class PhotoBranch(nn.Module):
    """What learns from photos: the stages that are not frozen, and the layer of logits."""

    def __init__(self, network: LesionNetwork, learning: nn.Module) -> None:
        super().__init__()
        self.learning, self.dropout, self.photo_logits = learning, network.dropout, network.photo_logits

    def forward(self, seen: Tensor) -> Tensor:
        """Logits [N, classes] of what the frozen stages made of photos, [N, C, h, w]."""
        logits: Tensor = self.photo_logits(self.dropout(self.learning(seen).mean(dim=(2, 3))))
        return logits


class _Fit:
    """One fit of the photo branch: the network and all that changes with it."""

    def __init__(
        self, examples: Examples, rows: NDArray[np.int64], classes: int, plan: Plan, seed: int, views: Path | None, start: Path | None,
        machine: Hardware, ranks: Ranks, stops_by: NDArray[np.int64] | None,
    ) -> None:  # fmt: skip
        self.examples, self.rows, self.classes, self.plan, self.seed = examples, rows, classes, plan, seed
        self.machine, self.ranks, self.stops_by = machine, ranks, stops_by
        if ranks.world > 1 and plan.batch_size % (2 * ranks.world):
            raise DataError(f"a batch of {plan.batch_size} photos, blended in pairs, cannot be split evenly over {ranks.world} processes")
        torch.manual_seed(seed)
        backbone = begun_backbone(plan, start)
        network, frozen, branch = begun_network(backbone, plan, examples.clinical.shape[1], classes, machine)
        self.network = network
        shared = ranks.shared(branch)
        self.forward: Any = torch.compile(shared) if machine.compiled else shared
        self.recipe = _recipe(plan, backbone)
        live = LiveViews(examples.stored, frozen, self.recipe, plan.least_crop, machine)
        self.photos = KeptViews(views, machine) if views else live
        averaging = get_ema_multi_avg_fn(plan.averaging_decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(network, multi_avg_fn=averaging)
        self.steps = max(1, len(rows) // plan.batch_size)
        self.optimiser, self.schedule = _optimiser(network, plan, self.steps * plan.epochs)
        self.stopping = EarlyStopping(plan.patience)
        self.best: dict[str, Tensor] = {}

    def run(self, checkpoint: Path, owner: str, on_epoch: OnEpoch) -> LesionNetwork:
        """All epochs that are left."""
        epoch = self._resumed(checkpoint, owner)
        while epoch < self.plan.epochs and not self.stopping.is_over:
            loss, seconds = self._epoch(epoch)
            epoch += 1
            watched: tuple[float, float, int | None] | tuple[()] = ()
            if self.stops_by is not None:
                watched = (self._check(epoch, self.stops_by), self.stopping.best, self.stopping.left)
            if self.ranks.is_first:
                parts = {name: part.state_dict() for name, part in self._state().items()}
                save_checkpoint(checkpoint, owner, {**parts, "epoch": epoch, "best": self.best})
            on_epoch(Epoch(epoch, loss, seconds, self.steps, *watched))
        if self.best:
            self.averaged.module.load_state_dict(self.best)
        result = self.averaged.module.to("cpu").eval()
        assert isinstance(result, LesionNetwork)
        return result

    def _epoch(self, epoch: int) -> tuple[float, float]:
        """One epoch; its mean loss, and the seconds that it took."""
        plan, machine = self.plan, self.machine
        # Seeded anew each epoch, so that a resumed run draws what an uncut one would have drawn; augmentation in each process anew.
        torch.manual_seed(self.seed * 10_007 + epoch + 1_000_003 * self.ranks.rank)
        generator = np.random.default_rng((self.seed, epoch))
        order = _balanced_draw(self.examples.targets, self.rows, plan.class_balance, generator)
        _train_mode(self.network)
        total, began = 0.0, time.perf_counter()
        for step in range(self.steps):
            chosen = order[step * plan.batch_size : (step + 1) * plan.batch_size]
            own = own_part(len(chosen), self.ranks)
            wanted = one_hot(torch.from_numpy(self.examples.targets[chosen[own]]), self.classes).to(machine.device, torch.float32)
            seen, wanted = mixed(self.photos.batch(chosen, generator, own), wanted, plan.mixing, generator)
            with machine.arithmetic():
                found = self.forward(seen)
            loss = cross_entropy(found.float(), wanted, label_smoothing=plan.label_smoothing)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimiser.step()
            self.schedule.step()
            self.averaged.update_parameters(self.network)
            total += float(loss.detach())
        machine.wait()
        return self.ranks.mean(total / self.steps), time.perf_counter() - began

    def _check(self, epoch: int, rows: NDArray[np.int64]) -> float:
        """The photo branch's log loss on `rows`, each class weighing the same; keeps the weights when it is the best."""
        module = self.averaged.module.eval()
        assert isinstance(module, LesionNetwork)
        embedded = torch.from_numpy(embeddings(module, self.examples.pixels[rows], self.recipe))
        targets = torch.from_numpy(self.examples.targets[rows])
        counts = torch.bincount(targets, minlength=self.classes)
        with torch.no_grad():
            found = module.photo_logits(embedded.to(self.machine.device)).cpu()
            loss = float(cross_entropy(found, targets, weight=1.0 / counts.clamp(min=1)))
        loss = float(self.ranks.from_first(loss))  # one opinion, so that all stop together
        if self.stopping.hear(epoch, loss):
            self.best = {name: values.detach().clone() for name, values in module.state_dict().items()}
        return loss

    def _resumed(self, checkpoint: Path, owner: str) -> int:
        """Go on from the checkpoint, if there is one; the epochs that it has made. All processes take the first one's."""
        saved = self.ranks.from_first(load_checkpoint(checkpoint, owner) if self.ranks.is_first else None)
        if saved is None:
            return 0
        for name, part in self._state().items():
            part.load_state_dict(saved[name])
        self.best = saved["best"]
        return int(saved["epoch"])

    def _state(self) -> dict[str, Any]:
        parts = {"network": self.network, "averaged": self.averaged, "optimiser": self.optimiser, "schedule": self.schedule}
        return {**parts, "stopping": self.stopping}


def best_epoch(checkpoint: Path) -> int:
    """The epoch whose weights a finished fit with `stops_by` kept."""
    return int(torch.load(checkpoint, weights_only=True)["stopping"]["best_step"])


def own_part(count: int, ranks: Ranks) -> NDArray[np.int64]:
    """This process's places of a batch of `count`: the partners that blending pairs up (first with last) stay together."""
    places = np.arange(count)
    pair = np.minimum(places, count - 1 - places)
    return places[pair % ranks.world == ranks.rank]


def begun_network(
    backbone: Backbone, plan: Plan, clinical_size: int, classes: int, machine: Hardware
) -> tuple[LesionNetwork, nn.Module, PhotoBranch]:
    """The network on its device before anything is learned, its frozen stages, and what learns from what these make of photos."""
    network = LesionNetwork(backbone, clinical_size, classes)
    network.clinical_logits.requires_grad_(False)
    network = network.to(memory_format=torch.channels_last).to(machine.device)
    frozen, learning = backbone.network[: plan.frozen_stages].requires_grad_(False), backbone.network[plan.frozen_stages :]
    return network, frozen, PhotoBranch(network, learning)


def begun_backbone(plan: Plan, start: Path | None = None) -> Backbone:
    """The plan's backbone with ImageNet's weights, or with those that `start` holds. Raises DataError when they do not fit."""
    backbone = BACKBONES[plan.backbone]()
    if start is not None:
        begin_from(read_backbone(start), backbone.network, plan.backbone)
    return backbone


def mixed(seen: Tensor, wanted: Tensor, strength: float, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., ICLR 2018): each example and its target, blended with another of the batch.

    The share is drawn from Beta(strength, strength), the larger part first; a strength of 0 blends nothing.
    """
    if strength <= 0:
        return seen, wanted
    share = generator.beta(strength, strength)
    share = float(max(share, 1 - share))
    return share * seen + (1 - share) * seen.flip(0), share * wanted + (1 - share) * wanted.flip(0)


def photo_recipe(plan: Plan) -> PhotoRecipe:
    """How inference is to prepare photos for a network that was fitted by this plan."""
    return _recipe(plan, BACKBONES[plan.backbone]())


def logits(network: LesionNetwork, embedded: Array, clinical: Array) -> NDArray[np.float32]:
    """Logits [N, classes] of embeddings [N, D] and clinical fields [N, F]."""
    with torch.no_grad():
        result: NDArray[np.float32] = network.fuse(torch.from_numpy(embedded), torch.from_numpy(clinical)).numpy()
    return result


def embeddings(network: LesionNetwork, pixels: Array, recipe: PhotoRecipe) -> NDArray[np.float32]:
    """Embeddings [N, D] of pixels [N, S, S, 3]: what the photo branch makes of them, without any answers."""
    device = network.photo_logits.weight.device
    with torch.no_grad():
        parts = [
            network.feature_map(to_input(pixels[at : at + _SCORING_BATCH], recipe).to(device)).mean(dim=(2, 3)).cpu()
            for at in range(0, len(pixels), _SCORING_BATCH)
        ]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


def _recipe(plan: Plan, backbone: Backbone) -> PhotoRecipe:
    return PhotoRecipe(plan.size, GEOMETRY, backbone.mean, backbone.std)


def _optimiser(network: nn.Module, plan: Plan, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a slow backbone and a fast head, and one warm-up and cool-down over the whole run."""
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parts[name.startswith("backbone.")].append(parameter)
    rates = [plan.backbone_rate, plan.head_rate]
    groups = [{"params": parts[is_backbone], "lr": rate} for is_backbone, rate in zip((True, False), rates, strict=True)]
    optimiser = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.15)


def _balanced_draw(
    targets: NDArray[np.int64], rows: NDArray[np.int64], balance: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """As many rows as there are; with a balance of 1 each class comes equally often, with 0 as it occurs."""
    counts = np.bincount(targets[rows])
    weight = 1.0 / counts[targets[rows]] ** balance
    return generator.choice(rows, len(rows), p=weight / weight.sum())


def _train_mode(network: nn.Module) -> None:
    """Training mode, but batch normalisation keeps ImageNet's statistics: batches of 32 give worse ones."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
