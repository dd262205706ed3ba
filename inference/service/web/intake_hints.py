"""Hints at what may be mistyped: another unit, two fields swapped, a slipped point, a device's error, a value that is rarely seen.

A hint refuses nothing and changes nothing by itself. The rules are data, so that the page's script and this file go by the same ones:
`if` holds when each `[field, operator, value]` does, where a value may be another field's; `fix` gives each field as
`[field, factor, added]`. The first rule that holds for a field is its hint. Pure.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from inference.case import Vitals, field_limits
from inference.service.web.intake_form import CHOICES, Typed, number_of
from inference.service.web.language import N_, Speech
from inference.service.web.vocabulary import vital_names

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Outside these a value is possible and rarely seen: "is this right?" is asked once. Wider than NEWS2's worst bands, so that those
# who are gravely ill are not asked about everything; our own choice, and nothing but the question depends on it.
_USUAL: Final[Mapping[str, tuple[float, float]]] = {
    "respiratory_rate_per_minute": (8, 60),
    "spo2_percent": (80, 100),
    "systolic_mmhg": (70, 220),
    "diastolic_mmhg": (40, 130),
    "pulse_per_minute": (40, 190),
    "temperature_celsius": (34.5, 41),
    "glucose_mg_dl": (40, 450),
    "capillary_refill_seconds": (0, 6),
    "pain_score": (0, 10),
}
_MMOL: Final = 18.016  # mg/dL of glucose in 1 mmol/L: its molar mass, 180.16 g/mol
_OLDEST: Final = 110
_FIX: Final = "fix:"  # and a hint's code: what the button sends that mends

Rule = Mapping[str, Any]
# Each with its code, the field that it stands at, when it holds, what is said, and what would mend it.
_RULES: Final[tuple[Rule, ...]] = (
    {
        "code": "fahrenheit", "field": "temperature_celsius",
        "if": [["temperature_celsius", ">=", 90], ["temperature_celsius", "<=", 113]],
        "text": N_("This looks like °F."), "fix": {"temperature_celsius": ["temperature_celsius", 5 / 9, -160 / 9]},
    },
    {
        "code": "point", "field": "temperature_celsius",
        "if": [["temperature_celsius", ">=", 300], ["temperature_celsius", "<=", 430]],
        "text": N_("The point is missing."), "fix": {"temperature_celsius": ["temperature_celsius", 0.1, 0]},
    },
    {
        "code": "swapped_spo2", "field": "spo2_percent",
        "if": [["spo2_percent", ">", 100], ["spo2_percent", "<=", 220], ["pulse_per_minute", ">=", 50], ["pulse_per_minute", "<=", 100]],
        "text": N_("SpO2 is never over 100: it looks swapped with the pulse."),
        "fix": {"spo2_percent": ["pulse_per_minute", 1, 0], "pulse_per_minute": ["spo2_percent", 1, 0]},
    },
    {
        "code": "over_100", "field": "spo2_percent", "if": [["spo2_percent", ">", 100]],
        "text": N_("SpO2 is never over 100: read it again, or leave it empty."), "fix": {},
    },
    {
        "code": "probe", "field": "spo2_percent", "if": [["spo2_percent", "<", 70]],
        "text": N_("So low a value is often the probe: warm the finger, take off nail colour, keep the hand still, read it again."),
        "fix": {},
    },
    {
        "code": "swapped_pressure", "field": "systolic_mmhg", "if": [["systolic_mmhg", "<=", "diastolic_mmhg"]],
        "text": N_("The upper pressure is below the lower one: they look swapped."),
        "fix": {"systolic_mmhg": ["diastolic_mmhg", 1, 0], "diastolic_mmhg": ["systolic_mmhg", 1, 0]},
    },
    {
        "code": "no_pulse", "field": "pulse_per_minute", "if": [["pulse_per_minute", "<=", 20]],
        "text": N_("A device that finds no pulse shows such a value: count it by hand for a whole minute."), "fix": {},
    },
    {
        "code": "no_breath", "field": "respiratory_rate_per_minute", "if": [["respiratory_rate_per_minute", "<=", 5]],
        "text": N_("Count the breaths again, for a whole minute."), "fix": {},
    },
    {
        "code": "millimoles", "field": "glucose_mg_dl", "if": [["glucose_mg_dl", ">=", 1], ["glucose_mg_dl", "<=", 33]],
        "text": N_("This looks like mmol/L."), "fix": {"glucose_mg_dl": ["glucose_mg_dl", _MMOL, 0]},
    },
    {
        "code": "old", "field": "age", "if": [["age", ">", _OLDEST]],
        "text": N_("Is the age right? For a baby choose months."), "fix": {},
    },
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint: what it is at, what it says, and the values that would mend it, by field."""

    code: str
    field: str
    text: str
    fix: Mapping[str, str]


@cache
def hint_rules() -> tuple[Rule, ...]:
    """All rules, the likely mistakes first, then what cannot be, then what is rarely seen."""
    rules: list[Rule] = list(_RULES)
    for name in vital_names():
        if name in CHOICES:
            continue
        low, high = field_limits(Vitals, name)
        beyond = N_("It must be from %(low)s to %(high)s: it would be set aside.")
        for sign, limit in (("<", low), (">", high)):
            code = f"{name}{sign}limit"
            rules.append({"code": code, "field": name, "if": [[name, sign, limit]], "text": beyond, "limits": [low, high], "fix": {}})
        for sign, limit in zip("<>", _USUAL[name], strict=True):
            text = N_("This is rarely seen: is it right?")
            rules.append({"code": f"{name}{sign}usual", "field": name, "if": [[name, sign, limit]], "text": text, "fix": {}})
    return tuple(rules)


def hints_for(typed: Typed, speech: Speech) -> list[Hint]:
    """The hints at what was typed, one a field at most, in the rules' order."""
    numbers = {name: number for name in ("age", *vital_names()) if name not in CHOICES and (number := number_of(typed[name])) is not None}
    found: dict[str, Hint] = {}
    for rule in hint_rules():
        if rule["field"] not in found and all(_holds(condition, numbers) for condition in rule["if"]):
            fix = {name: _written(numbers[given] * factor + added) for name, (given, factor, added) in rule["fix"].items()}
            found[rule["field"]] = Hint(rule["code"], rule["field"], rule_text(rule, speech), fix)
    for name in ("age", *vital_names()):
        if typed[name] and name not in CHOICES and name not in numbers:
            found[name] = Hint(f"{name}?", name, speech.t(NOT_A_NUMBER), {})
    return list(found.values())


NOT_A_NUMBER: Final = N_("This is no number: it would be set aside.")


def rule_text(rule: Rule, speech: Speech) -> str:
    """What a rule says, with its limits."""
    low, high = rule.get("limits", (None, None))
    return speech.t(rule["text"]) if low is None else speech.t(rule["text"], low=f"{low:g}", high=f"{high:g}")


def rules_for_script(speech: Speech) -> list[dict[str, Any]]:
    """The rules as the page's script takes them, with their texts in the page's language."""
    return [
        {"code": rule["code"], "field": rule["field"], "if": rule["if"], "fix": rule["fix"], "text": rule_text(rule, speech)}
        for rule in hint_rules()
    ]


def mended(typed: Typed, speech: Speech, action: str) -> Typed | None:
    """What was typed, with what the button `action` mends; None where it is no such button."""
    if not action.startswith(_FIX):
        return None
    fix = next((hint.fix for hint in hints_for(typed, speech) if action == _FIX + hint.code), {})
    return Typed({**typed.fields, **fix}, typed.findings, typed.read, typed.photos)


def _holds(condition: list[Any], numbers: Mapping[str, float]) -> bool:
    name, sign, value = condition
    other = numbers.get(value) if isinstance(value, str) else value
    return name in numbers and other is not None and _OPERATORS[sign](numbers[name], other)


def _written(value: float) -> str:
    return f"{round(value, 1):g}"
