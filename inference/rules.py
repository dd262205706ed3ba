"""The rule floor: the least urgent level that NEWS2 and the Interagency Integrated Triage Tool allow a case.

The tables are data (`news2.toml`, `iitt.toml`) and must be signed off by the local clinical lead before use
with patients. Logic is three-valued: True, False and None for unknown; an unmeasured vital is unknown, never
normal, and only a rule that is surely true fires. This module does not know models, complaints, the wording
of findings or the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from inference.case import Case
from inference.rule_tables import VITALS, Findings, FiredRule, News2, SignRole, rule_tables

NO_RULE_LEVEL = 5
RED_LEVELS = (1, 2)
_read_vitals = attrgetter(*VITALS)


@dataclass(frozen=True, slots=True)
class UnknownVital:
    """An unmeasured vital that by itself could raise the level, at worst as far as `could_reach_level`."""

    name: str
    could_reach_level: int


@dataclass(frozen=True, slots=True)
class RuleFloor:
    """The least urgent level (1-5) that the rules allow, and why; level 5 means that no rule fired."""

    level: int
    fired: tuple[FiredRule, ...]
    red_flags: tuple[str, ...]
    news2: News2 | None
    unknown_vitals: tuple[UnknownVital, ...]
    rule_version: str


def assess_floor(case: Case, findings: Findings) -> RuleFloor:
    """Apply both tables to a case.

    `findings` maps finding codes to `present`, `absent` or a value, merged from the form and the complaint; a
    code that is not there is unknown, and a value counts as present. `case.findings` is not read. With
    `age_years` unknown, NEWS2 counts, and so does every sign that holds at all ages of the adult's or of the
    child's table.
    """
    tables = rule_tables()
    facts = dict(zip(VITALS, _read_vitals(case.vitals), strict=True))
    facts["pregnant"], facts["age_years"] = case.pregnant, case.age_years
    signs = tables.iitt.for_age(case.age_years)
    fired = signs.fired(findings, facts)
    news2, scale_2 = None, case.known_hypercapnic_failure is True
    if tables.news2.applies(findings, facts):
        news2, news2_fired = tables.news2.assess(facts, scale_2=scale_2)
        fired = sorted(fired + news2_fired, key=_urgency)
    level = fired[0].level if fired else NO_RULE_LEVEL
    unknown = []
    for name in VITALS:
        if facts[name] is None:
            reach = signs.reach(name, level, findings, facts)
            if news2 is not None:
                reach = tables.news2.reach(name, reach, facts, scale_2=scale_2)
            if reach < level:
                unknown.append(UnknownVital(name, reach))
    unknown.sort(key=lambda vital: vital.could_reach_level)
    red_flags = tuple(rule.text_en for rule in fired if rule.level in RED_LEVELS)
    return RuleFloor(level, tuple(fired), red_flags, news2, tuple(unknown), tables.version)


def iitt_signs() -> Mapping[str, SignRole]:
    """The role of every finding code in the IITT table.

    `red` or `yellow`: the finding alone is such a sign for an adult, or else for a child; `component`: it
    counts only with something else, at some ages, or as this project's own reading of a sign (`also` in the
    table).
    """
    return rule_tables().iitt.roles


def _urgency(rule: FiredRule) -> int:
    return rule.level
