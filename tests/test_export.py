"""Tests of the export: parity with the trained model, the card, the signature, and rewriting metrics."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from onnx import TensorProto, helper

from inference.bundle import SIGNATURE_FILE, SIGNED_FILES, Contract, load_bundle, signed_message
from inference.errors import BundleError, ExportError
from inference.models import live_versions
from training.export import check_parity, copy_as_version, file_sha256, make_live, render_card, rewrite_metrics, write_bundle
from training.signing import sign

ROWS = np.array([[1.0, 1.0], [0.0, 0.0], [np.log(3.0), 0.0]], dtype=np.float32)
HALVES = np.array([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]], dtype=np.float32)
FIGURE = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 16}
UNDEFINED = {"value": None, "low": None, "high": None, "n": 0}
NO_INTERVAL = {"value": 0.25, "low": None, "high": None, "n": 2}
REPORT = {
    "command": "nabz-train evaluate models/tiny",
    "evaluations": {
        "made-up patients": {
            "n": 16,
            "note": "Made up.",
            "metrics": {"gtpa@1": FIGURE, "auc": UNDEFINED, "ece": NO_INTERVAL},
            "subgroups": {"sex female": {"gtpa@1": {**FIGURE, "n": 7}}},
        }
    },
}


@pytest.fixture(autouse=True)
def _own_signing_key(monkeypatch):
    """Each test signs with a key of its own temporary folder."""
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)


def softmax_model() -> bytes:
    """A graph that turns `evidence` into `probabilities` by softmax."""
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["evidence"], ["probabilities"], axis=1)],
        "tiny",
        [helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def contract() -> Contract:
    """The contract of that graph."""
    return Contract.model_validate(
        {
            "task": "tiny",
            "version": "1.0.0",
            "created": "2026-01-01T00:00:00+00:00",
            "model_sha256": "",
            "inputs": [{"name": "evidence", "dtype": "float32", "shape": ["n", 2], "meaning": "two numbers"}],
            "outputs": [{"name": "probabilities", "dtype": "float32", "shape": ["n", 2], "meaning": "sum to 1"}],
            "labels": [{"name": "a", "name_en": "A"}, {"name": "b", "name_en": "B"}],
            "intended_use": "Shows how a card looks.",
            "limits": ["Knows two classes only.", "Says nothing about real care."],
            "licence": "Apache-2.0",
            "data": [{"name": "made-up", "licence": "CC0", "sha256": "ab12", "citation": "Nobody."}],
            "thresholds": {"severity_level_2": 0.125},
            "training": {"seed": 7},
        }
    )


def written(tmp_path: Path) -> Path:
    """A bundle as `write_bundle` leaves it."""
    folder = tmp_path / "models" / "tiny" / "1.0.0"
    write_bundle(folder, softmax_model(), contract(), REPORT)
    return folder


def parity_with(expected: np.ndarray) -> dict[str, float | int]:
    """Compare the softmax graph with a model that gave `expected`."""
    return check_parity(lambda _feeds: {"probabilities": expected}, softmax_model(), {"evidence": ROWS})


def test_parity_passes_equal_models_and_reports_the_difference():
    """Softmax of (ln 3, 0) is (3/4, 1/4); the report says how many rows agreed and how well."""
    report = parity_with(HALVES)
    assert report["rows"] == 3
    assert report["max_abs_difference"] < 1e-6
    assert parity_with(HALVES + np.float32(5e-5))["max_abs_difference"] == pytest.approx(5e-5, rel=0.01)


def test_parity_refuses_a_difference_of_a_thousandth():
    """One cell of six is enough, and the message says by how much and what to look for."""
    off = HALVES.copy()
    off[2, 1] += 1e-3
    with pytest.raises(ExportError) as caught:
        parity_with(off)
    assert str(caught.value) == (
        "the ONNX model's probabilities differs from the trained model's by 1.00e-03, more than 1e-04: "
        "it was not written; look for an operator that the converter treats differently"
    )


@pytest.mark.parametrize("where", ["trained", "exported"])
def test_parity_refuses_nan_on_either_side(where):
    """NaN is not equal to anything, and never within a tolerance."""
    rows, expected = ROWS.copy(), HALVES.copy()
    if where == "trained":
        expected[0, 0] = np.nan
    else:
        rows[0, 0] = np.nan
    with pytest.raises(ExportError, match="by nan, more than 1e-04"):
        check_parity(lambda _feeds: {"probabilities": expected}, softmax_model(), {"evidence": rows})


def test_parity_refuses_a_graph_that_a_bundle_could_not_hold():
    """The trainer learns of a refused operator before it writes anything."""
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["evidence"], ["probabilities"])],
        "tiny",
        [helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.INT64, [2, "n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(BundleError) as caught:
        check_parity(lambda _feeds: {"probabilities": HALVES}, model, {"evidence": ROWS})
    assert str(caught.value) == "export: model.onnx uses operators that are not accepted: ai.onnx:NonZero"


def test_a_written_bundle_has_five_files_and_the_model_s_hash(tmp_path):
    """The contract names the model's hash, whatever the trainer had put there."""
    folder = written(tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == sorted([*SIGNED_FILES, SIGNATURE_FILE])
    assert load_bundle(folder).contract.model_sha256 == hashlib.sha256(softmax_model()).hexdigest()
    assert json.loads((folder / "metrics.json").read_text()) == REPORT


def test_the_card_says_the_use_the_limits_the_figures_and_the_data():
    """A reader of the card alone learns what the model is for and what it is not."""
    lines = render_card(contract(), REPORT).splitlines()
    for expected in (
        "# tiny 1.0.0",
        "Shows how a card looks.",
        "**Decision support, not a medical device; not clinically validated. The local clinical lead must sign off before any use with patients.**",
        "- Knows two classes only.",
        "- Says nothing about real care.",
        "### made-up patients",
        "n = 16. Made up.",
        "| gtpa@1 | 0.750 (0.500 to 0.900, n = 16) | share whose own condition is among the first so many |",
        "| auc | undefined (n = 0) | chance that a patient with the outcome scores above one without |",
        "| ece | 0.250 (no interval, n = 2) | mean gap between stated probability and what happened |",
        "| subgroup | gtpa@1 |",
        "| sex female | 0.750 (0.500 to 0.900, n = 7) |",
        "- severity_level_2: 0.1250",
        "- made-up (CC0): Nobody. SHA-256 `ab12`",
        "- seed: 7",
    ):
        assert expected in lines


def test_the_public_key_beside_the_bundles_verifies_the_signature(tmp_path):
    """Verified here with the cryptography package alone, and refused for other bytes."""
    folder = written(tmp_path)
    record = json.loads((folder / SIGNATURE_FILE).read_text())
    public = base64.b64decode((tmp_path / "models" / "trusted_keys" / f"{record['key_id']}.pub").read_bytes())
    assert record["key_id"] == hashlib.sha256(public).hexdigest()[:16]
    files = {name: (folder / name).read_bytes() for name in SIGNED_FILES}
    key = Ed25519PublicKey.from_public_bytes(public)
    key.verify(base64.b64decode(record["signature"]), signed_message(files))
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(record["signature"]), signed_message({**files, "card.md": b"other"}))


def test_the_signing_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    """Two bundles of one folder share the key."""
    first = written(tmp_path)
    private = tmp_path / "models" / ".signing_key.pem"
    content = private.read_bytes()
    assert private.stat().st_mode & 0o777 == 0o600
    write_bundle(tmp_path / "models" / "tiny" / "1.0.1", softmax_model(), contract(), REPORT)
    assert private.read_bytes() == content
    assert len(list((tmp_path / "models" / "trusted_keys").iterdir())) == 1
    assert load_bundle(first).contract.version == "1.0.0"


def test_the_signing_key_can_be_named_and_kept_elsewhere(tmp_path, monkeypatch):
    """Then the models folder holds no private key."""
    monkeypatch.setenv("NABZ_SIGNING_KEY", str(tmp_path / "safe" / "key.pem"))
    folder = written(tmp_path)
    assert (tmp_path / "safe" / "key.pem").is_file()
    assert not (tmp_path / "models" / ".signing_key.pem").exists()
    assert load_bundle(folder).contract.task == "tiny"


def test_a_signing_key_of_another_kind_is_refused(tmp_path, monkeypatch):
    """The message says how to make the right one."""
    other = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    monkeypatch.setenv("NABZ_SIGNING_KEY", str(path))
    with pytest.raises(ExportError) as caught:
        sign(tmp_path / "models" / "tiny" / "1.0.0", dict.fromkeys(SIGNED_FILES, b""))
    assert str(caught.value) == f"{path} is not an Ed25519 private key: make one with `openssl genpkey -algorithm ed25519`"


def test_rewriting_metrics_keeps_the_model_byte_for_byte(tmp_path):
    """New figures, a new card and a new signature; the model and the contract stay."""
    folder = written(tmp_path)
    before = {name: (folder / name).read_bytes() for name in (*SIGNED_FILES, SIGNATURE_FILE)}
    report = json.loads(json.dumps(REPORT))
    report["evaluations"]["made-up patients"]["metrics"]["gtpa@1"]["value"] = 0.875
    rewrite_metrics(folder, report)
    after = {name: (folder / name).read_bytes() for name in before}
    assert after["model.onnx"] == before["model.onnx"]
    assert after["contract.json"] == before["contract.json"]
    assert json.loads(after["metrics.json"]) == report
    assert b"| gtpa@1 | 0.875 (0.500 to 0.900, n = 16) |" in after["card.md"]
    assert after[SIGNATURE_FILE] != before[SIGNATURE_FILE]
    assert load_bundle(folder).contract.task == "tiny"


def test_an_altered_bundle_is_not_signed_again(tmp_path):
    """Rewriting metrics must not turn somebody else's model into ours."""
    folder = written(tmp_path)
    (folder / "model.onnx").write_bytes(softmax_model() + b"\x12\x00")
    with pytest.raises(BundleError, match="was altered after it was signed"):
        rewrite_metrics(folder, REPORT)


def test_a_copy_under_another_version_keeps_the_model_and_leaves_the_old_one(tmp_path):
    """The new version names itself in contract, card and commands; the old one is as it was."""
    folder = written(tmp_path)
    report = {**REPORT, "command": f"nabz-train evaluate {folder.as_posix()}"}
    rewrite_metrics(folder, report)
    before = {name: (folder / name).read_bytes() for name in (*SIGNED_FILES, SIGNATURE_FILE)}
    new = copy_as_version(folder, "1.0.1")
    assert new == tmp_path / "models" / "tiny" / "1.0.1"
    assert (new / "model.onnx").read_bytes() == before["model.onnx"]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert load_bundle(new).contract.version == "1.0.1"
    assert json.loads((new / "metrics.json").read_text(encoding="utf-8"))["command"] == f"nabz-train evaluate {new.as_posix()}"
    assert (new / "card.md").read_text(encoding="utf-8").startswith("# tiny 1.0.1\n")


def test_a_version_is_never_written_twice(tmp_path):
    """What somebody may use already stays what it is."""
    folder = written(tmp_path)
    copy_as_version(folder, "1.0.1")
    with pytest.raises(ExportError) as caught:
        copy_as_version(folder, "1.0.1")
    assert str(caught.value) == f"{folder.with_name('1.0.1')} is there already: a version is never written twice, name the next one"


def test_going_live_leaves_the_other_tasks_alone(tmp_path):
    """The first time names what it is told; the second changes one line."""
    make_live(tmp_path, {"acuity": "1.0.0", "lesions": "1.0.0"})
    make_live(tmp_path, {"acuity": "1.0.1"})
    assert live_versions(tmp_path) == {"acuity": "1.0.1", "lesions": "1.0.0"}


def test_the_card_shows_the_calibration_by_band():
    """Patients, events and their share; the counts are not repeated among the hyper-parameters."""
    bands = [{"low": 0.0, "high": 0.4, "n": 40, "events": 5}, {"low": 0.4, "high": 1.0, "n": 16, "events": 12}]
    told = {"data": "made-up visits", "is_synthetic": False, "event": "an expert says so", "bands": bands}
    card = render_card(contract().model_copy(update={"training": {"seed": 7, "calibration_bands": told}}), REPORT)
    assert "made-up visits. An event: an expert says so." in card
    assert "| 0.0 to 0.4 | 40 | 5 | 0.125 | 0.055 to 0.261 |\n| 0.4 to 1.0 | 16 | 12 | 0.750 | 0.505 to 0.898 |\n" in card
    assert "- seed: 7" in card and "calibration_bands" not in card
    assert "observed share" not in render_card(contract(), REPORT)


def test_metrics_that_json_cannot_hold_are_refused(tmp_path):
    """JSON has no NaN: an undefined figure is null with its count."""
    broken = {"command": "x", "evaluations": {}, "value": float("nan")}
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_bundle(tmp_path / "models" / "tiny" / "1.0.0", softmax_model(), contract(), broken)


def test_the_hash_of_a_folder_depends_on_names_and_bytes(tmp_path):
    """As its docstring says: the hash of a listing of the files' names and hashes, in order."""
    (tmp_path / "d" / "inner").mkdir(parents=True)
    (tmp_path / "d" / "b.txt").write_bytes(b"two")
    (tmp_path / "d" / "inner" / "a.txt").write_bytes(b"one")
    one, two = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()
    assert file_sha256(tmp_path / "d" / "b.txt") == two
    assert file_sha256(tmp_path / "d") == hashlib.sha256(f"b.txt {two}\ninner/a.txt {one}\n".encode()).hexdigest()
    (tmp_path / "d" / "b.txt").rename(tmp_path / "d" / "c.txt")
    assert file_sha256(tmp_path / "d") != hashlib.sha256(f"b.txt {two}\ninner/a.txt {one}\n".encode()).hexdigest()
