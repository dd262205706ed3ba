"""The rules of each column of own data, by kind: what its texts must be, and what to do where they are not.

Facts in the form of checks on columns of text; own_data_schema.py runs them and says what was found.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pandas as pd

from inference.case import ABSENT, PRESENT, Case, Vitals, field_limits
from inference.photo import YES_NO_FIELDS
from training import own_data_kinds as kinds
from training.catalogue import CATALOGUE, Catalogue, compile_catalogue, load_catalogue
from training.ddxplus import VALUE_MARK
from training.labelled_cases import OUTCOMES, SOURCES, SPLITS
from training.own_data import STRANGE
from training.skin_sources import BODY_SITES, HAM10000, PAD_UFES_20

CODE = re.compile(r"[A-Z]{1,3}_\d{1,4}")
NUMBER = re.compile(r"[-+]?\d{1,9}([.,]\d{1,6})?")
_OLDEST_YEARS = 125
_CONSCIOUSNESS = ("A", "C", "V", "P", "U")
_KTAS_RANGES = {"SBP": "systolic_mmhg", "DBP": "diastolic_mmhg", "HR": "pulse_per_minute", "RR": "respiratory_rate_per_minute", "BT": "temperature_celsius", "Saturation": "spo2_percent"}  # fmt: skip
_NHAMCS_RANGES = {"PULSE": (0, 998), "BPSYS": (0, 400), "BPDIAS": (0, 998), "RESPR": (0, 200), "POPCT": (0, 100), "TEMPF": (700, 1150)}


@dataclass(frozen=True)
class Rule:
    """What a column's texts must be. `check` gives True for each that is right; `codes` are the right ones, where there is a list."""

    column: str
    check: Callable[[Any], Any]
    expected: str
    to_do: str
    codes: tuple[str, ...] = ()
    is_identity: bool = False
    says: Callable[[str], str] | None = None


def rules_of(kind: kinds.Kind, folder: Path) -> list[Rule]:
    """The rules of a kind; `folder` has the images, or the release that patients belong to."""
    makers: dict[str, Callable[[Path], list[Rule]]] = {
        kinds.PATIENTS.name: _patients,
        kinds.PHOTOS.name: _photos,
        kinds.LESIONS.name: _lesions,
        kinds.CASES.name: _cases,
        kinds.KTAS.name: _ktas,
        kinds.NHAMCS.name: _nhamcs,
    }
    return makers[kind.name](folder)


def _number(column: str, low: float, high: float, *, blank: bool = True, to_do: str = "") -> Rule:
    words = f"a number from {low:g} to {high:g}" + (", or nothing" if blank else "")

    def check(texts: Any) -> Any:
        numbers = pd.to_numeric(texts.str.replace(",", "."), errors="coerce")
        return numbers.between(low, high) | ((texts == "") & blank)

    return Rule(column, check, words, to_do or "correct it, or leave it blank: blank is unknown")


def _choice(column: str, codes: Iterable[str], *, blank: bool = True, to_do: str = "", ignore_case: bool = False) -> Rule:
    known = tuple(codes)
    right = {code.casefold() for code in known} if ignore_case else set(known)
    words = f"one of {', '.join(known)}" if len(known) <= 20 else f"one of {len(known)} codes"

    def check(texts: Any) -> Any:
        return (texts.str.casefold() if ignore_case else texts).isin(right) | ((texts == "") & blank)

    return Rule(column, check, words + (", or nothing" if blank else ""), to_do or "use the code", known)


def _filled(column: str, why: str) -> Rule:
    return Rule(column, lambda texts: texts != "", "something", why)


def _once(column: str) -> Rule:
    return Rule(
        column,
        lambda texts: ~texts.duplicated(keep=False) | (texts == ""),
        "an id that stands once",
        "keep one row of it",
        is_identity=True,
    )


def _images(column: str, folder: Path, suffix: str = "") -> Rule:
    there = {path.name for path in folder.iterdir()}
    return Rule(
        column,
        lambda texts: (texts + suffix).isin(there),
        "an image file of that name in images/",
        "put the image there, or take the row out",
        is_identity=True,
    )


def _photos(folder: Path) -> list[Rule]:
    known = [label.name for label in PAD_UFES_20.labels]
    return [
        _filled("patient_id", "name the patient by a pseudonym: a split by photo leaks"),
        _once("img_id"),
        _images("img_id", folder),
        _choice("diagnostic", known, blank=False, ignore_case=True, to_do="use a known diagnosis, or take the row out"),
        _number("age", 0, _OLDEST_YEARS),
        _choice("region", BODY_SITES, ignore_case=True, to_do="use one of the sites; blank is unknown"),
        _number("fitspatrick", 1, 6, to_do="give the skin type 1-6, or leave it blank; it is for reports alone"),
        *(
            _choice(name, ("True", "False", "UNK"), ignore_case=True, to_do="write True, False or UNK (not known)")
            for name in YES_NO_FIELDS
        ),
    ]


def _lesions(folder: Path) -> list[Rule]:
    known = [label.name for label in HAM10000.labels]
    return [
        _filled("lesion_id", "name the lesion: a split by photo leaks"),
        _once("image_id"),
        _images("image_id", folder, ".jpg"),
        _choice("dx", known, blank=False, ignore_case=True, to_do="use a known diagnosis, or take the row out"),
        _number("age", 0, _OLDEST_YEARS),
    ]


def _cases(_: Path) -> list[Rule]:
    fields, known = Vitals.model_fields, _catalogue()
    districts = _authored().districts
    rules = [
        Rule(STRANGE, lambda texts: texts == "", "the fields of a case (docs/own_data.md)", "correct the names, or take them out", says=_strange),
        _once("case_id"),
        _number("age_years", *field_limits(Case, "age_years")),
        _choice("sex", ("female", "male", "unknown"), to_do="write female, male or unknown"),
        _choice("district", districts, ignore_case=True, to_do="use the catalogue's spelling; a place it does not know moves no prior"),
        _choice("province", sorted(set(districts.values())), ignore_case=True),
        Rule("received_at", _is_time, "a time such as 2026-07-15T12:00:00+05:00, or nothing", "write it so, with its zone", says=lambda _: "no time"),
        Rule("findings", lambda texts: texts.map(lambda text: not _wrong_findings(text, known)), "findings of the catalogue with values it knows", "correct the code, or take it out: unknown codes are passed over", says=lambda text: _wrong_findings(text, known)),
        _number("labels.level", 1, 5),
        _choice("labels.level_source", SOURCES),
        _choice("labels.condition", sorted(_authored().conditions), to_do="use the catalogue's slug of the confirmed condition"),
        _choice("labels.outcome", OUTCOMES),
        _choice("labels.split", SPLITS),
        _number("labels.machine_level", 1, 5),
        _number("labels.first_impression", 1, 5),
    ]  # fmt: skip
    for name in fields:
        column = f"vitals.{name}"
        if name == "consciousness":
            rules.append(_choice(column, _CONSCIOUSNESS, to_do="write A, C, V, P or U"))
        elif name == "on_oxygen":
            rules.append(_choice(column, ("true", "false")))
        else:
            rules.append(_number(column, *field_limits(Vitals, name), to_do="correct it, or leave it out: unknown is better than wrong"))
    return rules


def _patients(folder: Path) -> list[Rule]:
    conditions, evidences = _release(folder)
    known = {code: frozenset(map(str, one.get("possible-values", ()))) for code, one in evidences.items()}
    return [
        _number("AGE", 0, _OLDEST_YEARS, to_do="give whole years, or leave it blank"),
        _choice("SEX", ("F", "M"), to_do="write F or M; blank is unknown"),
        _choice("PATHOLOGY", sorted(conditions), blank=False, to_do="use a name of release_conditions.json"),
        Rule("EVIDENCES", lambda texts: texts.map(lambda text: not _wrong_evidences(text, known)), "a list such as ['E_48', 'E_55_@_V_89'] of known codes", "correct the code, or take it out of the list", says=lambda text: _wrong_evidences(text, known)),
        _choice("INITIAL_EVIDENCE", sorted(known), blank=False, to_do="name the evidence that the patient came with"),
    ]  # fmt: skip


def _ktas(_: Path) -> list[Rule]:
    return [
        _choice("KTAS_expert", "12345", blank=False, to_do="give the expert's level, or take the row out"),
        _choice("Sex", "12", to_do="write 1 (female) or 2 (male)"),
        _number("Age", 0, _OLDEST_YEARS),
        _choice("Arrival mode", "1234567"),
        _choice("Mental", "1234", to_do="write 1 (alert), 2 (voice), 3 (pain) or 4 (none)"),
        *(_number(column, *field_limits(Vitals, name), to_do="correct it, or leave it blank: it is read as unknown") for column, name in _KTAS_RANGES.items()),
    ]  # fmt: skip


def _nhamcs(_: Path) -> list[Rule]:
    def or_negative(rule: Rule) -> Rule:
        def check(texts: Any) -> Any:
            return rule.check(texts) | (pd.to_numeric(texts, errors="coerce") < 0)

        return Rule(rule.column, check, f"{rule.expected}; negative is unknown", rule.to_do)

    numbers = {"YEAR": (1992, 2100), "AGE": (0, _OLDEST_YEARS), "SEX": (1, 2), "ARREMS": (1, 2), "RFV1": (10000, 89999), **_NHAMCS_RANGES}
    return [
        _choice("CRITICAL_CARE", "01", blank=False, to_do="write 1 (critical care) or 0, or take the row out"),
        *(or_negative(_number(name, low, high)) for name, (low, high) in numbers.items()),
    ]


def _is_time(texts: Any) -> Any:
    return pd.to_datetime(texts.where(texts != ""), errors="coerce", utc=True, format="ISO8601").notna() | (texts == "")


def _strange(text: str) -> str:
    return text if text.startswith("the line") else f"{text.count(', ') + 1} unknown fields" if ", " in text else "an unknown field"


@lru_cache(maxsize=1)
def _authored() -> Catalogue:
    return load_catalogue(CATALOGUE)


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, frozenset[str]]:
    evidences = compile_catalogue(_authored())["evidences"]
    return {code: frozenset(map(str, one.get("possible-values", ()))) for code, one in evidences.items()}


def _release(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Conditions and evidences of the release in the folder, else of the catalogue."""
    files = [folder / f"release_{name}.json" for name in ("conditions", "evidences")]
    if all(file.is_file() for file in files):
        conditions, evidences = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        return cast("dict[str, Any]", conditions), cast("dict[str, Any]", evidences)
    compiled = compile_catalogue(_authored())
    return compiled["conditions"], compiled["evidences"]


def _wrong_findings(text: str, known: dict[str, frozenset[str]]) -> str:
    """The first finding of `code=value|code=value` that the catalogue does not know; "" where all are right."""
    for entry in text.split("|") if text else ():
        code, _, values = entry.partition("=")
        if code not in known:
            return code if CODE.fullmatch(code) else f"a code of {len(code)} characters"
        for value in values.split(","):
            if value.casefold() not in {PRESENT, ABSENT, "true", "false", *known[code]} and not NUMBER.fullmatch(value):
                return f"{code} with a value it does not have"
    return ""


def _wrong_evidences(text: str, known: dict[str, frozenset[str]]) -> str:
    """The first evidence of a list in text that is not known; "" where all are right."""
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError):
        return "no list"
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return "no list of codes"
    for one in listed:
        code, mark, value = one.partition(VALUE_MARK)
        if code not in known:
            return code if CODE.fullmatch(code) else f"a code of {len(code)} characters"
        if mark and known[code] and value not in known[code]:
            return f"{code} with a value it does not have"
    return ""
