"""A batch of cases as arrays: one column of numbers a field, checked as `read_case` checks a field.

A row that `read_case` would say anything about, or that has a complaint or a photo, is not `plain`: its numbers are not to be used,
and it goes the way of single cases. Knows no model and no rule; pyarrow's arrays come in, numpy's go out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from inference.acuity import CONSCIOUSNESS
from inference.case import Arrival, Case, Priority, Vitals, field_limits
from inference.evidence import SEXES
from inference.parquet import EARLIEST, FINDING_COLUMNS, LATEST, parquet_library

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_LONGEST_ID = 200
_PLAIN_ID = r"^[!-~]([ -~]*[!-~])?$"  # nothing that is stripped or cannot be printed
_LARGEST_INTEGER = 1e15
UNKNOWN_SEX = float(SEXES.index("unknown"))
PRIORITIES: tuple[str, ...] = get_args(Priority)
ARRIVALS: tuple[str, ...] = get_args(Arrival)
_CHOICES: Mapping[str, Mapping[str, float]] = {
    "sex": {name: float(place) for place, name in enumerate(SEXES)},
    "consciousness": {name: float(place) for name, place in CONSCIOUSNESS.items()},
    "priority": {name: float(place) for place, name in enumerate(PRIORITIES)},
    "arrival": {name: float(place) for place, name in enumerate(ARRIVALS)},
}
_BOOLEANS = ("on_oxygen", "pregnant", "known_hypercapnic_failure")
_INTEGERS = ("pain_score", "prior_visits")
_NUMBERS = ("age_years", "prior_visits", *(name for name in Vitals.model_fields if name not in (*_BOOLEANS, *_CHOICES)))
_PLACES = ("province", "district")
_HANDLED = frozenset({"case_id", "received_at", *_CHOICES, *_BOOLEANS, *_NUMBERS, *_PLACES, *FINDING_COLUMNS})


@dataclass
class CaseColumns:
    """`n` cases. `facts` has every number by its field's name, [n], NaN where unknown: vitals, age, and what is chosen by its place.

    Yes is 1 and no is 0; `sex` counts in SEXES, `consciousness` as in CONSCIOUSNESS, `priority` in PRIORITIES, `arrival` in ARRIVALS.
    `received` is in microseconds since 1970 (UTC) where `is_dated`; `month` is that of the time's own zone, from 1.
    `places` has each row's place among `place_names`, pairs of province and district.
    """

    n: int
    plain: Bools
    case_ids: Any
    facts: dict[str, Floats]
    received: Ints
    is_dated: Bools
    month: Ints
    places: Ints
    place_names: list[tuple[str | None, str | None]]
    lists: dict[str, Any] = field(default_factory=dict)  # the columns of findings, as they came

    @property
    def has_vitals(self) -> Bools:
        """Whether anything was measured, [n]."""
        found: Bools = np.logical_or.reduce([~np.isnan(self.facts[name]) for name in Vitals.model_fields])
        return found


def read_columns(batch: Any) -> CaseColumns:
    """The columns of an Arrow record batch of cases; docs/batch.md names them. Never raises for what is in them."""
    n = len(batch)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    plain = np.ones(n, dtype=bool)
    case_ids = _case_ids(columns.get("case_id"), n, plain)
    facts = {name: _number(columns.get(name), name, n, plain) for name in _NUMBERS}
    facts |= {name: _choice(columns.get(name), _CHOICES[name], n, plain) for name in _CHOICES}
    facts |= {name: _boolean(columns.get(name), n, plain) for name in _BOOLEANS}
    facts["sex"] = np.where(np.isnan(facts["sex"]), UNKNOWN_SEX, facts["sex"])
    received, is_dated, month = _times(columns.get("received_at"), n, plain)
    places, place_names = _places(columns, n, plain)
    for name, column in columns.items():
        if name == "complaint" and is_text(column.type):
            plain &= ~_filled(parquet_library().compute.not_equal(_texts(column), ""))
        elif name not in _HANDLED:
            plain &= ~_known(column)
    lists = {name: columns[name] for name in FINDING_COLUMNS if name in columns}
    return CaseColumns(n, plain, case_ids, facts, received, is_dated, month, places, place_names, lists)


def _case_ids(column: Any, n: int, plain: Bools) -> Any:
    """The ids as text; null where there is none that could be used as it stands."""
    library = parquet_library()
    if column is not None and library.types.is_integer(column.type):
        plain &= _known(column) & (np.abs(_filled(column.cast(library.float64()))) < _LARGEST_INTEGER)
        return column.cast(library.string())
    if column is None or not is_text(column.type):
        plain &= False
        return library.nulls(n, library.string())
    texts = _texts(column)
    compute = library.compute
    plain &= _filled(compute.match_substring_regex(texts, _PLAIN_ID)) & _filled(
        compute.less_equal(compute.binary_length(texts), _LONGEST_ID)
    )
    return texts


def _number(column: Any, name: str, n: int, plain: Bools) -> Floats:
    """Numbers within the field's limits; NaN where there is none."""
    types = parquet_library().types
    if column is None or types.is_null(column.type):
        return np.full(n, np.nan)
    if not (types.is_integer(column.type) or types.is_floating(column.type)):
        plain &= ~_known(column)
        return np.full(n, np.nan)
    known = _known(column)
    values = np.where(known, _filled(column.cast(parquet_library().float64(), safe=False)), np.nan)
    low, high = field_limits(Case if name in Case.model_fields else Vitals, name)
    fits = (values >= max(low, -_LARGEST_INTEGER)) & (values <= min(high, _LARGEST_INTEGER))
    if name in _INTEGERS:
        fits &= values == np.floor(values)
    plain &= fits | ~known
    return np.where(fits, values, np.nan)


def _choice(column: Any, choices: Mapping[str, float], n: int, plain: Bools) -> Floats:
    if column is None or parquet_library().types.is_null(column.type):
        return np.full(n, np.nan)
    if not is_text(column.type):
        plain &= ~_known(column)
        return np.full(n, np.nan)
    codes, names = coded(column)
    values = np.array([*(choices.get(name, np.nan) if name is not None else np.nan for name in names), np.nan])[codes]
    plain &= ~(np.isnan(values) & (codes >= 0))
    return values


def _boolean(column: Any, n: int, plain: Bools) -> Floats:
    types = parquet_library().types
    if column is None or types.is_null(column.type):
        return np.full(n, np.nan)
    if not types.is_boolean(column.type):
        plain &= ~_known(column)
        return np.full(n, np.nan)
    return np.where(_known(column), _filled(column).astype(np.float64), np.nan)


def _times(column: Any, n: int, plain: Bools) -> tuple[Ints, Bools, Ints]:
    library = parquet_library()
    nothing = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int64)
    if column is None or library.types.is_null(column.type):
        return nothing
    if not library.types.is_timestamp(column.type):
        plain &= ~_known(column)
        return nothing
    known = _known(column)
    instants = column.cast(library.timestamp("us", column.type.tz), safe=False)
    received = np.where(known, _filled(instants.cast(library.int64())), 0)
    within = (received >= EARLIEST) & (received < LATEST)
    plain &= within | ~known
    kept = library.compute.if_else(library.array(within), instants, library.scalar(None, instants.type))
    return received, known & within, np.where(known & within, _filled(library.compute.month(kept)), 0)


def _places(columns: Mapping[str, Any], n: int, plain: Bools) -> tuple[Ints, list[tuple[str | None, str | None]]]:
    codes: list[Ints] = []
    names: list[list[str | None]] = []
    for name in _PLACES:
        column = columns.get(name)
        if column is None or not is_text(column.type):
            plain &= True if column is None else ~_known(column)
            codes.append(np.full(n, -1, dtype=np.int64))
            names.append([])
        else:
            one, texts = coded(column)
            plain &= ~np.isin(one, [place for place, text in enumerate(texts) if text is None])
            codes.append(one)
            names.append(texts)
    provinces, districts = [[*texts, None] for texts in names]
    pairs, places = np.unique((codes[0] + 1) * (len(districts) + 1) + codes[1] + 1, return_inverse=True)
    told = [divmod(int(pair), len(districts) + 1) for pair in pairs]
    return places.astype(np.int64), [(provinces[one - 1], districts[other - 1]) for one, other in told]


def coded(column: Any) -> tuple[Ints, list[str | None]]:
    """A column of texts as numbers into a list of them; -1 where there is none. Text that is not UTF-8 is None in the list."""
    library = parquet_library()
    if not library.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = np.where(_known(column), _filled(column.indices.cast(library.int64())), -1)
    return codes, [_decoded(one) for one in column.dictionary]


def _decoded(scalar: Any) -> str | None:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return None


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds texts, as they are or as numbers into a dictionary."""
    types = parquet_library().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _texts(column: Any) -> Any:
    types = parquet_library().types
    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _known(column: Any) -> Bools:
    found: Bools = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _filled(column: Any) -> NDArray[Any]:
    """An Arrow array as numpy's, with 0 or False for null."""
    library = parquet_library()
    if column.null_count:
        column = column.fill_null(False if library.types.is_boolean(column.type) else 0)
    return column.to_numpy(zero_copy_only=False)
