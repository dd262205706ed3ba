"""What a health worker is told of a stored case: level and wait, what was understood, what to do about photos. Stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.assessment import Assessment
from inference.case import ABSENT, PRESENT
from inference.models import Models
from inference.photo_quality import photo_problems
from inference.service.web.case_view import finding_lines
from inference.service.web.intake_reading import SeenFinding
from inference.service.web.language import N_, Speech
from inference.service.web.vocabulary import Vocabulary

_FAILED = N_("That did not work. Nothing is lost, what you entered is still here: try again.")
WAITS = N_("A doctor should see this case within %(time)s.")


def problem_in_words(error: Exception, speech: Speech) -> str:
    """Why something was refused; in general words where the reason is not to be had in the reader's language."""
    return speech.t(str(error)) if speech.has(str(error)) else speech.t(_FAILED)


def wait_in_words(cap_minutes: int, speech: Speech) -> str:
    """The longest wait of a level."""
    return speech.t(WAITS, time=speech.duration(cap_minutes))


def photo_advice(assessment: Assessment, speech: Speech) -> list[str]:
    """What to do about the photos, each advice once."""
    said = "\n".join(assessment.review.why)
    return [speech.pick(one.advice_en, one.advice_ur) for one in photo_problems() if one.advice_en in said]


def review_reasons(assessment: Assessment, words: Vocabulary) -> list[str]:
    """Why a person must look at it, without what is said of the photos."""
    advice = [one.advice_en for one in photo_problems()]
    return list(dict.fromkeys(words.review(why) for why in assessment.review.why if not any(one in why for one in advice)))


def understood_in_words(findings: Mapping[str, Any], models: Models, speech: Speech) -> list[str]:
    """The findings that the case was ranked by: "fever", "no cough"."""
    said = []
    for line in finding_lines(findings, models):
        name, value = speech.pick(line.name_en, line.name_ur), speech.pick(line.value_en, line.value_ur)
        if line.value == ABSENT:
            said.append(speech.t("not there: %(finding)s", finding=name))
        else:
            said.append(name if line.value == PRESENT else f"{name}: {value}")
    return said


def chip_text(seen: SeenFinding, speech: Speech) -> str:
    """A finding's name, with its value where it has one of its own."""
    name, value = speech.pick(seen.name_en, seen.name_ur), speech.pick(seen.value_en, seen.value_ur)
    return f"{name}: {value}" if value else name
