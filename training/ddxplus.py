"""Reads patients in the DDXPlus release format into arrays over a model's slots.

Knows the format only: no network, no metric.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference.case import Sex
from inference.errors import DataError
from inference.evidence import EvidenceEncoder, Slot, demographic_index

COLUMNS = ("AGE", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE")
VALUE_MARK = "_@_"
_SEX_NAMES: dict[str, Sex] = {"F": "female", "M": "male"}


@dataclass(frozen=True)
class PatientTable:
    """N real or generated patients over a model's slots and labels.

    `full` [N, S] has every answer (what a file leaves out is absent), `initial` [N, S] the first complaint alone;
    `differential` [N, C] sums to 1, or to 0 where the file gives none.
    """

    condition: NDArray[np.int64]
    demographics: NDArray[np.int64]
    age_years: NDArray[np.float64]
    sex: tuple[Sex, ...]
    full: NDArray[np.float32]
    initial: NDArray[np.float32]
    differential: NDArray[np.float32]

    def rows(self, chosen: NDArray[np.int64]) -> PatientTable:
        """The patients at the chosen places."""
        arrays = {name: getattr(self, name)[chosen] for name in self.__dataclass_fields__ if name != "sex"}
        return PatientTable(**arrays, sex=tuple(self.sex[place] for place in chosen))


def read_patients(path: Path, slots: Sequence[Slot], labels: Sequence[str], evidences: Mapping[str, Any]) -> PatientTable:
    """Read a DDXPlus patients CSV. Raises DataError naming the missing column, or the row with an unknown name."""
    try:
        table = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}; a DDXPlus patients file has {list(COLUMNS)}")
    if table.empty:
        raise DataError(f"{path} has no patient: expected at least one row")
    parents = {code: e["code_question"] for code, e in evidences.items() if e["code_question"] != code}
    encoder = EvidenceEncoder(slots, parents)
    index = {label: position for position, label in enumerate(labels)}
    unknown = sorted(map(str, set(table["PATHOLOGY"]) - index.keys()))
    if unknown:
        raise DataError(f"{path}: conditions {unknown[:5]} are not among the model's {len(labels)} labels")
    sexes: list[Sex] = [_SEX_NAMES.get(str(sex), "unknown") for sex in table["SEX"]]
    ages = [None if pd.isna(age) else float(age) for age in table["AGE"]]
    listed = [_listed(text, row, path) for row, text in enumerate(table["EVIDENCES"], start=1)]
    return PatientTable(
        condition=np.array([index[name] for name in table["PATHOLOGY"]]),
        demographics=np.array([demographic_index(a, s) for a, s in zip(ages, sexes, strict=True)]),
        age_years=table["AGE"].to_numpy(float),
        sex=tuple(sexes),
        full=np.stack([encoder.encode(_full(answers, evidences, path)) for answers in listed]),
        initial=np.stack([encoder.encode({code: "present"}) for code in table["INITIAL_EVIDENCE"]]),
        differential=_differentials(table, index),
    )


def _listed(text: object, row: int, path: Path) -> list[str]:
    try:
        return list(ast.literal_eval(str(text)))
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(f"{path}, patient {row}: EVIDENCES is not a list of evidence codes") from error


def _full(answers: Sequence[str], evidences: Mapping[str, Any], path: Path) -> dict[str, str | tuple[str, ...]]:
    """All answers of one patient: what is listed, absence of every other question, defaults of asked ones."""
    findings: dict[str, str | tuple[str, ...]] = {}
    for answer in answers:
        code, _, value = answer.partition(VALUE_MARK)
        if code not in evidences:
            raise DataError(f"{path}: evidence {code} is not in the release's evidences")
        findings[code] = (*findings.get(code, ()), value) if value else "present"
    for code, evidence in evidences.items():
        if code in findings:
            continue
        if evidence["data_type"] == "B":
            findings[code] = "absent"
        elif str(evidence["default_value"]):
            findings[code] = str(evidence["default_value"])
    return findings


def _differentials(table: pd.DataFrame, index: Mapping[str, int]) -> NDArray[np.float32]:
    shares = np.zeros((len(table), len(index)), dtype=np.float32)
    if "DIFFERENTIAL_DIAGNOSIS" not in table:
        return shares
    for row, text in enumerate(table["DIFFERENTIAL_DIAGNOSIS"]):
        if isinstance(text, str):
            for name, share in ast.literal_eval(text):
                if name in index:
                    shares[row, index[name]] = share
    totals = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, totals, out=shares, where=totals > 0)
