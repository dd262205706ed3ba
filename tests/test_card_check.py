"""What a complete model card needs: each thing that is taken away is named, and the shipped bundles lack nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.bundle import Contract
from inference.errors import DataError
from inference.models import live_versions
from training.card_check import is_safety_figure, missing_from_card
from training.card_facts import MODEL_FACTS, model_facts, read_own_facts, source_facts

MODELS = Path(__file__).resolve().parent.parent / "models"
LIVE = {task: f"{task}/{version}" for task, version in live_versions(MODELS).items()}
BUNDLES = sorted(path.parent.relative_to(MODELS).as_posix() for path in MODELS.glob("*/*/contract.json"))


def shipped(models_folder: Path, name: str) -> tuple[Contract, dict[str, Any]]:
    """The contract and the metrics of a shipped bundle."""
    folder = models_folder / name
    contract = Contract.model_validate_json((folder / "contract.json").read_bytes())
    return contract, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BUNDLES)
def test_the_shipped_bundles_have_complete_cards(models_folder, name):
    """Benchmarks included, and though they were made before the check was."""
    assert missing_from_card(*shipped(models_folder, name)) == ()


@pytest.mark.parametrize(
    ("update", "sentence"),
    [
        ({"intended_use": ""}, "no intended use: the contract's intended_use is empty"),
        ({"limits": ()}, "no limits: the contract's limits is empty"),
        ({"licence": ""}, "no licence of the weights: the contract's licence is empty"),
        ({"thresholds": {}}, "no thresholds: the contract's thresholds is empty"),
        ({"model_sha256": "ab12"}, "no SHA-256 of the model: the contract's model_sha256 is no hash"),
        ({"data": ()}, "no data source: the contract's data is empty"),
    ],
)
def test_each_thing_that_the_contract_lacks_is_named(models_folder, update, sentence):
    """One sentence for each, and no other."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    assert missing_from_card(contract.model_copy(update=update), metrics) == (sentence,)


def test_a_source_without_licence_citation_or_checksum_is_named(models_folder):
    """Three sentences for the one source that lacks three things."""
    contract, metrics = shipped(models_folder, LIVE["lesions"])
    (source,) = contract.data
    bare = source.model_copy(update={"licence": "", "citation": "", "sha256": ""})
    assert missing_from_card(contract.model_copy(update={"data": (bare,)}), metrics) == (
        "no licence of the data PAD-UFES-20",
        "no citation of the data PAD-UFES-20",
        "no checksum of the data PAD-UFES-20",
    )


def test_training_without_seed_commit_or_parity_is_named(models_folder):
    """They make the bundle reproducible."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    kept = {name: value for name, value in contract.training.items() if name not in {"seed", "commit", "parity"}}
    assert missing_from_card(contract.model_copy(update={"training": kept}), metrics) == (
        "no seed: the contract's training.seed is missing",
        "no commit of the code: the contract's training.commit is missing",
        "no comparison of the exported with the trained model: the contract's training.parity is missing",
    )


def test_figures_that_are_missing_are_named(models_folder):
    """None at all; none of missed patients; none of calibration; none by subgroup; one without bounds."""
    contract, _ = shipped(models_folder, LIVE["lesions"])
    assert missing_from_card(contract, {"evaluations": {}}) == ("no figures: evaluate the bundle first",)
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30}
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    poor = {"evaluations": {"made up": {"n": 30, "metrics": {"auc": figure, "sensitivity": undefined, "gtpa@1": 0.5}, "subgroups": {}}}}
    assert missing_from_card(contract, poor) == (
        "figures without value, low, high and n in made up: gtpa@1",
        "no figure with an interval of the patients whom it misses (under_triage, missed_severe or sensitivity)",
        "no figure of its calibration (ece with an interval, or calibration bands)",
        "no figures by subgroup",
    )


def test_own_data_must_be_described_by_their_owner(models_folder, tmp_path):
    """A source that nobody knows leaves three gaps, and a `card.toml` beside the data fills them."""
    contract, metrics = shipped(models_folder, LIVE["lesions"])
    (source,) = contract.data
    own = contract.model_copy(update={"data": (source.model_copy(update={"name": "district photos"}),)})
    assert missing_from_card(own, metrics) == tuple(
        f"it does not say {what}, for district photos: write `source.{name}` in the card.toml of your data"
        for name, what in (
            ("setting", "where and when the data were collected"),
            ("participants", "who is in the data"),
            ("outcome", "how the outcome was assessed in them"),
        )
    )
    (tmp_path / "card.toml").write_text(
        'sample_size = "All of 2026."\n[source]\nsetting = "Two districts, 2026."\nparticipants = "All who came."\noutcome = "Biopsy."\n'
    )
    described = own.model_copy(update={"training": {**own.training, "card": read_own_facts(tmp_path)}})
    assert missing_from_card(described, metrics) == ()
    assert model_facts(described)["sample_size"] == "All of 2026."
    assert source_facts(described) == {
        "district photos": {"setting": "Two districts, 2026.", "participants": "All who came.", "outcome": "Biopsy."}
    }


def test_what_an_owner_writes_is_of_their_own_data_alone(models_folder):
    """Beside public visits, a service's labelled cases have a general text, which the owner's goes before."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    public, _ = contract.data
    name = "Labelled cases of a triage service (nabz export, or of that form)"
    both = contract.model_copy(update={"data": (public, public.model_copy(update={"name": name}))})
    assert missing_from_card(both, metrics) == ()
    before = source_facts(both)
    own = {"source": {"setting": "Two districts, 2026."}}
    described = source_facts(both.model_copy(update={"training": {**both.training, "card": own}}))
    assert described[public.name] == before[public.name]
    assert described[name] == {**before[name], "setting": "Two districts, 2026."}
    assert set(before[name]) == {"setting", "participants", "outcome"}


def test_a_card_toml_with_unknown_keys_or_bad_syntax_is_refused(tmp_path):
    """A misspelled key would otherwise leave a gap that nobody understands; without the file there are no facts."""
    assert read_own_facts(tmp_path) == {}
    path = tmp_path / "card.toml"
    path.write_text('outcom = "x"\n[source]\nplace = "y"\n')
    with pytest.raises(DataError) as caught:
        read_own_facts(tmp_path / "cases.csv")
    known = ", ".join([*MODEL_FACTS, "source.setting", "source.participants", "source.outcome"])
    assert str(caught.value) == f"{path} has keys that a card does not know: outcom, source.place; expected any of {known}"
    path.write_text("outcome = \n")
    with pytest.raises(DataError, match=r"card\.toml is not valid TOML: "):
        read_own_facts(tmp_path)


def test_a_kind_of_model_that_nobody_described_lacks_every_text(models_folder):
    """A new task cannot go live with a card that says nothing of it."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    missing = missing_from_card(contract.model_copy(update={"task": "cough"}), metrics)
    assert len(missing) == len(MODEL_FACTS)
    assert (
        missing[2] == "it does not say the outcome: write `outcome` for cough in training/card_texts.toml, or in the card.toml of your data"
    )


def test_which_figures_count_the_missed():
    """Whatever the trainer calls them; a diagnosis's own sensitivity is not one of them."""
    assert all(is_safety_figure(name) for name in ("under_triage_with_rules", "missed_severe", "sensitivity", "worst_group_sensitivity"))
    assert not any(is_safety_figure(name) for name in ("over_triage", "sensitivity_mel", "sensitivity_at_specificity_0.9", "auc"))
