"""README's "train on your own data", walked through on a folder that this test makes: a service's referrals become a measured model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from referral_history import finish, send_all, synthetic_cases
from service_app import Service, running_service

from inference.acuity import AcuityModel
from inference.bundle import load_bundle
from inference.cli import main as nabz
from inference.models import live_versions
from inference.service.callers import Who
from training.cli import main as nabz_train
from training.labelled_cases import read_labelled_cases
from training.labelled_levels import as_visits

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

    live = ROOT / "models/acuity" / live_versions(ROOT / "models")["acuity"]
    arguments = ["acuity", "--cases", str(split / "train"), "--refit", str(live), "--out", str(bundle), "--version", "9.0.0", "--quiet"]
    assert nabz_train(arguments) == 0
    capsys.readouterr()
    made, base = load_bundle(bundle), load_bundle(live)
    trusted = [one for one in train if one.labels.level_source != "accepted"]
    assert sum(made.contract.training["levels_by_source"].values()) == len(trusted)
    assert made.contract.training["refit_of"] == base.sha256
    assert not any("KTAS" in source.name for source in made.contract.data)
    assert any("of the service that trained it" in limit for limit in made.contract.limits)
    rows = as_visits(trusted[:20], ROOT / "data/catalogue").rows(AcuityModel(base).encoder)
    was, now = (AcuityModel(one).score(rows) for one in (base, made))
    np.testing.assert_allclose(was[0], now[0], atol=1e-6)
    assert np.abs(was[1] - now[1]).max() > 0.01

    assert nabz_train(["evaluate", str(bundle), "--data", str(split / "held_out"), "--json"]) == 0
    measured = said(capsys)
    assert measured["n"] == sum(one.labels.level_source != "accepted" for one in held_out)
    figures, by_source = measured["metrics"], measured["subgroups"]
    assert figures["under_triage_whole_triage"]["n"] + figures["over_triage_whole_triage"]["n"] == measured["n"]
    assert by_source["source agreed"]["under_triage_then"]["value"] == 0
    assert measured["note"].endswith("cases that the bundle did not learn from.")

    assert nabz_train(["compare", str(bundle), "--champion", str(live), "--data", str(split / "held_out/cases.jsonl"), "--json"]) in (0, 1)
    assert said(capsys)["verdict"].startswith(("PROMOTE", "HOLD"))
    assert not (ROOT / "models/acuity/9.0.0").exists()
