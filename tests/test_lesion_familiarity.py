"""Unfamiliarity: a distance that can be told by hand, its threshold, and what must not matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.lesion_familiarity import Familiarity, fit_familiarity, out_of_distribution, unfamiliarity


def two_classes(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of 20 features around two means, five units apart in the first feature, wide in the second."""
    generator = np.random.default_rng(0)
    targets = np.arange(count) % 2
    values = 3 + 0.1 * generator.normal(size=(count, 20))
    values[:, 0] += 5 * targets
    values[:, 1] += generator.normal(size=count)
    return values.astype(np.float32), targets


def test_a_distance_by_hand():
    """Of unit length already, one step off the mean: along a strong direction it counts a quarter, elsewhere whole."""
    familiarity = Familiarity(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([0.75]), 1.0)
    found = unfamiliarity(familiarity, np.array([[1.0, 1.0], [0.0, 2**0.5], [2**0.5, 0.0]], dtype=np.float32))
    step, back = 1.0, 2**0.5 - 1
    assert found == pytest.approx([0.0, (step**2 / 4 + back**2) / 2, (back**2 / 4 + step**2) / 2], abs=1e-6)


def test_what_training_showed_is_near_and_what_it_did_not_is_far():
    """Other photos of the same classes are at about 1; between the classes, and elsewhere, much farther."""
    values, targets = two_classes()
    familiarity = fit_familiarity(values[:300], targets[:300], 4)
    known = unfamiliarity(familiarity, values[300:])
    assert known.mean() == pytest.approx(1.0, abs=0.25)
    strange = values[:2].copy()
    strange[0, 0], strange[1, 7] = 5.5, 6.0
    assert unfamiliarity(familiarity, strange).min() > 3 * known.max()


def test_the_length_of_an_embedding_does_not_matter():
    """Twice the embedding is as unfamiliar; one of zeros has a finite answer."""
    values, targets = two_classes()
    familiarity = fit_familiarity(values, targets, 4)
    assert np.allclose(unfamiliarity(familiarity, values), unfamiliarity(familiarity, 2 * values), rtol=1e-3)
    assert np.isfinite(unfamiliarity(familiarity, np.zeros((1, 20), np.float32))).all()


def test_few_photos_of_one_class_are_enough():
    """Three photos of a single class among thousands of features: finite distances, the smallest run."""
    values = np.random.default_rng(1).normal(size=(3, 1000)).astype(np.float32)
    assert np.isfinite(unfamiliarity(fit_familiarity(values, np.array([2, 2, 2])), values)).all()


def test_the_threshold_is_what_99_of_100_do_not_exceed():
    """At least 99 of the distances 1 to 100 must be at most the threshold, and it is one of them."""
    found = out_of_distribution(np.arange(1.0, 101.0), 80)
    assert (found["threshold"], found["quantile"], found["n"], found["patients"]) == (100.0, 0.99, 100, 80)
    assert (np.arange(1.0, 101.0) <= found["threshold"]).mean() >= 0.99
