"""Says what a complete model card needs and this one lacks, so that no bundle goes live undescribed.

It reads the contract and the metrics that the card is rendered from, not the card's words; whether a figure is good enough
is for others to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from inference.bundle import Contract
from training.card_facts import MODEL_FACTS, OWN_TEXTS, SOURCE_FACTS, model_facts, source_facts

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BOUNDS = ("value", "low", "high", "n")


def missing_from_card(contract: Contract, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """One short sentence for each thing that the card lacks, in the card's order; empty for a complete card.

    `metrics` is the content of metrics.json. Nothing is raised for what is missing or of an unexpected form: it is told.
    """
    return (*_about_the_model(contract), *_about_the_data(contract), *_about_training(contract), *_about_figures(contract, metrics))


def is_safety_figure(name: str) -> bool:
    """Whether a metric counts the patients whom the model lets down: emergencies, severe conditions or cancers missed."""
    return name.startswith(("under_triage", "missed_severe")) or name in {"sensitivity", "worst_group_sensitivity"}


def _about_the_model(contract: Contract) -> Iterator[str]:
    for name, what in (
        ("intended_use", "intended use"),
        ("limits", "limits"),
        ("licence", "licence of the weights"),
        ("thresholds", "thresholds"),
    ):
        if not getattr(contract, name):
            yield f"no {what}: the contract's {name} is empty"
    if not _SHA256.fullmatch(contract.model_sha256):
        yield "no SHA-256 of the model: the contract's model_sha256 is no hash"
    facts = model_facts(contract)
    for name, what in MODEL_FACTS.items():
        if not facts.get(name):
            yield f"it does not say {what}: write `{name}` for {contract.task} in training/card_texts.toml, or in the {OWN_TEXTS} of your data"


def _about_the_data(contract: Contract) -> Iterator[str]:
    if not contract.data:
        yield "no data source: the contract's data is empty"
    for source in contract.data:
        for field in ("licence", "citation"):
            if not getattr(source, field):
                yield f"no {field} of the data {source.name}"
        if not _SHA256.fullmatch(source.sha256):
            yield f"no checksum of the data {source.name}"
    for described, facts in source_facts(contract).items():
        for name, what in SOURCE_FACTS.items():
            if not facts.get(name):
                yield f"it does not say {what}, for {described}: write `source.{name}` in the {OWN_TEXTS} of your data"


def _about_training(contract: Contract) -> Iterator[str]:
    for name, what in (("seed", "seed"), ("commit", "commit of the code"), ("parity", "comparison of the exported with the trained model")):
        if contract.training.get(name) is None:
            yield f"no {what}: the contract's training.{name} is missing"


def _about_figures(contract: Contract, metrics: Mapping[str, Any]) -> Iterator[str]:
    evaluations = metrics.get("evaluations") or {}
    if not evaluations:
        yield "no figures: evaluate the bundle first"
        return
    for title, part in evaluations.items():
        if broken := [name for name, figure in _figures(part) if not _has_bounds(figure)]:
            yield f"figures without value, low, high and n in {title}: {', '.join(broken)}"
    named = {name: figure for part in evaluations.values() for name, figure in part.get("metrics", {}).items() if _is_known(figure)}
    if not any(is_safety_figure(name) for name in named):
        yield "no figure with an interval of the patients whom it misses (under_triage, missed_severe or sensitivity)"
    if not any(name.startswith("ece") for name in named) and "calibration_bands" not in contract.training:
        yield "no figure of its calibration (ece with an interval, or calibration bands)"
    if not any(part.get("subgroups") for part in evaluations.values()):
        yield "no figures by subgroup"


def _figures(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from part.get("metrics", {}).items()
    for group, figures in part.get("subgroups", {}).items():
        yield from ((f"{group}: {name}", figure) for name, figure in figures.items())


def _has_bounds(figure: Any) -> bool:
    return isinstance(figure, Mapping) and all(name in figure for name in _BOUNDS)


def _is_known(figure: Any) -> bool:
    return _has_bounds(figure) and all(figure[name] is not None for name in _BOUNDS)
