"""Small cells: a place that would leave fewer than k people of an age band and sex is made coarser. Pure.

Age band, sex and place are what a neighbour knows (k-anonymity, Sweeney 2002, on these three). The exact year of age and the
findings stay in the file, so it is pseudonymous, not anonymous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

K = 5
AGE_STARTS_YEARS = (0, 1, 5, 12, 16, 40, 65)
_PLACES = ("district", "province")


@dataclass(frozen=True, slots=True)
class Person:
    """What a neighbour may know of a case; None is not known, or taken away."""

    age_years: float | None
    sex: str
    district: str | None
    province: str | None


@dataclass(frozen=True, slots=True)
class Coarsened:
    """The people as they may be written, and how many lost their district, lost their place, and stay in a small cell all the same."""

    people: tuple[Person, ...]
    without_district: int
    without_place: int
    still_small: int


def age_band(age_years: float | None) -> str:
    """The band that counts for small cells: `16-39`, `65+`, or `unknown`."""
    if age_years is None:
        return "unknown"
    place = sum(start <= age_years for start in AGE_STARTS_YEARS) - 1
    start = AGE_STARTS_YEARS[place]
    return f"{start}+" if place == len(AGE_STARTS_YEARS) - 1 else f"{start}-{AGE_STARTS_YEARS[place + 1] - 1}"


def coarsened(people: Sequence[Person], k: int = K) -> Coarsened:
    """Take the district, then the province, from whoever shares age band, sex and place with fewer than `k` - 1 others.

    Cells are counted as they will stand in the file: who kept a district is not counted with those who have a province alone.
    Taking a place away may make another cell large enough, and never makes one smaller that is already large enough.
    """
    now = list(people)
    lost = dict.fromkeys(_PLACES, 0)
    for finest in _PLACES:
        cells = Counter(map(_cell, now))
        for index, person in enumerate(now):
            if getattr(person, finest) is not None and cells[_cell(person)] < k:
                is_district = finest == "district"
                now[index] = Person(person.age_years, person.sex, None, person.province if is_district else None)
                lost[finest] += 1
    cells = Counter(map(_cell, now))
    return Coarsened(tuple(now), lost["district"], lost["province"], sum(cells[_cell(person)] < k for person in now))


def _cell(person: Person) -> tuple[str, str, str | None, str | None]:
    return age_band(person.age_years), person.sex, person.district, person.province
