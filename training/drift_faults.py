"""Twenty things that go wrong in a service, as faults of its weeks, each with the features that should tell it.

Sizes are such as are met: a clinic's share of the cases, a sensor some units off, an outbreak. Draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.acuity import AcuityModel
from inference.bundle import Bundle
from inference.symptoms import SymptomModel
from inference.triage import Triage
from training.drift_weeks import Fault, Raw
from training.generator import Generator
from training.photo_faults import exposure, gaussian_blur

Array = NDArray[Any]
_KPA = 7.50062  # mmHg
DOUBLED = "F_004"  # rigors
_PRESSURES = ("systolic_mmhg", "diastolic_mmhg")


@dataclass(frozen=True)
class Injected:
    """One shift: its name, what happens in words, and the beginnings of the features by which it counts as found."""

    name: str
    words: str
    fault: Fault
    told_by: tuple[str, ...]


def _some(share: float, change: Callable[[Raw], None]) -> Callable[[list[Raw], Generator], list[Raw]]:
    """Change `share` of the cases."""

    def work(cases: list[Raw], random: Generator) -> list[Raw]:
        for one, is_chosen in zip(cases, random.random(len(cases)) < share, strict=True):
            if is_chosen:
                change(one)
        return cases

    return work


def _vital(name: str, change: Callable[[float], float | None]) -> Callable[[Raw], None]:
    def work(one: Raw) -> None:
        value = one["vitals"].get(name)
        if value is not None:
            changed = change(value)
            one["vitals"] = {**one["vitals"], name: changed} if changed is not None else _without(one["vitals"], name)

    return work


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _both(*changes: Callable[[Raw], None]) -> Callable[[Raw], None]:
    def work(one: Raw) -> None:
        for change in changes:
            change(one)

    return work


def _to_tens(value: float) -> float:
    return round(value / 10) * 10.0


def _exchanged(one: Raw) -> None:
    vitals = one["vitals"]
    if all(name in vitals for name in _PRESSURES):
        one["vitals"] = {**vitals, "systolic_mmhg": vitals["diastolic_mmhg"], "diastolic_mmhg": vitals["systolic_mmhg"]}


def _twice(cases: list[Raw], random: Generator) -> list[Raw]:
    again = [{**one, "case_id": f"{one['case_id']}-again"} for one in cases if random.random() < 0.1]
    return [*cases, *again]


def _new_district(one: Raw) -> None:
    one["district"] = "chitral"


def _younger(cases: list[Raw], random: Generator) -> list[Raw]:
    """A school campaign: half of the adults stay away."""
    return [one for one in cases if one["age_years"] < 16 or random.random() < 0.5]


def _urgent(one: Raw) -> None:
    one["priority"] = {"routine": "urgent", "urgent": "asap"}.get(one["priority"], one["priority"])


def _coded_double(one: Raw) -> None:
    """A form that ticks rigors with every answer about fever."""
    if (
        one["findings"].get("F_001") is not None
        or "fever" in one["complaint"]
        or "bukhar" in one["complaint"]
        or "بخار" in one["complaint"]
    ):
        one["findings"] = {**one["findings"], DOUBLED: "present"}


def _only_present(one: Raw) -> None:
    one["findings"] = {code: value for code, value in one["findings"].items() if value != "absent"}


def _question_marks(one: Raw) -> None:
    one["complaint"] = "".join("?" if "\u0600" <= letter <= "\u06ff" else letter for letter in one["complaint"])


def _without_roman(triage: Triage) -> Triage:
    """A symptom bundle whose lexicon lost its Roman Urdu."""
    model = cast("SymptomModel", triage.models.symptoms)
    bundle: Bundle = model._bundle
    lexicon = bundle.contract.vocabulary["lexicon"]
    phrases = [phrase for phrase in lexicon["phrases"] if phrase[3] != "roman"]
    vocabulary = {**bundle.contract.vocabulary, "lexicon": {**lexicon, "phrases": phrases}}
    broken = SymptomModel(replace(bundle, contract=bundle.contract.model_copy(update={"vocabulary": vocabulary})))
    return Triage(replace(triage.models, symptoms=broken), triage.policy)


class _Inflated:
    """An acuity model whose emergency probabilities have three times the odds."""

    def __init__(self, model: AcuityModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score_cases(self, cases: Sequence[Any]) -> list[tuple[float, float]]:
        return [(_three_times(critical), _three_times(emergency)) for critical, emergency in self._model.score_cases(cases)]


def _three_times(probability: float) -> float:
    return 3 * probability / (1 + 2 * probability)


def _inflated(triage: Triage) -> Triage:
    model = cast("AcuityModel", _Inflated(cast("AcuityModel", triage.models.acuity)))
    return Triage(replace(triage.models, acuity=model), triage.policy)


def _dark(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return exposure(image, -1.0, random)


def _blurred(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return gaussian_blur(image, 0.008, random)


def _half_as_many(outcome: Array, random: Generator) -> Array:
    return outcome & (random.random(len(outcome)) < 0.5)


INJECTED: tuple[Injected, ...] = (
    Injected("fahrenheit", "a third of the thermometers show degrees Fahrenheit", Fault(cases=_some(0.33, _vital("temperature_celsius", lambda c: round(c * 1.8 + 32, 1)))), ("vital_state:temperature", "vital:temperature")),
    Injected("kilopascals", "a quarter of the pressures come in kPa", Fault(cases=_some(0.25, _both(*(_vital(name, lambda p: round(p / _KPA, 1)) for name in _PRESSURES)))), ("vital_state:", "vital:")),
    Injected("pulse sensor", "the pulse reads 8 a minute too high", Fault(cases=_some(1.0, _vital("pulse_per_minute", lambda p: p + 8))), ("vital:pulse",)),
    Injected("spo2 missing", "SpO2 is missing in a third of the cases that had it", Fault(cases=_some(0.33, _vital("spo2_percent", lambda _: None))), ("vital_state:spo2",)),
    Injected("heaping", "pressures are rounded to tens", Fault(cases=_some(0.5, _both(*(_vital(name, _to_tens) for name in _PRESSURES)))), ("digits:",)),
    Injected("pressures exchanged", "systolic and diastolic are exchanged in one form of twelve", Fault(cases=_some(0.08, _exchanged)), ("pressures",)),
    Injected("sent twice", "a sender's retries store every tenth case twice", Fault(cases=_twice), ("repeat",)),
    Injected("dengue season", "dengue is ten times as common: one case in fourteen", Fault(times={"dengue": 10.0, "dengue_warning_signs": 10.0}), ("condition", "finding:")),
    Injected("respiratory winter", "influenza, pneumonia and bronchiolitis are three times as common", Fault(times={"influenza": 3.0, "pneumonia_adult": 3.0, "pneumonia_child": 3.0, "bronchiolitis": 3.0}), ("condition", "finding:")),
    Injected("new district", "one case in ten comes from a district that never sent any", Fault(cases=_some(0.1, _new_district)), ("district",)),
    Injected("age shift", "half of the adults stay away", Fault(cases=_younger), ("age_years",)),
    Injected("priorities inflated", "referrers choose one step more urgent in four cases of ten", Fault(cases=_some(0.4, _urgent)), ("priority",)),
    Injected("coded double", "a form ticks a second finding with every answer about fever", Fault(cases=_some(1.0, _coded_double)), (f"finding:{DOUBLED}",)),
    Injected("denials lost", "a new form no longer sends what is absent", Fault(cases=_some(0.6, _only_present)), ("finding:",)),
    Injected("reader without Roman Urdu", "the lexicon lost its Roman Urdu", Fault(triage=_without_roman), ("understood:", "findings_present")),
    Injected("Urdu as question marks", "a sender breaks the encoding of half of the Urdu", Fault(cases=_some(0.5, _question_marks)), ("script", "understood:")),
    Injected("darker photos", "photos have one stop less light", Fault(photo=_dark), ("photo_light", "photo_ita", "photo_tone", "photo_problem")),
    Injected("blurred photos", "photos are out of focus", Fault(photo=_blurred), ("photo_detail", "photo_problem")),
    Injected("another acuity model", "emergency probabilities have three times their odds", Fault(triage=_inflated), ("emergency_probability", "critical_probability", "level")),
    Injected("fewer emergencies", "half as many cases turn out to be emergencies at the same probability", Fault(outcome=_half_as_many), ("calibration:",)),
)  # fmt: skip
