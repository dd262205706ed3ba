"""Worse challengers of many kinds, and an honest better one, against good champions; `python tests/challengers.py` prints the verdicts.

Acuity bundles are really trained, on visits drawn here; of the symptom and lesion bundles the shipped graph is changed, as a mistake
in training or after it would. Every bundle is signed with a key of the temporary folder. Each kind names the gate that must catch it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from inference.acuity import AcuityEncoder
from inference.bundle import SIGNED_FILES, Contract
from training import comparison, nhamcs
from training.acuity import exported, linear_source
from training.acuity_fitting import Linear, fit_logistic
from training.comparison import Comparison, compare_bundles
from training.export import one_thread_session, sign, write_bundle
from training.probe import make_probe
from training.seen import Sketch, of_visits

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models"
CATALOGUE = Path("data/catalogue")
FEW: dict[str, Any] = {  # enough for every kind, in seconds
    "training.comparison_cases.PATIENTS": 300,
    "training.comparison_cases.SEVERE_PATIENTS": 200,
    "training.comparison_waits._REPLICATIONS": 2,
    "training.comparison_waits._MEASURED_HOURS": 72,
    "training.comparison_cost._SECONDS": 0.2,
    "training.sentinels.SCRIPTS": ("roman",),
}
FORGOTTEN = "psvt"  # a condition of severity 2 that no written rule sees
BEFORE = "probabilities_before"
_RFV = (10501, 15451, 10101, 13100, 12100)  # complaints: pain, breath, fever, abdomen, vomiting, any will do
Graph = Callable[[onnx.ModelProto], None]


@dataclass(frozen=True)
class Kind:
    """One way to be worse: its name, the task, and the gate that must hold it back; `only` that one, where the answers stay good."""

    name: str
    task: str
    gate: str
    only: bool = False


KINDS = (
    Kind("shuffled labels", "acuity", "accuracy"),
    Kind("one red condition forgotten", "symptoms", "red_flags", only=True),
    Kind("one sex degraded", "symptoms", "worst_subgroup"),
    Kind("leaky split", "acuity", "leak", only=True),
    Kind("mis-scaled vitals", "acuity", "calibration"),
    Kind("over-confident calibration", "symptoms", "calibration"),
    Kind("emergency threshold raised", "symptoms", "emergencies_late"),
    Kind("critical threshold raised", "acuity", "under_triage"),
    Kind("graph altered after export", "acuity", "parity", only=True),
    Kind("larger than its budget", "symptoms", "size", only=True),
    Kind("slower than its budget", "acuity", "latency", only=True),
    Kind("incomplete card", "acuity", "card", only=True),
    Kind("smoke run", "acuity", "card", only=True),
)


class Workshop:
    """Makes champions and challengers in `folder`, and compares them."""

    def __init__(self, folder: Path) -> None:
        os.environ.pop("NABZ_SIGNING_KEY", None)  # a key of this folder signs
        self.folder = folder / "models"
        self.folder.mkdir(parents=True)
        for task in ("symptoms", "acuity"):
            shutil.copytree(next((SHIPPED / task).iterdir()), self.folder / task / "1.0.0")
        shutil.copytree(SHIPPED / "trusted_keys", self.folder / "trusted_keys")
        (self.folder / "serving.toml").write_text('symptoms = "1.0.0"\nacuity = "1.0.0"\n', encoding="utf-8")
        self.visits_file = folder / "visits.csv.gz"
        self._heads: dict[tuple[int, bool, float, int], tuple[np.ndarray, Linear]] = {}

    def compared(self, kind: Kind) -> Comparison:
        """The kind's challenger against its champion."""
        champion, challenger = self.champion(kind.task), self.challenger(kind)
        return compare_bundles(challenger, champion, self.data(kind.task), threads=1, models=self.folder)

    def data(self, task: str) -> Path:
        """Held-out cases of a task."""
        if task == "symptoms":
            return CATALOGUE
        _ = self.visits
        return self.visits_file

    def champion(self, task: str) -> Path:
        """A good bundle."""
        made = self.folder / task / "1.1.0"
        if not made.is_dir():
            self.symptoms("1.1.0") if task == "symptoms" else self.acuity("1.1.0", self.learned)
        return made

    def challenger(self, kind: Kind) -> Path:
        """The worse bundle of a kind."""
        version = f"2.0.{KINDS.index(kind)}"
        make = {
            "shuffled labels": lambda: self.acuity(version, self.learned, shuffled=True),
            "one red condition forgotten": lambda: self.symptoms(version, _forgets(self.labels.index(FORGOTTEN), len(self.labels))),
            "one sex degraded": lambda: self.symptoms(version, _worse_for_women),
            "leaky split": lambda: self.acuity(version, self.visits),
            "mis-scaled vitals": lambda: self.acuity(version, self.learned, breaths_scale=4.0),
            "over-confident calibration": lambda: self.symptoms(version, _sharpened(4.0)),
            "emergency threshold raised": lambda: self.symptoms(version, thresholds={"severity_level_2": 0.999}),
            "critical threshold raised": lambda: self.acuity(version, self.learned, thresholds={"critical_level_2": 0.6, "emergency_level_3": 0.99}),
            "graph altered after export": lambda: self._altered(version),
            "larger than its budget": lambda: self.symptoms(version, _padded(8_000_000)),
            "slower than its budget": lambda: self.acuity(version, self.learned, change=_slowed),
            "incomplete card": lambda: self.acuity(version, self.learned, fields={"limits": (), "licence": ""}),
            "smoke run": lambda: self.acuity(version, self.learned, training={"smoke": True}),
        }  # fmt: skip
        return make[kind.name]()

    def symptoms(self, version: str, change: Graph | None = None, thresholds: dict[str, float] | None = None) -> Path:
        """The shipped symptom model, its graph changed, with a probe of the changed graph: as if it had been trained so."""
        source = next((SHIPPED / "symptoms").iterdir())
        proto = onnx.load_model(source / "model.onnx")
        if change is not None:
            change(proto)
        return self._written("symptoms", version, proto.SerializeToString(), thresholds or {}, _symptom_feeds, Sketch())

    def lesions(self, version: str, model: bytes) -> Path:
        """A lesion bundle of that graph, with the shipped one's contract and a probe of the graph's own."""
        contract = self._shipped("lesions")
        names = [spec.name for spec in contract.outputs]
        session = one_thread_session(model)
        side, features = (int(spec.shape[-1]) for spec in contract.inputs)
        feeds = {"photo": np.ones((2, 3, side, side), dtype=np.float32), "clinical": np.zeros((2, features), dtype=np.float32)}
        probe = make_probe(lambda asked: dict(zip(names, session.run(names, asked), strict=True)), feeds)
        return self._written("lesions", version, model, {}, probe, Sketch(is_near=True))

    def acuity(
        self,
        version: str,
        learned: nhamcs.Visits,
        *,
        shuffled: bool = False,
        breaths_scale: float = 1.0,
        iterations: int = 60,
        thresholds: dict[str, float] | None = None,
        change: Graph | None = None,
        fields: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> Path:
        """A bundle whose critical head is trained on `learned`; the emergency head is the shipped one's."""
        rows, head = self._fitted(learned, shuffled, breaths_scale, iterations)
        model = exported(head, self.emergency)
        if change is not None:
            proto = onnx.load_model_from_string(model)
            change(proto)
            model = proto.SerializeToString()
        seen = Sketch()
        seen.add(of_visits(learned.visits))
        source = linear_source(head, self.emergency)
        probe = make_probe(source, {"features": rows[:4]})
        return self._written("acuity", version, model, thresholds or {}, probe, seen, fields or {}, training or {})

    def _fitted(self, learned: nhamcs.Visits, shuffled: bool, breaths_scale: float, iterations: int) -> tuple[np.ndarray, Linear]:
        """The rows and the head that is fitted to them; the same one again for the same order."""
        order = (len(learned.visits), shuffled, breaths_scale, iterations)
        if order not in self._heads:
            rows = nhamcs.encode(_scaled(learned, breaths_scale), self.encoder)
            truth = np.random.default_rng(7).permutation(learned.is_critical) if shuffled else learned.is_critical
            self._heads[order] = rows, fit_logistic(rows, truth, np.full(rows.shape[1], 30.0), self.is_rising, iterations=iterations)
        return self._heads[order]

    @cached_property
    def visits(self) -> nhamcs.Visits:
        """Visits of 2015 to 2019 whose outcome depends on their vitals."""
        return _drawn_visits(self.visits_file)

    @property
    def learned(self) -> nhamcs.Visits:
        """Those to learn from."""
        return self.visits.of_years(2015, 2018)

    @cached_property
    def labels(self) -> list[str]:
        """The symptom model's conditions."""
        return [label.name for label in self._shipped("symptoms").labels]

    @cached_property
    def encoder(self) -> AcuityEncoder:
        """The acuity model's encoder."""
        vocabulary = self._shipped("acuity").vocabulary
        return AcuityEncoder(vocabulary["groups"], vocabulary["chronic"], vocabulary["codes"])

    @cached_property
    def is_rising(self) -> np.ndarray:
        """The columns whose weight may not be negative."""
        rising = set(self._shipped("acuity").vocabulary["rising"])
        return np.array([name in rising for name in self.encoder.names])

    @cached_property
    def emergency(self) -> Linear:
        """The shipped emergency head."""
        graph = onnx.load_model(next((SHIPPED / "acuity").iterdir()) / "model.onnx").graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        return Linear(arrays["weights"][:, 1].astype(np.float64), float(arrays["bias"][1]))

    def _shipped(self, task: str) -> Contract:
        return Contract.model_validate_json((next((SHIPPED / task).iterdir()) / "contract.json").read_bytes())

    def _written(
        self,
        task: str,
        version: str,
        model: bytes,
        thresholds: dict[str, float],
        probe: dict[str, Any] | Callable[[Contract], dict[str, np.ndarray]],
        seen: Sketch,
        fields: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> Path:
        contract = self._shipped(task)
        if callable(probe):
            session = one_thread_session(model)
            names = ["probabilities", "fit"]
            probe = make_probe(lambda feeds: dict(zip(names, session.run(names, feeds), strict=True)), probe(contract))
        update = {
            "version": version,
            "probe": probe,
            "seen": seen.as_contract(),
            "thresholds": {**contract.thresholds, **thresholds},
            "training": {**contract.training, **(training or {})},
            **(fields or {}),
        }
        metrics = json.loads((next((SHIPPED / task).iterdir()) / "metrics.json").read_text(encoding="utf-8"))
        folder = self.folder / task / version
        write_bundle(folder, model, contract.model_copy(update=update), metrics)
        return folder

    def _altered(self, version: str) -> Path:
        """A good bundle whose weights somebody changed afterwards, and who could sign."""
        folder = self.acuity(version, self.learned)
        proto = onnx.load_model(folder / "model.onnx")
        for tensor in proto.graph.initializer:
            if tensor.name == "weights":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), "weights"))
        model = proto.SerializeToString()
        contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
        contract["model_sha256"] = hashlib.sha256(model).hexdigest()
        (folder / "model.onnx").write_bytes(model)
        (folder / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
        sign(folder, {name: (folder / name).read_bytes() for name in SIGNED_FILES})
        return folder


def _drawn_visits(path: Path, n: int = 6000) -> nhamcs.Visits:
    """Invented visits in the columns of NHAMCS: the worse the vitals, the likelier critical care."""
    random = np.random.default_rng(3)
    age, strain = random.integers(18, 95, n), random.exponential(1.0, n)
    breaths = np.clip(16 + 5 * strain + random.normal(0, 1.5, n), 8, 60).round()
    spo2 = np.clip(98 - 3.5 * strain + random.normal(0, 1, n), 60, 100).round()
    chance = 1 / (1 + np.exp(-(-7.5 + 1.9 * strain + 0.02 * age)))
    table = pd.DataFrame(
        {
            "YEAR": random.integers(2015, 2020, n), "AGE": age, "SEX": random.integers(1, 3, n), "ARREMS": random.integers(1, 3, n),
            "TEMPF": (980 + random.normal(0, 8, n)).round(), "PULSE": np.clip(78 + 12 * strain + random.normal(0, 8, n), 40, 190).round(),
            "BPSYS": np.clip(132 - 9 * strain + random.normal(0, 10, n), 60, 220).round(), "BPDIAS": (78 + random.normal(0, 7, n)).round(),
            "RESPR": breaths, "POPCT": spo2, "RFV1": random.choice(_RFV, n), "NOCHRON": 0, "TOTCHRON": random.integers(0, 4, n),
            "CRITICAL_CARE": (random.random(n) < chance).astype(int),
        }
    )  # fmt: skip
    table.to_csv(path, index=False)
    return nhamcs.read_visits(path, nhamcs.load_groups())


def _scaled(visits: nhamcs.Visits, breaths_scale: float) -> nhamcs.Visits:
    """Breaths and pulse counted over a part of a minute and taken for a minute's, and pressures doubled: a bad import."""
    if breaths_scale == 1.0:
        return visits
    changed = []
    for visit in visits.visits:
        vitals = visit.vitals
        moved = {
            "respiratory_rate_per_minute": vitals.respiratory_rate_per_minute / breaths_scale,
            "pulse_per_minute": vitals.pulse_per_minute / breaths_scale,
            "systolic_mmhg": vitals.systolic_mmhg * breaths_scale / 2,
        }
        changed.append(
            nhamcs.Visit(visit.age_years, visit.sex, visit.by_ambulance, visit.chronic, vitals.model_copy(update=moved), visit.groups)
        )
    return nhamcs.Visits(tuple(changed), visits.year, visits.is_critical)


def _symptom_feeds(contract: Contract) -> dict[str, np.ndarray]:
    slots, conditions = (int(spec.shape[1]) for spec in (contract.inputs[0], contract.inputs[2]))
    random = np.random.default_rng(0)
    return {
        "evidence": random.integers(-1, 2, (4, slots)).astype(np.float32),
        "demographics": np.array([10, 11, 12, 13]),
        "log_shift": np.zeros((4, conditions), dtype=np.float32),
    }


def _moved_output(proto: onnx.ModelProto, nodes: list[onnx.NodeProto], name: str = "probabilities") -> None:
    """Put nodes between the graph's output of that name, which becomes `<name>_before`, and what the caller gets."""
    for node in proto.graph.node:
        for names in (node.output, node.input):
            for place, one in enumerate(names):
                if one == name:
                    names[place] = f"{name}_before"
    proto.graph.node.extend(nodes)


def _normalised(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceSum", [name, "moved_axes"], ["moved_total"], keepdims=1),
        helper.make_node("Div", [name, "moved_total"], ["probabilities"]),
    ]


def _with_axes(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "moved_axes"))


def _forgets(place: int, conditions: int) -> Graph:
    """A model that never learned of one condition."""

    def change(proto: onnx.ModelProto) -> None:
        kept = np.ones(conditions, dtype=np.float32)
        kept[place] = 1e-6
        proto.graph.initializer.append(numpy_helper.from_array(kept, "kept"))
        _with_axes(proto)
        _moved_output(proto, [helper.make_node("Mul", [BEFORE, "kept"], ["forgotten"]), *_normalised("forgotten")])

    return change


def _sharpened(power: float) -> Graph:
    """A model that is surer than it should be: its probabilities to a power."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(power), "power"))
        _with_axes(proto)
        _moved_output(proto, [helper.make_node("Pow", [BEFORE, "power"], ["sharper"]), *_normalised("sharper")])

    return change


def _worse_for_women(proto: onnx.ModelProto) -> None:
    """A model whose probabilities for adult women are all but equal: demographics count age band times 3, female first."""
    nodes = [
        helper.make_node("Div", ["who", "three"], ["band"]),
        helper.make_node("Floor", ["band"], ["whole_band"]),
        helper.make_node("Mul", ["whole_band", "three"], ["whole"]),
        helper.make_node("Equal", ["who", "whole"], ["is_female"]),
        helper.make_node("Unsqueeze", ["is_female", "moved_axes"], ["column"]),
        helper.make_node("Pow", [BEFORE, "flat"], ["flatter"]),
        helper.make_node("Where", ["column", "flatter", BEFORE], ["for_women"]),
    ]
    proto.graph.initializer.extend([numpy_helper.from_array(np.float32(3.0), "three"), numpy_helper.from_array(np.float32(0.02), "flat")])
    _with_axes(proto)
    cast = helper.make_node("Cast", ["demographics"], ["who"], to=TensorProto.FLOAT)
    _moved_output(proto, [cast, *nodes, *_normalised("for_women")])


def _padded(size: int) -> Graph:
    """A model with weights that nothing uses."""
    return lambda proto: proto.graph.initializer.append(numpy_helper.from_array(np.zeros(size // 4, dtype=np.float32), "idle"))


def _slowed(proto: onnx.ModelProto) -> None:
    """The same answers after ten million exponentials that come to nothing."""
    graph = proto.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([4_000_000], dtype=np.int64), "many"),
            numpy_helper.from_array(np.float32(0.0), "zero"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "first_axis"),
        ]
    )
    gemm = next(node for node in graph.node if node.op_type == "Gemm")
    gemm.output[0] = "logits_before"
    work = [
        helper.make_node("ReduceMax", ["logits_before"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "many"], ["wide"]),
        helper.make_node("Exp", ["wide"], ["powers"]),
        helper.make_node("Sigmoid", ["powers"], ["bounded"]),
        helper.make_node("ReduceSum", ["bounded", "first_axis"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Add", ["logits_before", "nothing"], ["logits"]),
    ]
    place = list(graph.node).index(gemm) + 1
    for offset, node in enumerate(work):
        graph.node.insert(place + offset, node)


def _worse_on_dark_photos(brightness: float) -> Graph:
    """A lesion model that sees nothing malignant, and the wrong label, in photos below a mean brightness."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.extend(
            [
                numpy_helper.from_array(np.array([1, 2, 3], dtype=np.int64), "photo_axes"),
                numpy_helper.from_array(np.float32(brightness), "dark_below"),
                numpy_helper.from_array(np.float32(0.01), "flat"),
                numpy_helper.from_array(np.float32(1.0), "one"),
            ]
        )
        _with_axes(proto)
        malignancy = [
            helper.make_node("ReduceMean", ["photo", "photo_axes"], ["brightness"], keepdims=0),
            helper.make_node("Less", ["brightness", "dark_below"], ["is_dark"]),
            helper.make_node("Mul", ["malignancy_probability_before", "flat"], ["unseen"]),
            helper.make_node("Where", ["is_dark", "unseen", "malignancy_probability_before"], ["malignancy_probability"]),
        ]
        labels = [
            helper.make_node("Unsqueeze", ["is_dark", "moved_axes"], ["column"]),
            helper.make_node("Sub", ["one", BEFORE], ["turned"]),
            helper.make_node("Where", ["column", "turned", BEFORE], ["by_light"]),
            *_normalised("by_light"),
        ]
        _moved_output(proto, malignancy, "malignancy_probability")
        _moved_output(proto, labels)

    return change


def dark_lesions(workshop: Workshop, brightness: float) -> Path:
    """The shipped lesion model, blind in dark photos."""
    source = next((SHIPPED / "lesions").iterdir())
    proto = onnx.load_model(source / "model.onnx")
    _worse_on_dark_photos(brightness)(proto)
    return workshop.lesions("2.0.0", proto.SerializeToString())


def smaller_comparisons(monkeypatch: Any) -> None:
    """Fewer held-out patients and replications, and what two comparisons share is made once: a comparison takes seconds."""
    for name, value in FEW.items():
        monkeypatch.setattr(name, value)
    outcome_of, kept = comparison.outcome_of, {}

    def remembered(bundle: Any, cases: Any, *others: Any) -> Any:
        key = (bundle.sha256, cases.title, len(cases))
        if key not in kept:
            kept[key] = outcome_of(bundle, cases, *others)
        return kept[key]

    monkeypatch.setattr(comparison, "outcome_of", remembered)
    for name in ("held_out_cases", "load_models"):
        monkeypatch.setattr(comparison, name, cache(getattr(comparison, name)))


def main() -> int:
    """Print what every kind's gate says."""
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        workshop = Workshop(Path(name))
        for kind in KINDS:
            found = workshop.compared(kind)
            failed = [gate.name for gate in found.gates if not gate.passed]
            missed += kind.gate not in failed
            why = next((gate.why for gate in found.gates if gate.name == kind.gate), "")
            print(  # noqa: T201
                f"{found.verdict:8} {kind.task:9} {kind.name:30} expected {kind.gate:17} failed: {', '.join(failed) or 'none'}\n{'':9}{why}"
            )
        print(f"{len(KINDS) - missed} of {len(KINDS)} held back for the right reason")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
