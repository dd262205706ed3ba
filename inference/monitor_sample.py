"""Cases as columns of features: numbers, or places in a list of labels. Knows no feature by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature over cases or photos: numbers (NaN where unknown), or places in `labels` (-1 where it does not apply).

    `rows` says which case each value belongs to.
    """

    values: Array
    rows: Array
    labels: tuple[str, ...] | None = None

    def of_cases(self, chosen: Array) -> Column:
        """The values of some cases; `chosen` [cases] is True for them. Rows are counted anew."""
        kept = chosen[self.rows]
        return Column(self.values[kept], (np.cumsum(chosen) - 1)[self.rows[kept]], self.labels)


@dataclass(frozen=True, slots=True)
class Sample:
    """Cases as columns by feature. `received` [n] is each case's time as a date, NaT where none is known."""

    n: int
    columns: Mapping[str, Column]
    received: Array
    case_ids: tuple[str, ...] = ()

    def of_cases(self, chosen: Array) -> Sample:
        """Some of the cases; `chosen` [n] is True for them."""
        ids = tuple(one for one, is_in in zip(self.case_ids, chosen, strict=True) if is_in) if self.case_ids else ()
        return Sample(int(chosen.sum()), {name: one.of_cases(chosen) for name, one in self.columns.items()}, self.received[chosen], ids)


def counts_of(column: Column, labels: Sequence[str]) -> Array:
    """How many values have each of the labels, [labels]; other labels are left out."""
    own = column.labels or ()
    counts = np.bincount(column.values[column.values >= 0], minlength=len(own)) if len(column.values) else np.zeros(len(own), dtype=int)
    place = {label: int(count) for label, count in zip(own, counts, strict=False)}
    return np.array([place.get(label, 0) for label in labels])
