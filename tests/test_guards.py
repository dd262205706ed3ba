"""Tests of the guards: limits, types, rates, slow bodies, event streams, draining, headers and the access log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, UploadFile
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from inference.errors import BusyError
from inference.service.caller_check import METRICS, OPEN, WHO
from inference.service.drain import Drain
from inference.service.fhir_http import render_problem
from inference.service.guards import Guard, guard
from inference.service.identity import CHECK_AGAIN_SECONDS, TokenVerifier, Who
from inference.service.problems import MEDIA_TYPE, TooSlowError, install
from inference.service.rate_limit import BoundedStorage, RateLimit, caller_of
from inference.service.request_body import MOST_BODY_SECONDS, BodyWatch
from inference.service.request_log import choose_request_id
from inference.service.settings import Settings
from inference.service.shared_timer import SharedTimer

CNIC = "35202-1234567-1"
NAME = "احمد خان"
JSON = {"content-type": "application/json"}


def settings(**given: Any) -> Settings:
    """Settings with small limits."""
    return Settings(_env_file=None, **{"body_limit_bytes": 1000, "upload_limit_bytes": 5000, **given})


class Stage:
    """A small app with a route of each kind, and what was seen there."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.app = FastAPI(redirect_slashes=False)
        install(self.app)
        inner = APIRouter(prefix="/v1")

        @inner.post("/assess")
        async def assess(request: Request) -> dict[str, int]:
            return {"bytes": len(await request.body())}

        @inner.post("/referrals")
        @inner.post("/referrals/{name}/findings")
        async def upload(photo: UploadFile) -> dict[str, int]:
            return {"bytes": len(await photo.read())}

        @inner.post("/parsed")
        async def parsed(given: dict[str, Any]) -> dict[str, Any]:
            return given

        @inner.get("/slow/{name}")
        async def slow(name: str) -> dict[str, str]:
            self.running += 1
            await self.open.wait()
            return {"name": name}

        @inner.get("/events")
        async def events() -> Response:
            return EventSourceResponse(self.ticks())

        @inner.get("/stream")
        async def stream() -> Response:
            return StreamingResponse(self.ticks(), media_type="text/event-stream; charset=utf-8")

        @inner.get("/broken/{name}")
        async def broken(name: str) -> None:
            raise ValueError(name)

        @inner.get("/own")
        async def own() -> Response:
            return Response(
                "<p>", headers={"Content-Security-Policy": "default-src 'self'", "Cache-Control": "private, no-cache", "ETag": '"1"'}
            )

        @self.app.post("/fhir/Task")
        @self.app.post("/cds-services/one")
        @self.app.get("/health/live")
        @self.app.get("/metrics")
        async def anything(request: Request) -> dict[str, int]:
            return {"bytes": len(await request.body())}

        self.app.include_router(inner)

    async def ticks(self) -> AsyncIterator[str]:
        """An event stream that ends with the test."""
        yield "data: 1\n\n"
        await self.open.wait()


def client(guarded: Guard, address: str = "10.0.0.1", base: str = "http://nabz.test") -> httpx.AsyncClient:
    """A client of the guarded app."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded, client=(address, 1)), base_url=base)


def ask(method: str, path: str, of: Settings | None = None, **more: Any) -> httpx.Response:
    """One request to a fresh stage."""

    async def run() -> httpx.Response:
        async with client(guard(Stage().app, of or settings())) as one:
            return await one.request(method, path, **more)

    return asyncio.run(run())


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A chunked body."""
    for part in parts:
        yield part


def test_every_answer_carries_the_security_headers():
    """Also one that refuses, one for nothing, and one that broke."""
    for path in ("/health/live", "/nowhere", "/v1/broken/x"):
        headers = ask("GET", path).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers


def test_a_route_may_set_its_own_security_headers():
    """A page needs another policy, and an ETag another caching."""
    headers = ask("GET", "/v1/own").headers
    assert headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert headers.get_list("cache-control") == ["private, no-cache"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/v1/assess", 1000, 200), ("/v1/assess", 1001, 413), ("/fhir/Task", 1001, 413), ("/v1/parsed", 5000, 413)],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_limited_whether_announced_or_not(path, size, status, chunked):
    """413 at the first byte too many; the connection ends, because the rest may be endless."""
    content = pieces(*[b"1" * 100] * (size // 100), b"1" * (size % 100)) if chunked else b"1" * size
    answer = ask("POST", path, content=content, headers=JSON)
    assert answer.status_code == status
    if status == 413:
        assert answer.json()["detail"].startswith("the body is larger than 1000 bytes")
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize(
    ("path", "accepted"),
    [("/v1/referrals", True), ("/v1/referrals/r-1/findings", True), ("/v1/assess", False), ("/v1/referrals/r-1", False)],
)
def test_photos_are_taken_at_two_routes_and_up_to_a_limit_of_their_own(path, accepted):
    """Elsewhere multipart is a wrong type; JSON never gets the larger limit."""
    answer = ask("POST", path, files={"photo": b"x" * 3000})
    assert answer.status_code == (200 if accepted else 415)
    if accepted:
        assert answer.json() == {"bytes": 3000}
        assert ask("POST", path, files={"photo": b"x" * 6000}).status_code == 413
        assert ask("POST", path, content=b"1" * 1001, headers=JSON).status_code == 413


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/v1/assess", "application/json; charset=UTF-8", 200),
        ("/v1/assess", "Application/JSON", 200),
        ("/v1/assess", "application/json; charset=utf-16", 415),
        ("/v1/assess", "text/plain", 415),
        ("/v1/assess", "application/x-www-form-urlencoded", 415),
        ("/v1/assess", "application/fhir+json", 415),
        ("/v1/assess", "application/jsonp", 415),
        ("/v1/assess", "", 415),
        ("/v1/assess", NAME.encode(), 415),
        ("/v1/referrals", "multipart/form-data", 400),
        ("/fhir/Task", "application/fhir+json; fhirVersion=4.0", 200),
        ("/fhir/Task", "application/json", 200),
        ("/fhir/Task", "application/fhir+xml", 415),
        ("/cds-services/one", "application/json", 200),
        ("/cds-services/one", "application/fhir+json", 415),
    ],
)
def test_content_types_are_strict(path, kind, status):
    """What is accepted depends on the part of the service; the answer says what to send."""
    answer = ask("POST", path, content=b"{}", headers={"content-type": kind})
    assert answer.status_code == status
    if status == 415:
        assert "send " in answer.json()["detail"]


def test_a_request_without_a_body_needs_no_type():
    """Claim and release have none."""
    assert ask("POST", "/v1/assess").status_code == 200


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ([("content-length", "2"), ("content-length", "3")], b"{}", 400),
        ([("content-type", "text/plain")], b"{}", 400),
        ([("content-length", "-2")], b"{}", 400),
        ([("content-length", "2x")], b"{}", 400),
        ([("content-length", "9" * 30)], b"{}", 400),
        ([("content-length", "2"), ("transfer-encoding", "chunked")], b"{}", 400),
        ([("content-length", "2"), ("content-encoding", "gzip")], b"{}", 415),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], b"{}", 400),
    ],
)
def test_headers_that_two_servers_could_read_in_two_ways_are_refused(headers, content, status):
    """Smuggling needs a disagreement about where a body ends."""
    given = [("content-type", "application/json"), *headers]
    assert ask("POST", "/v1/assess", content=content, headers=given).status_code == status


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_json_is_read_in_utf_8_only(encoding):
    """Python's reader would guess other encodings."""
    assert ask("POST", "/v1/parsed", content='{"a": 1}'.encode(encoding), headers=JSON).status_code == 400
    assert ask("POST", "/v1/parsed", content='{"a": "بخار"}'.encode(), headers=JSON).json() == {"a": "بخار"}


async def raw(
    guarded: Guard, receive: Any, headers: list[tuple[bytes, bytes]], path: str = "/v1/assess", **more: Any
) -> list[dict[str, Any]]:
    """The messages that a server would get for one request."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "client": ("10.0.0.1", 1), **more}
    await guarded(scope, receive, send)
    return sent


def test_a_body_that_nothing_announced_is_refused():
    """HTTP/2 allows it; without an announcement its type was never checked."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    sent = asyncio.run(raw(guard(Stage().app, settings()), receive, []))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 400


@pytest.mark.parametrize("parts", [0, 3])
def test_a_body_that_comes_too_slowly_is_given_up(parts):
    """408 after the time for the whole body, however many bytes drip in; the place in flight is free again."""
    guarded = guard(Stage().app, settings(), body_seconds=0.05)
    left = [b"x"] * parts

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError

    headers = [(b"content-type", b"application/json"), (b"content-length", b"500")]
    sent = asyncio.run(raw(guarded, receive, headers))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["detail"].startswith("the body did not arrive within")
    assert guarded.drain.in_flight == 0


def test_a_body_that_keeps_coming_gets_more_time(monkeypatch):
    """A photo over a slow line: each 4 KB give a second more, up to an end for the whole."""
    now, sizes = [1000.0], [40_000] * 10

    async def receive() -> dict[str, Any]:
        now[0] += 9.0
        return {"type": "http.request", "body": b"x" * sizes.pop(), "more_body": bool(sizes)}

    async def read() -> None:
        watch = BodyWatch(10**9, 30.0, SharedTimer(60), is_json=False)
        while not watch.ended:
            await watch.next(receive)

    async def run() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
        await read()
        assert now[0] == 1090.0
        sizes[:] = [1] * 9 + [40_000]
        with pytest.raises(TooSlowError, match="within 40 seconds"):
            await read()
        sizes[:] = [40_000] * 50
        with pytest.raises(TooSlowError, match=f"within {MOST_BODY_SECONDS:.0f} seconds"):
            await read()

    asyncio.run(run())


def test_a_cancelled_request_stays_cancelled():
    """A caller that leaves is not taken for a slow one, and gives its place back."""
    guarded = guard(Stage().app, settings())

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def run() -> None:
        task = asyncio.create_task(raw(guarded, receive, [(b"content-type", b"application/json"), (b"content-length", b"5")]))
        await asyncio.sleep(0.01)
        assert guarded.drain.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert guarded.drain.in_flight == 0


async def until(condition: Any) -> None:
    """Let the loop run until it is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_requests_in_flight_are_bounded():
    """One too many gets 503 and when to come back; health and metrics still answer; afterwards all is as before."""

    async def run() -> None:
        stage = Stage()
        guarded = guard(stage.app, settings(in_flight_limit=2))
        async with client(guarded) as one:
            slow = [asyncio.create_task(one.get("/v1/slow/x")) for _ in range(2)]
            await until(lambda: stage.running == 2)
            refused = await one.get("/v1/slow/x")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await one.get("/health/live")).status_code == (await one.get("/metrics")).status_code == 200
            stage.open.set()
            assert [(await task).status_code for task in slow] == [200, 200]
            assert (await one.get("/v1/slow/x")).status_code == 200
            assert guarded.drain.in_flight == 0

    asyncio.run(run())


def test_a_caller_may_not_ask_too_often(tmp_path):
    """By the verified subject where it is known, else by the address; 429 says when to come back; health is not counted."""

    async def run(of: Settings) -> None:
        verifier = TokenVerifier(of)
        headers = {"authorization": f"Bearer {verifier.dev_issuer.mint('asha', 'clinic', 'mithi')}"}
        guarded = guard(Stage().app, of, verifier)
        async with client(guarded) as here, client(guarded, "10.0.0.2") as there:
            assert [(await here.post("/v1/assess")).status_code for _ in range(4)] == [401, 401, 401, 429]
            assert (await there.post("/v1/assess")).status_code == 401
            answers = [await one.post("/v1/assess", headers=headers) for one in (here, there, here, there)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
            assert (await here.get("/health/live")).status_code == 200

    asyncio.run(run(settings(dev_issuer=True, data_dir=tmp_path, requests_per_minute=3)))


def test_an_address_that_others_have_used_up_shuts_no_token_out(tmp_path):
    """Behind one address: wrong tokens are refused after their own count, right ones go on, also when they are verified anew."""
    now = [time.time()]

    async def run(of: Settings) -> None:
        verifier = TokenVerifier(of, clock=lambda: now[0])
        asha, bano = ({"authorization": f"Bearer {verifier.dev_issuer.mint(name, 'clinic', 'mithi')}"} for name in ("asha", "bano"))
        wrong = {"authorization": "Bearer made.up.token"}
        async with client(guard(Stage().app, of, verifier)) as one:

            async def statuses(headers: dict[str, str], count: int) -> list[int]:
                return [(await one.post("/v1/assess", headers=headers)).status_code for _ in range(count)]

            assert await statuses(asha, 1) == [200]
            assert await statuses({}, 5) == [401, 401, 401, 429, 429]
            assert await statuses(bano, 2) == [200, 200]
            assert await statuses(wrong, 5) == [401, 401, 401, 429, 429]
            now[0] += CHECK_AGAIN_SECONDS + 1
            assert await statuses(asha, 3) == [200, 200, 429]
            assert await statuses(bano, 2) == [200, 429]

    asyncio.run(run(settings(dev_issuer=True, data_dir=tmp_path, requests_per_minute=3)))


@pytest.mark.parametrize("path", ["/v1/parsed", "/v1/assess", "/fhir/Task", "/cds-services/one", "/nowhere"])
@pytest.mark.parametrize("token", [None, "Bearer made.up.token"])
def test_nobody_is_read_before_it_is_known_who_they_are(tmp_path, path, token):
    """401 for a bad body as for a good one, in the format of the path, and not a byte of it is asked for; no place is held."""
    of = settings(dev_issuer=True, data_dir=tmp_path)
    guarded = guard(Stage().app, of, TokenVerifier(of), renderers={"/fhir": render_problem})

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    headers = [(b"content-type", b"application/json"), (b"content-length", b"5"), *([(b"authorization", token.encode())] if token else [])]
    sent = asyncio.run(raw(guarded, receive, headers, path))
    assert sent[0]["status"] == 401 and any(name == b"www-authenticate" for name, _ in sent[0]["headers"])
    assert ("resourceType" in json.loads(sent[1]["body"])) is path.startswith("/fhir")
    assert guarded.drain.in_flight == 0


def test_open_paths_need_no_token_and_routes_get_the_caller(tmp_path):
    """What was verified stands in the scope, so that no route verifies it again."""
    of = settings(dev_issuer=True, data_dir=tmp_path)
    verifier = TokenVerifier(of)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[WHO])
        await Response()(scope, receive, send)

    async def run() -> None:
        async with client(guard(app, of, verifier)) as one:
            for path in (*sorted(OPEN), METRICS):
                assert (await one.get(path, headers={"authorization": "Bearer made.up.token"})).status_code == 200
            token = verifier.dev_issuer.mint("asha", "clinic", "mithi")
            assert (await one.get("/v1/worklist", headers={"authorization": f"Bearer {token}"})).status_code == 200

    asyncio.run(run())
    assert seen == [None] * (len(OPEN) + 1) + [Who("asha", "clinic", "mithi")]


def test_the_table_of_callers_is_bounded():
    """When it is full, new callers share one counter; ended ones make room; a minute later all may ask again."""
    now = [1000.0]
    storage = BoundedStorage(3, lambda: now[0])
    rate = RateLimit(2, storage, lambda: now[0])
    for caller in ("a", "b", "c", "d", "e"):
        rate.count(caller)
    with pytest.raises(BusyError, match=r"^more than 2 requests in a minute") as refused:
        rate.count("f")
    assert refused.value.retry_after_seconds == 60
    rate.count("a")
    assert len(storage._counts) <= 4
    now[0] += 61
    rate.count("f")
    rate.count("f")
    assert set(storage._counts) == {"f"}


def test_an_address_is_a_caller_and_a_site_of_ipv6_is_one():
    """A site can make up 2^64 addresses."""
    assert caller_of("2001:db8::1") == caller_of("2001:db8::ffff") != caller_of("2001:db8:0:1::1")
    assert caller_of("::ffff:10.0.0.1") == caller_of("10.0.0.1") != caller_of("10.0.0.2")
    assert caller_of(None) == caller_of("unix:") == "address:unknown"


@pytest.mark.parametrize("path", ["/v1/events", "/v1/stream"])
def test_event_streams_hold_no_place_in_flight_and_are_bounded(path):
    """A stream counts among the streams while it lasts; one too many gets a clean 503."""

    async def run() -> None:
        stage = Stage()
        guarded = guard(stage.app, settings(in_flight_limit=1))
        scope = {"method": "GET"}

        async def never() -> dict[str, Any]:
            await asyncio.sleep(60)
            raise AssertionError

        first = asyncio.create_task(raw(guarded, never, [], path, **scope))
        await until(lambda: guarded.streams == 1)
        assert guarded.drain.in_flight == 0
        async with client(guarded) as one:
            assert (await one.post("/v1/assess")).status_code == 200
        refused = await raw(guarded, never, [], path, **scope)
        assert [message["type"] for message in refused] == ["http.response.start", "http.response.body"]
        assert refused[0]["status"] == 503
        stage.open.set()
        sent = await first
        assert sent[0]["status"] == 200 and b"data: " in sent[1]["body"] and sent[-1]["more_body"] is False
        assert (guarded.streams, guarded.drain.in_flight) == (0, 0)

    asyncio.run(run())


def test_draining_ends_what_is_in_progress_and_sends_away_what_is_new():
    """Health still answers; the wait ends with the last request, or with its time."""

    async def run() -> None:
        stage, drain = Stage(), Drain()
        guarded = guard(stage.app, settings(), drain=drain)
        async with client(guarded) as one:
            slow = asyncio.create_task(one.get("/v1/slow/x"))
            await until(lambda: stage.running == 1)
            stopping = asyncio.create_task(drain.until_begun())
            drain.begin()
            await stopping
            refused = await one.post("/v1/assess")
            assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "5", "close")
            assert (await one.get("/health/live")).status_code == 200
            assert (await one.get("/metrics")).status_code == 503
            assert await drain.wait(0.01) is False
            stage.open.set()
            assert await drain.wait(5) is True
            assert (await slow).status_code == 200

    asyncio.run(run())


def test_draining_an_idle_service_is_over_at_once():
    """Nothing is in flight."""

    async def run() -> bool:
        return await Drain().wait(5)

    assert asyncio.run(run()) is True


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("req-1", False),
        ("Ayesha-Bibi-0300-123-4567", False),
        ("0b54c1e4-9d0f-4b77-8c37-3a1f0c2d9e11", True),
        ("4bf92f3577b34da6a3ce929d0e0e4736", True),
        ("A" * 32, True),
        ("a" * 64, False),
        ("g" * 32, False),
        (CNIC, False),
        ("03001234567", False),
        ("a b", False),
        ("a\nb", False),
        ('a"b', False),
        ("", False),
        (NAME, False),
    ],
)
def test_a_request_id_is_kept_when_it_is_a_random_one(given, kept):
    """A person's name or number must not get into the log by this header; whatever is not kept is replaced."""
    chosen = choose_request_id(given.encode())
    assert (chosen == given) is kept
    assert choose_request_id(None) != choose_request_id(None)
    assert len(chosen) <= 64 and chosen.isascii()


def test_the_request_id_is_echoed_and_stands_in_problems():
    """So that a caller and the log mean the same request."""
    given = "0b54c1e4-9d0f-4b77-8c37-3a1f0c2d9e11"
    answer = ask("GET", "/v1/broken/x", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The access log."""
    return [json.loads(line) for record in caplog.records if record.name == "nabz.access" for line in record.getMessage().splitlines()]


def test_the_access_log_has_one_line_a_request_and_no_data_of_it(caplog):
    """Method, template, status, time and id; whatever is planted in path, query, headers, body or method stays out."""
    seen: list[tuple[str, str, int]] = []

    async def run() -> None:
        guarded = guard(Stage().app, settings(), observe=lambda method, route, status, _seconds: seen.append((method, route, status)))
        async with client(guarded) as one:
            planted = {"x-request-id": CNIC, "user-agent": CNIC, "referer": f"http://x/{CNIC}"}
            await one.post(f"/v1/referrals/{CNIC}/findings?name={NAME}", files={"photo": (f"{NAME}.jpg", CNIC.encode())}, headers=planted)
            await one.get(f"/v1/broken/{CNIC}", headers=planted)
            await one.get(f"/{NAME}/{CNIC}", headers=planted)
            await one.request("AHMED", "/v1/assess")
            await one.post("/v1/assess", content=CNIC.encode(), headers={"content-type": CNIC})
            await one.post("/v1/parsed", content=f'{{"{CNIC}'.encode(), headers=JSON)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    expected = [
        ("POST", "/v1/referrals/{name}/findings", 200),
        ("GET", "/v1/broken/{name}", 500),
        ("GET", "unmatched", 404),
        ("OTHER", "/v1/assess", 405),
        ("POST", "unmatched", 415),
        ("POST", "/v1/parsed", 400),
    ]
    found = lines(caplog)
    assert [(line["method"], line["route"], line["status"]) for line in found] == seen == expected
    assert all(set(line) == {"at", "method", "route", "status", "milliseconds", "request_id"} for line in found)
    own = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "python_multipart")))
    assert not any(one in own for one in (CNIC, NAME, "AHMED"))


def test_lines_of_a_busy_service_are_written_when_it_is_idle_again(caplog):
    """They wait together, and none is lost."""

    async def run() -> None:
        stage = Stage()
        async with client(guard(stage.app, settings())) as one:
            slow = asyncio.create_task(one.get("/v1/slow/x"))
            await until(lambda: stage.running == 1)
            for _ in range(3):
                await one.get("/nowhere")
            assert lines(caplog) == []
            stage.open.set()
            await slow

    with caplog.at_level(logging.INFO, "nabz.access"):
        asyncio.run(run())
    assert [line["status"] for line in lines(caplog)] == [404, 404, 404, 200]


def test_an_exception_never_reaches_the_server(caplog):
    """The server would log its message; an app that breaks after its answer began is cut off without one."""

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError(CNIC)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    sent = asyncio.run(raw(guard(half, settings()), receive, []))
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert "builtins.ValueError at " in caplog.text and CNIC not in caplog.text


def test_web_sockets_are_closed():
    """There are none in this service."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(Stage().app, settings())({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    ("address", "base", "headers", "status"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", {}, 200),
        ("::1", "http://localhost", {}, 200),
        ("10.0.0.1", "http://127.0.0.1", {}, 403),
        ("127.0.0.1", "http://evil.example", {}, 403),
        ("127.0.0.1", "http://127.0.0.1", {"x-forwarded-for": "10.0.0.1"}, 403),
    ],
)
def test_development_tokens_are_for_this_machine(tmp_path, address, base, headers, status):
    """A form or JSON, from this machine, by its own name, through no proxy."""
    of = settings(dev_issuer=True, data_dir=tmp_path)
    verifier = TokenVerifier(of)
    stage_settings = {"role": "clinic", "clinic": "mithi", "subject": "asha"}

    async def run() -> None:
        app = Stage().app
        app.router.routes.append(verifier.dev_issuer.route())
        async with client(guard(app, of, verifier), address, base) as one:
            for form in ({"data": stage_settings}, {"json": stage_settings}):
                answer = await one.post("/dev/token", headers=headers, **form)
                assert answer.status_code == status
                if status == 200:
                    who = await verifier.who(f"Bearer {answer.json()['access_token']}")
                    assert (who.subject, who.role, who.clinic) == ("asha", "clinic", "mithi")
                    assert (await one.post("/dev/token", json={"role": NAME})).status_code == 422
                    assert (await one.post("/dev/token", content=b"{", headers=JSON)).status_code == 400

    asyncio.run(run())
