"""Photos and what was said about them, as the lesion model takes them: the only preprocessing there is.

Training imports this file and adds nothing but augmentation. It does not know models, labels or scores.
Everything in a photo's file but its pixels (place, time, device) is dropped on reading.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from inference.case import Photo
from inference.errors import BundleError, PhotoError
from inference.photo_file import bare_file

FORMATS = ("JPEG", "PNG", "WEBP")
PIXELS_LIMIT = 64_000_000
BYTES_LIMIT = 64 * 1024 * 1024
SIDE_LIMIT = 32_768
# What is in memory at once while decoding stays near 200 MB: up to 8 bytes per pixel, 9 with a PNG's transparency, 15 for WebP.
HELD_PIXELS_LIMIT = {"JPEG": 24_000_000, "PNG": 21_000_000, "WEBP": 13_000_000}
# Each further scan of a JPEG passes over all pixels, however few bytes it has; cameras and web sites write about 10.
SCANNED_PIXELS_LIMIT = 2_000_000_000
NAME_LIMIT = 100  # room for a SHA-256 and a suffix
# A JPEG that the decoder reduces to at least this share of the longest side wanted is sharp enough, and half the work.
DRAFT_SHARE = 0.75
# Decoding at twice the target's side or more keeps a reduced JPEG within 55 dB of the full one.
REDUCTION_RESERVE = 2

YES_NO_FIELDS = ("itch", "grew", "hurt", "changed", "bleed", "elevation")
_MIDDLE_AGE_YEARS, _AGE_SCALE_YEARS = 50.0, 25.0

_MISSING = "there is no such photo in the photo folder; send it again"
# EXIF orientation: what turns the stored pixels upright (1 is upright already).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PhotoSource = Path | Mapping[str, bytes]  # a folder, or the files' content by Photo.path

# warnings.catch_warnings changes the process's filters; photos are opened from several threads.
_OPENING = threading.Lock()


@dataclass(frozen=True, slots=True)
class PhotoRecipe:
    """How a photo becomes the model's input: the facts that the contract carries under `preprocessing`.

    `size` is the side in pixels; `geometry` says what happens to a photo that is not square; `mean` and `std`
    are per channel (R, G, B) on values from 0 to 255.
    """

    size: int
    geometry: Literal["squash", "centre_crop"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_contract(self) -> dict[str, Any]:
        """The recipe in the contract's words."""
        return {"channels": "RGB", "layout": "NCHW", "resampling": "bicubic, antialiased", **asdict(self)}

    @classmethod
    def from_contract(cls, preprocessing: Mapping[str, Any]) -> PhotoRecipe:
        """Read the recipe from a contract. Raises BundleError when a fact is missing or cannot be."""
        try:
            mean, std = (tuple(float(value) for value in preprocessing[key]) for key in ("mean", "std"))
            size, geometry = int(preprocessing["size"]), preprocessing["geometry"]
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("the contract's preprocessing lacks size, geometry, mean or std; export again") from error
        if geometry not in ("squash", "centre_crop") or len(mean) != 3 or len(std) != 3 or size < 1 or min(std) <= 0:
            raise BundleError("the contract's preprocessing is not one that this version knows; export again")
        return cls(size, geometry, mean, std)


@dataclass(frozen=True, slots=True)
class OpenedPhoto:
    """An upright RGB photo without metadata; `original_size` is width and height before any reduction.

    `sha256` is of the file's content as it was read.
    """

    image: Image.Image
    original_size: tuple[int, int]
    sha256: str


def photo_path(folder: Path, path: str) -> Path:
    """The place of a case's photo. Raises PhotoError when it would lie outside `folder`."""
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise PhotoError(f"{shown_name(path)}: the photo lies outside the photo folder; put it there and name it from there")
    return folder / relative


def shown_name(path: str) -> str:
    """The last part of a photo's path as a message may show it: one short line, without characters that hide or turn text."""
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable())
    return (shown or "photo") if len(shown) <= NAME_LIMIT else f"{shown[: NAME_LIMIT - 1]}…"


def open_case_photo(photos: PhotoSource, path: str, least_side: int | None = None) -> OpenedPhoto:
    """Read a case's photo from where its photos are: a folder, or a mapping from `Photo.path` to the file's content.

    Raises PhotoError as `open_photo` does, and when the path leads out of the folder.
    """
    if isinstance(photos, Path):
        return open_photo(photo_path(photos, path), least_side)
    if path not in photos:
        raise PhotoError(f"{shown_name(path)}: {_MISSING}")
    return open_photo_bytes(path, photos[path], least_side)


def open_photo(path: Path, least_side: int | None = None) -> OpenedPhoto:
    """Read a JPEG, PNG or WebP photo from a file that nobody vouches for.

    With `least_side` (pixels) a JPEG is decoded at the smallest scale that leaves both sides at least that
    long. Raises PhotoError, naming the file, when it is missing, broken, cut short, too large or of another
    kind.
    """
    name = shown_name(path.name)
    try:
        if not path.is_file():
            raise PhotoError(f"{name}: {_MISSING}")
        _check_bytes(name, path.stat().st_size)
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a name too long or of no text, no permission, a disk that fails
        raise PhotoError(f"{name}: the photo cannot be read from the photo folder; send it again") from error
    return open_photo_bytes(name, content, least_side)


def open_photo_bytes(name: str, content: bytes, least_side: int | None = None, longest_side: int | None = None) -> OpenedPhoto:
    """Read a photo from a file's content; `name` is for messages alone.

    `least_side` as in `open_photo`. With `longest_side` a longer photo is reduced to that, by the decoder where
    it can. Raises PhotoError as `open_photo` does.
    """
    name = shown_name(name)
    _check_bytes(name, len(content))
    try:
        bare = bare_file(content)
        with _identified(bare.content) as image:
            size = image.size
            _check_cost(name, image, bare.scans)
            image.draft("RGB", _draft_size(size, least_side, longest_side))
            if image.width * image.height > HELD_PIXELS_LIMIT[image.format or ""]:
                raise PhotoError(f"{name}: {_too_large(image)}")  # noqa: TRY301 (one place turns decoder errors into PhotoError)
            return OpenedPhoto(_upright(image, bare.orientation, longest_side), size, hashlib.sha256(content).hexdigest())
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: this is not a JPEG, PNG or WebP photo; convert it to JPEG and send it again") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotoError(f"{name}: the photo has far too many pixels; send it at a lower resolution") from error
    except Exception as error:  # broken files make Pillow's decoders raise nearly any class
        raise PhotoError(f"{name}: the photo is broken or was cut short; take or send it again") from error


def photo_pixels(image: Image.Image, size: int, geometry: str) -> NDArray[np.uint8]:
    """Resize an RGB image with antialiasing to [size, size, 3]."""
    if geometry == "centre_crop":
        resized = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    else:
        resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def normalise(pixels: NDArray[np.uint8], recipe: PhotoRecipe) -> NDArray[np.float32]:
    """Pixels [N, S, S, 3] in 0-255 to the model's input [N, 3, S, S]."""
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    values = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def encode_clinical(photo: Photo, age_years: float | None, sites: Sequence[str], words: Mapping[str, str]) -> NDArray[np.float32]:
    """The eight clinical fields as numbers [2 + sites + 12]; an unknown field is all zeros, never a "no".

    `sites` are the body sites that the model learned, in order; `words` maps a lower-case word to one of
    them.
    """
    site = read_site(photo.body_site, words)
    values = [0.0, 0.0] if age_years is None else [(age_years - _MIDDLE_AGE_YEARS) / _AGE_SCALE_YEARS, 1.0]
    values += [float(site == known) for known in sites]
    for field in YES_NO_FIELDS:
        answer = getattr(photo, field)
        values += [float(answer is True), float(answer is False)]
    return np.array(values, dtype=np.float32)


def clinical_features(sites: Sequence[str]) -> tuple[str, ...]:
    """The names of what `encode_clinical` returns, in order."""
    answers = [f"{field}={answer}" for field in YES_NO_FIELDS for answer in ("yes", "no")]
    return ("age", "age_known", *(f"body_site={site}" for site in sites), *answers)


def read_site(body_site: str | None, words: Mapping[str, str]) -> str | None:
    """The learned body site that a word stands for ("left forearm" is FOREARM); None when it stands for none.

    When several words match, the one that says most (the longest) counts.
    """
    if body_site is None:
        return None
    said = " ".join(body_site.casefold().replace("_", " ").replace("/", " ").replace("-", " ").split())
    if said in words:
        return words[said]
    inside = [word for word in words if f" {word} " in f" {said} "]
    return words[max(inside, key=len)] if inside else None


def _check_bytes(name: str, length: int) -> None:
    if length > BYTES_LIMIT:
        raise PhotoError(f"{name}: the file is over {BYTES_LIMIT // 2**20} MiB; send it as a JPEG of lower resolution")


def _check_cost(name: str, image: Image.Image, scans: int) -> None:
    """Refuse by the header alone what would cost too much memory or time to decode."""
    pixels = image.width * image.height
    if pixels > PIXELS_LIMIT:
        raise PhotoError(
            f"{name}: {image.width} x {image.height} pixels are over {PIXELS_LIMIT // 10**6} megapixels; send it at a lower resolution"
        )
    if max(image.size) > SIDE_LIMIT:
        raise PhotoError(
            f"{name}: a side of {max(image.size)} pixels is over {SIDE_LIMIT}; cut the photo to what matters and send it again"
        )
    # A JPEG of several scans keeps all its coefficients until the last one, at whatever scale it is decoded.
    if scans > 1 and (pixels > HELD_PIXELS_LIMIT["JPEG"] or pixels * scans > SCANNED_PIXELS_LIMIT):
        raise PhotoError(f"{name}: {_too_large(image)}")


def _too_large(image: Image.Image) -> str:
    return (
        f"a {image.format} file of {image.width} x {image.height} pixels takes too much memory or time; "
        "send it as an ordinary JPEG or at a lower resolution"
    )


def _draft_size(size: tuple[int, int], least_side: int | None, longest_side: int | None) -> tuple[int, int]:
    """The least size that a JPEG may be decoded at; its decoder halves once, twice or three times, or not at all."""
    width, height = size
    if longest_side is not None:
        least = DRAFT_SHARE * longest_side / max(size)
        return max(1, math.ceil(width * least)), max(1, math.ceil(height * least))
    if least_side is not None:
        return least_side, least_side
    return (width // 2, height // 2) if width * height > HELD_PIXELS_LIMIT["JPEG"] else size


def _identified(content: bytes) -> Image.Image:
    """Read the header only, as one of the accepted formats, with Pillow's bomb warning as an error."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=FORMATS)


def _upright(image: Image.Image, orientation: int, longest_side: int | None) -> Image.Image:
    """Decode, convert to RGB, reduce, turn as EXIF says and copy the pixels alone into a fresh image."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"mode {image.mode} is no photo's")
    pixels: Image.Image = image if image.mode == "RGB" else image.convert("RGB")
    if longest_side is not None and max(image.size) > longest_side:
        share = longest_side / max(image.size)
        width, height = (max(1, round(side * share)) for side in image.size)
        pixels = pixels.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2)
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    clean = Image.new("RGB", pixels.size)
    clean.paste(pixels)
    return clean
