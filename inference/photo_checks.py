"""Whether a photo's lesion score is believed, and what a reviewer is told: the gate, familiarity and the skin's tone together.

Decides on one photo. It does not know levels, other photos or how anything was computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.case import Photo
from inference.lesions import LesionScore
from inference.photo_quality import UNFAMILIAR, photo_problem
from inference.skin_tone import DARKER_GROUPS, DARKER_SKIN_TYPES

DARKER_SKIN_EN = "of darker skin: the lesion model knows hardly any, so its benign result is no reassurance: a clinician must look."
DARKER_SKIN_UR = "گہری رنگت کی جلد کی تصویر: جلد کا ماڈل ایسی تصویریں بہت کم جانتا ہے، اس لیے اس کا بے ضرر نتیجہ تسلی نہیں دیتا: معالج کا دیکھنا ضروری ہے۔"


@dataclass(frozen=True, slots=True)
class CheckedPhoto:
    """The verdict on one photo. `line` has the fields of `PhotoCheck`; `review` are reasons for the case's review.

    `is_believed`: its lesion probabilities may be used. `is_darker_and_benign`: they are below the operating point, of
    skin that the model hardly knows.
    """

    line: dict[str, Any]
    review: tuple[str, ...]
    is_believed: bool
    is_darker_and_benign: bool


def check_photo(photo: Photo, name: str, score: LesionScore, malignancy_threshold: float) -> CheckedPhoto:
    """Judge one photo's score. `name` is the photo's as messages may show it."""
    problems = [*score.quality.problems, *([photo_problem(UNFAMILIAR)] if score.is_unfamiliar else [])]
    is_believed = not problems
    review = [f"photo {name}: {problem.advice_en}" for problem in problems]
    review += [f"photo {name}: {note}" for note in score.notes]
    is_darker_and_benign = is_believed and is_darker(photo, score) and score.malignancy_probability < malignancy_threshold
    if is_darker_and_benign:
        review.append(f"photo {name} {DARKER_SKIN_EN}")
    line = {
        "photo": name,
        "problems": tuple(problem.code for problem in problems),
        "is_believed": is_believed,
        **_tone(photo, score),
        "sha256": score.photo_sha256,
    }
    return CheckedPhoto(line, tuple(review), is_believed, is_darker_and_benign)


def is_darker(photo: Photo, score: LesionScore) -> bool:
    """Whether the skin is Fitzpatrick type V or VI as said, or, where nothing was said, looks brown or dark."""
    if photo.fitzpatrick is not None:
        return photo.fitzpatrick in DARKER_SKIN_TYPES
    return score.quality.tone is not None and score.quality.tone.group in DARKER_GROUPS


def _tone(photo: Photo, score: LesionScore) -> dict[str, Any]:
    if photo.fitzpatrick is not None:
        return {"tone": f"type {photo.fitzpatrick}", "tone_source": "said"}
    if (tone := score.quality.tone) is None:
        return {}
    return {"tone": tone.group, "tone_source": "estimated", "ita_degrees": round(tone.ita_degrees, 1)}
