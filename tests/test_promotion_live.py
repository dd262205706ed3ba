"""Twenty promotions and rollbacks under a service's scorer that never stops: no case is lost, and each names the bundle that scored it."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.assessment import Assessment
from inference.bundle import load_bundle
from inference.case import read_case
from inference.models import SERVING_FILE, live_versions
from inference.policy import load_policy
from inference.replay import Replayer
from inference.service.scoring import Scorer
from inference.stored_assessments import stored_assessment
from training.export import copy_as_version, make_live
from training.promotion import Judged, promote, roll_back
from training.signing import rotate_signing_key

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SWITCHES = 20


@pytest.fixture
def bundles(tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A models folder in which the shipped acuity bundle is live alone, and a challenger of it: loading them takes little."""
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)
    models = tmp_path / "models"
    shutil.copytree(models_folder / "acuity", models / "acuity")
    shutil.copytree(models_folder / "trusted_keys", models / "trusted_keys")
    version = live_versions(models_folder)["acuity"]
    challenger = copy_as_version(models / "acuity" / version, "9.0.0")
    make_live(models, {"acuity": version})
    return models, challenger


def switch(models: Path, challenger: Path, old: str, new: str, place: int) -> None:
    """Promote and roll back in turn, as the commands do; the comparison is said to have passed."""
    if place % 2:
        roll_back(models)
    else:
        found: Any = SimpleNamespace(task="acuity", champion_sha256=old, challenger_sha256=new, verdict="PROMOTE", data="none", n=0)
        promote(challenger, Judged(found, (), "", is_first=False), models)


def test_twenty_switches_under_load_lose_nothing_and_every_score_names_its_bundle(bundles, figure):
    """Cases come all the time; each is scored by the model, of the bundle before or after the switch, and once it has settled of the new one."""
    models, challenger = bundles
    old = load_bundle(models / "acuity" / live_versions(models)["acuity"]).sha256
    new = load_bundle(challenger).sha256
    scorer = Scorer(models, load_policy(), timeout_seconds=20.0, watch_seconds=0.02)
    scored: list[Assessment] = []
    is_over = False

    def case(number: int) -> Any:
        return read_case({"case_id": f"c-{number}", "age_years": number % 90, "vitals": {"pulse_per_minute": 60 + number % 90}}, "c")

    def hash_of(assessment: Assessment) -> str:
        assert assessment.scored_by == "models and rules"
        return assessment.provenance.bundles["acuity"].sha256

    async def client(first: int) -> None:
        number = first
        while not is_over:
            scored.append(await scorer.assess(case(number), NOW))
            number += 4

    async def work() -> None:
        nonlocal is_over
        await scorer.start()
        clients = [asyncio.create_task(client(first)) for first in range(4)]
        try:
            for place in range(SWITCHES):
                wanted, other = (old, new) if place % 2 else (new, old)
                until = len(scored)
                while len(scored) < until + 8:  # some before each switch
                    await asyncio.sleep(0.001)
                before = len(scored)
                await asyncio.to_thread(switch, models, challenger, old, new, place)
                async with asyncio.timeout(60):
                    while hash_of(await scorer.assess(case(0), NOW)) != wanted:
                        await asyncio.sleep(0.005)
                assert {hash_of(one) for one in scored[before:]} <= {wanted, other}
                settled = [await scorer.assess(case(number), NOW) for number in range(5)]
                assert {hash_of(one) for one in settled} == {wanted}
                assert scorer.health().bundles["acuity"].sha256 == wanted
        finally:
            is_over = True
            await asyncio.gather(*clients)
            await scorer.stop()

    asyncio.run(work())
    counts = {sha256: sum(hash_of(one) == sha256 for one in scored) for sha256 in (old, new)}
    assert sum(counts.values()) == len(scored) and min(counts.values()) >= 8 * SWITCHES / 2 - 40
    figure(f"{SWITCHES} switches while {len(scored)} cases were scored: 0 errors, {counts[new]} by the challenger")
    # The stored scores replay, whichever bundle is live at the end.
    replayer = Replayer(models, load_policy())
    for one in (scored[0], next(one for one in scored if hash_of(one) == new)):
        number = int(one.case_id.removeprefix("c-"))
        assert replayer.replay(stored_assessment(one.model_dump(mode="json"), "x"), case(number)).status == "identical"
    assert (models / SERVING_FILE).read_text(encoding="utf-8").startswith("# Which version of each task is live.\n")


def test_a_rotation_of_keys_is_taken_over_by_a_running_service(bundles):
    """New signatures and a new trusted key: the models are loaded again without a problem, with the hashes that they had."""
    models, _ = bundles
    scorer = Scorer(models, load_policy(), timeout_seconds=20.0, watch_seconds=0.02)

    async def work() -> None:
        await scorer.start()
        try:
            async with asyncio.timeout(60):
                while not scorer.ready:
                    await asyncio.sleep(0.005)
                before = scorer.health()
                seen = scorer._live.fingerprint
                assert not any("acuity" in problem for problem in before.problems)
                await asyncio.to_thread(rotate_signing_key, models)
                while scorer._live.fingerprint == seen or scorer.health().problems != before.problems:
                    await asyncio.sleep(0.005)
            assert scorer.health() == before
        finally:
            await scorer.stop()

    asyncio.run(work())
