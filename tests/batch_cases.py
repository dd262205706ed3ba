"""Random tables of cases for the tests of batch ranking: plain rows, children, gaps, and rows with something wrong about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from inference.case import Vitals, field_limits
from inference.symptoms import SymptomModel

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NUMBERS = [name for name in Vitals.model_fields if name not in ("on_oxygen", "consciousness", "pain_score")]
USUAL = {"respiratory_rate_per_minute": 18, "spo2_percent": 96, "systolic_mmhg": 120, "diastolic_mmhg": 78, "pulse_per_minute": 84, "temperature_celsius": 37.2, "glucose_mg_dl": 110, "capillary_refill_seconds": 2}  # fmt: skip
COLD = ["F_062", "F_063", "F_064", "F_308"]
TYPES = {
    "case_id": pa.string(), "received_at": pa.timestamp("us", "Asia/Karachi"), "age_years": pa.float64(), "sex": pa.string(),
    "complaint": pa.string(), "pregnant": pa.bool_(), "known_hypercapnic_failure": pa.bool_(), "district": pa.string(),
    "province": pa.string(), "arrival": pa.string(), "priority": pa.string(), "prior_visits": pa.int64(), "photo_path": pa.string(),
    **dict.fromkeys(NUMBERS, pa.float64()), "on_oxygen": pa.bool_(), "consciousness": pa.string(), "pain_score": pa.int64(),
    "findings_present": pa.list_(pa.string()), "findings_absent": pa.list_(pa.string()), "findings_values": pa.list_(pa.string()),
}  # fmt: skip


def random_rows(model: SymptomModel, n: int, seed: int, wrong: float = 0.15) -> list[dict[str, Any]]:
    """`n` rows; a share of `wrong` have one field that cannot be right, or words."""
    random = np.random.default_rng(seed)
    codes = sorted({slot.code for slot in model.encoder.slots})
    valued = sorted({f"{slot.code}={slot.value}" for slot in model.encoder.slots if slot.value})
    rows = [_row(f"r{place}", codes, valued, random) if place % 8 else _well(f"r{place}", random) for place in range(n)]
    for row in rows:
        if random.random() < wrong:
            row.update(_wrong(random))
    for _ in range(n // 50):  # ids that stand there twice
        rows[int(random.integers(n))]["case_id"] = rows[int(random.integers(n))]["case_id"]
    return rows


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as an Arrow table with every column of docs/batch.md."""
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in TYPES.items()})


def _row(case_id: str, codes: list[str], valued: list[str], random: np.random.Generator) -> dict[str, Any]:
    known = random.random()  # from nothing known to everything
    row: dict[str, Any] = {"case_id": case_id}
    maybe = {
        "received_at": NOW - timedelta(minutes=int(random.exponential(20_000)) - 60),
        "age_years": float(random.choice([0.02, 0.5, 1.5, 4, 9, 11.99, 12, 15, 16, 30, 64.5, 70, 90]))
        if random.random() < 0.7
        else float(random.uniform(0, 100)),
        "sex": str(random.choice(["female", "male", "unknown"])),
        "pregnant": bool(random.random() < 0.5),
        "known_hypercapnic_failure": bool(random.random() < 0.5),
        "district": str(random.choice(["Tharparkar", "Lahore", "Nowhere", " swat "])),
        "province": str(random.choice(["sindh", "Punjab", "Khyber Pakhtunkhwa", "elsewhere"])),
        "arrival": str(random.choice(["ambulance", "other"])),
        "priority": str(random.choice(["routine", "urgent", "asap", "stat"])),
        "prior_visits": int(random.integers(5)),
        "on_oxygen": bool(random.random() < 0.3),
        "consciousness": str(random.choice(["A", "A", "A", "C", "V", "P", "U"])),
        "pain_score": int(random.integers(11)),
    }
    rare = {"priority": 0.1, "known_hypercapnic_failure": 0.1, "pregnant": 0.3, "district": 0.4}
    row |= {name: value for name, value in maybe.items() if random.random() < known * rare.get(name, 1.0)}
    for name in NUMBERS:
        if random.random() < known:
            low, high = field_limits(Vitals, name)
            value = USUAL[name] * random.normal(1, 0.12) if random.random() < 0.8 else random.uniform(low, high)
            row[name] = round(float(np.clip(value, low, high)), int(random.integers(3)))
            row[name] = min(max(row[name], low), high)
    said = random.permutation(codes)[: int(random.integers(0, 14) * (random.random() < 0.9))].tolist()
    cut = int(random.integers(0, len(said) + 1))
    row["findings_present"], row["findings_absent"] = said[:cut], said[cut:]
    used = set(said)
    chosen = [one for one in random.permutation(valued)[: int(random.integers(0, 3))].tolist() if one.partition("=")[0] not in used]
    row["findings_values"] = chosen
    return {
        name: value
        for name, value in row.items()
        if value is not None and not (isinstance(value, list) and not value and random.random() < 0.5)
    }


def _well(case_id: str, random: np.random.Generator) -> dict[str, Any]:
    """Somebody young with a cold at most."""
    vitals = {name: round(value * random.normal(1, 0.01), 1) for name, value in USUAL.items()}
    row: dict[str, Any] = {
        "case_id": case_id,
        "age_years": float(random.integers(18, 40)),
        "sex": "male",
        "consciousness": "A",
        "on_oxygen": False,
        **vitals,
    }
    return {
        **row,
        "pain_score": 0,
        "arrival": "other",
        "findings_present": random.permutation(COLD)[: int(random.integers(2, 4))].tolist(),
        "findings_absent": ["F_001", "F_050"],
    }


def _wrong(random: np.random.Generator) -> dict[str, Any]:
    """One thing that `read_case` or the reader of findings would say something about, or that needs reading."""
    return [
        {"case_id": None}, {"case_id": " "}, {"case_id": " spaced"}, {"case_id": "x" * 300}, {"case_id": "مریض-7"}, {"age_years": 300.0},
        {"age_years": float("nan")}, {"sex": "Male"}, {"sex": "F"}, {"spo2_percent": 0.97}, {"pulse_per_minute": float("inf")},
        {"temperature_celsius": 99.4}, {"consciousness": "alert"}, {"pain_score": 11}, {"prior_visits": -1}, {"priority": "high"},
        {"arrival": "bus"}, {"complaint": "seenay mein dard, paseena"}, {"complaint": "xyzzy"}, {"complaint": "   "}, {"complaint": ""},
        {"photo_path": "a.jpg"}, {"findings_present": ["F_012", "F_9999"]}, {"findings_present": ["F_012"], "findings_absent": ["F_012"]},
        {"findings_present": ["F_012", None]}, {"findings_values": ["F_012=yes"]}, {"findings_values": ["F_101=nowhere"]},
        {"findings_values": ["F_101"]}, {"findings_values": ["F_101=no"]}, {"findings_present": ["F_012", "F_012"]},
        {"findings_present": [" F_012"]}, {"findings_present": ["F_012=present"]}, {"findings_values": ["F_012=present"]},
    ][int(random.integers(33))]  # fmt: skip
