"""The rule tables, compiled: NEWS2 and IITT as they stand in `news2.toml` and `iitt.toml`, read once.

A sign or a score is a small tree of three-valued tests over findings and facts. This module does not decide a level.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from inference.case import ABSENT, Vitals
from inference.errors import PolicyError

_UNKNOWN = "unknown"
_MOST_URGENT = 1
_DAYS_PER_YEAR = 365.25
_MONTHS_PER_YEAR = 12
_TABLE_NAMES = {"red": "IITT red", "yellow": "IITT yellow", "vital": "IITT high-risk vital"}
VITALS = tuple(Vitals.model_fields)
# Every limit of every table is passed at one of these values, so that no reading can reach further.
_WORST_VALUES: dict[str, tuple[Any, ...]] = dict.fromkeys(VITALS, (-math.inf, math.inf))
_WORST_VALUES |= {"consciousness": ("U",), "on_oxygen": (True,)}

Findings = Mapping[str, str | tuple[str, ...]]
Facts = Mapping[str, Any]  # the vitals by name, `pregnant` and `age_years`; None is unknown
Test = Callable[[Findings, Facts], bool | None]
SignRole = Literal["red", "yellow", "component"]


@dataclass(frozen=True, slots=True)
class FiredRule:
    """A rule that is surely true, with its reasons in `because`: finding codes and measured values."""

    id: str
    table: str
    level: int
    text_en: str
    text_ur: str
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class News2:
    """The bounds of the NEWS2 total (0-20), and each vital's points; None where they are undetermined."""

    lower: int
    upper: int
    points: Mapping[str, int | None]
    spo2_scale: Literal[1, 2]


def at_least(needed: int, answers: Iterable[bool | None]) -> bool | None:
    """Kleene's three-valued "at least `needed` of these": `or` with 1, `and` with all of them."""
    possible = 0
    for answer in answers:
        if answer:
            needed -= 1
        elif answer is None:
            possible += 1
    if needed <= 0:
        return True
    return None if needed <= possible else False


class _Leaf(NamedTuple):
    """One question about the case: is a finding present, or is a vital within limits."""

    name: str
    is_finding: bool
    test: Test


class Node(NamedTuple):
    """A test and the leaves it is made of; so many of its `parts` are `needed`. A node of a fact has its `limits` instead."""

    test: Test
    leaves: tuple[_Leaf, ...]
    needed: int = 1
    parts: tuple[Node, ...] = ()
    limits: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sign:
    """One compiled row of the IITT table."""

    place: int
    row: Mapping[str, Any]
    level: int
    ages: frozenset[str]
    has_age: bool
    from_years: float
    below_years: float
    node: Node

    def holds(self, findings: Findings, facts: Facts) -> bool | None:
        """Whether the sign is there; None where that is not known."""
        if self.has_age:
            age = facts["age_years"]
            if age is None or not self.from_years <= age < self.below_years:
                return None if age is None else False
        return self.node.test(findings, facts)

    def fire(self, findings: Findings, facts: Facts) -> FiredRule:
        """The sign as a rule that fired, with what made it true."""
        because = [_reason(leaf.name, facts) for leaf in self.node.leaves if leaf.test(findings, facts)]
        if self.has_age:
            because.append(_reason("age_years", facts))
        return _fired(self.row, _TABLE_NAMES[self.row["colour"]], tuple(dict.fromkeys(because)))


def _reason(name: str, facts: Facts) -> str:
    value = facts.get(name)
    if value is None or value is True:
        return name
    return f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"


class SignTable:
    """The signs of one age group, found by what could make them true."""

    def __init__(self, signs: Iterable[Sign]) -> None:
        self.signs = tuple(signs)
        self._always: list[Sign] = []
        self._by_finding: dict[str, list[Sign]] = {}
        self._by_vital: dict[str, list[Sign]] = {name: [] for name in VITALS}
        by_test: dict[_Leaf, list[Sign]] = {}
        for sign in self.signs:
            if not sign.node.leaves:
                self._always.append(sign)
            for leaf in dict.fromkeys(sign.node.leaves):
                if leaf.is_finding:
                    self._by_finding.setdefault(leaf.name, []).append(sign)
                else:
                    by_test.setdefault(leaf, []).append(sign)
            for name in {leaf.name for leaf in sign.node.leaves} & self._by_vital.keys():
                self._by_vital[name].append(sign)
        self._by_test = tuple((leaf.name, leaf.test, signs) for leaf, signs in by_test.items())
        for signs_of_vital in self._by_vital.values():
            signs_of_vital.sort(key=lambda sign: sign.level)

    def fired(self, findings: Findings, facts: Facts) -> list[FiredRule]:
        """The signs that surely hold, most urgent first and then in the table's order."""
        candidates = {sign.place: sign for sign in self._always}
        for code, value in findings.items():
            if value != ABSENT:  # no sign holds because a finding is absent
                for sign in self._by_finding.get(code, ()):
                    candidates[sign.place] = sign
        for name, test, signs in self._by_test:
            if facts[name] is not None and test(findings, facts):
                for sign in signs:
                    candidates[sign.place] = sign
        held = [sign for sign in candidates.values() if sign.holds(findings, facts)]
        held.sort(key=lambda sign: (sign.level, sign.place))
        return [sign.fire(findings, facts) for sign in held]

    def reach(self, vital: str, level: int, findings: Findings, facts: Facts) -> int:
        """The level, or the more urgent one that the signs give when `vital` takes its worst values."""
        signs = self._by_vital[vital]  # the most urgent first
        if not signs or signs[0].level >= level:
            return level
        trial = dict(facts)
        for worst in _WORST_VALUES[vital]:
            trial[vital] = worst
            for sign in signs:
                if sign.level >= level:
                    break
                if sign.holds(findings, trial):
                    level = sign.level
                    break
        return level


class IittTable:
    """The IITT table, compiled for adults, for children and for an age that is not known."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.adult_from_years = float(table["adult_from_years"])
        self._components: Mapping[str, Any] = table["component"]
        # One node a name, so that signs share a test and it is asked once a case.
        self._nodes: dict[str, Node] = {}
        signs = [self._sign(place, row) for place, row in enumerate(table["sign"])]
        only_if_pregnant = self._node("pregnant")
        self.adult = SignTable(sign for sign in signs if "adult" in sign.ages)
        self.unknown_age = SignTable(sign for sign in signs if not sign.has_age)
        self.child = SignTable(
            sign if "child" in sign.ages else replace(sign, node=_all_of([only_if_pregnant, sign.node]))
            for sign in signs
            if not sign.ages.isdisjoint(("child", "pregnant_child"))
        )
        self.roles = self._roles(table["sign"])

    def for_age(self, age_years: float | None) -> SignTable:
        """The signs that count at an age."""
        if age_years is None:
            return self.unknown_age
        return self.adult if age_years >= self.adult_from_years else self.child

    def _sign(self, place: int, row: Mapping[str, Any]) -> Sign:
        alternatives = [self._node(name) for name in (*row.get("any", ()), *row.get("also", ()))]
        nodes = [self._node(name) for name in row.get("all", ())]
        if alternatives:
            nodes.append(_some_of(row.get("at_least", 1), alternatives))
        from_years, below_years = _age_limits(row.get("age", {}))
        return Sign(
            place=place,
            row=row,
            level=row["level"],
            ages=frozenset(row["ages"]),
            has_age="age" in row,
            from_years=from_years,
            below_years=below_years,
            node=_all_of(nodes),
        )

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            self._nodes[name] = self._compiled(name)
        return self._nodes[name]

    def _compiled(self, name: str) -> Node:
        if name.startswith("F_"):
            leaf = _Leaf(name, is_finding=True, test=_finding_test(name))
            return Node(leaf.test, (leaf,))
        if name not in self._components:
            raise PolicyError(f"iitt.toml: found {name!r}, expected a finding code (F_...) or one of its components: correct the name")
        part = self._components[name]
        if "fact" in part:
            leaf = _Leaf(part["fact"], is_finding=False, test=_fact_test(part))
            return Node(leaf.test, (leaf,), limits=part)
        return _some_of(1, [self._node(inner) for inner in (*part["any"], *part.get("also", ()))])

    def _roles(self, rows: Iterable[Mapping[str, Any]]) -> Mapping[str, SignRole]:
        """An adult's sign decides first, then a component of one, then a sign that only children have."""
        order: tuple[SignRole, ...] = ("red", "yellow", "component")
        claims: dict[str, tuple[bool, int]] = {}
        for row in rows:
            if row["colour"] not in order:
                continue
            alone = row.get("at_least", 1) == 1 and not {"all", "age"} & row.keys()
            for code, named in self._codes(row):
                claim = (
                    "adult" not in row["ages"],
                    order.index(row["colour"] if alone and named else "component"),
                )
                claims[code] = min(claim, claims.get(code, claim))
        return MappingProxyType({code: order[claims[code][1]] for code in sorted(claims)})

    def _codes(self, part: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
        """Every finding code in a row or component, and whether the tool itself names it there."""
        for key in ("any", "all", "also"):
            for name in part.get(key, ()):
                inner = [(name, True)] if name.startswith("F_") else self._codes(self._components[name])
                yield from ((code, named and key != "also") for code, named in inner)


def _finding_test(code: str) -> Test:
    def test(findings: Findings, _: Facts) -> bool | None:
        answer = findings.get(code, _UNKNOWN)
        return None if answer == _UNKNOWN else answer != ABSENT

    return test


def _fact_test(part: Mapping[str, Any]) -> Test:
    """A test that one fact is among the choices, or beyond a limit."""
    name = part["fact"]
    if "one_of" in part:
        choices = frozenset(part["one_of"])

        def is_chosen(_: Findings, facts: Facts) -> bool | None:
            value = facts[name]
            return None if value is None else value in choices

        return is_chosen
    below, above = part.get("below", -math.inf), part.get("above", math.inf)
    from_limit = part.get("at_least", math.inf)

    def is_beyond(_: Findings, facts: Facts) -> bool | None:
        value = facts[name]
        return None if value is None else value < below or value > above or value >= from_limit

    return is_beyond


def _some_of(needed: int, nodes: list[Node]) -> Node:
    tests = tuple(node.test for node in nodes)

    def test(findings: Findings, facts: Facts) -> bool | None:
        return at_least(needed, [inner(findings, facts) for inner in tests])

    return Node(test, tuple(leaf for node in nodes for leaf in node.leaves), needed, tuple(nodes))


def _all_of(nodes: list[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else _some_of(len(nodes), nodes)


def _age_limits(limits: Mapping[str, float]) -> tuple[float, float]:
    """The ages that a sign covers, in years: from the first, below the second."""
    per_year = {"days": _DAYS_PER_YEAR, "months": _MONTHS_PER_YEAR, "years": 1}
    from_years, below_years = 0.0, math.inf
    for key, limit in limits.items():
        bound, unit = key.split("_")
        years = limit / per_year[unit]
        if bound == "below":
            below_years = years
        else:
            from_years = math.nextafter(years, math.inf) if bound == "over" else years
    return from_years, below_years


class News2Table:
    """The NEWS2 chart: points of each vital, and the rules on their total."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = table
        self._from_age_years = table["from_age_years"]
        self._pregnancy = [_finding_test(code) for code in table["pregnancy_findings"]]
        self._points = {name: _points(part) for name, part in table["vital"].items()}
        self._most = {name: max(map(points, _WORST_VALUES[name])) for name, points in self._points.items()}
        scale_2 = table["spo2_scale_2"]
        self._on_air = _points({"low": scale_2["low"]})
        self._on_oxygen = _points(scale_2)
        self._total_rules = [row for row in table["rule"] if "total_at_least" in row]
        self._single_rules = [row for row in table["rule"] if "single_at_least" in row]

    def applies(self, findings: Findings, facts: Facts) -> bool:
        """Whether the patient may be in the score's population: not surely a child, not surely pregnant."""
        age, pregnant = facts["age_years"], facts["pregnant"]
        if pregnant is None:
            pregnant = at_least(1, [test(findings, facts) for test in self._pregnancy])
        return not pregnant and (age is None or age >= self._from_age_years)

    def assess(self, facts: Facts, *, scale_2: bool) -> tuple[News2, list[FiredRule]]:
        """The bounds of the total, and the rules that its lower bound fires."""
        bounds = self._bounds(facts, scale_2)
        lower = sum(low for low, _ in bounds.values())
        upper = sum(high for _, high in bounds.values())
        points = {name: low if low == high else None for name, (low, high) in bounds.items()}
        news2 = News2(lower, upper, points, 2 if scale_2 else 1)
        fired = []
        for row in self._true_rules(bounds):
            worth = row.get("single_at_least", 1)
            because = [_reason(name, facts) for name, (low, _) in bounds.items() if low >= worth]
            if "total_at_least" in row:
                because.insert(0, f"NEWS2 {lower}" if lower == upper else f"NEWS2 {lower} to {upper}")
            fired.append(_fired(row, "NEWS2", tuple(because)))
        return news2, fired

    def reach(self, vital: str, level: int, facts: Facts, *, scale_2: bool) -> int:
        """The level, or the more urgent one that the score gives when `vital` takes its worst value."""
        if vital not in self._most or level == _MOST_URGENT:
            return level
        bounds = self._bounds({**facts, "on_oxygen": True} if vital == "on_oxygen" else facts, scale_2)
        bounds[vital] = (self._most[vital], self._most[vital])
        levels: list[int] = [row["level"] for row in self._true_rules(bounds)]
        return min([level, *levels])

    def _bounds(self, facts: Facts, scale_2: bool) -> dict[str, tuple[int, int]]:
        """The least and most points that each vital may have."""
        bounds = {}
        for name, points in self._points.items():
            value = facts[name]
            if value is None:
                bounds[name] = (0, self._most[name])
            else:
                known = points(value)
                bounds[name] = (known, known)
        if scale_2 and facts["spo2_percent"] is not None:
            on_air, on_oxygen = self._on_air(facts["spo2_percent"]), self._on_oxygen(facts["spo2_percent"])
            oxygen = facts["on_oxygen"]
            bounds["spo2_percent"] = (
                on_oxygen if oxygen else on_air,
                on_air if oxygen is False else on_oxygen,
            )
        return bounds

    def _true_rules(self, bounds: Mapping[str, tuple[int, int]]) -> list[Mapping[str, Any]]:
        """The first rule on the total that is surely true, and the rules on single vitals."""
        lows = [low for low, _ in bounds.values()]
        total, single = sum(lows), max(lows)
        true = [row for row in self._total_rules if total >= row["total_at_least"]][:1]
        return true + [row for row in self._single_rules if single >= row["single_at_least"]]


def _points(part: Mapping[str, Any]) -> Callable[[Any], int]:
    """The points of one vital: by choice, or by the first limit that the value is beyond."""
    if "choices" in part:
        choices: dict[Any, int] = {{"no": False, "yes": True}.get(key, key): value for key, value in part["choices"].items()}
        return choices.__getitem__
    low: list[tuple[float, int]] = [(row["below"], row["points"]) for row in part.get("low", ())]
    high: list[tuple[float, int]] = [(row["above"], row["points"]) for row in part.get("high", ())]

    def points(value: float) -> int:
        for below, worth in low:
            if value < below:
                return worth
        for above, worth in high:
            if value > above:
                return worth
        return 0

    return points


def _fired(row: Mapping[str, Any], table: str, because: tuple[str, ...]) -> FiredRule:
    return FiredRule(row["id"], table, row["level"], row["text_en"], row["text_ur"], because)


class RuleTables(NamedTuple):
    """Both tables, and the version that every assessment carries."""

    iitt: IittTable
    news2: News2Table
    version: str


@lru_cache(maxsize=1)
def rule_texts() -> Mapping[str, str]:
    """Every rule's text in Urdu by its text in English: what pages need, since an assessment's red flags are English."""
    folder = resources.files("inference")
    found: dict[str, str] = {}
    for name in ("news2.toml", "iitt.toml"):
        _collect_texts(tomllib.loads((folder / name).read_text(encoding="utf-8")), found)
    return found


def _collect_texts(part: Any, found: dict[str, str]) -> None:
    if isinstance(part, Mapping):
        if "text_en" in part and "text_ur" in part:
            found[part["text_en"]] = part["text_ur"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            _collect_texts(one, found)


@lru_cache(maxsize=1)
def rule_tables() -> RuleTables:
    """Both tables, read and compiled on first use."""
    folder = resources.files("inference")
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("news2.toml", "iitt.toml")]
    news2, iitt = (tomllib.loads(text) for text in texts)
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    version = f"NEWS2 {news2['version']}, IITT {iitt['version']}, tables {digest}"
    return RuleTables(IittTable(iitt), News2Table(news2), version)
