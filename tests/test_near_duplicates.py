"""Photos that show the same are found, however they were saved, scaled or turned; photos that do not are left apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from training.near_duplicates import SIDE, fingerprints, groups_of, hashes_of, near_pairs


def picture(seed: int, size: int = 240) -> Image.Image:
    """A soft blob on a mottled ground, as skin photos are."""
    random = np.random.default_rng(seed)
    ground = np.kron(random.uniform(120, 220, (8, 8)), np.ones((size // 8, size // 8)))
    rows, columns = np.mgrid[0:size, 0:size]
    place, width = random.uniform(0.2, 0.8, 2) * size, random.uniform(0.1, 0.3) * size
    blob = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / (2 * width**2))
    return Image.fromarray(np.clip(ground * (1 - 0.7 * blob), 0, 255).astype(np.uint8)).convert("RGB")


def saved(folder: Path, name: str, image: Image.Image, quality: int = 90) -> Path:
    path = folder / name
    image.save(path, "JPEG", quality=quality)
    return path


CHANGES = {
    "saved again": lambda image: image,
    "half the size": lambda image: image.resize((120, 120)),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "a little cropped": lambda image: image.crop((2, 2, 238, 238)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored and turned": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_copy_is_found_among_others(change, tmp_path):
    """Of thirty photos and one changed copy of the seventh, that pair is the only one."""
    paths = [saved(tmp_path, f"{n}.jpg", picture(n)) for n in range(30)]
    paths.append(saved(tmp_path, "copy.jpg", CHANGES[change](picture(7)), quality=60))
    pairs = near_pairs(fingerprints(paths))
    assert [(pair.first, pair.second) for pair in pairs] == [(7, 30)]
    assert pairs[0].is_turned == ("mirrored" in change or "turned" in change)


def test_a_photo_that_cannot_be_read_is_named_and_like_nothing(tmp_path):
    """Two broken files are no pair; nor are two photos of one colour, which show nothing."""
    broken = [tmp_path / f"{n}.jpg" for n in range(2)]
    for path in broken:
        path.write_bytes(b"no photo")
    plain = [saved(tmp_path, f"plain{n}.jpg", Image.new("RGB", (64, 64), (120 + n, 120, 120))) for n in range(2)]
    prints = fingerprints([*broken, *plain, tmp_path / "missing.jpg"])
    assert prints.unreadable == (0, 1, 4)
    assert near_pairs(prints) == []
    assert near_pairs(fingerprints([])) == []


def test_pairs_beyond_one_block_are_found(tmp_path, monkeypatch):
    """Photos are compared block by block; a pair may lie in two blocks, or in one."""
    monkeypatch.setattr("training.near_duplicates._BLOCK", 3)
    paths = [saved(tmp_path, f"{n}.jpg", picture(n % 5)) for n in range(10)]
    assert {(pair.first, pair.second) for pair in near_pairs(fingerprints(paths))} == {(n, n + 5) for n in range(5)}


@given(st.integers(0, 50), st.floats(0.5, 1.5), st.floats(-20, 20))
def test_brightness_and_contrast_do_not_change_the_hash(seed, contrast, shift):
    """The hash compares frequencies with their median: scaling and shifting the greys leaves it as it is."""
    grey = np.random.default_rng(seed).uniform(0, 255, (1, SIDE, SIDE))
    assert np.bitwise_count(hashes_of(grey) ^ hashes_of(contrast * grey + shift))[0] <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_what_chains_of_pairs_join(pairs):
    """Both ends of a pair are in one group, a group is named by its first member, and things in no pair stay alone."""
    groups = groups_of(10, pairs)
    assert all(groups[a] == groups[b] for a, b in pairs)
    assert all(group <= place and groups[group] == group for place, group in enumerate(groups))
    touched = {place for pair in pairs for place in pair}
    assert all(groups[place] == place for place in range(10) if place not in touched)
    assert len(set(groups.tolist())) >= 10 - len(pairs)
