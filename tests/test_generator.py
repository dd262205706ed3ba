"""Tests of the patient generator: who is drawn, which answers, and what of them gets known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.evidence import AGE_BAND_STARTS_YEARS, demographic_index
from training.generator import PROVINCE_SHARES, SEASON_SHARES, PatientGenerator, Patients, band_of, finding_map
from training.knowledge import MULTI_VALUE_PROBABILITY, UNSEEN_VALUE_PROBABILITY, Knowledge, load_knowledge

N = 20_000
FEMALE, MALE = 0, 1
FLU, COLD = 0, 1
E_1, E_2, E_3, E_4, E_5 = 0, 1, [2, 3, 4], [5, 6, 7], 8


@pytest.fixture(scope="module")
def catalogue(catalogue_folder) -> Knowledge:
    """The knowledge of the shipped catalogue."""
    return load_knowledge(catalogue_folder)


@pytest.fixture(scope="module")
def drawn(catalogue) -> Patients:
    """Patients from the shipped catalogue."""
    return PatientGenerator(catalogue).draw(6000, np.random.default_rng(3))


@pytest.fixture
def tiny(tiny_release) -> Knowledge:
    """Two conditions, five evidences."""
    return load_knowledge(tiny_release)


def slots_of(knowledge: Knowledge, slug: str) -> list[int]:
    """The places of a finding's slots."""
    code = next(code for code, evidence in knowledge.evidences.items() if evidence["slug"] == slug)
    return [place for place, slot in enumerate(knowledge.slots) if slot.code == code]


def test_conditions_follow_the_prior(tiny):
    """Flu 0.2, cold 0.8; tempered by a half their ratio is the square root, 1 to 2."""
    patients = PatientGenerator(tiny).draw(N, np.random.default_rng(0))
    assert np.mean(patients.condition == FLU) == pytest.approx(0.2, abs=0.01)
    tempered = PatientGenerator(tiny, tempering=0.5)
    assert tempered.weights == pytest.approx([1 / 3, 2 / 3])
    assert np.mean(tempered.draw(N, np.random.default_rng(0)).condition == FLU) == pytest.approx(1 / 3, abs=0.01)


def test_age_and_sex_follow_the_multipliers(tiny):
    """No newborn has the flu, some have a cold; more women than men have a cold, whose multiplier is 3 to 1 for them."""
    patients = PatientGenerator(tiny).draw(N, np.random.default_rng(0))
    flu, cold = patients.condition == FLU, patients.condition == COLD
    assert band_of(patients.age_years[flu]).min() == 1
    assert band_of(patients.age_years[cold]).min() == 0
    women = [np.mean(patients.sex[rows] == FEMALE) for rows in (cold, flu)]
    assert women[0] > 0.52
    assert women[0] > women[1]


def test_seasons_and_provinces_follow_the_population_where_nothing_speaks_against_it(tiny):
    """A condition without multipliers has the shares of the year and of the census."""
    patients = PatientGenerator(tiny).draw(N, np.random.default_rng(0))
    for drawn_names, shares, names in (
        (patients.season, SEASON_SHARES, list(tiny.season)),
        (patients.province, PROVINCE_SHARES, list(tiny.province)),
    ):
        found = np.bincount(drawn_names, minlength=len(names)) / N
        assert found == pytest.approx([shares[name] for name in names], abs=0.015)


def test_a_condition_of_one_season_is_drawn_in_it_only(tiny):
    """With a multiplier of (nearly) 0 in all other seasons."""
    only = {name: np.array([0.0, 0.0 if name == "monsoon" else -30.0]) for name in tiny.season}
    patients = PatientGenerator(replace(tiny, season=only)).draw(2000, np.random.default_rng(0))
    assert set(patients.season[patients.condition == COLD]) == {list(tiny.season).index("monsoon")}
    assert len(set(patients.season[patients.condition == FLU])) == 5


def test_answers_follow_the_presence(tiny):
    """Each slot's share of +1 among flu patients, children among those with their parent, is the knowledge's."""
    patients = PatientGenerator(tiny).draw(N, np.random.default_rng(1))
    answers = patients.answers[patients.condition == FLU]
    shares = (answers == 1).mean(axis=0)
    assert shares[[E_1, E_2, E_5]] == pytest.approx([0.8, 0.5, 0.3], abs=0.03)
    asked = answers[answers[:, E_2] == 1]
    assert (asked[:, E_3] == 1).mean(axis=0) == pytest.approx([0.0, 0.4, 0.6], abs=0.03)
    assert (asked[:, E_4] == 1).mean(axis=0) == pytest.approx([0.0, MULTI_VALUE_PROBABILITY, UNSEEN_VALUE_PROBABILITY], abs=0.03)


def test_a_question_with_one_answer_has_one_and_one_with_several_has_some_or_is_not_answered(tiny):
    """Where pain is present: one severity; and one place or more, or nothing known of any place."""
    patients = PatientGenerator(tiny).draw(2000, np.random.default_rng(1))
    asked = patients.answers[patients.answers[:, E_2] == 1]
    assert ((asked[:, E_3] == 1).sum(axis=1) == 1).all()
    places = asked[:, E_4]
    some = (places == 1).any(axis=1)
    assert some.any()
    assert (~some).any()
    assert (places[some] != 0).all()
    assert (places[~some] == 0).all()


def test_answers_respect_parents(catalogue, drawn):
    """A child is +1 or -1 only under a present parent, in the whole catalogue."""
    children = np.flatnonzero(catalogue.parent >= 0)
    parents = drawn.answers[:, catalogue.parent[children]]
    assert (drawn.answers[:, children][parents != 1] == 0).all()
    assert (drawn.answers[:, children][parents == 1] != 0).any()


@pytest.mark.parametrize(
    ("slug", "outside"),
    [
        ("pregnancy", lambda p: p.sex == MALE),
        ("pregnancy", lambda p: p.age_years < 12),
        ("testicular_pain", lambda p: p.sex == FEMALE),
        ("newborn_not_feeding", lambda p: p.age_years >= 2),
        ("low_muac", lambda p: p.age_years >= 12),
        ("smoking", lambda p: p.age_years < 12),
    ],
)
def test_findings_stay_within_their_limits(catalogue, drawn, slug, outside):
    """No pregnant men, no smoking infants: outside its limits a finding is absent, inside it occurs."""
    rows, slots = outside(drawn), slots_of(catalogue, slug)
    assert rows.any()
    assert (drawn.answers[np.ix_(rows, slots)] == -1).all()
    assert (drawn.answers[np.ix_(~rows, slots)] == 1).any()


def test_children_of_what_is_out_of_limits_are_not_asked(catalogue, drawn):
    """Nobody asks a man how many weeks pregnant he is."""
    gestation = slots_of(catalogue, "gestation")
    assert (drawn.answers[np.ix_(drawn.sex == MALE, gestation)] == 0).all()


def test_the_same_seed_draws_the_same_patients(catalogue):
    """Every array is equal; another seed gives others."""
    generator = PatientGenerator(catalogue)
    one, two, other = (generator.draw(50, np.random.default_rng(seed)) for seed in (7, 7, 8))
    for name in Patients.__dataclass_fields__:
        assert (getattr(one, name) == getattr(two, name)).all()
    assert (one.answers != other.answers).any()


def test_demographics_are_counted_as_inference_counts_them(drawn):
    """The generator's table index is `demographic_index` of age and sex; ages lie in their bands."""
    expected = [demographic_index(age, ("female", "male")[sex]) for age, sex in zip(drawn.age_years, drawn.sex, strict=True)]
    assert drawn.demographics().tolist() == expected
    assert drawn.age_years.min() >= 0
    assert drawn.age_years.max() < 92
    assert band_of(np.array(AGE_BAND_STARTS_YEARS)).tolist() == [0, 1, 2, 3, 4]


def test_masking_hides_whole_findings_and_children_with_their_parent(catalogue, drawn):
    """What is left is as it was answered; a finding is known in all its slots or in none."""
    masked = PatientGenerator(catalogue).mask_missing(drawn, 0.5, np.random.default_rng(0))
    known = masked != 0
    assert (masked[known] == drawn.answers[known]).all()
    children = np.flatnonzero(catalogue.parent >= 0)
    assert (masked[:, children][masked[:, catalogue.parent[children]] != 1] == 0).all()
    places = slots_of(catalogue, "cough_duration")
    assert set(known[:, places].sum(axis=1)) == {0, len(places)}


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_masking_loses_about_the_share_of_the_findings(catalogue, drawn, share):
    """Counted on background questions, which are never the first complaint and have no parent."""
    masked = PatientGenerator(catalogue).mask_missing(drawn, share, np.random.default_rng(0))
    free = [
        place
        for place, slot in enumerate(catalogue.slots)
        if catalogue.kind[place] == "B" and catalogue.parent[place] < 0 and catalogue.evidences[slot.code]["is_antecedent"]
    ]
    assert np.mean(masked[:, free] == 0) == pytest.approx(share, abs=0.01)


def test_each_patient_can_lose_a_share_of_their_own(catalogue, drawn):
    """Half of the patients lose nothing, the others all but the first complaint."""
    shares = np.where(np.arange(6000) < 3000, 0.0, 1.0)
    masked = PatientGenerator(catalogue).mask_missing(drawn, shares, np.random.default_rng(0))
    assert (masked[:3000] == drawn.answers[:3000]).all()
    assert ((masked[3000:] != 0).sum(axis=1) <= 1).all()


def test_the_first_complaint_is_always_known(catalogue, drawn):
    """Even when all is lost: one present symptom for everyone who has any."""
    generator = PatientGenerator(catalogue)
    masked = generator.mask_missing(drawn, 1.0, np.random.default_rng(0))
    first = generator.first_complaint(drawn, np.random.default_rng(0))
    has_one = first >= 0
    assert has_one.mean() > 0.95
    assert ((masked[has_one] == 1).sum(axis=1) == 1).all()
    assert (masked[~has_one] == 0).all()


def test_the_first_complaint_is_a_leading_symptom_where_one_is_present(tiny):
    """Of fever and pain, both present, the leading one is chosen; background questions never are."""
    chief = np.zeros((2, len(tiny.slots)), dtype=bool)
    chief[FLU, E_2] = True
    knowledge = replace(tiny, chief=chief)
    answers = np.full((4, len(tiny.slots)), -1, dtype=np.int8)
    answers[0, [E_1, E_2]] = 1
    answers[1, E_1] = 1
    answers[2, E_5] = 1
    nobody = np.zeros(4, dtype=np.int64)
    patients = Patients(nobody, nobody + 30.0, nobody, nobody, nobody, answers)
    for seed in range(10):
        first = PatientGenerator(knowledge).first_complaint(patients, np.random.default_rng(seed))
        assert first.tolist() == [E_2, E_1, -1, -1]


def test_a_single_complaint_is_one_present_symptom(catalogue, drawn):
    """The rest is unknown; with all asked, everything is known again."""
    generator = PatientGenerator(catalogue)
    single = generator.mask_to_complaint(drawn, np.random.default_rng(0), single=True)
    assert ((single != 0).sum(axis=1) <= 1).all()
    assert single.min() == 0
    everything = generator.mask_to_complaint(drawn, np.random.default_rng(0), single=True, asked_share=1.0)
    assert (everything == drawn.answers).all()


def test_a_complaint_says_present_symptoms_only(catalogue, drawn):
    """Nobody comes to say what they do not have; several symptoms can be said."""
    said = PatientGenerator(catalogue).mask_to_complaint(drawn, np.random.default_rng(0), single=False)
    assert set(np.unique(said)) == {0, 1}
    assert (said == 1).sum(axis=1).max() > 2


def test_the_shift_is_the_sum_of_season_and_province(tiny):
    """Log multipliers add; with a random generator some patients' context stays unknown, about 3 in 10."""
    knowledge = replace(
        tiny,
        season={name: np.array([1.0, 0.0]) for name in tiny.season},
        province={name: np.array([0.5, 0.25]) for name in tiny.province},
    )
    generator = PatientGenerator(knowledge)
    patients = generator.draw(5000, np.random.default_rng(0))
    assert (generator.log_shift(patients) == np.array([1.5, 0.25], dtype=np.float32)).all()
    partly = generator.log_shift(patients, np.random.default_rng(1))
    assert np.mean((partly == 0).all(axis=1)) == pytest.approx(0.3, abs=0.03)


def test_a_row_of_answers_as_a_case_s_findings(tiny):
    """Yes-or-no words, one value, several values; what is unknown is not there."""
    answers = np.array([1, 1, -1, -1, 1, -1, 1, 1, 0])
    assert finding_map(tiny, answers) == {"E_1": "present", "E_2": "present", "E_3": "2", "E_4": ("V_a", "V_b")}
    assert finding_map(tiny, np.array([-1, 0, 0, 0, 0, 0, 0, 0, 0])) == {"E_1": "absent"}
