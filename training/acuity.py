"""`nabz-train acuity`: NHAMCS visits and KTAS expert levels to a calibrated, exported acuity bundle.

Both heads are linear in the features of inference/acuity.py, with weights of at least 0 on whatever a worse vital makes
larger: no vital that worsens can lower a probability. Gradient boosting with the same constraint was no better.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.progress import Progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from inference.acuity import NOT_ALERT_GROUP, AcuityEncoder
from inference.bundle import Contract, DataSource, Label, TensorSpec
from inference.errors import DataError
from inference.rules import iitt_signs
from training import acuity_evaluation, ktas, nhamcs
from training.acuity_fitting import Linear, fit_logistic, fit_platt, sigmoid
from training.acuity_head import (
    ADVICE_TARGET,
    UNDER_TRIAGE_TARGET,
    HeadRows,
    KtasVisits,
    fit_head,
    frequent_codes,
    head_columns,
    highest_threshold,
    out_of_fold,
    pain_columns,
    read_ktas,
)
from training.catalogue import CATALOGUE, Catalogue, load_catalogue
from training.export import PARITY_INPUTS, check_parity, file_sha256, now_utc, write_bundle
from training.probe import make_probe
from training.seen import Sketch, of_visits
from training.tracking import TrackedRun, current_commit, tracked_run

Array = NDArray[Any]
DATA = Path("../shared/data")
LAST_TRAINING_YEAR = 2018
CRITICAL_THRESHOLD = 0.05  # one in twenty such patients needs critical care: seen within the hour
_SMOKE_VISITS = 6000
# Groups whose patients need critical care more often than others do (fitted weights above 0 on 2015-2018). Their weights may not
# be negative, so that a danger sign of such a group can never lower a probability; the signs of all other groups open no group.
RISING_GROUPS = frozenset(
    {
        "altered_consciousness", "breathlessness", "chest_pain", "dehydration", "diabetes", "diarrhoea", "poisoning", "pregnancy",
        "seizure", "syncope", "vomiting", "weakness_focal", "weakness_general",
    }
)  # fmt: skip
_PRODUCTS = ("_by_age", "_by_chronic", "_in_ambulance", "_by_strain")


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters, chosen on each year up to 2018 held out from the others; nothing was chosen by the figures of 2019."""

    penalty: float = 100.0
    product_penalty: float = 10_000.0
    lossy_weight: float = 1.0
    iterations: int = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This trainer has no options beyond the common ones."""
    del parser


def train(args: argparse.Namespace) -> Path:
    """Fit both heads, calibrate, export and evaluate; returns the bundle's folder."""
    data = Path(args.data or DATA)
    out = Path(args.out or f"models/acuity/{args.version}")
    recipe = Recipe(iterations=15) if args.smoke else Recipe()
    paths = {"nhamcs_ed": data / nhamcs.FILE, "ktas": data / ktas.FILE}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise DataError(f"{', '.join(missing)} not found: name the folder of data sets with --data (data/sources.toml says where from)")
    checksums = {name: file_sha256(path) for name, path in paths.items()}
    with (
        threadpool_limits(args.threads),
        tracked_run("acuity", {"seed": args.seed, "smoke": args.smoke, **vars(recipe)}, checksums) as run,
        Progress(disable=args.quiet) as progress,
    ):
        bar = progress.add_task("reading", total=8)

        def step(what: str) -> None:
            progress.update(bar, advance=1, description=what)

        catalogue = load_catalogue(CATALOGUE)
        emergencies = read_ktas(paths["ktas"], CATALOGUE)
        encoder = make_encoder(catalogue, frequent_codes(emergencies))
        is_rising = rising_columns(encoder, catalogue)
        visits = _visits(paths["nhamcs_ed"], args)
        critical, calibration = _fit_critical(visits, encoder, is_rising, recipe, args.seed, step)
        step("fitting the emergency head")
        emergency, thresholds, head = _fit_emergency(emergencies, encoder, is_rising, critical, args.seed)
        model = exported(critical, emergency)
        lossy = nhamcs.encode_with_loss(visits.take(np.arange(PARITY_INPUTS)), encoder, np.random.default_rng(args.seed + 1))
        parity = check_parity(linear_source(critical, emergency), model, {"features": lossy})
        training = {
            "seed": args.seed, "commit": current_commit(), "years": f"2015-{LAST_TRAINING_YEAR}", "parity": parity,
            "calibration": calibration, "emergency_head": head, **vars(recipe),
        }  # fmt: skip
        contract = _contract(args.version, encoder, catalogue, thresholds, training, checksums)
        seen = Sketch()
        seen.add(of_visits(visits.visits))
        seen.add(of_visits(emergencies.cases))
        kept = {"probe": make_probe(linear_source(critical, emergency), {"features": lossy}), "seen": seen.as_contract()}
        write_bundle(out, model, contract.model_copy(update=kept), acuity_evaluation.unevaluated())
        step("evaluating")
        report = acuity_evaluation.evaluate_and_record(out, data, args)
        step("done")
        run.log_report(report)
        run.log_bundle(out)
        _plot(run, out, paths["nhamcs_ed"])
    return out


def make_encoder(catalogue: Catalogue, codes: list[str]) -> AcuityEncoder:
    """The encoder over the findings of `group_of_finding`."""
    return AcuityEncoder(group_of_finding(catalogue), chronic_codes(catalogue), codes)


def group_of_finding(catalogue: Catalogue) -> dict[str, str]:
    """The complaint group that each finding opens, where the reasons for visit know it.

    A danger sign opens none that could lower a probability.
    """
    groups = nhamcs.load_groups(CATALOGUE / nhamcs.GROUPS.name).groups
    signs = danger_signs()
    return {
        table["code"]: table["group"]
        for table in catalogue.findings.values()
        if table["group"] in groups and (table["code"] not in signs or table["group"] in RISING_GROUPS)
    }


def danger_signs() -> frozenset[str]:
    """The findings that the Interagency Integrated Triage Tool names as a red or yellow sign by themselves."""
    return frozenset(code for code, role in iitt_signs().items() if role != "component")


def chronic_codes(catalogue: Catalogue) -> list[str]:
    """The codes of the findings that count as chronic conditions."""
    listed = tomllib.loads((CATALOGUE / nhamcs.GROUPS.name).read_text(encoding="utf-8"))["chronic_conditions"]["findings"]
    return sorted(catalogue.findings[slug]["code"] for slug in listed)


def rising_columns(encoder: AcuityEncoder, catalogue: Catalogue) -> NDArray[np.bool_]:
    """The columns that a worse vital or a danger sign may raise: the vitals' own, and those of findings that are read off a
    vital or are a danger sign."""
    measured = [catalogue.findings[rule["finding"]] for rule in catalogue.reading.get("measured", ())]
    groups = {table["group"] for table in measured} | {NOT_ALERT_GROUP} | RISING_GROUPS
    codes = {table["code"] for table in measured} | danger_signs()
    of_groups = {f"{group}{term}" for group in groups for term in ("", *_PRODUCTS)}
    rising = encoder.rising | of_groups | codes
    return np.array([name in rising for name in encoder.names])


def linear_source(critical: Linear, emergency: Linear) -> Any:
    """The two heads in plain arithmetic, as the exported graph must answer."""

    def source(feeds: dict[str, Array]) -> dict[str, Array]:
        rows = feeds["features"].astype(np.float64)
        return {
            "critical_probability": sigmoid(critical.logit(rows)),
            "emergency_probability": sigmoid(emergency.logit(rows)),
        }

    return source


def exported(critical: Linear, emergency: Linear) -> bytes:
    """One ONNX graph: the features times two columns of weights, and a sigmoid."""
    weights = np.column_stack([critical.weights, emergency.weights]).astype(np.float32)
    bias = np.array([critical.intercept, emergency.intercept], dtype=np.float32)
    names = ("critical_probability", "emergency_probability")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
            *(helper.make_node("Gather", ["probabilities", f"place_{place}"], [name], axis=1) for place, name in enumerate(names)),
        ],
        "acuity",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(weights)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in names],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
            *(numpy_helper.from_array(np.array(place, dtype=np.int64), f"place_{place}") for place in range(len(names))),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _visits(path: Path, args: argparse.Namespace) -> nhamcs.Visits:
    """The visits to learn from, up to LAST_TRAINING_YEAR; a sample of them in a smoke run."""
    groups = nhamcs.load_groups(CATALOGUE / nhamcs.GROUPS.name)
    visits = nhamcs.read_visits(path, groups).of_years(0, LAST_TRAINING_YEAR)
    if not args.smoke:
        return visits
    chosen = np.random.default_rng(args.seed).choice(len(visits.visits), min(_SMOKE_VISITS, len(visits.visits)), replace=False)
    return visits.take(np.sort(chosen))


def _fit_critical(
    visits: nhamcs.Visits, encoder: AcuityEncoder, is_rising: Array, recipe: Recipe, seed: int, step: Any
) -> tuple[Linear, dict[str, float]]:
    """The critical head, calibrated on each year by a model that was fitted on the others."""
    step("encoding visits")
    full = nhamcs.encode(visits, encoder)
    rows = np.concatenate([full, nhamcs.encode_with_loss(visits, encoder, np.random.default_rng(seed))])
    truth, year = np.tile(visits.is_critical, 2), np.tile(visits.year, 2)
    weights = np.repeat([1.0, recipe.lossy_weight], len(full))
    penalty = np.array([recipe.product_penalty if _is_product(name, encoder) else recipe.penalty for name in encoder.names])

    def fit(chosen: Array, start: Linear | None = None) -> Linear:
        iterations = recipe.iterations if start is None else recipe.iterations // 3
        return fit_logistic(rows[chosen], truth[chosen], penalty, is_rising, weights[chosen], iterations, start)

    logit = np.zeros(len(truth))
    step("fitting on all years")
    whole = fit(np.arange(len(truth)))
    for held in np.unique(year):
        step(f"fitting without {held}")
        logit[year == held] = fit(np.flatnonzero(year != held), whole).logit(rows[year == held])
    slope, shift = fit_platt(logit[: len(full)], truth[: len(full)])
    return whole.rescaled(slope, shift), {"slope": slope, "shift": shift}


def _is_product(name: str, encoder: AcuityEncoder) -> bool:
    return any(name == f"{group}{term}" for term in _PRODUCTS if name.endswith(term) for group in encoder.groups)


def _fit_emergency(
    visits: KtasVisits, encoder: AcuityEncoder, is_rising: Array, critical: Linear, seed: int
) -> tuple[Linear, dict[str, float], dict[str, float]]:
    """The emergency head with the critical one folded in, the thresholds (held-out visits) and the calibration."""
    known, lost = visits.rows(encoder), visits.rows(encoder, with_pain=False)
    rows = HeadRows(known, lost, critical.logit(known))
    held_out = out_of_fold(rows, visits, encoder, is_rising, seed)
    head, weight = fit_head(rows, visits.is_emergency, head_columns(encoder), is_rising, pain_columns(encoder))
    folded = Linear(head.weights + weight * critical.weights, head.intercept + weight * critical.intercept)
    probability, slope, shift = held_out.probability, held_out.slope, held_out.shift
    thresholds = {
        "critical_level_2": CRITICAL_THRESHOLD,
        "emergency_level_3": highest_threshold(probability, visits, UNDER_TRIAGE_TARGET),
        "routine_level_4": highest_threshold(probability, visits, ADVICE_TARGET),
    }
    return folded.rescaled(slope, shift), thresholds, {"slope": slope, "shift": shift, "weight_of_critical_logit": weight}


def _contract(
    version: str,
    encoder: AcuityEncoder,
    catalogue: Catalogue,
    thresholds: dict[str, float],
    training: dict[str, Any],
    checksums: dict[str, str],
) -> Contract:
    return Contract(
        task="acuity",
        version=version,
        created=now_utc(),
        model_sha256="",
        inputs=(
            TensorSpec(
                name="features",
                dtype="float32",
                shape=("n", len(encoder.names)),
                meaning="one row a case, in the order of vocabulary.features, as inference.acuity encodes it",
            ),
        ),
        outputs=(
            TensorSpec(
                name="critical_probability", dtype="float32", shape=("n",), meaning="calibrated probability of admission to critical care"
            ),
            TensorSpec(
                name="emergency_probability",
                dtype="float32",
                shape=("n",),
                meaning="calibrated probability that an expert gives KTAS level 1, 2 or 3",
            ),
        ),
        labels=(Label(name="critical", name_en="needs critical care"), Label(name="emergency", name_en="KTAS level 1 to 3")),
        intended_use="Raises the urgency of a referral whose vital signs, age and complaint resemble those of patients who needed urgent care.",
        limits=(
            "The critical outcome was learned from emergency departments of the United States, among patients admitted to critical care or not admitted at all: patients admitted elsewhere are absent, so it is easier than reality, and telemedicine patients differ.",
            "The emergency call was learned from 760 visits to two Korean hospitals; it follows how experts there apply KTAS. Where no pain score is given, mild and severe pain look alike to it.",
            "Glucose and capillary refill are not inputs: the rule floor covers them. Oxygen use and consciousness short of unresponsive enter by a fixed score, with little data behind them.",
            "The KTAS visits are of adults: a child's emergency call rests on its critical risk and its vitals' distance from the usual for its age. For newborns trust the rule floor.",
        ),
        licence="CC BY 4.0",
        data=(
            DataSource(
                name="NHAMCS-ED public-use visits 2015-2018",
                licence="US public domain; statistics only, no re-identification",
                sha256=checksums["nhamcs_ed"],
                citation="National Center for Health Statistics. National Hospital Ambulatory Medical Care Survey: Emergency Department public-use files, 2015-2019.",
            ),
            DataSource(
                name="KTAS visits, experts' level",
                licence="CC BY 4.0",
                sha256=checksums["ktas"],
                citation="Moon et al. Triage accuracy and causes of mistriage using the Korean Triage and Acuity Scale. PLOS ONE 2019.",
            ),
        ),
        training=training,
        thresholds=thresholds,
        vocabulary={
            "features": list(encoder.names),
            "groups": group_of_finding(catalogue),
            "chronic": chronic_codes(catalogue),
            "codes": list(encoder.codes),
            "rising": sorted(name for name, rising in zip(encoder.names, rising_columns(encoder, catalogue), strict=True) if rising),
        },
    )


def _plot(run: TrackedRun, out: Path, path: Path) -> None:
    from training.plots import reliability_diagram, roc_and_precision_recall

    truth, probability = acuity_evaluation.later_visits(out, path)
    run.log_figure(reliability_diagram(truth, probability, "critical outcome"), "reliability")
    run.log_figure(roc_and_precision_recall(truth, probability, "critical outcome"), "roc")
