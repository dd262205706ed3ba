"""The acuity model: what a row holds, that a worse vital never lowers a probability, and the bundle's own promises."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import acuity
from inference.acuity import CONSCIOUSNESS, AcuityEncoder, AcuityModel
from inference.bundle import load_bundle
from inference.case import Case, Vitals
from inference.errors import BundleError
from inference.models import live_versions
from inference.rules import iitt_signs
from training.acuity import danger_signs, exported, linear_source
from training.acuity_evaluation import over_triage_at
from training.acuity_fitting import Linear, fit_logistic
from training.export import check_parity
from training.metrics import net_benefit

MODELS = Path(__file__).resolve().parent.parent / "models"
BUNDLE = MODELS / "acuity" / live_versions(MODELS)["acuity"]
ENCODER = AcuityEncoder({"F_050": "breathlessness", "F_001": "fever", "F_137": "headache"}, ["F_092", "F_093", "F_094"], ["F_001"])
PLACE = {name: place for place, name in enumerate(ENCODER.names)}

# Each vital with its usual range in an adult: from there outwards is worse.
WORSE = {
    "respiratory_rate_per_minute": (16.0, 0.0, 120.0),
    "spo2_percent": (100.0, 30.0, 100.0),
    "systolic_mmhg": (125.0, 30.0, 320.0),
    "diastolic_mmhg": (75.0, 10.0, 220.0),
    "pulse_per_minute": (75.0, 0.0, 330.0),
    "temperature_celsius": (37.0, 24.0, 45.0),
}


def _row(**fields):
    findings = fields.pop("findings", {})
    row = ENCODER.case_row(Case(case_id="a", **fields), findings)
    return {name: row[place] for name, place in PLACE.items()}


def test_a_vital_enters_as_its_distance_from_the_usual():
    """SpO2 of 91 is 9 points below: 2/5 up its second ramp; a pulse of 150 is 100 percent above 75: the end of both ramps."""
    row = _row(age_years=30, vitals={"spo2_percent": 91, "pulse_per_minute": 150})
    assert (row["spo2_below_from_3"], row["spo2_below_from_7"]) == (1.0, pytest.approx(0.4))
    assert (row["pulse_above_from_20"], row["pulse_above_from_50"], row["pulse_below_from_20"]) == (1.0, 1.0, 0.0)
    assert (row["spo2_unmeasured"], row["breaths_unmeasured"], row["unmeasured"]) == (0.0, 1.0, 4.0)
    assert row["strain_adult"] == pytest.approx(1.0 + 0.4 + 2.0)


def test_the_usual_depends_on_age():
    """A pulse of 140 is far too fast at thirty years and usual at four months."""
    assert _row(age_years=30, vitals={"pulse_per_minute": 140})["pulse_above_from_50"] > 0.9
    assert _row(age_years=0.3, vitals={"pulse_per_minute": 140})["pulse_above_from_20"] == 0.0


def test_unknown_is_a_state_of_its_own():
    """Age, sex, arrival and consciousness that are not known are marked so, never taken for no."""
    row = _row()
    assert [row[name] for name in ("age_unknown", "sex_unknown", "arrival_unknown", "consciousness_unmeasured")] == [1.0] * 4
    row = _row(age_years=3, sex="female", arrival="other", vitals={"consciousness": "A"})
    assert [row[name] for name in ("age_unknown", "sex_unknown", "arrival_unknown", "consciousness_unmeasured")] == [0.0] * 4
    assert (row["female"], row["ambulance"], row["child"]) == (1.0, 0.0, 1.0)


def test_pain_enters_in_steps_and_weighs_more_within_the_body():
    """A score of 5 is past moderate (4) and half way to 6; with a headache it counts as central too, with a fever it does not."""
    steps = ("from_0", "from_3", "from_4", "from_6")
    row = _row(findings={"F_137": "present"}, vitals={"pain_score": 5})
    assert [row[f"pain_{step}"] for step in steps] == [1.0, 1.0, 0.5, 0.0]
    assert [row[f"central_pain_{step}"] for step in steps] == [1.0, 1.0, 0.5, 0.0]
    assert (row["pain_unmeasured"], row["central_pain_unmeasured"]) == (0.0, 0.0)
    row = _row(findings={"F_001": "present"}, vitals={"pain_score": 10})
    assert ([row[f"pain_{step}"] for step in steps], row["central_pain_from_3"]) == ([1.0] * 4, 0.0)


def test_pain_that_nobody_asked_about_is_a_state_of_its_own():
    """No score is not a score of 0, and beside a headache it is marked once more."""
    row = _row(findings={"F_137": "present"})
    assert (row["pain_unmeasured"], row["central_pain_unmeasured"], row["pain_from_0"]) == (1.0, 1.0, 0.0)
    row = _row(findings={"F_137": "present"}, vitals={"pain_score": 0})
    assert (row["pain_unmeasured"], row["central_pain_unmeasured"], row["pain_from_0"]) == (0.0, 0.0, 0.0)


def test_groups_come_from_present_findings_only():
    """A denied or unknown finding opens no group; a value counts as present; a strange code is left out."""
    row = _row(age_years=50, findings={"F_050": "absent", "F_001": "present", "X_999": "present"})
    assert (row["breathlessness"], row["fever"], row["fever_by_age"], row["F_001"]) == (0.0, 1.0, 5.0, 1.0)


def test_chronic_conditions_are_counted_and_known_only_when_asked():
    """One condition stated is one known; only three that are denied say that there are no others."""
    row = _row(findings={"F_092": "present"})
    assert (row["chronic"], row["chronic_asked"]) == (1.0, 0.0)
    row = _row(findings={"F_092": "absent", "F_093": "absent", "F_094": "absent"})
    assert (row["chronic"], row["chronic_asked"]) == (0.0, 1.0)


@cache
def _small_model() -> tuple[Linear, Linear]:
    """Two heads fitted on visits whose outcome depends on the vitals in the wrong direction."""
    random = np.random.default_rng(0)
    rows, truth = [], []
    for _ in range(400):
        spo2, pulse = random.uniform(70, 100), random.uniform(50, 170)
        vitals = Vitals(spo2_percent=spo2, pulse_per_minute=pulse)
        groups = ["breathlessness"] if random.random() < 0.5 else []
        rows.append(ENCODER.row(random.uniform(0, 90), "female", None, 0, False, vitals, groups))
        truth.append(random.random() < 1 / (1 + np.exp((100 - spo2) / 10 - pulse / 100)))
    is_rising = np.array([name in ENCODER.rising for name in ENCODER.names])
    table = np.array(rows, dtype=np.float32)
    head = fit_logistic(table, np.array(truth, dtype=float), np.ones(len(ENCODER.names)), is_rising)
    return head, head.rescaled(0.5, 1.0)


def test_the_sign_holds_against_the_data():
    """Where the data say that a worse vital is better, the weight is 0, not negative."""
    head, _ = _small_model()
    rising = [place for name, place in PLACE.items() if name in ENCODER.rising]
    assert (head.weights[rising] >= 0).all()
    assert (head.weights[rising] > 0).any()


def test_the_graph_answers_as_the_arithmetic():
    """The exported graph and the two heads agree on every row."""
    critical, emergency = _small_model()
    rows = np.random.default_rng(1).uniform(0, 3, (50, len(ENCODER.names))).astype(np.float32)
    report = check_parity(linear_source(critical, emergency), exported(critical, emergency), {"features": rows})
    assert report["rows"] == 50


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_worse_vital_never_lowers_a_small_model(data):
    """Whatever the rest of the case, moving one vital outwards from its usual value never lowers the logit."""
    case, worse = data.draw(_case_and_worse())
    critical, emergency = _small_model()
    before, after = (np.array(ENCODER.case_row(one, {}), dtype=np.float32) for one in (case, worse))
    for head in (critical, emergency):
        assert head.logit(after) >= head.logit(before) - 1e-9


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_worse_vital_never_lowers_the_shipped_model(data):
    """The same for the shipped bundle, with the findings that the vital itself gives."""
    model = _shipped()
    case, worse = data.draw(_case_and_worse())
    codes = data.draw(st.lists(st.sampled_from(sorted(model._bundle.contract.vocabulary["groups"])), max_size=4, unique=True))
    findings = dict.fromkeys(codes, "present")
    (before, after) = model.score_cases([(case, findings), (worse, findings | _measured(case, worse))])
    assert after[0] >= before[0] - 1e-6
    assert after[1] >= before[1] - 1e-6


def _usual(name: str, age_years: float) -> float:
    """The value from which a vital gets worse to either side, at this age."""
    band = bisect_right(acuity.AGE_STARTS_YEARS, age_years) - 1
    systolic = min(acuity.ADULT_SYSTOLIC, 90.0 + 2.0 * age_years)
    of_age = {
        "respiratory_rate_per_minute": acuity.USUAL_BREATHS[band],
        "pulse_per_minute": acuity.USUAL_PULSE[band],
        "systolic_mmhg": systolic,
        "diastolic_mmhg": acuity.DIASTOLIC_SHARE * systolic,
    }
    return float(of_age.get(name, WORSE[name][0]))


@st.composite
def _case_and_worse(draw):
    age_years = draw(st.sampled_from((0.1, 0.8, 2.5, 4.0, 7.0, 11.0, 14.0)) | st.integers(18, 100).map(float))
    vitals = {name: draw(st.none() | st.integers(int(low), int(high)).map(float)) for name, (_, low, high) in WORSE.items()} | {
        "consciousness": draw(st.none() | st.sampled_from("ACVPU")),
        "pain_score": draw(st.none() | st.integers(0, 10)),
    }
    name = draw(st.sampled_from([*WORSE, "consciousness", "pain_score"]))
    worse = dict(vitals)
    if name == "pain_score":
        vitals[name], worse[name] = sorted(draw(st.tuples(*[st.integers(0, 10)] * 2)))
    elif name == "consciousness":
        levels = list(CONSCIOUSNESS)
        place = draw(st.integers(0, 3))
        vitals[name], worse[name] = levels[place], levels[draw(st.integers(place + 1, 4))]
    else:
        _, low, high = WORSE[name]
        usual = _usual(name, age_years)
        below = name == "spo2_percent" or draw(st.booleans())
        first, second = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
        end = low if below else high
        vitals[name], worse[name] = (usual + share * (end - usual) for share in (first, second))
    who = {"age_years": age_years, "sex": draw(st.sampled_from(("female", "male", "unknown")))}
    return Case(case_id="a", vitals=vitals, **who), Case(case_id="b", vitals=worse, **who)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_danger_sign_never_lowers_the_shipped_model(data):
    """Whatever else is known, adding a finding that is a red or yellow sign by itself lowers neither probability, at any age."""
    model = _shipped()
    case, _ = data.draw(_case_and_worse())
    codes = data.draw(st.lists(st.sampled_from(sorted(model._bundle.contract.vocabulary["groups"])), max_size=4, unique=True))
    findings = dict.fromkeys(codes, "present")
    sign = data.draw(st.sampled_from(sorted(danger_signs())))
    before, after = model.score_cases([(case, findings), (case, {**findings, sign: "present"})])
    assert after[0] >= before[0] - 1e-6
    assert after[1] >= before[1] - 1e-6


def test_danger_signs_are_those_of_the_tool_itself():
    """Violence and being unresponsive are signs by themselves; a cut and a fever only together with something else."""
    assert {"F_161", "F_143"} <= danger_signs() <= iitt_signs().keys()
    assert {"F_226", "F_001"}.isdisjoint(danger_signs())


def _measured(case: Case, worse: Case) -> dict[str, str]:
    """Findings that appear because a vital got worse: fever and the blood pressure readings."""
    found = {}
    for name, code, beyond in (
        ("temperature_celsius", "F_001", lambda value: value >= 38),
        ("systolic_mmhg", "F_090", lambda value: value >= 180),
        ("systolic_mmhg", "F_091", lambda value: value < 90),
    ):
        before, after = getattr(case.vitals, name), getattr(worse.vitals, name)
        if after is not None and beyond(after) and not (before is not None and beyond(before)):
            found[code] = "present"
    return found


@cache
def _shipped() -> AcuityModel:
    if not BUNDLE.is_dir():
        pytest.skip("needs the shipped acuity bundle")
    return AcuityModel(load_bundle(BUNDLE))


def test_the_shipped_model_knows_a_very_ill_patient():
    """A breathless old man in shock is more at risk than a young woman with an earache, by both heads."""
    model = _shipped()
    ill = Case(
        case_id="ill", age_years=78, sex="male",
        vitals={"spo2_percent": 82, "pulse_per_minute": 132, "systolic_mmhg": 82, "respiratory_rate_per_minute": 32, "consciousness": "V"},
    )  # fmt: skip
    well = Case(
        case_id="well", age_years=25, sex="female",
        vitals={"spo2_percent": 99, "pulse_per_minute": 72, "systolic_mmhg": 118, "respiratory_rate_per_minute": 15, "consciousness": "A"},
    )  # fmt: skip
    scores = model.score_cases([(ill, {"F_050": "present"}), (well, {"F_271": "present"}), (Case(case_id="empty"), {})])
    (ill_critical, ill_emergency), (well_critical, well_emergency), _ = scores
    assert ill_critical > 0.2
    assert ill_emergency > 0.9
    assert well_critical < 0.01
    assert well_emergency < 0.3
    assert all(0 <= value <= 1 for score in scores for value in score)
    assert model.score_cases([]) == []


def test_features_and_score_agree_with_score_cases():
    """One row scored alone gives what the batch gives."""
    model = _shipped()
    case = Case(case_id="a", age_years=40, vitals={"pulse_per_minute": 110})
    critical, emergency = model.score(model.features(case, {"F_078": "present"})[None])
    assert model.score_cases([(case, {"F_078": "present"})]) == [(critical[0], emergency[0])]


def test_a_bundle_with_other_features_is_refused():
    """A bundle from another version of the encoder says so instead of scoring nonsense."""
    bundle = _shipped()._bundle
    vocabulary = {**bundle.contract.vocabulary, "codes": []}
    changed = type(bundle)(bundle.contract.model_copy(update={"vocabulary": vocabulary}), bundle.sha256, bundle._session)
    with pytest.raises(BundleError) as error:
        AcuityModel(changed)
    assert str(error.value) == (
        f"acuity {BUNDLE.name} was trained on other features than this version encodes; use the version that it was trained with, or train it again"
    )


def test_over_triage_is_what_missing_few_costs():
    """With two emergencies at 0.4 and 0.9 and others at 0.1, 0.5, 0.6, 0.95: missing none costs 3 of 4, missing half 1 of 4."""
    truth, score = np.array([1, 1, 0, 0, 0, 0]), np.array([0.4, 0.9, 0.1, 0.5, 0.6, 0.95])
    assert over_triage_at(truth, score, 0.0) == 0.75
    assert over_triage_at(truth, score, 0.5) == 0.25


def test_net_benefit_weighs_false_alarms():
    """One true and one false call of four visits at a threshold of one half: 1/4 - 1/4 = 0."""
    assert net_benefit(np.array([1, 0, 0, 0]), np.array([0.8, 0.7, 0.1, 0.1]), 0.5) == 0.0
    assert net_benefit(np.array([1, 0, 0, 0]), np.array([0.8, 0.7, 0.1, 0.1]), 0.2) == pytest.approx(0.1875)
