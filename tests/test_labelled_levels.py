"""Labelled cases as expert levels: which are learned from, what the contract says of them, and that one patient stays in one fold."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from test_labelled_cases import write

from inference.bundle import load_bundle
from inference.errors import DataError
from inference.models import live_versions
from training import acuity
from training.acuity_fitting import folds
from training.acuity_refit import critical_head
from training.labelled_cases import read_labelled_cases
from training.labelled_errors import by_group, judge_cases, level_counts, threshold_curve
from training.labelled_levels import as_visits, together, training_visits, with_labelled_contract

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "data/catalogue"
LIVE = ROOT / "models/acuity" / live_versions(ROOT / "models")["acuity"]


def records(n: int) -> list[dict]:
    """Cases of levels 2 and 4 in turn, two of each patient; every fifth accepted, every seventh held out."""
    return [
        {
            "case_id": str(n), "age_years": 20 + n % 60, "complaint": "seenay mein dard" if n % 2 else "kharish", "arrival": "ambulance",
            "labels": {
                "level": 2 if n % 2 else 4, "level_source": "accepted" if n % 5 == 0 else "override", "patient": f"p{n // 2}",
                "split": "held_out" if n % 7 == 0 else "train",
            },
        }
        for n in range(n)
    ]  # fmt: skip


def test_what_is_learned_from_has_a_level_that_somebody_gave_and_is_not_held_out(tmp_path):
    """Accepted and held-out cases are left out; findings come from the words; arrival is no input."""
    visits, sources = training_visits(write(tmp_path, *records(120)), CATALOGUE)
    wanted = [n for n in range(120) if n % 5 and n % 7]
    assert ([case.case_id for case in visits.cases], sources) == ([str(n) for n in wanted], {"override": len(wanted)})
    assert visits.is_emergency.tolist() == [n % 2 == 1 for n in wanted]
    assert visits.groups == tuple(f"p{n // 2}" for n in wanted)
    assert "F_078" in visits.findings[0] and visits.cases[0].arrival is None and visits.by_ambulance[0] is True


def test_too_few_cases_are_refused_with_what_to_do(tmp_path):
    """No calibration on ten emergencies."""
    path = write(tmp_path, *records(24))
    with pytest.raises(DataError) as refused:
        training_visits(path, CATALOGUE)
    assert str(refused.value) == (
        f"{path}: 8 emergencies (levels 1-3) and 8 others with a level that somebody gave; expected at least 20 of each: "
        "export a longer period, or add KTAS with --with-ktas"
    )


def test_cases_beside_other_visits_keep_their_patients(tmp_path):
    """Both sets in order; visits without a patient are each their own."""
    visits = as_visits(read_labelled_cases(write(tmp_path, *records(6))), CATALOGUE)
    both = together(visits, visits)
    assert len(both.cases) == 12 and both.level.tolist() == visits.level.tolist() * 2
    assert len(set(both.groups)) == 3


def test_no_patient_is_in_two_folds_and_rare_levels_do_not_stop_it():
    """Forty patients of two visits; level 1 occurs three times, fewer than there are folds."""
    level = np.array([1, 1, 1] + [2] * 37 + [4] * 40)
    groups = [f"p{n // 2}" for n in range(80)]
    held_out = [set(np.array(groups)[held]) for _, held in folds(level, 10, 0, groups)]
    assert len(set.union(*held_out)) == 40 and sum(map(len, held_out)) == 40


def test_the_contract_names_the_cases_in_place_of_ktas(tmp_path):
    """Data and limits speak of what was learned from; with KTAS beside, of both."""
    contract = load_bundle(LIVE).contract
    visits, sources = training_visits(write(tmp_path, *records(120)), CATALOGUE)
    alone = with_labelled_contract(contract, "ab" * 32, visits, sources, with_ktas=False)
    beside = with_labelled_contract(contract, "ab" * 32, together(visits, visits), sources, with_ktas=True)
    assert [source.sha256 for source in alone.data][-1] == "ab" * 32
    assert not any("KTAS" in text for text in (*alone.limits, *(source.name for source in alone.data)))
    assert sum("KTAS" in source.name for source in beside.data) == 1
    counted = f"{len(visits.cases)} labelled cases ({visits.is_emergency.sum()} emergencies) of the service that trained it"
    assert f"{counted}; levels" in alone.limits[-1] and f"{counted} and of KTAS; levels" in beside.limits[-1]


def test_the_critical_head_is_read_as_it_is_from_the_bundle():
    """The weights give the bundle's own critical probability."""
    head, bundle = critical_head(LIVE), load_bundle(LIVE)
    rows = np.random.default_rng(0).random((20, len(head.weights))).astype(np.float32)
    expected = bundle.run({"features": rows})["critical_probability"]
    np.testing.assert_allclose(1 / (1 + np.exp(-head.logit(rows))), expected, atol=1e-5)


def test_refit_without_cases_is_refused():
    """There is nothing to fit on."""
    with pytest.raises(DataError) as refused:
        acuity.train(argparse.Namespace(refit=LIVE, cases=None))
    assert str(refused.value) == "--refit needs the cases to fit on: name them with --cases"


def test_errors_stand_case_by_case_and_add_up(tmp_path):
    """Each judged case is on one side of level 3 or an error; a threshold of 0 calls everybody, one above 1 what rules raise."""
    from inference import Triage, load_models

    models = load_models(ROOT / "models")
    before = dict(models.acuity.thresholds)
    rows = judge_cases(read_labelled_cases(write(tmp_path, *records(40))), Triage(models))
    assert dict(models.acuity.thresholds) == before
    assert len(rows) == sum(n % 5 != 0 for n in range(40)) == sum(map(sum, level_counts(rows)))
    (whole,) = by_group(rows, ["all"] * len(rows))
    at_0, at_2, in_force = threshold_curve(rows, [0.0, 2.0, before["emergency_level_3"]])
    assert (at_0.missed.value, at_0.called.value) == (0, 1)
    assert at_2.missed.value >= whole.missed.value and at_2.called.value <= whole.called.value
    assert in_force.missed == whole.missed and in_force.called == whole.called
