"""Synthetic cases from the catalogue as a Parquet file for `nabz rank`: coded findings and vitals, no words, drawn as arrays.

The same people as `training.synthetic` draws, in the columns of docs/batch.md; a million of them take a minute. Everything is invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.evidence import SEXES
from training.generator import MISSING_SHARE, Generator, PatientGenerator, Patients, band_of
from training.knowledge import Knowledge
from training.synthetic import ABSOLUTE_VITALS, ADULT_BAND, FIRST_DAY, HEALTHY_VITALS, MISSING_VITAL, SEASON_MONTHS

BLOCK_ROWS = 32_768
ABSENT_TOLD = 0.1  # share of the findings that are not there which a form says so of
_ALTERED, _ALTERED_SHARES = ("C", "V", "P", "U"), (0.4, 0.35, 0.15, 0.1)
_MINUTES = 28 * 24 * 60


def write_table(knowledge: Knowledge, generator: PatientGenerator, n: int, random: Generator, out: Path) -> None:
    """Write `n` cases to `out`, block by block, so that the memory does not grow with them."""
    import pyarrow.parquet as pq

    writer = None
    try:
        for table in draw_tables(knowledge, generator, n, random):
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def draw_tables(knowledge: Knowledge, generator: PatientGenerator, n: int, random: Generator) -> Iterator[Any]:
    """`n` cases as Arrow tables of at most BLOCK_ROWS rows; ids count from `synthetic-1`."""
    import pyarrow as pa

    for start in range(0, n, BLOCK_ROWS):
        patients = generator.draw(min(BLOCK_ROWS, n - start), random)
        columns: dict[str, Any] = {"case_id": [f"synthetic-{start + row + 1}" for row in range(len(patients.condition))]}
        columns["received_at"] = pa.array(_moments(list(knowledge.season), patients.season, random), pa.timestamp("us", "UTC"))
        columns["age_years"] = patients.age_years.round(2)
        columns["sex"] = _words(patients.sex, SEXES)
        columns["province"] = _words(patients.province, list(knowledge.province))
        columns |= _vitals(knowledge, patients, random)
        columns |= _findings(knowledge, generator, patients, random)
        yield pa.table(columns)


def _findings(knowledge: Knowledge, generator: PatientGenerator, patients: Patients, random: Generator) -> dict[str, Any]:
    """The three lists: what is there, what is not, and values as `code=value`."""
    known = generator.mask_missing(patients, MISSING_SHARE, random)
    slots = knowledge.slots
    binary = np.array([not slot.value for slot in slots])
    told = random.random(known.shape, dtype=np.float32) < ABSENT_TOLD
    return {
        "findings_present": _lists((known > 0) & binary, [slot.code for slot in slots]),
        "findings_absent": _lists((known < 0) & binary & told, [slot.code for slot in slots]),
        "findings_values": _lists((known > 0) & ~binary, [f"{slot.code}={slot.value}" for slot in slots]),
    }


def _vitals(knowledge: Knowledge, patients: Patients, random: Generator) -> dict[str, Any]:
    """As `draw_vitals`: healthy means for the age, moved as the condition moves an adult's, with gaps."""
    import pyarrow as pa

    n, band = len(patients.condition), band_of(patients.age_years)
    columns: dict[str, Any] = {}
    for name, (healthy, spread) in HEALTHY_VITALS.items():
        means = np.array(healthy)
        shift = np.array([moved.get(name, means[ADULT_BAND]) - means[ADULT_BAND] for moved in knowledge.vitals])[patients.condition]
        scale = 1.0 if name in ABSOLUTE_VITALS else means[band] / means[ADULT_BAND]
        values = (means[band] + shift * scale + spread * random.standard_normal(n)).round(1 if name == "temperature_celsius" else 0)
        if name == "spo2_percent":
            values = np.minimum(values, 100.0)
        columns[name] = pa.array(values, mask=random.random(n) < MISSING_VITAL)
    altered = np.array([moved.get("altered_consciousness", 0.0) for moved in knowledge.vitals])[patients.condition]
    level = np.where(random.random(n) < altered, 1 + random.choice(len(_ALTERED), n, p=_ALTERED_SHARES), 0)
    columns["consciousness"] = _words(np.where(random.random(n) < MISSING_VITAL, -1, level), ("A", *_ALTERED))
    return columns


def _moments(seasons: list[str], season: NDArray[np.int64], random: Generator) -> NDArray[np.datetime64]:
    """A minute of a month of each patient's season."""
    months = [SEASON_MONTHS[name] for name in seasons]
    table = np.array([[one[place % len(one)] for place in range(6)] for one in months])  # 6: a multiple of every season's months
    month = table[season, random.integers(0, table.shape[1], len(season))]
    first = np.datetime64(FIRST_DAY.strftime("%Y-%m"), "M") + (month - 1)
    moments: NDArray[np.datetime64] = first.astype("datetime64[us]") + (random.integers(0, _MINUTES, len(season)) * 60_000_000).astype(
        "timedelta64[us]"
    )
    return moments


def _words(places: NDArray[np.int64], names: Any) -> Any:
    """Places of names as a dictionary column; -1 is nothing."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int16), mask=places < 0), pa.array(list(names)))


def _lists(mask: NDArray[np.bool_], names: list[str]) -> Any:
    """The names that are true in each row, [n, names], as a column of lists."""
    import pyarrow as pa

    rows, places = np.nonzero(mask)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(mask)))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(names).take(pa.array(places)))
