"""Drift end to end on small invented samples: features, windows, references, alarms, words, the page, the metrics and the command."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from inference.case import read_case
from inference.cli import main, parser
from inference.errors import BundleError, CaseError, DataError
from inference.models import load_models
from inference.monitor import Window, judged, monitor, windows_of
from inference.monitor_features import FINDING, Scripts, family_of, sample_of, task_of
from inference.monitor_metrics import figures_of, metrics_text
from inference.monitor_outcomes import read_outcomes
from inference.monitor_reference import (
    FEW,
    KNOTS,
    Numbers,
    merged,
    numbers_of,
    read_reference,
    reference_document,
    reference_of_contract,
    reference_of_sample,
    without_small_cells,
)
from inference.monitor_sample import Column, Sample
from inference.monitor_scoring import live_reference, sample_of_cases, scored_cases, scripts_of
from inference.service.monitor_page import page_of
from inference.service.monitor_plot import save_plot
from inference.triage import Triage

START = datetime(2026, 10, 5, tzinfo=UTC)
DISTRICTS = ("multan", "dadu", "swat")


def columns_of(
    n: int, seed: int, pulse: float = 80.0, urgent: float = 0.2, districts: tuple[str, ...] = DISTRICTS, fever: float = 0.3
) -> Sample:
    """n cases of four features: a pulse, a priority, a district, a finding; one case in every hour."""
    random = np.random.default_rng(seed)
    rows = np.arange(n)
    columns = {
        "vital:pulse_per_minute": Column(np.round(random.normal(pulse, 12, n)), rows),
        "priority": Column((random.random(n) < urgent).astype(int), rows, ("routine", "urgent")),
        "district": Column(random.integers(0, len(districts), n), rows, districts),
        FINDING + "F_001": Column(np.where(random.random(n) < fever, 1, 2).astype(np.int8), rows, ("unknown", "present", "absent")),
    }
    times = np.datetime64(START.replace(tzinfo=None), "s") + (rows * 3600).astype("timedelta64[s]")
    return Sample(n, columns, times, tuple(f"c{row}" for row in rows))


@pytest.fixture(scope="module")
def reference():
    """Two thousand such cases."""
    return reference_of_sample(columns_of(2000, 0), "own", is_synthetic=False)


@pytest.fixture(scope="module")
def triage(models_folder):
    """The shipped models."""
    return Triage(load_models(models_folder))


def alarms(reference, *samples) -> list[str]:
    """The features whose drift is an alarm in the last of these windows."""
    report = monitor(reference, [Window(sample) for sample in samples])
    return [one.feature for one in report.last.alarms]


def test_quiet_weeks_are_quiet(reference):
    """Thirty windows of the same kind: no alarm in any."""
    assert [alarms(reference, columns_of(400, 10 + seed)) for seed in range(30)] == [[]] * 30


def test_each_kind_of_change_is_found_by_name(reference):
    """Numbers, shares, a place that never sent, and a finding."""
    assert alarms(reference, columns_of(400, 5, pulse=88)) == ["vital:pulse_per_minute"]
    assert alarms(reference, columns_of(400, 5, urgent=0.4)) == ["priority"]
    assert alarms(reference, columns_of(400, 5, fever=0.5)) == [FINDING + "F_001"]
    assert alarms(reference, columns_of(400, 5, districts=(*DISTRICTS, "zhob"))) == ["district"]


def test_a_trifle_is_no_alarm_however_many_cases_show_it():
    """Half a beat more a minute over forty thousand cases is certain, and does not matter."""
    reference = reference_of_sample(columns_of(40_000, 1), "own", is_synthetic=False)
    report = judged(reference, Window(columns_of(40_000, 2, pulse=80.6)), [], {}, {})
    pulse = next(one for one in report.changes if one.feature == "vital:pulse_per_minute")
    assert pulse.p_adjusted < 0.001
    assert pulse.state == "quiet"


def test_what_is_seen_twice_in_three_windows_is_an_alarm(reference):
    """A change that is a watch in one window becomes an alarm with the next; two windows without it, and it is a watch again."""
    shifted, quiet = [columns_of(100, seed, pulse=85.5) for seed in range(40)], columns_of(100, 99)
    watch = next(
        one for one in shifted if [c.state for c in judged(reference, Window(one), [], {}, {}).changes if c.state != "quiet"] == ["watch"]
    )
    assert alarms(reference, watch) == []
    assert alarms(reference, watch, watch) == ["vital:pulse_per_minute"]
    assert alarms(reference, watch, quiet, watch) == ["vital:pulse_per_minute"]
    assert alarms(reference, watch, quiet, quiet, watch) == []
    report = monitor(reference, [Window(watch), Window(watch)])
    assert report.last.alarms[0].since == 2


def test_weeks_that_differ_by_themselves_do_not_alarm():
    """Where the share of urgent cases swings from week to week, a reference that saw eight such weeks is calm; one that mixed them is not."""
    random = np.random.default_rng(0)
    weeks = [columns_of(168, 100 + week, urgent=random.uniform(0.1, 0.4)) for week in range(48)]
    length = np.timedelta64(7, "D")
    values = np.concatenate([one.columns["priority"].values for one in weeks[:8]])
    rows = np.arange(len(values))
    column = {"priority": Column(values, rows, ("routine", "urgent"))}
    start = weeks[0].received[0]
    seen = reference_of_sample(Sample(len(rows), column, start + rows // 168 * length), "own", is_synthetic=False)
    mixed = reference_of_sample(Sample(len(rows), column, np.full(len(rows), start)), "own", is_synthetic=False)
    assert seen.features["priority"].dispersion > 3
    assert mixed.features["priority"].dispersion == 1

    def false_alarms(reference) -> int:
        return sum("priority" in [one.feature for one in judged(reference, Window(week), [], {}, {}).alarms] for week in weeks[8:])

    assert false_alarms(seen) <= 2
    assert false_alarms(mixed) >= 10


def test_weeks_are_cut_from_the_newest_case_back():
    """Four hundred hours are two whole weeks and a part; nothing is counted twice."""
    windows = windows_of(columns_of(400, 0))
    assert [window.sample.n for window in windows] == [64, 168, 168]
    assert windows[-1].end == (START + timedelta(hours=399, seconds=1)).replace(tzinfo=None)
    assert windows_of(columns_of(400, 0), days=7, most=1)[0].sample.n == 168


def test_no_district_of_fewer_than_five_is_shown():
    """Neither in a reference nor in a report, whatever else is alarming."""
    assert without_small_cells({"multan": 100, "zhob": 4, "swat": 3}) == {"multan": 100, FEW: 7}
    sample = columns_of(2000, 0)
    places = np.where(np.arange(2000) < 3, 2, np.arange(2000) % 2)
    sample = Sample(2000, {**sample.columns, "district": Column(places, np.arange(2000), ("dadu", "multan", "secret"))}, sample.received)
    reference = reference_of_sample(sample, "own", is_synthetic=False)
    assert "secret" not in json.dumps(reference_document(reference))
    recent = columns_of(400, 3, districts=("a village", "dadu"))
    few = np.where(np.arange(400) < 4, 0, 1)
    recent = Sample(400, {**recent.columns, "district": Column(few, np.arange(400), ("a village", "dadu"))}, recent.received)
    report = monitor(reference, [Window(recent)])
    assert "district" in [one.feature for one in report.last.alarms]
    assert "a village" not in report.model_dump_json()
    assert "a village" not in page_of(report)
    # One that the reference knows and that sent two cases: its share would be those two.
    pair = Sample(
        400, {**recent.columns, "district": Column(np.where(np.arange(400) < 2, 0, 1), np.arange(400), ("dadu", "zhob"))}, recent.received
    )
    cells = next(one for one in monitor(reference, [Window(pair)]).last.alarms if one.feature == "district").cells
    assert [(one.label, one.recent) for one in cells] == [("zhob", 398 / 400), ("multan", 0.0), (FEW, 0.0)]


def test_no_word_of_a_sender_becomes_a_feature(triage):
    """A finding's code that is none, and a province that one case names, are in no reference."""
    raw = [
        made(number, province="house 7 of Aslam", findings={"Aslam has fever": "present"}) if number == 0 else made(number)
        for number in range(20)
    ]
    sample = sample_of_cases([read_case(one, "x") for one in raw], triage)
    assert "aslam" not in json.dumps(reference_document(reference_of_sample(sample, "own", is_synthetic=False))).casefold()


def test_a_distribution_is_kept_small_and_comes_back():
    """At most KNOTS values, a count for each, the deciles near the true ones, six digits."""
    values = np.random.default_rng(0).normal(size=5000)
    kept = numbers_of(values)
    assert len(kept.knots) <= KNOTS
    assert kept.below[-1] == kept.n == 5000
    assert kept.binned().sum() == 5000
    assert np.abs(kept.binned() / 5000 - 0.1).max() < 0.02
    few = numbers_of(np.array([3.0, 1.0, 3.0]))
    assert few.knots == (1.0, 3.0)
    assert few.below == (1, 3)
    with pytest.raises(ValueError, match="knots must ascend, and below must not fall"):
        Numbers(n=3, knots=(2.0, 1.0), below=(1, 3))


def test_a_reference_holds_no_row(triage):
    """Two hundred cases through the models: under 200 kB, no case_id, no word of a complaint, and a round trip loses nothing."""
    cases = [{**made(number), "complaint": "bukhar khansi zzqqx"} for number in range(200)]
    sample = sample_of_cases([read_case(one, one["case_id"]) for one in cases], triage)
    document = reference_document(reference_of_sample(sample, "own", is_synthetic=False))
    text = json.dumps(document)
    assert len(text) < 200_000
    assert "zzqqx" not in text
    assert "case-1" not in text
    assert reference_of_contract(document, "symptoms 1.0.0").model_dump(mode="json") == document


def made(number: int, **more) -> dict:
    """A case of its own age and pulse."""
    return {
        "case_id": f"case-{number}", "received_at": (START + timedelta(hours=number)).isoformat(), "age_years": 20 + number % 61, "sex": "female",
        "complaint": "bukhar, khansi", "district": DISTRICTS[number % 3],
        "vitals": {"pulse_per_minute": 70 + number % 37, "temperature_celsius": 36.5 + number % 30 / 10, "systolic_mmhg": 110 + number % 41, "diastolic_mmhg": 70 + number % 17},
        **more,
    }  # fmt: skip


def test_features_of_a_case_by_hand(triage):
    """A temperature in Fahrenheit is set aside and keeps its number; pressures that are exchanged, ages that are round, a copy."""
    raw = [
        made(0, vitals={"temperature_celsius": 101.3, "systolic_mmhg": 70, "diastolic_mmhg": 110, "pulse_per_minute": 80}),
        made(1, age_years=40, complaint="fever and cough", findings={"F_001": "absent"}),
        made(2, age_years=40, complaint="fever and cough", findings={"F_001": "absent"}, vitals=made(1)["vitals"]),
        made(3, complaint="بخار اور کھانسی", age_years=None),
        made(4, complaint="", findings={}),
    ]
    sample = sample_of_cases([read_case(one, "x") for one in raw], triage)

    def labels(name: str) -> list[str]:
        column = sample.columns[name]
        return [column.labels[value] for value in column.values]

    assert labels("vital_state:temperature_celsius") == ["set aside", *["measured"] * 4]
    assert sample.columns["set_aside:temperature_celsius"].values.tolist() == [101.3]
    assert labels("pressures")[0] == "exchanged"
    assert labels("digits:systolic_mmhg")[0] == "0"
    assert labels("repeat") == ["first", "first", "repeated", "first", "first"]
    assert labels("script") == ["roman", "english", "english", "urdu", "none"]
    assert labels("age_known") == ["known", "known", "known", "not known", "known"]
    assert labels(FINDING + "F_001")[:4] == ["present", "absent", "absent", "present"]
    assert sample.columns["understood:roman"].rows.tolist() == [0]
    assert sample.columns["vital:pulse_per_minute"].values[0] == 80
    assert sample.case_ids[0] == "case-0"


def test_photos_have_features_of_their_own(triage):
    """Light, sharpness, distance and tone of the sample's photos: the blurred one is less sharp than all others."""
    names = ("mole.jpg", "dark_patch.jpg", "pearly_lump.jpg", "blurred.jpg")
    from pathlib import Path

    folder = Path(__file__).resolve().parent.parent / "data" / "sample" / "photos"
    readings = [read_case({"case_id": name, "photos": [{"path": name}]}, "x") for name in names]
    sample = sample_of(scored_cases(readings, triage, folder), scripts_of(triage.models))
    detail = sample.columns["photo_detail"].values
    assert detail.argmin() == 3
    assert sample.columns["photo_light"].values.min() > 0
    assert len(sample.columns["unfamiliarity"].values) == 4
    problems = sample.columns["photo_problem"]
    assert problems.labels[problems.values[3]] == "blurred"
    assert task_of("photo_detail") == "lesions"


def test_scripts_are_told_apart():
    """By letters, and by words that one lexicon alone has; without a lexicon Latin letters are not told."""
    scripts = Scripts({"phrases": [["F", "", "present", "en", "chest pain"], ["F", "", "present", "roman", "seenay mein dard"]]})
    texts = ("chest pain", "seenay mein dard", "سینے میں درد", "dard سینے میں", "xyz", "...")
    assert [scripts.of(text) for text in texts] == ["english", "roman", "urdu", "mixed", "latin", "none"]
    assert Scripts(None).of("chest pain") == "latin"


def test_features_belong_to_a_family_and_a_task():
    """Whose alarm it is, and whose bundle carries its reference."""
    assert [family_of(name) for name in ("vital:spo2_percent", "age_years", "finding:F_001", "level")] == [
        "data quality", "case mix", "findings", "model",
    ]  # fmt: skip
    assert [task_of(name) for name in ("vital:spo2_percent", "finding:F_001", "malignancy")] == ["acuity", "symptoms", "lesions"]


def test_calibration_against_outcomes_drifts_too(reference):
    """The reference's outcomes fit its probabilities; later half as many emergencies come true, and the alarm says so."""

    def outcomes_of(sample: Sample, share: float, seed: int) -> tuple[Sample, dict[str, bool]]:
        random = np.random.default_rng(seed)
        probability = random.beta(1, 3, sample.n)
        columns = {**sample.columns, "emergency_probability": Column(probability, np.arange(sample.n))}
        truth = random.random(sample.n) < share * probability
        return Sample(sample.n, columns, sample.received, sample.case_ids), {f"c{row}": bool(one) for row, one in enumerate(truth)}

    old, known = outcomes_of(columns_of(2000, 0), 1.0, 1)
    own = reference_of_sample(old, "own", is_synthetic=False, outcomes=known)
    assert own.calibration is not None
    assert own.calibration.n == 2000
    assert abs(own.calibration.intercept) < 0.3
    same, quiet = outcomes_of(columns_of(600, 2), 1.0, 3)
    assert [one.feature for one in judged(own, Window(same), [], {}, quiet).alarms] == []
    new, half = outcomes_of(columns_of(600, 2), 0.5, 3)
    report = judged(own, Window(new), [], {}, half)
    assert [one.feature for one in report.alarms] == ["calibration:in_the_large"]
    assert report.alarms[0].meaning.startswith("fewer emergencies than before at the same probability")
    now = report.calibration
    assert now is not None
    assert now.events == sum(half.values())
    assert now.observed_to_expected == pytest.approx(0.5, abs=0.15)
    assert now.ratio_interval[0] < now.observed_to_expected < now.ratio_interval[1] < 0.8
    assert now.ece_interval[0] <= now.ece <= now.ece_interval[1]


def test_outcomes_are_read_from_tables_and_from_cases(tmp_path):
    """Yes and no, a final level, and what stands beside them in a file of cases; what is neither is named."""
    table = tmp_path / "outcomes.csv"
    table.write_text("case_id,emergency,final_level\na,yes,\nb,0,\nc,,3\nd,,4\ne,,\n", encoding="utf-8")
    assert read_outcomes(table) == {"a": True, "b": False, "c": True, "d": False}
    lines = tmp_path / "cases.jsonl"
    lines.write_text('{"case_id": "a", "age_years": 3, "final_level": 1}\n{"case_id": "b"}\n', encoding="utf-8")
    assert read_outcomes(lines) == {"a": True}
    table.write_text("case_id,emergency\na,perhaps\n", encoding="utf-8")
    with pytest.raises(CaseError, match=r"the outcome of case a is neither yes or no \(emergency\) nor 1 to 5 \(final_level\)$"):
        read_outcomes(table)


def test_metrics_have_a_closed_set_of_labels(reference):
    """All findings have one figure; districts have none of their own; the text is Prometheus'."""
    report = monitor(reference, [Window(columns_of(400, 5, fever=0.5))])
    figures = figures_of(report)
    assert set(figures.index) == {"vital:pulse_per_minute", "priority", "district", "findings"}
    assert figures.alarms == {"data quality": 0, "case mix": 1, "model": 0}
    text = metrics_text(report, datetime(2026, 11, 22, tzinfo=UTC))
    assert 'nabz_drift_alarms{group="case mix"} 1\n' in text
    assert "nabz_drift_checked_timestamp_seconds 1795305600\n" in text
    assert re.search(r'^nabz_drift_psi\{feature="findings"\} 0\.1\d+$', text, re.MULTILINE)


def test_the_page_and_the_plot_are_whole(reference, tmp_path):
    """Self-contained HTML that names the alarm and what to do, loads nothing, and escapes what it shows; a plot of each kind."""
    named = columns_of(400, 5, pulse=90, districts=(*DISTRICTS, "<script>x</script>"))
    report = monitor(reference, [Window(columns_of(400, 4)), Window(named)])
    page = page_of(report)
    assert "<h3>pulse</h3>" in page
    assert "measure one person with two devices" in page
    assert "<script>" not in page
    assert not re.search(r"(src|href)=\"http", page)
    assert "<svg" in page
    for name in ("plot.svg", "plot.png"):
        save_plot(report, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "plot.svg").read_bytes() == (save_plot(report, tmp_path / "again.svg") or (tmp_path / "again.svg").read_bytes())


def write(path, cases) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in cases), encoding="utf-8")
    return str(path)


def test_the_command_from_baseline_to_alarm(tmp_path, capsys):
    """Write a reference of five weeks, be quiet on the next, find Fahrenheit in the one after: exit 0, 0 and 1."""
    weeks = [made(number) for number in range(7 * 24 * 5)]
    baseline, file = write(tmp_path / "first.jsonl", weeks), str(tmp_path / "reference.json")
    assert main(["monitor", baseline, "--write-reference", file]) == 0
    assert read_reference(tmp_path / "reference.json").weeks == 5
    assert main(["monitor", write(tmp_path / "quiet.jsonl", weeks[:168]), "--reference", file]) == 0
    assert "quiet" in capsys.readouterr().out.splitlines()[0]
    hot = [{**one, "vitals": {**one["vitals"], "temperature_celsius": 101.2}} for one in weeks[:168]]
    page, metrics = str(tmp_path / "drift.html"), str(tmp_path / "drift.prom")
    recent = write(tmp_path / "recent.jsonl", hot)
    assert main(["monitor", recent, "--reference", file, "--json", "--html", page, "--metrics", metrics]) == 1
    report = json.loads(capsys.readouterr().out)
    alarm = next(one for one in report["windows"][-1]["changes"] if one["feature"] == "vital_state:temperature_celsius")
    assert alarm["state"] == "alarm"
    assert alarm["meaning"].endswith("Are they degrees Fahrenheit?")
    assert alarm["advice"] == "check the unit of the device and of the form; send the cases again when it is corrected"
    assert "Fahrenheit" in (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert "nabz_drift_alarms" in (tmp_path / "drift.prom").read_text(encoding="utf-8")
    assert main(["monitor", recent, "--reference", file]) == 1
    assert "data quality" in capsys.readouterr().out


def test_the_example_of_the_help_runs(tmp_path, monkeypatch, catalogue_folder):
    """As it is printed, beside the sample."""
    epilog = next(action.choices for action in parser()._actions if action.choices)["monitor"].epilog
    words = epilog.splitlines()[0].removeprefix("example: nabz ").split()
    words[1] = str(catalogue_folder.parent.parent / words[1])
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert read_reference(tmp_path / "reference.json").n > 10


def test_the_command_says_what_it_needs(tmp_path, capsys):
    """Cases or a service; a reference that can be read; exit 2."""
    assert main(["monitor"]) == 2
    assert capsys.readouterr().err == "nabz: name a file of cases, or --service for the service's stored referrals: one of the two\n"
    (tmp_path / "bad.json").write_text('{"format": 9}', encoding="utf-8")
    assert main(["monitor", write(tmp_path / "one.jsonl", [made(1)]), "--reference", str(tmp_path / "bad.json")]) == 2
    assert capsys.readouterr().err == (
        f"nabz: the reference {tmp_path / 'bad.json'} cannot be used, at: features, format, is_synthetic; "
        "write it with `nabz monitor --write-reference`\n"
    )


def test_references_of_bundles_come_together(reference, tmp_path):
    """Each carries its own features; an empty one and none at all say what to do."""
    other = reference_of_sample(columns_of(500, 1), "photos", is_synthetic=True, task="acuity")
    assert set(other.features) == {"vital:pulse_per_minute"}
    both = merged([reference_of_sample(columns_of(500, 1), "cases", is_synthetic=False, task="symptoms"), other])
    assert set(both.features) == {"vital:pulse_per_minute", "priority", "district", FINDING + "F_001"}
    assert both.is_synthetic
    assert monitor(both, [Window(columns_of(400, 3))]).notes[0].startswith("the reference is of invented cases")
    with pytest.raises(BundleError, match=r"^acuity 1\.0\.0 carries no reference: make one of your own weeks"):
        reference_of_contract({}, "acuity 1.0.0")
    with pytest.raises(DataError, match=r"^no live bundle carries a reference"):
        merged([])
    with pytest.raises(DataError, match=r"cannot be read: it is not known which bundles are live$"):
        live_reference(tmp_path)
