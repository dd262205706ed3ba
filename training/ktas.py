"""Reads KTAS visits (Moon et al. 2019) as cases with the experts' level.

What came after triage (`Error_group`, `mistriage`, `Disposition`, diagnosis, lengths of stay) and the nurse's own level
are never read. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from inference.case import Arrival, Case, CaseReading, Consciousness, Sex, read_case
from inference.errors import DataError

FILE = Path("ktas/data.csv")
LAST_EMERGENCY_LEVEL = 3  # KTAS 1 to 3 are emergencies, and so are our levels 1 to 3
_SEXES: Mapping[str, Sex] = {"1": "female", "2": "male"}
_CONSCIOUSNESS: Mapping[str, Consciousness] = {"1": "A", "2": "V", "3": "P", "4": "U"}
# 1 on foot, 2 public ambulance, 3 private vehicle, 4 private ambulance, 5 to 7 other
_ARRIVALS: Mapping[str, Arrival] = {"2": "ambulance", "4": "ambulance", "1": "other", "3": "other"}
_VITALS = {
    "SBP": "systolic_mmhg",
    "DBP": "diastolic_mmhg",
    "HR": "pulse_per_minute",
    "RR": "respiratory_rate_per_minute",
    "BT": "temperature_celsius",
    "Saturation": "spo2_percent",
}
COLUMNS = ("Sex", "Age", "Arrival mode", "Chief_complain", "Mental", *_VITALS, "KTAS_expert")


def ktas_cases(path: Path) -> list[tuple[Case, int]]:
    """Every visit as a case, with the experts' level 1-5. An impossible or unreadable measurement is left out.

    Raises DataError naming the columns that are missing, or the visits whose level is not 1 to 5.
    """
    try:
        table = pd.read_csv(path, sep=";", encoding="latin-1", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as the semicolon-separated file of KTAS visits: {error}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}: expected the file published with Moon et al. 2019")
    levels = [text.strip() for text in table["KTAS_expert"]]
    if odd := [f"ktas-{row + 1}" for row, level in enumerate(levels) if level not in {"1", "2", "3", "4", "5"}]:
        raise DataError(f"{path}: KTAS_expert is not 1 to 5 for {', '.join(odd)}")
    rows: list[dict[str, str]] = [dict(zip(table.columns, values, strict=True)) for values in table.itertuples(index=False, name=None)]
    return [(_case(row, f"ktas-{n}").case, int(level)) for n, (row, level) in enumerate(zip(rows, levels, strict=True), start=1)]


def is_emergency(level: int) -> bool:
    """Whether an expert's level calls for care now: 1 resuscitation, 2 emergency, 3 urgent."""
    return level <= LAST_EMERGENCY_LEVEL


def _case(row: Mapping[str, str], case_id: str) -> CaseReading:
    vitals: dict[str, object] = {name: value for column, name in _VITALS.items() if (value := _number(row[column])) is not None}
    if (pain := _pain(row)) is not None:
        vitals["pain_score"] = pain
    if level := _CONSCIOUSNESS.get(row["Mental"].strip()):
        vitals["consciousness"] = level
    raw = {
        "case_id": case_id,
        "age_years": _number(row["Age"]),
        "sex": _SEXES.get(row["Sex"].strip(), "unknown"),
        "arrival": _ARRIVALS.get(row["Arrival mode"].strip()),
        "complaint": row["Chief_complain"].strip(),
        "vitals": vitals,
    }
    return read_case(raw, case_id)


def _pain(row: Mapping[str, str]) -> float | None:
    """The numeric rating; 0 where the nurse wrote that there was no pain. A file without the two columns tells nothing of pain."""
    rating = _number(row.get("NRS_pain", ""))
    return 0.0 if rating is None and row.get("Pain", "").strip() == "0" else rating


def _number(text: str) -> float | None:
    """A number written with a point or a comma; None for a blank or any of the file's marks for "missing"."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
