"""When a photo's lesion is believed, and what a benign result on darker skin is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fhir_fakes import assessment
from hypothesis import given
from hypothesis import strategies as st

from inference.assessment import Assessment, PhotoCheck
from inference.case import Photo
from inference.lesions import LesionScore
from inference.photo_checks import DARKER_SKIN_EN, check_photo
from inference.photo_quality import PhotoQuality, photo_problem
from inference.skin_tone import SkinTone

BENIGN = LesionScore("NEV", {"NEV": 0.9, "MEL": 0.1}, 0.1, PhotoQuality(ok=True))
BROWN, LIGHT = SkinTone(-10.0, "brown"), SkinTone(45.0, "light")


def photo(fitzpatrick: int | None = None) -> Photo:
    """A photo of which only the skin type may be known."""
    return Photo(path="a.jpg", fitzpatrick=fitzpatrick)


def score(tone: SkinTone | None = None, *codes: str, **changes) -> LesionScore:
    """A benign score of a photo with these problems."""
    return replace(BENIGN, quality=PhotoQuality(not codes, tuple(photo_problem(code) for code in codes), tone), **changes)


def test_a_good_photo_is_believed():
    """Nothing to say, and the tone is told as an estimate."""
    checked = check_photo(photo(), "a.jpg", score(LIGHT), 0.3)
    assert (checked.is_believed, checked.review, checked.is_darker_and_benign) == (True, (), False)
    assert PhotoCheck.model_validate(checked.line) == PhotoCheck(
        photo="a.jpg", is_believed=True, tone="light", tone_source="estimated", ita_degrees=45.0
    )


def test_a_bad_photo_is_not_believed_whatever_it_seems_to_show():
    """Each problem is a review reason with its advice, and darker skin adds nothing to it."""
    checked = check_photo(photo(6), "a.jpg", score(None, "blurred"), 0.3)
    assert (checked.is_believed, checked.is_darker_and_benign) == (False, False)
    assert checked.review == ("photo a.jpg: The photo is blurred: hold the phone still, tap the lesion to focus, and take it again.",)
    assert checked.line["problems"] == ("blurred",)


def test_a_photo_unlike_all_others_is_not_believed():
    """What the model says of its own unfamiliarity counts like a problem of the gate."""
    checked = check_photo(photo(), "a.jpg", score(LIGHT, is_unfamiliar=True), 0.3)
    assert (checked.is_believed, checked.line["problems"]) == (False, ("unfamiliar",))


@pytest.mark.parametrize(
    ("fitzpatrick", "tone", "is_asked"),
    [
        (5, LIGHT, True),
        (6, None, True),
        (4, BROWN, False),
        (1, BROWN, False),
        (None, BROWN, True),
        (None, LIGHT, False),
        (None, None, False),
    ],
)
def test_what_was_said_of_the_skin_goes_before_the_estimate(fitzpatrick: int | None, tone: SkinTone | None, is_asked: bool):
    """Types V and VI as said, or a brown or dark estimate where nothing was said, ask for a clinician."""
    checked = check_photo(photo(fitzpatrick), "a.jpg", score(tone), 0.3)
    assert checked.is_darker_and_benign is is_asked
    assert (f"photo a.jpg {DARKER_SKIN_EN}" in checked.review) is is_asked


def test_a_malignant_result_raises_by_itself():
    """At the operating point the case is raised anyway: no words about reassurance."""
    assert not check_photo(photo(6), "a.jpg", score(BROWN, malignancy_probability=0.3), 0.3).is_darker_and_benign


@given(st.floats(0, 1), st.sampled_from([None, 1, 2, 3, 4, 5, 6]), st.sampled_from(["too_dark", "covered", "no_skin"]))
def test_no_probability_makes_a_bad_photo_believed(probability: float, fitzpatrick: int | None, code: str):
    """Belief never depends on what the model says."""
    assert not check_photo(photo(fitzpatrick), "a.jpg", score(BROWN, code, malignancy_probability=probability), 0.3).is_believed


def test_an_assessment_from_before_there_were_checks_still_loads():
    """The field is empty there."""
    stored = assessment().model_dump(mode="json")
    del stored["photos"]
    assert Assessment.model_validate(stored).photos == ()
