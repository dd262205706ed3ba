"""Scoring on demand: every case comes out, in time, whatever the models do; and models are exchanged without an error."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inference import models
from inference.bundle import SIGNATURE_FILE, SIGNED_FILES, signed_message
from inference.case import CaseReading, Photo, read_case
from inference.errors import BundleError, OverloadedError
from inference.heat_map import heat_map, overlay_png
from inference.lesions import LesionRequest
from inference.models import Models, live_versions, load_models
from inference.policy import load_policy
from inference.service import lane, live_models, scoring
from inference.service.lane import Lane, Limits
from inference.service.live_models import fingerprint
from inference.service.scoring import FAILED, LATE, LOADING, Scorer
from inference.service.telemetry import Telemetry
from inference.service.unscored import WHY
from inference.triage import Triage

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
VITALS = {"pulse_per_minute": 80, "systolic_mmhg": 120, "spo2_percent": 97}
ACUITY = live_versions(Path(__file__).resolve().parent.parent / "models")["acuity"]
SHORT = {"timeout_seconds": 0.4, "rest_seconds": 0.1}


def case(name: str = "a", **fields: Any) -> CaseReading:
    return read_case({"case_id": name, "age_years": 40, "vitals": VITALS, "findings": {"F_001": "present"}, **fields}, name)


class Faulty:
    """Stands before a model and does something else first, as long as it is told to."""

    def __init__(self, real: Any, fault: Callable[[Any], Any]) -> None:
        self._real, self.fault = real, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def score(self, items):
        self.fault(items)
        return self._real.score(items)

    def score_cases(self, items):
        self.fault(items)
        return self._real.score_cases(items)


class FaultyHeat(Faulty):
    """Stands before a lesion model and gets in the way of heat maps alone."""

    def score(self, items):
        return self._real.score(items)

    def heat(self, photo):
        self.fault(photo)
        return np.full((5, 5), 0.5, dtype=np.float32), 0.5

    @property
    def has_heat_map(self):
        return True


class Hang:
    """Waits until it is let go, but at most a few seconds: a stuck thread must not outlive the tests."""

    def __init__(self) -> None:
        self.go, self.calls = threading.Event(), 0

    def __call__(self, items) -> None:
        self.calls += 1
        self.go.wait(5)


def raising(items) -> None:
    raise RuntimeError("no")


@pytest.fixture(scope="session")
def live(models_folder: Path) -> Models:
    """The shipped models, loaded once; tests put faulty ones in their place."""
    models = load_models(models_folder, photo_threads=1)
    assert models.problems == ()
    return models


@pytest.fixture
def scorer(monkeypatch, live) -> Callable[..., Scorer]:
    """Makes scorers with the given models instead of those on disk."""

    def make(models: Models = live, **options: Any) -> Scorer:
        monkeypatch.setattr(live_models, "load_models", lambda folder, photo_threads, priors: models)
        return Scorer(None, load_policy(), **{"watch_seconds": 60.0, **options})

    return make


def run(scorer: Scorer, work: Coroutine[Any, Any, Any]) -> Any:
    """Start the scorer, do the work, stop the scorer."""

    async def all_of_it() -> Any:
        await scorer.start()
        try:
            return await work
        finally:
            await scorer.stop()

    return asyncio.run(all_of_it())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must happen soon."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_assessment_is_what_the_triage_gives(scorer, live):
    """Alone, among others and in one call for many, a case gets what a triage gives it, to the last digit of its JSON."""
    cases = [case(str(n), age_years=n, complaint="fever" if n % 2 else "") for n in range(1, 71)]
    one = scorer()

    async def work():
        return await asyncio.gather(*(one.assess(it, NOW) for it in cases)), await one.assess_many(cases, NOW)

    together, many = run(one, work())
    expected = [Triage(live).assess(it, NOW).model_dump_json() for it in cases]
    assert [it.model_dump_json() for it in together] == expected
    assert [it.model_dump_json() for it in many] == expected


def test_waiting_cases_are_scored_together(scorer, live):
    """What waits when the worker is free goes in one batch, and telemetry sees the batch."""
    telemetry = Telemetry()
    one = scorer(telemetry=telemetry)

    async def work():
        await asyncio.gather(*(one.assess(case(str(n)), NOW) for n in range(40)))

    run(one, work())
    assert telemetry.registry.get_sample_value("nabz_model_batch_cases_count", {"task": "acuity"}) == 1
    assert telemetry.registry.get_sample_value("nabz_model_batch_cases_sum", {"task": "acuity"}) == 40


@pytest.mark.parametrize("fault", [raising, lambda items: items[0].nothing_of_the_kind], ids=["raises", "is broken"])
def test_a_model_that_raises_drops_nothing(scorer, live, fault):
    """Of 1,000 cases with a symptom model that fails on all of them, each comes out by the other model, named for review."""
    one = scorer(replace(live, symptoms=Faulty(live.symptoms, fault)))

    async def work():
        results = [await one.assess_many([case(f"{n}-{k}") for k in range(250)], NOW) for n in range(4)]
        return [it for part in results for it in part], one.health()

    results, health = run(one, work())
    assert len({it.case_id for it in results}) == 1000
    assert {it.scored_by for it in results} == {"models and rules"}
    assert {it.review.why for it in results} == {("the symptom model failed on this case: ranked without a differential",)}
    assert health.degraded and health.problems == ("symptoms: the model failed when it was last asked",)


def test_a_model_that_answers_nan_costs_only_its_part(scorer, live, monkeypatch):
    """NaN out of a session is a failed model, for both models of a case without photos: the rules rank it."""

    class NanSession:
        def __init__(self, real):
            self.real = real

        def run(self, names, feeds):
            return [np.full_like(value, np.nan) for value in self.real.run(names, feeds)]

    def broken(model):
        bundle = replace(model._bundle, _session=NanSession(model._bundle._session))
        monkeypatch.setattr(model, "_bundle", bundle)
        return model

    one = scorer(replace(live, symptoms=broken(live.symptoms), acuity=broken(live.acuity)))
    result = run(one, one.assess(case(vitals={**VITALS, "spo2_percent": 84}), NOW))
    assert (result.scored_by, result.level, result.floor_level) == ("rules alone", 3, 3)
    assert len(result.review.why) == 2


def test_a_model_that_hangs_leaves_the_rules_and_comes_back(scorer, live):
    """Cases that wait get the rules' level in time; the breaker keeps models out, one thread hangs, and a probe lets them in."""
    hang = Hang()
    faulty = Faulty(live.symptoms, hang)
    one = scorer(replace(live, symptoms=faulty), **SHORT)

    async def work():
        await until(lambda: one.ready)
        late = await asyncio.gather(*(one.assess(case(str(n), vitals={"spo2_percent": 84}), NOW) for n in range(100)))
        hung, degraded = hang.calls, one.health()
        early = await one.assess(case("next"), NOW)
        faulty.fault = lambda items: None
        await until(lambda: not one.health().degraded)
        after = await one.assess(case("after"), NOW)
        hang.go.set()
        return late, hung, degraded, early, after

    late, hung, degraded, early, after = run(one, work())
    assert len(late) == 100 and all(it.level <= 3 and it.scored_by == "rules alone" and it.review.why == (LATE,) for it in late)
    assert hung == 1
    assert degraded.degraded and "models did not answer in time and are left out until a probe succeeds" in degraded.problems
    assert early.review.why == (LATE,)
    assert after.scored_by == "models and rules" and not after.review.needed


def test_threads_that_hang_are_few(scorer, live, monkeypatch):
    """While the model stays stuck, probes stop at the limit of lost workers; when one comes back, so do the models."""
    monkeypatch.setattr(lane, "LOST_LIMIT", 2)
    hang = Hang()
    faulty = Faulty(live.symptoms, hang)
    one = scorer(replace(live, symptoms=faulty), timeout_seconds=0.25, rest_seconds=0.02)

    async def work():
        await until(lambda: one.ready)
        await one.assess(case(), NOW)
        await until(lambda: one._models._lost == 2)
        await asyncio.sleep(0.2)
        calls = hang.calls
        faulty.fault = lambda items: None
        hang.go.set()
        await until(lambda: not one._models.is_open)
        return calls, await one.assess(case(), NOW)

    calls, after = run(one, work())
    assert calls == 2
    assert after.scored_by == "models and rules"


def test_a_model_that_is_slow_for_a_while_loses_nobody(scorer, live):
    """A batch that takes too long gives the rules' level; when its worker comes back, the models do as well, without a rest."""
    slow = Faulty(live.acuity, lambda items: time.sleep(0.8))
    one = scorer(replace(live, acuity=slow), timeout_seconds=0.3, rest_seconds=60.0)

    async def work():
        await until(lambda: one.ready)
        first = await one.assess(case(), NOW)
        slow.fault = lambda items: None
        await until(lambda: not one._models.is_open)
        return first, await one.assess(case(), NOW)

    first, second = run(one, work())
    assert first.review.why == (LATE,)
    assert second.scored_by == "models and rules"


def test_a_photo_that_hangs_costs_only_the_photo(scorer, live):
    """Cases without photos do not wait for it, and its own case is scored by the other models."""
    hang = Hang()
    one = scorer(replace(live, lesions=Faulty(live.lesions, hang)), timeout_seconds=1.0)
    with_photo = case("photo", photos=[{"path": "x.jpg"}])

    async def work():
        await until(lambda: one.ready)
        photo = asyncio.create_task(one.assess(with_photo, NOW, {"x.jpg": b"no photo"}))
        await until(lambda: hang.calls == 1)
        plain = await one.assess(case("plain"), NOW)
        done_first = not photo.done()
        result = await photo
        hang.go.set()
        return done_first, plain, result

    done_first, plain, result = run(one, work())
    assert done_first and plain.scored_by == "models and rules"
    assert result.scored_by == "models and rules" and result.differential
    assert result.review.why == ("photo x.jpg was not scored, because the lesion model is not in use",)
    assert set(result.provenance.bundles) == {"symptoms", "acuity"}


def test_photos_are_scored(scorer, live):
    """The content of a photo, by its path, is scored as from a folder."""
    samples = Path(__file__).parent.parent / "data" / "sample" / "photos"
    path = samples / "mole.jpg"
    reading = case(photos=[{"path": path.name}])
    one = scorer()
    result = run(one, one.assess(reading, NOW, {path.name: path.read_bytes()}))
    assert result == Triage(live).assess(reading, NOW, samples)
    assert result.lesion is not None


def test_a_heat_map_is_drawn_over_the_photo(scorer, live):
    """It is the PNG that the model's heat map gives."""
    path = Path(__file__).parent.parent / "data" / "sample" / "photos" / "pearly_lump.jpg"
    lesions = FaultyHeat(live.lesions, lambda items: None)
    photo, one = Photo(path=path.name, itch=True), scorer(replace(live, lesions=lesions))
    png = run(one, one.heat_map(path.read_bytes(), photo, 60))
    assert png == overlay_png(heat_map(lesions, LesionRequest(photo, path.parent, 60)))


def test_without_a_model_or_a_photo_there_is_no_heat_map(scorer, live):
    """No lesion model, a file that is no photo, a model that fails: None each time, and the next photo has its map."""
    photo, content = Photo(path="a.jpg"), scoring._probe_photo().photos["probe.jpg"]
    without = scorer(replace(live, lesions=None))
    assert run(without, without.heat_map(content, photo, 60)) is None
    one = scorer(replace(live, lesions=FaultyHeat(live.lesions, lambda items: None)))

    async def work():
        return await one.heat_map(b"no photo", photo, None), await one.heat_map(content, photo, None), one.health().degraded

    broken, drawn, is_degraded = run(one, work())
    assert broken is None and drawn.startswith(b"\x89PNG") and not is_degraded
    failing = scorer(replace(live, lesions=FaultyHeat(live.lesions, raising)))
    assert run(failing, failing.heat_map(content, photo, None)) is None


def test_a_heat_map_that_hangs_keeps_nothing_else_waiting(scorer, live):
    """It is given up in time; meanwhile cases and their photos are scored, and afterwards a probe lets heat maps in again."""
    hang = Hang()
    faulty = FaultyHeat(live.lesions, hang)
    one = scorer(replace(live, lesions=faulty), timeout_seconds=1.0, rest_seconds=0.1)
    photo, content = Photo(path="a.jpg"), scoring._probe_photo().photos["probe.jpg"]

    async def work():
        await until(lambda: one.ready)
        map_ = asyncio.create_task(one.heat_map(content, photo, None))
        await until(lambda: hang.calls == 1)
        scored = await one.assess(case(photos=[{"path": "a.jpg"}]), NOW, {"a.jpg": content})
        done_first = not map_.done()
        late = await map_
        degraded = one.health()
        faulty.fault = lambda items: None
        await until(lambda: not one.health().degraded)
        after = await one.heat_map(content, photo, None)
        hang.go.set()
        return done_first, scored, late, degraded, after

    done_first, scored, late, degraded, after = run(one, work())
    assert done_first and "lesions" in scored.provenance.bundles and "not scored" not in str(scored.review.why)
    assert late is None and after.startswith(b"\x89PNG")
    assert degraded.problems == ("heat maps did not answer in time and are left out until a probe succeeds",)


def test_long_complaints_wait_elsewhere(scorer, live, monkeypatch):
    """Complaints of hundreds of words are read one by one; other cases pass by."""
    one = scorer()
    seen = []
    monkeypatch.setattr(
        scoring,
        "_scored",
        lambda live, triage, cases, photos: seen.append(len(cases)) or triage.by_rules([it.reading for it in cases], NOW, "x"),
    )

    async def work():
        await asyncio.gather(*(one.assess(case(complaint="fever " * 500), NOW) for _ in range(3)))

    run(one, work())
    assert seen == [1, 1, 1]


def test_any_number_of_long_complaints_is_accepted_at_once(scorer, live, monkeypatch):
    """A batch with more of them than their queue holds is scored like any other, in the order given."""
    monkeypatch.setattr(scoring, "_LONG_QUEUE", 2)
    monkeypatch.setattr(scoring, "_LONG_AT_ONCE", 2)
    cases = [case(str(n), complaint="fever " * (100 if n % 3 else 1)) for n in range(12)]
    one = scorer(queue_limit=2)  # shorter than the rest: once some are scored, the others are taken
    assert run(one, one.assess_many(cases, NOW)) == [Triage(live).assess(it, NOW) for it in cases]


def test_a_refused_batch_leaves_nothing_behind(scorer, monkeypatch):
    """When the long complaints find their queue full, the short ones are not scored for nobody."""
    monkeypatch.setattr(scoring, "_LONG_QUEUE", 1)
    one = scorer()

    async def work():
        await until(lambda: one.ready)
        waiting = asyncio.create_task(one.assess(case("first", complaint="fever " * 100), NOW))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="1 cases wait for long complaints already"):
            await one.assess_many([case("a"), case("b", complaint="fever " * 100)], NOW)
        return one._models.is_busy, await waiting

    is_busy, first = run(one, work())
    assert not is_busy and first.scored_by == "models and rules"


def test_a_photo_that_hangs_does_not_keep_long_complaints_from_the_models(scorer, live):
    """They have a lane of their own."""
    hang = Hang()
    one = scorer(replace(live, lesions=Faulty(live.lesions, hang)), timeout_seconds=1.0)

    async def work():
        await until(lambda: one.ready)
        photo = asyncio.create_task(one.assess(case("photo", photos=[{"path": "x.jpg"}]), NOW, {"x.jpg": b"no photo"}))
        await until(lambda: hang.calls == 1)
        long = await one.assess(case("long", complaint="fever " * 100), NOW)
        was_first = not photo.done()
        await photo
        hang.go.set()
        return was_first, long

    was_first, long = run(one, work())
    assert was_first and long.scored_by == "models and rules" and long.findings


def test_complaints_that_take_long_to_read_are_no_model_that_hangs(scorer, live, monkeypatch):
    """A batch may run longer for each character; who waits too long is still answered, and the models stay in use."""
    monkeypatch.setattr(scoring, "_READING_SECONDS", 0.1)
    slow = Faulty(live.acuity, lambda items: time.sleep(0.4))
    one = scorer(replace(live, acuity=slow), timeout_seconds=0.2, rest_seconds=60.0)

    async def work():
        await until(lambda: one.ready)
        return await one.assess(case(complaint="fever and cough " * 3), NOW), one._models.is_open

    late, is_open = run(one, work())
    assert late.review.why == (LATE,) and not is_open


def test_what_breaks_the_code_costs_one_case_its_models(scorer, live, monkeypatch):
    """A case on which the scoring itself raises is ranked by rules; its neighbours in the batch are scored."""
    real = Triage.assess_each

    def assess_each(self, readings, received, photos=None):
        if any(reading.case.case_id == "bad" for reading in readings):
            raise KeyError("a patient's word")
        return real(self, readings, received, photos)

    monkeypatch.setattr(Triage, "assess_each", assess_each)
    one = scorer()

    async def work():
        return await asyncio.gather(*(one.assess(case(name), NOW) for name in ("good", "bad", "fine")))

    good, bad, fine = run(one, work())
    assert good.scored_by == fine.scored_by == "models and rules"
    assert (bad.scored_by, bad.review.why) == ("rules alone", (FAILED,))


def test_where_even_the_rules_fail_a_person_looks(scorer, monkeypatch, caplog):
    """With everything broken a case is urgent, or as urgent as its referrer says, and no word of it is logged."""

    def broken(*args, **kwargs):
        raise ValueError("seena")

    monkeypatch.setattr(Triage, "assess_each", broken)
    monkeypatch.setattr(Triage, "by_rules", broken)
    one = scorer()

    async def work():
        return await asyncio.gather(one.assess(case("a"), NOW), one.assess(case("b", priority="stat", spo="x"), NOW))

    first, second = run(one, work())
    assert (first.level, first.scored_by, first.review.why) == (3, "nothing", (WHY,))
    assert (second.level, second.review.why[-1]) == (1, WHY) and len(second.review.why) == 2
    assert "ValueError" in caplog.text and "seena" not in caplog.text


def test_a_reader_that_hangs_leaves_the_rules_on_what_was_given(scorer, live, monkeypatch):
    """When neither models nor the reader answer, vitals and coded findings still decide the floor."""
    hang = Hang()
    stuck = Faulty(live.symptoms, hang)
    stuck.read = hang
    monkeypatch.setattr(scoring, "_RULES_SECONDS", 0.1)
    one = scorer(replace(live, symptoms=stuck), **SHORT)

    async def work():
        await until(lambda: one.ready)
        result = await one.assess(case(vitals={"spo2_percent": 84}, complaint="fever"), NOW)
        hang.go.set()
        return result

    result = run(one, work())
    assert (result.level, result.scored_by) == (3, "rules alone")
    assert result.review.why == ("the complaint was not read, because the symptom model is not in use: read it", LATE)


def test_by_rules_runs_no_model_but_reads(live):
    """The complaint is read, the floor and the referrer's priority hold, `why` comes last, and only the reader is named."""
    silent = replace(live, symptoms=Faulty(live.symptoms, raising), acuity=Faulty(live.acuity, raising))
    given = [case("a", complaint="saanp ne kaat liya", extra=1), case("b", priority="stat", photos=[{"path": "x.jpg"}])]
    first, second = Triage(silent).by_rules(given, NOW, "why not")
    assert first.level == first.floor_level <= 2 and first.red_flags and first.differential == ()
    assert (second.level, second.lesion, second.review.why) == (1, None, ("why not",))
    assert len(first.review.why) == 2 and first.review.why[-1] == "why not"
    assert {it.scored_by for it in (first, second)} == {"rules alone"}
    assert set(first.provenance.bundles) == {"symptoms"}


def test_a_full_queue_says_when_to_come_back(scorer, live):
    """More cases than the queue holds are refused with a time; those in it come out."""
    one = scorer(queue_limit=3)

    async def work():
        await until(lambda: one.ready)
        return await asyncio.gather(*(one.assess(case(str(n)), NOW) for n in range(5)), return_exceptions=True)

    *taken, last, least = run(one, work())
    assert [it.case_id for it in taken] == ["0", "1", "2"]
    for refused in (last, least):
        assert isinstance(refused, OverloadedError) and refused.retry_after_seconds == 1
        assert str(refused) == "3 cases wait for models already: send this one again in a second"


def test_a_client_that_leaves_harms_nobody(scorer):
    """Cancelled requests are left out of the batch, and the others are scored."""
    one = scorer()

    async def work():
        await until(lambda: one.ready)
        tasks = [asyncio.create_task(one.assess(case(str(n)), NOW)) for n in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = run(one, work())
    assert all(isinstance(it, asyncio.CancelledError) for it in results[::2])
    assert [it.case_id for it in results[1::2]] == ["1", "3", "5", "7", "9"]


def test_stopping_while_busy_answers_everybody(scorer, live):
    """A stop in the middle of a batch that hangs lets everybody have the rules' level, and so do cases that come later."""
    hang = Hang()
    one = scorer(replace(live, acuity=Faulty(live.acuity, hang)), **SHORT)

    async def work():
        await until(lambda: one.ready)
        tasks = [asyncio.create_task(one.assess(case(str(n)), NOW)) for n in range(100)]
        await until(lambda: hang.calls == 1)
        await one.stop()
        results = await asyncio.gather(*tasks, one.assess(case("later"), NOW))
        hang.go.set()
        return results

    results = run(one, work())
    assert len(results) == 101 and {it.scored_by for it in results} == {"rules alone"}


def test_questions_are_found_and_without_models_measurements(scorer, live):
    """Questions come from the live models; when these hang, what was not measured is asked."""
    hang = Hang()
    one = scorer()
    asked = run(one, one.ask(case(complaint="fever"), NOW, 3))
    assert asked == Triage(live).ask(case(complaint="fever"), NOW, 3)
    stuck = scorer(replace(live, symptoms=Faulty(live.symptoms, hang)), **SHORT)

    async def work():
        await until(lambda: stuck.ready)
        questions = await stuck.ask(case(vitals={}), NOW, 2)
        hang.go.set()
        return questions

    without = run(stuck, work())
    assert [it.kind for it in without.questions] == ["measurement", "measurement"]


def test_a_lane_fails_a_batch_whose_work_breaks():
    """Work that raises, or gives too few results, is answered with nothing, and the next batch is done."""

    async def work():
        one: Lane[int, int] = Lane("numbers", lambda items: [10 // items[0]], Limits(1, 8, 1.0, 1.0, 1.0), 1)
        answers = await asyncio.gather(*(one.put(n) for n in (5, 0, 2)))
        await one.stop()
        return answers

    assert asyncio.run(work()) == [2, None, 5]


@pytest.mark.parametrize("results", [[], [1, 2, 3], None])
def test_a_lane_answers_everybody_when_the_results_are_not_one_for_each(results):
    """Nobody is told another's result, nobody waits for ever, and the next batch is done."""

    async def work():
        one: Lane[int, int] = Lane("numbers", lambda items: results if len(items) == 2 else items, Limits(2, 8, 9.0, 9.0, 9.0), 1)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(one.put(1), one.put(2)), await one.put(3)
        await one.stop()
        return answers

    assert asyncio.run(work()) == ([None, None], 3)


@pytest.fixture
def folder(tmp_path: Path, models_folder: Path) -> Path:
    """A models folder of its own: the shipped acuity live, 9.1.0 beside it under another key, no other task, for speed."""
    for name in ("acuity", "trusted_keys"):
        shutil.copytree(models_folder / name, tmp_path / name)
    old, new = tmp_path / "acuity" / ACUITY, tmp_path / "acuity" / "9.1.0"
    shutil.copytree(old, new)
    contract = json.loads((new / "contract.json").read_text(encoding="utf-8"))
    (new / "contract.json").write_text(json.dumps({**contract, "version": "9.1.0"}), encoding="utf-8")
    key = Ed25519PrivateKey.generate()
    message = signed_message({name: (new / name).read_bytes() for name in SIGNED_FILES})
    record = {"key_id": "second", "signature": base64.b64encode(key.sign(message)).decode()}
    (new / SIGNATURE_FILE).write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "trusted_keys" / "second.pub").write_bytes(base64.b64encode(key.public_key().public_bytes_raw()))
    serve(tmp_path, ACUITY)
    return tmp_path


def serve(folder: Path, acuity: str) -> None:
    """Name the live version, as an operator would."""
    (folder / "serving.toml").write_text(f'acuity = "{acuity}"\n', encoding="utf-8")


def unnamed(folder: Path) -> tuple[str, ...]:
    """What is said of the tasks that `serve` leaves out."""
    return tuple(f"{task}: no live version in {folder / 'serving.toml'}" for task in ("symptoms", "lesions"))


def test_models_are_exchanged_under_load(folder):
    """While requests come, 9.1.0 goes live and the shipped version again: no error, and each assessment names the one that scored it."""
    one = Scorer(folder, load_policy(), watch_seconds=60.0)
    results = []

    async def client(name: str, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            results.append(await one.assess(case(f"{name}-{len(results)}"), NOW))

    async def work():
        await until(lambda: one.ready)
        is_over = asyncio.Event()
        clients = [asyncio.create_task(client(str(n), is_over)) for n in range(4)]
        problems = set()
        for version in ("9.1.0", ACUITY):
            await asyncio.sleep(0.1)
            serve(folder, version)
            problems |= set(await one.reload())
            results.append(await one.assess(case(version), NOW))
            assert results[-1].provenance.bundles["acuity"].version == version
        is_over.set()
        await asyncio.gather(*clients)
        return problems

    assert run(one, work()) == set(unnamed(folder))
    assert len(results) > 100
    assert {(it.scored_by, it.review.needed) for it in results} == {("models and rules", False)}
    versions = [it.provenance.bundles["acuity"].version for it in results]
    assert set(versions) == {ACUITY, "9.1.0"}
    assert len({it.provenance.bundles["acuity"].sha256 for it in results}) == 2


def test_a_new_bundle_that_was_altered_leaves_the_old_one_live(folder):
    """The old model goes on scoring, is named as live, and the problem is said until the folder is right again."""
    one = Scorer(folder, load_policy(), watch_seconds=0.02)
    card = folder / "acuity" / "9.1.0" / "card.md"
    content = card.read_bytes()

    async def work():
        await until(lambda: one.ready)
        card.write_bytes(content + b"!")
        serve(folder, "9.1.0")
        await until(lambda: one.health().problems != unnamed(folder))
        degraded, result = one.health(), await one.assess(case(), NOW)
        card.write_bytes(content)
        await until(lambda: one.health().problems == unnamed(folder))
        return degraded, result, await one.assess(case(), NOW)

    degraded, before, after = run(one, work())
    assert degraded.bundles["acuity"].version == ACUITY
    assert "9.1.0 was altered after it was signed" in degraded.problems[0]
    assert degraded.problems[-1] == f"acuity {ACUITY} stays live until what serving.toml names can be used"
    assert before.provenance.bundles["acuity"].version == ACUITY and before.critical_probability is not None
    assert after.provenance.bundles["acuity"].version == "9.1.0"


def test_without_a_folder_the_rules_rank_until_it_appears(tmp_path, folder):
    """At the first start without bundles every case is ranked by rules; the models are used as soon as they are there."""
    place = tmp_path / "not" / "there"
    one = Scorer(place, load_policy(), watch_seconds=0.02)

    async def work():
        before = await one.assess(case(), NOW)
        health = one.health()
        place.parent.mkdir()
        place.symlink_to(folder)
        await until(lambda: one.health().problems == unnamed(place))
        return before, health, await one.assess(case(), NOW)

    before, health, after = run(one, work())
    assert (before.scored_by, health.ready, health.degraded) == ("rules alone", True, True)
    assert health.problems == (f"{place / 'serving.toml'} cannot be read (FileNotFoundError): no model is used",)
    assert after.scored_by == "models and rules"


def test_a_task_that_is_no_longer_named_is_taken_out(folder):
    """A line that is gone from serving.toml is a decision; a file that cannot be read is not."""
    one = Scorer(folder, load_policy(), watch_seconds=60.0)

    async def work():
        await until(lambda: one.ready)
        (folder / "serving.toml").write_bytes(b"\xff not toml")
        broken = await one.reload()
        still = set(one.health().bundles)
        (folder / "serving.toml").write_text('symptoms = "1.0.0"\n', encoding="utf-8")
        await one.reload()
        return broken, still, set(one.health().bundles)

    broken, still, left = run(one, work())
    assert len(broken) == 2 and "cannot be read (UnicodeDecodeError)" in broken[0]
    assert (still, left) == ({"acuity"}, set())


def test_cases_before_the_models_are_loaded_wait_and_then_get_the_rules(monkeypatch):
    """Not ready until the models are loaded; a case waits for them at most the time limit."""
    hang = Hang()
    monkeypatch.setattr(scoring, "load_live", lambda *args, **options: hang(args))
    one = Scorer(None, load_policy(), timeout_seconds=0.05)

    async def work():
        result = await one.assess(case(), NOW)
        ready, health = one.ready, one.health()
        hang.go.set()
        return result, ready, health

    result, ready, health = run(one, work())
    assert (result.scored_by, result.review.why, ready) == ("rules alone", (LOADING,), False)
    assert health.problems == ("the models are still being loaded",)


def test_watching_outlives_a_lane_that_is_full(folder, caplog):
    """One look that is refused is logged by its class, and the next one sees the change."""
    one = Scorer(folder, load_policy(), watch_seconds=0.02)

    async def work():
        await until(lambda: one.ready)
        real = one._loading.put
        refused = []

        def put(item, **options):
            if not refused:
                refused.append(item)
                raise OverloadedError("full")
            return real(item, **options)

        one._loading.put = put
        await until(lambda: bool(refused))
        serve(folder, "9.1.0")
        await until(lambda: one.health().bundles["acuity"].version == "9.1.0")

    run(one, work())
    assert "the models' folder was not looked at: OverloadedError" in caplog.text


@pytest.mark.parametrize("is_whole", [True, False], ids=["the whole load", "one bundle"])
def test_a_load_that_failed_is_tried_again_though_no_file_changes(folder, monkeypatch, is_whole):
    """A disk may be away for a while. Until then the rules rank, and the health says why."""
    monkeypatch.setattr(scoring, "_LOAD_AGAIN_SECONDS", 0.05)
    place, name = (scoring, "load_live") if is_whole else (models, "load_bundle")
    real, tries = getattr(place, name), []

    def load(*args, **options):
        tries.append(args)
        if len(tries) < 3:
            raise MemoryError if is_whole else BundleError("the disk is away")
        return real(*args, **options)

    monkeypatch.setattr(place, name, load)
    renewed: list[str] = []
    monkeypatch.setattr(Lane, "renew", lambda lane: renewed.append(lane.name))
    one = Scorer(folder, load_policy(), watch_seconds=0.01)

    async def work():
        before = await one.assess(case(), NOW)
        health = one.health()
        await until(lambda: bool(one.health().bundles))
        await asyncio.sleep(0.1)  # no file changes, and all is well: nothing is loaded
        return before, health, await one.assess(case(), NOW)

    before, health, after = run(one, work())
    assert (before.scored_by, health.ready, health.degraded) == ("rules alone", True, True)
    said = "the models could not be loaded, which is tried again: see the log, and restore the bundles"
    assert health.problems[0] == (said if is_whole else "the disk is away")
    assert (after.scored_by, len(tries)) == ("models and rules", 3)
    assert renewed.count("models") == 1  # a load in vain changes nothing


def test_a_load_that_failed_is_not_tried_at_every_look(folder, monkeypatch):
    """It takes seconds: the next one comes after a pause, or when a file changes; a change is seen at once."""
    card = folder / "acuity" / ACUITY / "card.md"
    content = card.read_bytes()
    card.write_bytes(content + b"!")
    real, tries, looks = scoring.load_live, [], []
    monkeypatch.setattr(scoring, "load_live", lambda *args, **options: tries.append(args) or real(*args, **options))
    monkeypatch.setattr(scoring, "fingerprint", lambda place: looks.append(place) or fingerprint(place))
    one = Scorer(folder, load_policy(), watch_seconds=0.01)

    async def work():
        await until(lambda: len(looks) > 5)
        while_broken = len(tries)
        card.write_bytes(content)
        await until(lambda: bool(one.health().bundles))
        return while_broken

    assert run(one, work()) == 1
    assert len(tries) == 2


def test_the_fingerprint_sees_what_matters(folder):
    """Another version named, or a file of a named version changed, changes it; other files do not."""
    first = fingerprint(folder)
    (folder / "acuity" / "9.1.0" / "card.md").write_bytes(b"another")
    assert fingerprint(folder) == first
    (folder / "acuity" / ACUITY / "card.md").write_bytes(b"another")
    assert fingerprint(folder) != first
    second = fingerprint(folder)
    serve(folder, "9.1.0")
    assert fingerprint(folder) not in (first, second)
