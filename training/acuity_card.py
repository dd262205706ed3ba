"""The data card of the acuity trainer: visits by year and outcome, experts' levels, and what was not measured.

Counts only; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inference.case import Vitals
from training.acuity_head import FOLDS, KtasVisits
from training.data_card import DataCard
from training.nhamcs import Visits

_VITALS = tuple(Vitals.model_fields)


def acuity_card(visits: Visits, expert: KtasVisits, checksums: Mapping[str, str]) -> DataCard:
    """NHAMCS visits to learn the critical outcome from, and visits with an expert's level to learn emergencies from."""
    levels = {f"expert level {level}": int((expert.level == level).sum()) for level in range(1, 6)}
    years = {f"NHAMCS visits of {year}, held out in turn": int((visits.year == year).sum()) for year in np.unique(visits.year)}
    missing = {f"NHAMCS {name}": _absent([visit.vitals for visit in visits.visits], name) for name in _VITALS}
    missing |= {f"experts' {name}": _absent([case.vitals for case in expert.cases], name) for name in _VITALS}
    missing["NHAMCS arrival"] = float(np.mean([visit.by_ambulance is None for visit in visits.visits]))
    return DataCard(
        task="acuity",
        sources=checksums,
        rows=len(visits.visits) + len(expert.cases),
        row_is=f"visits: {len(visits.visits):,} with the outcome, {len(expert.cases):,} with an expert's level",
        classes={
            "critical care": int(visits.is_critical.sum()),
            "no critical care": int((visits.is_critical == 0).sum()),
            **levels,
        },
        missing=missing,
        splits={**years, f"visits with an expert's level, in {FOLDS} folds": len(expert.cases)},
        objective="the log loss of the critical outcome, each year held out from the others; the emergency head by folds",
    )


def _absent(vitals: list[Vitals], name: str) -> float:
    return float(np.mean([getattr(one, name, None) is None for one in vitals]))
