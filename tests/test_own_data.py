"""`nabz-train data check` and `data split` on small folders of each kind: what is found, what it is called, and what never shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_near_duplicates import picture, saved

from inference.errors import DataError
from training.cli import main
from training.labelled_patients import write_patients
from training.own_data import read_own_data
from training.own_data_leaks import GIVES_AWAY, _association
from training.own_data_report import check_own_data
from training.own_data_split import held_out_rows, split_own_data
from training.skin_data import read_skin_data

ROOT = Path(__file__).resolve().parent.parent


def pad_folder(folder: Path, rows: list[dict[str, Any]], *, images: bool = True) -> Path:
    """A folder as PAD-UFES-20 has it; each row's photo is `picture(seed)`."""
    (folder / "images").mkdir(parents=True)
    usual = {
        "patient_id": "", "lesion_id": "", "img_id": "", "diagnostic": "NEV", "age": "40", "region": "ARM", "fitspatrick": "2", "gender": "FEMALE",
        **dict.fromkeys(("itch", "grew", "hurt", "changed", "bleed", "elevation"), "False"), "biopsed": "False",
    }  # fmt: skip
    table = []
    for number, row in enumerate(rows):
        seed = row.pop("seed", number)
        table.append({**usual, "patient_id": f"P{number}", "img_id": f"{number}.jpg", **row})
        if images:
            saved(folder / "images", f"{number}.jpg", picture(seed, 80))
    pd.DataFrame(table).to_csv(folder / "metadata.csv", index=False)
    return folder


def cases_file(folder: Path, *records: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cases.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), encoding="utf-8")
    return path


def codes(report: dict[str, Any], severity: str = "problem") -> set[str]:
    return {one["code"] for one in report["findings"] if one["severity"] == severity}


def test_every_row_that_cannot_be_right_is_explained(tmp_path):
    """Row, id, column, what was found, what was expected, what to do: for each wrong cell, and for nothing else."""
    folder = pad_folder(
        tmp_path / "pad",
        [{}, {"diagnostic": "BCCC", "age": "140"}, {"patient_id": "", "itch": "perhaps"}, {"img_id": "gone.jpg"}, {"img_id": "0.jpg", "fitspatrick": "7"}],
    )  # fmt: skip
    report = check_own_data(folder)
    found = [(one["row"], one["case"], one["column"], one["found"]) for one in report["rows"]]
    assert found == [
        (2, "0.jpg", "img_id", "0.jpg"),
        (3, "1.jpg", "age", "140"),
        (3, "1.jpg", "diagnostic", "BCCC"),
        (4, "2.jpg", "itch", "a text of 7 characters"),
        (4, "2.jpg", "patient_id", "nothing"),
        (5, "gone.jpg", "img_id", "gone.jpg"),
        (6, "0.jpg", "fitspatrick", "7"),
        (6, "0.jpg", "img_id", "0.jpg"),
    ]
    age = report["rows"][1]
    assert (age["expected"], age["to_do"]) == ("a number from 0 to 125, or nothing", "correct it, or leave it blank: blank is unknown")
    assert report["status"] == "problems"


def test_a_missing_column_is_named_once(tmp_path):
    """Not once a row, and with what to do."""
    folder = pad_folder(tmp_path / "pad", [{}, {"diagnostic": "BCC"}])
    table = pd.read_csv(folder / "metadata.csv").rename(columns={"region": "site"})
    table.to_csv(folder / "metadata.csv", index=False)
    (one,) = [row for row in check_own_data(folder)["rows"] if row["row"] == 0]
    assert (one["column"], one["found"], one["to_do"]) == ("region", "no such column", "add it, or correct its name in the first line")


def test_nothing_that_a_patient_said_or_is_called_is_shown(tmp_path, capsys):
    """Names and words in any column, a nested field, a finding's code or value never come out: not in JSON, table or page."""
    name = "Zubaida"
    path = cases_file(
        tmp_path,
        {
            "case_id": "a",
            "sex": name,
            "age_years": name,
            "complaint": name,
            "district": name,
            "findings": {name: "present", "F_101": name},
            name: 1,
        },
        {
            "case_id": "b",
            "vitals": {"pulse_per_minute": name, name: 1},
            "labels": {"level": 9, "level_source": name, "condition": name, name: 2},
        },
        f'{{"case_id": "{name}',
        {"case_id": "c", "received_at": name, "labels": {"outcome": name}},
    )
    page = tmp_path / "page.html"
    assert main(["data", "check", str(path), "--html", str(page)]) == 1
    assert main(["data", "check", str(path), "--json"]) == 1
    shown = "".join(capsys.readouterr()) + page.read_text(encoding="utf-8")
    assert name not in shown and name.casefold() not in shown
    report = check_own_data(path)
    assert {one["column"] for one in report["rows"]} >= {
        "sex",
        "age_years",
        "district",
        "findings",
        "vitals.pulse_per_minute",
        "labels.level",
        "_strange",
    }
    assert ("c", "labels.outcome") in {(one["case"], one["column"]) for one in report["rows"]}


def test_photos_of_one_patient_on_both_sides_and_near_duplicates_are_found(tmp_path):
    """A patient on both sides, and a copy of a training photo under another patient's name on the held-out side."""
    usual = [{"diagnostic": "BCC" if n % 2 else "NEV"} for n in range(6)]
    pad_folder(tmp_path / "own/train", [dict(row) for row in usual])
    held_out = [
        {"seed": 50, "patient_id": "P1", "img_id": "0.jpg", "diagnostic": "BCC"},
        {"seed": 3, "patient_id": "Q", "diagnostic": "BCC"},
    ]
    pad_folder(tmp_path / "own/held_out", held_out)
    report = check_own_data(tmp_path / "own")
    by_code = {one["code"]: one for one in report["findings"]}
    assert by_code["group_on_both_sides"]["n"] == 1 and "1 patients are on both sides" in by_code["group_on_both_sides"]["says"]
    assert by_code["near_duplicates_on_both_sides"]["ids"] == ["3.jpg and 1.jpg"]
    assert report["counts"]["sides"] == {"held_out": 2, "train": 6}
    assert [(one["first"], one["second"]) for one in report["near_duplicates"]] == [("3.jpg", "1.jpg")]


def test_the_same_photo_under_two_diagnoses_is_a_problem(tmp_path):
    """One of the two is wrong; that they are of different patients is a warning besides."""
    folder = pad_folder(tmp_path / "pad", [{"seed": n} for n in range(5)] + [{"seed": 4, "diagnostic": "MEL"}])
    report = check_own_data(folder)
    assert "near_duplicates_of_two_classes" in codes(report) and "near_duplicates_of_two_groups" in codes(report, "warning")


def test_missing_answers_that_give_the_class_away_are_found(tmp_path):
    """A field that only cancers have: a problem where it is an input, a warning where nabz-train does not learn from it."""
    rows = [{"diagnostic": "BCC", "biopsed": "True"} if n % 2 else {"diagnostic": "NEV", "itch": "", "gender": ""} for n in range(60)]
    report = check_own_data(pad_folder(tmp_path / "pad", rows, images=False))
    by_severity = {(one["code"], one["severity"]): one["says"] for one in report["findings"]}
    assert by_severity["missing_gives_class_away", "problem"].startswith("itch is blank for 100% of NEV and 0% of BCC (Cramér's V 1.00)")
    assert "gender" in by_severity["missing_gives_class_away", "warning"]
    assert by_severity["column_gives_class_away", "warning"].startswith("biopsed nearly decides the class (Cramér's V 1.00)")
    assert by_severity["known_after_triage", "warning"].startswith("known only after triage: biopsed.")
    assert report["missing"]["itch"]["by_class"] == {"NEV": 1.0, "BCC": 0.0}


def test_an_honest_answer_does_not_give_the_class_away():
    """Two independent columns have an association near 0, the same column twice 1; a column of one value 0."""
    random = np.random.default_rng(0)
    labels = random.choice(["a", "b", "c"], 3000)
    assert _association(random.choice(["x", "y"], 3000), labels) < 0.1 < GIVES_AWAY
    assert _association(labels, labels) == pytest.approx(1.0)
    assert _association(np.full(3000, "x"), labels) == 0.0


def test_clean_data_are_clean_and_small_groups_are_only_warned_of(tmp_path, capsys):
    """Exit 0 without a problem, 2 when nothing known is there."""
    random = np.random.default_rng(1)
    records = [
        {
            "case_id": str(n), "age_years": int(random.integers(1, 80)), "sex": ["female", "male"][n % 2], "vitals": {"pulse_per_minute": 60 + n % 50},
            "findings": {"F_001": "present"}, "labels": {"level": 2 + n % 3, "level_source": "override"},
        }
        for n in range(90)
    ]  # fmt: skip
    assert main(["data", "check", str(cases_file(tmp_path, *records))]) == 0
    assert "clean: nothing that spoils training was found" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"nabz-train: {tmp_path}/nowhere does not exist: name a file, or a folder, of your data\n"
    (tmp_path / "other").mkdir()
    assert main(["data", "check", str(tmp_path / "other")]) == 2
    assert "no known data found" in capsys.readouterr().err


def test_the_same_case_on_both_sides_under_another_id_is_found(tmp_path):
    """Equal vitals, findings and level: one case twice. Cases that say little may be alike by chance."""
    full = {"age_years": 40, "sex": "male", "vitals": {"pulse_per_minute": 88, "spo2_percent": 96, "temperature_celsius": 37.2}}
    bare = {"age_years": 30, "sex": "male"}
    cases_file(tmp_path / "own/train", {"case_id": "a", **full, "labels": {"level": 2}}, {"case_id": "b", **bare, "labels": {"level": 4}})
    cases_file(
        tmp_path / "own/held_out", {"case_id": "c", **full, "labels": {"level": 2}}, {"case_id": "d", **bare, "labels": {"level": 4}}
    )
    report = check_own_data(tmp_path / "own")
    found = next(one for one in report["findings"] if one["code"] == "same_row_on_both_sides")
    assert (found["n"], found["ids"]) == (1, ["a", "c"])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_split_keeps_patients_and_near_duplicates_on_one_side(tmp_path, seed):
    """Forty photos of twenty patients with a copy of one under another name: checked again, the split is clean and can be read."""
    rows = [{"patient_id": f"P{n // 2}", "diagnostic": ["NEV", "BCC"][n // 2 % 2]} for n in range(40)]
    rows[38] = {"patient_id": "elsewhere", "seed": 2, "diagnostic": "BCC"}
    folder, out = pad_folder(tmp_path / "pad", rows), tmp_path / "split"
    record = split_own_data(folder, out, 0.25, seed)
    assert sum(record["rows"].values()) == 40 and 8 <= record["rows"]["held_out"] <= 12
    assert record["joined"] >= 1
    report = check_own_data(out)
    assert not codes(report) & {"group_on_both_sides", "near_duplicates_on_both_sides"} and report["rows"] == []
    assert sum(len(read_skin_data(out / side).records) for side in ("train", "held_out")) == 40
    again = split_own_data(folder, tmp_path / "again", 0.25, seed)
    assert again["sha256"] == record["sha256"]


def test_a_side_of_cases_says_so_and_keeps_its_lines(tmp_path):
    """`labels.split` is set, everything else stands as it was, and one patient's cases stay together."""
    records = [{"case_id": str(n), "age_years": n, "labels": {"level": 2 + 2 * (n % 2), "patient": f"p{n // 3}"}} for n in range(60)]
    record = split_own_data(cases_file(tmp_path / "own", *records), tmp_path / "out", 0.2, 0)
    sides = {
        side: [json.loads(line) for line in (tmp_path / f"out/{side}/cases.jsonl").read_text().splitlines()] for side in record["rows"]
    }
    assert {one["case_id"] for side in sides.values() for one in side} == {str(n) for n in range(60)}
    assert all(one["labels"].pop("split") == side for side, cases in sides.items() for one in cases)
    assert sorted([one for cases in sides.values() for one in cases], key=lambda one: int(one["case_id"])) == records
    assert not {one["labels"]["patient"] for one in sides["train"]} & {one["labels"]["patient"] for one in sides["held_out"]}


def test_held_out_is_near_the_share_and_spread_over_classes():
    """A fifth of 1,000 single rows, a fifth of the rare class too; another seed holds out others."""
    labels = np.array(["a"] * 900 + ["b"] * 100)
    rows = held_out_rows(labels, np.arange(1000), 0.2, 3)
    assert (rows.sum(), rows[900:].sum()) == (200, 20)
    assert (rows != held_out_rows(labels, np.arange(1000), 0.2, 4)).any()
    with pytest.raises(DataError) as one:
        held_out_rows(labels, np.zeros(1000), 0.2, 3)
    assert str(one.value) == "all rows belong together: there is nothing to split"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), min_size=2), st.floats(0.05, 0.95), st.integers(0, 3))
def test_no_group_is_ever_on_both_sides_and_no_side_is_empty(rows, share, seed):
    """Whatever the classes and groups."""
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(groups.tolist())) < 2:
        return
    held_out = held_out_rows(labels, groups, share, seed)
    assert 0 < held_out.sum() < len(rows)
    assert not set(groups[held_out].tolist()) & set(groups[~held_out].tolist())


def test_patients_are_checked_against_their_release_and_split(tiny_release):
    """A condition, an evidence and a value that the release does not know; the release goes with both sides."""
    path = tiny_release / "patients_all49.csv"
    path.write_text(
        path.read_text(encoding="utf-8")
        + "40,[],M,plague,\"['E_1']\",E_1\n50,[],F,flu,\"['E_99']\",E_1\n60,[],F,flu,\"['E_4_@_V_z']\",E_2\n"
    )
    report = check_own_data(tiny_release)
    assert [(one["row"], one["column"], one["found"]) for one in report["rows"]] == [
        (4, "SEX", "a text of 1 characters"),
        (5, "PATHOLOGY", "a text of 6 characters"),
        (6, "EVIDENCES", "E_99"),
        (7, "EVIDENCES", "E_4 with a value it does not have"),
    ]
    split_own_data(tiny_release, tiny_release.parent / "out", 0.5, 0)
    assert (tiny_release.parent / "out/train/release_train_patients.csv").is_file()
    assert (tiny_release.parent / "out/held_out/release_evidences.json").is_file()


def test_generated_labelled_cases_are_clean_and_can_be_split(tmp_path, monkeypatch, capsys):
    """The commands that docs/own_data.md gives to whoever has no service at hand."""
    monkeypatch.chdir(ROOT)
    assert main(["data", "generate", "--labels", "--n", "120", "--out", str(tmp_path / "mine")]) == 0
    assert main(["data", "split", str(tmp_path / "mine"), "--out", str(tmp_path / "split")]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "split"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["counts"]["rows"], report["rows"]) == ("cases", 120, [])
    assert set(report["classes"]) <= set("12345")


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("YEAR,AGE,SEX,ARREMS,TEMPF,PULSE,BPSYS,BPDIAS,RESPR,POPCT,RFV1,NOCHRON,TOTCHRON,CRITICAL_CARE", "nhamcs visits"),
        ("Sex;Age;Arrival mode;Chief_complain;Mental;SBP;DBP;HR;RR;BT;Saturation;KTAS_expert", "ktas visits"),
        ("AGE,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE", "patients"),
        ("lesion_id,image_id,dx,age,localization", "lesions"),
    ],
)
def test_a_table_is_recognised_by_its_columns(tmp_path, header, kind):
    """Whatever its file is called."""
    separator = ";" if ";" in header else ","
    path = tmp_path / "mine.csv"
    path.write_text(header + "\n" + separator.join("1" for _ in header.split(separator)) + "\n", encoding="utf-8")
    assert read_own_data(path).kind.name == kind


def test_two_sides_of_different_kinds_are_refused(tmp_path, tiny_release):
    """A split is of one kind of data."""
    cases_file(tmp_path / "own/train", {"case_id": "a"})
    shutil.copytree(tiny_release, tmp_path / "own/held_out")
    with pytest.raises(DataError) as refused:
        read_own_data(tmp_path / "own")
    assert str(refused.value) == f"{tmp_path}/own: train/ and held_out/ hold cases and patients; expected one kind of data"


def test_confirmed_conditions_become_patients_to_count_from(tmp_path, catalogue_folder):
    """Conditions with enough cases make a release folder; the others are left out and counted."""
    records = [
        {
            "case_id": f"{slug}{n}",
            "age_years": 20 + n,
            "sex": "female",
            "findings": {"F_001": "present", "F_100": "absent"},
            "labels": {"condition": slug},
        }
        for slug, count in (("cholera", 12), ("acute_watery_diarrhoea", 11), ("pneumonia_adult", 2))
        for n in range(count)
    ]
    kept, left_out = write_patients(cases_file(tmp_path / "own", *records), catalogue_folder, tmp_path / "out")
    assert (kept, left_out) == ({"cholera": 12, "acute_watery_diarrhoea": 11}, {"pneumonia_adult": 2})
    assert check_own_data(tmp_path / "out")["rows"] == []
    from training.knowledge import load_knowledge

    knowledge = load_knowledge(tmp_path / "out")
    assert set(knowledge.labels) == set(kept)


@pytest.mark.parametrize(("name", "kind", "wrong"), [("ktas", "ktas visits", 89), ("pad_ufes_20", "photos", 0)])
def test_the_public_data_sets_are_what_is_known_of_them(shared_data, name, kind, wrong):
    """KTAS has 89 cells that are no number; PAD-UFES-20 leaks by what is missing, and two photos stand in it under two diagnoses."""
    report = check_own_data(shared_data / name)
    assert (report["kind"], len(report["rows"])) == (kind, wrong)
    if name == "pad_ufes_20":
        assert len(report["near_duplicates"]) == 2 and codes(report) == {"near_duplicates_of_two_classes"}
        assert {"missing_gives_class_away", "column_gives_class_away", "known_after_triage"} <= codes(report, "warning")
