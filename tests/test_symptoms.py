"""Tests of the symptom trainer: a smoke training of the catalogue, and the network's parts on a tiny release."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.bundle import Bundle, load_bundle
from inference.errors import DataError
from inference.evidence import EvidenceEncoder, Slot, demographic_index
from training import symptom_evaluation, symptoms
from training.export import check_parity
from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.symptom_batches import mixed_masks
from training.symptom_network import SymptomNetwork, evidence_weights
from training.symptom_recipe import Recipe, recipe_of
from training.symptom_scorer import OUTPUTS, SymptomScorer

STEPS = 25


@pytest.fixture(scope="module", autouse=True)
def _own_tracking(tmp_path_factory) -> Iterator[None]:
    """Runs are tracked in a temporary folder, and bundles signed with a key of their own; fewer patients are scored."""
    folder = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("NABZ_SIGNING_KEY", raising=False)
        patch.setattr(symptom_evaluation, "GENERATED_PATIENTS", 400)
        yield


def arguments(data: Path, out: Path, seed: int = 0, steps: int = STEPS) -> argparse.Namespace:
    """What the command line would give."""
    return argparse.Namespace(data=str(data), out=str(out), version="0.0.1", seed=seed, smoke=True, threads=1, quiet=True, steps=steps)


@pytest.fixture(scope="module")
def bundle(catalogue_folder, tmp_path_factory) -> Bundle:
    """The shipped catalogue's knowledge after a few steps of training, exported, signed and loaded."""
    out = tmp_path_factory.mktemp("smoke") / "models" / "symptoms" / "0.0.1"
    assert symptoms.train(arguments(catalogue_folder, out)) == out
    return load_bundle(out)


def encoder_of(bundle: Bundle) -> EvidenceEncoder:
    """The encoder that inference builds from the contract."""
    vocabulary = bundle.contract.vocabulary
    return EvidenceEncoder([Slot(*slot) for slot in vocabulary["slots"]], vocabulary["parents"])


def code_of(bundle: Bundle, slug: str) -> str:
    """A finding's code."""
    return next(code for code, evidence in bundle.contract.vocabulary["evidences"].items() if evidence["slug"] == slug)


def differential(bundle: Bundle, findings: dict[str, str], age_years: float = 60, sex: str = "male") -> dict[str, float]:
    """Probabilities by condition of one patient, findings by slug."""
    row = encoder_of(bundle).encode({code_of(bundle, slug): value for slug, value in findings.items()})
    found = bundle.run(
        {
            "evidence": row[None],
            "demographics": np.array([demographic_index(age_years, sex)]),
            "log_shift": np.zeros((1, len(bundle.contract.labels))),
        }
    )
    return dict(zip((label.name for label in bundle.contract.labels), found["probabilities"][0].tolist(), strict=True))


def test_the_contract_says_what_a_caller_must_know(bundle, catalogue_folder):
    """Labels and slots in the catalogue's order, thresholds that are probabilities, limits, data, seed and parity."""
    contract, knowledge = bundle.contract, load_knowledge(catalogue_folder)
    assert contract.task == "symptoms"
    assert [label.name for label in contract.labels] == list(knowledge.labels)
    assert [Slot(*slot) for slot in contract.vocabulary["slots"]] == list(knowledge.slots)
    assert set(contract.thresholds) == {"severity_level_2", "severity_level_3", "severity_level_4"}
    assert all(0 <= value <= 1 for value in contract.thresholds.values())
    assert contract.limits[0].startswith("Learned from synthetic patients that were drawn from the catalogue")
    assert contract.training["seed"] == 0
    assert contract.training["parity"]["rows"] == 1000
    assert contract.training["parity"]["max_abs_difference"] <= 1e-4
    assert contract.conformal is not None
    assert contract.conformal["coverage"] == 0.9
    assert np.shape(contract.conformal["least_probability"]) == (5, 4, len(knowledge.labels))
    assert contract.out_of_distribution is not None
    assert contract.out_of_distribution["false_alarm"] == 0.01


def test_probabilities_sum_to_one_for_any_answers(bundle):
    """Also for answers that contradict each other, at any age and sex, alone or in a batch."""
    random = np.random.default_rng(0)
    n, slots, conditions = 40, len(bundle.contract.vocabulary["slots"]), len(bundle.contract.labels)
    found = bundle.run(
        {
            "evidence": random.integers(-1, 2, (n, slots)),
            "demographics": np.arange(n) % 18,
            "log_shift": random.normal(size=(n, conditions)),
        }
    )
    assert found["probabilities"].shape == (n, conditions)
    assert found["contributions"].shape == (n, slots)
    assert found["probabilities"].sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5)
    assert (found["probabilities"] >= 0).all()


def test_unknown_is_not_no(bundle):
    """Not asked about the chest leaves a heart attack possible; no chest pain makes it less likely; chest pain more."""
    base = {"sweating": "present", "breathlessness": "present"}
    unknown, no, yes = (
        differential(bundle, {**base, **more})["myocardial_infarction"]
        for more in ({}, {"chest_pain": "absent"}, {"chest_pain": "present"})
    )
    assert no < unknown < yes


def test_what_is_unknown_contributes_nothing(bundle):
    """Only answered slots speak for or against the leading condition."""
    row = encoder_of(bundle).encode({code_of(bundle, "cough"): "present", code_of(bundle, "fever"): "absent"})
    conditions = len(bundle.contract.labels)
    contributions = bundle.run({"evidence": row[None], "demographics": np.array([10]), "log_shift": np.zeros((1, conditions))})
    assert (contributions["contributions"][0][row == 0] == 0).all()
    assert (contributions["contributions"][0][row != 0] != 0).any()


def test_a_textbook_case_leads(bundle):
    """Rice-water stool with sunken eyes is cholera, even after a few steps: the knowledge is in the weights."""
    findings = dict.fromkeys(("diarrhoea", "rice_water_stool", "vomiting", "sunken_eyes", "skin_pinch_slow"), "present")
    found = differential(bundle, findings, age_years=25)
    assert max(found, key=found.__getitem__) == "cholera"


def test_sex_and_age_count(bundle):
    """Nobody without a womb has an ectopic pregnancy; babies do not either."""
    woman, man, baby = (
        differential(bundle, {"abdominal_pain": "present"}, age, sex)["ectopic_pregnancy"]
        for age, sex in ((25, "female"), (25, "male"), (0.5, "female"))
    )
    assert woman > 100 * man
    assert woman > 100 * baby


def test_the_figures_are_recorded_with_intervals_and_subgroups(bundle, catalogue_folder):
    """`evaluate` on the catalogue scores held-out generated patients; the complaint alone is harder than most answers."""
    most, complaint = (symptom_evaluation.evaluate(bundle, "models/x", catalogue_folder, questions) for questions in (None, 0))
    assert most["n"] == complaint["n"] == 400
    for document in (most, complaint):
        figure = document["metrics"]["gtpa@1"]
        assert 0 < figure["low"] <= figure["value"] <= figure["high"] <= 1
        assert figure["n"] == 400
        assert document["metrics"]["gtpa@1"]["value"] <= document["metrics"]["gtpa@3"]["value"] <= document["metrics"]["gtpa@5"]["value"]
        assert {"sex female", "sex male", "age adult"} <= document["subgroups"].keys()
    assert complaint["metrics"]["gtpa@3"]["value"] < most["metrics"]["gtpa@3"]["value"]


def test_an_evaluation_that_cannot_be_made_is_refused(bundle, tiny_release):
    """Fewer questions than none, and knowledge that is not the bundle's."""
    with pytest.raises(DataError) as caught:
        symptom_evaluation.evaluate(bundle, "x", tiny_release, questions=-1)
    assert str(caught.value) == "--questions -1: a number from 0 (first complaint only) is needed"
    with pytest.raises(DataError) as caught:
        symptom_evaluation.evaluate(bundle, "x", tiny_release)
    assert str(caught.value) == f"{tiny_release} has changed since this bundle was trained: train it again, then evaluate"


def test_questions_are_asked_counted_and_help(bundle, catalogue_folder, monkeypatch):
    """Two questions at most; what is known after them is more than the complaint says."""
    monkeypatch.setattr(symptom_evaluation, "INTERVIEWED_PATIENTS", 40)
    monkeypatch.setattr(symptom_evaluation, "GENERATED_PATIENTS", 40)
    asked = symptom_evaluation.evaluate(bundle, "x", catalogue_folder, questions=2)["metrics"]
    complaint = symptom_evaluation.evaluate(bundle, "x", catalogue_folder, questions=0)["metrics"]
    assert 0 < asked["questions"]["value"] <= 2
    assert asked["questions"]["n"] == 40
    assert asked["gtpa@3"]["value"] >= complaint["gtpa@3"]["value"]
    assert "questions" not in complaint


def test_the_run_is_tracked(bundle):
    """With the seed, the losses and the figures, in the store that the environment names."""
    import mlflow

    assert bundle.contract.task == "symptoms"
    (run,) = mlflow.search_runs(experiment_names=["nabz-symptoms"], output_format="list")
    assert run.data.params["seed"] == "0"
    assert run.data.params["steps"] == str(STEPS)
    assert "loss" in run.data.metrics
    assert "held-out generated patients_ complaint only.gtpa_1" in run.data.metrics


def scores_after_training(release: Path, out: Path, seed: int) -> np.ndarray:
    """Train on the tiny release and score everything that its evidence could be at two places."""
    symptoms.train(arguments(release, out / "models" / "symptoms-ddxplus" / "0.0.1", seed))
    bundle = load_bundle(out / "models" / "symptoms-ddxplus" / "0.0.1")
    evidence = np.zeros((9, 9), dtype=np.float32)
    evidence[:, 0] = np.repeat([-1, 0, 1], 3)
    evidence[:, 8] = np.tile([-1, 0, 1], 3)
    return bundle.run({"evidence": evidence, "demographics": np.full(9, 10), "log_shift": np.zeros((9, 2))})["probabilities"]


def test_the_same_seed_trains_the_same_model(tiny_release, tmp_path):
    """The file of the model is the same byte for byte, and names no folder of this machine; predictions are so, too."""
    one, two = (scores_after_training(tiny_release, tmp_path / name, seed=1) for name in "ab")
    assert (one == two).all()
    first, second = ((tmp_path / name / "models" / "symptoms-ddxplus" / "0.0.1" / "model.onnx").read_bytes() for name in "ab")
    assert first == second
    assert b"site-packages" not in first
    assert str(Path(symptoms.__file__).parent).encode() not in first


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tiny_release, tmp_path, capsys):
    """Settings with their hash, the data card, the files and the time; the folder that it would write is returned."""
    out = tmp_path / "models" / "symptoms-ddxplus" / "0.0.1"
    args = arguments(tiny_release, out)
    args.dry_run, args.runs = True, tmp_path / "runs"
    before = sorted(tmp_path.rglob("*"))
    assert symptoms.train(args) == out
    text = capsys.readouterr().err
    for part in ("settings ", "data card: 12,800 synthetic patients", "would write: ", "settings.json", "fitting takes about"):
        assert part in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_leaves_its_settings_and_its_hash_is_in_the_contract(tiny_release, tmp_path):
    """The run's folder has settings and data card, and no checkpoint once it is done."""
    out = tmp_path / "models" / "symptoms-ddxplus" / "0.0.1"
    args = arguments(tiny_release, out, steps=2)
    args.runs = tmp_path / "runs"
    symptoms.train(args)
    training = load_bundle(out).contract.training
    folder = tmp_path / "runs" / "symptoms-ddxplus" / training["settings_sha256"][:16]
    assert sorted(path.name for path in folder.iterdir()) == ["data_card.json", "settings.json"]
    assert (training["best_step"], training["steps"]) in ((1, 2), (2, 2))
    assert 0 < training["held_out_loss"] < 1


def test_a_release_in_ddxplus_format_is_a_benchmark_and_says_so(tiny_release, tmp_path):
    """The same trainer; figures on the release's own patients, of which the tiny one has three."""
    out = tmp_path / "models" / "symptoms-ddxplus" / "0.0.1"
    symptoms.train(arguments(tiny_release, out, steps=2))
    bundle = load_bundle(out)
    assert bundle.contract.intended_use == "Benchmark on the public DDXPlus data. Not for patients."
    full = symptom_evaluation.evaluate(bundle, "x", tiny_release / "patients_all49.csv")
    assert full["n"] == 3
    assert full["metrics"]["gtpa@1"]["value"] == 2 / 3  # the third has pain of strength 0, which no flu patient has
    assert full["metrics"]["gtpa@3"]["value"] == 1
    assert full["metrics"]["ddf1"]["n"] == 1  # one of the three patients has a differential


def test_torch_and_onnx_agree_on_all_outputs(tiny_release):
    """Untrained and with its correction switched on; any batch size, one row included."""
    knowledge = load_knowledge(tiny_release)
    torch.manual_seed(0)
    network = SymptomNetwork(knowledge)
    torch.nn.init.normal_(network.correction[-1].weight)
    scorer = SymptomScorer(network, 1.5, knowledge).eval()
    exported = symptoms._exported(scorer)
    random = np.random.default_rng(0)

    def source(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = scorer(*(torch.from_numpy(feeds[name]) for name in ("evidence", "demographics", "log_shift")))
        return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}

    for n in (1, 7, 300):
        feeds = {
            "evidence": random.integers(-1, 2, (n, 9)).astype(np.float32),
            "demographics": random.integers(0, 18, n),
            "log_shift": random.normal(size=(n, 2)).astype(np.float32),
        }
        assert check_parity(source, exported, feeds)["rows"] == n


def test_before_training_the_network_is_bayes_rule(tiny_release):
    """A man of 30: prior 0.2 / 0.97 (no newborns) to 0.8 / 2 (women have it 3 times as often); fever 0.8 against 0.1."""
    knowledge = load_knowledge(tiny_release)
    network = SymptomNetwork(knowledge)
    who = torch.full((3,), demographic_index(30, "male"))
    evidence = torch.zeros(3, 9)
    evidence[0, 0], evidence[1, 0] = 1, -1
    with torch.no_grad():
        p = torch.softmax(network(evidence, who, torch.zeros(3, 2)), dim=1).numpy()
    flu, cold = 0.2 / 0.97, 0.4
    expected = [flu * 0.8 / (flu * 0.8 + cold * 0.1), flu * 0.2 / (flu * 0.2 + cold * 0.9), flu / (flu + cold)]
    assert p[:, 0] == pytest.approx(expected, abs=1e-4)


def test_evidence_weights_are_log_probabilities(tiny_release):
    """Present weighs log p; absent log (1 - p), but for a question with one answer, whose other values say it already."""
    present, absent = evidence_weights(load_knowledge(tiny_release))
    assert np.exp(present[0]) == pytest.approx([0.8, 0.1])
    assert np.exp(absent[0]) == pytest.approx([0.2, 0.9])
    assert (absent[2:5] == 0).all()
    assert np.exp(absent[6]) == pytest.approx([0.35, 1], abs=2e-4)


def test_a_batch_is_masked_in_four_ways(tiny_release):
    """A fifth is fully answered, a fifth has one complaint only; nothing is invented in any of them."""
    knowledge = load_knowledge(tiny_release)
    generator = PatientGenerator(knowledge)
    random = np.random.default_rng(0)
    patients = generator.draw(100, random)
    masked = mixed_masks(generator, patients, Recipe(single_complaint=True), random)
    assert masked.shape == patients.answers.shape
    assert (masked[:20] == patients.answers[:20]).all()
    assert ((masked[60:80] != 0).sum(axis=1) <= 1).all()
    known = masked != 0
    assert (masked[known] == patients.answers[known]).all()
    assert known[20:60].mean() < known[:20].mean()


def test_the_differential_figures_worked_out_by_hand():
    """Ours {a, b}, the reference {b, c}: recall 1/2, precision 1/2, their harmonic mean 1/2; `a` alone is severe."""
    ours, reference = np.array([[0.5, 0.5, 0.0]]), np.array([[0.0, 0.5, 0.5]])
    figures = symptom_evaluation._differential_figures(ours, reference, np.array([1, 4, 4]))
    assert {name: figures[name].value for name in ("ddr", "ddp", "ddf1", "dsr", "dsp")} == {
        "ddr": 0.5,
        "ddp": 0.5,
        "ddf1": 0.5,
        "dsr": 0.0,
        "dsp": 0.0,
    }


def test_in_the_top_counts_strictly_better_ones():
    """The truth is second in the first row and first in the other."""
    p, truth = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([1, 2])
    assert symptom_evaluation._in_top(p, truth, 1).tolist() == [0, 1]
    assert symptom_evaluation._in_top(p, truth, 2).tolist() == [1, 1]


def test_the_recipe_is_the_smoke_s_only_when_asked(catalogue_folder):
    """`--steps` has the last word."""
    smoke = arguments(catalogue_folder, Path("x"), steps=0)
    assert recipe_of(smoke, is_catalogue=True).steps == 60
    smoke.smoke = False
    assert recipe_of(smoke, is_catalogue=True) == Recipe()
    smoke.steps = 9
    assert recipe_of(smoke, is_catalogue=False).steps == 9
    assert recipe_of(smoke, is_catalogue=False).single_complaint
