"""Local priors: the estimate finds a shift that was made, the floor holds for deadly conditions, and levels only rise."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bundle import Label
from inference.case import read_case
from inference.errors import PolicyError
from inference.models import Models, live_versions, load_models
from inference.priors import Multiplier, Priors, load_priors
from inference.triage import Triage
from training.cli import main
from training.label_shift import FLOOR_SHARE, moved, shift_of, with_floor

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LIKELY = np.array([[0.9, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.6]])  # P(finding | condition), [findings, conditions]
CATALOGUE = np.array([0.5, 0.3, 0.2])


def cases(true_prior: list[float], n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities after and before the findings of n patients drawn with `true_prior`, by Bayes' rule with the catalogue's."""
    random = np.random.default_rng(seed)
    condition = random.choice(3, n, p=true_prior)
    there = random.random((n, 3)) < LIKELY[:, condition].T
    likelihood = np.prod(np.where(there[:, :, None], LIKELY[None], 1 - LIKELY[None]), axis=1)
    before = np.tile(CATALOGUE, (n, 1))
    after = likelihood * before
    return after / after.sum(axis=1, keepdims=True), before


def test_the_estimate_finds_a_shift_that_was_made():
    """Twenty thousand cases of which the third condition has 60 % and not 20 %: within 5 % of three times as often."""
    found = shift_of(*cases([0.3, 0.1, 0.6], 20_000))
    assert found == pytest.approx(np.array([0.6, 1 / 3, 3.0]), rel=0.05)
    assert CATALOGUE @ found == pytest.approx(1)


def test_without_a_shift_nothing_moves():
    """The catalogue's own patients: all multipliers stay near one."""
    assert shift_of(*cases(CATALOGUE.tolist(), 20_000)) == pytest.approx(np.ones(3), rel=0.06)


def test_few_cases_move_little():
    """Ten cases of one condition alone move its prior by less than half, three thousand all the way to five times."""
    few, many = (shift_of(*cases([0.0, 0.0, 1.0], n))[2] for n in (10, 3000))
    assert 1 < few < 1.5
    assert many > 4.5


def test_patients_of_different_ages_have_different_priors():
    """Half cannot have the first condition: that they do not have it is no shift."""
    after, before = cases([0.0, 0.6, 0.4], 10_000)
    rest = before.copy()
    rest[:, 0] = 1e-9
    rest /= rest.sum(axis=1, keepdims=True)
    moved_after = after / before * rest
    moved_after /= moved_after.sum(axis=1, keepdims=True)
    usual_after, usual_before = cases(CATALOGUE.tolist(), 10_000, seed=1)
    found = shift_of(np.concatenate([moved_after, usual_after]), np.concatenate([rest, usual_before]))
    assert found == pytest.approx(np.ones(3), rel=0.08)


@given(st.lists(st.floats(0.01, 5), min_size=4, max_size=4))
def test_a_deadly_condition_keeps_its_floor(values):
    """Whatever was estimated: never less than half of the catalogue's prior for a deadly condition."""
    prior, deadly = np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, False, False])
    estimated = np.array(values) / (prior @ np.array(values))
    found, is_floored = with_floor(estimated, prior, deadly)
    assert (found[deadly] >= FLOOR_SHARE - 1e-12).all()
    assert (is_floored == (deadly & (estimated < FLOOR_SHARE))).all()


def priors_of(bundle_sha256: str, **values: float) -> Priors:
    """Priors with these multipliers."""
    multipliers = {name: Multiplier(value=value, low=value, high=value) for name, value in values.items()}
    return Priors(
        version="1",
        bundle_sha256=bundle_sha256,
        n=100,
        method="by hand",
        floor_share=0.5,
        floor_severity=2,
        multipliers=multipliers,
        sha256="f" * 64,
    )


LABELS = (Label(name="sepsis", name_en="sepsis", severity=1), Label(name="cold", name_en="cold", severity=5))


def test_multipliers_come_in_the_order_of_the_labels():
    """A condition that is not named keeps its prior."""
    assert priors_of("x", cold=2.0).log_multipliers(LABELS) == pytest.approx([0, np.log(2)])


def test_priors_that_are_not_safe_are_refused():
    """A condition that the model does not have, and a deadly one below the floor, as only an altered file can have it."""
    with pytest.raises(PolicyError) as error:
        priors_of("x", gout=2.0).log_multipliers(LABELS)
    assert str(error.value) == "the priors name conditions that the symptom model does not have (gout): estimate again"
    with pytest.raises(PolicyError) as error:
        priors_of("x", sepsis=0.4).log_multipliers(LABELS)
    assert str(error.value) == "the priors lower a deadly condition below 50% of its catalogue prior: estimate again"


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    """Missing, and not priors; a good one comes back with the hash of its bytes."""
    path = tmp_path / "priors.json"
    with pytest.raises(PolicyError) as error:
        load_priors(path)
    assert str(error.value) == f"the priors {path} cannot be read: No such file or directory"
    path.write_text('{"n": 3}', encoding="utf-8")
    with pytest.raises(PolicyError, match=r"cannot be used, at: .*floor_share.*write them with `nabz-train priors`$"):
        load_priors(path)
    path.write_text(priors_of("x", cold=2.0).model_dump_json(exclude={"sha256"}), encoding="utf-8")
    assert load_priors(path).multipliers["cold"].value == 2.0 and len(load_priors(path).sha256) == 64


@pytest.fixture(scope="module")
def live(models_folder) -> Models:
    """The shipped models without photos."""
    return load_models(models_folder)


CASES = (
    {"case_id": "chest", "age_years": 58, "sex": "male", "complaint": "crushing chest pain, cold sweat, pain in the arm"},
    {"case_id": "gut", "age_years": 6, "sex": "female", "complaint": "diarrhoea and vomiting, sunken eyes"},
    {"case_id": "cough", "age_years": 30, "sex": "female", "complaint": "cough and runny nose for 2 days"},
    {"case_id": "fits", "age_years": 24, "sex": "female", "complaint": "fits and headache", "pregnant": True},
)


@pytest.mark.parametrize("seed", range(3))
def test_local_priors_never_lower_a_level(live, seed):
    """Mild conditions fifteen times as often, deadly ones at their floor, the rest at random: every level stays or rises."""
    labels, random = live.symptoms.labels, np.random.default_rng(seed)
    values = {one.name: 0.5 if (one.severity or 5) <= 2 else float(np.exp(random.uniform(-2.5, 2.7))) for one in labels}
    local = priors_of(live.bundles["symptoms"].sha256, **values)
    readings = [read_case(case, str(case["case_id"])) for case in CASES]
    plain, moved_ones = (triage.assess_each(readings, [NOW] * len(readings)) for triage in (Triage(live), Triage(live, priors=local)))
    for before, after in zip(plain, moved_ones, strict=True):
        assert after.level <= before.level
        assert (before.emergency_probability or 0) <= (after.emergency_probability or 0) + 1e-6
        assert (before.provenance.priors_sha256, after.provenance.priors_sha256) == (None, "f" * 64)
    assert any(before.differential != after.differential for before, after in zip(plain, moved_ones, strict=True))


def test_an_assessment_with_priors_repeats_exactly(live):
    """The same case and priors give the same assessment; a multiplier moves the odds by itself, whatever the temperature."""
    reading = read_case(CASES[2], "cough")
    first = Triage(live).assess(reading, NOW).differential[0]
    local = priors_of(live.bundles["symptoms"].sha256, **{first.condition: 3.0})
    one, two = (Triage(live, priors=local).assess(reading, NOW) for _ in range(2))
    assert one == two
    after = next(each for each in one.differential if each.condition == first.condition)
    odds = [p / (1 - p) for p in (first.probability, after.probability)]
    assert odds[1] / odds[0] == pytest.approx(3.0, rel=1e-3)


def test_priors_of_another_bundle_are_refused_and_named(live, models_folder):
    """A library call fails; loading goes on with the catalogue's priors and says so."""
    local = priors_of("0" * 64, cold=2.0)
    with pytest.raises(PolicyError, match=r"^the priors were estimated with symptoms 1 \(000000000000\), not with the live "):
        Triage(live, priors=local)
    loaded = load_models(models_folder, priors=local)
    assert loaded.symptoms is not None and loaded.symptoms.priors is None
    (problem,) = loaded.problems
    assert problem.endswith("the catalogue's priors are used")


def test_the_command_estimates_from_a_file_of_cases(models_folder, tmp_path, capsys):
    """Sixty cases of cholera: a file that ranking takes, and one line for what moved; with too few cases none."""
    folder = models_folder / "symptoms" / live_versions(models_folder)["symptoms"]
    complaint = "rice water stool, vomiting, sunken eyes"
    lines = [json.dumps({"case_id": f"c{n}", "age_years": 20 + n % 40, "sex": "male", "complaint": complaint}) for n in range(60)]
    path, out = tmp_path / "cases.jsonl", tmp_path / "priors.json"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(["priors", str(folder), "--cases", str(path), "--out", str(out), "--threads", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("cholera: ") and said.err == f"wrote priors from 60 cases to {out}\n"
    found = load_priors(out)
    assert found.multipliers["cholera"].value > 2
    assert any("held at the floor" in line for line in moved(found)) or all(not one.is_floored for one in found.multipliers.values())
    assert load_models(models_folder, priors=found).symptoms.priors == found
    path.write_text(lines[0], encoding="utf-8")
    assert main(["priors", str(folder), "--cases", str(path), "--out", str(out)]) == 2
    assert "1 cases have findings, and at least 50 are needed" in capsys.readouterr().err
