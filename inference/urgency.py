"""The level: the rule floor and the referrer's priority first, then models that can only raise.

Pure: numbers in, a level and its reasons out. Thresholds come from the bundles' contracts, levels from the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.policy import LEAST_URGENT, Policy

# Condition severities: 1 needs care within minutes, 2 within the hour, 3 within the day, 4 routine, 5 self-care.
SEVERITIES = (1, 2, 3, 4, 5)
_PRIORITIES_UR = {"routine": "معمول", "urgent": "ضروری", "asap": "جتنی جلد ہو سکے", "stat": "اسی وقت"}


@dataclass(frozen=True, slots=True)
class Raise:
    """One thing that holds the level at `level` or more urgent, and why, in English and Urdu."""

    level: int
    source: str
    text_en: str
    text_ur: str


@dataclass(frozen=True, slots=True)
class Urgency:
    """The level in 1-5 and everything that supports a level below the least urgent one, most urgent first."""

    level: int
    raises: tuple[Raise, ...]


def decide_level(raises: Sequence[Raise]) -> Urgency:
    """The most urgent of all raises; without any, the least urgent level. Nothing here can lower a level."""
    ordered = tuple(sorted(raises, key=lambda one: one.level))
    return Urgency(ordered[0].level if ordered else LEAST_URGENT, ordered)


def raises_from_acuity(critical_probability: float, emergency_probability: float, thresholds: Mapping[str, float]) -> list[Raise]:
    """What the acuity model supports.

    `critical_level_2` and `emergency_level_3` are probabilities at or above which the level is at least 2 and 3;
    below `routine_level_4` only, a case may be "advice".
    """
    found = []
    if critical_probability >= thresholds["critical_level_2"]:
        found.append(
            Raise(
                2,
                "acuity",
                f"acuity model: {_natural(critical_probability)} patients like this need critical care",
                f"شدت کا ماڈل: ایسے مریضوں میں {_natural_ur(critical_probability)} کو انتہائی نگہداشت درکار ہوتی ہے",
            )
        )
    for level, name in ((3, "emergency_level_3"), (4, "routine_level_4")):
        if emergency_probability >= thresholds[name]:
            found.append(
                Raise(
                    level,
                    "acuity",
                    f"acuity model: experts call {_natural(emergency_probability)} patients like this urgent",
                    f"شدت کا ماڈل: ماہرین ایسے مریضوں میں {_natural_ur(emergency_probability)} کو ضروری قرار دیتے ہیں",
                )
            )
            break
    return found


def raises_from_differential(severity_mass: Mapping[int, float], thresholds: Mapping[str, float], *, is_certain: bool) -> list[Raise]:
    """What the differential supports. `severity_mass[s]` is the probability of conditions of severity s.

    `severity_level_N` is the probability of conditions of severity N or worse at or above which the level is at
    least N; level 1 is left to the rules. A differential that is not certain (a large prediction set: the complaint
    says too little) supports no more than routine; the rules and the acuity model speak for such a case.
    """
    found = []
    for level in (2, 3, 4) if is_certain else (4,):
        mass = sum(severity_mass.get(severity, 0.0) for severity in SEVERITIES if severity <= level)
        if mass >= thresholds[f"severity_level_{level}"]:
            found.append(
                Raise(
                    level,
                    "symptoms",
                    f"differential: {_natural(mass)} such patients have a condition of severity {level} or worse",
                    f"ممکنہ تشخیص: ایسے مریضوں میں {_natural_ur(mass)} کو درجہ {level} یا اس سے شدید بیماری ہوتی ہے",
                )
            )
            break
    return found


def raises_from_lesion(malignancy_probability: float, threshold: float) -> list[Raise]:
    """A lesion at or above the operating point is seen by a dermatologist: at least routine, never advice alone."""
    if malignancy_probability < threshold:
        return []
    return [
        Raise(
            4,
            "lesions",
            "lesion model: the photo is above the point from which a dermatologist must look for skin cancer",
            "جلد کا ماڈل: تصویر اس حد سے اوپر ہے جہاں ماہرِ جلد کو کینسر کے لیے دیکھنا ضروری ہے",
        )
    ]


def raises_from_unbelieved_photo() -> list[Raise]:
    """A lesion whose photo could not be believed is looked at by a clinician: at least routine, never advice alone.

    The same level as a malignant result's, so that a bad photo loses nothing that its score could have raised.
    """
    return [
        Raise(
            4,
            "policy",
            "a photo could not be judged: it excludes nothing until a clinician looks or a better one is sent",
            "ایک تصویر جانچی نہ جا سکی: جب تک معالج نہ دیکھے یا بہتر تصویر نہ آئے، اس سے کوئی بیماری خارج نہیں ہوتی",
        )
    ]


def raises_from_darker_skin() -> list[Raise]:
    """A benign result on darker skin is no reassurance: a clinician looks, at least routine, never advice alone.

    The models learned from a handful of such photos (models/lesions card); a public test saw the AUC of lesion models fall
    from 0.72 on light skin to 0.57 on dark (Daneshjou et al. 2022, Sci Adv 8:eabq6147).
    """
    return [
        Raise(
            4,
            "policy",
            "a photo of darker skin: the lesion model knows hardly any, so a benign result is no reassurance",
            "گہری رنگت کی جلد کی تصویر: جلد کا ماڈل ایسی تصویریں بہت کم جانتا ہے، اس لیے اس کا بے ضرر نتیجہ تسلی نہیں دیتا",
        )
    ]


def raise_from_priority(priority: str | None, policy: Policy) -> list[Raise]:
    """The referrer's own priority, which is never lowered."""
    level = policy.priority.get(priority) if priority else None  # type: ignore[call-overload]
    if level is None:
        return []
    return [
        Raise(
            level, "referrer", f"the referrer asked for {priority}", f"بھیجنے والے نے مانگا: {_PRIORITIES_UR.get(str(priority), priority)}"
        )
    ]


def _natural(probability: float) -> str:
    """A probability as a natural frequency out of ten, or out of a hundred when it is small."""
    if probability < 0.1:
        return f"about {max(1, round(100 * probability))} in 100"
    return "nearly all" if probability >= 0.95 else f"about {round(10 * probability)} in 10"


def _natural_ur(probability: float) -> str:
    if probability < 0.1:
        return f"تقریباً 100 میں {max(1, round(100 * probability))}"
    return "تقریباً تمام" if probability >= 0.95 else f"تقریباً 10 میں {round(10 * probability)}"
