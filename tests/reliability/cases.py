"""Invented cases with findings by code and vitals, and the level that the rules alone give each. Nothing in them is a patient's."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from inference.case import read_case
from inference.models import Models, load_models
from inference.triage import Triage
from reliability.live_service import ROOT
from training.bench_service import structured_cases
from training.catalogue import CATALOGUE

DISTINCT = 200
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@cache
def cases() -> tuple[dict[str, Any], ...]:
    """`DISTINCT` cases without words, so that their level rests on findings and vitals alone."""
    return tuple(structured_cases(CATALOGUE, DISTINCT))


@cache
def rule_levels(*, with_reader: bool) -> tuple[int, ...]:
    """The level of each case of `cases` where no model answers. The reader, which adds what a finding implies, comes with a bundle."""
    models = load_models(ROOT / "models") if with_reader else Models(None, None, None, {}, ("no model",))
    readings = [read_case(case, "case") for case in cases()]
    return tuple(one.level for one in Triage(models).by_rules(readings, NOW, "no model"))
