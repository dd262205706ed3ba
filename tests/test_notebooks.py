"""The notebooks run from top to bottom, define nothing, and are kept without output."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = {"data_quality", "error_analysis", "fairness", "threshold_and_queue_policy", "train_on_your_own_data"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def code(path: Path) -> list[str]:
    """The code cells, without the line that lets pictures show."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return ["\n".join(line for line in cell.source.split("\n") if not line.startswith("%")) for cell in cells]


def test_every_notebook_is_here():
    """The five that the README names."""
    assert {path.stem for path in NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_and_keeps_no_output(path):
    """No function, class or lambda: what is worth a name is worth a module with tests. No output: it would be somebody's data."""
    assert [type(node).__name__ for cell in code(path) for node in ast.walk(ast.parse(cell)) if isinstance(node, DEFINITIONS)] == []
    cells = nbformat.read(path, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path, tmp_path, monkeypatch):
    """From top to bottom in a kernel of its own, writing only where temporary files go; at least one picture comes out."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {entry.name for entry in ROOT.iterdir()}
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs) or path.stem == "train_on_your_own_data"
    assert {entry.name for entry in ROOT.iterdir()} <= before | {".pytest_cache"}
    assert any(tmp_path.glob("nabz-*"))
