"""Measures an acuity bundle: NHAMCS visits of later years than it learned from, or KTAS visits it has not seen.

On the KTAS visits that the bundle did learn from, every figure is out of fold: the emergency head is fitted again without
the visits it is asked about. Trains nothing else.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.acuity import AcuityModel
from inference.bundle import Bundle, load_bundle
from inference.errors import DataError
from training import ktas, nhamcs
from training.acuity_head import HeadRows, KtasVisits, out_of_fold, read_ktas
from training.catalogue import CATALOGUE
from training.export import file_sha256, rewrite_metrics
from training.metrics import (
    Interval,
    auc,
    average_precision,
    bootstrap_interval,
    expected_calibration_error,
    mean,
    metrics_document,
    net_benefit,
    sensitivity_at_specificity,
    wilson_interval,
)

Array = NDArray[Any]
_SMALLEST_SUBGROUP = 20
_SUBGROUP_REPEATS = 100
_BATCH = 8192
_NET_BENEFIT_AT = (0.02, 0.05, 0.10)
_KTAS_NET_BENEFIT_AT = (0.1, 0.2, 0.3)
_CURVE = (0.02, 0.05, 0.10)
KTAS_TITLE = "KTAS visits, out of fold, experts' level 1-3"
KTAS_NOTE = (
    "Vitals, pain score, complaint, age and sex only. Ten-fold: no visit is scored by a head that was fitted on it; the calibration and the "
    "thresholds were chosen on these held-out scores. `with_rules` counts a visit that the rule floor raises as raised; `without_pain` takes every visit's pain score away."
)
AGE_BANDS = (
    ("under 1", 0, 1), ("1-4", 1, 5), ("5-11", 5, 12), ("12-15", 12, 16), ("0-15", 0, 16), ("16-39", 16, 40), ("40-64", 40, 65), ("65 and over", 65, 200),
)  # fmt: skip


def unevaluated() -> dict[str, Any]:
    """The metrics document of a bundle that has not been measured yet."""
    return {"command": "nabz-train evaluate models/acuity", "evaluations": {}}


def evaluate(bundle: Bundle, name: str, data: Path) -> dict[str, Any]:
    """The metrics document of `bundle` on a file of NHAMCS-ED visits or of KTAS visits.

    Raises DataError for any other file, and when no visit is later than those that the bundle learned from.
    """
    if data.is_dir():
        raise DataError(f"{data} is a folder: name the file of NHAMCS visits (.csv.gz) or of KTAS visits (.csv)")
    return _evaluate_ktas(bundle, name, data) if is_ktas(data) else _evaluate_nhamcs(bundle, name, data)


def evaluate_and_record(folder: Path, data: Path, args: argparse.Namespace, cases: Path | None = None) -> dict[str, Any]:
    """Measure the bundle in `folder` on both data sets in `data` and write `metrics.json` and the card.

    With labelled `cases`, which the emergency head learned from, on them too; KTAS may then be missing.
    """
    bundle = load_bundle(folder, threads=args.threads)
    parts = {
        "NHAMCS visits of 2019, critical outcome": (
            data / nhamcs.FILE,
            "Learned from 2015-2018, measured on 2019. Patients are either admitted to critical care or not admitted: easier than reality. `at_level_2`: by this model alone.",
        ),
        KTAS_TITLE: (data / ktas.FILE, KTAS_NOTE),
    }
    if cases is not None and not (data / ktas.FILE).is_file():
        del parts[KTAS_TITLE]
    evaluations = {title: {**evaluate(bundle, folder.as_posix(), path), "note": note} for title, (path, note) in parts.items()}
    if cases is not None:
        from training import labelled_evaluation

        evaluations[labelled_evaluation.TITLE] = labelled_evaluation.evaluate(bundle, folder, cases)
    report = {"command": f"nabz-train evaluate {folder.as_posix()} --data FILE --json", "evaluations": evaluations}
    rewrite_metrics(folder, report)
    return report


def later_outcomes(bundle: Bundle, path: Path) -> tuple[Array, Array, dict[str, Array]]:
    """Critical outcome and its probability, [n], of the visits that are later than those learned from; subgroups as masks [n]."""
    visits, probability = _score_later(bundle, path)
    return visits.is_critical, probability, _later_groups(visits)


def ktas_groups(visits: KtasVisits) -> dict[str, Array]:
    """Subgroups of KTAS visits, as masks [n]."""
    age = np.array([-1.0 if case.age_years is None else case.age_years for case in visits.cases])
    return _groups(age, np.array([case.sex for case in visits.cases]), list(visits.by_ambulance))


def over_triage_at(truth: Array, score: Array, under_triage: float) -> float:
    """Share of non-emergencies called when the threshold may miss at most `under_triage` of the emergencies."""
    own = np.sort(score[truth == 1])
    others = score[truth == 0]
    if len(own) == 0 or len(others) == 0:
        return float("nan")
    return float(np.mean(others >= own[int(under_triage * len(own))]))


def is_ktas(data: Path) -> bool:
    """Whether a file has KTAS visits (separated by semicolons) rather than NHAMCS ones."""
    if data.suffix == ".gz":
        return False
    try:
        with data.open("rb") as file:
            return b";" in file.readline()
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}") from error


def _score_later(bundle: Bundle, path: Path) -> tuple[nhamcs.Visits, Array]:
    last = int(str(bundle.contract.training["years"]).split("-")[-1])
    visits = nhamcs.read_visits(path, nhamcs.load_groups(CATALOGUE / nhamcs.GROUPS.name)).of_years(last + 1, 9999)
    if not visits.visits:
        raise DataError(f"{path} has no visit after {last}: the bundle learned from the others")
    model = AcuityModel(bundle)
    rows = nhamcs.encode(visits, model.encoder)
    return visits, np.concatenate([model.score(rows[i : i + _BATCH])[0] for i in range(0, len(rows), _BATCH)])


def _later_groups(visits: nhamcs.Visits) -> dict[str, Array]:
    age = np.array([visit.age_years for visit in visits.visits])
    return _groups(age, np.array([visit.sex for visit in visits.visits]), [visit.by_ambulance for visit in visits.visits])


def _evaluate_nhamcs(bundle: Bundle, name: str, path: Path) -> dict[str, Any]:
    visits, probability = _score_later(bundle, path)
    truth = visits.is_critical
    figures = {
        **_triage(truth, probability, bundle.contract.thresholds["critical_level_2"], "_at_level_2"),
        "auc": bootstrap_interval(auc, truth, probability),
        "average_precision": bootstrap_interval(average_precision, truth, probability),
        "ece": bootstrap_interval(expected_calibration_error, truth, probability),
        "sensitivity_at_specificity_0.9": bootstrap_interval(partial(sensitivity_at_specificity, specificity=0.9), truth, probability),
        **{f"net_benefit_{at:g}": bootstrap_interval(partial(net_benefit, threshold=at), truth, probability) for at in _NET_BENEFIT_AT},
    }
    threshold = bundle.contract.thresholds["critical_level_2"]
    subgroups = {
        group: {
            **_triage(truth[rows], probability[rows], threshold, "_at_level_2"),
            "auc": bootstrap_interval(auc, truth[rows], probability[rows], repeats=_SUBGROUP_REPEATS),
            "average_precision": bootstrap_interval(average_precision, truth[rows], probability[rows], repeats=_SUBGROUP_REPEATS),
            "ece": bootstrap_interval(expected_calibration_error, truth[rows], probability[rows], repeats=_SUBGROUP_REPEATS),
            "prevalence": wilson_interval(int(truth[rows].sum()), int(rows.sum())),
            "mean_probability": bootstrap_interval(mean, probability[rows], repeats=_SUBGROUP_REPEATS),
        }
        for group, rows in _later_groups(visits).items()
    }
    return metrics_document("acuity", name, len(truth), figures, subgroups)


def _evaluate_ktas(bundle: Bundle, name: str, path: Path) -> dict[str, Any]:
    visits = read_ktas(path, CATALOGUE)
    is_known = file_sha256(path) in {source.sha256 for source in bundle.contract.data}
    probability, without_pain = ktas_probabilities(bundle, visits, is_known=is_known)
    truth = visits.is_emergency.astype(int)
    threshold = bundle.contract.thresholds["emergency_level_3"]
    is_ruled = visits.floor <= ktas.LAST_EMERGENCY_LEVEL
    with_rules = np.where(is_ruled, 1.0 + probability, probability)
    figures = {
        **_triage(truth, with_rules, threshold, "_with_rules"),
        **_triage(truth, probability, threshold, ""),
        **_triage(truth, np.where(is_ruled, 1.0 + without_pain, without_pain), threshold, "_with_rules_without_pain"),
        "over_triage_of_the_rules_alone": wilson_interval(int(np.sum(is_ruled & (truth == 0))), int((truth == 0).sum())),
        "auc": bootstrap_interval(auc, truth, probability),
        "auc_without_pain": bootstrap_interval(auc, truth, without_pain),
        "average_precision": bootstrap_interval(average_precision, truth, probability),
        "ece": bootstrap_interval(ece_by_tenths, truth, probability),
        "ece_without_pain": bootstrap_interval(ece_by_tenths, truth, without_pain),
        **{
            f"net_benefit_{at:g}": bootstrap_interval(partial(net_benefit, threshold=at), truth, probability) for at in _KTAS_NET_BENEFIT_AT
        },
        **{
            f"over_triage{suffix}_at_under_triage_{at:g}": bootstrap_interval(partial(over_triage_at, under_triage=at), truth, score)
            for suffix, score in (("_with_rules", with_rules), ("", probability))
            for at in _CURVE
        },
    }
    subgroups = {
        group: {
            **_triage(truth[rows], with_rules[rows], threshold, "_with_rules"),
            "auc": bootstrap_interval(auc, truth[rows], probability[rows], repeats=_SUBGROUP_REPEATS),
            "ece": bootstrap_interval(ece_by_tenths, truth[rows], probability[rows], repeats=_SUBGROUP_REPEATS),
            "prevalence": wilson_interval(int(truth[rows].sum()), int(rows.sum())),
            "mean_probability": bootstrap_interval(mean, probability[rows], repeats=_SUBGROUP_REPEATS),
        }
        for group, rows in ktas_groups(visits).items()
    }
    return metrics_document("acuity", name, len(truth), figures, subgroups)


def ktas_probability(bundle: Bundle, visits: KtasVisits, *, is_known: bool) -> Array:
    """The bundle's emergency probabilities, [n]; out of fold when it learned from these visits (`is_known`)."""
    return ktas_probabilities(bundle, visits, is_known=is_known)[0]


def ktas_probabilities(bundle: Bundle, visits: KtasVisits, *, is_known: bool) -> tuple[Array, Array]:
    """As `ktas_probability`, and the same with every visit's pain score taken away."""
    model = AcuityModel(bundle)
    rows, lost = visits.rows(model.encoder), visits.rows(model.encoder, with_pain=False)
    critical, emergency = model.score(rows)
    if not is_known:
        return emergency, model.score(lost)[1]
    inside = np.clip(critical.astype(np.float64), 1e-7, 1 - 1e-7)
    rising = frozenset(bundle.contract.vocabulary["rising"])
    is_rising = np.array([column in rising for column in model.encoder.names])
    head_rows = HeadRows(rows, lost, np.log(inside / (1 - inside)))
    held_out = out_of_fold(head_rows, visits, model.encoder, is_rising, int(bundle.contract.training["seed"]))
    return held_out.probability, held_out.without_pain


def ece_by_tenths(truth: Array, probability: Array) -> float:
    """Expected calibration error by tenths, for a few hundred cases."""
    return expected_calibration_error(truth, probability, bins=10)


def _triage(truth: Array, score: Array, threshold: float, suffix: str) -> dict[str, Interval]:
    own, others = score[truth == 1], score[truth == 0]
    return {
        f"under_triage{suffix}": wilson_interval(int((own < threshold).sum()), len(own)),
        f"over_triage{suffix}": wilson_interval(int((others >= threshold).sum()), len(others)),
    }


def _groups(age: Array, sex: Array, arrived: list[bool | None]) -> dict[str, Array]:
    groups = {f"age {band}": (age >= first) & (age < end) for band, first, end in AGE_BANDS}
    groups |= {f"sex {value}": sex == value for value in ("female", "male")}
    for name, value in (("by ambulance", True), ("not by ambulance", False), ("arrival unknown", None)):
        groups[name] = np.array([one is value for one in arrived])
    return {name: rows for name, rows in groups.items() if rows.sum() >= _SMALLEST_SUBGROUP}
