"""Labelled cases as expert levels: what `nabz-train acuity --cases` learns the emergency head from, in place of KTAS or beside it.

Levels 1-3 are emergencies, as in KTAS. Only levels that somebody gave are learned from; `accepted` ones are the machine's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.bundle import Contract, DataSource
from inference.errors import DataError
from inference.rules import assess_floor
from training.acuity_head import FOLDS, KtasVisits, findings_reader
from training.catalogue import load_catalogue
from training.ktas import is_emergency
from training.labelled_cases import FILE, LabelledCase, in_split, read_labelled_cases, with_trusted_level

KEY = "labelled_cases"  # of its checksum in the contract
TITLE = "labelled cases, final level 1-3"
# With fewer, a fold of ten has less than two of them, and neither a calibration nor a threshold means anything.
LEAST_OF_EACH = 2 * FOLDS
_KTAS = "KTAS"
_LIMIT = (
    "The emergency call follows {n} labelled cases ({emergencies} emergencies) of the service that trained it{beside}; levels by source: {sources}. "
    "Where no pain score is given, mild and severe pain look alike to it."
)


def cases_file(path: Path) -> Path:
    """The file itself, or the one in the folder."""
    return path / FILE if path.is_dir() else path


def training_visits(path: Path, catalogue: Path) -> tuple[KtasVisits, Counter[str]]:
    """The cases to learn from, as visits with an expert's level, and how many levels are of each source.

    Left out are cases that are held out, and levels that nobody gave. Raises DataError when too few are left.
    """
    cases = with_trusted_level(in_split(read_labelled_cases(path), "train"))
    emergencies = sum(is_emergency(one.labels.level or 0) for one in cases)
    if min(emergencies, len(cases) - emergencies) < LEAST_OF_EACH:
        raise DataError(
            f"{path}: {emergencies} emergencies (levels 1-3) and {len(cases) - emergencies} others with a level that somebody gave; expected at "
            f"least {LEAST_OF_EACH} of each: export a longer period, or add KTAS with --with-ktas"
        )
    return as_visits(cases, catalogue), Counter(one.labels.level_source or "expert" for one in cases)


def as_visits(cases: Sequence[LabelledCase], catalogue: Path) -> KtasVisits:
    """Cases with a level as visits: their findings are read from the words and the given answers; arrival is not used, as with KTAS."""
    reader = findings_reader(load_catalogue(catalogue))
    own = tuple(one.case.model_copy(update={"arrival": None}) for one in cases)
    findings = tuple(reader.read_case(case)[0] for case in own)
    return KtasVisits(
        own,
        findings,
        np.array([one.labels.level for one in cases]),
        np.array([assess_floor(case, found).level for case, found in zip(own, findings, strict=True)]),
        tuple(None if one.case.arrival is None else one.case.arrival == "ambulance" for one in cases),
        tuple(one.group for one in cases),
    )


def together(first: KtasVisits, second: KtasVisits) -> KtasVisits:
    """Both sets of visits as one; a visit without a group is a group of its own."""
    groups = tuple(_groups(first, "a")) + tuple(_groups(second, "b"))
    return KtasVisits(
        first.cases + second.cases,
        first.findings + second.findings,
        np.concatenate([first.level, second.level]),
        np.concatenate([first.floor, second.floor]),
        first.by_ambulance + second.by_ambulance,
        groups,
    )


def with_labelled_contract(contract: Contract, checksum: str, visits: KtasVisits, sources: Counter[str], *, with_ktas: bool) -> Contract:
    """The contract, naming the cases among its data and in its limits, in place of KTAS unless that was learned from too."""
    own = DataSource(
        name="Labelled cases of a triage service (nabz export, or of that form)",
        licence="the service's own; not for publication",
        sha256=checksum,
        citation="The service's data card, data_card.json beside the cases.",
    )
    count = sum(sources.values())
    limit = _LIMIT.format(
        n=count,
        emergencies=int(visits.is_emergency[-count:].sum()),  # the cases stand behind KTAS
        beside=" and of KTAS" if with_ktas else "",
        sources=", ".join(f"{n} {source}" for source, n in sources.most_common()),
    )
    kept = contract.limits if with_ktas else tuple(one for one in contract.limits if _KTAS not in one and "Korean" not in one)
    data = contract.data if with_ktas else tuple(source for source in contract.data if _KTAS not in source.name)
    return contract.model_copy(
        update={
            "data": (*data, own),
            "limits": (*kept, limit),
            "training": {**contract.training, "levels_by_source": dict(sources), "with_ktas": with_ktas},
        }
    )


def _groups(visits: KtasVisits, side: str) -> Sequence[str]:
    return visits.groups or [f"{side}-{place}" for place in range(len(visits.cases))]
