"""Which syndromes a case has, by its findings: what the dashboard counts to notice a rise early.

The syndromes are data (`syndromes.toml`). Knows no page, no district and no other case.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

_PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Syndrome:
    """`all_of` and `any_of` are findings' codes; `slugs` names each of them as the catalogue does."""

    code: str
    name_en: str
    name_ur: str
    all_of: frozenset[str]
    any_of: frozenset[str]
    slugs: Mapping[str, str]

    def is_in(self, present: frozenset[str]) -> bool:
        """Whether a case with these findings has the syndrome."""
        return self.all_of <= present and (not self.any_of or not self.any_of.isdisjoint(present))


@cache
def syndromes() -> Mapping[str, Syndrome]:
    """Every syndrome by its code, in the file's order."""
    text = resources.files(__package__).joinpath("syndromes.toml").read_text(encoding="utf-8")
    return {code: _syndrome(code, facts) for code, facts in tomllib.loads(text).items()}


def _syndrome(code: str, facts: Mapping[str, object]) -> Syndrome:
    every, some = (_codes(facts.get(name, {})) for name in ("all", "any"))
    assert every or some, f"{code} names no finding: every case would have it"
    slugs = {finding: slug for slug, finding in (every | some).items()}
    return Syndrome(code, str(facts["name_en"]), str(facts["name_ur"]), frozenset(every.values()), frozenset(some.values()), slugs)


def _codes(given: object) -> dict[str, str]:
    assert isinstance(given, dict)
    return {str(slug): str(code) for slug, code in given.items()}


def syndromes_of(findings: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    """The codes of the syndromes that a case with these findings has."""
    present = frozenset(code for code, value in findings.items() if value == _PRESENT)
    return [one.code for one in syndromes().values() if one.is_in(present)]
