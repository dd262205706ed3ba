"""Tests that a model can do no harm, although a trusted key signed it: it is refused, or fails alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inference.bundle import ELEMENTS_LIMIT, MEMORY_BYTES_LIMIT, load_bundle

# What is wrong with these changes nothing for anybody: they answer as an honest model does.
HARMLESS = {
    "broken_graphs: IR version 0",
    "broken_graphs: an axis outside",
    "crashes: tree of fifty thousand storeys",
    "empties: ReduceMean of no whole numbers",
    "empties: ReduceMax of no whole numbers",
    "empties: quantised in blocks of 0",
}
REFUSED_UNRUN = ("control_flow", "giants", "wrong_ends", "broken_graphs", "other_bytes", "outside_files")
ONLY_RUNNING_SHOWS = ("wrong_answers", "hidden_giants")
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each hostile model, in a process of its own, whose memory can be measured and whose death is seen."""
    program = Path(__file__).with_name("hostile_models.py")
    command = [sys.executable, "-W", "error", program, tmp_path_factory.mktemp("hostile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1], done.stderr[-2000:])
    assert done.stderr == ""
    return {line["kind"]: line for line in lines if "kind" in line}


def family(kind: str) -> str:
    """The group that a hostile model belongs to."""
    return kind.partition(":")[0]


def test_no_hostile_model_ends_the_process(tried):
    """All were tried, none crashed or raised anything but BundleError, and each harmful one was stopped in words."""
    assert len(tried) >= 150
    assert {family(kind) for kind in tried} == {*REFUSED_UNRUN, *ONLY_RUNNING_SHOWS, "crashes", "empties"}
    assert {kind for kind, answer in tried.items() if answer["stopped"] == "loaded"} == HARMLESS
    for answer in tried.values():
        assert answer["stopped"] == "loaded" or answer["said"].startswith(("FOLDER", "tiny 1.0.0: ")), answer
        assert answer["said"].isprintable() and len(answer["said"]) < 200, answer


def test_what_can_be_told_without_running_is_refused_at_loading(tried):
    """Loops, other files, giants, wrong ends and broken files never score a case."""
    late = [kind for kind, answer in tried.items() if family(kind) in REFUSED_UNRUN and answer["stopped"] != "at loading"]
    assert sorted(late) == sorted(kind for kind in HARMLESS if family(kind) in REFUSED_UNRUN)


def test_what_only_running_shows_fails_at_scoring(tried):
    """NaN, wrong shapes and memory without end are an error of this model, not of the service."""
    for kind, answer in tried.items():
        if family(kind) in ONLY_RUNNING_SHOWS:
            assert answer["stopped"] == "at scoring", answer


def test_no_hostile_model_takes_more_memory_than_models_may(tried):
    """Only those whose size comes out of their own calculation get near the bound; the others take next to nothing."""
    for kind, answer in tried.items():
        most = MEMORY_BYTES_LIMIT / MEGABYTE + 100 if family(kind) == "hidden_giants" else 100
        assert answer["grew"] < most, answer


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("control_flow: Loop", "FOLDER: model.onnx uses operators that are not accepted: ai.onnx:Loop"),
        ("control_flow: training graph", "FOLDER: model.onnx carries graphs for training, which are not accepted"),
        (
            "giants: ConstantOfShape 20000 squared",
            f"FOLDER: model.onnx needs 400000007 values for one case; at most {ELEMENTS_LIMIT} are accepted",
        ),
        ("giants: twenty thousand operators", "FOLDER: model.onnx has 20001 operators; at most 10000 are accepted"),
        ("outside_files: external data in a hard link", "FOLDER: model.onnx keeps data in other files, which are not accepted"),
        ("crashes: the least whole number over minus one", "FOLDER: model.onnx divides whole numbers, which is not accepted"),
        ("broken_graphs: no opset", "FOLDER: the shapes in model.onnx contradict each other"),
        ("hidden_giants: hidden 20000 squared", "tiny 1.0.0: the model failed on this batch"),
        ("wrong_answers: weights of nan", "tiny 1.0.0: the model gave probabilities with values that are no finite numbers"),
        ("wrong_answers: no rows", "tiny 1.0.0: the model gave probabilities in shape (0, 2), not (1, 2) as the contract promises"),
    ],
)
def test_the_reason_is_told(tried, kind, said):
    """In words that lead to what is wrong with the model."""
    assert tried[kind]["said"] == said


def test_the_shipped_bundles_stay_within_the_bounds(models_folder):
    """What is refused here is never needed by an honest model."""
    folders = [path.parent for path in sorted(models_folder.glob("*/*/model.onnx"))]
    assert len(folders) >= 4
    for folder in folders:
        assert load_bundle(folder).contract.labels or folder.parent.name == "acuity"
