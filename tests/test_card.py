"""The model card of every shipped bundle: its sections, its figures with their intervals, and nothing for machines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inference.bundle import Contract
from inference.models import live_versions
from training.card import render_card
from training.card_check import is_safety_figure
from training.card_facts import MODEL_FACTS, NOT_DESCRIBED, model_facts, tripod_items

MODELS = Path(__file__).resolve().parent.parent / "models"
LIVE = {task: f"{task}/{version}" for task, version in live_versions(MODELS).items()}
BUNDLES = sorted(path.parent.relative_to(MODELS).as_posix() for path in MODELS.glob("*/*/contract.json"))
SECTIONS = [
    "At a glance", "Limits", "Model details", "Intended use", "Population and setting", "Outcome", "Predictors", "Data", "Missing data",
    "Sample size", "Training and evaluation", "Figures", "Thresholds", "Calibration", "Fairness", "Ethics and privacy",
    "Monitoring and rollback", "Reproduce", "TRIPOD+AI",
]  # fmt: skip
INTERVAL = r"-?\d+\.\d{3} \(-?\d+\.\d{3} to -?\d+\.\d{3}, n = \d+\)"
FIGURE = re.compile(rf"^({INTERVAL}|-?\d+\.\d{{3}} \(no interval, n = \d+\)|undefined \(n = \d+\))$")
# The items of the checklist of Collins et al. 2024, in order.
ITEMS = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 18a 18b 18c 18d 18e 18f 19 "
    "20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
).split()


def shipped(models_folder: Path, name: str) -> tuple[Contract, dict[str, Any]]:
    """The contract and the metrics of a shipped bundle."""
    folder = models_folder / name
    contract = Contract.model_validate_json((folder / "contract.json").read_bytes())
    return contract, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(params=BUNDLES)
def bundle(request, models_folder) -> tuple[Contract, dict[str, Any]]:
    """Each shipped bundle in turn, made before the cards had this shape."""
    return shipped(models_folder, request.param)


def sections(card: str) -> dict[str, str]:
    """The text below each heading of the second order."""
    parts = re.split(r"^## (.+)$", card, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Each Markdown table: its head and its rows."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().split("\n")]
        found.append((rows[0], rows[2:]))
    return found


def test_every_section_is_there_in_order(bundle):
    """Certificates stand where there are any; nothing is missing, so no section says so."""
    contract, metrics = bundle
    told = list(sections(render_card(contract, metrics)))
    kinds = [name.removesuffix(", by band") for name in told]
    assert [name for name in kinds if name != "Certificates"] == SECTIONS
    assert ("Certificates" in kinds) == bool(contract.certificates)


def test_no_fact_is_left_out_and_none_is_a_placeholder(bundle):
    """Every written text stands in the card; nothing says that it is not described."""
    contract, metrics = bundle
    card = render_card(contract, metrics)
    facts = model_facts(contract)
    for name in MODEL_FACTS:
        for text in [facts[name]] if isinstance(facts[name], str) else facts[name]:
            assert text in card
    for source in contract.data:
        assert f"- {source.name} ({source.licence}): {source.citation} SHA-256 `{source.sha256}`" in card
    assert NOT_DESCRIBED not in card
    assert not re.search(r"\b(None|nan|Undefined)\b|\{\{|\}\}|\{%", card)


def test_every_figure_has_an_interval_or_says_that_it_has_none(bundle):
    """All figures of metrics.json are there, each in its table, the missed patients' before all others."""
    contract, metrics = bundle
    figures = sections(render_card(contract, metrics))["Figures"]
    parts = re.split(r"^### (.+)$", figures, flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(told) == list(metrics["evaluations"])
    for title, part in metrics["evaluations"].items():
        (head, rows), *groups = tables(told[title])
        assert head == ["metric", "value", "what it measures"]
        assert sorted(row[0] for row in rows) == sorted(part["metrics"])
        assert all(FIGURE.match(row[1]) for row in rows), [row for row in rows if not FIGURE.match(row[1])]
        assert all(row[2] for row in rows), [row[0] for row in rows if not row[2]]
        is_safety = [is_safety_figure(row[0]) for row in rows]
        assert is_safety == sorted(is_safety, reverse=True)
        cells = {(row[0], name): cell for head, rows in groups for row in rows for name, cell in zip(head[1:], row[1:], strict=True)}
        measured = {(group, name) for group, found in part["subgroups"].items() for name in found}
        assert {key for key, cell in cells.items() if cell != "not given"} == measured
        assert all(FIGURE.match(cells[key]) for key in measured)


def test_the_first_screen_begins_with_who_is_missed(bundle):
    """A row for each evaluation, its figure of missed patients before its price; the warning stands above it."""
    contract, metrics = bundle
    first = sections(render_card(contract, metrics))["At a glance"]
    ((head, rows),) = tables(first)
    assert head == ["measured on", "figure", "value", "what it measures"]
    assert {row[0] for row in rows} == set(metrics["evaluations"])
    assert is_safety_figure(rows[0][1])
    assert first.index("**Decision support, not a medical device; not clinically validated.") < first.index("Who is missed")
    assert len(first.splitlines()) <= 40


def test_what_is_for_machines_is_named_and_not_dumped(models_folder):
    """Probe, sketch and reference are a word each; deep tables and long lists of training are counted."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    training = {
        **contract.training,
        "card": {"outcome": "Own."},
        "trials": [{"rate": 0.125}] * 3,
        "offsets": [0.5] * 40,
        "search": {"best": 0.25},
    }
    full = contract.model_copy(
        update={"training": training, "probe": {"rows": [0.123456789]}, "seen": {"hashes": ["f00dfeed"]}, "reference": {"bins": [987654]}}
    )
    card = render_card(full, metrics)
    assert not any(text in card for text in ("0.123456789", "f00dfeed", "987654"))
    told = sections(card)["Reproduce"]
    assert (
        "The contract also holds, for machines: inputs with the trained model's own answers; a sketch of the cases that it learned from; "
        "how the cases looked that it was measured on." in told
    )
    assert "- trials: 3 values, in contract.json" in told
    assert "- offsets: 40 values, in contract.json" in told
    assert "- search.best: 0.25" in told
    assert "card" not in re.findall(r"^- ([a-z_]+)", told, flags=re.MULTILINE)
    assert "\nOwn.\n" in sections(card)["Outcome"]


def test_a_bare_contract_gets_a_card_that_says_what_it_lacks(models_folder):
    """No data, no figures, a task that nobody described: every gap is named, none is filled."""
    contract, _ = shipped(models_folder, LIVE["lesions"])
    bare = contract.model_copy(update={"task": "cough", "data": (), "training": {}, "limits": (), "thresholds": {}, "labels": ()})
    card = render_card(bare, {"command": "nabz-train evaluate", "evaluations": {}})
    told = sections(card)
    assert "**It has not been evaluated: nobody knows whom it misses.**" in told["At a glance"]
    assert "- no figures: evaluate the bundle first" in told["What this card lacks"]
    assert "- no data source: the contract's data is empty" in told["What this card lacks"]
    assert told["Outcome"].strip() == NOT_DESCRIBED
    assert "No data source is named." in told["Population and setting"]
    assert told["Figures"].strip() == "None: the bundle has not been evaluated."
    assert told["Thresholds"].strip() == "none"
    assert "Output classes: none." in told["Model details"]


def test_a_bundle_that_must_not_go_live_says_so_on_the_first_screen(models_folder):
    """The release gate's words of the lesion trainer."""
    contract, metrics = shipped(models_folder, "lesions-ham10000/1.0.1")
    first = sections(render_card(contract, metrics))["At a glance"]
    problem = "no Fitzpatrick type has 20 cancers: its sensitivity by skin type is not known"
    assert f"**Not fit to go live** (HAM10000, held out by lesion, photo alone): {problem}." in first


def test_a_smoke_run_s_card_says_so_at_once(models_folder):
    """And no other card does: older contracts do not know the word."""
    contract, metrics = shipped(models_folder, LIVE["acuity"])
    smoked = contract.model_copy(update={"training": {**contract.training, "smoke": True}})
    warning = "**A smoke run: it shows that training works and is not for use.**"
    assert warning in sections(render_card(smoked, metrics))["At a glance"]
    assert warning not in render_card(contract, metrics)


def test_tripod_ai_is_mapped_item_by_item(bundle):
    """All 52 items in order; a section that is named exists; what was not done says so."""
    covered = []
    for one in tripod_items():
        first, _, last = one["item"].partition("-")
        covered += ITEMS[ITEMS.index(first) : ITEMS.index(last or first) + 1]
    assert covered == ITEMS
    card = render_card(*bundle)
    for one in tripod_items():
        assert f"| {one['item']} | {one['topic']} | {one['where']} |" in card
        named = re.split(r"; |\. |: ", one["where"])[0]
        plain = {"the heading and At a glance", "Not stated", "Not done", "Not applicable"}
        assert named in {*SECTIONS, *plain, "Figures give the n of each"}, named
