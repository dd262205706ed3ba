"""The catalogue: small TOML files that clinicians correct, compiled to the DDXPlus release format plus added keys.

Authored keys are readable slugs; compiled keys are codes (`F_012`), as cases carry them. Knows no model.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import DataError
from inference.evidence import AGE_BANDS
from inference.rules import iitt_signs

Table = dict[str, Any]

SEASONS = ("winter", "spring", "summer", "monsoon", "autumn")
PROVINCES = (
    "punjab",
    "sindh",
    "khyber_pakhtunkhwa",
    "balochistan",
    "gilgit_baltistan",
    "azad_kashmir",
    "islamabad",
)
SPECIALTIES = frozenset(
    """
    emergency_medicine internal_medicine infectious_disease cardiology pulmonology gastroenterology neurology
    psychiatry obstetrics_gynaecology paediatrics neonatology surgery orthopaedics urology nephrology endocrinology
    rheumatology haematology oncology ophthalmology ent dentistry dermatology family_medicine
    """.split()
)
APPLIES = ("female_only", "male_only", "from_12_years", "under_2_years", "under_12_years")
SCRIPTS = ("en", "ur", "roman")
CATALOGUE = Path("data/catalogue")  # from the project's root
DATA_TYPES = {"binary": "B", "categorical": "C", "multi": "M"}


@dataclass(frozen=True)
class Catalogue:
    """The authored tables by slug: findings, conditions, the reading rules and the districts."""

    findings: Mapping[str, Table]
    conditions: Mapping[str, Table]
    reading: Table
    applies: Mapping[str, list[str]]
    districts: Mapping[str, str]


def load_catalogue(folder: Path) -> Catalogue:
    """Read every file of the catalogue. Raises DataError naming the file and line that TOML cannot read."""
    return Catalogue(
        findings=_merged(folder / "findings"),
        conditions=_merged(folder / "conditions"),
        reading=_read(folder / "reading.toml"),
        applies=_read(folder / "applies.toml"),
        districts={name: province for province, names in _read(folder / "districts.toml").items() for name in names},
    )


def check_catalogue(catalogue: Catalogue) -> list[str]:
    """Every inconsistency, one sentence each; empty when the catalogue is sound."""
    return [
        *_check_findings(catalogue),
        *_check_signs(catalogue),
        *_check_phrases(catalogue),
        *_check_conditions(catalogue),
        *_check_reach(catalogue),
        *_check_reading(catalogue),
    ]


def compile_catalogue(catalogue: Catalogue) -> dict[str, Table]:
    """The release: `conditions`, `evidences` and `statistics`, keyed as DDXPlus keys them.

    `statistics[condition]["findings"][code]` gives probabilities by value (`"1"` for a binary finding's presence),
    as `train_statistics.json` does. Raises DataError listing every inconsistency.
    """
    problems = check_catalogue(catalogue)
    if problems:
        raise DataError("the catalogue is inconsistent; correct these and run again:\n" + "\n".join(problems))
    codes = {slug: finding["code"] for slug, finding in catalogue.findings.items()}
    total = sum(condition["prior_per_10k"] for condition in catalogue.conditions.values())
    return {
        "conditions": {slug: _condition(slug, table, catalogue, codes) for slug, table in catalogue.conditions.items()},
        "evidences": {table["code"]: _evidence(slug, table, codes) for slug, table in catalogue.findings.items()},
        "statistics": {slug: _statistics(table, total, codes) for slug, table in catalogue.conditions.items()},
    }


def compile_lexicon(catalogue: Catalogue) -> Table:
    """What the findings reader needs: phrases, the rules of `reading.toml` by code, districts by province."""
    codes = {slug: finding["code"] for slug, finding in catalogue.findings.items()}
    reading = {
        kind: [{**rule, **{key: codes[rule[key]] for key in ("finding", "of") if key in rule}} for rule in rules]
        for kind, rules in catalogue.reading.items()
    }
    phrases = [
        [codes[slug], value, polarity, script, text]
        for slug, table in catalogue.findings.items()
        for value, polarity, script, text in _phrases(table)
    ]
    return {"phrases": phrases, **reading, "districts": dict(catalogue.districts)}


def _phrases(table: Table) -> Iterator[tuple[str, str, str, str]]:
    """Each phrase as (value, `present` or `absent`, script, text); a binary finding's value is ''."""
    for polarity, key in (("present", "phrases"), ("absent", "negated")):
        for script, texts in table.get(key, {}).items():
            yield from (("", polarity, script, text) for text in texts)
    for value, inner in table.get("values", {}).items():
        for script, texts in inner.get("phrases", {}).items():
            yield from ((value, "present", script, text) for text in texts)


def _evidence(slug: str, table: Table, codes: Mapping[str, str]) -> Table:
    values = table.get("values", {})
    return {
        "name": table["code"],
        "slug": slug,
        "code_question": codes[table["parent"]] if "parent" in table else table["code"],
        "question_en": table["question_en"],
        "question_ur": table["question_ur"],
        "question_roman": table["question_roman"],
        "name_en": table["name_en"],
        "name_ur": table["name_ur"],
        "is_antecedent": table.get("antecedent", False),
        "default_value": 0 if table["type"] == "binary" else "",
        "value_meaning": {value: {"en": v["name_en"], "ur": v["name_ur"], "roman": v["name_roman"]} for value, v in values.items()},
        "possible-values": list(values),
        "data_type": DATA_TYPES[table["type"]],
        "group": table["group"],
        "iitt": table.get("iitt"),
        "background": table.get("background", 0.0),
        "background_basis": table.get("basis", "estimate"),
    }


def _condition(slug: str, table: Table, catalogue: Catalogue, codes: Mapping[str, str]) -> Table:
    listed = table["findings"]
    antecedent = {name for name in listed if catalogue.findings[name].get("antecedent", False)}
    return {
        "condition_name": slug,
        "cond-name-eng": table["name_en"],
        "name_ur": table["name_ur"],
        "icd10-id": table["icd10"],
        "icd11-id": table.get("icd11"),
        "symptoms": {codes[name]: {} for name in listed if name not in antecedent},
        "antecedents": {codes[name]: {} for name in antecedent},
        "severity": table["severity"],
        "specialty": table["specialty"],
        "ddxplus": table.get("ddxplus"),
        "basis": table["basis"],
    }


def _statistics(table: Table, total: float, codes: Mapping[str, str]) -> Table:
    findings: Table = {}
    bases: Table = {}
    for name, entry in table["findings"].items():
        number, basis = _number_and_basis(entry, table["basis"])
        findings[codes[name]] = number if isinstance(number, dict) else {"1": number}
        bases[codes[name]] = basis
    return {
        "prior": table["prior_per_10k"] / total,
        "findings": findings,
        "basis": bases,
        **{key: table[key] for key in ("age", "sex", "season", "province", "vitals") if key in table},
        "chief": [codes[name] for name in table["chief"]],
    }


def _number_and_basis(entry: Any, default: str) -> tuple[Any, str]:
    """A finding's probability, or its values' probabilities, with the basis that covers them."""
    if isinstance(entry, dict):
        basis = str(entry.get("basis", default))
        if "p" in entry:
            return entry["p"], basis
        return {value: p for value, p in entry.items() if value != "basis"}, basis
    return entry, default


def _check_findings(catalogue: Catalogue) -> Iterator[str]:
    codes = Counter(table.get("code") for table in catalogue.findings.values())
    yield from (f"code {code} is used by {count} findings" for code, count in codes.items() if count > 1)
    required = ("code", "type", "group", "name_en", "name_ur", "question_en", "question_ur", "question_roman")
    for slug, table in catalogue.findings.items():
        missing = [key for key in required if not table.get(key)]
        if missing:
            yield f"finding {slug} lacks {', '.join(missing)}"
        if table.get("type") not in DATA_TYPES:
            yield f"finding {slug}: type is {table.get('type')!r}, expected one of {sorted(DATA_TYPES)}"
        parent = table.get("parent")
        if parent is not None and parent not in catalogue.findings:
            yield f"finding {slug}: its parent {parent} is not a finding"
        elif parent is not None and catalogue.findings[parent].get("type") != "binary":
            yield f"finding {slug}: its parent {parent} is not a yes-or-no finding"
        if _is_own_ancestor(catalogue, slug):
            yield f"finding {slug} is its own ancestor"
        if table.get("type") == "binary" and not 0 < table.get("background", 0) < 1:
            yield f"finding {slug}: background is {table.get('background')}, expected a probability between 0 and 1"
        if (table.get("type") == "binary") == bool(table.get("values")):
            yield f"finding {slug}: values belong to categorical and multi findings, and only to them"


def _is_own_ancestor(catalogue: Catalogue, slug: str) -> bool:
    above = str(catalogue.findings[slug].get("parent"))
    seen: set[str] = set()
    while above in catalogue.findings and above not in seen:
        if above == slug:
            return True
        seen.add(above)
        above = str(catalogue.findings[above].get("parent"))
    return False


def _check_signs(catalogue: Catalogue) -> Iterator[str]:
    by_code = {table.get("code"): (slug, table.get("iitt")) for slug, table in catalogue.findings.items()}
    for code, colour in iitt_signs().items():
        slug, said = by_code.get(code, (None, None))
        if slug is None:
            yield f"the IITT rules use {code}, which no finding has"
        elif said != colour:
            yield f"finding {slug} ({code}) is an IITT {colour} sign in the rules, but its table says {said}"
    for slug, table in catalogue.findings.items():
        if table.get("iitt") and table.get("code") not in iitt_signs():
            yield f"finding {slug} says it is an IITT {table['iitt']} sign, but no rule uses it"


def _check_phrases(catalogue: Catalogue) -> Iterator[str]:
    owner: dict[tuple[str, str], str] = {}
    for slug, table in catalogue.findings.items():
        holders = table["values"].items() if "values" in table else [("", table)]
        for value, holder in holders:
            name = f"{slug}.{value}" if value else slug
            for script in SCRIPTS:
                if not holder.get("phrases", {}).get(script):
                    yield f"finding {name} has no phrase in {script}"
                if not value and not holder.get("negated", {}).get(script):
                    yield f"finding {name} has no negated phrase in {script}"
            if value and not all(holder.get(f"name_{script}") for script in SCRIPTS):
                yield f"finding {name}: a value needs name_en, name_ur and name_roman"
        for value, polarity, _script, text in _phrases(table):
            key = (polarity, " ".join(text.casefold().split()))
            name = f"{slug}.{value}" if value else slug
            first = owner.setdefault(key, name)
            if first != name:
                yield f"the phrase {text!r} belongs to {first} and to {name}"


def _check_conditions(catalogue: Catalogue) -> Iterator[str]:
    for slug, table in catalogue.conditions.items():
        required = ("name_en", "name_ur", "icd10", "severity", "specialty", "basis", "prior_per_10k", "age", "chief")
        missing = [key for key in (*required, "findings") if key not in table]
        if missing:
            yield f"condition {slug} lacks {', '.join(missing)}"
            continue
        if table["severity"] not in range(1, 6):
            yield f"condition {slug}: severity is {table['severity']}, expected 1 to 5"
        if table["specialty"] not in SPECIALTIES:
            yield f"condition {slug}: specialty {table['specialty']} is not known"
        for key, known in (("age", AGE_BANDS), ("season", SEASONS), ("province", PROVINCES), ("sex", ("female", "male"))):
            for name, factor in table.get(key, {}).items():
                if name not in known or not _is_number(factor) or not 0 <= factor <= 100:
                    yield f"condition {slug}: {key}.{name} = {factor} is not a known name with a multiplier of 0 to 100"
        for name in table["chief"]:
            if name not in table["findings"]:
                yield f"condition {slug}: chief finding {name} is not among its findings"
        for name, entry in table["findings"].items():
            yield from _check_probability(catalogue, slug, table, name, entry)


def _check_probability(catalogue: Catalogue, slug: str, table: Table, name: str, entry: Any) -> Iterator[str]:
    finding = catalogue.findings.get(name)
    if finding is None:
        yield f"condition {slug}: {name} is not a finding"
        return
    if finding.get("type") not in DATA_TYPES:
        return  # said of the finding already
    number, basis = _number_and_basis(entry, table["basis"])
    if not basis:
        yield f"condition {slug}: {name} has no basis"
    parent = finding.get("parent")
    if parent is not None and parent not in table["findings"]:
        yield f"condition {slug}: {name} needs its parent {parent} listed too"
    if (finding["type"] == "binary") == isinstance(number, dict):
        yield f"condition {slug}: {name} is {finding['type']}, its probabilities are written for another type"
        return
    values = number if isinstance(number, dict) else {"": number}
    for value, p in values.items():
        where = f"{name}.{value}" if value else name
        if not _is_number(p):
            yield f"condition {slug}: {where} has probability {p!r}, which is not a number"
            return
        if value and value not in finding.get("values", {}):
            yield f"condition {slug}: {name} has no value {value}"
        if not 0 < p < 1 and not (finding["type"] == "categorical" and 0 <= p <= 1):
            yield f"condition {slug}: {where} has probability {p}, expected between 0 and 1"
    if finding["type"] == "categorical" and abs(sum(values.values()) - 1) > 1e-6:
        yield f"condition {slug}: the values of {name} sum to {sum(values.values()):g}, expected 1"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_reach(catalogue: Catalogue) -> Iterator[str]:
    """Every condition can be drawn, and told from "no finding"; every finding is used by some condition or rule."""
    used = {name for table in catalogue.conditions.values() for name in table.get("findings", {})}
    for slug, table in catalogue.conditions.items():
        if table.get("prior_per_10k", 0) <= 0 or not any(table.get("age", {}).values()):
            yield f"condition {slug} can never be drawn: its prior or all its age multipliers are 0"
    for slug, table in catalogue.findings.items():
        if slug not in used and not table.get("iitt"):
            yield f"finding {slug} is used by no condition and by no rule"


def _check_reading(catalogue: Catalogue) -> Iterator[str]:
    for kind, rules in catalogue.reading.items():
        for rule in rules:
            for key in ("finding", "of"):
                if key in rule and rule[key] not in catalogue.findings:
                    yield f"reading.toml: {kind} names {rule[key]}, which is not a finding"
            if "value" in rule and rule["value"] not in catalogue.findings.get(rule["finding"], {}).get("values", {}):
                yield f"reading.toml: {rule['finding']} has no value {rule['value']}"
    for rule, slugs in catalogue.applies.items():
        if rule not in APPLIES:
            yield f"applies.toml: {rule} is not a known limit, expected one of {', '.join(APPLIES)}"
        yield from (f"applies.toml: {rule} names {slug}, which is not a finding" for slug in slugs if slug not in catalogue.findings)
    for district, province in catalogue.districts.items():
        if province not in PROVINCES:
            yield f"districts.toml: {district} is in {province}, which is not a province"


def _merged(folder: Path) -> dict[str, Table]:
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise DataError(f"{folder} has no .toml files: name the catalogue's folder")
    merged: dict[str, Table] = {}
    for file in files:
        for slug, table in _read(file).items():
            if slug in merged:
                raise DataError(f"{file}: {slug} is already defined in another file of {folder.name}")
            merged[slug] = table
    return merged


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
