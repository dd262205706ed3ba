"""Tests of how the symptom network is fitted: a run that is killed, early stopping, the search for a recipe, and steps timed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.errors import DataError
from training import symptom_fitting
from training.knowledge import load_knowledge
from training.search import STUDIES, Found, OneOf, Space, Span, search, study_name, told
from training.settings import RunOptions, Settings
from training.symptom_batches import held_out_batch
from training.symptom_card import symptom_card
from training.symptom_fitting import Course, Fitted, Heard, estimated_seconds, fit_symptoms
from training.symptom_recipe import Recipe
from training.symptom_search import search_symptoms

RECIPE = Recipe(steps=12, batch=32, hidden=8, checks=6, held_out_patients=64)
SETTINGS = Settings("symptoms", {"steps": 12}, {}, 0, 1, code="c", libraries={})
# The run that the test kills: it does not hurry after its first checks.
CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from training.knowledge import load_knowledge
from training.symptom_fitting import Course, fit_symptoms
from training.symptom_recipe import Recipe
recipe = Recipe(steps=12, batch=32, hidden=8, checks=6, held_out_patients=64)
course = Course(3, checkpoint=Path(sys.argv[2]), settings_sha256="a run")
fit_symptoms(load_knowledge(Path(sys.argv[1])), recipe, course, lambda heard: time.sleep(60 if heard.step > 4 else 0))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the child: sums in another order differ in their last bits."""
    torch.set_num_threads(1)


def heard_of(release: Path, recipe: Recipe, course: Course) -> tuple[Fitted, list[Heard]]:
    """A fit and all that it told."""
    told: list[Heard] = []
    return fit_symptoms(load_knowledge(release), recipe, course, told.append), told


def test_a_run_that_was_killed_goes_on_and_ends_the_same(tiny_release: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle: the second start makes the steps that are left and ends with the uncut run's weights, bit for bit."""
    file = tmp_path / "checkpoint.pt"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tiny_release), str(file)])
    deadline = time.monotonic() + 300
    while not (file.is_file() and torch.load(file, weights_only=True)["step"] >= 4):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    kept = Course(3, checkpoint=file, settings_sha256="a run")
    resumed, told = heard_of(tiny_release, RECIPE, kept)
    whole, _ = heard_of(tiny_release, RECIPE, Course(3))
    assert [one.step for one in told] == list(range(5, 13))
    assert (resumed.best_step, resumed.held_out_loss) == (whole.best_step, whole.held_out_loss)
    assert resumed.seen.as_contract() == whole.seen.as_contract()
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, resumed.network.state_dict()[name]), name
    with pytest.raises(DataError, match="belongs to a run with the settings"):
        heard_of(tiny_release, RECIPE, replace(kept, settings_sha256="another"))


def test_patience_stops_and_the_best_weights_are_kept(tiny_release: Path) -> None:
    """A rate that destroys what the network began with: two checks after the best one it is over.

    The weights are those of the best check, also by their held-out loss.
    """
    recipe = replace(RECIPE, rate=3.0, patience=2)
    fitted, told = heard_of(tiny_release, recipe, Course(3))
    checks = [one for one in told if one.is_check]
    assert fitted.steps == fitted.best_step + 2 * recipe.check_every < recipe.steps
    assert [one.patience_left for one in checks[-3:]] == [2, 1, 0]
    assert fitted.held_out_loss == min(one.held_out for one in checks) < checks[-1].held_out
    held = held_out_batch(load_knowledge(tiny_release), recipe, 3)
    with torch.no_grad():
        feeds = [torch.from_numpy(values) for values in held.feeds().values()]
        loss = torch.nn.functional.cross_entropy(fitted.network(*feeds), torch.from_numpy(held.condition))
    assert float(loss) == pytest.approx(fitted.held_out_loss, abs=1e-6)


def test_every_use_of_patients_has_its_own(tiny_release: Path) -> None:
    """Who decides when to stop is not drawn again for the same seed as anybody else, and another seed draws others."""
    knowledge = load_knowledge(tiny_release)
    one, two = (held_out_batch(knowledge, RECIPE, seed) for seed in (0, 1))
    assert not np.array_equal(one.evidence, two.evidence)
    assert np.array_equal(one.evidence, held_out_batch(knowledge, RECIPE, 0).evidence)


def test_a_card_counts_what_is_drawn(tiny_release: Path) -> None:
    """Twelve steps of 32 patients, two conditions whose shares sum to one, and findings that are mostly unknown."""
    card = symptom_card("symptoms", load_knowledge(tiny_release), RECIPE, 0, {"x": "ab"}, None)
    assert card.rows == card.splits["drawn to learn from (each once)"] == 384
    assert sum(card.classes.values()) == pytest.approx(1)
    assert set(card.missing) == {"answers, over all findings", "E_1", "E_2", "E_3", "E_4", "E_5"}
    assert all(0 <= share <= 1 for share in card.missing.values())
    assert card.missing["E_3"] >= card.missing["E_2"]  # a child is known only with its parent


def test_time_is_estimated_in_proportion_to_the_steps(tiny_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps by a clock that says half a second: a quarter of a second each, twelve of them."""
    clock = iter((10.0, 10.5))
    monkeypatch.setattr(symptom_fitting.time, "perf_counter", lambda: next(clock))
    assert estimated_seconds(load_knowledge(tiny_release), RECIPE, Course(0)) == pytest.approx(3.0)


SPACE: Space = {"x": Span(-4.0, 4.0), "width": Span(1, 9), "kind": OneOf(("a", "b"))}


def bowl(values: dict, report) -> float:
    """Least at x = 1 with kind b; told on the way."""
    loss = (values["x"] - 1) ** 2 + (values["kind"] == "a")
    for step in range(3):
        report(step, loss + 3 - step)
    return float(loss)


def test_a_search_begins_with_the_shipped_recipe_and_goes_on_after_a_cut(tmp_path: Path) -> None:
    """Twelve trials in one go, or cut down in the sixth and started again: the same trials, and a better recipe than the first."""
    first = {"x": 3.0, "width": 3, "kind": "a", "other": 0}
    tried: dict[str, list[float]] = {"whole": [], "cut": []}

    def noted(name: str):
        def objective(values: dict, report) -> float:
            if name == "cut" and len(tried[name]) == 5 and not (tmp_path / "was cut").exists():
                (tmp_path / "was cut").touch()
                raise KeyboardInterrupt
            tried[name].append(values["x"])
            return bowl(values, report)

        return objective

    def run(name: str) -> Found:
        return search(SPACE, first, noted(name), SETTINGS, RunOptions(tmp_path / name, trials=12), quiet=True)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    again = run("cut")
    assert tried["whole"] == tried["cut"]
    assert tried["whole"][0] == 3.0
    assert again == whole
    assert (whole.trials, whole.loss < bowl(first, lambda _step, _loss: None)) == (12, True)
    assert run("whole") == whole  # all are done: nothing is tried again
    assert len(tried["whole"]) == 12
    assert (tmp_path / "whole" / "symptoms" / STUDIES).is_file()


def test_other_settings_or_another_space_are_another_study() -> None:
    """A study is never continued for another question."""
    names = {study_name(SETTINGS, SPACE), study_name(replace(SETTINGS, seed=1), SPACE), study_name(SETTINGS, {"x": SPACE["x"]})}
    assert len(names) == 3


def test_a_search_without_any_loss_says_so(tmp_path: Path) -> None:
    """NaN is no loss."""
    with pytest.raises(DataError) as caught:
        search(
            SPACE,
            {"x": 0.0, "width": 1, "kind": "a"},
            lambda _values, _report: float("nan"),
            SETTINGS,
            RunOptions(tmp_path, trials=2),
            quiet=True,
        )
    assert str(caught.value) == "the search's trial 0 gave no loss that is a number: narrow the space, or mend the data"


def test_what_was_found_is_told_in_the_contract() -> None:
    """How many recipes were tried, how many were cut short, and by what they were chosen."""
    said = told(Found({"rate": 0.001}, 0.5, 10, 3), "log loss", quiet=True)
    assert said == {"search": {"trials": 10, "cut_short": 3, "objective": "log loss", "held_out_loss": 0.5}}


def test_the_symptom_search_uses_held_out_patients(tiny_release: Path, tmp_path: Path) -> None:
    """Two trials; the first is the shipped recipe, and the loss that is told is a fit's with the recipe that was found."""
    knowledge, course = load_knowledge(tiny_release), Course(3)
    recipe, said = search_symptoms(knowledge, RECIPE, course, SETTINGS, RunOptions(tmp_path, trials=2), quiet=True)
    assert said["search"]["trials"] == 2
    fitted, _ = heard_of(tiny_release, recipe, course)
    assert said["search"]["held_out_loss"] == pytest.approx(fitted.held_out_loss, abs=1e-9)
    assert recipe.steps == RECIPE.steps
