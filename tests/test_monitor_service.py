"""The service's own look for drift, against a real service in this process: stored referrals, gauges, the command."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_app import running_service

from inference.case import read_case
from inference.errors import StorageError
from inference.monitor_reference import reference_document, reference_of_sample
from inference.monitor_scoring import sample_of_cases, scripts_of
from inference.service.monitor_referrals import read_service
from inference.triage import Triage

QUIET_DAY = {"age_years": 40, "sex": "female", "complaint": "bukhar, khansi", "district": "Tharparkar"}


def case(number: int, celsius: float) -> dict:
    """One of many alike cases; ages and pulses differ."""
    vitals = {"pulse_per_minute": 70 + number % 30, "temperature_celsius": celsius, "spo2_percent": 97}
    return {**QUIET_DAY, "age_years": 20 + number % 50, "vitals": vitals}


@pytest.fixture(scope="module")
def reference_file(tmp_path_factory, models_folder):
    """A reference of two hundred such cases, with temperatures in degrees Celsius."""
    from inference.models import load_models

    triage = Triage(load_models(models_folder))
    sample = sample_of_cases([read_case(case(number, 36.5 + number % 30 / 10), f"c{number}") for number in range(200)], triage)
    path = tmp_path_factory.mktemp("reference") / "reference.json"
    path.write_text(json.dumps(reference_document(reference_of_sample(sample, "own", is_synthetic=False))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory, reference_file):
    """A running service that has stored forty cases, half of them in degrees Fahrenheit, one of them completed as an emergency."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, monitor_reference=reference_file) as running:
        ids = [running.send(case(number, 99.5 if number % 2 else 37.0))["id"] for number in range(40)]
        running.act(ids[0], "claim")
        answer = running.act(ids[0], "complete", {"outcome": "admitted", "final_level": 2})
        assert answer.status_code == 200, answer.text
        yield running, folder


def metrics(service) -> dict[tuple[str, str], float]:
    """The gauges of drift as /metrics has them, by name and label."""
    text = service.client.get("/metrics", headers=service.token("admin")).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name.startswith("nabz_drift")]
    return {(one.name, next(iter(one.labels.values()), "")): one.value for one in samples}


def test_drift_in_what_was_stored_is_a_figure_of_the_service(service):
    """Temperatures in Fahrenheit were set aside when they came in; /metrics says so, with bounded labels, and when it looked."""
    running, _ = service
    running.client.portal.call(running.parts.drift.check)
    seen = metrics(running)
    assert seen["nabz_drift_cases", ""] == 40
    assert seen["nabz_drift_psi", "vital_state:temperature_celsius"] > 1
    assert seen["nabz_drift_psi", "vital_state:pulse_per_minute"] == 0
    assert seen["nabz_drift_alarms", "data quality"] >= 1
    assert seen["nabz_drift_checked_timestamp_seconds", ""] == pytest.approx(running.clock().timestamp(), abs=60)
    assert not [label for _, label in seen if label.startswith("finding:")]
    report = running.parts.drift.report
    assert report is not None
    told = {one.feature: one for one in report.last.alarms}
    assert told["vital_state:temperature_celsius"].meaning == (
        "50 % of temperature values cannot be right: they lie from 99.5 to 99.5. Are they degrees Fahrenheit?"
    )


def test_what_is_older_than_the_windows_is_not_read(service):
    """A month later nothing of it counts: there is nothing to look at, and the gauges stay."""
    running, _ = service
    before = metrics(running)
    running.clock.ahead = timedelta(days=30)
    running.client.portal.call(running.parts.drift.check)
    running.clock.ahead = timedelta()
    assert metrics(running) == before


def test_the_command_reads_the_same_referrals(service, monkeypatch, models_folder):
    """By the settings of the environment; only what a clinician said is an outcome; the audit trail says that it was read."""
    from inference.models import load_models

    running, folder = service
    monkeypatch.setenv("NABZ_DATABASE_URL", f"sqlite:///{folder}/nabz.db")
    monkeypatch.setenv("NABZ_DATA_DIR", str(folder / "data"))
    stored = read_service(scripts_of(load_models(models_folder)), running.clock(), 7)
    assert stored.sample.n == 40
    assert list(stored.outcomes.values()) == [True]
    assert stored.unreadable == 0
    assert set(stored.sample.columns["script"].labels) == {"roman"}
    rows = running.client.portal.call(
        running.parts.database.run,
        lambda unit: unit.connection.exec_driver_sql("SELECT action, detail FROM audit WHERE action = 'monitored'").fetchall(),
    )
    assert json.loads(rows[-1].detail) == {"days": 7, "referrals": 40}


def test_without_referrals_the_command_says_so(service, monkeypatch, models_folder):
    """In a period of which nothing is stored."""
    from inference.models import load_models

    running, folder = service
    monkeypatch.setenv("NABZ_DATABASE_URL", f"sqlite:///{folder}/nabz.db")
    monkeypatch.setenv("NABZ_DATA_DIR", str(folder / "data"))
    with pytest.raises(StorageError, match="no referral that can be read was stored in the last 2 days: there is nothing to compare"):
        read_service(scripts_of(load_models(models_folder)), running.clock() + timedelta(days=60), 2)


def test_a_service_without_a_reference_works_on(tmp_path, caplog):
    """No bundle carries one and none is named: it is logged, and there is no figure."""
    with running_service(tmp_path, monitor_reference=tmp_path / "missing.json") as running:
        running.client.portal.call(running.parts.drift.check)
        assert running.parts.drift.report is None
        assert "the reference" in caplog.text
        assert ("nabz_drift_alarms", "model") not in metrics(running)
