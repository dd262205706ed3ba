"""Every row of own data that is not as its column must be (pandera): what was found, what was expected, what to do.

A report shows ids, numbers and codes, never a patient's words: text that is no code near a known one is shown as its length alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pandera.pandas as pa

from training.own_data import FILE_COLUMN, ROW, OwnData
from training.own_data_rules import CODE, NUMBER, Rule, rules_of

_MARK = re.compile(r"[?*./-]{1,4}")  # what people write for "not known"
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that is not as its column must be; `row` 0 is the file as a whole. `case` is the row's id."""

    file: str
    row: int
    case: str
    column: str
    found: str
    expected: str
    to_do: str

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def schema_problems(data: OwnData) -> list[Problem]:
    """Every problem of every file, by file and row."""
    found = []
    for file, rows in data.table.groupby(FILE_COLUMN, sort=False):
        found += _of_file(data, str(file), rows, rules_of(data.kind, data.folders[str(file)]))
    return sorted(found, key=lambda problem: (problem.file, problem.row, problem.column))


def _of_file(data: OwnData, file: str, rows: pd.DataFrame, rules: Sequence[Rule]) -> list[Problem]:
    required = set(data.kind.reads) - data.kind.optional
    columns: dict[str, list[tuple[str, Rule]]] = {}
    for number, rule in enumerate(rules):
        columns.setdefault(rule.column, []).append((f"rule {number}", rule))
    by_name = {name: rule for of in columns.values() for name, rule in of}
    schema = pa.DataFrameSchema(
        {
            column: pa.Column(checks=[pa.Check(rule.check, name=name) for name, rule in of], required=column in required)
            for column, of in columns.items()
        }
    )
    own = rows.drop(columns=[name for name in rows if name not in columns and (rows[name] == "").all()])
    present = own[[name for name in own if name in columns]]
    try:
        schema.validate(present, lazy=True)
    except pa.errors.SchemaErrors as error:
        identity = rows[data.kind.identity] if data.kind.identity in rows else rows[ROW].map(lambda row: f"row {row}")
        return [_problem(file, rows, identity, failure, by_name) for failure in error.failure_cases.to_dict("records")]
    return []


def _problem(file: str, rows: pd.DataFrame, identity: pd.Series[str], failure: dict[Any, Any], by_name: dict[str, Rule]) -> Problem:
    rule = by_name.get(str(failure["check"]))
    if rule is None:  # the column itself
        column = str(failure["failure_case"])
        return Problem(file, 0, "", column, "no such column", f"a column {column}", "add it, or correct its name in the first line")
    place = failure["index"]
    text = str(rows.loc[place, rule.column])
    return Problem(
        file, int(rows.loc[place, ROW]), str(identity[place])[:_SHOWN], rule.column, _shown(text, rule), rule.expected, rule.to_do
    )


def _shown(text: str, rule: Rule) -> str:
    """What may be shown of a wrong text: nothing that could be a name or a complaint."""
    if not text:
        return "nothing"
    if rule.says is not None:
        return rule.says(text)
    if rule.is_identity or NUMBER.fullmatch(text) or CODE.fullmatch(text) or _MARK.fullmatch(text):
        return text[:_SHOWN]
    near = difflib.get_close_matches(text.casefold(), [code.casefold() for code in rule.codes], 1, 0.6)
    return text[:_SHOWN] if near else f"a text of {len(text)} characters"
