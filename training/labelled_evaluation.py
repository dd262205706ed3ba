"""Measures an acuity bundle, and the whole triage around it, on labelled cases: missed emergencies first, by whose level it was.

Held-out cases where the file has any. A case that the bundle learned from is scored by a head that was fitted without it.
Levels that nobody gave (`accepted`) are never part of the headline: against them the machine is right by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from inference.acuity import AcuityModel
from inference.bundle import Bundle
from inference.errors import DataError
from inference.models import SERVING_FILE, Models, load_models
from inference.triage import Triage
from training.acuity_evaluation import AGE_BANDS, ece_by_tenths, ktas_probability
from training.catalogue import CATALOGUE
from training.export import file_sha256
from training.ktas import LAST_EMERGENCY_LEVEL
from training.labelled_cases import SOURCES, TRUSTED, LabelledCase, in_split, read_labelled_cases, with_trusted_level
from training.labelled_levels import TITLE, as_visits, cases_file
from training.levels import EMERGENCY, NEVER, Judged, flagged, levels_of
from training.metrics import (
    Interval,
    auc,
    average_precision,
    bootstrap_interval,
    metrics_document,
    wilson_interval,
)

Array = NDArray[Any]
__all__ = ["TITLE", "evaluate", "judged"]
_SMALLEST_SUBGROUP = 20
_REPEATS = 200
NOTE = (
    "Emergencies are cases whose final level is 1-3. The headline counts levels that somebody gave ({headline}); `source accepted` is the "
    "machine's own level that nobody spoke against and says nothing of its errors. Completed referrals only: a selected lot."
)


@dataclass(frozen=True)
class _Measured:
    """Cases with what is known and what was said of each, [n]. `level` is the whole triage's; NaN where only its side of 3 is known."""

    cases: tuple[LabelledCase, ...]
    final: Array
    probability: Array
    is_called: Array
    level: Array

    def take(self, chosen: Array) -> _Measured:
        places = np.flatnonzero(chosen)
        cases = tuple(self.cases[place] for place in places)
        return _Measured(cases, self.final[places], self.probability[places], self.is_called[places], self.level[places])

    @property
    def truth(self) -> Array:
        """Whether the final level is 1-3, [n] as 0 or 1."""
        return np.asarray(self.final <= LAST_EMERGENCY_LEVEL, dtype=int)


def evaluate(bundle: Bundle, folder: Path, data: Path) -> dict[str, Any]:
    """The metrics document of the acuity bundle in `folder`, with the other live models beside it, on labelled cases.

    Raises DataError when no case to measure on has a level.
    """
    everything = read_labelled_cases(data)
    has_held_out = any(one.labels.split == "held_out" for one in everything)
    is_known = not has_held_out and file_sha256(cases_file(data)) in {source.sha256 for source in bundle.contract.data}
    wanted = in_split(everything, "held_out" if has_held_out else "train")
    # What was learned from is scored out of fold, by heads fitted on what was learned from: levels that somebody gave.
    cases = with_trusted_level(wanted, TRUSTED if is_known else SOURCES)
    if not cases:
        raise DataError(f"{data}: no case has a level to measure against; expected labels.level, as nabz export writes it")
    measured = _measure(bundle, folder, cases, is_known=is_known)
    headline = np.array([one.labels.level_source != "accepted" for one in cases])
    main = measured.take(headline)
    report = metrics_document("acuity", folder.as_posix(), len(main.cases), _figures(main), _subgroups(measured, main))
    how = "out of fold: no case is scored by a head that was fitted on it" if is_known else "cases that the bundle did not learn from"
    return {**report, "note": f"{NOTE.format(headline=', '.join(TRUSTED))} Here: {how}."}


def _with_acuity(folder: Path, bundle: Bundle) -> Models:
    """The live models, with this acuity bundle in place of the live one: those beside it, else those of this checkout."""
    beside = folder.resolve().parent.parent
    return replace(load_models(beside if (beside / SERVING_FILE).is_file() else None), acuity=AcuityModel(bundle))


def judged(bundle: Bundle, folder: Path, cases: Sequence[LabelledCase]) -> Judged:
    """Cases that the bundle learned from, each scored by a head that did not see it, as a threshold is chosen on them."""
    models = _with_acuity(folder, bundle)
    assert models.acuity is not None
    models.acuity.thresholds = {**models.acuity.thresholds, EMERGENCY: NEVER}
    visits = as_visits(cases, CATALOGUE)
    level = levels_of(Triage(models), [one.case for one in cases])
    return Judged(visits.is_emergency, level, np.asarray(ktas_probability(bundle, visits, is_known=True), dtype=float))


def _measure(bundle: Bundle, folder: Path, cases: tuple[LabelledCase, ...], *, is_known: bool) -> _Measured:
    final = np.array([one.labels.level for one in cases])
    if is_known:
        own = judged(bundle, folder, cases)
        called = flagged(own, bundle.contract.thresholds[EMERGENCY])
        return _Measured(cases, final, own.probability, called, np.full(len(cases), np.nan))
    visits = as_visits(cases, CATALOGUE)
    level = levels_of(Triage(_with_acuity(folder, bundle)), [one.case for one in cases]).astype(float)
    probability = np.asarray(ktas_probability(bundle, visits, is_known=False), dtype=float)
    return _Measured(cases, final, probability, level <= LAST_EMERGENCY_LEVEL, level)


def _figures(of: _Measured) -> dict[str, Interval]:
    truth, groups = of.truth, np.array([one.group for one in of.cases])
    figures = {
        **_missed(of),
        "auc": bootstrap_interval(auc, truth, of.probability, groups=groups, repeats=_REPEATS),
        "average_precision": bootstrap_interval(average_precision, truth, of.probability, groups=groups, repeats=_REPEATS),
        "ece": bootstrap_interval(ece_by_tenths, truth, of.probability, groups=groups, repeats=_REPEATS),
    }
    if not np.isnan(of.level).any():
        figures |= {
            "less_urgent_than_final": wilson_interval(int((of.level > of.final).sum()), len(truth)),
            "more_urgent_than_final": wilson_interval(int((of.level < of.final).sum()), len(truth)),
            "weighted_kappa": bootstrap_interval(_kappa, of.final, of.level, groups=groups, repeats=_REPEATS),
        }
    return figures


def _missed(of: _Measured) -> dict[str, Interval]:
    """Emergencies that get level 4 or 5, and others that get 1-3: now, then (`machine_level`), and at a first impression."""
    then = np.array([np.nan if one.labels.machine_level is None else one.labels.machine_level for one in of.cases], dtype=float)
    first = np.array([np.nan if one.labels.first_impression is None else one.labels.first_impression for one in of.cases], dtype=float)
    figures = _under_and_over(of.truth, of.is_called, "_whole_triage")
    for name, levels in (("_then", then), ("_first_impression", first)):
        known = ~np.isnan(levels)
        figures |= _under_and_over(of.truth[known], levels[known] <= LAST_EMERGENCY_LEVEL, name)
    return figures | {"prevalence": wilson_interval(int(of.truth.sum()), len(of.truth))}


def _under_and_over(truth: Array, is_called: Array, suffix: str) -> dict[str, Interval]:
    return {
        f"under_triage{suffix}": wilson_interval(int(np.sum((truth == 1) & ~is_called)), int((truth == 1).sum())),
        f"over_triage{suffix}": wilson_interval(int(np.sum((truth == 0) & is_called)), int((truth == 0).sum())),
    }


def _subgroups(everything: _Measured, main: _Measured) -> dict[str, dict[str, Interval]]:
    """By source over all cases; by age, sex, place and critical outcome over those of the headline."""
    by_source = {
        f"source {name}": _is(everything.cases, lambda one, name=name: (one.labels.level_source or "expert") == name) for name in SOURCES
    }
    age = np.array([-1.0 if one.case.age_years is None else one.case.age_years for one in main.cases])
    groups = {f"age {band}": (age >= first) & (age < end) for band, first, end in AGE_BANDS}
    groups |= {f"sex {sex}": _is(main.cases, lambda one, sex=sex: one.case.sex == sex) for sex in ("female", "male")}
    provinces = sorted({one.case.province for one in main.cases if one.case.province})
    groups |= {f"province {name}": _is(main.cases, lambda one, name=name: one.case.province == name) for name in provinces}
    figures = {name: _missed(everything.take(rows)) for name, rows in by_source.items() if rows.any()}
    return figures | {name: _missed(main.take(rows)) for name, rows in groups.items() if rows.sum() >= _SMALLEST_SUBGROUP}


def _is(cases: Sequence[LabelledCase], holds: Any) -> Array:
    return np.array([bool(holds(one)) for one in cases], dtype=bool)


def _kappa(final: Array, level: Array) -> float:
    """Quadratically weighted kappa (Cohen 1968); NaN where only one level occurs, for which it is not defined."""
    if len(np.union1d(final, level)) < 2:
        return float("nan")
    return float(cohen_kappa_score(final.astype(int), level.astype(int), labels=[1, 2, 3, 4, 5], weights="quadratic"))
