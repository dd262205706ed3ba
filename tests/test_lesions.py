"""Tests of scoring photos, of the lesion network's fitting and export, and of its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from inference.bundle import Bundle, Contract, DataSource, Label, TensorSpec, load_bundle
from inference.case import Photo
from inference.errors import BundleError, DataError
from inference.lesions import LesionFailure, LesionModel, LesionRequest, LesionScore
from inference.photo import PhotoRecipe, clinical_features
from training import lesion_figures, lesion_fitting
from training.export import check_parity, file_sha256
from training.lesion_answers import field_of_feature, hide_answers
from training.lesion_backbones import Backbone, efficientnet_lite, load_pretrained
from training.lesion_evaluation import evaluate
from training.lesion_export import export_onnx
from training.lesion_familiarity import fit_familiarity
from training.lesion_figures import (
    Scored,
    fit_calibration,
    lesion_metrics,
    malignancy_threshold,
    skin_type_metrics,
    softmax,
)
from training.lesion_fitting import Epoch, Examples, Plan, embeddings, fit, logits
from training.lesion_network import OUTPUTS, CalibratedLesionNetwork, LesionNetwork
from training.metrics import bootstrap_interval

Array = NDArray[Any]
SITES, LABELS = ("FACE", "ARM"), ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")
FEATURES = clinical_features(SITES)
SAMPLE_PHOTOS = Path(__file__).parent.parent / "data/sample/photos"
RECIPE = PhotoRecipe(16, "squash", (127.0,) * 3, (128.0,) * 3)


class FakeSession:
    """Answers from the photo's mean red and from what was said, so that tests can tell inputs apart."""

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """Give BCC the share of red, SCC 0.25 when itching is known, ACK the rest."""
        bcc = float(feeds["photo"][0, 0].mean() * 128 + 127) / 255 / 2
        scc = 0.25 if feeds["clinical"][0, FEATURES.index("itch=yes")] else 0.0
        row = np.array([[1 - bcc - scc, bcc, 0, 0, scc, 0]], dtype=np.float32)
        answers = {"probabilities": row, "malignancy_probability": row[:, [1, 2, 4]].sum(axis=1)}
        return [answers[name] for name in names]


def contract(**changes: Any) -> Contract:
    """A contract like a lesion bundle's, for two body sites and photos of 16 pixels."""
    fields: dict[str, Any] = {
        "task": "lesions",
        "version": "0.0.1",
        "created": "2026-11-22T00:00:00+00:00",
        "model_sha256": "0" * 64,
        "inputs": tuple(TensorSpec(name=name, dtype="float32", shape=("n",), meaning=name) for name in ("photo", "clinical")),
        "outputs": (
            TensorSpec(name="probabilities", dtype="float32", shape=("n", 6), meaning="by label"),
            TensorSpec(name="malignancy_probability", dtype="float32", shape=("n",), meaning="of a malignant label"),
        ),
        "labels": tuple(Label(name=name, name_en=name) for name in LABELS),
        "intended_use": "tests",
        "limits": (),
        "licence": "CC BY 4.0",
        "data": (),
        "preprocessing": RECIPE.as_contract(),
        "thresholds": {"malignancy": 0.3},
        "vocabulary": {
            "body_site": {"sites": list(SITES), "words": {"face": "FACE", "arm": "ARM"}},
            "clinical_features": list(FEATURES),
            "malignant": ["BCC", "MEL", "SCC"],
        },
    }
    return Contract(**{**fields, **changes})


def lesion_model(threads: int = 2, **changes: Any) -> LesionModel:
    """A lesion model over the fake session."""
    return LesionModel(Bundle(contract(**changes), "0" * 64, FakeSession()), threads)


def save_skin(path: Path, red: int) -> None:
    """A photo of one warm colour with enough texture to be sharp."""
    noise = np.random.default_rng(red).integers(-9, 9, (200, 200, 1))
    pixels = np.clip(np.array([red, red // 2, red // 3]) + noise, 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_come_in_order_with_failures_in_their_place(tmp_path: Path, threads: int) -> None:
    """A broken photo costs its own answer only, whatever the number of threads."""
    reds = {"a.png": 80, "c.png": 160, "d.png": 240}
    for name, red in reds.items():
        save_skin(tmp_path / name, red)
    (tmp_path / "b.png").write_bytes(b"no photo")
    requests = [LesionRequest(Photo(path=name), tmp_path) for name in ("a.png", "b.png", "c.png", "d.png")]
    first, broken, third, fourth = lesion_model(threads).score(requests)
    assert isinstance(broken, LesionFailure)
    assert broken.reason.startswith("b.png: this is not a JPEG, PNG or WebP photo")
    for answer, red in zip((first, third, fourth), reds.values(), strict=True):
        assert isinstance(answer, LesionScore)
        assert answer.probabilities["BCC"] == pytest.approx(red / 255 / 2, abs=0.01)


def test_a_score_names_its_labels_and_its_quality() -> None:
    """Probabilities carry label names, the most probable one leads, and the gate's verdict is there."""
    (score,) = lesion_model().score([LesionRequest(Photo(path="mole.jpg", itch=True, body_site="arm"), SAMPLE_PHOTOS, 60)])
    assert isinstance(score, LesionScore)
    assert tuple(score.probabilities) == LABELS
    assert score.probabilities["SCC"] == 0.25
    assert score.malignancy_probability == pytest.approx(0.25 + score.probabilities["BCC"])
    assert score.quality.ok
    assert score.notes == ()


def test_a_poor_photo_is_scored_all_the_same(tmp_path: Path) -> None:
    """The gate speaks beside the score; whether it is believed is decided elsewhere."""
    Image.new("RGB", (200, 200), (180, 120, 90)).save(tmp_path / "a.png")
    (score,) = lesion_model().score([LesionRequest(Photo(path="a.png"), tmp_path)])
    assert isinstance(score, LesionScore)
    assert [problem.code for problem in score.quality.problems] == ["blurred"]


def test_a_body_site_that_is_not_understood_is_told_without_repeating_it(tmp_path: Path) -> None:
    """The note lists what the model knows and not what was typed, which may be anything."""
    save_skin(tmp_path / "a.png", 200)
    (score,) = lesion_model().score([LesionRequest(Photo(path="a.png", body_site="Mr Khan's"), tmp_path)])
    assert isinstance(score, LesionScore)
    assert score.notes == ("body_site was not understood and counts as unknown; the model knows FACE, ARM",)


def test_a_photo_outside_the_folder_is_a_failure(tmp_path: Path) -> None:
    """A path that climbs out of the photo folder is never opened."""
    (answer,) = lesion_model().score([LesionRequest(Photo(path="../a.png"), tmp_path)])
    assert isinstance(answer, LesionFailure)
    assert answer.reason.startswith("a.png: the photo lies outside the photo folder")


def test_photos_may_come_as_content_by_path(tmp_path: Path) -> None:
    """The same score as from a folder; a path that the mapping lacks is a failure, even where a file has that name."""
    save_skin(tmp_path / "a.png", 200)
    content = {"a.png": (tmp_path / "a.png").read_bytes()}
    here, there = (lesion_model().score([LesionRequest(Photo(path="a.png"), photos)])[0] for photos in (tmp_path, content))
    assert here == there
    (answer,) = lesion_model().score([LesionRequest(Photo(path=str(tmp_path / "a.png")), content)])
    assert answer == LesionFailure("a.png: there is no such photo in the photo folder; send it again")


def test_no_photos_no_answers() -> None:
    """An empty batch is an empty list."""
    assert lesion_model().score([]) == []


def test_probabilities_that_are_not_finite_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN never leaves as a score."""
    save_skin(tmp_path / "a.png", 200)

    def nan_run(self: FakeSession, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        return [np.full((1, 6), np.nan), np.full(1, np.nan)]

    monkeypatch.setattr(FakeSession, "run", nan_run)
    (answer,) = lesion_model().score([LesionRequest(Photo(path="a.png"), tmp_path)])
    assert answer == LesionFailure("a.png: lesions 0.0.1: the model gave probabilities with values that are no finite numbers")


def test_a_bundle_of_other_clinical_features_is_refused() -> None:
    """A model is never fed features that it was not trained on."""
    vocabulary = contract().vocabulary | {"clinical_features": ["age"]}
    with pytest.raises(BundleError, match=r"lesions 0\.0\.1 was trained on other clinical features"):
        lesion_model(vocabulary=vocabulary)
    with pytest.raises(BundleError, match="the vocabulary lacks body_site"):
        lesion_model(vocabulary={})


def tiny_backbone() -> Backbone:
    """One convolution, so that fitting takes milliseconds."""
    convolution = nn.Conv2d(3, 4, 3, stride=2)
    network = nn.Sequential(convolution, nn.BatchNorm2d(4))
    return Backbone(network, 4, RECIPE.mean, RECIPE.std)


@pytest.fixture
def tiny_plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan of three epochs with the tiny backbone."""
    backbones: dict[str, Callable[[], Backbone]] = {"tiny": tiny_backbone}
    monkeypatch.setattr(lesion_fitting, "BACKBONES", backbones)
    return Plan(backbone="tiny", size=16, stored_size=20, epochs=3, batch_size=8, frozen_stages=0, views=0)


def some_examples(count: int = 24) -> Examples:
    """Random photos and answers of two classes."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (count, 20, 20, 3), dtype=np.uint8)
    clinical = generator.integers(0, 2, (count, len(FEATURES))).astype(np.float32)
    return Examples(pixels, pixels[:, :16, :16], clinical, np.arange(count) % 2)


def test_a_run_that_was_cut_goes_on_and_ends_the_same(tmp_path: Path, tiny_plan: Plan) -> None:
    """Weights are bit for bit those of a run that was not cut."""
    examples, rows = some_examples(), np.arange(24)

    def cut(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole = fit(examples, rows, 2, tiny_plan, 7, tmp_path / "whole.pt", lambda _epoch: None)
    with pytest.raises(KeyboardInterrupt):
        fit(examples, rows, 2, tiny_plan, 7, tmp_path / "cut.pt", cut)
    epochs: list[int] = []
    resumed = fit(examples, rows, 2, tiny_plan, 7, tmp_path / "cut.pt", lambda epoch: epochs.append(epoch.number))
    assert epochs == [3]
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, tiny_plan: Plan) -> None:
    """Going on with another recipe would mix two models."""
    examples, rows = some_examples(), np.arange(24)
    fit(examples, rows, 2, tiny_plan, 7, tmp_path / "a.pt", lambda _epoch: None)
    with pytest.raises(
        DataError,
        match=r"a\.pt belongs to a run with the settings [0-9a-f]{16}, and this run's are [0-9a-f]{16} .*; delete it to start anew",
    ):
        fit(examples, rows, 2, replace(tiny_plan, epochs=9), 7, tmp_path / "a.pt", lambda _epoch: None)


def test_hidden_answers_say_nothing_of_the_class() -> None:
    """A field that one class never lacks and another lacks half the time is hidden equally often in both."""
    generator = np.random.default_rng(0)
    targets = np.repeat([0, 1], 4000)
    clinical = np.ones((8000, len(FEATURES)), dtype=np.float32)
    itch = field_of_feature(len(FEATURES)) == 2
    clinical[np.ix_((targets == 1) & (generator.random(8000) < 0.5), itch)] = 0
    hidden = hide_answers(clinical, targets, 0.1, generator)
    shares = [(hidden[targets == label][:, itch] == 0).all(axis=1).mean() for label in (0, 1)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    age = field_of_feature(len(FEATURES)) == 0
    assert (hidden[:, age] == 0).all(axis=1).mean() == pytest.approx(0.1, abs=0.02)


def test_hiding_takes_whole_fields_and_leaves_its_input_alone() -> None:
    """An answer is hidden in all of its features or in none."""
    clinical = np.ones((500, len(FEATURES)), dtype=np.float32)
    hidden = hide_answers(clinical, np.zeros(500, dtype=np.int64), 0.5, np.random.default_rng(1))
    fields = field_of_feature(len(FEATURES))
    for field in range(8):
        assert set(hidden[:, fields == field].mean(axis=1)) == {0.0, 1.0}
    assert clinical.all()


def test_every_feature_belongs_to_its_field() -> None:
    """Age has two features, the site one a site, and each question two."""
    assert field_of_feature(len(FEATURES)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]


def test_onnx_agrees_with_torch(tiny_plan: Plan) -> None:
    """The exported graph gives the network's probabilities for any batch, and malignancy is their sum."""
    torch.manual_seed(0)
    malignant = torch.tensor([float(name in ("BCC", "MEL", "SCC")) for name in LABELS])
    network = LesionNetwork(tiny_backbone(), len(FEATURES), 6)
    generator = np.random.default_rng(0)
    familiarity = fit_familiarity(generator.normal(size=(30, 4)), np.arange(30) % 6)
    scorer = CalibratedLesionNetwork(network, 1.5, torch.linspace(-1, 1, 6), malignant, familiarity).eval()
    model = export_onnx(scorer, 16, len(FEATURES))
    feeds: dict[str, Array] = {
        "photo": generator.normal(size=(5, 3, 16, 16)).astype(np.float32),
        "clinical": generator.random((5, len(FEATURES))).astype(np.float32),
    }
    with torch.no_grad():
        outputs = scorer(*(torch.from_numpy(feed) for feed in feeds.values()))
    expected = dict(zip(OUTPUTS, (output.numpy() for output in outputs), strict=True))
    assert [expected[name].shape for name in OUTPUTS] == [(5, 6), (5,), (5, 7, 7), (5,)]
    assert check_parity(lambda _: expected, model, feeds)["rows"] == 5
    assert np.allclose(expected["probabilities"][:, [1, 2, 4]].sum(axis=1), expected["malignancy_probability"])
    assert b"/" + Path(__file__).parent.name.encode() not in model and b".py" not in model


def test_weights_of_another_network_are_refused() -> None:
    """Published weights must line up tensor by tensor."""
    with pytest.raises(ValueError, match="the pretrained weights hold 1 tensors that do not line up"):
        load_pretrained(efficientnet_lite(1.0, 1.0), {"_conv_stem.weight": torch.zeros(1)})


def test_logits_do_not_depend_on_the_batch(tmp_path: Path, tiny_plan: Plan) -> None:
    """Scoring 40 photos at once gives what scoring them one by one gives."""
    examples = some_examples(40)
    network = fit(examples, np.arange(40), 2, tiny_plan, 1, tmp_path / "a.pt", lambda _epoch: None)
    together = logits(network, embeddings(network, examples.pixels, RECIPE), examples.clinical)
    rows = [slice(i, i + 1) for i in range(40)]
    alone = [logits(network, embeddings(network, examples.pixels[row], RECIPE), examples.clinical[row]) for row in rows]
    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


def scored(truth: list[int], predicted: list[int], flagged: list[bool], skin_types: list[int]) -> Scored:
    """Images that are predicted with probability 0.9."""
    probabilities = np.full((len(truth), 6), 0.02)
    probabilities[np.arange(len(truth)), predicted] = 0.9
    groups = np.arange(len(truth))
    return Scored(np.array(truth), probabilities, np.array(flagged), groups, np.array(skin_types))


def test_figures_that_can_be_checked_by_hand() -> None:
    """Four images, three right: each figure and its count."""
    images = scored([1, 1, 3, 3], [1, 3, 3, 3], [True, False, True, False], [2, 2, 5, 0])
    wanted = (
        "balanced_accuracy",
        "sensitivity",
        "specificity",
        "sensitivity_bcc",
        "sensitivity_nev",
        "sensitivity_mel",
        "ece",
    )
    figures = lesion_metrics(images, LABELS, ("BCC", "MEL", "SCC"), only=wanted)
    assert figures["balanced_accuracy"].value == 0.75
    assert (figures["sensitivity"].value, figures["sensitivity"].n) == (0.5, 2)
    assert (figures["specificity"].value, figures["specificity"].n) == (0.5, 2)
    assert (figures["sensitivity_bcc"].value, figures["sensitivity_nev"].value) == (0.5, 1.0)
    assert np.isnan(figures["sensitivity_mel"].value)
    assert figures["sensitivity_mel"].n == 0
    assert figures["ece"].value == pytest.approx(0.15)


def test_every_skin_type_is_listed_with_its_count() -> None:
    """A type that does not occur is there with n = 0 and no value."""
    images = scored([1, 1, 3, 3], [1, 3, 3, 3], [True, False, True, False], [2, 2, 5, 0])
    groups = skin_type_metrics(images, LABELS, ("BCC", "MEL", "SCC"))
    counts = {name: figures["balanced_accuracy"].n for name, figures in groups.items()}
    assert counts == {
        "fitzpatrick_1": 0,
        "fitzpatrick_2": 2,
        "fitzpatrick_3": 0,
        "fitzpatrick_4": 0,
        "fitzpatrick_5": 1,
        "fitzpatrick_6": 0,
        "fitzpatrick_unknown": 1,
    }
    assert np.isnan(groups["fitzpatrick_1"]["auc"].value)


def test_the_operating_point_flags_the_wanted_share() -> None:
    """Of twenty cancers one may be missed at 95 %: the threshold is the second lowest score."""
    scores = np.linspace(0.05, 1.0, 20)
    assert malignancy_threshold(np.ones(20, dtype=bool), scores) == pytest.approx(0.10)
    assert malignancy_threshold(np.ones(19, dtype=bool), scores[:19]) == pytest.approx(0.05)


def test_the_temperature_undoes_overconfidence() -> None:
    """Labels drawn from softmax(z) with logits 3 z give a temperature of 3 and no offsets."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(6_000, 4)) * 1.5
    truth = (softmax(z).cumsum(axis=1) < generator.random((6_000, 1))).sum(axis=1)
    found = fit_calibration(3 * z, truth)
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.offsets == pytest.approx((0, 0, 0, 0), abs=0.1)


def test_offsets_bring_back_a_class_that_the_logits_neglect() -> None:
    """A class whose logits are 1 too low gets an offset above the others', short of 1 for the shrinkage."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(6_000, 3))
    truth = (softmax(z).cumsum(axis=1) < generator.random((6_000, 1))).sum(axis=1)
    offsets = fit_calibration(z - np.array([0.0, 0.0, 1.0]), truth).offsets
    assert 0.7 < offsets[2] - offsets[0] < 1.05


def test_evaluation_scores_a_folder_as_inference_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with metadata.csv gives the metrics document; an unreadable photo is counted, not scored."""
    (tmp_path / "images").mkdir()
    header = "patient_id,age,region,fitspatrick,itch,grew,hurt,changed,bleed,elevation,img_id,diagnostic"
    rows = [
        "P1,61,FACE,3,True,True,False,False,False,True,a.png,BCC",
        "P2,30,ARM,,False,False,False,False,False,False,b.png,ACK",
        "P3,30,ARM,,False,False,False,False,False,False,c.png,ACK",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    save_skin(tmp_path / "images" / "a.png", 250)
    save_skin(tmp_path / "images" / "b.png", 90)
    (tmp_path / "images" / "c.png").write_bytes(b"no photo")
    source = DataSource(name="x", licence="x", sha256=file_sha256(tmp_path), citation="x")
    monkeypatch.setattr(lesion_figures, "bootstrap_interval", partial(bootstrap_interval, repeats=20))
    document = evaluate(Bundle(contract(data=(source,)), "0" * 64, FakeSession()), tmp_path)
    assert (document["task"], document["bundle"], document["n"]) == ("lesions", "lesions/0.0.1", 2)
    assert (document["unscored"], document["unfamiliar"], document["learned_from_these_data"]) == (1, 0, True)
    assert document["warning"] == (
        "lesions 0.0.1 learned from these very photos: these figures are far too good. "
        "What it reaches on photos that it never saw stands in its metrics.json"
    )
    assert document["subgroups"]["photo_alone"]["balanced_accuracy"]["n"] == 2
    assert (document["worst_group"], document["metrics"]["worst_group_sensitivity"]["n"]) == (None, 0)
    assert document["metrics"]["balanced_accuracy"]["value"] == 1.0
    assert document["metrics"]["sensitivity"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert document["subgroups"]["fitzpatrick_3"]["balanced_accuracy"]["n"] == 1
    json.dumps(document, allow_nan=False)


def test_a_medmnist_file_is_evaluated_as_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images go through inference as PNG files; what has other labels than the bundle is refused by name."""
    reds = np.array([250, 30], dtype=np.uint8)
    images = np.zeros((2, 28, 28, 3), dtype=np.uint8)
    images[..., 0] = reds[:, None, None]
    nothing = {f"{part}_images": images[:0] for part in ("train", "val")} | {
        f"{part}_labels": np.zeros((0, 1), int) for part in ("train", "val")
    }
    np.savez(tmp_path / "dermamnist.npz", test_images=images, test_labels=np.array([[1], [0]]), **nothing)
    monkeypatch.setattr(lesion_figures, "bootstrap_interval", partial(bootstrap_interval, repeats=20))
    names = ("akiec", "bcc", "mel", "nv", "vasc", "df")
    vocabulary = contract().vocabulary | {"malignant": ["akiec", "bcc", "mel"]}
    made = contract(labels=tuple(Label(name=name, name_en=name) for name in names), vocabulary=vocabulary)
    document = evaluate(Bundle(made, "0" * 64, FakeSession()), tmp_path / "dermamnist.npz")
    assert (document["n"], document["unscored"], document["learned_from_these_data"]) == (2, 0, False)
    assert "warning" not in document
    assert document["metrics"]["balanced_accuracy"]["value"] == 0.5
    with pytest.raises(DataError, match=r"does not know the labels akiec, bcc; evaluate it on data labelled ACK, BCC, MEL, NEV, SCC, SEK$"):
        evaluate(Bundle(contract(), "0" * 64, FakeSession()), tmp_path / "dermamnist.npz")


def test_labels_that_the_bundle_does_not_know_are_named(tmp_path: Path) -> None:
    """Data with other labels cannot be evaluated, and the message says which labels."""
    (tmp_path / "images").mkdir()
    header = "patient_id,age,region,fitspatrick,itch,grew,hurt,changed,bleed,elevation,img_id,diagnostic"
    row = "P1,61,FACE,3,True,True,False,False,False,True,a.png,BCC"
    (tmp_path / "metadata.csv").write_text(f"{header}\n{row}", encoding="utf-8")
    save_skin(tmp_path / "images" / "a.png", 250)
    bundle = Bundle(contract(labels=(Label(name="NEV", name_en="Naevus"),)), "0" * 64, FakeSession())
    with pytest.raises(DataError, match=r"the bundle lesions does not know the labels BCC; evaluate it on data labelled NEV$"):
        evaluate(bundle, tmp_path)


def test_the_shipped_bundle_reached_what_it_must(models_folder: Path) -> None:
    """Held out: balanced accuracy is at least 0.64 and sensitivity at 60 % specificity at least 0.88."""
    metrics = json.loads((models_folder / "lesions" / "1.1.1" / "metrics.json").read_text(encoding="utf-8"))
    first = next(iter(metrics["evaluations"].values()))
    assert first["n"] == 742
    assert first["metrics"]["balanced_accuracy"]["value"] >= 0.64
    assert first["metrics"]["sensitivity_at_60_specificity"]["value"] >= 0.88


def test_the_shipped_bundle_scores_a_photo(models_folder: Path, tmp_path: Path) -> None:
    """The shipped bundle is signed, loads, fits this version's features, and its probabilities sum to one."""
    save_skin(tmp_path / "a.png", 200)
    model = LesionModel(load_bundle(models_folder / "lesions" / "1.1.1"))
    (score,) = model.score([LesionRequest(Photo(path="a.png", body_site="face"), tmp_path, 70)])
    assert isinstance(score, LesionScore)
    assert set(score.probabilities) == set(LABELS)
    assert sum(score.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    malignant = sum(score.probabilities[label] for label in ("BCC", "MEL", "SCC"))
    assert score.malignancy_probability == pytest.approx(malignant, abs=1e-5)


def test_a_photo_is_unfamiliar_beyond_the_contracts_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the threshold a photo is familiar, above it not; a bundle that does not measure it calls none unfamiliar."""
    save_skin(tmp_path / "a.png", 200)
    request = LesionRequest(Photo(path="a.png"), tmp_path)
    (old,) = lesion_model().score([request])
    assert isinstance(old, LesionScore)
    assert (old.unfamiliarity, old.is_unfamiliar) == (None, False)
    answer = FakeSession.run

    def run(self: FakeSession, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        return [*answer(self, names[:2], feeds), np.array([1.5], dtype=np.float32)]

    monkeypatch.setattr(FakeSession, "run", run)
    outputs = (*contract().outputs, TensorSpec(name="unfamiliarity", dtype="float32", shape=("n",), meaning="x"))
    for threshold, is_unfamiliar in ((1.5, False), (1.4, True)):
        (score,) = lesion_model(outputs=outputs, out_of_distribution={"threshold": threshold}).score([request])
        assert isinstance(score, LesionScore)
        assert (score.unfamiliarity, score.is_unfamiliar) == (1.5, is_unfamiliar)
    with pytest.raises(BundleError, match=r"^lesions 0\.0\.1: out_of_distribution lacks its threshold; export again$"):
        lesion_model(outputs=outputs)
