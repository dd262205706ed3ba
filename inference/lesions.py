"""The lesion model over photos: class and malignancy probabilities, with the photo's quality beside them.

Photos are decoded and scored in a few threads, one photo at a time; one that cannot be scored comes back as a
failure with its reason. This module does not know urgency, the queue or what a probability should lead to.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle, Contract, Label
from inference.case import Photo
from inference.errors import BundleError, PhotoError
from inference.photo import (
    REDUCTION_RESERVE,
    OpenedPhoto,
    PhotoRecipe,
    PhotoSource,
    clinical_features,
    encode_clinical,
    normalise,
    open_case_photo,
    photo_pixels,
    read_site,
    shown_name,
)
from inference.photo_quality import PhotoQuality, judge_quality

DEFAULT_THREADS = 2


@dataclass(frozen=True, slots=True)
class LesionRequest:
    """One photo to score: what the case says of it, where its path leads, the patient's age.

    `photos` is the folder that the path starts from, or the photo files' content by path.
    """

    photo: Photo
    photos: PhotoSource
    age_years: float | None = None


@dataclass(frozen=True, slots=True)
class LesionScore:
    """The model's answer for one photo: probabilities in [0, 1] by label, which sum to 1.

    `malignancy_probability` is the sum over the malignant labels; `notes` say what was not understood.
    `unfamiliarity` (0 or more, None from a bundle that does not measure it) is how far the photo lies from the photos
    that the model learned from; beyond the contract's threshold it `is_unfamiliar`, and its probabilities mean nothing.
    `photo_sha256` names the file's content that was scored.
    """

    label: str
    probabilities: dict[str, float]
    malignancy_probability: float
    quality: PhotoQuality
    notes: tuple[str, ...] = ()
    unfamiliarity: float | None = None
    is_unfamiliar: bool = False
    photo_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class LesionFailure:
    """Why a photo has no score, for the case's review."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReadyPhoto:
    """A photo as it was read, its pixels resized to [S, S, 3] in 0-255, and its answers encoded [features]."""

    opened: OpenedPhoto
    pixels: NDArray[np.uint8]
    clinical: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright photo as read, in pixels: its aspect, not its resolution."""
        return self.opened.image.size


class LesionModel:
    """A verified lesion bundle, ready to score photos in `threads` threads.

    Load the bundle with one onnxruntime thread: the threads here are the parallelism.
    Raises BundleError when the bundle is for another task or for another version of the preprocessing.
    """

    def __init__(self, bundle: Bundle, threads: int = DEFAULT_THREADS) -> None:
        contract = bundle.contract
        try:
            sites = tuple(str(site) for site in contract.vocabulary["body_site"]["sites"])
            words = {str(word): str(site) for word, site in contract.vocabulary["body_site"]["words"].items()}
            features = tuple(contract.vocabulary["clinical_features"])
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{contract.task} {contract.version}: the vocabulary lacks body_site; export again") from error
        if features != clinical_features(sites):
            raise BundleError(
                f"{contract.task} {contract.version} was trained on other clinical features than this "
                "version encodes; use the version that it was trained with, or train it again"
            )
        self._bundle = bundle
        self._threads = threads
        self._labels = tuple(label.name for label in contract.labels)
        self._recipe = PhotoRecipe.from_contract(contract.preprocessing)
        self._sites, self._words = sites, words
        self._outputs = frozenset(spec.name for spec in contract.outputs)
        self._unfamiliar_above = _unfamiliar_above(contract) if "unfamiliarity" in self._outputs else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's output."""
        return self._labels

    @property
    def label_names(self) -> tuple[Label, ...]:
        """The classes with their names in both languages."""
        return self._bundle.contract.labels

    @property
    def limits(self) -> tuple[str, ...]:
        """What the contract says that the model is not good for."""
        return self._bundle.contract.limits

    @property
    def geometry(self) -> Literal["squash", "centre_crop"]:
        """What happens to a photo that is not square; see `PhotoRecipe`."""
        return self._recipe.geometry

    @property
    def malignancy_threshold(self) -> float:
        """The contract's operating point: at or above it a lesion is to be treated as malignant."""
        return self._bundle.contract.thresholds["malignancy"]

    @property
    def has_heat_map(self) -> bool:
        """Whether the bundle says where in a photo its malignancy probability rests."""
        return "heat_map" in self._outputs

    def score(self, requests: Sequence[LesionRequest]) -> list[LesionScore | LesionFailure]:
        """Score each photo; the answers come in the order of the requests. Never raises for a bad photo."""
        if len(requests) < 2 or self._threads < 2:
            return [self._score_one(request) for request in requests]
        with ThreadPoolExecutor(self._threads, thread_name_prefix="photo") as pool:
            return list(pool.map(self._score_one, requests))

    def ready(self, request: LesionRequest) -> ReadyPhoto:
        """The photo and its answers as the model takes them. Raises PhotoError when the photo cannot be read."""
        opened = open_case_photo(request.photos, request.photo.path, REDUCTION_RESERVE * self._recipe.size)
        pixels = photo_pixels(opened.image, self._recipe.size, self._recipe.geometry)
        return ReadyPhoto(opened, pixels, encode_clinical(request.photo, request.age_years, self._sites, self._words))

    def heat(self, photo: ReadyPhoto) -> tuple[NDArray[np.float32], float]:
        """What each place of a ready photo adds to its malignancy probability, [rows, columns] as the contract's heat_map
        says, and that probability in [0, 1].

        Raises BundleError when the bundle gives no heat map (see `has_heat_map`) and when the model fails.
        """
        if not self.has_heat_map:
            contract = self._bundle.contract
            raise BundleError(f"{contract.task} {contract.version} gives no heat map; use a bundle that lists heat_map among its outputs")
        outputs = self._run(photo.pixels[None], photo.clinical)
        return outputs["heat_map"][0], min(max(float(outputs["malignancy_probability"][0]), 0.0), 1.0)

    def _run(self, pixels: NDArray[np.uint8], clinical: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        answers = np.repeat(clinical[None], len(pixels), axis=0)
        return self._bundle.run({"photo": normalise(pixels, self._recipe), "clinical": answers})

    def _score_one(self, request: LesionRequest) -> LesionScore | LesionFailure:
        try:
            photo = self.ready(request)
            outputs = self._run(photo.pixels[None], photo.clinical)
        except PhotoError as error:
            return LesionFailure(str(error))
        except BundleError as error:
            return LesionFailure(f"{shown_name(request.photo.path)}: {error}")
        row, malignancy = outputs["probabilities"][0], float(outputs["malignancy_probability"][0])
        unfamiliarity = None if self._unfamiliar_above is None else float(outputs["unfamiliarity"][0])
        return LesionScore(
            label=self._labels[int(np.argmax(row))],
            probabilities={label: float(value) for label, value in zip(self._labels, row, strict=True)},
            malignancy_probability=min(max(malignancy, 0.0), 1.0),
            quality=judge_quality(photo.opened.image, photo.opened.original_size),
            notes=self._notes(request.photo),
            unfamiliarity=unfamiliarity,
            is_unfamiliar=unfamiliarity is not None and self._unfamiliar_above is not None and unfamiliarity > self._unfamiliar_above,
            photo_sha256=photo.opened.sha256,
        )

    def _notes(self, photo: Photo) -> tuple[str, ...]:
        if photo.body_site is None or read_site(photo.body_site, self._words) is not None:
            return ()
        return (f"body_site was not understood and counts as unknown; the model knows {', '.join(self._sites)}",)


def _unfamiliar_above(contract: Contract) -> float:
    """The unfamiliarity above which a photo is unlike those that the model learned from."""
    try:
        return float((contract.out_of_distribution or {})["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{contract.task} {contract.version}: out_of_distribution lacks its threshold; export again") from error
