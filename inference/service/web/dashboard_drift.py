"""Whether the cases of a window differ from those of the window before: population stability indexes. Pure; knows no page.

The index says that a mix has moved, not why: a new clinic, a season and a broken form all look alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, nan, sqrt
from typing import Final, Literal

from inference.service.web.dashboard_history import MODELS, CaseFacts

LOOK, ACT = 0.1, 0.25  # by convention, from credit scoring; no study of triage stands behind these two numbers
# Bins of the emergency probability: their lower ends.
RISK_BINS: Final = (0.0, 0.01, 0.03, 0.1, 0.3)
OTHER: Final = "other"
_LEAST_SHARE: Final = 0.05  # rarer specialties are counted together: an index over many rare ones is mostly chance
_Z95_ONE_SIDED: Final = 1.644854
Reading = Literal["few", "stable", "look", "act"]


@dataclass(frozen=True, slots=True)
class Shift:
    """One feature: `index` over its categories with the cases before and now, what chance alone may give, and how that reads.

    `moved` is the category that adds most to the index, with its shares before and now; None with nothing to compare.
    """

    feature: str
    index: float
    by_chance: float
    n_before: int
    n: int
    reading: Reading
    moved: tuple[str, float, float] | None
    before: Mapping[str, int]
    now: Mapping[str, int]


def stability_index(before: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index: the sum over categories of (q - p) ln(q / p), with p the shares before and q those now.

    Half a case is added to each count, so that a category that was empty once gives no infinity. NaN where there are no cases.
    """
    return sum(_parts(before, now)) if sum(before) and sum(now) else nan


def _parts(before: Sequence[int], now: Sequence[int]) -> list[float]:
    n_before, n = (sum(counts) + len(counts) / 2 for counts in (before, now))
    shares = [((old + 0.5) / n_before, (new + 0.5) / n) for old, new in zip(before, now, strict=True)]
    return [(q - p) * log(q / p) for p, q in shares]


def chance_index(categories: int, n_before: int, n: int) -> float:
    """The index that two samples of one population exceed one time in twenty; infinite where one of them is empty.

    To second order the index is the chi-square statistic with categories - 1 degrees of freedom, times 1 / n_before + 1 / n.
    Its quantile is taken from Wilson and Hilferty (Proc Natl Acad Sci USA 1931; 17: 684-688).
    """
    if not n_before or not n:
        return inf
    freedom = max(categories - 1, 1)
    part = 2 / (9 * freedom)
    chi_square = freedom * (1 - part + _Z95_ONE_SIDED * sqrt(part)) ** 3
    return float(chi_square * (1 / n_before + 1 / n))


def reading_of(index: float, by_chance: float) -> Reading:
    """`few` where chance alone could give this index and one that would call for a look."""
    if index != index or (index <= by_chance and by_chance > LOOK):
        return "few"
    return "stable" if index < LOOK else "look" if index <= ACT else "act"


def shift_of(feature: str, before: Mapping[str, int], now: Mapping[str, int], categories: Sequence[str]) -> Shift:
    """One feature's counts compared."""
    old, new = [before.get(one, 0) for one in categories], [now.get(one, 0) for one in categories]
    n_before, n = sum(old), sum(new)
    index, by_chance = stability_index(old, new), chance_index(len(categories), n_before, n)
    moved = None
    if index == index:
        at = max(range(len(categories)), key=_parts(old, new).__getitem__)
        moved = categories[at], old[at] / n_before, new[at] / n
    counts = [dict(zip(categories, one, strict=True)) for one in (old, new)]
    return Shift(feature, index, by_chance, n_before, n, reading_of(index, by_chance), moved, *counts)


def risk_bin(risk: float) -> str:
    """The bin of a probability, by its lower end."""
    return f"{max(low for low in RISK_BINS if low <= max(risk, 0.0)):g}"


def shifts(before: Sequence[CaseFacts], now: Sequence[CaseFacts]) -> list[Shift]:
    """Every feature that the dashboard watches."""
    levels, bins = [str(level) for level in range(1, 6)], [f"{low:g}" for low in RISK_BINS]
    scorers, yes_no = [MODELS, "rules alone", "nothing"], ["yes", "no"]
    features: list[tuple[str, Sequence[str], Callable[[CaseFacts], str | None]]] = [
        ("level", levels, lambda case: str(case.level)),
        ("risk", bins, lambda case: risk_bin(case.risk) if case.scored_by == MODELS else None),
        ("scored_by", scorers, lambda case: case.scored_by),
        ("review", yes_no, lambda case: _yes(case.needs_review)),
        ("unknown", yes_no, lambda case: None if case.is_patient_known is None else _yes(not case.is_patient_known)),
        ("no_district", yes_no, lambda case: _yes(case.district is None)),
    ]
    found = [shift_of(name, _counts(before, of), _counts(now, of), categories) for name, categories, of in features]
    specialties = _counts(before, lambda case: case.specialty), _counts(now, lambda case: case.specialty)
    names, old, new = _pooled(*specialties)
    return [*found, shift_of("specialty", old, new, names)]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _counts(cases: Sequence[CaseFacts], of: Callable[[CaseFacts], str | None]) -> Counter[str]:
    return Counter(value for case in cases if (value := of(case)) is not None)


def _pooled(before: Counter[str], now: Counter[str]) -> tuple[list[str], Counter[str], Counter[str]]:
    """The categories with five in a hundred of all cases, and the others as one."""
    both = before + now
    names = sorted(name for name, count in both.items() if count >= _LEAST_SHARE * both.total())
    old, new = (Counter({name: counts[name] for name in names}) for counts in (before, now))
    old[OTHER], new[OTHER] = before.total() - old.total(), now.total() - new.total()
    return [*names, OTHER], old, new
