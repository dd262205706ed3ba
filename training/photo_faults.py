"""Spoils good photos in stated grades: blur, light, colour, a finger or a cloth over the lesion, and pictures of other things.

Every fault is synthetic and drawn with a generator of its own, so that it can be drawn again. Sizes are shares of the photo's
sides, light is in photographic stops. This module does not know the gate or what it should say.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from inference.skin_tone import linear_light

Pixels = NDArray[np.uint8]
Fault = Callable[[Image.Image, float, np.random.Generator], Image.Image]
_JPEG_QUALITY = 88
_READ_NOISE = 1.2  # of a phone's sensor, in levels of 255
LESION_SHARE = 0.25  # assumed radius of the lesion, as a share of the shorter side: PAD-UFES-20 has no outlines
_LINEAR = linear_light(np.arange(256.0)).astype(np.float32)
_FINE = 16383  # steps of linear light: fine enough for the darkest sRGB levels
_STEPS = np.arange(_FINE + 1) / _FINE
_SRGB = np.rint(255 * np.where(_STEPS <= 0.0031308, 12.92 * _STEPS, 1.055 * _STEPS ** (1 / 2.4) - 0.055)).astype(np.uint8)
_SKIN_TONES = ((236, 205, 180), (221, 170, 140), (190, 134, 104), (150, 98, 70), (105, 66, 47), (66, 42, 32))


def as_sent(image: Image.Image) -> Image.Image:
    """The photo after one more JPEG encoding, as a phone would send it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def to_linear(pixels: Pixels) -> NDArray[np.float32]:
    """sRGB in 0-255 to linear light in [0, 1] (see `linear_light`)."""
    return _LINEAR[pixels]


def to_srgb(light: NDArray[Any]) -> Pixels:
    """Linear light to sRGB in 0-255; what is above 1 is burnt out."""
    return _SRGB[(light.clip(0, 1) * _FINE + 0.5).astype(np.int32)]


def gaussian_blur(image: Image.Image, grade: float, _: np.random.Generator) -> Image.Image:
    """Out of focus: standard deviation `grade` times the longer side."""
    return image.filter(ImageFilter.GaussianBlur(grade * max(image.size)))


def motion_blur(image: Image.Image, grade: float, draw: np.random.Generator) -> Image.Image:
    """The phone moved by `grade` times the longer side, in a straight line of any direction."""
    length = max(2, round(grade * max(image.size)))
    angle = draw.uniform(0, np.pi)
    wide = np.pad(np.asarray(image, dtype=np.float32), ((length, length), (length, length), (0, 0)), mode="edge")
    height, width = image.height, image.width
    total = np.zeros((height, width, 3), dtype=np.float32)
    steps = min(length, 24) + 1
    for along in np.linspace(-0.5, 0.5, steps):
        down, right = round(length * along * np.sin(angle)) + length, round(length * along * np.cos(angle)) + length
        total += wide[down : down + height, right : right + width]
    return Image.fromarray(np.rint(total / steps).astype(np.uint8))


def exposure(image: Image.Image, grade: float, draw: np.random.Generator) -> Image.Image:
    """`grade` stops more light (negative: less) on the sensor, which clips and has its noise."""
    pixels = to_srgb(to_linear(np.asarray(image)) * 2.0**grade)
    noisy = pixels + draw.normal(0, _READ_NOISE, pixels.shape)
    return Image.fromarray(np.where(pixels == 255, 255, noisy.clip(0, 255)).astype(np.uint8))


def colour_cast(image: Image.Image, grade: float, draw: np.random.Generator) -> Image.Image:
    """Coloured light (blue, green, red or violet) whose strong channels have `grade` times the gain of the weak ones."""
    strong = ((2,), (1,), (0,), (0, 2), (1, 2))[draw.integers(5)]
    gains = np.array([grade if channel in strong else 1.0 for channel in range(3)])
    light = to_linear(np.asarray(image))
    changed = light * gains
    return Image.fromarray(to_srgb(changed * (light.mean() / max(changed.mean(), 1e-9))))


def thumbnail(image: Image.Image, grade: float, _: np.random.Generator) -> Image.Image:
    """Reduced to a longer side of `grade` pixels."""
    scale = grade / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS)


def finger(image: Image.Image, grade: float, draw: np.random.Generator) -> Image.Image:
    """A finger, rounded and shaded, over `grade` of the lesion."""
    tone = np.array(_SKIN_TONES[draw.integers(len(_SKIN_TONES))], dtype=np.float64)
    own = np.median(np.asarray(image).reshape(-1, 3), axis=0)
    return _covered(image, grade, draw, (own if draw.random() < 0.5 else tone) * draw.uniform(0.8, 1.1), is_round=True)


def cloth(image: Image.Image, grade: float, draw: np.random.Generator) -> Image.Image:
    """Woven cloth, a plaster or paper of any colour over `grade` of the lesion."""
    return _covered(image, grade, draw, draw.uniform(20, 245, 3), is_round=False)


def _covered(image: Image.Image, grade: float, draw: np.random.Generator, colour: NDArray[Any], *, is_round: bool) -> Image.Image:
    """Slide a strip in from a side until it covers `grade` of a disc in the middle."""
    width, height = image.size
    radius = LESION_SHARE * min(width, height)
    half = radius * (1.15 if is_round else 1.6)
    angle = draw.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:height, :width]
    right, down = columns - width / 2, rows - height / 2
    along, across = right * np.cos(angle) + down * np.sin(angle), -right * np.sin(angle) + down * np.cos(angle)
    disc = right**2 + down**2 <= radius**2
    tip = np.quantile(along[disc], grade) + (half * 0.35 if is_round else 0.0) + (radius * 0.3 if grade >= 1 else 0.0)
    bend = half * (1 - np.sqrt((1 - (across / half) ** 2).clip(0, 1))) if is_round else 0.0
    mask = (np.abs(across) <= half) & (along <= tip - bend)
    texture = _weave(height, width, draw) if not is_round else _grain(height, width, draw, 0.03)
    shade = (1 - 0.45 * (np.abs(across) / half).clip(0, 1) ** 2) if is_round else 1.0
    strip = np.asarray(colour)[None, None] * (texture * shade)[..., None]
    soft = np.asarray(Image.fromarray((255 * mask).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.004 * max(width, height)))) / 255.0
    mixed = np.asarray(image) * (1 - soft[..., None]) + strip * soft[..., None]
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _grain(height: int, width: int, draw: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Smooth random texture around 1."""
    total = np.ones((height, width))
    for cell in (2, 5, 14, 40):
        coarse = draw.normal(0, strength, (height // cell + 2, width // cell + 2))
        fine = Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(fine, dtype=np.float64)
    return total


def _weave(height: int, width: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Threads across and along with folds, or none (plaster, paper)."""
    rows, columns = np.mgrid[:height, :width]
    pitch, depth = draw.uniform(2.5, 9), draw.uniform(0, 0.25)
    threads = 1 + depth * np.sin(2 * np.pi * rows / pitch) * np.sin(2 * np.pi * columns / pitch)
    return threads * _grain(height, width, draw, draw.uniform(0.005, 0.06))


def bare_skin(image: Image.Image, _: float, draw: np.random.Generator) -> Image.Image:
    """Skin without its lesion: the corner of the photo that is plainest, enlarged to the photo's size."""
    width, height = image.size
    side = round(0.3 * min(width, height))
    corners = [(0, 0), (width - side, 0), (0, height - side), (width - side, height - side)]
    pieces = [image.crop((x, y, x + side, y + side)) for x, y in corners]
    spread = [float(np.asarray(one.convert("L").reduce(4), dtype=np.float64).std()) for one in pieces]
    piece = pieces[int(np.argmin(spread))]
    turned = piece.transpose(Image.Transpose.ROTATE_90) if draw.random() < 0.5 else piece
    return _mirrored(turned, (width, height))


def _mirrored(piece: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The piece beside its mirror images until `size` is filled, at its own sharpness."""
    pixels = np.asarray(piece)
    rows, columns = -(-size[1] // pixels.shape[0]), -(-size[0] // pixels.shape[1])
    lines = []
    for row in range(rows):
        line = [pixels[:: -1 if row % 2 else 1, :: -1 if column % 2 else 1] for column in range(columns)]
        lines.append(np.concatenate(line, axis=1))
    return Image.fromarray(np.concatenate(lines)[: size[1], : size[0]])


def paper(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """A page of print, from white to buff, with shadow."""
    width, height = size
    ground = np.array([1.0, draw.uniform(0.94, 1), draw.uniform(0.78, 1)]) * draw.uniform(150, 250)
    page = Image.fromarray((ground[None, None] * _grain(height, width, draw, 0.01)[..., None]).clip(0, 255).astype(np.uint8))
    pen, line = ImageDraw.Draw(page), int(draw.integers(9, 26))
    for y in range(line, height, line):
        x = int(draw.integers(4, 30))
        while x < width:
            word = int(draw.integers(line // 2, 4 * line))
            pen.rectangle((x, y, x + word, y + max(1, line // 3)), fill=tuple(int(v) for v in draw.integers(10, 90, 3)))
            x += word + line // 2
    return page


def screen(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """A screen: flat boxes of colour, with its lines."""
    width, height = size
    image = Image.new("RGB", size, tuple(int(v) for v in draw.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(6, 30))):
        x, y = int(draw.integers(width)), int(draw.integers(height))
        pen.rectangle(
            (x, y, x + int(draw.integers(10, width)), y + int(draw.integers(4, 90))), fill=tuple(int(v) for v in draw.integers(0, 256, 3))
        )
    lines = 1 - 0.08 * (np.arange(height) % 3 == 0)
    return Image.fromarray((np.asarray(image) * lines[:, None, None]).astype(np.uint8))


def leaves(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """Leaves or grass: overlapping green and brown ellipses."""
    return _blobs(size, draw, np.array([70, 120, 40]), np.array([60, 70, 40]), 220)


def sky(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """A sky or a painted wall of cool colour: a gradient with clouds."""
    width, height = size
    top, bottom = np.array([90, 140, 210]) + draw.uniform(-40, 40), np.array([200, 215, 230]) + draw.uniform(-40, 25)
    down = np.linspace(0, 1, height)[:, None, None]
    sheet = (top * (1 - down) + bottom * down) * _grain(height, width, draw, 0.03)[..., None]
    return Image.fromarray(sheet.clip(0, 255).astype(np.uint8))


def noise(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """Coloured noise, as of a broken camera."""
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def wood(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """Wood or cardboard: warm, with grain along one direction. Its hue is that of skin."""
    width, height = size
    stretched = Image.fromarray(draw.normal(1, 0.11, (height // int(draw.integers(2, 7)) + 2, 6)).astype(np.float32))
    grain = np.asarray(stretched.resize((width, height), Image.Resampling.BICUBIC)) * _grain(height, width, draw, 0.02)
    colour = np.array([draw.uniform(120, 215), 0, 0])
    colour[1] = colour[0] * draw.uniform(0.62, 0.84)
    colour[2] = colour[1] * draw.uniform(0.55, 0.85)
    return Image.fromarray((colour[None, None] * grain[..., None]).clip(0, 255).astype(np.uint8))


def woven(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """Cloth of any colour, filling the photo."""
    colour = draw.uniform(20, 245, 3)
    return Image.fromarray((colour[None, None] * _weave(size[1], size[0], draw)[..., None]).clip(0, 255).astype(np.uint8))


def _blobs(size: tuple[int, int], draw: np.random.Generator, middle: NDArray[Any], spread: NDArray[Any], count: int) -> Image.Image:
    image = Image.new("RGB", size, tuple(int(v) for v in middle))
    pen = ImageDraw.Draw(image)
    for _ in range(count):
        x, y = int(draw.integers(size[0])), int(draw.integers(size[1]))
        wide, high = int(draw.integers(5, 60)), int(draw.integers(3, 40))
        colour = (middle + draw.uniform(-1, 1, 3) * spread).clip(0, 255)
        pen.ellipse((x - wide, y - high, x + wide, y + high), fill=tuple(int(v) for v in colour))
    return Image.fromarray((np.asarray(image) * _grain(size[1], size[0], draw, 0.03)[..., None]).clip(0, 255).astype(np.uint8))
