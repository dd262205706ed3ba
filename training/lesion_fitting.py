"""Fitting the lesion network: augmentation, class balance, honest unknowns, weight averaging, and resuming.

Gets arrays and gives a network and its logits. It does not know files of photos, label names, metrics or
bundles.
"""

from __future__ import annotations

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
from inference.photo import YES_NO_FIELDS, PhotoRecipe
from training.hardware import CPU, Hardware
from training.lesion_backbones import BACKBONES, Backbone
from training.lesion_network import LesionNetwork
from training.lesion_pretrained import begin_from, read_backbone
from training.lesion_views import KeptViews, LiveViews, to_input

Array = NDArray[Any]
OnEpoch = Callable[[int, float], None]
_SCORING_BATCH = 32
_HIDDEN_COPIES = 20
# Settled on another split than the one reported: of 0.003, 0.01 and 0.03 this made held-out patients likeliest.
_ANSWER_SHRINKAGE = 0.01
# Measured on 298 held-out photos cut to 4:3: squashing AUC 0.936, cropping 0.934; and a crop can lose
# a lesion that lies at the edge.
GEOMETRY: Literal["squash"] = "squash"


@dataclass(frozen=True, slots=True)
class Plan:
    """The recipe. Settled on one patient-grouped split and reported on another.

    `stored_size` is the side of the pixels before augmentation crops them to `size`. `frozen_stages` leaves
    the first stages as ImageNet taught them: with hundreds of photos they gain nothing, and they cost most of
    the time. `least_unknown_rate` is how often a clinical field is hidden at least.
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


def field_of_feature(feature_count: int) -> NDArray[np.int64]:
    """Which of the eight clinical fields each encoded feature belongs to: age, body site, the yes/no
    fields."""
    site_count = feature_count - 2 - 2 * len(YES_NO_FIELDS)
    answers = [2 + index for index in range(len(YES_NO_FIELDS)) for _ in range(2)]
    return np.array([0, 0, *[1] * site_count, *answers])


def hide_answers(
    clinical: NDArray[np.float32],
    targets: NDArray[np.int64],
    least_rate: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Hide clinical answers at random, so often in each class that "unknown" says nothing of the class.

    Who was asked what can give a diagnosis away (in PAD-UFES-20 `changed` is never unknown for actinic
    keratosis and for 30 % of carcinomas). Every class is brought to the rate of the class with most unknowns,
    and to `least_rate` at least, so the model learns what missing answers mean: nothing.
    """
    fields = field_of_feature(clinical.shape[1])
    hidden = clinical.copy()
    for field in np.unique(fields):
        columns = np.flatnonzero(fields == field)
        known: NDArray[np.bool_] = (clinical[:, columns] != 0).sum(axis=1) > 0
        rate_of = {label: 1 - known[targets == label].mean() for label in np.unique(targets)}
        unknown_rate = np.array([rate_of[label] for label in targets])
        wanted = min(max(least_rate, float(unknown_rate.max())), 0.95)
        chance = np.clip((wanted - unknown_rate) / np.maximum(1 - unknown_rate, 1e-9), 0.0, 1.0)
        rows = np.flatnonzero(generator.random(len(clinical)) < chance)
        hidden[np.ix_(rows, columns)] = 0.0
    return hidden


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
) -> LesionNetwork:
    """Fit on `rows` and return the weight-averaged network on the CPU, in evaluation mode.

    The photo branch learns from photos alone and the clinical branch from answers alone: fitted together, the photo
    branch leans on the answers and is poor without them. `views` are kept views of all examples; without them photos
    are augmented live. `start` is a kept backbone to begin with instead of ImageNet's. After each epoch
    everything is written to `checkpoint`, from which a run that was cut goes on and ends with the same weights as one
    that was not. `on_epoch` hears the epoch and its mean loss. Raises DataError when the checkpoint was made with
    another plan, seed or data.
    """
    torch.manual_seed(seed)
    backbone = begun_backbone(plan, start)
    network = LesionNetwork(backbone, examples.clinical.shape[1], classes)
    network.clinical_logits.requires_grad_(False)
    network = network.to(memory_format=torch.channels_last).to(machine.device)
    frozen, learning = backbone.network[: plan.frozen_stages].requires_grad_(False), backbone.network[plan.frozen_stages :]
    forward = torch.compile(learning) if machine.compiled else learning
    live = LiveViews(examples.stored, frozen, _recipe(plan, backbone), plan.least_crop, machine)
    photos = KeptViews(views, machine) if views else live
    averaging = get_ema_multi_avg_fn(plan.averaging_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=averaging)
    steps = max(1, len(rows) // plan.batch_size)
    optimiser, schedule = _optimiser(network, plan, steps * plan.epochs)
    state = {"network": network, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    fingerprint = f"{asdict(plan)} seed {seed} rows {len(rows)} sum {int(rows.sum())} start {start}"
    for epoch in range(_resume(checkpoint, fingerprint, state), plan.epochs):
        # Seeded anew each epoch, so that a resumed run draws what an uncut one would have drawn.
        torch.manual_seed(seed * 10_007 + epoch)
        generator = np.random.default_rng((seed, epoch))
        order = _balanced_draw(examples.targets, rows, plan.class_balance, generator)
        _train_mode(network)
        total = 0.0
        for step in range(steps):
            chosen = order[step * plan.batch_size : (step + 1) * plan.batch_size]
            wanted = one_hot(torch.from_numpy(examples.targets[chosen]), classes).to(machine.device, torch.float32)
            seen, wanted = mixed(photos.batch(chosen, generator), wanted, plan.mixing, generator)
            with machine.arithmetic():
                found = network.photo_logits(network.dropout(forward(seen).mean(dim=(2, 3))))
            loss = cross_entropy(found.float(), wanted, label_smoothing=plan.label_smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            total += float(loss.detach())
        _save(checkpoint, fingerprint, epoch + 1, state)
        on_epoch(epoch, total / steps)
    result = averaged.module.to("cpu").eval()
    assert isinstance(result, LesionNetwork)
    fit_answers(result.clinical_logits, examples.clinical[rows], examples.targets[rows], plan.least_unknown_rate, seed)
    return result


def begun_backbone(plan: Plan, start: Path | None = None) -> Backbone:
    """The plan's backbone with ImageNet's weights, or with those that `start` holds. Raises DataError when they do not fit."""
    backbone = BACKBONES[plan.backbone]()
    if start is not None:
        begin_from(read_backbone(start), backbone.network, plan.backbone)
    return backbone


def fit_answers(branch: nn.Linear, clinical: NDArray[np.float32], targets: NDArray[np.int64], least_unknown_rate: float, seed: int) -> None:
    """Fit the clinical branch: multinomial logistic regression, each class weighing the same, answers hidden at random.

    Each answer adds its own log odds and there is no constant, so that an answer left out takes away what it said and
    no more, and no answers add nothing.
    """
    generator = np.random.default_rng(seed)
    hidden = [hide_answers(clinical, targets, least_unknown_rate, generator) for _ in range(_HIDDEN_COPIES)]
    answers, wanted = torch.from_numpy(np.concatenate(hidden)), torch.from_numpy(np.tile(targets, _HIDDEN_COPIES))
    counts = torch.bincount(wanted, minlength=branch.out_features)
    weight = len(wanted) / (counts.clamp(min=1) * (counts > 0).sum())
    optimiser = torch.optim.LBFGS([branch.weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(branch(answers), wanted, weight=weight.float()) + _ANSWER_SHRINKAGE * branch.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    nn.init.zeros_(branch.weight.requires_grad_(True))
    nn.init.zeros_(branch.bias)
    optimiser.step(closure)  # type: ignore[no-untyped-call]


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
    with torch.no_grad():
        parts = [
            network.feature_map(to_input(pixels[at : at + _SCORING_BATCH], recipe)).mean(dim=(2, 3))
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


def _save(checkpoint: Path, fingerprint: str, epoch: int, state: dict[str, Any]) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    unfinished = checkpoint.with_suffix(".part")
    content = {name: part.state_dict() for name, part in state.items()}
    torch.save({"fingerprint": fingerprint, "epoch": epoch, **content}, unfinished)
    unfinished.replace(checkpoint)


def _resume(checkpoint: Path, fingerprint: str, state: dict[str, Any]) -> int:
    """Load the checkpoint into `state`, if there is one; the epoch to go on with."""
    if not checkpoint.is_file():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    if saved["fingerprint"] != fingerprint:
        raise DataError(f"{checkpoint} belongs to a run with another recipe, seed or data; delete it to start anew")
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"])
