"""The findings of many cases at once: answers by finding, and the rows of evidence that the symptom model scores.

The same merging as `FindingsReader.read_case` and the same slots as `EvidenceEncoder.encode`, for cases without a complaint's words.
Knows no probabilities and no rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import ABSENT, PRESENT, Case
from inference.columns import Bools, CaseColumns, Ints, coded, is_text
from inference.parquet import FINDINGS_ABSENT, FINDINGS_PRESENT, FINDINGS_VALUES, parquet_library
from inference.symptoms import SymptomModel

Answers = NDArray[np.int8]


@dataclass(frozen=True)
class Answered:
    """`merged` and `stated` as in `inference.symptoms.Read`, [findings, n]: +1 there, -1 absent, 0 unknown.

    `rows` and `slots` say which rows chose which slots of findings that have values. `is_given`: the form says something.
    `is_measured`: a measurement says something that the form does not, so that the two differ.
    """

    merged: Answers
    stated: Answers
    is_given: Bools
    is_measured: Bools
    rows: Ints
    slots: Ints


class FindingColumns:
    """Reads the lists of findings with one symptom model's vocabulary. `place_of` has each finding's row in the arrays."""

    def __init__(self, model: SymptomModel, more: Iterable[str] = ()) -> None:
        """`more` are codes that rules or the acuity model know; a form cannot give them unless the symptom model does too."""
        slots, parents = model.encoder.slots, model.parents
        self._measured = model.vocabulary["lexicon"].get("measured", [])
        self._pregnancy = model.pregnancy_code
        codes = [slot.code for slot in slots] + [rule["finding"] for rule in self._measured] + [*parents, *parents.values(), *more]
        if self._pregnancy:
            codes.append(self._pregnancy)
        self.place_of = {code: place for place, code in enumerate(dict.fromkeys(codes))}
        self._known = model.encoder.codes
        self._slot_of = {(slot.code, slot.value): place for place, slot in enumerate(slots)}
        # Every link from a child to its parent, the deepest first, so that one walk carries an answer to the top.
        depths = {child: _depth(child, parents) for child in parents}
        links = sorted(parents.items(), key=lambda link: -depths[link[0]])
        self._links = [(self.place_of[child], self.place_of[parent]) for child, parent in links]
        nowhere = len(self.place_of)  # the row of zeros behind the findings: slots of values are filled by what was chosen
        self._finding_of_slot = np.array([nowhere if slot.value else self.place_of[slot.code] for slot in slots])
        self._owner = np.array([self.place_of[slot.code] for slot in slots])
        self._measured_places = sorted({self.place_of[rule["finding"]] for rule in self._measured})

    def read(self, columns: CaseColumns) -> Answered:
        """The answers of all rows. Rows with anything but plain, known and single answers lose their `plain`."""
        given, rows, slots = self._given(columns)
        merged = given.copy()
        self._add_measured(merged, columns)
        above = np.zeros((len(merged), columns.n), dtype=bool)
        for child, parent in self._links:
            above[parent] |= above[child] | (merged[child] > 0)
        for parent in {parent for _, parent in self._links}:
            merged[parent][above[parent] & (given[parent] == 0)] = 1
        if self._pregnancy:
            place, pregnant = self.place_of[self._pregnancy], columns.facts["pregnant"]
            unsaid = merged[place] == 0
            merged[place][unsaid & (pregnant == 1)] = 1
            merged[place][unsaid & (pregnant == 0)] = -1
        stated = merged.copy()
        for place in self._measured_places:
            stated[place][given[place] == 0] = 0
        is_measured = (stated[self._measured_places] != merged[self._measured_places]).any(axis=0)
        return Answered(merged, stated, (given != 0).any(axis=0), is_measured, rows, slots)

    def evidence(self, answers: Answers, answered: Answered) -> Answers:
        """The model's rows, [n, slots], of one of the tables of answers; what lies under an absent finding was never asked."""
        unasked = np.zeros(answers.shape, dtype=bool)
        for child, parent in reversed(self._links):  # from the top down
            unasked[child] = unasked[parent] | (answers[parent] < 0)
        asked = np.zeros((answers.shape[1], len(answers) + 1), dtype=np.int8)
        asked[:, :-1] = np.where(unasked, 0, answers).T
        evidence = asked[:, self._finding_of_slot]
        kept = ~unasked[self._owner[answered.slots], answered.rows]
        rows, slots = answered.rows[kept], answered.slots[kept]
        for owner in np.unique(self._owner[slots]):
            chosen = np.unique(rows[self._owner[slots] == owner])
            evidence[np.ix_(chosen, np.flatnonzero(self._owner == owner))] = -1
        evidence[rows, slots] = 1
        return evidence

    def _given(self, columns: CaseColumns) -> tuple[Answers, Ints, Ints]:
        """What the form says, and what it chose."""
        given = np.zeros((len(self.place_of), columns.n), dtype=np.int8)
        for name, answer in ((FINDINGS_PRESENT, 1), (FINDINGS_ABSENT, -1)):
            rows, places = self._listed(columns, name, self._place)
            columns.plain[rows[given[places, rows] == -answer]] = False
            given[places, rows] = answer
        rows, entries = self._listed(columns, FINDINGS_VALUES, self._value)
        if not len(rows):
            return given, rows, rows
        places, slots = np.divmod(entries, len(self._owner))
        columns.plain[rows[given[places, rows] != 0]] = False
        given[places, rows] = 1
        return given, rows, slots

    def _listed(self, columns: CaseColumns, name: str, meaning: Any) -> tuple[Ints, Ints]:
        """Row and meaning of every entry of a column of lists; a row with an entry of no meaning is not plain."""
        library = parquet_library()
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        column = columns.lists.get(name)
        if column is None:
            return nothing
        kind = column.type
        if not (library.types.is_list(kind) or library.types.is_large_list(kind)) or not is_text(kind.value_type):
            columns.plain &= ~column.is_valid().to_numpy(zero_copy_only=False)
            return nothing
        lengths = library.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        codes, texts = coded(column.flatten())
        rows = np.repeat(np.arange(columns.n), lengths)
        meanings = np.array([*(-1 if text is None else meaning(text) for text in texts), -1], dtype=np.int64)[codes]
        is_known = meanings >= 0
        columns.plain[rows[~is_known]] = False
        return rows[is_known], meanings[is_known]

    def _place(self, code: str) -> int:
        return self.place_of[code] if code in self._known else -1

    def _value(self, told: str) -> int:
        """An entry `code=value` as place and slot in one number; -1 for what has no slot, or is read as another answer."""
        code, _, value = told.partition("=")
        slot = self._slot_of.get((code, value)) if value not in ("", PRESENT, ABSENT) else None
        if slot is None or Case(case_id="any", findings={code: value}).findings != {code: value}:
            return -1
        return self.place_of[code] * len(self._owner) + slot

    def _add_measured(self, merged: Answers, columns: CaseColumns) -> None:
        for rule in self._measured:
            values, answers = columns.facts[rule["vital"]], merged[self.place_of[rule["finding"]]]
            there = (values >= rule.get("at_least", np.inf)) | (values <= rule.get("at_most", -np.inf))
            absent = (values < rule.get("absent_below", -np.inf)) | (values > rule.get("absent_above", np.inf))
            unsaid = answers == 0
            answers[unsaid & there] = 1
            answers[unsaid & absent & ~there] = -1


def _depth(code: str, parents: Any) -> int:
    depth = 0
    while code in parents:
        code, depth = parents[code], depth + 1
    return depth
