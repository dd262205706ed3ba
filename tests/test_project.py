"""The project's own promises: documents that are true, commands with examples that run, boundaries that hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from inference.cli import parser as nabz_parser
from training.cli import main, parser

ROOT = Path(__file__).resolve().parent.parent
TREE = re.compile(r"^[│ ]*[├└]── (\S+)", re.MULTILINE)


def git_files() -> set[str]:
    """What git tracks here; nothing in an unpacked archive."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return set(done.stdout.split("\n")) - {""}


def test_the_readme_tree_names_every_module():
    """Each Python file of both packages stands in README's tree, and the tree names none that is not there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1]
    named = set(re.findall(r"(\w+\.py)\b", text))
    folders = ("inference", "inference/service", "inference/service/web", "training")
    real = {path.name for folder in folders for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert named == real


def test_make_help_lists_every_target():
    """Every phony target of the Makefile has a line of help."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())
    described = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == described


def test_lock_files_have_hashes_and_no_index():
    """Every pinned requirement has a hash, and no line names an index."""
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-zA-Z0-9_.-]+==", text, re.MULTILINE)
        assert pins and text.count("--hash=sha256:") >= len(pins)
        assert not re.search(r"index-url|find-links|https?://", text)


def test_the_core_lock_has_no_training_library():
    """The inference install stays light."""
    text = (ROOT / "requirements" / "core.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(torch|torchvision|scikit-learn|pandas|mlflow|lightgbm|scipy)==", text, re.MULTILINE)


def test_no_external_data_is_committed():
    """Nothing with the names of the external data sets' files is tracked, and no signing key."""
    tracked = git_files()
    outside = [name for name in tracked if re.search(r"(patients_|train_statistics|visits\.csv|PAT_\d|ISIC_\d|signing_key\.)", name)]
    assert outside == []


def subcommands(top) -> dict:
    """Every subcommand's parser by name, nested ones too."""
    found = {}
    for action in top._actions:
        if getattr(action, "choices", None) and hasattr(action, "add_parser"):
            for name, inner in action.choices.items():
                found[name] = inner
                found.update({f"{name} {more}": parser for more, parser in subcommands(inner).items()})
    return found


def test_every_training_command_has_help_with_an_example():
    """The epilog of each command starts with an example of itself."""
    for name, inner in subcommands(parser()).items():
        assert inner.epilog.startswith(f"example: nabz-train {name.split()[0]}"), name


def test_every_help_can_be_printed():
    """The lists of commands and each command's own help: a percent sign in them is no placeholder."""
    for top in (parser(), nabz_parser()):
        listed = top.format_help()
        for name, inner in subcommands(top).items():
            assert inner.format_help().startswith("usage:") and name.split()[0] in listed


def test_data_check_passes_and_counts(capsys, monkeypatch):
    """The shipped catalogue has no problem and is as large as promised."""
    monkeypatch.chdir(ROOT)
    assert main(["data", "check"]) == 0
    conditions, findings = map(int, re.findall(r"(\d+) (?:conditions|findings)", capsys.readouterr().err))
    assert conditions >= 90 and findings >= 220


def test_the_sources_are_the_ones_on_disk(capsys, monkeypatch, shared_data):
    """Where the data sets are present, they are the bytes that the shipped bundles learned from."""
    monkeypatch.chdir(ROOT)
    status = main(["data", "check", "--data", str(shared_data)])
    assert (status, capsys.readouterr().out) == (0, "")


def test_evaluate_refuses_what_is_not_there(capsys, monkeypatch):
    """A missing data file is one clear line and status 2."""
    monkeypatch.chdir(ROOT)
    assert main(["evaluate", "models/symptoms/1.1.1", "--data", "nowhere.csv"]) == 2
    assert capsys.readouterr().err == "nabz-train: nowhere.csv does not exist: name a data file, or a folder with photos and their table\n"


def test_serving_names_bundles_that_exist():
    """Every live version is in the repository."""
    serving = tomllib.loads((ROOT / "models" / "serving.toml").read_text(encoding="utf-8"))
    assert set(serving) == {"symptoms", "acuity", "lesions"}
    assert all((ROOT / "models" / task / version / "model.onnx").is_file() for task, version in serving.items())


@pytest.mark.parametrize(("task", "limit"), [("symptoms", 3_000_000), ("acuity", 3_000_000), ("lesions", 20_000_000)])
def test_bundles_are_small(task, limit):
    """Each live model fits its budget in bytes."""
    for model in (ROOT / "models" / task).glob("*/model.onnx"):
        assert model.stat().st_size <= limit


def test_the_shipped_model_repeats_its_figures_on_real_patients(shared_data, monkeypatch):
    """`evaluate` on the DDXPlus test patients gives what metrics.json says and what the project promises."""
    monkeypatch.chdir(ROOT)
    from training.evaluate import evaluate_bundle

    bundle, data = Path("models/symptoms-ddxplus/1.1.1"), shared_data / "ddxplus" / "patients_all49.csv"
    full, first = (evaluate_bundle(bundle, data, questions, 2)["metrics"]["gtpa@1"]["value"] for questions in (None, 0))
    assert full >= 0.99
    assert first >= 0.35


def test_the_inference_package_imports_without_the_training_package():
    """With `training` and its libraries blocked, the core imports and knows its doors."""
    code = (
        "import sys; sys.modules.update({m: None for m in ('training', 'torch', 'pandas', 'sklearn', 'mlflow', 'scipy')}); "
        "import inference; print(sorted(inference.__all__)[:2])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['Assessment', 'BundleError']"
