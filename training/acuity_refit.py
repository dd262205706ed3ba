"""`nabz-train acuity --cases FILE --refit BUNDLE`: the emergency head of an acuity bundle, fitted again on a service's own cases.

The critical head stays as it is, so that neither the public visits nor much time are needed. The threshold is certified anew on the
whole triage around the new head, each case scored by a head that did not see it; with too few emergencies for that it is the plain
one, and the contract says so.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from inference.acuity import AcuityModel
from inference.bundle import Bundle, Certificate, Contract, load_bundle
from inference.calibration import BANDS_KEY
from inference.errors import DataError
from training import labelled_evaluation, labelled_levels
from training.acuity import exported, fit_emergency, linear_source
from training.acuity_evaluation import unevaluated
from training.acuity_fitting import Linear
from training.acuity_head import KtasVisits
from training.calibration_bands import count_bands
from training.card_facts import read_own_facts
from training.catalogue import CATALOGUE
from training.export import check_parity, file_sha256, now_utc, rewrite_metrics, write_bundle
from training.labelled_cases import in_split, read_labelled_cases, with_trusted_level
from training.levels import EMERGENCY, TARGET_MISSED, Judged, flagged, largest_safe_threshold
from training.probe import make_probe
from training.risk_control import certify
from training.seen import Sketch, of_visits
from training.tracking import current_commit, tracked_run

_DATA = "labelled cases, each scored by a head that did not see it"
_UNCERTIFIED = "The emergency threshold is not certified: there were too few emergencies among the cases that it was chosen on. Evaluate on held-out cases."


def refit(args: argparse.Namespace) -> Path:
    """Fit, calibrate, choose the threshold, export and evaluate; returns the bundle's folder.

    Raises DataError when there are too few cases, BundleError when the bundle cannot be used.
    """
    base = load_bundle(args.refit, threads=args.threads)
    if base.contract.task != "acuity":
        raise DataError(f"{args.refit} is a bundle for {base.contract.task}: name an acuity bundle")
    out, file = Path(args.out or f"models/acuity/{args.version}"), labelled_levels.cases_file(args.cases)
    visits, by_source = labelled_levels.training_visits(args.cases, CATALOGUE)
    checksum = file_sha256(file)
    with tracked_run("acuity", {"seed": args.seed, "refit_of": base.sha256}, {labelled_levels.KEY: checksum}) as run:
        encoder = AcuityModel(base).encoder
        rising = frozenset(base.contract.vocabulary["rising"])
        critical = critical_head(args.refit)
        emergency, thresholds, head = fit_emergency(
            visits, encoder, np.array([name in rising for name in encoder.names]), critical, args.seed
        )
        model, rows = exported(critical, emergency), {"features": visits.rows(encoder)}
        parity = check_parity(linear_source(critical, emergency), model, rows)
        facts = {
            "seed": args.seed,
            "commit": current_commit(),
            "parity": parity,
            "emergency_head": head,
            "refit_of": base.sha256,
            "card": read_own_facts(args.cases),
        }
        contract = _contract(base, args.version, thresholds, facts)
        contract = labelled_levels.with_labelled_contract(contract, checksum, visits, by_source, with_ktas=False)
        kept = {"probe": make_probe(linear_source(critical, emergency), rows), "seen": _seen(base, visits)}
        bundle = write_bundle(out, model, contract.model_copy(update=kept), unevaluated())
        bundle = write_bundle(out, model, _with_threshold(bundle, out, args.cases), unevaluated())
        title = labelled_levels.TITLE
        evaluations = {title: labelled_evaluation.evaluate(bundle, out, args.cases)}
        rewrite_metrics(out, {"command": f"nabz-train evaluate {out.as_posix()} --data FILE --json", "evaluations": evaluations})
        run.log_bundle(out)
    return out


def critical_head(folder: Path) -> Linear:
    """The weights of the first head of an acuity bundle that was verified, read from its graph."""
    graph = onnx.load_from_string((folder / "model.onnx").read_bytes()).graph
    tensors = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    return Linear(tensors["weights"][:, 0].astype(np.float64), float(tensors["bias"][0]))


def _contract(base: Bundle, version: str, thresholds: dict[str, float], facts: dict[str, Any]) -> Contract:
    """The base's contract without what was measured of its emergency head."""
    stale: dict[str, Any] = {"probe": {}, "seen": {}, "reference": {}, "certificates": {}}
    kept = {name: value for name, value in base.contract.training.items() if name != BANDS_KEY}
    return base.contract.model_copy(
        update={**stale, "version": version, "created": now_utc(), "thresholds": thresholds, "training": {**kept, **facts}}
    )


def _with_threshold(bundle: Bundle, folder: Path, cases: Path) -> Contract:
    """The contract with the threshold and the calibration's counts as the held-out scores give them."""
    learned = with_trusted_level(in_split(read_labelled_cases(cases), "train"))
    judged = labelled_evaluation.judged(bundle, folder, learned)
    contract = bundle.contract
    certificates: dict[str, Certificate] = {}
    try:
        threshold = largest_safe_threshold(judged)
        certificates[EMERGENCY] = _certificate(judged, threshold)
        limits = contract.limits
    except DataError:
        threshold, limits = contract.thresholds[EMERGENCY], (*contract.limits, _UNCERTIFIED)
    bands = {
        "data": _DATA, "is_synthetic": False, "event": "the final level is 1, 2 or 3", "bands": count_bands(judged.probability, judged.emergency),
    }  # fmt: skip
    return contract.model_copy(
        update={
            "thresholds": {**contract.thresholds, EMERGENCY: threshold}, "certificates": certificates, "limits": limits,
            "training": {**contract.training, BANDS_KEY: bands},
        }
    )  # fmt: skip


def _certificate(judged: Judged, threshold: float) -> Certificate:
    return certify(
        event="a case whose final level is 1, 2 or 3", miss="the whole triage gives it level 4 or 5", target=TARGET_MISSED,
        is_event=judged.emergency, is_called=flagged(judged, threshold), data=_DATA, is_synthetic=False,
    )  # fmt: skip


def _seen(base: Bundle, visits: KtasVisits) -> dict[str, Any]:
    """What the critical head learned from, as far as its bundle says, and the cases."""
    sketch, before = Sketch(), base.contract.seen.get("fingerprints", "")
    sketch.add(np.frombuffer(base64.b64decode(before), dtype="<u8").astype(np.uint64))
    sketch.add(of_visits(visits.cases))
    return sketch.as_contract()
