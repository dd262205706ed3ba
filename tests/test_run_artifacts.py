"""Tests of what a run leaves to look at: the plots' own numbers, the tables, and the simulated waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from inference.models import live_versions
from inference.service.simulation_presets import preset
from training import acuity_evaluation, queue_waits, run_artifacts
from training.acuity_head import read_ktas
from training.lesion_figures import Scored
from training.metrics import net_benefit, wilson_interval
from training.plots import confusion_matrix_plot, reliability_diagram, roc_and_precision_recall
from training.plots_decision import decision_curve, set_sizes_plot
from training.queue_waits import level_confusion, measured_clinic, order_waits

KTAS = Path("ktas/data.csv")


class Recorder:
    """Stands in for a tracked run: keeps what it is given, by name."""

    task = "made up"

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}
        self.documents: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def log_figure(self, figure: Figure, name: str) -> None:
        """A figure, drawn once, as MLflow would."""
        figure.savefig(Path("/dev/null"), format="png", dpi=20)
        self.figures[name] = figure

    def log_document(self, document: dict[str, Any], name: str) -> None:
        """A JSON document."""
        self.documents[name] = document

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Rows."""
        self.documents[name] = rows

    def log_file(self, path: Path, folder: str) -> None:
        """A file's bytes."""
        self.files[f"{folder}/{path.name}"] = path.read_bytes()


@pytest.fixture
def short_simulation(monkeypatch):
    """Two replications of a day."""
    monkeypatch.setattr(queue_waits, "_HOURS", {"replications": 2, "warm_up_hours": 6.0, "measured_hours": 24.0})


def test_the_reliability_diagram_shows_shares_with_their_intervals():
    """Ten cases at 0.15 of which two are right, thirty at 0.95 of which 27 are: two points, at 0.2 and 0.9."""
    confidence = np.array([0.15] * 10 + [0.95] * 30)
    correct = np.array([1] * 2 + [0] * 8 + [1] * 27 + [0] * 3) == 1
    upper, lower = reliability_diagram(correct, confidence, "made up").axes
    points = {round(float(bar[0].get_xdata()[0]), 2): float(bar[0].get_ydata()[0]) for bar in upper.containers}
    assert points == pytest.approx({0.15: 0.2, 0.95: 0.9})
    first = upper.containers[0][2][0].get_segments()[0][:, 1]
    expected = wilson_interval(2, 10)
    assert first == pytest.approx([expected.low, expected.high])
    assert [patch.get_height() for patch in lower.patches] == [0, 10, 0, 0, 0, 0, 0, 0, 0, 30]
    assert upper.get_title() == "made up, n = 40"


def test_roc_curves_of_groups_too_small_to_show_are_left_out():
    """Nine patients with the outcome are too few, ten are enough; everybody is always there."""
    truth = np.array([1] * 19 + [0] * 41)
    score = np.linspace(1, 0, 60)
    nine, ten = np.zeros(60, dtype=bool), np.zeros(60, dtype=bool)
    nine[[*range(9), *range(40, 60)]] = True
    ten[[*range(9, 19), *range(20, 40)]] = True
    left, right = roc_and_precision_recall(truth, score, "made up", {"nine": nine, "ten": ten}).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["all: AUC 1.00 (19 of 60)", "ten: AUC 1.00 (10 of 30)"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["all: AP 1.00, share 0.317", "ten: AP 1.00, share 0.333"]


def test_an_outcome_that_never_occurs_draws_nothing_and_says_so():
    """No curve, no legend, no warning; the decision curve is drawn all the same."""
    never, score = np.zeros(20, dtype=int), np.linspace(0, 1, 20)
    figure = roc_and_precision_recall(never, score, "made up")
    assert figure.get_suptitle() == "made up: one of the outcomes does not occur"
    assert figure.axes[0].get_legend() is None
    assert decision_curve(never, score, "made up", 0.5).axes[0].get_title() == "made up, 0 of 20"


def test_a_confusion_matrix_shows_its_counts_and_row_sums():
    """Cells without a case stay empty."""
    axes = confusion_matrix_plot(np.array([[8, 2], [0, 1234]]), ["yes", "no"], "made up").axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["1,234", "2", "8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["yes (n = 10)", "no (n = 1,234)"]


def test_the_decision_curve_is_net_benefit_between_its_bounds():
    """At each threshold as `net_benefit` gives it; acting on everybody as the formula does; the band holds the curve."""
    random = np.random.default_rng(3)
    truth = random.random(400) < 0.3
    probability = np.clip(0.3 + 0.3 * (truth - 0.3) + 0.1 * random.standard_normal(400), 0.01, 0.99)
    axes = decision_curve(truth, probability, "made up", 0.6, {"in use": 0.25, "out of sight": 0.9}).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    thresholds, drawn = lines["the model"].get_data()
    assert (thresholds[0], thresholds[-1]) == pytest.approx((0.01, 0.6))
    assert drawn == pytest.approx([net_benefit(truth.astype(int), probability, at) for at in thresholds])
    everybody = lines["everybody"].get_ydata()
    assert everybody == pytest.approx(truth.mean() - thresholds / (1 - thresholds) * (1 - truth.mean()))
    assert [text.get_text() for text in axes.texts] == ["in use 0.25"]
    band = axes.collections[0].get_paths()[0].vertices
    for at, value in zip(thresholds, drawn, strict=True):
        bounds = band[np.isclose(band[:, 0], at), 1]
        assert bounds.min() < value < bounds.max()


def test_set_sizes_are_shares_and_medians_by_what_is_known():
    """Four sets; bands 0 to 1, and 2 or more; a set of 40 stands in the last bar."""
    left, right = set_sizes_plot(np.array([1, 1, 3, 40]), np.array([2, 5, 1, 0]), [0, 2], "made up").axes
    heights = [patch.get_height() for patch in left.patches]
    assert (heights[1], heights[3], heights[15], sum(heights)) == (50, 25, 25, 100)
    assert [label.get_text() for label in right.get_xticklabels()] == ["0 to 1\nn = 2", "2 and more\nn = 2"]
    assert [float(line.get_ydata()[0]) for line in right.lines if line.get_marker() == "o"] == [21.5, 1.0]


def test_levels_are_counted_and_unknown_true_levels_left_out():
    """Rows are the true levels."""
    counts = level_confusion(np.array([1, 1, 5, 0]), np.array([1, 3, 4, 2]))
    assert counts[0].tolist() == [1, 0, 1, 0, 0]
    assert counts[4].tolist() == [0, 0, 0, 1, 0]
    assert counts.sum() == 3


def test_the_clinic_gets_the_measured_levels_and_keeps_the_rest():
    """A true level that was never seen keeps its estimate; rules that are in the levels already are not let in again."""
    counts = np.zeros((5, 5), dtype=int)
    counts[1] = [1, 2, 1, 0, 0]
    before, with_rules, alone = preset("clinic").scenario, measured_clinic(counts, has_rules=True), measured_clinic(counts, has_rules=False)
    assert with_rules.ai.known[1] == (0.25, 0.5, 0.25, 0.0, 0.0)
    assert with_rules.ai.known[0] == before.ai.known[0]
    assert {mix.floor_catches for mix in with_rules.levels.values()} == {0.0}
    assert [mix.floor_catches for mix in alone.levels.values()] == [mix.floor_catches for mix in before.levels.values()]
    assert with_rules.arrivals_per_hour == before.arrivals_per_hour
    assert "ai.known" in before.sources and "ai.known" not in with_rules.sources


def test_better_levels_let_emergencies_wait_less(short_simulation):
    """Right levels against levels that say nothing, in the same clinic with the same patients."""
    right = order_waits(np.eye(5, dtype=int), "right", has_rules=True)
    blind = order_waits(np.tile([0, 0, 1, 0, 0], (5, 1)), "blind", has_rules=True)
    waits = [answer.policies["nabz"].groups[0].mean.value for answer in (right, blind)]
    assert waits[0] < waits[1]
    assert right.policies["fifo"].groups[0].mean.value == blind.policies["fifo"].groups[0].mean.value


def test_an_acuity_run_leaves_both_outcomes_levels_waits_and_missed_emergencies(
    shared_data, models_folder, catalogue_folder, monkeypatch, short_simulation
):
    """The KTAS visits out of fold; the table of the missed has ids and numbers, never a complaint."""
    random = np.random.default_rng(0)
    truth = random.random(300) < 0.1
    later = (truth, np.clip(0.1 + 0.3 * truth + 0.05 * random.standard_normal(300), 0, 1), {"sex female": np.arange(300) % 2 == 0})
    monkeypatch.setattr(acuity_evaluation, "later_outcomes", lambda _bundle, _path: later)
    visits, run = read_ktas(shared_data / KTAS, catalogue_folder), Recorder()
    run_artifacts.acuity_artifacts(run, models_folder / "acuity" / live_versions(models_folder)["acuity"], Path("unread"), visits)
    outcomes = [f"{name}_{plot}" for name in ("critical", "emergency") for plot in ("reliability", "roc", "decision_curve")]
    assert sorted(run.figures) == sorted([*outcomes, "levels_confusion"])
    assert run.files["plots/queue_waits.png"].startswith(b"\x89PNG")
    assert run.documents["queue_waits"]["policies"]["nabz"]["emergencies"]["mean_wait_minutes"]["n"] == 2
    missed = run.documents["missed_emergencies"]
    ids = {case.case_id: int(level) for case, level in zip(visits.cases, visits.level, strict=True)}
    assert 0 < len(missed) <= 0.05 * sum(visits.is_emergency)
    for row in missed:
        assert set(row) == {"case_id", "expert_level", "given_level", "emergency_probability"}
        assert ids[row["case_id"]] == row["expert_level"] <= 3 < row["given_level"]
    assert [row["expert_level"] for row in missed] == sorted(row["expert_level"] for row in missed)


def test_a_lesion_run_leaves_its_confusions_with_cancers_called_benign_first():
    """Two naevi called melanoma are many, one melanoma called naevus is worse."""
    truth = np.array([0] * 12 + [1] * 12)
    predicted = np.array([0] * 10 + [1, 1] + [1] * 11 + [0])
    probabilities = np.where(np.arange(2) == predicted[:, None], 0.8, 0.2)
    scored = Scored(truth, probabilities, predicted == 1, np.arange(24), np.tile([1, 2, 3, 0], 6))
    run = Recorder()
    run_artifacts.lesion_artifacts(run, scored, ("NEV", "MEL"), ("MEL",), 0.3)
    assert sorted(run.figures) == ["confusion", "leading_reliability", "malignant_decision_curve", "malignant_reliability", "malignant_roc"]
    assert run.documents["confused_diagnoses"] == [
        {"true": "MEL", "predicted": "NEV", "cases": 1, "of": 12, "is_milder": True},
        {"true": "NEV", "predicted": "MEL", "cases": 2, "of": 12, "is_milder": False},
    ]
