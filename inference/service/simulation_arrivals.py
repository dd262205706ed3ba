"""Draws the cases of one replication: when they arrive, how long they take to read, what the AI and the rules see.

The same cohort is then read under every policy and with every number of readers (common random numbers), so that
two policies differ by their order alone. Knows nothing of queues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.policy import LEVELS
from inference.service.simulation_scenario import BinaryAI, ConfusionAI, Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_RISK_CONCENTRATION = 8.0  # of the beta distribution around a level's mean risk: a standard deviation of about 0.15


@dataclass(frozen=True, slots=True)
class Cohort:
    """The cases of one replication, one column a fact, in order of arrival; times in minutes.

    `level` is the one that the queue sees: the more urgent of the AI's and the rule floor's. `measured` leaves out
    the cases of the warm-up and of the cool-down, which are there to keep the queue as full as it really is.
    """

    arrival_minutes: Floats
    service_minutes: Floats
    true_level: Ints
    known: Bools
    level: Ints
    risk: Floats
    interrupting: Bools
    measured: Bools

    def __len__(self) -> int:
        return len(self.arrival_minutes)


def draw_cohort(scenario: Scenario, seed: np.random.SeedSequence) -> Cohort:
    """The cases of one replication: a Poisson stream over warm-up, measured time and a cool-down as long as the warm-up."""
    # one generator a purpose: what one of them draws never shifts the others
    # (spelled out, since seed.spawn() would give others the next time that it is asked)
    when, who, reader, machine = (
        np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, purpose))) for purpose in range(4)
    )
    arrival = _arrivals(scenario, when)
    levels = sorted(scenario.levels)
    shares = np.array([scenario.levels[level].share for level in levels])
    true_level = who.choice(np.array(levels), size=len(arrival), p=shares / shares.sum())
    known = who.random(len(arrival)) >= _by_level(scenario, "unknown_share")[true_level]
    interrupting = np.isin(true_level, sorted(scenario.interrupting_levels))
    level = _seen_level(scenario, true_level, known, machine)
    level = np.where(interrupting, true_level, level)
    risk = _risk(scenario, true_level, known, level, machine)
    start, end = scenario.warm_up_hours * 60, (scenario.warm_up_hours + scenario.measured_hours) * 60
    return Cohort(
        arrival_minutes=arrival,
        service_minutes=_service(scenario, true_level, reader),
        true_level=true_level,
        known=known,
        level=level,
        risk=risk,
        interrupting=interrupting,
        measured=(arrival >= start) & (arrival < end),
    )


def _arrivals(scenario: Scenario, random: np.random.Generator) -> Floats:
    """Poisson arrivals with a daily shape: uniform points of the cumulated rate, mapped back to the clock."""
    hours = int(np.ceil(2 * scenario.warm_up_hours + scenario.measured_hours))
    shape = np.array(scenario.hourly_shape) / np.mean(scenario.hourly_shape)
    cumulated = np.concatenate(([0.0], np.cumsum(np.resize(shape, hours) * scenario.arrivals_per_hour)))
    points = np.sort(random.random(random.poisson(cumulated[-1]))) * cumulated[-1]
    return np.interp(points, cumulated, np.arange(hours + 1) * 60.0)


def _service(scenario: Scenario, true_level: Ints, random: np.random.Generator) -> Floats:
    mean = _by_level(scenario, "service_minutes")[true_level]
    if scenario.service_distribution == "exponential":
        return random.exponential(size=len(mean)) * mean
    sigma = np.sqrt(np.log1p(scenario.service_cv**2))
    return np.exp(sigma * random.standard_normal(len(mean)) - sigma**2 / 2) * mean


def _seen_level(scenario: Scenario, true_level: Ints, known: Bools, random: np.random.Generator) -> Ints:
    """The level that the queue is given. The rules may raise the AI's level and never lower it."""
    draw = random.random(len(true_level))
    given = (
        _flagged(scenario.ai, true_level, known, draw)
        if isinstance(scenario.ai, BinaryAI)
        else _confused(scenario.ai, true_level, known, draw)
    )
    caught = random.random(len(true_level)) < _by_level(scenario, "floor_catches")[true_level]
    return np.where(caught, np.minimum(given, true_level), given)


def _flagged(ai: BinaryAI, true_level: Ints, known: Bools, draw: Floats) -> Ints:
    findable = np.isin(true_level, sorted(ai.positive_levels)) & known
    return np.where(draw < np.where(findable, ai.sensitivity, ai.false_positive_rate), ai.flagged_level, ai.unflagged_level)


def _confused(ai: ConfusionAI, true_level: Ints, known: Bools, draw: Floats) -> Ints:
    cumulated = np.cumsum(np.array([ai.unknown, ai.known]), axis=2)[known.astype(int), true_level - 1]
    return 1 + np.minimum((draw[:, None] >= cumulated).sum(axis=1), len(LEVELS) - 1)


def _risk(scenario: Scenario, true_level: Ints, known: Bools, level: Ints, random: np.random.Generator) -> Floats:
    """The model's risk: it follows the truth where it knows the condition, and else only the level that it gave."""
    mean = _by_level(scenario, "risk_mean")[np.where(known, true_level, level)]
    return random.beta(mean * _RISK_CONCENTRATION, (1 - mean) * _RISK_CONCENTRATION)


def _by_level(scenario: Scenario, name: str) -> Floats:
    """A lookup of one figure by level; place 0 is empty. A level that never arrives takes the middle of the range."""
    return np.array([0.5, *(float(getattr(scenario.levels[level], name)) if level in scenario.levels else 0.5 for level in LEVELS)])
