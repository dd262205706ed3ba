"""Champion and challenger on the same held-out cases: differences, gates and a verdict.

The only module of the comparison that knows all of its parts. It writes nothing and draws nothing: see comparison_report.py.

A challenger that is no better is promoted too when it passes every gate: a model trained again on newer data, or with another
threshold, need not be better on old cases to be the right one; that is for people to weigh, and the report shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.errors import DataError
from inference.models import SERVING_FILE, default_models_folder, load_models
from training.catalogue import CATALOGUE
from training.comparison_cases import HeldOut, held_out_cases, knowledge_in
from training.comparison_cost import Cost, cost_of
from training.comparison_gates import Evidence, LostFlags, judge_all
from training.comparison_outcomes import Outcome, outcome_of
from training.comparison_waits import Wait, simulated_waits
from training.gates import Gate, load_limits
from training.paired import Difference, Measure, compared
from training.sentinels import Sentinel, sentinels

Verdict = Literal["PROMOTE", "HOLD"]
Told = Callable[[str, float], None]
SMALLEST_SUBGROUP = 20
_BINS = 10
_LAST_TRAINING_YEAR = 2018


@dataclass(frozen=True)
class Move:
    """A patient whose level differs: `gained` are reasons that only the challenger gives, `lost` those that only the champion gave."""

    case_id: str
    true_level: int
    condition: str | None
    champion_level: int
    challenger_level: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def is_lowered(self) -> bool:
        """Whether the challenger finds the patient less urgent."""
        return self.challenger_level > self.champion_level


@dataclass(frozen=True)
class CalibrationPoint:
    """One tenth of the probability scale: the mean probability that a model gave, how often it came true, and of how many cases."""

    stated: float
    observed: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. `differences` are by figure, safety first; `subgroups` by group and figure.

    `calibration` is by model. `moves` are all patients whose level moves, the lowered first. `remarks` are what a reader must know of the data.
    """

    task: str
    champion: str
    challenger: str
    champion_sha256: str
    challenger_sha256: str
    data: str
    n: int
    gates: tuple[Gate, ...]
    differences: dict[str, Difference]
    subgroups: dict[str, dict[str, Difference]]
    calibration: dict[str, tuple[CalibrationPoint, ...]]
    moves: tuple[Move, ...]
    level_counts: tuple[tuple[int, ...], ...]
    flags: LostFlags
    waits: tuple[Wait, ...]
    cost: Cost
    remarks: tuple[str, ...]

    @property
    def because(self) -> tuple[str, ...]:
        """Why the challenger is held back, one sentence for each gate that it fails, the most serious first."""
        return tuple(f"{gate.name}: {gate.why}" for gate in self.gates if not gate.passed)

    @property
    def verdict(self) -> Verdict:
        """PROMOTE when every gate is passed."""
        return "HOLD" if self.because else "PROMOTE"

    def as_json(self) -> dict[str, Any]:
        """The whole comparison for a file: no NaN, keys in a fixed order."""
        return {
            "verdict": self.verdict,
            "because": list(self.because),
            "task": self.task,
            "champion": {"bundle": self.champion, "sha256": self.champion_sha256},
            "challenger": {"bundle": self.challenger, "sha256": self.challenger_sha256},
            "data": self.data,
            "n": self.n,
            "remarks": list(self.remarks),
            "gates": [gate.as_json() for gate in self.gates],
            "differences": {name: one.as_json() for name, one in self.differences.items()},
            "subgroups": {group: {name: one.as_json() for name, one in found.items()} for group, found in self.subgroups.items()},
            "calibration": {name: [asdict(point) for point in points] for name, points in self.calibration.items()},
            "levels": {"champion_rows_challenger_columns": [list(row) for row in self.level_counts]},
            "moves": [asdict(move) for move in self.moves],
            "red_flags": self.flags.as_json(),
            "waits": [wait.as_json() for wait in self.waits],
            "cost": self.cost.as_json(),
        }


def compare_bundles(
    challenger: Path,
    champion: Path,
    data: Path,
    *,
    threads: int,
    gates: Path | None = None,
    models: Path | None = None,
    told: Told = lambda _what, _share: None,
) -> Comparison:
    """Both bundles on the held-out cases in `data`, and the verdict by the limits in `gates` (default: training/gates.toml).

    `models` is the folder whose other live bundles make the whole triage (default: the champion's, or the shipped ones). `told` hears what is
    being done and which share is done. Raises NabzError when a bundle, the data or the limits cannot be used.
    """
    limits = load_limits(gates)
    old, new = load_bundle(champion), load_bundle(challenger)
    task = old.contract.task
    if new.contract.task != task:
        raise DataError(f"{challenger} is a bundle of {new.contract.task}, {champion} of {task}: compare two bundles of one task")
    told("reading held-out cases", 0.0)
    cases = held_out_cases(task, data, after_year=max(_last_year(old), _last_year(new)))
    marked = () if task.startswith("lesions") else sentinels(knowledge_in(CATALOGUE))
    others = load_models(models or _models_folder(champion), photo_threads=threads)
    before = outcome_of(old, cases, marked, others, threads, _cases_told(told, "the champion's levels", 0.1, 0.35, len(cases)))
    after = outcome_of(new, cases, marked, others, threads, _cases_told(told, "the challenger's levels", 0.35, 0.6, len(cases)))
    told("differences", 0.6)
    differences = _differences(before, after, cases, np.ones(len(cases), dtype=bool))
    subgroups = _subgroups(before, after, cases)
    told("latency", 0.75)
    cost = cost_of(old, champion, new, challenger)
    flags = _lost_flags(before, after, cases, marked)
    told("gates", 0.8)
    evidence = Evidence(old, new, challenger, data, cases, differences, subgroups, flags, cost)
    verdicts, remarks = judge_all(evidence, limits)
    told("waits", 0.85)
    waits = simulated_waits(cases.true_level, before.level, after.level)
    told("done", 1.0)
    return Comparison(
        task=task,
        champion=f"{task} {old.contract.version}",
        challenger=f"{task} {new.contract.version}",
        champion_sha256=old.sha256,
        challenger_sha256=new.sha256,
        data=cases.title,
        n=len(cases),
        gates=verdicts,
        differences=differences,
        subgroups=subgroups,
        calibration={"champion": _calibration(before), "challenger": _calibration(after)},
        moves=_moves(before, after, cases),
        level_counts=tuple(
            tuple(int(np.sum((before.level == row) & (after.level == column))) for column in range(1, 6)) for row in range(1, 6)
        ),
        flags=flags,
        waits=waits,
        cost=cost,
        remarks=(*cases.remarks, *remarks),
    )


def _models_folder(champion: Path) -> Path:
    own = champion.resolve().parent.parent
    return own if (own / SERVING_FILE).is_file() else default_models_folder()


def _last_year(bundle: Bundle) -> int:
    """The last year of the visits that an acuity bundle learned from."""
    return int(str(bundle.contract.training.get("years", _LAST_TRAINING_YEAR)).split("-")[-1])


def _cases_told(told: Told, what: str, start: float, end: float, n: int) -> Callable[[int], None]:
    done = 0

    def more(cases: int) -> None:
        nonlocal done
        done += cases
        told(what, start + (end - start) * done / n)

    return more


def _differences(before: Outcome, after: Outcome, cases: HeldOut, rows: NDArray[np.bool_]) -> dict[str, Difference]:
    shared = [name for name in before.measures if name in after.measures]
    return {name: compared(before.measures[name], after.measures[name], cases.patients, rows) for name in shared}


def _subgroups(before: Outcome, after: Outcome, cases: HeldOut) -> dict[str, dict[str, Difference]]:
    """The rates of every group, where at least SMALLEST_SUBGROUP of its cases count."""
    rates = {name for name, measure in before.measures.items() if measure.is_rate and name in after.measures}
    found: dict[str, dict[str, Difference]] = {}
    for group, rows in {**before.tones, **cases.subgroups}.items():
        for name in before.measures:
            old = before.measures[name]
            if name in rates and (old.rows & rows).sum() >= SMALLEST_SUBGROUP:
                found.setdefault(group, {})[name] = compared(old, after.measures[name], cases.patients, rows)
    return found


def _calibration(outcome: Outcome) -> tuple[CalibrationPoint, ...]:
    """The reliability of the figure whose calibration error is measured, in ten bands of equal width."""
    measure: Measure | None = next((one for name, one in outcome.measures.items() if name.endswith("ece")), None)
    if measure is None:
        return ()
    truth, stated = (array[measure.rows] for array in measure.arrays)
    band = np.minimum((stated * _BINS).astype(int), _BINS - 1)
    return tuple(
        CalibrationPoint(float(stated[band == one].mean()), float(truth[band == one].mean()), int((band == one).sum()))
        for one in range(_BINS)
        if (band == one).any()
    )


def _lost_flags(before: Outcome, after: Outcome, cases: HeldOut, marked: Sequence[Sentinel]) -> LostFlags:
    """Sentinels that are no longer emergencies, and cases for which the rules see less with the challenger's reading."""
    lowered = [
        f"{one.condition} ({one.wording}): {old} to {new}"
        for one, old, new in zip(marked, before.sentinel_levels.tolist(), after.sentinel_levels.tolist(), strict=True)
        if old <= 2 < new
    ]
    fewer = [
        f"{case_id}: {', '.join(sorted(old - new)) or 'a less urgent floor'}"
        for case_id, old, new, old_floor, new_floor in zip(
            cases.case_ids, before.red_flags, after.red_flags, before.floor.tolist(), after.floor.tolist(), strict=True
        )
        if old - new or new_floor > old_floor
    ]
    return LostFlags(tuple(lowered), tuple(fewer), int(np.sum(before.sentinel_levels <= 2)))


def _moves(before: Outcome, after: Outcome, cases: HeldOut) -> tuple[Move, ...]:
    """The lowered first, of these the truly urgent."""
    moves = [
        Move(
            case_id=cases.case_ids[place],
            true_level=int(cases.true_level[place]),
            condition=cases.condition[place],
            champion_level=int(before.level[place]),
            challenger_level=int(after.level[place]),
            gained=tuple(one for one in after.reasons[place] if one not in before.reasons[place]),
            lost=tuple(one for one in before.reasons[place] if one not in after.reasons[place]),
        )
        for place in np.flatnonzero(before.level != after.level)
    ]
    return tuple(sorted(moves, key=lambda move: (not move.is_lowered, move.true_level or 9, move.champion_level)))
