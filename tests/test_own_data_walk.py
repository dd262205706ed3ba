"""README's "train on your own data", walked through on a folder that this test makes: a service's referrals become a measured model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from referral_history import finish, send_all, synthetic_cases, write_visits
from service_app import Service, running_service

from inference.bundle import load_bundle
from inference.cli import main as nabz
from inference.service.callers import Who
from training.cli import main as nabz_train
from training.labelled_cases import read_labelled_cases

ROOT = Path(__file__).resolve().parent.parent
REFERRALS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the walk takes place."""
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def history(folder: Path) -> Iterator[Service]:
    """A service whose clinicians finished 200 referrals: some overridden by what they found, some agreed with, most just completed."""
    with running_service(folder / "service") as service:
        sent = send_all(service, synthetic_cases(REFERRALS, seed=4))
        doctor = Who("clinician-1", "clinician")
        for number, referral in enumerate(sent):
            if number % 3 == 0:
                judged = 4 if number % 2 else 2
                answer = service.act(referral["id"], "override", {"level": judged, "reason": "seen by video"})
                assert answer.status_code == 200, answer.text
            elif number % 3 == 1:
                service.client.portal.call(service.parts.referrals.agree, doctor, referral["id"])
            finish(service, referral["id"])
        yield service


@pytest.fixture
def environment(history: Service, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The commands run in the repository, with the service's settings in the environment, as an operator has them."""
    monkeypatch.chdir(ROOT)
    settings = history.parts.settings
    monkeypatch.setenv("NABZ_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NABZ_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def test_referrals_become_a_measured_model(environment: None, folder: Path, capsys: pytest.CaptureFixture[str]):
    """Every numbered command of the README runs, in order, and each step's figures fit the step before."""
    export, split, bundle = folder / "2026-q3", folder / "split", folder / "models/acuity/9.0.0"
    assert nabz(["export", str(export)]) == 0
    assert "exported: 200 referrals" in capsys.readouterr().out

    assert nabz_train(["data", "check", str(export), "--json", "--html", str(folder / "check.html")]) == 0
    report = said(capsys)
    assert (report["kind"], report["counts"]["rows"], report["rows"]) == ("cases", REFERRALS, [])
    assert "<img" in (folder / "check.html").read_text(encoding="utf-8")

    assert nabz_train(["data", "split", str(export), "--out", str(split), "--held-out", "0.2", "--seed", "0"]) == 0
    capsys.readouterr()
    train, held_out = read_labelled_cases(split / "train"), read_labelled_cases(split / "held_out")
    assert len(train) + len(held_out) == REFERRALS and not {one.group for one in train} & {one.group for one in held_out}
    assert nabz_train(["data", "check", str(split), "--json"]) == 0
    assert said(capsys)["counts"]["sides"] == {"held_out": len(held_out), "train": len(train)}

    public = write_visits(folder / "public").parent.parent
    arguments = ["acuity", "--data", str(public), "--cases", str(split / "train"), "--out", str(bundle), "--version", "9.0.0"]
    assert nabz_train([*arguments, "--smoke", "--quiet"]) == 0
    capsys.readouterr()
    contract = load_bundle(bundle).contract
    trusted = [one for one in train if one.labels.level_source != "accepted"]
    assert sum(contract.training["levels_by_source"].values()) == len(trusted)
    assert not any("KTAS" in source.name for source in contract.data)
    assert any("of the service that trained it" in limit for limit in contract.limits)

    assert nabz_train(["evaluate", str(bundle), "--data", str(split / "held_out"), "--json"]) == 0
    measured = said(capsys)
    assert measured["n"] == sum(one.labels.level_source != "accepted" for one in held_out)
    figures, by_source = measured["metrics"], measured["subgroups"]
    assert figures["under_triage_whole_triage"]["n"] + figures["over_triage_whole_triage"]["n"] == measured["n"]
    assert by_source["source agreed"]["under_triage_then"]["value"] == 0
    assert measured["note"].endswith("cases that the bundle did not learn from.")
    assert not os.path.lexists(ROOT / "models/acuity/9.0.0")
