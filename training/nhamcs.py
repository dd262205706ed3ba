"""Reads NHAMCS-ED public-use visits into rows of the acuity model's features.

Negative numbers are missing; the temperature is in tenths of a degree Fahrenheit; ages are whole years. Knows no model.
"""

from __future__ import annotations

import math
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference.acuity import CONSCIOUSNESS, AcuityEncoder
from inference.case import Consciousness, Sex, Vitals
from inference.errors import DataError

FILE = Path("nhamcs_ed/visits.csv.gz")
GROUPS = Path("data/catalogue/complaint_groups.toml")
COLUMNS = "YEAR AGE SEX ARREMS TEMPF PULSE BPSYS BPDIAS RESPR POPCT RFV1 NOCHRON TOTCHRON CRITICAL_CARE".split()
_SEXES: Mapping[int, Sex] = {1: "female", 2: "male"}
_VITALS = {
    "PULSE": "pulse_per_minute",
    "BPSYS": "systolic_mmhg",
    "BPDIAS": "diastolic_mmhg",
    "RESPR": "respiratory_rate_per_minute",
    "POPCT": "spo2_percent",
    "TEMPF": "temperature_celsius",
}
_SMALL_CHILD_YEARS = 3  # below, the usual pulse changes within a year: half of it has passed on average
# What a living patient can show: outside lie the file's marks (998: felt or heard, not counted) and typing errors.
_POSSIBLE = {"PULSE": (1, 330), "BPSYS": (30, 320), "BPDIAS": (10, 220), "RESPR": (1, 120), "POPCT": (30, 100), "TEMPF": (24, 45)}

_MEASURED = frozenset(_VITALS.values())
_LOSS_BANDS_YEARS = (1, 5, 12, 16, 40, 65)  # who is measured changes with age: an infant's blood pressure seldom is

Ranges = tuple[tuple[int, int], ...]
Stratum = tuple[bool | None, int]  # arrival by ambulance and the age band's number


@dataclass(frozen=True, slots=True)
class ComplaintGroups:
    """Code ranges by complaint group and by level of consciousness, codes as integers in tenths (1050.1 is 10501)."""

    groups: Mapping[str, Ranges]
    consciousness: Mapping[Consciousness, Ranges]

    def of(self, code: int) -> tuple[str, ...]:
        """The groups that a code belongs to."""
        return tuple(group for group, ranges in self.groups.items() if _is_in(code, ranges))

    def level(self, code: int) -> Consciousness | None:
        """The level of consciousness that a code states, if any."""
        return next((level for level, ranges in self.consciousness.items() if _is_in(code, ranges)), None)


@dataclass(frozen=True)
class Visit:
    """One visit, with units; None is missing."""

    age_years: float
    sex: Sex
    by_ambulance: bool | None
    chronic: int | None
    vitals: Vitals
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Visits:
    """Visits with their year and outcome: `is_critical` [n] is 1 for an admission to critical care."""

    visits: tuple[Visit, ...]
    year: NDArray[np.int64]
    is_critical: NDArray[np.int64]

    def of_years(self, first: int, last: int) -> Visits:
        """The visits of the years from `first` to `last`."""
        chosen = np.flatnonzero((self.year >= first) & (self.year <= last))
        return self.take(chosen)

    def take(self, chosen: NDArray[np.int64]) -> Visits:
        """The visits at these places."""
        return Visits(tuple(self.visits[index] for index in chosen), self.year[chosen], self.is_critical[chosen])


def load_groups(path: Path = GROUPS) -> ComplaintGroups:
    """Read the code ranges. Raises DataError when the file cannot be read or a code is not one."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return ComplaintGroups(
            {group: tuple(map(_range, codes)) for group, codes in tables["reason_for_visit"].items()},
            {level: tuple(map(_range, tables["consciousness"].get(level, ()))) for level in CONSCIOUSNESS},
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise DataError(f"{path} does not give code ranges by complaint group: {error}") from error


def read_visits(path: Path, groups: ComplaintGroups) -> Visits:
    """Read a CSV of visits. Raises DataError naming the columns that are missing."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a CSV of NHAMCS visits: {error}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}: expected the NHAMCS-ED public-use columns")
    measured = _measured(table)
    of_code = {code: (groups.of(code), groups.level(code)) for code in table["RFV1"].astype(int).unique()}
    visits = []
    for age, sex, arrived, chronic, code, *values in zip(
        *(table[name].tolist() for name in ("AGE", "SEX", "ARREMS", "TOTCHRON", "RFV1")),
        *(measured[name].tolist() for name in _VITALS),
        strict=True,
    ):
        named, level = of_code[int(code)]
        known = {vital: value for vital, value in zip(_VITALS.values(), values, strict=True) if not math.isnan(value)}
        vitals = Vitals.model_construct(None, consciousness=level, **known)
        ambulance = None if arrived < 0 else arrived == 1
        years = age + 0.5 if age < _SMALL_CHILD_YEARS else age
        visits.append(Visit(years, _SEXES.get(sex, "unknown"), ambulance, None if chronic < 0 else int(chronic), vitals, named))
    return Visits(tuple(visits), table["YEAR"].to_numpy(np.int64), table["CRITICAL_CARE"].to_numpy(np.int64))


def encode(visits: Visits, encoder: AcuityEncoder) -> NDArray[np.float32]:
    """Rows [n, features]; a group that the encoder does not know is left out."""
    known = frozenset(encoder.groups)
    rows = [
        encoder.row(
            visit.age_years, visit.sex, visit.by_ambulance, visit.chronic or 0, visit.chronic is not None,
            visit.vitals, [group for group in visit.groups if group in known],
        )
        for visit in visits.visits
    ]  # fmt: skip
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(encoder.names))


def encode_with_loss(visits: Visits, encoder: AcuityEncoder, random: np.random.Generator) -> NDArray[np.float32]:
    """Rows as a telemedicine case might bring them: vitals, arrival, chronic conditions and complaint lost at random.

    Half of the visits lose what another visit of the same arrival and age was not measured for: vitals go missing together, and
    by whom. The others lose a random share of their own. Of a visit's chronic conditions each is known with probability one
    half and that all were asked is not known.
    """
    known = frozenset(encoder.groups)
    donors = missing_vitals(visits)
    rows = []
    for visit in visits.visits:
        masks = donors[_stratum(visit)]
        if random.random() < 0.5:
            lost = masks[random.integers(len(masks))]
            kept = {name: value for name, value in _known(visit).items() if name not in lost}
        else:
            share = random.random()
            kept = {name: value for name, value in _known(visit).items() if random.random() >= share}
        chronic = int(random.binomial(visit.chronic or 0, 0.5)) if random.random() < 0.5 else 0
        named = [group for group in visit.groups if group in known] if random.random() < 0.9 else []
        arrived = visit.by_ambulance if random.random() < 0.2 else None
        age = visit.age_years if random.random() < 0.95 else None
        rows.append(encoder.row(age, visit.sex, arrived, chronic, False, Vitals.model_construct(None, **kept), named))
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(encoder.names))


def missing_vitals(visits: Visits) -> dict[Stratum, list[frozenset[str]]]:
    """Of every visit the vitals that were not measured, by arrival and age band."""
    found: dict[Stratum, list[frozenset[str]]] = {}
    for visit in visits.visits:
        found.setdefault(_stratum(visit), []).append(_MEASURED.difference(_known(visit)))
    return found


def _stratum(visit: Visit) -> Stratum:
    return visit.by_ambulance, bisect_right(_LOSS_BANDS_YEARS, visit.age_years)


def _known(visit: Visit) -> dict[str, Any]:
    return {name: value for name, value in visit.vitals.__dict__.items() if value is not None}


def _measured(table: pd.DataFrame) -> pd.DataFrame:
    """The vitals in the project's units, NaN where missing or impossible."""
    vitals: dict[str, Any] = {name: table[name].astype(float) for name in _VITALS}
    vitals["TEMPF"] = ((vitals["TEMPF"] / 10 - 32) / 1.8).round(1)
    return pd.DataFrame({name: values.where(values.between(*_POSSIBLE[name])) for name, values in vitals.items()})


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return _tenths(first), _tenths(last or first)


def _tenths(code: str) -> int:
    whole, point, tenth = code.partition(".")
    if not (point and len(whole) == 4 and len(tenth) == 1):
        raise ValueError(f"{code!r} is not a code such as 1050.1")
    return 10 * int(whole) + int(tenth)


def _is_in(code: int, ranges: Ranges) -> bool:
    return any(first <= code <= last for first, last in ranges)
