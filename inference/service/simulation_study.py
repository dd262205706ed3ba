"""Runs a study: all replications, then the search for readers, on every core; gives one answer for table, plot and JSON.

Prints nothing. The same seed gives the same answer on any number of cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import numpy as np

from inference.policy import Policy
from inference.service.simulation_presets import Published, Study
from inference.service.simulation_results import GROUPS, Estimate, Figures, estimate, picker, readers_needed, replicate
from inference.service.simulation_scenario import Scenario
from inference.service.simulation_theory import qucad_waits

_POOL_FROM_CASES = 300_000  # below, starting processes costs more than they save
_ARMS = {"without_ai": "fifo", "with_ai": "strict"}
_QUCAD_GROUPS = {"diseased": 2, "non_diseased": 4}

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """What one policy does to one group of cases. Waits in minutes; `past_cap` is a share; differences are paired.

    `saved_against_fifo`: minutes, positive where the group waits less than under FIFO. `unknown_against_fifo` and
    `unknown_against_known`: how much longer cases wait whose condition the AI does not know, than under FIFO and than
    the known ones of the same true level. `cases`: measured ones per replication.
    """

    mean: Estimate
    p95: Estimate
    past_cap: Estimate
    known_mean: Estimate
    unknown_mean: Estimate
    saved_against_fifo: Estimate
    unknown_against_fifo: Estimate
    unknown_against_known: Estimate
    cases: Estimate


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """One policy: by group (0 = emergencies), and the readers that keep the caps (None: not searched, or none found)."""

    groups: dict[int, GroupAnswer]
    readers_needed: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """A published example beside the simulated and the exact one; group of cases -> arm -> minutes."""

    published: Published
    simulated: dict[str, dict[str, Estimate]]
    within_interval: dict[str, dict[str, bool]]
    exact: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that a study found out."""

    scenario: Scenario
    policy: Policy
    seed: int
    policies: dict[str, PolicyAnswer]
    searched_readers: bool
    check: Check | None
    warnings: tuple[str, ...]


def steps(study: Study) -> int:
    """How often `run_study` calls `on_done`."""
    return study.scenario.replications + (len(study.orders) if study.search_readers else 0)


def run_study(study: Study, policy: Policy, seed: int, on_done: Callable[[], None] = lambda: None) -> Answer:
    """Every replication under every order; `on_done` is called after each piece of work."""
    scenario = study.scenario
    seeds = np.random.SeedSequence(seed).spawn(scenario.replications)
    with _executor(study) as pool:
        runs = [pool.submit(replicate, scenario, study.orders, policy, one, scenario.readers) for one in seeds]
        figures = _results(runs, on_done)
        searched = study.orders if study.search_readers else ()
        searches = [pool.submit(readers_needed, scenario, order, policy, seeds, figures) for order in searched]
        needed = dict(zip(searched, _results(searches, on_done), strict=True))
    policies = {
        order: PolicyAnswer({group: _group(figures, order, group) for group in GROUPS}, needed.get(order)) for order in study.orders
    }
    return Answer(
        scenario=scenario,
        policy=policy,
        seed=seed,
        policies=policies,
        searched_readers=study.search_readers,
        check=_check(study, policies),
        warnings=_warnings(scenario),
    )


def _results(pieces: Sequence[Future[T]], on_done: Callable[[], None]) -> list[T]:
    for _ in as_completed(pieces):
        on_done()
    return [piece.result() for piece in pieces]


def _group(figures: Sequence[Figures], order: str, group: int) -> GroupAnswer:
    pick = picker(figures)
    mean, unknown = pick(order, group, "mean"), pick(order, group, "unknown")
    return GroupAnswer(
        mean=estimate(mean),
        p95=estimate(pick(order, group, "p95")),
        past_cap=estimate(pick(order, group, "past_cap")),
        known_mean=estimate(pick(order, group, "known")),
        unknown_mean=estimate(unknown),
        saved_against_fifo=estimate(pick("fifo", group, "mean") - mean),
        unknown_against_fifo=estimate(unknown - pick("fifo", group, "unknown")),
        unknown_against_known=estimate(unknown - pick(order, group, "known")),
        cases=estimate(pick(order, group, "cases")),
    )


def _check(study: Study, policies: dict[str, PolicyAnswer]) -> Check | None:
    if study.published is None:
        return None
    simulated = {group: {arm: policies[order].groups[level].mean for arm, order in _ARMS.items()} for group, level in _QUCAD_GROUPS.items()}
    within = {
        group: {arm: one.low <= study.published[group][arm] <= one.high for arm, one in arms.items()} for group, arms in simulated.items()
    }
    return Check(study.published, simulated, within, qucad_waits(study.scenario))


def _warnings(scenario: Scenario) -> tuple[str, ...]:
    if scenario.load < 1:
        return ()
    return (
        f"the work needs {scenario.offered_readers:.2f} readers on average and there are {scenario.readers}: "
        "the queue grows without end, and waits depend on how long is simulated",
    )


class _HereAndNow(Executor):
    """Runs work where it is submitted: starting processes would cost more than it saves."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run it; an error is the caller's at once."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _executor(study: Study) -> Executor:
    scenario = study.scenario
    cases = scenario.replications * len(study.orders) * scenario.arrivals_per_hour * (2 * scenario.warm_up_hours + scenario.measured_hours)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or cases < _POOL_FROM_CASES:
        return _HereAndNow()
    # fresh processes: forking one that draws a progress bar in a thread is not safe
    return ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
