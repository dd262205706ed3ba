"""The clinic's words for what the core has codes for: vitals, specialties, states, probabilities, review reasons.

Texts that the core has in both languages (rules, conditions, advice) are taken from it. Knows no page and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from inference.photo_checks import DARKER_SKIN_EN, DARKER_SKIN_UR
from inference.photo_quality import photo_problems
from inference.rule_tables import rule_texts
from inference.service.telemetry import OTHER, review_kind
from inference.service.web.language import N_, Speech

# Shape and word carry the level beside colour, so that none of them is needed alone.
LEVEL_NAMES: Final = {1: N_("immediate"), 2: N_("emergency"), 3: N_("urgent"), 4: N_("routine"), 5: N_("advice")}
OUTCOMES: Final = {
    "advised": N_("advised"),
    "treated": N_("treated"),
    "referred": N_("referred onwards"),
    "admitted": N_("admitted"),
    "not_reached": N_("not reached"),
    "died": N_("died"),
    "other": N_("other"),
}
SPECIALTIES: Final = {
    "cardiology": N_("cardiology"),
    "dentistry": N_("dentistry"),
    "dermatology": N_("dermatology"),
    "emergency_medicine": N_("emergency medicine"),
    "endocrinology": N_("endocrinology"),
    "ent": N_("ear, nose and throat"),
    "family_medicine": N_("family medicine"),
    "gastroenterology": N_("gastroenterology"),
    "haematology": N_("haematology"),
    "infectious_disease": N_("infectious diseases"),
    "internal_medicine": N_("internal medicine"),
    "neonatology": N_("neonatology"),
    "nephrology": N_("nephrology"),
    "neurology": N_("neurology"),
    "obstetrics_gynaecology": N_("obstetrics and gynaecology"),
    "oncology": N_("oncology"),
    "ophthalmology": N_("ophthalmology"),
    "orthopaedics": N_("orthopaedics"),
    "paediatrics": N_("paediatrics"),
    "psychiatry": N_("psychiatry"),
    "pulmonology": N_("pulmonology"),
    "rheumatology": N_("rheumatology"),
    "surgery": N_("surgery"),
    "urology": N_("urology"),
}
REVIEW_KINDS: Final = {
    "nothing_scored": N_("Neither the models nor the rules could score it."),
    "models_late": N_("The models did not answer in time: ranked by rules."),
    "models_loading": N_("The models were still being loaded: ranked by rules."),
    "scoring_failed": N_("Scoring failed on this case: ranked by rules."),
    "complaint_not_read": N_("The complaint was not read by the machine: read it."),
    "outside_scope": N_("No condition that the model knows fits these findings: a person must look."),
    "complaint_not_understood": N_("Nothing in the complaint was understood: read it."),
    "nothing_given": N_("No complaint and no finding was given: ask what brings the patient."),
    "unknown_finding": N_("A finding is not in the catalogue: enter it again."),
    "photo_not_scored": N_("A photo was not scored or not kept."),
    "field_set_aside": N_("A value that cannot be right was set aside: check it and send it again."),
    "time_of_arrival": N_("The clock of the sender is wrong: the time of arrival here was used."),
    "measurement_old": N_("A measurement is old: measure it again."),
    "request_unclear": N_("The request was unclear."),
    "darker_skin": N_("A photo of darker skin: a benign result is no reassurance."),
    "photo_quality": N_("A photo's quality is not good enough."),
    OTHER: N_("Another reason."),
}
EVENTS: Final = {
    "created": N_("referred"),
    "claimed": N_("claimed"),
    "released": N_("put back"),
    "lease_expired": N_("the hold ended"),
    "completed": N_("completed"),
    "overridden": N_("level overridden"),
    "agreed": N_("agreed with the level"),
    "impression": N_("first impression recorded"),
    "noted": N_("note"),
    "reassessed": N_("assessed again"),
    "erased": N_("content erased"),
}
SCORERS: Final = {"models and rules": N_("AI and rules"), "rules alone": N_("rules alone"), "nothing": N_("not scored")}
SEXES: Final = {"female": N_("female"), "male": N_("male"), "unknown": N_("sex unknown")}
PRIORITIES: Final = {"routine": N_("routine"), "urgent": N_("urgent"), "asap": N_("as soon as possible"), "stat": N_("at once")}
HISTORY: Final = {
    "itch": N_("itches"),
    "grew": N_("has grown"),
    "hurt": N_("hurts"),
    "changed": N_("has changed"),
    "bleed": N_("bleeds"),
    "elevation": N_("is raised"),
}
TONES: Final = {  # of inference/skin_tone.py
    "very light": N_("very light skin"),
    "light": N_("light skin"),
    "intermediate": N_("intermediate skin"),
    "tan": N_("tan skin"),
    "brown": N_("brown skin"),
    "dark": N_("dark skin"),
}
_CONSCIOUSNESS: Final = {
    "A": N_("alert"),
    "C": N_("newly confused"),
    "V": N_("answers to voice"),
    "P": N_("answers to pain only"),
    "U": N_("does not answer"),
}
_VITALS: Final = {  # name, unit
    "respiratory_rate_per_minute": (N_("Breathing rate"), N_("per minute")),
    "spo2_percent": (N_("SpO2"), "%"),
    "on_oxygen": (N_("On oxygen"), ""),
    "systolic_mmhg": (N_("Systolic pressure"), "mmHg"),
    "diastolic_mmhg": (N_("Diastolic pressure"), "mmHg"),
    "pulse_per_minute": (N_("Pulse"), N_("per minute")),
    "consciousness": (N_("Consciousness"), ""),
    "temperature_celsius": (N_("Temperature"), "°C"),
    "glucose_mg_dl": (N_("Blood sugar"), "mg/dL"),
    "capillary_refill_seconds": (N_("Capillary refill"), N_("seconds")),
    "pain_score": (N_("Pain, from 0 none to 10 worst"), N_("of 10")),
}
# From which probability on which words: IPCC, "Guidance Note … on Consistent Treatment of Uncertainties" (2010), table 1.
_LIKELIHOODS: Final = (
    (0.9, N_("very likely")),
    (0.66, N_("likely")),
    (0.33, N_("about as likely as not")),
    (0.1, N_("unlikely")),
    (0.0, N_("very unlikely")),
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words in one language."""

    speech: Speech

    def level(self, level: int) -> str:
        """The level's name."""
        return self.speech.t(LEVEL_NAMES[level])

    def of(self, table: Mapping[str, str], code: str | None) -> str:
        """A code's word from a table; a code that the table lacks as it is."""
        return self.speech.t(table[code]) if code is not None and code in table else (code or "").replace("_", " ")

    def specialty(self, code: str) -> str:
        """A specialty's name."""
        return self.of(SPECIALTIES, code)

    def sex(self, code: str | None) -> str:
        """Female, male or unknown."""
        return self.of(SEXES, code or "unknown")

    def event(self, kind: str) -> str:
        """What happened."""
        return self.of(EVENTS, kind)

    def scorer(self, scored_by: str) -> str:
        """AI, rules or nothing."""
        return self.of(SCORERS, scored_by)

    def outcome(self, code: str | None) -> str:
        """How a case ended."""
        return self.of(OUTCOMES, code)

    def priority(self, code: str) -> str:
        """The referrer's priority."""
        return self.of(PRIORITIES, code)

    def history(self, code: str) -> str:
        """What the patient says of a skin lesion."""
        return self.of(HISTORY, code)

    def tone(self, code: str) -> str:
        """A skin tone group."""
        return self.of(TONES, code)

    def vital(self, name: str) -> str:
        """A vital's name."""
        return self.speech.t(_VITALS[name][0]) if name in _VITALS else name

    def unit(self, name: str) -> str:
        """A vital's unit."""
        unit = _VITALS.get(name, ("", ""))[1]
        return self.speech.t(unit)

    def measured(self, value: Any) -> str:
        """A vital's value in words or digits."""
        if isinstance(value, bool):
            return self.speech.t("yes") if value else self.speech.t("no")
        return self.of(_CONSCIOUSNESS, value) if isinstance(value, str) else f"{value:g}"

    def likelihood(self, probability: float) -> str:
        """A probability in words."""
        return self.speech.t(next(words for least, words in _LIKELIHOODS if probability >= least))

    def frequency(self, probability: float) -> str:
        """A probability as a natural frequency: out of ten, or of a hundred when it is small or close to all."""
        if 0.1 <= probability < 0.95:
            return self.speech.t("about %(n)s in 10 patients like this", n=round(10 * probability))
        n = min(max(round(100 * probability), 1), 99)
        return self.speech.t("about %(n)s in 100 patients like this", n=n)

    def rule(self, text_en: str) -> str:
        """A rule's or red flag's text, which the rule tables have in both languages."""
        return self.speech.pick(text_en, rule_texts().get(text_en))

    def review(self, why: str) -> str:
        """A review reason. In Urdu by its kind; the words themselves, which name fields and values, stand beside it."""
        if self.speech.code == "en":
            return why
        advice = next((urdu for english, urdu in _photo_advice().items() if english in why), None)
        return advice or self.of(REVIEW_KINDS, review_kind(why))


@cache
def _photo_advice() -> dict[str, str]:
    return {problem.advice_en: problem.advice_ur for problem in photo_problems()} | {DARKER_SKIN_EN: DARKER_SKIN_UR}


def vital_names() -> tuple[str, ...]:
    """The vitals in the order in which they are taken and shown."""
    return tuple(_VITALS)
