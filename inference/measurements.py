"""Measurements worth asking for: the unmeasured vitals that could raise the level, and the limits from which they would.

Limits are found by asking the rules themselves. Knows no model, and not how likely a vital is out of range.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from inference.case import Case, Vitals, field_limits
from inference.rule_tables import Findings
from inference.rules import assess_floor

_PROBES = 16  # so close that one lies between the limits of every vital
_COLOURS = {1: ("red", "سرخ"), 2: ("red", "سرخ"), 3: ("yellow", "زرد")}


@dataclass(frozen=True, slots=True)
class Limits:
    """The values from which a measurement reaches a level: below one, above another, or some choices."""

    below: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def question_facts() -> Mapping[str, Any]:
    """`questions.toml`: whom findings concern, and how measurements are named."""
    return tomllib.loads(resources.files("inference").joinpath("questions.toml").read_text(encoding="utf-8"))


def limits_of(case: Case, findings: Findings, vital: str, level: int) -> Limits:
    """The values of one vital with which the rules give `level` or a more urgent one, all else as it is."""

    def reaches(value: Any) -> bool:
        measured = case.model_copy(update={"vitals": case.vitals.model_copy(update={vital: value})})
        return assess_floor(measured, findings).level <= level

    facts = question_facts()["measure"][vital]
    if "choices" in facts:
        return Limits(choices=tuple(one["value"] for one in facts["choices"] if reaches(_typed(one["value"]))))
    low, high = field_limits(Vitals, vital)
    step = facts["step"]
    last = round((high - low) / step)
    return _numeric_limits(lambda place: reaches(round(low + place * step, 3)), last, lambda place: round(low + place * step, 3))


def measurement_text(vital: str, limits: Limits, level: int) -> tuple[str, str]:
    """What to measure, and from where it counts, in English and Urdu: "Oxygen saturation (SpO2), %: red if below 92"."""
    facts = question_facts()["measure"][vital]
    colour_en, colour_ur = _COLOURS.get(level, (f"level {level}", f"درجہ {level}"))
    chosen = [one for one in facts.get("choices", ()) if one["value"] in limits.choices]
    parts_en = [one["en"] for one in chosen]
    parts_ur = [one["ur"] for one in chosen]
    if limits.below is not None:
        parts_en.append(f"below {limits.below:g}")
        parts_ur.append(f"{limits.below:g} سے کم")
    if limits.above is not None:
        parts_en.append(f"above {limits.above:g}")
        parts_ur.append(f"{limits.above:g} سے زیادہ")
    if not parts_en:
        return facts["name_en"], facts["name_ur"]
    return f"{facts['name_en']}: {colour_en} if {' or '.join(parts_en)}", f"{facts['name_ur']}: {colour_ur} اگر {' یا '.join(parts_ur)}"


def _numeric_limits(reaches: Callable[[int], bool], last: int, value: Callable[[int], float]) -> Limits:
    """The limits on a grid of `last` + 1 values: danger lies at its ends, what is usual between them."""
    probes = sorted({round(last * part / _PROBES) for part in range(_PROBES + 1)})
    calm = [place for place in probes if not reaches(place)]
    if not calm:
        return Limits()
    first, final = calm[0], calm[-1]
    below = above = None
    if first > 0:
        below = value(_boundary(reaches, probes[probes.index(first) - 1], first))
    if final < last:
        above = value(_boundary(reaches, probes[probes.index(final) + 1], final))
    return Limits(below, above)


def _boundary(reaches: Callable[[int], bool], danger: int, calm: int) -> int:
    """The calm place next to danger, between a place of either kind."""
    while abs(danger - calm) > 1:
        middle = (danger + calm) // 2
        if reaches(middle):
            danger = middle
        else:
            calm = middle
    return calm


def _typed(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value, value)
