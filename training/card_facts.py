"""What a model card says and neither contract nor metrics hold: whom the data are of, what is predicted, who may use it.

The texts stand in one file, card_texts.toml, by kind of model and by data source. Who trains on data of their own writes a
`card.toml` beside them, in the same form; trainers put it into `contract.training["card"]`, where it goes before ours.
Knows no template and judges nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from inference.bundle import Contract
from inference.errors import DataError

TEXTS = Path(__file__).with_name("card_texts.toml")
OWN_TEXTS = "card.toml"
NOT_DESCRIBED = "Not described."

# What a complete card says of the kind of model, and of each data source; the titles are the card's.
MODEL_FACTS = {
    "users": "who uses it, and where in the care pathway",
    "out_of_scope": "what it must not be used for",
    "outcome": "the outcome",
    "predictors": "the predictors",
    "missing_data": "how missing values are handled",
    "sample_size": "how the sample size came about",
    "analysis": "how it was trained and evaluated",
    "fairness": "what was done for fairness",
    "ethics": "ethics and privacy",
    "monitoring": "how to monitor it and roll it back",
}
SOURCE_FACTS = {
    "setting": "where and when the data were collected",
    "participants": "who is in the data",
    "outcome": "how the outcome was assessed in them",
}


def model_facts(contract: Contract) -> dict[str, Any]:
    """The facts of the kind of model, by the keys of MODEL_FACTS; keys that nobody wrote are left out.

    A task `lesions-ham10000` takes what is written for it before what is written for `lesions`.
    """
    written = _texts()["model"]
    family = contract.task.split("-", maxsplit=1)[0]
    own = {name: text for name, text in own_facts(contract).items() if name != "source"}
    return {**written.get(family, {}), **written.get(contract.task, {}), **own}


def source_facts(contract: Contract) -> dict[str, dict[str, str]]:
    """For each data source of the contract, by its name, the facts by the keys of SOURCE_FACTS; empty where nobody wrote any.

    What the owner wrote is of the only source, or of those that are not public; it goes before what is written here.
    """
    written, own = _texts()["source"], own_facts(contract).get("source", {})
    facts = {}
    for source in contract.data:
        ours = dict(written.get(source.name, {}))
        is_public = ours.pop("public", True) and bool(ours) and len(contract.data) > 1
        facts[source.name] = ours if is_public else {**ours, **own}
    return facts


def own_facts(contract: Contract) -> Mapping[str, Any]:
    """What the owner of the data wrote, as the trainer kept it in the contract; empty for a bundle that has none."""
    facts = contract.training.get("card")
    return facts if isinstance(facts, Mapping) else {}


def read_own_facts(data: Path) -> dict[str, Any]:
    """The `card.toml` in the folder of the data (or beside the file), for `contract.training["card"]`; empty without one.

    Its keys are those of MODEL_FACTS, each a text (`out_of_scope` a list of texts), and a table `source` with those of
    SOURCE_FACTS. Raises DataError naming the keys that are not known.
    """
    path = (data if data.is_dir() else data.parent) / OWN_TEXTS
    if not path.is_file():
        return {}
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    source = facts.get("source", {})
    unknown = sorted(facts.keys() - MODEL_FACTS.keys() - {"source"}) + [
        f"source.{key}" for key in sorted(source.keys() - SOURCE_FACTS.keys())
    ]
    if unknown:
        known = ", ".join([*MODEL_FACTS, *(f"source.{key}" for key in SOURCE_FACTS)])
        raise DataError(f"{path} has keys that a card does not know: {', '.join(unknown)}; expected any of {known}")
    return facts


def metric_meanings() -> Mapping[str, str]:
    """What a metric measures, in a clinician's words, by its name or the beginning of it."""
    return _texts()["metric"]


def tripod_items() -> list[dict[str, str]]:
    """The items of TRIPOD+AI in order: `item`, `topic`, and `where` in the card, or why not."""
    return _texts()["tripod"]


@cache
def _texts() -> Any:
    return tomllib.loads(TEXTS.read_text(encoding="utf-8"))
