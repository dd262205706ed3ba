"""The `nabz` command: formats, exit statuses, messages, documented examples."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference.cli import main, parser

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample" / "referrals.jsonl"
NOW = ["--now", "2026-11-22T10:00:00+05:00"]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    """Documented examples use paths from the repository's root."""
    monkeypatch.chdir(ROOT)


def ranked(capsys, *arguments) -> list[dict]:
    """The JSON objects that a rank command printed."""
    main([*arguments, "--format", "json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_sample_is_ranked_whole_and_in_order(capsys):
    """Every sample referral comes out once, ranks run from 1, levels never fall back."""
    status = main(["rank", str(SAMPLE), *NOW, "--format", "json"])
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 1
    assert [one["rank"] for one in results] == list(range(1, 17))
    assert sorted(one["case_id"] for one in results) == sorted(
        json.loads(line)["case_id"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()
    )
    assert [one["level"] for one in results] == sorted(one["level"] for one in results)


def test_the_sample_says_what_a_clinician_expects(capsys):
    """Pre-eclampsia, a child in respiratory distress, a heart attack and a snake bite are levels 1 or 2."""
    level = {one["case_id"]: one["level"] for one in ranked(capsys, "rank", str(SAMPLE), *NOW)}
    assert all(level[name] <= 2 for name in ("r-01", "r-02", "r-03", "r-04", "r-16"))
    assert all(level[name] >= 3 for name in ("r-07", "r-09", "r-12"))


def test_json_has_the_documented_keys(capsys):
    """The keys that design and README promise are there."""
    one = ranked(capsys, "rank", str(SAMPLE), *NOW)[0]
    promised = {
        "case_id", "rank", "level", "level_name", "emergency_probability", "floor_level", "red_flags", "differential",
        "prediction_set", "specialty", "lesion", "review", "reasons", "provenance",
    }  # fmt: skip
    assert promised <= one.keys()
    assert {"condition", "icd10", "probability", "severity"} <= one["differential"][0].keys()
    assert {"needed", "why"} == one["review"].keys()


def test_csv_and_table_have_every_case(capsys, tmp_path):
    """The CSV has one row a case; the table names each case, its cap and the notice."""
    main(["rank", str(SAMPLE), *NOW, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 16
    out = tmp_path / "worklist.txt"
    main(["rank", str(SAMPLE), *NOW, "--format", "table", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert all(row["case_id"] in text for row in rows)
    assert "not a medical device" in text


def test_a_missing_file_is_exit_2(capsys):
    """A file that is not there gives one clear line and status 2."""
    assert main(["rank", "nowhere.jsonl"]) == 2
    assert capsys.readouterr().err == "nabz: nowhere.jsonl does not exist: name a file of cases (.json, .jsonl, .ndjson, .csv, .parquet)\n"


def test_bad_cases_are_ranked_and_named(capsys, tmp_path):
    """Impossible vitals, a broken line, a duplicate id and an unknown column cost no case its place."""
    file = tmp_path / "cases.jsonl"
    file.write_text(
        '{"case_id": "ok", "age_years": 30, "complaint": "runny nose"}\n'
        '{"case_id": "impossible", "age_years": 240, "vitals": {"spo2_percent": 130, "temperature_celsius": 370}}\n'
        "{broken\n"
        '{"case_id": "twice", "complaint": "fever"}\n{"case_id": "twice", "complaint": "fever"}\n'
        '{"case_id": "extra", "complaint": "fever", "colour": "red"}\n'
        '{"case_id": "empty", "complaint": ""}\n',
        encoding="utf-8",
    )
    assert main(["rank", str(file), "--format", "json"]) == 1
    captured = capsys.readouterr()
    results = {one["case_id"]: one for one in map(json.loads, captured.out.splitlines())}
    assert set(results) == {"ok", "impossible", "cases-3", "twice", "extra", "empty"}
    assert not results["ok"]["review"]["needed"]
    assert all(results[name]["review"]["needed"] for name in results if name != "ok")
    assert "nabz: impossible: vitals.spo2_percent is 130, expected 30 to 100" in captured.err


def test_a_tampered_bundle_is_refused_and_ranking_goes_on(capsys, tmp_path):
    """One byte changed in a model: its name is said, the other models still score, the status is 1."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    model = next((tmp_path / "models" / "acuity").glob("*/model.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    status = main(["rank", str(SAMPLE), *NOW, "--format", "json", "--models", str(tmp_path / "models")])
    captured = capsys.readouterr()
    assert status == 1
    assert f"{model.parent} was altered after it was signed" in captured.err
    assert len(captured.out.splitlines()) == 16
    assert main(["verify", str(model.parent)]) == 2


def test_no_bundle_at_all_ranks_by_rules(capsys, tmp_path):
    """With an empty models folder every case is ranked by rules and the command says so."""
    results = ranked(capsys, "rank", str(SAMPLE), *NOW, "--models", str(tmp_path))
    assert len(results) == 16
    assert {one["scored_by"] for one in results} <= {"rules alone", "nothing"}


def test_verify_passes_the_shipped_bundles(capsys):
    """Every shipped bundle verifies."""
    bundles = [path.parent for path in (ROOT / "models").glob("*/*/contract.json")]
    assert len(bundles) >= 4
    assert [main(["verify", str(bundle)]) for bundle in bundles] == [0] * len(bundles)


def test_assess_prints_reasons(capsys):
    """`nabz assess` says the level, why, and what it could not know."""
    assert main(["assess", "data/sample/case.json", *NOW]) in (0, 1)
    text = capsys.readouterr().out
    assert "level" in text and "why:" in text and "not a medical device" in text


def subcommands() -> dict:
    """Every subcommand's parser by name."""
    return next(action.choices for action in parser()._actions if hasattr(action, "choices") and action.choices)


@pytest.mark.parametrize("name", ["rank", "assess", "verify"])
def test_every_command_has_help_with_an_example_that_runs(name, capsys, tmp_path):
    """The example that a command's help prints runs."""
    epilog = subcommands()[name].epilog
    assert epilog.startswith("example: nabz ")
    words = epilog.removeprefix("example: nabz ").split()
    if "--out" in words:
        words[words.index("--out") + 1] = str(tmp_path / words[words.index("--out") + 1])
    assert main(words) in (0, 1)


def test_the_core_starts_without_training_libraries():
    """Ranking imports neither torch, pandas, scikit-learn nor mlflow."""
    code = (
        "import sys; from inference.cli import main; "
        f"main(['rank', {str(SAMPLE)!r}, '--format', 'json', '--out', '/dev/null']); "
        "print([m for m in ('torch', 'pandas', 'sklearn', 'mlflow', 'fastapi', 'sqlalchemy', 'training') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
