"""Exact mean waits where a formula exists, to check the simulation against. Draws nothing at random.

QuCAD's own theory is an approximation (recursive dimensionality reduction). Here the two-class queue is solved exactly
as a quasi-birth-and-death chain (Latouche & Ramaswami 1999, "Introduction to Matrix Analytic Methods"). AI-positive and AI-negative
cases take equally long to read, so splitting them changes who waits and not how many do: the negative's wait follows
from the two others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference.service.simulation_arrivals import Floats
from inference.service.simulation_scenario import BinaryAI, Scenario

_MOST_HIGH = 60  # of the urgent class in the system at once; rarer than 1e-30 at the loads used here
_CONVERGED = 1e-13


def qucad_waits(scenario: Scenario) -> dict[str, dict[str, float]]:
    """Mean waits in minutes, exact, of diseased and non-diseased cases, without and with the AI."""
    interrupting, diseased, healthy = (scenario.levels[level] for level in (1, 2, 4))
    assert isinstance(scenario.ai, BinaryAI)
    assert diseased.service_minutes == healthy.service_minutes
    per_minute = scenario.arrivals_per_hour / 60
    urgent = (interrupting.share * per_minute, 1 / interrupting.service_minutes)
    flagged = diseased.share * scenario.ai.sensitivity + healthy.share * scenario.ai.false_positive_rate
    every = diseased.share + healthy.share
    alone = low_class_wait(urgent, (every * per_minute, 1 / diseased.service_minutes), scenario.readers)
    positive = low_class_wait(urgent, (flagged * per_minute, 1 / diseased.service_minutes), scenario.readers)
    negative = (every * alone - flagged * positive) / (every - flagged)
    sensitivity, false_rate = scenario.ai.sensitivity, scenario.ai.false_positive_rate
    return {
        "diseased": {"without_ai": alone, "with_ai": sensitivity * positive + (1 - sensitivity) * negative},
        "non_diseased": {"without_ai": alone, "with_ai": false_rate * positive + (1 - false_rate) * negative},
    }


def low_class_wait(high: tuple[float, float], low: tuple[float, float], readers: int) -> float:
    """Mean wait of the lower of two classes in an M/M/c queue where the upper one is preemptive-resume.

    `high` and `low` are (arrivals, services by one reader) per minute. The chain's level is the number of low cases in
    the system, its phase the number of high ones. The wait excludes service, and includes interruptions.
    """
    arrivals, services = low
    on_high = np.minimum(np.arange(_MOST_HIGH + 1), readers)
    up = np.eye(len(on_high)) * arrivals
    among = np.diag(np.full(_MOST_HIGH, high[0]), 1) + np.diag(on_high[1:] * high[1], -1)

    def down(count: int) -> Floats:
        return np.diag(np.minimum(count, readers - on_high) * services)

    def stay(count: int) -> Floats:
        return among - np.diag(among.sum(axis=1) + arrivals + np.diag(down(count)))

    rate = _rate_matrix(up, stay(readers), down(readers))
    chain = _boundary_chain(up, stay, down, rate, readers)
    size = len(on_high)
    beyond = np.linalg.inv(np.eye(size) - rate)
    equations = chain.T.copy()
    equations[0] = np.concatenate((np.ones(readers * size), beyond.sum(axis=1)))  # probabilities add up to 1
    first = np.zeros(len(equations))
    first[0] = 1.0
    steady = np.linalg.solve(equations, first)
    last = steady[readers * size :]
    in_system = sum(count * steady[count * size : (count + 1) * size].sum() for count in range(readers))
    in_system += readers * (last @ beyond).sum() + (last @ beyond @ rate @ beyond).sum()
    return float(in_system / arrivals - 1 / services)  # Little's law


def _rate_matrix(up: Floats, stay: Floats, down: Floats) -> Floats:
    """The smallest solution R of up + R stay + R^2 down = 0, by fixed-point steps from 0."""
    inverse = np.linalg.inv(-stay)
    rate = np.zeros_like(up)
    while True:
        better = (up + rate @ rate @ down) @ inverse
        if np.abs(better - rate).max() < _CONVERGED:
            return better
        rate = better


def _boundary_chain(up: Floats, stay: Callable[[int], Floats], down: Callable[[int], Floats], rate: Floats, readers: int) -> Floats:
    """The generator of the levels 0 to `readers`, with everything above folded into the last by the rate matrix."""
    blocks = [[np.zeros_like(up) for _ in range(readers + 1)] for _ in range(readers + 1)]
    for count in range(readers + 1):
        blocks[count][count] = stay(count) if count < readers else stay(readers) + rate @ down(readers)
        if count:
            blocks[count][count - 1] = down(count)
        if count < readers:
            blocks[count][count + 1] = up
    return np.block(blocks)
