"""Champion and challenger: each kind of worse challenger is held back for the right reason, and a better one is not held back."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from challengers import CATALOGUE, FORGOTTEN, KINDS, Kind, Workshop, dark_lesions, smaller_comparisons
from PIL import Image

from inference.bundle import load_bundle
from inference.case import LABELS
from inference.errors import DataError
from training.cli import main
from training.comparison import Comparison, compare_bundles
from training.comparison_cases import held_out_cases
from training.comparison_report import render_html
from training.comparison_waits import simulated_waits
from training.sentinels import sentinels


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A models folder of this file's own, with small comparisons."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NABZ_SIGNING_KEY", raising=False)
        smaller_comparisons(patch)
        yield Workshop(tmp_path_factory.mktemp("workshop"))


def failed(found: Comparison) -> list[str]:
    """The gates that hold a challenger back."""
    return [gate.name for gate in found.gates if not gate.passed]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_worse_challenger_is_held_back_for_the_right_reason(workshop, kind: Kind, figure):
    """The gate that the kind names fails, alone where the answers are good; the verdict's first sentence is of the most serious failure."""
    found = workshop.compared(kind)
    figure(f"challenger with {kind.name} ({kind.task}): {found.verdict}, {', '.join(failed(found))}")
    assert found.verdict == "HOLD"
    assert kind.gate in failed(found)
    assert not kind.only or set(failed(found)) == {kind.gate}
    assert found.because[0].startswith(f"{failed(found)[0]}: ")
    if kind.name == "one red condition forgotten":  # the report says which textbook patient would be missed
        assert f"{FORGOTTEN} (codes): 2 to 3" in found.flags.sentinels


def test_an_honest_better_model_is_promoted(workshop, figure):
    """A champion that learned from shuffled outcomes, a challenger from the true ones: better on visits that neither saw, and no gate fails."""
    at = {"critical_level_2": 0.2}
    poor = workshop.acuity("0.9.0", workshop.learned, shuffled=True, thresholds=at)
    better = workshop.acuity("1.2.0", workshop.learned, thresholds=at)
    found = compare_bundles(better, poor, workshop.data("acuity"), threads=1, models=workshop.folder)
    auc = found.differences["critical_auc"]
    figure(f"an honest better model: {found.verdict}, area under the curve {auc.champion.value:.3f} to {auc.challenger.value:.3f}")
    assert (found.verdict, found.because) == ("PROMOTE", ())
    assert auc.change.low > 0


def test_swapping_nothing_changes_nothing_and_is_promoted(workshop):
    """The shipped bundle against itself: every difference is 0, nobody moves, waits are the same, and its old contract is no hindrance."""
    shipped = workshop.folder / "symptoms" / "1.0.0"
    found = compare_bundles(shipped, shipped, CATALOGUE, threads=1, models=workshop.folder)
    assert (found.verdict, found.moves) == ("PROMOTE", ())
    everything = [*found.differences.values(), *(one for group in found.subgroups.values() for one in group.values())]
    assert {(one.change.value, one.worse, one.improved) for one in everything} == {(0.0, 0, 0)}
    assert all(not isfinite(wait.change_minutes.value) or wait.change_minutes.value == 0 for wait in found.waits)
    assert "both are the same bundle" in found.remarks


def test_who_moves_is_told_with_the_reasons_that_differ_in_json_and_on_the_page(workshop):
    """From, to and why; no NaN; the verdict before everything, under-triage before accuracy, nothing fetched from elsewhere."""
    found = workshop.compared(next(kind for kind in KINDS if kind.name == "emergency threshold raised"))
    counted = sum(count for old, row in enumerate(found.level_counts) for new, count in enumerate(row) if old != new)
    assert counted == len(found.moves) > 0
    assert all(move.is_lowered and (move.gained or move.lost) and not set(move.gained) & set(move.lost) for move in found.moves)
    assert any("severity 2 or worse" in text for text in found.moves[0].lost)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert list(told)[:2] == ["verdict", "because"]
    assert len(told["moves"]) == len(found.moves) and len(told["waits"]) == 5
    page = render_html(found)
    assert page.index("HOLD</b>") < page.index("<td>Under-triage") < page.index("<td>Right condition first")
    assert all(move.case_id in page for move in found.moves)
    assert page.count("<svg") == 2
    assert not any(outside in page for outside in ('src="http', "<script", "@import", ">nan"))


def test_the_command_prints_the_verdict_and_ends_with_1_for_hold(workshop, tmp_path, capsys):
    """The champion is the live bundle of the folder; the page is written where it was asked for."""
    kind = next(kind for kind in KINDS if kind.name == "larger than its budget")
    live, challenger = workshop.folder / "symptoms" / "1.0.0", workshop.challenger(kind)
    page = tmp_path / "reports" / "page.html"
    words = ["compare", str(challenger), "--data", str(CATALOGUE), "--models", str(workshop.folder), "--html", str(page), "--json"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["verdict"], told["champion"]["bundle"]) == ("HOLD", f"symptoms {load_bundle(live).contract.version}")
    assert err.endswith(f"wrote {page}\n")
    assert "HOLD</b>" in page.read_text(encoding="utf-8")


def test_bundles_of_two_tasks_are_not_compared(workshop):
    """The message names both."""
    symptoms, acuity = workshop.folder / "symptoms" / "1.0.0", workshop.folder / "acuity" / "1.0.0"
    with pytest.raises(DataError) as caught:
        compare_bundles(symptoms, acuity, CATALOGUE, threads=1)
    assert str(caught.value) == f"{symptoms} is a bundle of symptoms, {acuity} of acuity: compare two bundles of one task"


def test_labelled_cases_are_held_out_cases(tmp_path):
    """As `nabz export` writes them: the level that was right, and 0 where nobody said."""
    cases = [
        {"case_id": "a", "age_years": 50, "complaint": "chest pain", LABELS: {"level": 2, "condition": None}},
        {"case_id": "b", "complaint": "cough", LABELS: {"level": 5, "condition": "common_cold"}},
        {"case_id": "c", "complaint": "cough"},
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    found = held_out_cases("acuity", path, after_year=2018)
    assert found.true_level.tolist() == [2, 5, 0]
    assert found.must_reach.tolist() == [3, 0, 0] and found.must_not_reach.tolist() == [0, 3, 0]
    assert found.condition == (None, "common_cold", None)


@pytest.mark.parametrize("level", [7, "two"])
def test_a_label_that_is_no_level_is_named(tmp_path, level):
    """By the case's id."""
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"case_id": "a", "complaint": "cough", LABELS: {"level": level}}), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        held_out_cases("acuity", path, after_year=2018)
    assert str(caught.value) == f"{path}: labels.level is not 1 to 5 for a"


def test_data_of_another_kind_are_refused(tmp_path):
    """The message says what there could be."""
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match=r"x\.txt holds no held-out cases for acuity: expected the catalogue's folder"):
        held_out_cases("acuity", tmp_path / "x.txt", after_year=2018)
    with pytest.raises(DataError, match="does not exist: name held-out data that belong to symptoms"):
        held_out_cases("symptoms", tmp_path / "none", after_year=2018)


def test_the_sentinels_are_every_severe_condition(workshop):
    """Each condition of severity 1 or 2, by codes; the shipped model leads with it nearly always."""
    from training.comparison_cases import knowledge_in

    knowledge = knowledge_in(CATALOGUE)
    marked = sentinels(knowledge)
    severe = [name for name in knowledge.labels if knowledge.conditions[name]["severity"] <= 2]
    assert [one.condition for one in marked if one.wording == "codes"] == severe
    assert {one.wording for one in marked} == {"codes", "roman"}
    assert all(one.reading.case.findings or one.reading.case.complaint for one in marked)
    assert all(not one.reading.problems for one in marked)


def test_patients_who_are_put_too_low_wait_longer(workshop):
    """All emergencies at level 4 instead of 2: their simulated wait grows, and the others' does not."""
    truth = np.repeat([1, 2, 3, 4, 5], 20)
    waits = simulated_waits(truth, truth, np.where(truth == 2, 4, truth))
    assert waits[1].change_minutes.value > 0 and waits[1].is_measured
    assert waits[3].change_minutes.value <= 0.5


def test_a_lesion_model_that_fails_on_dark_photos_is_held_back(workshop, shared_data: Path, tmp_path, figure):
    """Blind in the darker half of real photos: the worst group's gate fails."""
    source = shared_data.resolve() / "pad_ufes_20"
    table = pd.read_csv(source / "metadata.csv", dtype=str, keep_default_na=False)
    table = pd.concat([table[table["diagnostic"] == "BCC"].head(75), table[table["diagnostic"] == "NEV"].head(15)])
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    light = []
    for name in table["img_id"]:
        (folder / "images" / name).symlink_to(source / "images" / name)
        light.append(np.asarray(Image.open(source / "images" / name).convert("RGB").resize((32, 32))).mean())
    table.to_csv(folder / "metadata.csv", index=False)
    shipped = next((Path("models") / "lesions").iterdir())
    recipe = load_bundle(shipped).contract.preprocessing
    mean, spread = (float(np.mean(recipe[name])) for name in ("mean", "std"))
    challenger = dark_lesions(workshop, (float(np.median(light)) - mean) / spread)
    found = compare_bundles(challenger, shipped, folder, threads=2, models=workshop.folder)
    worst = next(gate for gate in found.gates if gate.name == "worst_subgroup")
    figure(f"challenger with one skin tone degraded (lesions): {found.verdict}, {', '.join(failed(found))}; {worst.why}")
    assert {"worst_subgroup", "missed_malignant"} <= set(failed(found))
