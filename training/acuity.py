"""`nabz-train acuity`: NHAMCS visits and KTAS expert levels to a calibrated, exported acuity bundle.

Both heads are linear in the features of inference/acuity.py, with weights of at least 0 on whatever a worse vital makes
larger: no vital that worsens can lower a probability. Gradient boosting with the same constraint was no better.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from inference.acuity import NOT_ALERT_GROUP, AcuityEncoder
from inference.bundle import Contract, DataSource, Label, TensorSpec
from inference.errors import DataError
from inference.rules import iitt_signs
from training import acuity_evaluation, ktas, labelled_levels, nhamcs, run_artifacts
from training.acuity_card import acuity_card
from training.acuity_critical import PRODUCTS, CriticalHead, CriticalRows, Recipe, critical_rows, fit_critical
from training.acuity_fitting import Linear, sigmoid
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
from training.acuity_search import search_acuity
from training.announcement import Announcement
from training.card_facts import read_own_facts
from training.catalogue import CATALOGUE, Catalogue, load_catalogue
from training.distributed import own_ranks
from training.export import PARITY_INPUTS, check_parity, file_sha256, now_utc, write_bundle
from training.live_table import live_table
from training.probe import make_probe
from training.seen import Sketch, of_visits
from training.settings import RunOptions, Settings, add_run_options
from training.tracking import TrackedRun, current_commit, tracked_run

Array = NDArray[Any]
DATA = Path("../shared/data")
LAST_TRAINING_YEAR = 2018
CRITICAL_THRESHOLD = 0.05  # one in twenty such patients needs critical care: seen within the hour
_SMOKE_VISITS = 6000
_PROBED = 1000  # visits that a dry run fits, to tell how long all take
# Groups whose patients need critical care more often than others do (fitted weights above 0 on 2015-2018). Their weights may not
# be negative, so that a danger sign of such a group can never lower a probability; the signs of all other groups open no group.
RISING_GROUPS = frozenset(
    {
        "altered_consciousness", "breathlessness", "chest_pain", "dehydration", "diabetes", "diarrhoea", "poisoning", "pregnancy",
        "seizure", "syncope", "vomiting", "weakness_focal", "weakness_general",
    }
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this trainer beyond the common ones."""
    parser.add_argument(
        "--cases", type=Path, metavar="FILE", help="labelled cases (nabz export) whose levels are learned from in place of KTAS"
    )
    parser.add_argument("--with-ktas", action="store_true", help="with --cases: beside KTAS, not in place of it")
    parser.add_argument(
        "--refit", type=Path, metavar="BUNDLE", help="with --cases: fit the emergency head of this bundle again, and need no public visits"
    )
    add_run_options(parser)


def train(args: argparse.Namespace) -> Path:
    """Fit both heads, calibrate, export and evaluate; returns the bundle's folder. With `refit` the critical head is that bundle's."""
    if getattr(args, "refit", None) is not None:
        if getattr(args, "cases", None) is None:
            raise DataError("--refit needs the cases to fit on: name them with --cases")
        from training.acuity_refit import refit

        return refit(args)
    data = Path(args.data or DATA)
    out = Path(args.out or f"models/acuity/{args.version}")
    recipe = Recipe(iterations=15) if args.smoke else Recipe()
    cases = getattr(args, "cases", None)
    paths = _sources(data, cases, with_ktas=getattr(args, "with_ktas", False))
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise DataError(f"{', '.join(missing)} not found: name the folder of data sets with --data (data/sources.toml says where from)")
    checksums = {name: file_sha256(path) for name, path in paths.items()}
    if own_ranks().world > 1:
        raise DataError("nabz-train acuity takes a minute in one process: start it without torchrun")
    options, quiet = RunOptions.of(args), args.quiet
    with threadpool_limits(args.threads):
        material = _material(paths, args)
        encoder, emergencies, visits = material.encoder, material.emergencies, material.visits
        plan = _announcement(material, recipe, checksums, args, options, out)
        if options.dry_run:
            plan.make(quiet=quiet)
            return out
        rows, found = critical_rows(visits, encoder, material.is_rising, args.seed), dict[str, Any]()
        if options.trials:
            recipe, found = search_acuity(rows, recipe, plan.settings, options, quiet=quiet)
            plan = replace(plan, settings=replace(plan.settings, recipe=asdict(recipe)), options=replace(options, trials=0))
        settings = plan.settings
        plan.make(quiet=quiet)
    with threadpool_limits(args.threads), tracked_run("acuity", settings.parameters(), checksums, asdict(plan.card)) as run:
        fitted = _fit_critical(rows, recipe, run, quiet=quiet)
        critical = fitted.head
        emergency, thresholds, head = fit_emergency(emergencies, encoder, material.is_rising, critical, args.seed)
        model = exported(critical, emergency)
        lossy = nhamcs.encode_with_loss(visits.take(np.arange(PARITY_INPUTS)), encoder, np.random.default_rng(args.seed + 1))
        parity = check_parity(linear_source(critical, emergency), model, {"features": lossy})
        training = {
            "settings_sha256": settings.sha256, "seed": args.seed, "smoke": args.smoke, "commit": current_commit(), "years": f"2015-{LAST_TRAINING_YEAR}",
            "parity": parity, "calibration": fitted.calibration, "emergency_head": head, "held_out_loss": fitted.held_out_loss,
            **found, **vars(recipe), "card": {} if cases is None else read_own_facts(cases),
        }  # fmt: skip
        contract = _contract(args.version, encoder, material.catalogue, thresholds, training, {"ktas": "", **checksums})
        if cases is not None:
            own = checksums[labelled_levels.KEY]
            contract = labelled_levels.with_labelled_contract(contract, own, emergencies, material.by_source, with_ktas="ktas" in paths)
        seen = Sketch()
        seen.add(of_visits(visits.visits))
        seen.add(of_visits(emergencies.cases))
        kept = {"probe": make_probe(linear_source(critical, emergency), {"features": lossy}), "seen": seen.as_contract()}
        write_bundle(out, model, contract.model_copy(update=kept), acuity_evaluation.unevaluated())
        acuity_evaluation.evaluate_and_record(out, data, args, cases)
        run.log_bundle(out)
        run_artifacts.acuity_artifacts(run, out, paths["nhamcs_ed"], emergencies)
    return out


@dataclass(frozen=True)
class _Material:
    """What both heads learn from, and how it is encoded."""

    catalogue: Catalogue
    visits: nhamcs.Visits
    emergencies: KtasVisits
    by_source: Counter[str]
    encoder: AcuityEncoder
    is_rising: NDArray[np.bool_]


def _material(paths: dict[str, Path], args: argparse.Namespace) -> _Material:
    catalogue = load_catalogue(CATALOGUE)
    emergencies, by_source = _expert_levels(paths)
    encoder = make_encoder(catalogue, frequent_codes(emergencies))
    return _Material(catalogue, _visits(paths["nhamcs_ed"], args), emergencies, by_source, encoder, rising_columns(encoder, catalogue))


def _announcement(
    material: _Material, recipe: Recipe, checksums: dict[str, str], args: argparse.Namespace, options: RunOptions, out: Path
) -> Announcement:
    """Nothing is kept on the way: a run that was cut is a minute's work to repeat."""
    settings = Settings("acuity", asdict(recipe), checksums, args.seed, args.threads, args.smoke)
    card = acuity_card(material.visits, material.emergencies, checksums)
    seconds = _estimated_seconds(material, recipe) if options.dry_run else None
    return Announcement(settings, card, options, out, (), seconds, f"from {_PROBED} of its visits")


def _fit_critical(rows: CriticalRows, recipe: Recipe, run: TrackedRun, *, quiet: bool) -> CriticalHead:
    """The critical head, telling the table and the tracker of each fit."""
    fits = 1 + len(np.unique(rows.year))
    with live_table("acuity", quiet=quiet) as table:
        table.add("critical head", fits, "fits")
        table.begin("critical head")

        def tell(what: str, held_out: float | None) -> None:
            made = table.rows["critical head"].done + 1
            table.update("critical head", made, held_out=held_out, note=what)
            if held_out is not None:
                run.log_metrics({"held_out_loss": held_out}, made)

        fitted = fit_critical(rows, recipe, tell)
        table.finish("critical head")
        return fitted


def _estimated_seconds(material: _Material, recipe: Recipe) -> float:
    """How long encoding and fitting all visits take by the wall clock, in proportion to a few of them."""
    visits = material.visits
    few = visits.take(np.linspace(0, len(visits.visits) - 1, min(_PROBED, len(visits.visits))).astype(int))
    began = time.perf_counter()
    fit_critical(critical_rows(few, material.encoder, material.is_rising, 0), recipe, lambda _what, _loss: None)
    return (time.perf_counter() - began) * len(visits.visits) / len(few.visits)


def _sources(data: Path, cases: Path | None, *, with_ktas: bool) -> dict[str, Path]:
    """The files to learn from, by the name of their checksum."""
    paths = {"nhamcs_ed": data / nhamcs.FILE}
    if cases is None or with_ktas:
        paths["ktas"] = data / ktas.FILE
    return paths if cases is None else paths | {labelled_levels.KEY: labelled_levels.cases_file(cases)}


def _expert_levels(paths: dict[str, Path]) -> tuple[KtasVisits, Counter[str]]:
    """The visits whose levels are learned from, and of labelled cases how many levels are of each source."""
    if labelled_levels.KEY not in paths:
        return read_ktas(paths["ktas"], CATALOGUE), Counter()
    own, by_source = labelled_levels.training_visits(paths[labelled_levels.KEY], CATALOGUE)
    return (labelled_levels.together(read_ktas(paths["ktas"], CATALOGUE), own) if "ktas" in paths else own), by_source


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
    of_groups = {f"{group}{term}" for group in groups for term in ("", *PRODUCTS)}
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


def fit_emergency(
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
