"""Reads which cases turned out to be emergencies: a CSV, JSON or JSON Lines file with a case_id and an outcome.

`emergency` is yes or no; `final_level` is the level that a clinician ended with, and 1 to 3 is an emergency. Other fields, a
whole case among them, are passed over, so that labels may stand in the file of cases itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference.errors import CaseError
from inference.monitor_features import OUTCOME_FIELDS

EMERGENCY_LEVEL = 3  # as the acuity model learned it: an expert's level 1, 2 or 3
_YES, _NO = frozenset({"true", "yes", "y", "1", "1.0"}), frozenset({"false", "no", "n", "0", "0.0"})


def read_outcomes(path: Path) -> dict[str, bool]:
    """Whether each case was an emergency, by case_id; cases without an outcome are left out.

    Raises CaseError when the file cannot be read, or when an outcome is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read ({type(error).__name__}): name a CSV, JSON or JSON Lines file in UTF-8") from error
    found: dict[str, bool] = {}
    for record in _records(text, path):
        outcome = _outcome(record, path)
        if outcome is not None:
            found[str(record["case_id"])] = outcome
    return found


def _records(text: str, path: Path) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.casefold()
    try:
        if suffix == ".csv":
            rows: Any = csv.DictReader(text.splitlines())
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()] if suffix in (".jsonl", ".ndjson") else json.loads(text)
    except ValueError as error:
        raise CaseError(
            f"{path} is not valid {suffix.lstrip('.').upper() or 'JSON'}: outcomes are a case_id with one of {_NAMES}"
        ) from error
    for row in [rows] if isinstance(rows, Mapping) else rows:
        if isinstance(row, Mapping) and row.get("case_id") not in (None, ""):
            yield row


_NAMES = " or ".join(OUTCOME_FIELDS)


def _outcome(record: Mapping[str, Any], path: Path) -> bool | None:
    emergency, level = (str(value).strip().casefold() if (value := record.get(name)) is not None else "" for name in OUTCOME_FIELDS)
    if emergency in _YES or emergency in _NO:
        return emergency in _YES
    if not emergency and level in {"1", "2", "3", "4", "5"}:
        return int(level) <= EMERGENCY_LEVEL
    if emergency or level:
        raise CaseError(f"{path}: the outcome of case {record['case_id']} is neither yes or no (emergency) nor 1 to 5 (final_level)")
    return None
