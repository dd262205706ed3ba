"""The rule floor of many cases at once, from the same compiled tables as `inference.rules`.

A rule counts only where it is surely true, and no test in the tables negates another: an unknown answer can therefore stand as "no",
and arrays of booleans are enough. Knows no model; what is unknown and could change the level it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.acuity import CONSCIOUSNESS
from inference.rule_tables import Node, RuleTables, SignTable
from inference.rules import NO_RULE_LEVEL

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_WORDS: Mapping[Any, float] = {**CONSCIOUSNESS, "no": 0.0, "yes": 1.0}


@dataclass(frozen=True)
class Rule:
    """A rule as its row in a table says."""

    id: str
    level: int
    text_en: str


@dataclass(frozen=True)
class Floors:
    """The least urgent level that the rules allow each case, [n], and which rules fired, [rules, n], in the order of reasons."""

    level: NDArray[np.int64]
    fired: Bools


class FloorColumns:
    """Both tables for columns of cases. `rules` are in the order in which a case's reasons stand: most urgent first."""

    def __init__(self, tables: RuleTables, place_of: Mapping[str, int]) -> None:
        """`place_of` has the row of each finding in the arrays of answers; a finding that is not in it is never there."""
        self._tables, self._place_of = tables, place_of
        signs = {sign.place: sign for table in (tables.iitt.adult, tables.iitt.child, tables.iitt.unknown_age) for sign in table.signs}
        scores = tables.news2.table["rule"]
        totals = [row for row in scores if "total_at_least" in row]
        singles = [row for row in scores if "single_at_least" in row]
        # As `assess_floor` sorts: by level, the signs in their table's order before the scores.
        rows = [(place, sign.row) for place, sign in sorted(signs.items())] + [(-1, row) for row in (*totals, *singles)]
        order = sorted(range(len(rows)), key=lambda index: rows[index][1]["level"])
        self.rules = tuple(Rule(rows[index][1]["id"], rows[index][1]["level"], rows[index][1]["text_en"]) for index in order)
        self._row_of_sign = {rows[index][0]: row for row, index in enumerate(order) if rows[index][0] >= 0}
        first = len(signs)
        self._totals = [(row, order.index(first + place)) for place, row in enumerate(totals)]
        self._singles = [(row, order.index(first + len(totals) + place)) for place, row in enumerate(singles)]
        self._levels = np.array([rule.level for rule in self.rules])

    def assess(self, answers: NDArray[np.int8], facts: Mapping[str, Floats]) -> Floors:
        """The floors. `answers` [findings, n] is +1 for what is there, -1 absent, 0 unknown; `facts` are NaN where unknown."""
        n = answers.shape[1]
        fired = np.zeros((len(self.rules), n), dtype=bool)
        tests = _Tests(self._place_of, answers > 0, facts)
        age = facts["age_years"]
        iitt = self._tables.iitt
        with np.errstate(invalid="ignore"):
            is_adult = age >= iitt.adult_from_years
        for table, whom in (
            (iitt.unknown_age, np.isnan(age)), (iitt.adult, is_adult), (iitt.child, ~np.isnan(age) & ~is_adult),
        ):  # fmt: skip
            if whom.any():
                self._signs(table, whom, tests, age, fired)
        self._score(tests, facts, fired)
        levels = np.where(fired, self._levels[:, None], NO_RULE_LEVEL).min(axis=0)
        return Floors(levels, fired)

    def _signs(self, table: SignTable, whom: Bools, tests: _Tests, age: Floats, fired: Bools) -> None:
        for sign in table.signs:
            holds = tests.of(sign.node)
            if holds.any():
                if sign.has_age:
                    holds = holds & (age >= sign.from_years) & (age < sign.below_years)
                fired[self._row_of_sign[sign.place]] |= holds & whom

    def _score(self, tests: _Tests, facts: Mapping[str, Floats], fired: Bools) -> None:
        """NEWS2: the least total that each patient may have, and the rules that it fires."""
        table = self._tables.news2.table
        said = np.logical_or.reduce([tests.is_there(code) for code in table["pregnancy_findings"]])
        pregnant = np.where(np.isnan(facts["pregnant"]), said, facts["pregnant"] == 1)
        applies = ~pregnant & ~(facts["age_years"] < table["from_age_years"])
        points = {name: _points(part, facts[name]) for name, part in table["vital"].items()}
        # On scale 2 high values count on oxygen only; whether there is oxygen being unknown, the lower points stand.
        on_scale_2 = facts["known_hypercapnic_failure"] == 1
        if on_scale_2.any():
            scale_2, spo2 = table["spo2_scale_2"], facts["spo2_percent"]
            with_oxygen = np.where(facts["on_oxygen"] == 1, _points(scale_2, spo2), _points({"low": scale_2["low"]}, spo2))
            points["spo2_percent"] = np.where(on_scale_2, with_oxygen, points["spo2_percent"])
        total, single = sum(points.values()), np.maximum.reduce(list(points.values()))
        open_to = applies
        for row, place in self._totals:  # the first that holds counts
            fired[place] = open_to & (total >= row["total_at_least"])
            open_to = open_to & ~fired[place]
        for row, place in self._singles:
            fired[place] = applies & (single >= row["single_at_least"])


class _Tests:
    """The tests of one batch; each is asked once."""

    def __init__(self, place_of: Mapping[str, int], is_there: Bools, facts: Mapping[str, Floats]) -> None:
        self._place_of, self._is_there, self._facts = place_of, is_there, facts
        self._known: dict[int, Bools] = {}

    def is_there(self, code: str) -> Bools:
        place = self._place_of.get(code)
        return np.zeros(self._is_there.shape[1], dtype=bool) if place is None else self._is_there[place]

    def of(self, node: Node) -> Bools:
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = self._asked(node)
        return found

    def _asked(self, node: Node) -> Bools:
        if node.parts or not node.leaves:
            return self._some(node.needed, [self.of(part) for part in node.parts])
        leaf = node.leaves[0]
        return self.is_there(leaf.name) if leaf.is_finding else _beyond(node.limits, self._facts[leaf.name])

    def _some(self, needed: int, parts: Sequence[Bools]) -> Bools:
        if needed == 1 and parts:
            return np.logical_or.reduce(parts)
        count = np.zeros(self._is_there.shape[1], dtype=np.int64)
        for part in parts:
            count += part
        return count >= needed


def _beyond(limits: Mapping[str, Any], values: Floats) -> Bools:
    """Whether each value is among the choices or beyond a limit; never where it is not known."""
    if "one_of" in limits:
        return np.isin(values, [_number(choice) for choice in limits["one_of"]])
    found: Bools = (
        (values < limits.get("below", -np.inf)) | (values > limits.get("above", np.inf)) | (values >= limits.get("at_least", np.inf))
    )
    return found


def _points(part: Mapping[str, Any], values: Floats) -> NDArray[np.int64]:
    """The least points of each value, [n]: 0 where it is not known; the first limit that a value is beyond counts."""
    if "choices" in part:
        told = [(values == _number(choice), worth) for choice, worth in part["choices"].items()]
    else:
        told = [(values < row["below"], row["points"]) for row in part.get("low", ())]
        told += [(values > row["above"], row["points"]) for row in part.get("high", ())]
    return np.select([where for where, _ in told], [worth for _, worth in told], 0)


def _number(choice: Any) -> float:
    return _WORDS[choice] if isinstance(choice, str) else float(choice)
