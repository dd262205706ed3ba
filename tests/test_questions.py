"""The next best questions: information worked out by hand on a small model, and the way of asking with the shipped bundles."""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import questions
from inference.answers import expected_information
from inference.ask_command import add_ask
from inference.assessment import Provenance
from inference.bundle import Label
from inference.case import ABSENT, PRESENT, Case, CaseReading, read_case
from inference.errors import BundleError, CaseError
from inference.measurements import Limits, limits_of, measurement_text, question_facts
from inference.models import Models, load_models
from inference.policy import load_policy
from inference.prospects import Asked, open_findings
from inference.questions import Questions, best_questions
from inference.rules import assess_floor, iitt_signs
from inference.symptoms import SymptomModel
from inference.triage import Triage

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
WELL = {
    "respiratory_rate_per_minute": 16, "spo2_percent": 98, "on_oxygen": False, "systolic_mmhg": 120, "diastolic_mmhg": 80,
    "pulse_per_minute": 72, "consciousness": "A", "temperature_celsius": 36.8, "glucose_mg_dl": 100,
    "capillary_refill_seconds": 1,
}  # fmt: skip
PROVENANCE = Provenance(nabz_version="0", rule_version="0", policy_sha256="0", bundles={}, input_sha256="0")

# Four conditions, equally likely; `a` is of severity 1, the others of 4. One row: P(slot | condition).
LIKELIHOOD = {
    ("F_901", ""): (0.9, 0.1, 0.1, 0.1),  # the background is 0.1
    ("F_902", ""): (0.2, 0.2, 0.2, 0.2),  # tells nothing
    ("F_903", "left"): (0.5, 0.5, 0.8, 0.5),  # under F_901
    ("F_903", "right"): (0.5, 0.5, 0.2, 0.5),
    ("F_904", ""): (0.1, 0.7, 0.1, 0.1),  # of women alone
}


class BayesBundle:
    """Stands where a bundle stands: Bayes' rule on the table above, as an untrained network computes it."""

    sha256 = "0" * 64

    def __init__(self) -> None:
        wording = {"question_en": "?", "question_ur": "؟", "name_en": "n", "name_ur": "ن"}
        evidences = {code: {**wording, "slug": code, "background": 0.1} for code, _ in LIKELIHOOD}
        evidences["F_902"]["background"] = 0.2
        evidences["F_904"]["slug"] = "pregnancy"
        lexicon = {"phrases": [], "measured": [], "duration": [], "severe": [], "history": [], "districts": {}}
        self.contract = SimpleNamespace(
            task="symptoms",
            version="0.0.1",
            labels=tuple(Label(name=n, name_en=n, name_ur=n, icd10="J00", severity=s) for n, s in zip("abcd", (1, 4, 4, 4), strict=True)),
            thresholds={"severity_level_2": 0.5, "severity_level_3": 0.5, "severity_level_4": 0.05},
            conformal={"mass": 0.9},
            out_of_distribution=None,
            training={},
            vocabulary={
                "slots": [list(slot) for slot in LIKELIHOOD],
                "parents": {"F_903": "F_901"},
                "evidences": evidences,
                "lexicon": lexicon,
                "season": {},
                "province": {},
            },
        )
        self.calls: list[int] = []

    def run(self, feeds):
        evidence, table = feeds["evidence"], np.array(list(LIKELIHOOD.values()))
        self.calls.append(len(evidence))
        absent = np.log1p(-table)
        absent[2:4] = 0  # the other values of a chosen one say nothing more
        logits = np.maximum(evidence, 0) @ np.log(table) + np.maximum(-evidence, 0) @ absent
        powers = np.exp(logits)
        return {"probabilities": powers / powers.sum(axis=1, keepdims=True), "contributions": np.zeros_like(evidence)}


@pytest.fixture
def small() -> SymptomModel:
    """The model of four conditions."""
    return SymptomModel(BayesBundle())


@pytest.fixture(scope="session")
def triage(models_folder) -> Triage:
    """A triage with every shipped model."""
    return Triage(load_models(models_folder))


def asked_of(model: SymptomModel, level: int = 5, **fields) -> Asked:
    """A case of the small model with all vitals well."""
    case = Case(case_id="a", **{"vitals": WELL, **fields})
    read = model.read(case)
    return Asked(read, assess_floor(case, read.findings), level, model, load_policy())


def reading(**fields) -> CaseReading:
    """A case as it would arrive."""
    return read_case({"case_id": "a", **fields}, "a")


def codes(asked: Questions) -> list[str]:
    """The questions' codes."""
    return [question.code for question in asked.questions]


def test_likelihoods_are_read_off_the_model(small):
    """Bayes' rule turned round gives back the table that the model was made from."""
    assert small.answers.likelihood("F_901") == pytest.approx(np.array([[0.9, 0.1, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9]]))
    assert small.answers.likelihood("F_903")[0] == pytest.approx([0.5, 0.5, 0.8, 0.5])
    now = np.full(4, 0.25)
    assert small.answers.probabilities(["F_901", "F_902"], now) == pytest.approx([0.3, 0.7, 0.2, 0.8])
    assert small.answers.probabilities([], now).shape == (0,)


def test_information_worked_out_by_hand(small):
    """A yes has 0.3. For `a`, which counts 4 times, the divergence is 1.146 bits; for each of the others 0.168."""
    a = 0.9 * math.log2(0.9 / 0.3) + 0.1 * math.log2(0.1 / 0.7)
    other = 0.1 * math.log2(0.1 / 0.3) + 0.9 * math.log2(0.9 / 0.7)
    found = best_questions(asked_of(small, sex="male"), PROVENANCE)
    assert codes(found) == ["F_901"]  # F_902 tells nothing, F_903 waits for F_901, F_904 is not a man's
    (question,) = found.questions
    assert question.information == pytest.approx(4 * 0.25 * a + 0.75 * other, abs=1e-4)
    assert [answer.value for answer in question.answers] == [PRESENT, ABSENT]
    assert [answer.probability for answer in question.answers] == pytest.approx([0.3, 0.7])
    assert question.why_en.startswith("It tells most about a and b")


def test_with_equal_weights_information_is_the_fall_in_entropy():
    """Half and half, an answer that settles it: one bit. The same answer either way: none."""
    settled, same = np.eye(2), np.full((2, 2), 0.5)
    told = expected_information(np.concatenate([settled, same]), np.full(4, 0.5), np.array([0, 2]), np.ones(2))
    assert told.sum(axis=1) == pytest.approx([1, 0])


def test_all_answers_are_scored_in_one_call(small):
    """What is known and two answers to each of three findings: 7 rows, once the likelihoods are known."""
    asked = asked_of(small)
    best_questions(asked, PROVENANCE)
    calls = small._bundle.calls
    assert calls == [8, 7]
    best_questions(asked, PROVENANCE)
    assert calls == [8, 7, 7]


def test_what_is_known_or_hidden_or_does_not_concern_is_not_asked(small):
    """A child only under a present parent; a woman's finding of a woman or of someone whose sex is not known."""
    assert open_findings(asked_of(small), small) == ["F_901", "F_902", "F_904"]
    assert open_findings(asked_of(small, findings={"F_901": PRESENT}), small) == ["F_902", "F_903", "F_904"]
    assert open_findings(asked_of(small, findings={"F_901": ABSENT, "F_902": PRESENT}, sex="male"), small) == []
    assert open_findings(asked_of(small, age_years=5, sex="female"), small) == ["F_901", "F_902"]


def test_a_bundle_s_own_limits_go_before_the_shipped_ones(small):
    """A later bundle says itself whom a finding concerns."""
    small.vocabulary["applies"] = {"male_only": ["F_902"]}
    assert open_findings(asked_of(small, sex="female"), small) == ["F_901", "F_904"]
    assert open_findings(asked_of(small, sex="male"), small) == ["F_901", "F_902", "F_904"]


def test_the_limits_of_findings_are_the_catalogue_s(catalogue_folder):
    """The table that stands in for bundles without one repeats the catalogue's."""
    assert question_facts()["applies"] == tomllib.loads((catalogue_folder / "applies.toml").read_text(encoding="utf-8"))


def test_it_stops_when_the_set_is_small_and_nothing_can_raise(small):
    """At level 1 with `a` nearly sure."""
    small._sets._mass = 0.5
    found = best_questions(asked_of(small, level=1, findings={"F_901": PRESENT}), PROVENANCE)
    assert found.stop
    assert found.questions == ()
    assert found.set_size == 1
    assert found.stop_reason_en == "No likely answer could raise the level any more, and the 90 % set is small (1 condition)."
    assert "مختصر" in found.stop_reason_ur


def test_it_stops_when_nothing_is_left_to_gain(small):
    """Four conditions are left, and the one open finding tells nothing."""
    small._sets._mass = 0.97
    found = best_questions(asked_of(small, level=1, findings={"F_901": ABSENT, "F_904": ABSENT}), PROVENANCE)
    assert found.stop
    assert found.set_size == 4
    assert found.stop_reason_en == (
        "No likely answer could raise the level any more, and none would tell much more about the 4 conditions of the 90 % set."
    )


def test_a_case_that_many_answers_did_not_settle_goes_to_a_person(small, monkeypatch):
    """With as many findings known as are asked for, what tells much about the conditions is not asked any more."""
    small._sets._mass = 0.97
    asked = asked_of(small, level=1, findings={"F_902": PRESENT})
    assert codes(best_questions(asked, PROVENANCE))
    monkeypatch.setattr(questions, "MOST_FINDINGS", 1)
    assert best_questions(asked, PROVENANCE).stop_reason_en == (
        "1 findings are known and the 90 % set still has 4 conditions: a person must look, more questions will not settle it."
    )


def test_an_answer_that_settles_a_severe_condition_could_raise_the_level(small):
    """Told one finding of two, a yes makes `a` three in four: the differential would raise the level to 2."""
    small._sets._mass = 0.7
    found = best_questions(asked_of(small, findings={"F_902": PRESENT}), PROVENANCE)
    assert found.questions[0].code == "F_901"
    assert found.questions[0].could_reach_level == 2
    assert "an answer could raise the level from 5 to 2." in found.questions[0].why_en
    assert best_questions(asked_of(small, level=2, findings={"F_902": PRESENT}), PROVENANCE).stop  # it is there already


def test_a_measurement_names_the_limit_from_which_it_counts():
    """As the rule tables have it, for this case; the words are yellow for level 3 and red above."""
    case = Case(case_id="a", age_years=40)
    assert limits_of(case, {}, "spo2_percent", 3) == Limits(below=92)
    assert limits_of(case, {}, "pulse_per_minute", 2) == Limits(below=50, above=150)
    assert limits_of(case, {}, "temperature_celsius", 3) == Limits(below=36, above=39)
    assert limits_of(Case(case_id="a", age_years=0.3), {}, "respiratory_rate_per_minute", 3) == Limits()  # its age is yellow already
    assert limits_of(case, {}, "consciousness", 1) == Limits(choices=("P", "U"))
    assert measurement_text("spo2_percent", Limits(below=92), 3)[0] == "Oxygen saturation (SpO2), %: yellow if below 92"
    assert measurement_text("pulse_per_minute", Limits(50, 150), 2) == (
        "Pulse, beats a minute: red if below 50 or above 150",
        "نبض، فی منٹ: سرخ اگر 50 سے کم یا 150 سے زیادہ",
    )
    assert measurement_text("on_oxygen", Limits(choices=("true",)), 4)[0] == "Is the patient on oxygen?: level 4 if yes"
    assert measurement_text("glucose_mg_dl", Limits(), 3)[0] == "Blood sugar, mg/dL"


def test_every_vital_has_a_name_to_ask_for():
    """In both languages, with a step or choices."""
    measures = question_facts()["measure"]
    assert set(measures) == set(Case(case_id="a").vitals.model_dump())
    assert all(one["name_en"] and one["name_ur"] and ("step" in one) != ("choices" in one) for one in measures.values())


def test_chest_pain_asks_for_the_heart_first(triage):
    """The pulse, an ECG and a cold sweat: each could raise the level, those that the rules know first."""
    found = triage.ask(reading(age_years=38, sex="male", complaint="chest pain"), NOW)
    assert codes(found) == ["pulse_per_minute", "F_084", "F_005"]
    assert not found.stop
    assert [question.kind for question in found.questions] == ["measurement", "finding", "finding"]
    assert all(question.could_reach_level == 2 < found.level for question in found.questions)
    assert found.questions[1].why_en == "A yes is a sign of the triage rules (ECG shows acute ischaemia) and raises the level from 3 to 2."
    assert all(question.why_en and question.why_ur and question.text_ur for question in found.questions)
    assert set(found.provenance.bundles) == {"symptoms", "acuity"}


def test_signs_come_most_urgent_first(triage):
    """A feverish, coughing child: what could be level 1, then 2; after them information alone, falling."""
    found = triage.ask(reading(age_years=3, sex="male", complaint="bukhar aur khansi"), NOW, count=40)
    signs = [question for question in found.questions if "sign of the triage rules" in question.why_en]
    levels = [question.could_reach_level for question in found.questions if question in signs or question.kind == "measurement"]
    assert found.questions[0].code == "F_055"  # chest indrawing
    assert levels == sorted(levels)
    assert all(question.code in iitt_signs() for question in signs)
    rest = [question.information for question in found.questions if question not in signs and question.kind == "finding"]
    assert len(rest) > 5
    assert rest == sorted(rest, reverse=True)


def normal_answer(question, fields):
    """A patient who denies everything, has usual vitals and gives the likeliest value."""
    if question.kind == "measurement":
        fields["vitals"][question.code] = WELL[question.code]
    else:
        values = [answer.value for answer in question.answers]
        likeliest = max(question.answers, key=lambda answer: answer.probability).value
        fields["findings"][question.code] = ABSENT if ABSENT in values else likeliest


@pytest.mark.parametrize(
    ("age_years", "sex", "complaint"),
    [(38, "male", "chest pain"), (24, "female", "pait mein dard"), (3, "female", "bukhar"), (60, "unknown", "khujli"), (30, "male", "")],
)
def test_following_the_answers_ends_and_nothing_is_asked_twice(triage, age_years, sex, complaint):
    """Each question once, none known before, and at last a reason to stop."""
    fields = {"age_years": age_years, "sex": sex, "complaint": complaint, "findings": {}, "vitals": {}}
    seen = set()
    for _ in range(120):
        found = triage.ask(reading(**fields), NOW, count=2)
        if found.stop:
            break
        question = found.questions[0]
        assert question.code not in seen
        assert question.code not in triage.assess(reading(**fields), NOW).findings
        seen.add(question.code)
        normal_answer(question, fields)
    assert found.stop
    assert found.stop_reason_en
    assert found.stop_reason_ur
    assert len(seen) >= 2


@settings(max_examples=15, deadline=None)
@given(
    age_years=st.one_of(st.none(), st.floats(0, 95)),
    sex=st.sampled_from(["female", "male", "unknown"]),
    complaint=st.sampled_from(["", "bukhar", "saans phoolna aur khansi", "saanp ne kaat liya", "sar dard, ulti"]),
    pulse=st.one_of(st.none(), st.integers(30, 200)),
    count=st.integers(1, 6),
)
def test_asking_changes_nothing_and_is_repeatable(triage, age_years, sex, complaint, pulse, count):
    """The assessment is the same before and after, its level is the questions', and the same case gets the same questions."""
    fields = {"complaint": complaint, "sex": sex, "age_years": age_years, "vitals": {"pulse_per_minute": pulse}}
    before = triage.assess(reading(**fields), NOW)
    found = triage.ask(reading(**fields), NOW, count)
    assert triage.ask(reading(**fields), NOW, count) == found
    assert triage.assess(reading(**fields), NOW) == before
    assert found.level == before.level
    assert found.set_size is None or found.set_size >= 1
    assert len(found.questions) <= count
    assert found.stop is (found.questions == ())
    assert all(question.could_reach_level is None or question.could_reach_level < before.level for question in found.questions)
    assert "pulse_per_minute" not in codes(found) or pulse is None


def test_without_a_model_only_measurements_are_asked_for():
    """What rules could use, the most urgent first; when all is measured, a reason to stop that says so."""
    triage = Triage(Models(None, None, None, {}, ("no bundle",)))
    found = triage.ask(reading(age_years=40, complaint="chest pain"), NOW, count=20)
    assert {question.kind for question in found.questions} == {"measurement"}
    assert found.questions[0].code == "consciousness"
    assert [answer.value for answer in found.questions[0].answers] == ["A", "C", "V", "P", "U"]
    assert found.set_size is None
    done = triage.ask(reading(age_years=40, complaint="chest pain", vitals=WELL), NOW)
    assert done.stop
    assert done.stop_reason_en == (
        "Without the symptom model only measurements can be asked for, and none that is missing could raise the level."
    )


def test_a_model_that_fails_leaves_the_measurements(triage, monkeypatch):
    """The case's assessment names the failure; asking goes on by rules."""

    def fail(case, rows):
        raise BundleError("symptoms 1.0.0: the model failed on this batch")

    monkeypatch.setattr(triage.models.symptoms, "posterior", fail)
    found = triage.ask(reading(age_years=38, sex="male", complaint="chest pain"), NOW, count=20)
    assert {question.kind for question in found.questions} == {"measurement"}
    assert found.set_size is None


def test_a_likely_fever_asks_for_the_thermometer(triage):
    """A headache is one sign of two; a temperature beyond the limits would be the second, unless fever is denied."""
    found = triage.ask(reading(age_years=30, sex="female", complaint="bukhar", findings={"F_137": PRESENT}), NOW, count=20)
    assert "temperature_celsius" in codes(found)
    denied = triage.ask(reading(age_years=30, sex="female", findings={"F_137": PRESENT, "F_001": ABSENT}), NOW, count=40)
    assert "temperature_celsius" not in codes(denied)


def run(arguments: list[str]) -> int:
    """The command alone, as the top parser would run it."""
    parser = argparse.ArgumentParser(prog="nabz")
    add_ask(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return int(args.run(args))


def test_the_command_prints_words_or_json(tmp_path, capsys, models_folder):
    """Both forms say the same; what was wrong with the case goes to stderr and into the exit status."""
    file = tmp_path / "case.json"
    file.write_text(json.dumps({"case_id": "r-1", "age_years": 38, "sex": "male", "complaint": "chest pain"}), encoding="utf-8")
    models = ["--models", str(models_folder)]
    assert run(["ask", str(file), "--json", "--count", "2", *models]) == 0
    found = Questions.model_validate_json(capsys.readouterr().out)
    assert codes(found) == ["pulse_per_minute", "F_084"]
    assert run(["ask", str(file), "--count", "2", *models]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(question.text_en in shown and question.why_ur in shown for question in found.questions)
    assert "answers: a number" in shown
    file.write_text(json.dumps({"case_id": "r-1", "age_years": -3, "complaint": "saanp ne kaat liya, behosh"}), encoding="utf-8")
    assert run(["ask", str(file), *models]) == 1
    output = capsys.readouterr()
    assert "age_years is -3, expected 0 to 125" in output.err


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys, models_folder):
    """No questions at all, and a file of several cases."""
    with pytest.raises(SystemExit):
        run(["ask", "x.json", "--count", "0"])
    assert "'0' is not a number of questions: expected 1 or more" in capsys.readouterr().err
    file = tmp_path / "cases.jsonl"
    file.write_text('{"case_id": "a"}\n{"case_id": "b"}\n', encoding="utf-8")
    with pytest.raises(CaseError) as caught:
        run(["ask", str(file), "--models", str(models_folder)])
    assert str(caught.value) == f"{file} holds 2 cases: name a file with one"
