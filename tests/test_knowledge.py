"""Tests of what a symptom model is born knowing, on a release small enough to work out by hand."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest

from inference.errors import DataError
from inference.evidence import DEMOGRAPHICS, Slot, demographic_index
from training.knowledge import BAND_SHARES, MULTI_VALUE_PROBABILITY, UNSEEN_VALUE_PROBABILITY, Knowledge, load_knowledge

FLU, COLD = 0, 1
RARE = 1e-5
SLOTS = [
    ("E_1", ""),
    ("E_2", ""),
    ("E_3", "0"),
    ("E_3", "1"),
    ("E_3", "2"),
    ("E_4", "V_none"),
    ("E_4", "V_a"),
    ("E_4", "V_b"),
    ("E_5", ""),
]


@pytest.fixture(scope="module")
def catalogue(catalogue_folder) -> Knowledge:
    """The knowledge of the shipped catalogue."""
    return load_knowledge(catalogue_folder)


def test_slots_follow_the_evidences_and_their_values(tiny_release):
    """One slot for a yes-or-no question, one for each value of the others; children point at their parent's slot."""
    knowledge = load_knowledge(tiny_release)
    assert knowledge.labels == ("flu", "cold")
    assert knowledge.slots == tuple(Slot(*slot) for slot in SLOTS)
    assert knowledge.kind == ("B", "B", "C", "C", "C", "M", "M", "M", "B")
    assert knowledge.parent.tolist() == [-1, -1, 1, 1, 1, 1, 1, 1, -1]
    assert knowledge.parents_by_code() == {"E_3": "E_2", "E_4": "E_2"}


def test_probabilities_become_conditional_on_the_parent(tiny_release):
    """Half have pain; 0.2 and 0.3 of all are 0.4 and 0.6 of those, and "0" was the default of the half never asked."""
    knowledge = load_knowledge(tiny_release)
    assert knowledge.presence[FLU] == pytest.approx([0.8, 0.5, 0.0, 0.4, 0.6, 0.0, MULTI_VALUE_PROBABILITY, UNSEEN_VALUE_PROBABILITY, 0.3])


def test_what_a_condition_does_not_list_falls_back(tiny_release):
    """A symptom to almost never, a question's default to certain."""
    knowledge = load_knowledge(tiny_release)
    assert knowledge.presence[COLD] == pytest.approx([0.1, RARE, 1.0, RARE, RARE, 1.0, RARE, RARE, 0.3])


def test_priors_and_demographics_are_bayes_rule_on_the_multipliers(tiny_release):
    """Flu 0.2 against cold 0.8: women have 3 times the cold's multiplier of men, newborns (3 % of patients) no flu."""
    knowledge = load_knowledge(tiny_release)
    assert knowledge.prior.tolist() == [0.2, 0.8]
    table = knowledge.log_demographics
    assert table.shape == (DEMOGRAPHICS, 2)
    woman, man, unknown = (table[demographic_index(30, sex)] for sex in ("female", "male", "unknown"))
    assert woman == pytest.approx([log(0.2 / 0.97), log(0.8 * 1.5)])
    assert man == pytest.approx([log(0.2 / 0.97), log(0.8 * 0.5)])
    assert unknown == pytest.approx([log(0.2 / 0.97), log(0.8)])


def test_the_multipliers_redistribute_and_do_not_change_how_often_a_condition_is_seen(tiny_release):
    """Averaged over the population's age bands and both sexes, each condition keeps its prior."""
    knowledge = load_knowledge(tiny_release)
    known = np.exp(knowledge.log_demographics).reshape(-1, 3, 2)[:-1, :2]
    assert (known * BAND_SHARES[:, None, None] / 2).sum(axis=(0, 1)) == pytest.approx(knowledge.prior, abs=1e-6)


def test_what_cannot_be_at_an_age_is_very_unlikely_and_not_impossible(tiny_release):
    """An age can be typed wrong: a millionth of the leading condition's prior stays."""
    table = load_knowledge(tiny_release).log_demographics
    newborn = table[demographic_index(0.01, "male")]
    assert newborn == pytest.approx([log(0.4e-6), log(0.4)])


def test_an_unknown_age_averages_over_the_bands(tiny_release):
    """With the age unknown, each condition is as likely as its prior and sex say."""
    assert BAND_SHARES.sum() == pytest.approx(1)
    table = load_knowledge(tiny_release).log_demographics
    assert np.exp(table[demographic_index(None, "male")]) == pytest.approx([0.2, 0.4])


def test_a_folder_that_is_neither_kind_is_refused(tmp_path):
    """The message says what is looked for."""
    with pytest.raises(DataError) as caught:
        load_knowledge(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is neither a catalogue nor a folder with release_conditions.json, release_evidences.json and "
        "train_statistics.json or release_train_patients.csv"
    )


def test_patients_alone_are_enough(tiny_release):
    """Without statistics they are counted: 30 of 40 flu patients have the fever; smoothing moves that by one patient."""
    (tiny_release / "train_statistics.json").unlink()
    header = "AGE,DIFFERENTIAL_DIAGNOSIS,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE\n"
    flu = ["30,[],F,flu,\"['E_1', 'E_2', 'E_3_@_2']\",E_1\n"] * 30 + ["30,[],F,flu,[],E_1\n"] * 10
    cold = ["70,[],M,cold,\"['E_1']\",E_1\n"] * 6 + ["70,[],M,cold,[],E_1\n"] * 54
    (tiny_release / "release_train_patients.csv").write_text(header + "".join(flu + cold))
    knowledge = load_knowledge(tiny_release)
    assert knowledge.prior == pytest.approx([41 / 102, 61 / 102])
    overall = (36 + 0.5) / 101
    assert knowledge.presence[FLU][0] == pytest.approx((30 + overall) / 41)
    assert knowledge.presence[COLD][0] == pytest.approx((6 + overall) / 61)
    who = knowledge.log_demographics
    assert who[demographic_index(30, "female")][0] > who[demographic_index(30, "male")][0]


def test_broken_json_is_refused(tiny_release):
    """As if the file were not there."""
    (tiny_release / "train_statistics.json").write_text("{")
    with pytest.raises(DataError, match="is neither a catalogue nor a folder with"):
        load_knowledge(tiny_release)


def test_the_catalogue_s_arrays_fit_together(catalogue):
    """Every probability is one, every parent is a yes-or-no slot before it is needed, every condition has a complaint."""
    conditions, slots = len(catalogue.labels), len(catalogue.slots)
    assert catalogue.presence.shape == catalogue.chief.shape == (conditions, slots)
    assert ((catalogue.presence >= 0) & (catalogue.presence <= 1)).all()
    assert catalogue.prior.sum() == pytest.approx(1)
    assert np.isfinite(catalogue.log_demographics).all()
    children = np.flatnonzero(catalogue.parent >= 0)
    assert {catalogue.kind[place] for place in catalogue.parent[children]} == {"B"}
    assert catalogue.chief.any(axis=1).all()
    assert all(shift.shape == (conditions,) for shift in (*catalogue.season.values(), *catalogue.province.values()))


def test_the_catalogue_s_categorical_probabilities_sum_to_one(catalogue):
    """For every condition and every question with one answer, listed or not."""
    codes = {slot.code for slot, kind in zip(catalogue.slots, catalogue.kind, strict=True) if kind == "C"}
    for code in codes:
        places = [place for place, slot in enumerate(catalogue.slots) if slot.code == code]
        assert catalogue.presence[:, places].sum(axis=1) == pytest.approx(np.ones(len(catalogue.labels)), abs=0.1), code


def test_seasons_and_provinces_are_log_multipliers(catalogue):
    """Cholera is written as 2.5 times as common in the monsoon and 1.6 times in Sindh; what is not written is 1."""
    cholera = catalogue.labels.index("cholera")
    assert catalogue.season["monsoon"][cholera] == pytest.approx(log(2.5))
    assert catalogue.province["sindh"][cholera] == pytest.approx(log(1.6))
    assert catalogue.season["autumn"][cholera] == 0


def test_a_background_stands_for_what_a_condition_does_not_list(catalogue):
    """Cough is no part of a sprain: its share there is the finding's background."""
    evidence = next(e for e in catalogue.evidences.values() if e["slug"] == "cough")
    place = catalogue.slots.index(Slot(evidence["name"], ""))
    unlisted = [row for row, label in enumerate(catalogue.labels) if evidence["name"] not in catalogue.conditions[label]["symptoms"]]
    assert unlisted
    assert set(catalogue.presence[unlisted, place]) == {evidence["background"]}


def test_limits_name_codes(catalogue):
    """`applies.toml` is written in slugs, the generator works with codes."""
    assert all(code in catalogue.evidences for codes in catalogue.applies.values() for code in codes)
    assert catalogue.evidences[catalogue.applies["male_only"][0]]["slug"] == "testicular_pain"


def test_the_real_release_loads(shared_data):
    """49 conditions and 223 evidences, with probabilities."""
    knowledge = load_knowledge(shared_data / "ddxplus")
    evidences = json.loads((shared_data / "ddxplus" / "release_evidences.json").read_text(encoding="utf-8"))
    assert len(knowledge.labels) == 49
    assert knowledge.evidences.keys() == evidences.keys()
    assert ((knowledge.presence >= 0) & (knowledge.presence <= 1)).all()


def test_a_question_under_a_code_that_is_no_evidence_is_asked_of_all(tiny_release):
    """DDXPlus asks for an earlier pneumonia under a code that it does not have: its share is the patients'."""
    path = tiny_release / "release_evidences.json"
    evidences = json.loads(path.read_text(encoding="utf-8"))
    evidences["E_5"]["code_question"] = "E_9"
    path.write_text(json.dumps(evidences), encoding="utf-8")
    knowledge = load_knowledge(tiny_release)
    assert knowledge.presence[:, -1] == pytest.approx([0.3, 0.3])
    assert knowledge.parent[-1] == -1
