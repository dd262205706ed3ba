"""The scenarios that `nabz simulate --preset` offers, each with where its figures come from.

`qucad` is the published example of QuCAD, the FDA's open tool for the time that AI triage devices save (DIDSR/QuCAD on
GitHub; Thompson et al., "Applying queueing theory to evaluate wait-time-savings of triage algorithms", Queueing Systems
108, 2024; Thompson et al., "Wait-time-saving analysis and clinical effectiveness of CADt devices", SPIE 2022). Read in its code and
followed here: interrupting cases are preemptive-resume over all others in both arms; with the AI, AI-positive cases are
preemptive-resume over AI-negative ones; within a class first come, first served; the wait is all the time in the system
without being read; traffic is arrivals x mean service time / readers, the mean over all cases, interrupting ones included;
prevalence, sensitivity and false positive rate hold for the cases that do not interrupt; times are exponential.
The exact mean waits of that model are 18.29 and 2.57 minutes for diseased cases and 18.29 and 20.03 for the others
(simulation_theory.py); the published 19.98 is a little lower than the rest of the example allows, since triage only moves
waiting from some to others: 0.1 x 2.57 + 0.9 x 19.98 = 18.24. Far more replications than here would therefore exclude it.

`clinic` is a telemedicine hub as it may stand in Pakistan. Every figure of it is an estimate, made to be replaced by
one's own with `--file`; nothing about a real hub may be concluded from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.errors import PolicyError
from inference.service.simulation_orders import ORDERS
from inference.service.simulation_scenario import BinaryAI, ConfusionAI, LevelMix, Scenario

Published = Mapping[str, Mapping[str, float]]  # group of cases -> arm -> mean wait in minutes


@dataclass(frozen=True, slots=True)
class Study:
    """A scenario, the orders to compare in it, whether to look for the readers needed, and figures that others published."""

    scenario: Scenario
    orders: tuple[str, ...] = tuple(ORDERS)
    search_readers: bool = True
    published: Published | None = None


def preset(name: str) -> Study:
    """The preset of that name. Raises PolicyError listing the names that exist."""
    if name not in PRESETS:
        raise PolicyError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}, or give your own scenario with --file")
    return PRESETS[name]


def _estimated(*fields: str) -> dict[str, str]:
    return dict.fromkeys(fields, "estimate")


_CLINIC = Scenario(
    name="clinic",
    arrivals_per_hour=9.0,
    # few at night, most in the morning, a second rise when work ends
    hourly_shape=(0.3, 0.2, 0.2, 0.2, 0.2, 0.3, 0.5, 0.9, 1.6, 2.2, 2.4, 2.2, 1.7, 1.3, 1.2, 1.2, 1.3, 1.5, 1.5, 1.2, 0.8, 0.6, 0.5, 0.4),
    readers=2,
    service_distribution="lognormal",
    service_cv=0.6,
    levels={
        1: LevelMix(share=0.015, service_minutes=16, unknown_share=0.10, floor_catches=0.75, risk_mean=0.80),
        2: LevelMix(share=0.060, service_minutes=14, unknown_share=0.12, floor_catches=0.50, risk_mean=0.60),
        3: LevelMix(share=0.275, service_minutes=11, unknown_share=0.15, floor_catches=0.35, risk_mean=0.30),
        4: LevelMix(share=0.450, service_minutes=9, unknown_share=0.15, floor_catches=0.20, risk_mean=0.10),
        5: LevelMix(share=0.200, service_minutes=6, unknown_share=0.10, floor_catches=0.0, risk_mean=0.03),
    },
    ai=ConfusionAI(
        known=(
            (0.80, 0.15, 0.04, 0.01, 0.00),
            (0.10, 0.72, 0.14, 0.04, 0.00),
            (0.01, 0.10, 0.70, 0.17, 0.02),
            (0.00, 0.02, 0.14, 0.72, 0.12),
            (0.00, 0.01, 0.05, 0.24, 0.70),
        ),
        unknown=(
            (0.25, 0.25, 0.25, 0.25, 0.00),
            (0.05, 0.25, 0.35, 0.35, 0.00),
            (0.01, 0.09, 0.40, 0.50, 0.00),
            (0.00, 0.05, 0.25, 0.70, 0.00),
            (0.00, 0.02, 0.18, 0.80, 0.00),
        ),
    ),
    warm_up_hours=4 * 24,
    measured_hours=42 * 24,
    replications=20,
    sources=_estimated(
        "arrivals_per_hour", "hourly_shape", "readers", "service_distribution", "service_cv", "levels.share", "levels.service_minutes",
        "levels.unknown_share", "levels.floor_catches", "levels.risk_mean", "ai.known", "ai.unknown", "scores.level_points",
        "scores.points_per_hour", "scores.accumulation_rates",
    ),
)  # fmt: skip

_TRAFFIC, _READERS, _INTERRUPTING, _PREVALENCE = 0.8, 2, 0.1, 0.1
_INTERRUPTING_MINUTES, _READ_MINUTES = 5.0, 10.0
_QUCAD_SOURCE = "the published QuCAD example"

_QUCAD = Scenario(
    name="qucad",
    arrivals_per_hour=60 * _TRAFFIC * _READERS / (_INTERRUPTING * _INTERRUPTING_MINUTES + (1 - _INTERRUPTING) * _READ_MINUTES),
    readers=_READERS,
    levels={
        1: LevelMix(label="interrupting", share=_INTERRUPTING, service_minutes=_INTERRUPTING_MINUTES),
        2: LevelMix(label="diseased", share=(1 - _INTERRUPTING) * _PREVALENCE, service_minutes=_READ_MINUTES),
        4: LevelMix(label="non-diseased", share=(1 - _INTERRUPTING) * (1 - _PREVALENCE), service_minutes=_READ_MINUTES),
    },
    ai=BinaryAI(sensitivity=0.9, false_positive_rate=0.1, positive_levels=frozenset({2}), flagged_level=2, unflagged_level=4),
    interrupting_levels=frozenset({1}),
    preemptive=True,
    warm_up_hours=200,  # the queue forgets its start in about 15 hours
    measured_hours=4000,
    replications=40,
    sources={
        **dict.fromkeys(
            ("arrivals_per_hour", "readers", "service_distribution", "levels.share", "levels.service_minutes", "ai.sensitivity",
             "ai.false_positive_rate", "interrupting_levels", "preemptive"), _QUCAD_SOURCE
        ),
        "levels": "the numbers 1, 2 and 4 only order the groups here; they are no triage levels",
    },
)  # fmt: skip

PRESETS: Mapping[str, Study] = {
    "clinic": Study(_CLINIC),
    "qucad": Study(
        _QUCAD,
        orders=("fifo", "strict"),
        search_readers=False,
        published={
            "diseased": {"without_ai": 18.29, "with_ai": 2.57},
            "non_diseased": {"without_ai": 18.29, "with_ai": 19.98},
        },
    ),
}
