"""Tests of a run's settings and their hash, its data card, its announcement, checkpoints, and when it stops."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from inference.errors import DataError
from training.announcement import Announcement
from training.checkpoints import load_checkpoint, save_checkpoint
from training.data_card import DataCard, counts
from training.early_stopping import EarlyStopping
from training.settings import RunOptions, Settings, add_run_options

SETTINGS = Settings("symptoms", {"steps": 3, "rate": 0.1}, {"catalogue": "ab" * 32}, 0, 2, code="c" * 64, libraries={"torch": "2"})
CARD = DataCard("symptoms", {"catalogue": "ab" * 32}, 5, "patients", {"flu": 3, "cold": 2}, {"age": 0.5}, {"all": 5}, "nothing")


def console() -> Console:
    """A console that keeps what is printed."""
    return Console(file=StringIO(), width=200)


def test_the_hash_is_of_everything_and_of_nothing_else() -> None:
    """Each part changes it; the order in which the recipe was written does not."""
    changes = (
        {"task": "acuity"}, {"recipe": {"steps": 4, "rate": 0.1}}, {"data": {"catalogue": "cd" * 32}}, {"seed": 1}, {"threads": 1},
        {"smoke": True}, {"processes": 2}, {"device": "cuda"}, {"code": "d" * 64}, {"libraries": {"torch": "3"}},
    )  # fmt: skip
    hashes = {SETTINGS.sha256, *(replace(SETTINGS, **change).sha256 for change in changes)}
    assert len(hashes) == len(changes) + 1
    assert replace(SETTINGS, recipe={"rate": 0.1, "steps": 3}).sha256 == SETTINGS.sha256


def test_settings_have_a_folder_and_parameters_of_their_own() -> None:
    """The folder is named by the hash, which the tracker is told beside seed, threads and recipe."""
    assert SETTINGS.folder(Path("runs")) == Path("runs/symptoms") / SETTINGS.sha256[:16]
    told = SETTINGS.parameters()
    assert told["settings_sha256"] == SETTINGS.sha256
    assert (told["seed"], told["threads"], told["steps"], told["rate"]) == (0, 2, 3, 0.1)


def test_the_code_and_the_libraries_are_in_it_unasked() -> None:
    """The same twice in one checkout; torch is among the libraries."""
    one, two = (Settings("acuity", {}, {}, 0, 1) for _ in range(2))
    assert one.sha256 == two.sha256
    assert len(one.code) == 64
    assert one.libraries["torch"] == torch.__version__.split("+")[0]


def test_options_may_be_left_out() -> None:
    """Whoever trains as a part of something else gets the defaults; the command line's are the same."""
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    assert RunOptions.of(argparse.Namespace()) == RunOptions.of(parser.parse_args([])) == RunOptions()
    asked = RunOptions.of(parser.parse_args(["--runs", "r", "--dry-run", "--search", "5"]))
    assert asked == RunOptions(Path("r"), dry_run=True, trials=5)


def test_a_dry_run_says_everything_and_writes_nothing(tmp_path: Path) -> None:
    """Hash, card, files and time are printed, with --quiet too; the folder stays empty."""
    shown = console()
    options = RunOptions(tmp_path / "runs", dry_run=True)
    folder = Announcement(SETTINGS, CARD, options, tmp_path / "models", ("checkpoint.pt",), 600.0, "from two steps").make(
        quiet=True, console=shown
    )
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert SETTINGS.sha256 in text
    assert "flu: 3" in text
    assert "age: 50.0%" in text
    assert f"would write: \n  {folder}/settings.json\n  {folder}/data_card.json\n  {folder}/checkpoint.pt\n" in text
    assert "fitting takes about 10 min (from two steps); measuring and exporting come on top" in text
    assert list(tmp_path.iterdir()) == []


def test_a_run_records_its_settings_and_its_card(tmp_path: Path) -> None:
    """Both are in the run's folder, also with --quiet, which prints nothing; the settings hash to the folder's name."""
    shown = console()
    folder = Announcement(SETTINGS, CARD, RunOptions(tmp_path), tmp_path / "models", ()).make(quiet=True, console=shown)
    assert shown.file.getvalue() == ""  # type: ignore[attr-defined]
    assert json.loads((folder / "settings.json").read_text(encoding="utf-8"))["recipe"] == {"steps": 3, "rate": 0.1}
    card = json.loads((folder / "data_card.json").read_text(encoding="utf-8"))
    assert (card["rows"], card["classes"], card["missing"]) == (5, {"flu": 3, "cold": 2}, {"age": 0.5})


def test_a_short_table_shows_the_ends_of_many_classes() -> None:
    """Of 20 classes the three largest and the three smallest, of 8 fields the six that are missing most."""
    many = replace(CARD, classes={f"c{n:02d}": n for n in range(1, 21)}, missing={f"m{n}": n / 10 for n in range(8)})
    shown = console()
    many.show(shown)
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in text for name in ("c20: 20", "c18: 18", "c03: 3", "c01: 1", "m7: 70.0%", "m2: 20.0%", "and 2 more"))
    assert not any(name in text for name in ("c17", "c04", "m1:"))


def test_labels_are_counted() -> None:
    """Two of a, one of b."""
    import numpy as np

    assert counts(np.array(["a", "b", "a"])) == {"a": 2, "b": 1}


def test_a_checkpoint_comes_back_and_is_written_whole(tmp_path: Path) -> None:
    """Tensors and plain values survive; no unfinished file is left; where there is no file there is nothing to go on with."""
    file = tmp_path / "run" / "checkpoint.pt"
    assert load_checkpoint(file, "a" * 64) is None
    save_checkpoint(file, "a" * 64, {"step": 7, "weights": {"w": torch.arange(3)}, "prints": [2**63 + 1]})
    found = load_checkpoint(file, "a" * 64)
    assert found is not None
    assert (found["step"], found["weights"]["w"].tolist(), found["prints"]) == (7, [0, 1, 2], [2**63 + 1])
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.pt"]


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    """Going on with other settings would mix two models; what is no checkpoint is told apart."""
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, "a" * 64, {"step": 1})
    with pytest.raises(DataError) as caught:
        load_checkpoint(file, "b" * 64)
    assert str(caught.value) == (
        f"{file} belongs to a run with the settings aaaaaaaaaaaaaaaa, and this run's are bbbbbbbbbbbbbbbb "
        "(recipe, data, seed, threads, code and libraries must be the same); delete it to start anew"
    )
    file.write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        load_checkpoint(file, "a" * 64)
    assert str(caught.value) == f"{file} is not a checkpoint that can be read; delete it to start anew"


def test_patience_runs_out_after_so_many_checks_without_a_better_one() -> None:
    """Losses 3, 2, 2.5, 2: the best is the second, and with a patience of 2 it is over; an equal one is not better."""
    stopping = EarlyStopping(2)
    heard = [(stopping.hear(step, loss), stopping.is_over, stopping.left) for step, loss in enumerate((3.0, 2.0, 2.5, 2.0), start=1)]
    assert heard == [(True, False, 2), (True, False, 2), (False, False, 1), (False, True, 0)]
    assert (stopping.best, stopping.best_step) == (2.0, 2)
    again = EarlyStopping(2)
    again.load_state_dict(stopping.state_dict())
    assert again == stopping


def test_without_patience_it_never_stops_and_nan_is_never_best() -> None:
    """The best still counts."""
    stopping = EarlyStopping(0)
    for step in range(9):
        stopping.hear(step, math.nan if step else 1.0)
    assert (stopping.is_over, stopping.left, stopping.best_step) == (False, None, 0)
