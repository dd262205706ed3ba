"""A patient who gets worse: no vital further from normal and no red sign may make the whole triage less urgent."""

from __future__ import annotations

import copy
import random
from functools import cache
from typing import Any

import httpx

from inference.case import Case, read_case
from inference.models import load_models
from inference.rules import assess_floor, iitt_signs
from inference.triage import Triage
from reliability.cases import NOW
from reliability.live_service import ROOT, live_service
from reliability.outcome import Ground, Outcome

_BATCH = 250
_THROUGH_SERVICE = 100
# What each vital reads in a well adult, and how far it may be from that in either direction.
_VITALS: dict[str, tuple[float, float, float]] = {
    "respiratory_rate_per_minute": (16, 0, 90),
    "spo2_percent": (100, 40, 100),
    "systolic_mmhg": (120, 35, 300),
    "diastolic_mmhg": (75, 15, 210),
    "pulse_per_minute": (80, 0, 300),
    "temperature_celsius": (37, 26, 44),
    "glucose_mg_dl": (95, 10, 1200),
    "capillary_refill_seconds": (1, 0, 15),
}
# From an infant's usual value to an adult's.
_CHILD = {
    "respiratory_rate_per_minute": (16.0, 43.0),
    "pulse_per_minute": (73.0, 143.0),
    "systolic_mmhg": (60.0, 125.0),
    "diastolic_mmhg": (36.0, 75.0),
}
_CONSCIOUSNESS = "ACVPU"
_COMPLAINTS = (
    "", "", "bukhar aur khansi", "seenay mein dard", "zukam", "pet mein dard aur ulti", "fever for three days", "sar dard",
    "saans phool raha hai", "cough with blood", "no complaint, feels well", "بخار", "kamar dard", "khujli", "weakness and dizziness",
)  # fmt: skip
_RED_SIGNS = tuple(code for code, role in iitt_signs().items() if role == "red")


def run(size: int, ground: Ground) -> Outcome:
    """`size` random cases, each once as it is and once worse; some of them also through the service's route for new findings."""
    outcome = Outcome("worsening")
    chance, triage = random.Random(11), Triage(load_models(ROOT / "models"))
    for start in range(0, size, _BATCH):
        pairs = [_pair(chance, number) for number in range(start, min(start + _BATCH, size))]
        before, after = ([triage_of.level for triage_of in _assessed(triage, cases)] for cases in zip(*pairs, strict=True))
        for (case, worse), old, new in zip(pairs, before, after, strict=True):
            outcome.require(new <= old, f"level {old} became {new}: {_difference(case, worse)}, in {case}")
            outcome.count("raised", int(new < old))
    outcome.done["cases"] = size
    _through_service(outcome, ground, chance, min(size // 10, _THROUGH_SERVICE))
    return outcome


def _assessed(triage: Triage, cases: tuple[dict[str, Any], ...]) -> list[Any]:
    return triage.assess_each([read_case(case, "case") for case in cases], [NOW] * len(cases))


def _pair(chance: random.Random, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A random case, and the same one worse in one thing."""
    case: dict[str, Any] = {
        "case_id": f"w-{number}",
        "sex": chance.choice(("female", "male", "unknown")),
        "complaint": chance.choice(_COMPLAINTS),
        "vitals": {name: _reading(chance, name) for name in _VITALS if chance.random() < 0.6},
        "findings": {chance.choice(_RED_SIGNS): chance.choice(("present", "absent")) for _ in range(chance.choice((0, 0, 0, 1, 2)))},
    }
    case |= {"age_years": chance.choice((0.02, 0.5, 3, 8, 11.9, 12, 16, 30, 45, 51, 70, 90))} if chance.random() < 0.9 else {}
    case["vitals"] |= {"consciousness": chance.choice("AAAACVPU")} if chance.random() < 0.6 else {}
    case["vitals"] |= {"on_oxygen": chance.random() < 0.2} if chance.random() < 0.4 else {}
    worse = copy.deepcopy(case)
    can_worsen = [name for name, value in case["vitals"].items() if _is_off(name, value, case.get("age_years"))]
    if can_worsen and chance.random() < 0.7:
        _worsen(chance, worse["vitals"], chance.choice(can_worsen), case.get("age_years"))
    else:
        worse["findings"][chance.choice(_red_signs(case.get("age_years")))] = "present"
    return case, worse


@cache
def _red_signs(age_years: float | None) -> tuple[str, ...]:
    """The signs that alone are red for a patient of this age: the adult's and the child's tables differ."""
    case = Case(case_id="a", age_years=age_years)
    return tuple(code for code in _RED_SIGNS if assess_floor(case, {code: "present"}).level <= 2)


def _is_off(name: str, value: Any, age_years: float | None) -> bool:
    """Whether it is certain in which direction a reading gets worse: not within what is well at some age."""
    if isinstance(value, bool | str):
        return True
    least, most = _well(name, age_years)
    return not least < value < most


def _reading(chance: random.Random, name: str) -> float:
    """Mostly near normal, now and then anything that a living person can show."""
    normal, low, high = _VITALS[name]
    if chance.random() < 0.3:
        return round(chance.uniform(low, high), 1)
    return round(min(high, max(low, chance.gauss(normal, (high - low) * 0.06))), 1)


def _worsen(chance: random.Random, vitals: dict[str, Any], name: str, age_years: float | None) -> None:
    if name == "consciousness":
        vitals[name] = chance.choice(_CONSCIOUSNESS[_CONSCIOUSNESS.index(vitals[name]) :])
    elif name == "on_oxygen":
        vitals[name] = True
    else:
        _, low, high = _VITALS[name]
        old, (least, _) = vitals[name], _well(name, age_years)
        vitals[name] = round(
            chance.uniform(low, old) if old <= least and name != "capillary_refill_seconds" else chance.uniform(old, high), 1
        )


def _well(name: str, age_years: float | None) -> tuple[float, float]:
    """From where to where a reading is well at this age, or at some age when it is not known: danger grows away from it."""
    normal = _VITALS[name][0]
    if name in _CHILD and (age_years is None or age_years < 16):
        return _CHILD[name]
    return normal, normal


def _difference(case: dict[str, Any], worse: dict[str, Any]) -> str:
    parts = [(name, case["vitals"].get(name), value) for name, value in worse["vitals"].items() if case["vitals"].get(name) != value]
    parts += [(code, case["findings"].get(code), value) for code, value in worse["findings"].items() if case["findings"].get(code) != value]
    return ", ".join(f"{name} {old} -> {new}" for name, old, new in parts) or "nothing changed"


def _through_service(outcome: Outcome, ground: Ground, chance: random.Random, count: int) -> None:
    """Send a case, then what got worse as new findings: the level in the queue must not fall."""
    with live_service(ground.folder, ground.database_url) as service:
        headers = service.token("clinic", "mithi")
        with httpx.Client(base_url=service.url, headers=headers, timeout=30, trust_env=False) as client:
            for number in range(count):
                case, worse = _pair(chance, number)
                stored = client.post("/v1/referrals", json=case).raise_for_status().json()
                new = {"vitals": worse["vitals"], "findings": worse["findings"]}
                again = client.post(f"/v1/referrals/{stored['id']}/findings", json=new)
                outcome.require(again.status_code == 200, f"new findings were answered with {again.status_code}")
                if again.status_code == 200:
                    old, level, machine = stored["level"], again.json()["level"], again.json()["machine_level"]
                    outcome.require(level <= old, f"in the queue, level {old} became {level}: {_difference(case, worse)}")
                    outcome.require(machine <= old, f"the machine's level {old} became {machine}: {_difference(case, worse)}, in {case}")
    outcome.done["through the service"] = count
