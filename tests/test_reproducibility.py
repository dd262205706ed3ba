"""The same seed and data give the same model file, byte for byte: acuity and lesions (symptoms: tests/test_symptoms.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_lesions import some_examples, tiny_backbone

from inference.acuity import AcuityEncoder
from inference.case import Vitals
from training import lesion_fitting
from training.acuity import exported
from training.acuity_critical import CriticalRows, Recipe, critical_rows, fit_critical
from training.acuity_search import search_acuity
from training.hardware import CPU
from training.lesion_export import export_onnx
from training.lesion_familiarity import fit_familiarity
from training.lesion_fitting import Epoch, Plan, best_epoch, embeddings, fit, photo_recipe
from training.lesion_folds import Course, _fit_and_score, cross_validate
from training.lesion_network import CalibratedLesionNetwork
from training.nhamcs import Visit, Visits
from training.settings import RunOptions, Settings
from training.step_rate import bare_steps_per_second, step_rate_report

ENCODER = AcuityEncoder({"F_050": "breathlessness", "F_001": "fever"}, ["F_092"], ["F_001"])
PLAN = Plan(backbone="tiny", size=16, stored_size=20, epochs=3, batch_size=8, frozen_stages=0, views=0)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that fits in a moment, and sums in one order."""
    monkeypatch.setitem(lesion_fitting.BACKBONES, "tiny", tiny_backbone)
    torch.set_num_threads(1)


def some_rows(count: int = 300) -> CriticalRows:
    """Visits of three years; who breathes fast is ill more often."""
    random = np.random.default_rng(0)
    rates = random.integers(12, 40, count)
    visits = tuple(
        Visit(float(random.integers(1, 90)), "female", None, 0, Vitals(respiratory_rate_per_minute=int(rate)), ("fever",)) for rate in rates
    )
    is_critical = (random.random(count) < np.where(rates > 28, 0.5, 0.05)).astype(np.int64)
    is_rising = np.array([name in ENCODER.rising for name in ENCODER.names])
    return critical_rows(Visits(visits, 2015 + np.arange(count) % 3, is_critical), ENCODER, is_rising, 0)


def test_acuity_is_the_same_twice() -> None:
    """From drawing what is lost to the file; each year's loss is heard of, and another seed gives another model."""
    heard: list[tuple[str, float | None]] = []
    heads = [fit_critical(some_rows(), Recipe(iterations=30), lambda what, loss: heard.append((what, loss))) for _ in range(2)]
    one, two = (exported(head.head, head.head) for head in heads)
    assert one == two
    assert [what for what, _ in heard[:4]] == ["all years", "without 2015", "without 2016", "without 2017"]
    assert heard[3][1] == pytest.approx(heads[0].held_out_loss)


def test_the_acuity_search_chooses_by_years_held_out(tmp_path: Path) -> None:
    """The loss that is told is that of the recipe that was found, which is no worse than the shipped one's."""
    settings, rows, shipped = Settings("acuity", {}, {}, 0, 1, code="c", libraries={}), some_rows(), Recipe(iterations=30)
    recipe, said = search_acuity(rows, shipped, settings, RunOptions(tmp_path, trials=3), quiet=True)
    losses = [fit_critical(rows, one, lambda _what, _loss: None).held_out_loss for one in (recipe, shipped)]
    assert said["search"]["held_out_loss"] == pytest.approx(losses[0])
    assert losses[0] <= losses[1]


def lesion_model(folder: Path) -> bytes:
    """The file of a tiny network, fitted anew."""
    examples, recipe = some_examples(), photo_recipe(PLAN)
    network = fit(examples, np.arange(24), 2, PLAN, 7, folder / "a.pt", lambda _epoch: None)
    familiarity = fit_familiarity(embeddings(network, examples.pixels, recipe), examples.targets)
    scorer = CalibratedLesionNetwork(network, 1.5, torch.zeros(2), torch.tensor([0.0, 1.0]), familiarity).eval()
    return export_onnx(scorer, PLAN.size, examples.clinical.shape[1])


def test_lesions_are_the_same_twice(tmp_path: Path) -> None:
    """Augmentation, dropout, blending and the export included."""
    assert lesion_model(tmp_path / "one") == lesion_model(tmp_path / "two")


def test_patience_keeps_the_best_epoch(tmp_path: Path) -> None:
    """Held-out images are scored after each epoch; a fit that is read back says the same best epoch and has its weights."""
    examples, heard = some_examples(), list[Epoch]()
    plan = replace(PLAN, epochs=6, patience=1, head_rate=1.0)
    rows, held = np.arange(16), np.arange(16, 24)
    network = fit(examples, rows, 2, plan, 7, tmp_path / "a.pt", heard.append, stops_by=held)
    losses = [epoch.held_out for epoch in heard]
    assert losses.index(min(losses)) + 1 == best_epoch(tmp_path / "a.pt")
    assert len(heard) == min(6, best_epoch(tmp_path / "a.pt") + 1)
    again = fit(examples, rows, 2, plan, 7, tmp_path / "a.pt", heard.append, stops_by=held)
    assert len(heard) == len(losses)
    assert all(torch.equal(values, again.state_dict()[name]) for name, values in network.state_dict().items())


@pytest.mark.parametrize("patience", [0, 1])
def test_the_last_network_is_fitted_as_long_as_the_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int) -> None:
    """With patience: for the median of their best epochs. Without: for all epochs. Each step's time is told."""
    monkeypatch.setattr("training.lesion_folds._run_in_processes", _here)
    plan, logged = replace(PLAN, patience=patience, head_rate=1.0), list[str]()
    course = Course(plan, photo_recipe(plan), 0, tmp_path)
    found = cross_validate(some_examples(), np.arange(24) % 2, 2, course, lambda values, _step: logged.extend(values), quiet=True)
    best = [best_epoch(tmp_path / f"fold_{fold}.pt") for fold in (0, 1)] if patience else [3]
    assert found.epochs == int(np.median(best))
    assert ("held_out_loss.fold_1" in logged) == (patience > 0)
    assert found.steps_per_second is not None
    assert found.steps_per_second > 0
    assert found.held_out.full.shape == (24, 2)


def _here(jobs, examples, classes, course, views, tell):
    """The jobs one after the other in this process, which knows the tiny backbone."""
    return [_fit_and_score(job, examples, classes, course, views, partial(tell, job.name)) for job in jobs]


def test_the_bare_loop_is_timed_after_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps by a clock that says two seconds: two a second; half of them is a share of a half."""
    clock = iter((5.0, 7.0))
    monkeypatch.setattr("training.step_rate.time.perf_counter", lambda: next(clock))
    assert bare_steps_per_second(PLAN, 16, 2, CPU, steps=4) == 2.0
    said = step_rate_report(1.0, 2.0, CPU, PLAN)["step_rate"]
    assert said == {"device": "cpu", "batch": 8, "steps_per_second": 1.0, "bare_steps_per_second": 2.0, "share_of_bare": 0.5}
    assert step_rate_report(None, 2.0, CPU, PLAN) == {}
