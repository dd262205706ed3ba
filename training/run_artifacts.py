"""What each training run leaves to look at, beside its figures: plots and small tables of held-out cases, by task.

Tables name case ids or pairs of conditions, never complaints, names or pixels. Only held-out scores are drawn; nothing here
changes a model. Lesion and acuity models have no prediction sets, and lesions no levels: there is no such plot of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.evidence import AGE_BANDS, SEXES
from inference.policy import LEVELS
from inference.urgency import raises_from_acuity, raises_from_differential
from training.plots import confusion_matrix_plot, reliability_diagram, roc_and_precision_recall
from training.plots_decision import decision_curve, set_sizes_plot
from training.tracking import TrackedRun

if TYPE_CHECKING:
    from inference.prediction_sets import PredictionSets
    from training.acuity_head import KtasVisits
    from training.knowledge import Knowledge
    from training.lesion_figures import Scored

Array = NDArray[Any]
_WORST = 50  # cases or pairs in a table of errors
_SEVERE = 2  # severities 1 and 2
_LAST_EMERGENCY = 3  # experts' levels 1 to 3
_BATCH = 1000
_LEVEL_NAMES = [str(level) for level in LEVELS]


@dataclass(frozen=True)
class Outcome:
    """A yes-or-no outcome of n held-out cases: `truth` [n], its stated probability [n], subgroups as masks [n] by name.

    `highest` is the largest threshold at which anybody would act; `marked` are the thresholds in use, by name.
    """

    name: str
    title: str
    truth: Array
    probability: Array
    groups: Mapping[str, Array]
    highest: float
    marked: Mapping[str, float]


def log_outcome(run: TrackedRun, outcome: Outcome) -> None:
    """Calibration, ROC and precision-recall by subgroup, and net benefit of one outcome."""
    truth, probability = np.asarray(outcome.truth).astype(np.int64), np.clip(outcome.probability, 0.0, 1.0)
    run.log_figure(reliability_diagram(truth == 1, probability, outcome.title), f"{outcome.name}_reliability")
    run.log_figure(roc_and_precision_recall(truth, probability, outcome.title, outcome.groups), f"{outcome.name}_roc")
    curve = decision_curve(truth, probability, outcome.title, outcome.highest, outcome.marked)
    run.log_figure(curve, f"{outcome.name}_decision_curve")


def log_levels(run: TrackedRun, true_level: Array, given_level: Array, title: str, *, has_rules: bool) -> None:
    """Levels given against the true ones, and what the queue simulation says such levels do to waits."""
    from inference.service.simulation_plot import save_plot
    from inference.service.simulation_report import as_json
    from training.queue_waits import level_confusion, order_waits

    counts = level_confusion(true_level, given_level)
    run.log_figure(confusion_matrix_plot(counts, _LEVEL_NAMES, title, ("true level", "level given")), "levels_confusion")
    answer = order_waits(counts, f"clinic, {run.task}", has_rules=has_rules)
    run.log_document(as_json(answer), "queue_waits")
    with tempfile.TemporaryDirectory() as folder:
        save_plot(answer, Path(folder) / "queue_waits.png")
        run.log_file(Path(folder) / "queue_waits.png", "plots")


def acuity_artifacts(run: TrackedRun, folder: Path, later: Path, judged: KtasVisits) -> None:
    """Of an acuity bundle: the visits in the file `later` that it did not learn from, and `judged` out of fold."""
    from training.acuity_evaluation import ktas_groups, ktas_probability, later_outcomes

    bundle = load_bundle(folder)
    thresholds = bundle.contract.thresholds
    truth, probability, groups = later_outcomes(bundle, later)
    marked = {"level 2": thresholds["critical_level_2"]}
    log_outcome(run, Outcome("critical", "critical outcome, later visits", truth, probability, groups, 0.3, marked))
    emergency = ktas_probability(bundle, judged, is_known=True)
    title, marked = "experts' level 1 to 3, out of fold", {"level 3": thresholds["emergency_level_3"]}
    log_outcome(run, Outcome("emergency", title, judged.is_emergency, emergency, ktas_groups(judged), 0.8, marked))
    given = np.minimum(_acuity_levels(bundle, judged, emergency), judged.floor)
    log_levels(run, judged.level, given, "expert's level and that of rules and model, out of fold", has_rules=True)
    run.log_table(_missed(judged, given, emergency), "missed_emergencies")


def symptom_artifacts(run: TrackedRun, folder: Path, knowledge: Knowledge, *, patients: int, seed: int) -> None:
    """Of a symptom bundle: fresh patients drawn from `knowledge`, two fifths of whose answers are lost."""
    from inference.prediction_sets import PredictionSets
    from training.generator import MISSING_SHARE, PatientGenerator
    from training.set_calibration import SHARES_KNOWN

    bundle = load_bundle(folder)
    generator, random = PatientGenerator(knowledge), np.random.default_rng(seed)
    drawn = generator.draw(patients, random)
    evidence = generator.mask_missing(drawn, MISSING_SHARE, random).astype(np.float32)
    feeds: dict[str, Array] = {"evidence": evidence, "demographics": drawn.demographics(), "log_shift": generator.log_shift(drawn)}
    p = _probabilities(bundle, feeds)
    severity = np.array([label.severity or len(LEVELS) for label in bundle.contract.labels])
    leading, sets = p.argmax(axis=1), PredictionSets(bundle.contract)
    run.log_figure(reliability_diagram(leading == drawn.condition, p.max(axis=1), "leading condition"), "leading_reliability")
    is_severe = severity[drawn.condition] <= _SEVERE
    mass = p[:, severity <= _SEVERE].sum(axis=1)
    marked = {"level 2": bundle.contract.thresholds["severity_level_2"]}
    log_outcome(run, Outcome("severe", "condition of severity 1 or 2", is_severe, mass, _who(drawn.demographics()), 0.6, marked))
    lost = 1 - random.choice(SHARES_KNOWN, patients)
    run.log_figure(_set_sizes(bundle, feeds, generator.mask_missing(drawn, lost, random)), "set_sizes")
    given = _differential_levels(bundle, p, severity, sets, evidence)
    log_levels(run, severity[drawn.condition], given, "severity and the level that the differential supports", has_rules=False)
    names = [label.name for label in bundle.contract.labels]
    run.log_table(_confused_pairs(drawn.condition, leading, names, severity), "confused_conditions")


def lesion_artifacts(run: TrackedRun, scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...], threshold: float) -> None:
    """Of a lesion bundle: held-out photos, with the classes in the order of `labels`."""
    from training.lesion_figures import malignancy

    is_malignant, score = malignancy(scored, labels, malignant)
    predicted = scored.probabilities.argmax(axis=1)
    correct = predicted == scored.truth
    run.log_figure(reliability_diagram(correct, scored.probabilities.max(axis=1), "leading diagnosis"), "leading_reliability")
    types = {f"skin type {one or 'unknown'}": scored.skin_types == one for one in np.unique(scored.skin_types).tolist()}
    log_outcome(run, Outcome("malignant", "malignant, held out", is_malignant, score, types, 0.6, {"in use": threshold}))
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (scored.truth, predicted), 1)
    run.log_figure(confusion_matrix_plot(counts, labels, "held-out photos"), "confusion")
    severity = np.array([1 if label in malignant else len(LEVELS) for label in labels])
    run.log_table(_confused_pairs(scored.truth, predicted, labels, severity), "confused_diagnoses")


def _probabilities(bundle: Bundle, feeds: Mapping[str, Array]) -> Array:
    """The bundle's probabilities [n, C], so many rows at a time that they fit a graph's limit."""
    n = len(feeds["evidence"])
    slices = [slice(start, start + _BATCH) for start in range(0, n, _BATCH)]
    return np.concatenate([bundle.run({name: rows[part] for name, rows in feeds.items()})["probabilities"] for part in slices])


def _set_sizes(bundle: Bundle, feeds: Mapping[str, Array], evidence: Array) -> Figure:
    """Prediction sets of the same patients when anything from nearly nothing to most of it is known."""
    from inference.prediction_sets import PredictionSets

    sets, part = PredictionSets(bundle.contract), evidence.astype(np.float32)
    sizes = sets.sizes(_probabilities(bundle, {**feeds, "evidence": part}), part)
    starts = [0, *bundle.contract.conformal["known"]] if bundle.contract.conformal else [0]
    return set_sizes_plot(sizes, sets.counts.known(part), starts, "90 % prediction set")


def _acuity_levels(bundle: Bundle, judged: KtasVisits, emergency: Array) -> Array:
    """The level that the model alone supports, [n]: its critical probability, and the emergency one out of fold."""
    from inference.acuity import AcuityModel

    model = AcuityModel(bundle)
    critical, _ = model.score(judged.rows(model.encoder))
    raises = (raises_from_acuity(float(c), float(e), bundle.contract.thresholds) for c, e in zip(critical, emergency, strict=True))
    return np.array([min((one.level for one in found), default=len(LEVELS)) for found in raises])


def _differential_levels(bundle: Bundle, p: Array, severity: Array, sets: PredictionSets, evidence: Array) -> Array:
    """The level that the differential alone supports, [n], by the policy's rule of when it may."""
    from inference.policy import load_policy

    rule = load_policy().differential
    is_certain = (sets.sizes(p, evidence) <= rule.largest_set_that_raises) & (
        sets.counts.present(evidence) >= rule.least_findings_that_raise
    )
    mass = {level: p[:, severity == level].sum(axis=1) for level in LEVELS}
    levels = []
    for row in range(len(p)):
        of_row = {level: float(mass[level][row]) for level in LEVELS}
        found = raises_from_differential(of_row, bundle.contract.thresholds, is_certain=bool(is_certain[row]))
        levels.append(min((one.level for one in found), default=len(LEVELS)))
    return np.array(levels)


def _who(demographics: Array) -> dict[str, Array]:
    """Subgroups by age band and sex, as masks [n]."""
    bands = (*AGE_BANDS, "unknown age")
    groups = {f"age {name}": demographics // len(SEXES) == band for band, name in enumerate(bands)}
    groups |= {f"sex {name}": demographics % len(SEXES) == place for place, name in enumerate(SEXES)}
    return {name: rows for name, rows in groups.items() if rows.any()}


def _missed(judged: KtasVisits, given: Array, probability: Array) -> list[dict[str, Any]]:
    """The emergencies that got a level of 4 or 5, the expert's most urgent first; by case id."""
    rows = np.flatnonzero(judged.is_emergency & (given > _LAST_EMERGENCY))
    ordered = sorted(rows.tolist(), key=lambda row: (int(judged.level[row]), float(probability[row])))[:_WORST]
    return [
        {
            "case_id": judged.cases[row].case_id,
            "expert_level": int(judged.level[row]),
            "given_level": int(given[row]),
            "emergency_probability": round(float(probability[row]), 4),
        }
        for row in ordered
    ]


def _confused_pairs(truth: Array, predicted: Array, names: Sequence[str], severity: Array) -> list[dict[str, Any]]:
    """Which condition was taken for which, the severest mistaken for something milder first, then the most frequent."""
    pairs, counts = np.unique(np.stack([truth, predicted])[:, truth != predicted], axis=1, return_counts=True)
    of_true = np.bincount(truth, minlength=len(names))
    rows = [
        {
            "true": names[true], "predicted": names[other], "cases": int(count), "of": int(of_true[true]),
            "is_milder": bool(severity[other] > severity[true]),
        }
        for (true, other), count in zip(pairs.T.tolist(), counts.tolist(), strict=True)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (not row["is_milder"], -row["cases"], row["true"], row["predicted"]))[:_WORST]
