"""What may happen to a photo of a lesion without changing its diagnosis: where the phone was, light, and what lies on the skin.

Gets and gives pixels [3, S, S] in 0 to 255. It does not know labels, networks or files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

_WHOLE_TURN_QUARTERS = 4


def augmentation(size: int, least_crop: float) -> v2.Compose:
    """Pixels [3, any, any] to [3, size, size]: at least `least_crop` of the photo's area, as another phone would see it.

    Colour varies little: it is what tells a melanoma from a keratosis. Draws from
    torch's global generator.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(least_crop, 1.0), ratio=(0.8, 1.25), antialias=True),
            QuarterTurns(),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomRotation(45, interpolation=v2.InterpolationMode.BILINEAR)], p=0.2),
            v2.RandomApply([Hairs()], p=0.1),
            v2.RandomApply([Ruler()], p=0.1),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25),
            v2.RandomApply([WhiteBalance()], p=0.5),
            v2.RandomApply([SlantedLight()], p=0.3),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.3, 1.5))], p=0.15),
            v2.RandomApply([v2.JPEG((30, 90))], p=0.2),
            v2.RandomErasing(p=0.15, scale=(0.02, 0.12), value=127),
        ]
    )


class QuarterTurns(nn.Module):
    """Turn by 0, 90, 180 or 270 degrees: a phone is held any way, and no pixel is interpolated."""

    def forward(self, image: Tensor) -> Tensor:
        """Turn one image."""
        return torch.rot90(image, int(torch.randint(_WHOLE_TURN_QUARTERS, ())), dims=(1, 2))


class WhiteBalance(nn.Module):
    """Another lamp: gains of up to `strength` on red and, the other way, on blue."""

    def __init__(self, strength: float = 0.12) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, image: Tensor) -> Tensor:
        """Tint one image."""
        warmth, green = (torch.rand(2) * 2 - 1) * self.strength
        gains = torch.stack([1 + warmth, 1 + green / 3, 1 - warmth])
        return _pixels(image * gains[:, None, None])


class SlantedLight(nn.Module):
    """Light that falls from one side: a ramp of brightness over the photo, up to `strength` at its ends."""

    def __init__(self, strength: float = 0.35) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, image: Tensor) -> Tensor:
        """Light one image."""
        angle = float(torch.rand(()) * 2 * torch.pi)
        down, right = (torch.linspace(-1, 1, length) for length in image.shape[1:])
        ramp = torch.cos(torch.tensor(angle)) * down[:, None] + torch.sin(torch.tensor(angle)) * right[None, :]
        return _pixels(image * (1 + self.strength * torch.rand(()) * ramp / ramp.abs().max()))


class Hairs(nn.Module):
    """Up to `most` hairs: thin dark curves across the photo."""

    def __init__(self, most: int = 8) -> None:
        super().__init__()
        self.most = most

    def forward(self, image: Tensor) -> Tensor:
        """Draw on a copy of one image."""
        drawn, (height, width) = image.clone(), image.shape[1:]
        along = torch.linspace(0, 1, 2 * max(height, width))[:, None]
        for _ in range(int(torch.randint(1, self.most + 1, ()))):
            start, bend, end = torch.rand(3, 2)
            curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
            rows, columns = (curve[:, 0] * (height - 1)).long(), (curve[:, 1] * (width - 1)).long()
            colour = (torch.rand(()) * 70 * torch.tensor([1.0, 0.8, 0.7]))[:, None]
            shade = drawn[:, rows, columns].float()
            drawn[:, rows, columns] = (0.25 * shade + 0.75 * colour).to(image.dtype)
        return drawn


class Ruler(nn.Module):
    """A ruler along one side: a pale strip with dark ticks, every fifth of them longer."""

    def forward(self, image: Tensor) -> Tensor:
        """Draw on a copy of one image."""
        turned = torch.rot90(image.clone(), int(torch.randint(_WHOLE_TURN_QUARTERS, ())), dims=(1, 2))
        depth = max(4, int(turned.shape[1] * (0.06 + 0.08 * float(torch.rand(())))))
        turned[:, :depth] = int(torch.randint(180, 250, ()))
        step = int(torch.randint(4, 9, ()))
        for tick, column in enumerate(range(step, turned.shape[2], step)):
            turned[:, : depth if tick % 5 == 0 else depth // 2, column] = 30
        return turned


def _pixels(values: Tensor) -> Tensor:
    return values.clamp(0, 255).round().to(torch.uint8)
