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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from inference.errors import DataError
from inference.photo import YES_NO_FIELDS, PhotoRecipe, normalise
from training.lesion_backbones import BACKBONES, Backbone
from training.lesion_network import LesionNetwork

Array = NDArray[Any]
OnEpoch = Callable[[int, float], None]
_SCORING_BATCH = 32
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
    size: int = 144
    stored_size: int = 192
    epochs: int = 14
    batch_size: int = 32
    backbone_rate: float = 3e-4
    head_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    frozen_stages: int = 6
    least_crop: float = 0.5
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
) -> LesionNetwork:
    """Fit on `rows` and return the weight-averaged network, in evaluation mode.

    After each epoch everything is written to `checkpoint`, from which a run that was cut goes on and ends
    with the same weights as one that was not. `on_epoch` hears the epoch and its mean loss. Raises DataError
    when the checkpoint was made with another plan, seed or data.
    """
    torch.manual_seed(seed)
    backbone = BACKBONES[plan.backbone]()
    recipe = _recipe(plan, backbone)
    network = LesionNetwork(backbone, examples.clinical.shape[1], classes)
    network = network.to(memory_format=torch.channels_last)
    for stage in backbone.stages[: plan.frozen_stages]:
        stage.requires_grad_(False)
    averaging = get_ema_multi_avg_fn(plan.averaging_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=averaging)
    steps = max(1, len(rows) // plan.batch_size)
    optimiser, schedule = _optimiser(network, plan, steps * plan.epochs)
    state = {"network": network, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    fingerprint = f"{asdict(plan)} seed {seed} rows {len(rows)} sum {int(rows.sum())}"
    first = _resume(checkpoint, fingerprint, state)
    augment = augmentation(plan)
    loss_of = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
    for epoch in range(first, plan.epochs):
        # Seeded anew each epoch, so that a resumed run draws what an uncut one would have drawn.
        torch.manual_seed(seed * 10_007 + epoch)
        generator = np.random.default_rng((seed, epoch))
        order = _balanced_draw(examples.targets, rows, generator)
        clinical = hide_answers(examples.clinical[rows], examples.targets[rows], plan.least_unknown_rate, generator)
        clinical_of = dict(zip(rows.tolist(), clinical, strict=True))
        _train_mode(network)
        total = 0.0
        for step in range(steps):
            chosen = order[step * plan.batch_size : (step + 1) * plan.batch_size]
            photos = torch.stack([augment(torch.from_numpy(examples.stored[row]).permute(2, 0, 1)) for row in chosen])
            photo = to_input(photos.permute(0, 2, 3, 1).numpy(), recipe)
            answers = torch.from_numpy(np.stack([clinical_of[int(row)] for row in chosen]))
            loss = loss_of(network(photo, answers), torch.from_numpy(examples.targets[chosen]))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            total += float(loss.detach())
        _save(checkpoint, fingerprint, epoch + 1, state)
        on_epoch(epoch, total / steps)
    averaged.eval()
    result = averaged.module
    assert isinstance(result, LesionNetwork)
    return result


def photo_recipe(plan: Plan) -> PhotoRecipe:
    """How inference is to prepare photos for a network that was fitted by this plan."""
    return _recipe(plan, BACKBONES[plan.backbone]())


def logits(network: nn.Module, pixels: Array, clinical: Array, recipe: PhotoRecipe) -> NDArray[np.float32]:
    """Logits [N, classes] for pixels [N, S, S, 3] as inference prepares them, and clinical fields [N, F]."""
    with torch.no_grad():
        parts = [
            network(
                to_input(pixels[at : at + _SCORING_BATCH], recipe),
                torch.from_numpy(clinical[at : at + _SCORING_BATCH]),
            )
            for at in range(0, len(pixels), _SCORING_BATCH)
        ]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
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


def to_input(pixels: Array, recipe: PhotoRecipe) -> Tensor:
    """Normalise as inference does, in the memory layout that is fastest on a CPU."""
    return torch.from_numpy(normalise(pixels, recipe)).contiguous(memory_format=torch.channels_last)


def augmentation(plan: Plan) -> v2.Compose:
    """What may happen to a photo [3, stored_size, stored_size] without changing its diagnosis.

    Colour varies little: it is what tells a melanoma from a keratosis.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(plan.size, scale=(plan.least_crop, 1.0), ratio=(0.85, 1.18), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomApply([v2.RandomRotation(90, interpolation=v2.InterpolationMode.BILINEAR)], p=0.3),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.04),
        ]
    )


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


def _balanced_draw(targets: NDArray[np.int64], rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """As many rows as there are, drawn so that each class comes equally often."""
    counts = np.bincount(targets[rows])
    weight = 1.0 / counts[targets[rows]]
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
