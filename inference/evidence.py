"""From findings to the symptom model's inputs: one row of slots, a demographic index and a shift of the prior.

One implementation for training and inference. Knows no probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.case import ABSENT, PRESENT, Sex

AGE_BANDS = ("newborn", "infant", "child", "adult", "older")
AGE_BAND_STARTS_YEARS = (0.0, 28 / 365.25, 2.0, 16.0, 65.0)
SEXES: tuple[Sex, ...] = ("female", "male", "unknown")
DEMOGRAPHICS = (len(AGE_BANDS) + 1) * len(SEXES)

# Pakistan's seasons as its meteorological department divides the year; the monsoon is July to September.
_SEASON_OF_MONTH = (
    *("winter", "winter", "spring", "spring", "summer", "summer"),
    *("monsoon", "monsoon", "monsoon", "autumn", "autumn", "winter"),
)

FindingMap = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One input of the model: a binary finding (value '') or one value of a categorical or multi-valued one."""

    code: str
    value: str


class EvidenceEncoder:
    """Encodes findings into slots: +1 present or chosen, -1 absent or not chosen, 0 unknown."""

    def __init__(self, slots: Sequence[Slot], parents: Mapping[str, str]) -> None:
        """`slots` in the order of the model's input; `parents` maps a finding's code to its parent's."""
        self.slots = tuple(slots)
        self._places: dict[str, dict[str, int]] = {}
        for place, slot in enumerate(self.slots):
            self._places.setdefault(slot.code, {})[slot.value] = place
        self._children: dict[str, list[str]] = {}
        for child, parent in parents.items():
            self._children.setdefault(parent, []).append(child)

    @property
    def codes(self) -> frozenset[str]:
        """The findings that the model knows."""
        return frozenset(self._places)

    def values(self, code: str) -> tuple[str, ...]:
        """What a finding may be answered: present and absent, or its values, in the order of the slots."""
        values = tuple(self._places[code])
        return (PRESENT, ABSENT) if "" in values else values

    def answered(self, row: NDArray[np.float32], code: str, value: str) -> NDArray[np.float32]:
        """A copy of a row in which one finding is answered with one of its `values`; what lies under it is left as it is."""
        row, places = row.copy(), self._places[code]
        if "" in places:
            row[places[""]] = -1.0 if value == ABSENT else 1.0
        else:
            row[list(places.values())] = -1.0
            row[places[value]] = 1.0
        return row

    def encode(self, findings: FindingMap) -> NDArray[np.float32]:
        """One row, [slots]. Codes and values that the model does not know are left out: see `unknown`."""
        row = np.zeros(len(self.slots), dtype=np.float32)
        for code, value in findings.items():
            places = self._places.get(code)
            if places is None:
                continue
            if "" in places:
                row[places[""]] = -1.0 if value == ABSENT else 1.0
            elif value not in (PRESENT, ABSENT):
                chosen = [places[v] for v in ((value,) if isinstance(value, str) else value) if v in places]
                if chosen:
                    row[list(places.values())] = -1.0
                    row[chosen] = 1.0
        for code, value in findings.items():
            if value == ABSENT and code in self._children:
                self._forget_children(code, row)
        return row

    def unknown(self, findings: FindingMap) -> list[str]:
        """The given codes, or values of them, that the model has no input for; a binary finding has no other values."""
        missing = []
        for code, value in findings.items():
            places = self._places.get(code)
            if places is None:
                missing.append(code)
            elif value not in (PRESENT, ABSENT):
                values = (value,) if isinstance(value, str) else value
                missing += [f"{code}={v}" for v in values if v not in places]
        return missing

    def _forget_children(self, code: str, row: NDArray[np.float32]) -> None:
        """A question under an absent finding was never asked: its slots say unknown."""
        for child in self._children.get(code, ()):
            row[list(self._places.get(child, {}).values())] = 0.0
            self._forget_children(child, row)


def demographic_index(age_years: float | None, sex: Sex) -> int:
    """Age band and sex as one index in [0, DEMOGRAPHICS); an unknown age is the last band."""
    band = len(AGE_BANDS)
    if age_years is not None:
        band = sum(age_years >= start for start in AGE_BAND_STARTS_YEARS) - 1
    return band * len(SEXES) + SEXES.index(sex)


def season_of(moment: datetime | None) -> str | None:
    """The season of a date, by month; None when no date is known."""
    return None if moment is None else _SEASON_OF_MONTH[moment.month - 1]


def prior_shift(shifts: Mapping[str, Any], season: str | None, province: str | None) -> NDArray[np.float32]:
    """The log multipliers of the conditions' priors, [conditions], for a season and a province (0 where unknown).

    `shifts` has `season` and `province` tables, each from a name to one log multiplier a condition.
    """
    total = np.zeros(shifts["n"], dtype=np.float32)
    for table, name in (("season", season), ("province", province)):
        if name in shifts[table]:
            total += np.asarray(shifts[table][name], dtype=np.float32)
    return total
