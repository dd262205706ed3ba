"""Renders a bundle's model card: contract, metrics and the written facts through one template, for a reader.

The card is in the shape of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) and Model Cards (Mitchell et al., FAT* 2019). What
an old contract or a new kind of model lacks is said to be missing, never made up. Formats numbers; works none out but the
intervals of shares that a contract counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from inference.bundle import Contract
from training.card_check import is_safety_figure, missing_from_card
from training.card_facts import MODEL_FACTS, NOT_DESCRIBED, SOURCE_FACTS, metric_meanings, model_facts, source_facts, tripod_items
from training.metrics import wilson_interval

TEMPLATE = Path(__file__).with_name("card.md.jinja")
_SHOWN_LABELS = 12
_SHOWN_VALUES = 12  # of a list among the settings
_SHOWN_SETTINGS = 80
_ELSEWHERE = ("calibration_bands", "card")  # of the contract's training: they have places of their own in the card


def render_card(contract: Contract, metrics: dict[str, Any]) -> str:
    """The model card, in Markdown. `metrics` is the content of metrics.json; contracts of older bundles are rendered too."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 (Markdown from our own files)
    environment.filters |= {"figure": _figure, "share": _share, "meaning": _meaning, "cell": _cell}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    facts = dict.fromkeys(MODEL_FACTS, NOT_DESCRIBED) | model_facts(contract)
    if isinstance(facts["out_of_scope"], str):
        facts["out_of_scope"] = [facts["out_of_scope"]]
    evaluations = {title: _ordered(part) for title, part in (metrics.get("evaluations") or {}).items()}
    card = template.render(
        contract=contract,
        command=metrics.get("command"),
        interval_note=metrics.get("interval_note"),
        evaluations=evaluations,
        safety=list(_safety(evaluations)),
        facts=facts,
        sources=[(one, dict.fromkeys(SOURCE_FACTS, NOT_DESCRIBED) | source_facts(contract)[one.name]) for one in contract.data],
        labels=_labels(contract),
        calibration=contract.training.get("calibration_bands"),
        settings=_settings(contract),
        kept=[name for name in ("probe", "seen", "reference") if getattr(contract, name)],
        missing=missing_from_card(contract, metrics),
        tripod=tripod_items(),
    )
    return card.rstrip("\n") + "\n"


def _ordered(part: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation with the figures of missed patients first, and subgroups that share a figure in one table."""
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for group, figures in part.get("subgroups", {}).items():
        if not tables or not tables[-1][0].keys() & figures.keys():
            tables.append(({}, {}))
        tables[-1][0].update(dict.fromkeys(figures))
        tables[-1][1][group] = figures
    problems = part.get("release_problems") or []
    return {
        "n": part.get("n"),
        "note": part.get("note"),
        "metrics": _missed_first(part.get("metrics", {})),
        "tables": [(list(_missed_first(names)), rows) for names, rows in tables],
        "problems": problems,
    }


def _missed_first(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Who is missed, then whom that costs, then all else as it came."""

    def rank(name: str) -> int:
        return 0 if is_safety_figure(name) else 1 if name.startswith(("over_triage", "specificity")) else 2

    return {name: figures[name] for name in sorted(figures, key=rank)}


def _safety(evaluations: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """For the first screen: of each evaluation the first figure of missed patients, and the first of its price."""
    for title, part in evaluations.items():
        for is_wanted in (is_safety_figure, lambda name: name.startswith(("over_triage", "specificity"))):
            name = next((name for name in part["metrics"] if is_wanted(name)), None)
            if name is not None:
                yield title, name, part["metrics"][name]


def _labels(contract: Contract) -> str:
    shown = [f"{label.name_en}{f' ({label.icd10})' if label.icd10 else ''}" for label in contract.labels[:_SHOWN_LABELS]]
    more = len(contract.labels) - len(shown)
    return "; ".join(shown) + (f"; and {more} more, in the contract's labels" if more else "")


def _settings(contract: Contract) -> list[tuple[str, str]]:
    """What training recorded, one line a value; long lists and deep tables are counted, not shown."""
    told = {name: value for name, value in contract.training.items() if name not in _ELSEWHERE}
    lines = list(_flat(told))
    more = len(lines) - _SHOWN_SETTINGS
    return lines[:_SHOWN_SETTINGS] + ([("more", f"{more} values in contract.json")] if more > 0 else [])


def _flat(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        if any(isinstance(one, Mapping | list | tuple) for one in value) or len(value) > _SHOWN_VALUES:
            return f"{len(value)} values, in contract.json"
        return ", ".join(_shown(one) for one in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def _figure(figure: Any) -> str:
    if not isinstance(figure, Mapping):
        return f"{_shown(figure)} (no interval, n unknown)"
    if figure.get("value") is None:
        return f"undefined (n = {figure.get('n', 0)})"
    n = figure.get("n", "unknown")
    if figure.get("low") is None or figure.get("high") is None:
        return f"{figure['value']:.3f} (no interval, n = {n})"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}, n = {n})"


def _share(events: int, n: int) -> str:
    """A counted share with its 95 % Wilson interval."""
    found = wilson_interval(events, n)
    return f"{found.value:.3f} | {found.low:.3f} to {found.high:.3f}" if n else "undefined | none"


def _meaning(name: str) -> str:
    """What a metric measures: of the texts whose name it begins with, the longest; empty where nobody wrote one."""
    meanings = metric_meanings()
    found = max((key for key in meanings if name == key or (key[-1] in "_@" and name.startswith(key))), key=len, default=None)
    if found is None and name.startswith(("under_triage", "over_triage")):
        found = "under_triage" if name.startswith("under") else "over_triage"
    return meanings[found] if found else ""


def _cell(text: Any) -> str:
    """Text that cannot break a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
