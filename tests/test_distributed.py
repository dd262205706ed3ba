"""Tests of several processes that train one network: who is who, what each draws, and that together they do what one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inference.errors import DataError
from inference.photo import PhotoRecipe
from training.distributed import ALONE, Ranks, ranks_of
from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.lesion_fitting import own_part
from training.lesion_views import LiveViews, keep_views
from training.symptom_batches import check_ranks, training_batch
from training.symptom_recipe import Recipe

SCRIPT = Path(__file__).with_name("distributed_fit.py")


def test_torchrun_says_who_one_is() -> None:
    """Without it one is alone."""
    assert ranks_of({"PATH": "/bin"}) == ALONE
    assert ranks_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Ranks(3, 4, 1)
    assert not ranks_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}).is_first


@pytest.mark.parametrize(
    "said", [{"RANK": "1"}, {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}]
)
def test_half_an_environment_is_refused(said: dict[str, str]) -> None:
    """One number without the others, a rank beyond the world, and what is no number."""
    with pytest.raises(DataError) as caught:
        ranks_of(said)
    found = ", ".join(f"{name}={said.get(name, '')!r}" for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    assert str(caught.value) == f"the environment says {found}: expected what torchrun sets; start with torchrun, or unset all three"


def test_one_process_needs_no_other() -> None:
    """Its own value is everybody's."""
    assert (ALONE.from_first(3), ALONE.gathered(3), ALONE.mean(3.0)) == (3, [3], 3.0)


def test_two_and_four_processes_draw_the_patients_of_one(tiny_release: Path) -> None:
    """Shard by shard the same, in another order; every process has an equal part."""
    generator, recipe = PatientGenerator(load_knowledge(tiny_release)), Recipe(batch=32)
    whole, prints = training_batch(generator, recipe, 7, 2, ALONE)
    for world in (2, 4):
        parts = [training_batch(generator, recipe, 7, 2, Ranks(rank, world)) for rank in range(world)]
        assert {len(part.condition) for part, _ in parts} == {32 // world}
        assert sorted(np.concatenate([own for _, own in parts])) == sorted(prints)
        rows = np.concatenate([np.column_stack([part.evidence, part.demographics, part.condition]) for part, _ in parts])
        expected = np.column_stack([whole.evidence, whole.demographics, whole.condition])
        assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    """Three processes cannot share 2,048 patients evenly."""
    check_ranks(Recipe(), Ranks(0, 8))
    with pytest.raises(DataError) as caught:
        check_ranks(Recipe(), Ranks(0, 3))
    assert str(caught.value) == (
        "a batch of 2048 patients cannot be split evenly over 3 processes in shards of 4: "
        "start 1, 2, 4, 8 or another power of two with --nproc-per-node"
    )


def test_partners_that_are_blended_stay_together() -> None:
    """The first photo of a batch is blended with the last, so that both are in the same part; the parts are all of it."""
    parts = [own_part(8, Ranks(rank, 2)) for rank in range(2)]
    assert [part.tolist() for part in parts] == [[0, 2, 5, 7], [1, 3, 4, 6]]
    assert all((part + part[::-1] == 7).all() for part in parts)
    assert own_part(8, ALONE).tolist() == list(range(8))


@pytest.fixture
def fitted(tiny_release: Path, tmp_path: Path) -> Path:
    """The folder in which two processes with gloo, and one alone, left their weights."""
    stored = np.random.default_rng(0).integers(0, 255, (24, 20, 20, 3), dtype=np.uint8)
    live = LiveViews(stored, nn.Sequential(), PhotoRecipe(16, "squash", (127.0,) * 3, (128.0,) * 3), 0.5)
    views = keep_views(live, 2, tmp_path, 0, "tests", lambda _done: None)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("two", torchrun), ("alone", [sys.executable])):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [*start, str(SCRIPT), str(tiny_release), str(views), str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_two_processes_hold_the_same_weights_and_those_of_one(fitted: Path) -> None:
    """Bit for bit the same in both; to float tolerance the same as from one process with the same batches.

    Both networks; the sketch counts all patients once; the first process alone wrote the checkpoints.
    """
    one, two = (torch.load(fitted / "two" / f"weights_{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = torch.load(fitted / "alone" / "weights.pt", weights_only=True)
    assert one.keys() == two.keys() == alone.keys()
    for name, values in one.items():
        assert torch.equal(values, two[name]), name
        assert torch.allclose(values.float(), alone[name].float(), atol=1e-4), name
    assert int(one["seen"]) == 6 * 64
    assert sorted(path.name for path in (fitted / "two").iterdir()) == ["lesions.pt", "symptoms.pt", "weights_0.pt", "weights_1.pt"]
