"""The whole way of a case, with the shipped bundles and with models that fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.case import CaseReading, read_case
from inference.errors import BundleError
from inference.models import Models, load_models
from inference.triage import Triage

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NO_MODELS = Models(None, None, None, {}, ("no bundle",))
WELL = {
    "respiratory_rate_per_minute": 16, "spo2_percent": 98, "on_oxygen": False, "systolic_mmhg": 120,
    "diastolic_mmhg": 80, "pulse_per_minute": 72, "consciousness": "A", "temperature_celsius": 36.8,
}  # fmt: skip


class FailingModel:
    """Stands where a model stands and fails on every case, or only on those it is told."""

    def __init__(self, real, bad_ids=None):
        self._real, self._bad_ids = real, bad_ids

    def __getattr__(self, name):
        return getattr(self._real, name)

    def score(self, reads):
        if self._bad_ids is None or any(read.case.case_id in self._bad_ids for read in reads):
            raise BundleError("symptoms 1.0.0: the model failed on this batch")
        return self._real.score(reads)


@pytest.fixture(scope="session")
def models(models_folder: Path) -> Models:
    """The shipped bundles, all usable."""
    loaded = load_models(models_folder)
    assert loaded.problems == ()
    return loaded


@pytest.fixture(scope="session")
def triage(models) -> Triage:
    """A triage with every shipped model."""
    return Triage(models)


def case(case_id="a", **fields) -> CaseReading:
    """A case as it would arrive."""
    return read_case({"case_id": case_id, **fields}, case_id)


def test_a_red_flag_in_words_reaches_the_level(triage):
    """A snake bite told in Roman Urdu is red by the rules alone."""
    result = triage.assess(case(age_years=30, complaint="saanp ne kaat liya", vitals=WELL), NOW)
    assert result.level <= 2
    assert result.red_flags
    assert result.floor_level <= 2


def test_no_model_can_lower_the_floor(models, triage):
    """With and without models, the level is never less urgent than the floor."""
    reading = case(age_years=70, complaint="no complaint, feels well", vitals={**WELL, "spo2_percent": 84})
    for one in (triage, Triage(NO_MODELS)):
        result = one.assess(reading, NOW)
        assert result.level <= result.floor_level <= 3


def test_rules_alone_still_rank_and_say_so(tmp_path):
    """Without any bundle, cases are ranked by rules, at most routine, and each says that no model scored it."""
    triage = Triage(load_models(tmp_path))
    ill, well = case("ill", age_years=40, vitals={**WELL, "systolic_mmhg": 80}), case("well", age_years=40, vitals=WELL)
    first, second = triage.rank([well, ill], NOW)
    assert (first.case_id, first.scored_by, first.level) == ("ill", "rules alone", 3)
    assert (second.case_id, second.scored_by, second.level) == ("well", "rules alone", 4)
    assert "no model scored this case" in [reason.text for reason in second.reasons]
    assert triage.models.problems == (f"{tmp_path / 'serving.toml'} cannot be read (FileNotFoundError): no model is used",)


def test_a_case_of_which_nothing_can_be_read_is_urgent_and_reviewed(triage):
    """An unreadable case is queued at the policy's level for a person, never dropped."""
    result = triage.assess(case(complaint="xyzzy qwrt"), NOW)
    assert (result.level, result.scored_by, result.review.needed) == (3, "nothing", True)
    assert result.review.why == ("nothing in the complaint was understood: read it",)


def test_a_model_that_fails_on_one_case_costs_no_other_its_score(models):
    """One case that breaks the symptom model is marked; its neighbours keep their differentials."""
    triage = Triage(replace(models, symptoms=FailingModel(models.symptoms, {"bad"})))
    readings = [case(name, age_years=30, complaint="fever and cough", vitals=WELL) for name in ("good", "bad", "fine")]
    by_id = {result.case_id: result for result in triage.rank(readings, NOW)}
    assert by_id["good"].differential and by_id["fine"].differential
    assert by_id["bad"].differential == ()
    assert by_id["bad"].review.why == ("the symptom model failed on this case: ranked without a differential",)


def test_a_model_that_always_fails_drops_nothing(models):
    """With a symptom model that fails on everything, every case still comes out."""
    triage = Triage(replace(models, symptoms=FailingModel(models.symptoms)))
    results = triage.rank([case(str(n), age_years=n, complaint="fever", vitals=WELL) for n in range(20)], NOW)
    assert sorted(result.rank for result in results) == list(range(1, 21))
    assert all(result.review.needed for result in results)


def test_a_missing_photo_is_a_review_reason(triage, tmp_path):
    """A photo that is not there marks the case and names the file."""
    result = triage.assess(case(age_years=50, complaint="itchy rash", photos=[{"path": "gone.jpg"}]), NOW, tmp_path)
    assert result.lesion is None
    assert any("gone.jpg" in why for why in result.review.why)


SAMPLE_PHOTOS = Path(__file__).resolve().parent.parent / "data/sample/photos"


def test_a_bad_photo_gives_no_lesion_and_never_advice_alone(triage):
    """The blurred sample photo: no probabilities, its problem in the assessment, a reason in both languages, level 4 at most."""
    result = triage.assess(case(age_years=30, complaint="runny nose", vitals=WELL, photos=[{"path": "blurred.jpg"}]), NOW, SAMPLE_PHOTOS)
    assert result.lesion is None
    assert [(one.photo, one.problems, one.is_believed) for one in result.photos] == [("blurred.jpg", ("blurred",), False)]
    assert result.level <= 4 and result.review.needed
    reason = next(one for one in result.reasons if one.text.startswith("a photo could not be judged"))
    assert (reason.kind, bool(reason.text_ur)) == ("policy", True)


@pytest.mark.parametrize(("fitzpatrick", "is_asked"), [(2, False), (6, True)])
def test_a_benign_result_on_darker_skin_goes_to_a_clinician(triage, fitzpatrick, is_asked):
    """The same mole, said to be on skin of type II and of type VI; the probabilities do not depend on what is said."""
    photo = {"path": "mole.jpg", "fitzpatrick": fitzpatrick}
    result = triage.assess(case(age_years=20, complaint="runny nose", vitals=WELL, photos=[photo]), NOW, SAMPLE_PHOTOS)
    assert result.lesion is not None and result.photos[0].is_believed
    is_benign = result.lesion.malignancy_probability < triage.models.lesions.malignancy_threshold
    assert any("of darker skin" in why for why in result.review.why) is (is_asked and is_benign)
    assert not is_asked or result.level <= 4
    assert (result.photos[0].tone, result.photos[0].tone_source) == (f"type {fitzpatrick}", "said")


def test_no_photos_sent_is_not_the_folder_here(triage, tmp_path, monkeypatch):
    """An empty mapping never makes the service read a file of its own folder, whatever the case calls its photo."""
    Image.new("RGB", (200, 200), (190, 120, 90)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    reading = case(age_years=50, complaint="itchy rash", photos=[{"path": "a.png"}])
    assert not any("there is no such photo" in why for why in triage.assess(reading, NOW).review.why)
    result = triage.assess(reading, NOW, {})
    assert "photo not scored: a.png: there is no such photo in the photo folder; send it again" in result.review.why


def test_unknown_findings_are_named(triage):
    """A finding code that the catalogue does not have is a review reason, and the rest counts."""
    result = triage.assess(case(age_years=30, findings={"F_999": "present", "F_001": "present"}, vitals=WELL), NOW)
    assert "findings F_999 are not in the catalogue: enter them again" in result.review.why
    assert result.differential


def test_an_answer_that_is_neither_yes_nor_no_is_named(triage):
    """A binary finding answered "maybe" counts as present for the rules, to be safe, and the case is reviewed."""
    result = triage.assess(case(age_years=30, findings={"F_001": "maybe"}, vitals=WELL), NOW)
    assert "findings F_001=maybe are not in the catalogue: enter them again" in result.review.why


def test_the_referrers_priority_is_never_lowered(triage):
    """A referrer's `stat` puts a healthy-looking case at level 1."""
    assert triage.assess(case(age_years=30, complaint="runny nose", vitals=WELL, priority="stat"), NOW).level == 1


def test_every_score_names_where_it_came_from(triage):
    """Provenance has all three bundles, the rules, the policy and the input's hash, and repeats exactly."""
    reading = case(age_years=30, complaint="fever", vitals=WELL)
    one, two = triage.assess(reading, NOW), triage.assess(reading, NOW)
    assert one == two
    assert set(one.provenance.bundles) == {"symptoms", "acuity", "lesions"}
    assert all(len(name.sha256) == 64 for name in one.provenance.bundles.values())


def test_scores_do_not_depend_on_the_neighbours(triage):
    """A case gets the same level and the same probabilities (to 1e-5) alone and in a batch."""
    readings = [case(str(n), age_years=20 + n, complaint=text, vitals=WELL) for n, text in enumerate(["fever", "chest pain", "rash"])]
    together = {result.case_id: result for result in triage.rank(readings, NOW)}
    for reading in readings:
        alone = triage.assess(reading, NOW)
        assert alone.level == together[reading.case.case_id].level
        assert alone.emergency_probability == pytest.approx(together[reading.case.case_id].emergency_probability, abs=1e-5)


def test_longer_waits_come_first_within_a_level(triage):
    """Of two equal cases the one that has waited longer is ranked first."""
    old = case("old", age_years=30, complaint="runny nose", vitals=WELL, received_at=(NOW - timedelta(days=3)).isoformat())
    new = case("new", age_years=30, complaint="runny nose", vitals=WELL, received_at=NOW.isoformat())
    assert [result.case_id for result in triage.rank([new, old], NOW)] == ["old", "new"]


_WORSE = {
    "respiratory_rate_per_minute": (20, 40), "spo2_percent": (97, 70), "systolic_mmhg": (118, 60),
    "pulse_per_minute": (88, 190), "temperature_celsius": (37.2, 41.5),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(_WORSE)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    age=st.floats(0.1, 95),
    complaint=st.sampled_from(["", "fever and cough", "pait mein dard", "سینے میں درد"]),
)
def test_worsening_a_vital_never_lowers_the_level(triage, name, shares, age, complaint):
    """Through rules and models together, a worse vital never makes a case less urgent."""
    start, end = _WORSE[name]
    near, far = (start + (end - start) * share for share in sorted(shares))
    levels = [triage.assess(case(age_years=age, complaint=complaint, vitals={**WELL, name: value}), NOW).level for value in (near, far)]
    assert levels[1] <= levels[0]


def test_privacy_of_review_reasons(triage):
    """A name and a number in the complaint appear in no review reason, reason or provenance."""
    secret = "Muhammad Bakhsh 35202-1234567-1"
    result = triage.assess(case(complaint=f"{secret} zzqq", vitals={"spo2_percent": 300}), NOW)
    said = " ".join([*result.review.why, *(reason.text for reason in result.reasons), result.provenance.model_dump_json()])
    assert "Bakhsh" not in said and "35202" not in said
