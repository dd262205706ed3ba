"""A service with a past: invented referrals that clinicians completed, overrode and agreed with, for tests that learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from service_app import Service

from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.synthetic import draw_cases

CATALOGUE = Path(__file__).parent.parent / "data/catalogue"
DISTRICTS = ("Tharparkar", "Khuzdar", "Rajanpur", "Swat")


def synthetic_cases(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Invented cases without `received_at`, so that the service's clock says when they came, each in one of four districts."""
    knowledge = load_knowledge(CATALOGUE)
    generator, random = PatientGenerator(knowledge), np.random.default_rng(seed)
    cases = draw_cases(knowledge, generator, generator.draw(n, random), random)
    for number, case in enumerate(cases):
        del case["received_at"], case["province"]
        case["district"] = DISTRICTS[number % len(DISTRICTS)]
    return cases


def send_all(service: Service, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send the cases in batches; returns the acknowledged referrals, in order."""
    sent: list[dict[str, Any]] = []
    for first in range(0, len(cases), 100):
        answer = service.client.post("/v1/referrals:batch", json=cases[first : first + 100], headers=service.token("clinic"))
        assert answer.status_code == 201, answer.text
        sent += answer.json()["referrals"]
    return sent


def finish(service: Service, id_: str, number: int = 1, **body: Any) -> None:
    """Claim and complete a referral as a clinician."""
    done = service.act(id_, "claim", clinician=str(number)), service.act(id_, "complete", {"outcome": "advised", **body}, str(number))
    assert [one.status_code for one in done] == [200, 200], [one.text for one in done]
