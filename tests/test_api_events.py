"""Live updates over a real connection: one event for every change, resumed without loss or repetition, a clinic's own only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import Loopback, served
from service_app import MILD
from sqlalchemy import func, select

from inference.service import live
from inference.service.tables import events


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """One server for this file; each test listens from where it begins."""
    with served(tmp_path_factory.mktemp("events")) as running:
        yield running


def listen(service: Loopback, headers: dict[str, str], count: int, after: int | None = None) -> list[dict[str, Any]]:
    """The next `count` events, each as its id, kind and data."""
    params = {} if after is None else {"after": after}
    with httpx.stream("GET", f"{service.url}/v1/events", params=params, headers=headers, timeout=20) as answer:
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        found: list[dict[str, Any]] = []
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name in ("id", "event", "data"):
                event[name] = json.loads(value) if name == "data" else value
            elif not line and event:
                if "data" in event:
                    found.append(event)
                event = {}
                if len(found) == count:
                    break
    return found


def newest(service: Loopback) -> int:
    """The sequence of the last event there is."""
    return int(service.parts.database.run_now(lambda unit: unit.connection.execute(select(func.max(events.c.sequence))).scalar() or 0))


def test_each_change_is_an_event(service: Loopback):
    """Created, claimed, overridden, noted, completed: in order, with levels and state, and nothing of the patient's."""
    start = newest(service)
    id_ = service.send({**MILD, "complaint": "planted words", "patient": {"name": "planted name"}}, clinic="each")["id"]
    for action, body in (
        ("claim", None),
        ("override", {"level": 2, "reason": "planted reason"}),
        ("note", {"text": "planted note"}),
        ("complete", {"outcome": "advised"}),
    ):
        assert service.act(id_, action, body).status_code == 200
    heard = listen(service, service.token("clinician"), 5, after=start)
    assert [event["event"] for event in heard] == ["created", "claimed", "overridden", "noted", "completed"]
    assert [event["data"]["state"] for event in heard] == ["waiting", "claimed", "claimed", "claimed", "completed"]
    assert (heard[2]["data"]["level_before"], heard[2]["data"]["level"]) == (heard[0]["data"]["level"], 2)
    assert {event["data"]["referral_id"] for event in heard} == {id_}
    assert "planted" not in json.dumps(heard)


def test_events_arrive_while_listening(service: Loopback):
    """Without a place to resume from, a listener gets what happens from now on."""
    heard: list[dict[str, Any]] = []
    headers, listening = service.token("clinic", "now"), threading.Event()
    service.send(MILD, clinic="now")

    def hear() -> None:
        with httpx.stream("GET", f"{service.url}/v1/events", headers=headers, timeout=20) as answer:
            for line in answer.iter_lines():
                listening.set()
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    return

    thread = threading.Thread(target=hear)
    thread.start()
    assert listening.wait(20)
    sent = service.send(MILD, clinic="now")
    thread.join(20)
    assert [event["referral_id"] for event in heard] == [sent["id"]]


def test_a_listener_resumes_where_it_broke_off(service: Loopback):
    """`Last-Event-ID`, again and again: every event once, in order; it goes before `after`."""
    start = newest(service)
    ids = [service.send(MILD, clinic="resume")["id"] for _ in range(7)]
    headers = service.token("clinic", "resume")
    heard: list[dict[str, Any]] = []
    for count in (1, 3, 2, 1):
        heard += listen(service, {**headers, "Last-Event-ID": heard[-1]["id"] if heard else str(start)}, count, after=0)
    assert [event["data"]["referral_id"] for event in heard] == ids
    places = [int(event["id"]) for event in heard]
    assert places == sorted(set(places))


def test_a_clinic_hears_of_its_own_only(service: Loopback):
    """Of events that alternate between two clinics each one gets its half; a clinician gets all."""
    start = newest(service)
    ids = [service.send(MILD, clinic=clinic)["id"] for clinic in ("east", "west") * 3]
    for clinic, own in (("east", ids[::2]), ("west", ids[1::2])):
        heard = listen(service, service.token("clinic", clinic), 3, after=start)
        assert [event["data"]["referral_id"] for event in heard] == own
        assert {event["data"]["clinic"] for event in heard} == {clinic}
    assert [event["data"]["referral_id"] for event in listen(service, service.token("clinician"), 6, after=start)] == ids


def test_a_listener_that_heard_nothing_yet_can_resume(service: Loopback):
    """The first that comes is an id without an event: a browser keeps it and reports nothing."""
    headers = service.token("clinic", "early")
    place = newest(service)
    with httpx.stream("GET", f"{service.url}/v1/events", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == [": alive", f"id: {place}", ""]
    sent = service.send(MILD, clinic="early")
    heard = listen(service, {**headers, "Last-Event-ID": str(place)}, 1)
    assert [event["data"]["referral_id"] for event in heard] == [sent["id"]]


@pytest.mark.parametrize(("limit", "status"), [("_MOST_OF_ONE", 429), ("_MOST_LISTENERS", 503)])
def test_too_many_listeners_are_told_so_before_the_answer_begins(
    service: Loopback, monkeypatch: pytest.MonkeyPatch, limit: str, status: int
):
    """A problem document with a time to come back, and no stream."""
    monkeypatch.setattr(live, limit, 0)
    answer = service.client.get("/v1/events", headers=service.token("clinician"))
    assert (answer.status_code, answer.headers["content-type"], answer.headers["retry-after"]) == (status, "application/problem+json", "30")


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "9" * 16])
def test_a_place_that_cannot_be_is_refused(service: Loopback, wrong: str):
    """422, and no stream."""
    headers = {**service.token("clinician"), "Last-Event-ID": wrong}
    assert service.client.get("/v1/events", headers=headers).status_code == 422
    assert service.client.get("/v1/events", params={"after": wrong}, headers=service.token("clinician")).status_code == 422


def test_streams_end_when_the_service_stops(tmp_path: Path):
    """A listener's stream ends whole, and does not keep the server from ending."""
    with served(tmp_path) as service:
        service.send(MILD)
        ended: list[str] = []
        listening = threading.Event()

        def hear() -> None:
            with httpx.stream(
                "GET", f"{service.url}/v1/events", params={"after": 0}, headers=service.token("clinician"), timeout=20
            ) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        listening.set()
            ended.append("whole")

        thread = threading.Thread(target=hear)
        thread.start()
        assert listening.wait(20)
        service.stop()
        thread.join(20)
        assert (ended, service.thread.is_alive()) == (["whole"], False)
