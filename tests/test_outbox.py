"""Webhooks: every event, in order, at least once, signed as Standard Webhooks says; a receiver that fails holds up nobody else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field

import httpx
import pytest
from queue_database import ASMA, NOW, add, do, referral, rows, run_sql, started

from inference.errors import NotAllowedError, NotFoundError, UnprocessableError
from inference.service import outbox as outbox_module
from inference.service import store
from inference.service.callers import Who
from inference.service.outbox import Outbox, lag
from inference.service.tables import to_us
from inference.service.vault import Vault

ADMIN = Who("root", "admin")
NOW_US = to_us(NOW)
SECOND = 1_000_000


def response(status: int) -> httpx.Response:
    """An answer as it comes over a connection: its body was not read yet."""
    return httpx.Response(status, stream=httpx.ByteStream(b"thanks"))


@dataclass
class Receiver:
    """What answers at a URL: with these statuses (or errors), then with 204."""

    answers: list[int | Exception] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return response(answer)

    @property
    def kinds(self) -> list[str]:
        return [json.loads(request.content)["type"] for request in self.requests]

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@pytest.fixture
def database(queue_url):
    """An empty database of each kind, running."""
    made = started(queue_url)
    yield made
    made.stop()


@pytest.fixture
def vault(tmp_path) -> Vault:
    """New keys."""
    return Vault.open(tmp_path / "keys.json", create=True)


def register(outbox: Outbox, url: str = "https://one.example/hook") -> dict[str, str]:
    return asyncio.run(outbox.register(ADMIN, url, NOW_US))


def deliver(outbox: Outbox, *receivers: Receiver, now_us: int = NOW_US) -> int:
    """One round, with each receiver at its host: one, then two."""
    hosts = dict(zip(("one.example", "two.example"), receivers, strict=False))

    async def main() -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: hosts[request.url.host](request))) as client:
            return await outbox.deliver_once(client, now_us)

    return asyncio.run(main())


def hook(database) -> tuple[int, int, int]:
    return rows(database.engine, "SELECT delivered, failures, next_try_us FROM webhooks")[0]


def test_events_arrive_in_order_from_the_registration_on(database, vault):
    """Each once, where all goes well; what happened before is not sent."""
    outbox, receiver = Outbox(database, vault), Receiver()
    add(database.engine, [referral("before")])
    made = register(outbox)
    add(database.engine, [referral("a"), referral("b")])
    do(database.engine, lambda unit: store.add_note(unit, "a", ASMA, NOW, b"a secret note"))
    assert deliver(outbox, receiver) == 3
    assert deliver(outbox, receiver) == 0
    bodies = [json.loads(request.content) for request in receiver.requests]
    assert [(body["type"], body["data"]["referral_id"]) for body in bodies] == [
        ("referral.created", "a"),
        ("referral.created", "b"),
        ("referral.noted", "a"),
    ]
    assert receiver.ids == [f"{made['id']}_{body['data']['sequence']}" for body in bodies]
    assert not any(b"secret" in request.content or b"summary" in request.content for request in receiver.requests)


def test_the_signature_is_the_one_of_standard_webhooks(database, vault):
    """Checked here by the specification's own words: base64 of HMAC-SHA256 over `id.timestamp.body` with the decoded secret."""
    outbox, receiver = Outbox(database, vault), Receiver()
    secret = register(outbox)["secret"]
    add(database.engine, [referral("a")])
    deliver(outbox, receiver)
    request = receiver.requests[0]
    assert secret.startswith("whsec_") and 24 <= len(base64.b64decode(secret[6:])) <= 64
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.{request.content.decode()}"
    expected = base64.b64encode(hmac.new(base64.b64decode(secret[6:]), signed.encode(), hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert request.headers["webhook-timestamp"] == str(NOW_US // SECOND)
    assert request.headers["content-type"] == "application/json"


def test_the_signature_of_a_known_message():
    """The example of the specification's reference implementation."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = outbox_module.signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("failure", [500, 404, 302, httpx.ConnectError("down"), httpx.ReadTimeout("slow")], ids=str)
def test_a_failure_is_tried_again_ever_more_rarely_and_nothing_is_skipped(database, vault, failure):
    """2, 4, 8 … seconds, at most an hour; the event that failed comes first, with the same id."""
    outbox, receiver = Outbox(database, vault), Receiver([failure] * 14)
    register(outbox)
    add(database.engine, [referral("a"), referral("b")])
    now_us, waits = NOW_US, []
    for _ in range(14):
        assert deliver(outbox, receiver, now_us=now_us) == 0
        next_us = hook(database)[2]
        asked = len(receiver.requests)
        assert deliver(outbox, receiver, now_us=next_us - 1) == 0 and len(receiver.requests) == asked
        waits.append((next_us - now_us) // SECOND)
        now_us = next_us
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]
    assert deliver(outbox, receiver, now_us=now_us) == 2
    assert len(set(receiver.ids)) == 2 and receiver.ids[-2:] == sorted(set(receiver.ids))
    assert hook(database)[1:] == (0, 0)


def test_what_was_accepted_before_a_failure_is_not_sent_again(database, vault):
    """The place is noted event by event."""
    outbox, receiver = Outbox(database, vault), Receiver([204, 204, 503])
    register(outbox)
    add(database.engine, [referral(f"r{place}") for place in range(4)])
    assert deliver(outbox, receiver) == 2
    assert deliver(outbox, receiver, now_us=NOW_US + 2 * SECOND) == 2
    assert [json.loads(request.content)["data"]["referral_id"] for request in receiver.requests] == ["r0", "r1", "r2", "r2", "r3"]


def test_a_receiver_that_fails_holds_up_nobody_else(database, vault):
    """Not even one whose secret cannot be opened or whose URL cannot be used."""
    outbox, bad, good = Outbox(database, vault), Receiver([500] * 9), Receiver()
    register(outbox, "https://two.example/")
    run_sql(database.engine, "UPDATE webhooks SET id = 'w-other'")  # its secret was sealed for another id
    register(outbox, "https://two.example/")
    run_sql(database.engine, "UPDATE webhooks SET url = 'https://exa mple:x/' WHERE id <> 'w-other'")
    register(outbox, "https://two.example/down")
    register(outbox, "https://one.example/")
    add(database.engine, [referral("a"), referral("b")])
    assert deliver(outbox, good, bad) == 2
    assert good.kinds == ["referral.created"] * 2
    assert [request.url.path for request in bad.requests] == ["/down"]
    assert sorted(rows(database.engine, "SELECT failures FROM webhooks")) == [(0,), (1,), (1,), (1,)]


def test_a_receiver_that_never_ends_its_answer_is_given_up(database, vault):
    """The limit is on the whole exchange."""
    outbox = Outbox(database, vault, timeout_seconds=0.05)
    register(outbox)
    add(database.engine, [referral("a")])

    async def endless(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return response(204)

    async def main() -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(endless)) as client:
            return await outbox.deliver_once(client, NOW_US)

    assert asyncio.run(main()) == 0
    assert hook(database)[1] == 1


def test_an_event_that_was_not_noted_is_sent_again_after_a_restart(database, vault, monkeypatch):
    """At least once: the receiver accepted it, and the service died before it noted that."""
    outbox, receiver = Outbox(database, vault), Receiver()
    register(outbox)
    add(database.engine, [referral("a")])

    def died(*_given, **_more):
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_module, "_note", died)
        with pytest.raises(KeyError):
            deliver(outbox, receiver)
    again = Outbox(database, vault)
    assert deliver(again, receiver) == 0  # another process may still be at it
    assert deliver(again, receiver, now_us=NOW_US + 21 * SECOND) == 1
    assert receiver.ids[0] == receiver.ids[1] and len(receiver.ids) == 2


def test_two_processes_do_not_send_the_same(database, vault):
    """While one is at it, the other leaves the receiver alone; a late note never takes the place back."""
    outbox, other, receiver, second = Outbox(database, vault), Outbox(database, vault), Receiver(), Receiver()
    register(outbox)
    add(database.engine, [referral("a")])
    original = receiver.__call__

    async def meanwhile(request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.MockTransport(second)) as client:
            assert await other.deliver_once(client, NOW_US) == 0
            assert await other.deliver_once(client, NOW_US + 30 * SECOND) == 1  # it took too long: its turn is over
        return original(request)

    async def main() -> int:
        async with httpx.AsyncClient(transport=httpx.MockTransport(meanwhile)) as client:
            return await outbox.deliver_once(client, NOW_US)

    assert asyncio.run(main()) == 1
    add(database.engine, [referral("b")])
    assert deliver(outbox, receiver, now_us=NOW_US + 60 * SECOND) == 1
    assert [len(receiver.requests), len(second.requests)] == [2, 1]


def test_lag_counts_what_the_slowest_receiver_has_not_accepted(database, vault):
    """Nothing without receivers."""
    outbox = Outbox(database, vault)
    add(database.engine, [referral("a")])
    assert do(database.engine, lag) == 0
    register(outbox)
    add(database.engine, [referral("b"), referral("c")])
    assert do(database.engine, lag) == 2
    deliver(outbox, Receiver([204, 500]))
    assert do(database.engine, lag) == 1


def test_receivers_are_listed_without_their_secret_and_removed(database, vault):
    """The secret is told once; nothing is sent after the removal."""
    outbox, receiver = Outbox(database, vault), Receiver()
    made = register(outbox)
    listed = asyncio.run(outbox.listed(ADMIN))
    assert listed == [{"id": made["id"], "url": made["url"], "is_active": True, "delivered": 0, "failures": 0}]
    assert made["secret"][6:].encode() not in bytes(rows(database.engine, "SELECT secret FROM webhooks")[0][0])
    add(database.engine, [referral("a")])
    asyncio.run(outbox.remove(ADMIN, made["id"], NOW_US))
    assert deliver(outbox, receiver) == 0
    with pytest.raises(NotFoundError, match="there is no such webhook"):
        asyncio.run(outbox.remove(ADMIN, made["id"], NOW_US))
    actions = rows(database.engine, "SELECT action, detail FROM audit WHERE action LIKE 'webhook%' ORDER BY sequence")
    assert actions == [
        (action, json.dumps({"webhook": made["id"]}, separators=(",", ":"))) for action in ("webhook_added", "webhook_removed")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org",
        "https://",
        "https://user:pass@example.org/",
        "x",
        "https://" + "a" * 2000,
        "http://127.0.0.1.example.org/",
    ],
)
def test_urls_that_are_refused(database, vault, url):
    """Events do not travel in the clear, and no password stands in a URL."""
    with pytest.raises(UnprocessableError, match=r"^url: expected https://HOST/… without a user name, or http:// on this machine$"):
        register(Outbox(database, vault), url)


@pytest.mark.parametrize("url", ["http://localhost:9/x", "http://127.0.0.1/", "http://[::1]:8/", "https://example.org/hook"])
def test_urls_that_are_taken(database, vault, url):
    """This machine, or https."""
    assert register(Outbox(database, vault), url)["url"] == url


def test_administrators_alone_manage_receivers(database, vault):
    """Each of the three."""
    outbox = Outbox(database, vault)
    for call in (outbox.register(ASMA, "https://one.example", 0), outbox.listed(ASMA), outbox.remove(ASMA, "w", 0)):
        with pytest.raises(NotAllowedError, match=r"may not do webhooks\.manage"):
            asyncio.run(call)


class Endless(httpx.AsyncByteStream):
    """A body without an end; `sent` counts its bytes."""

    def __init__(self, pause: float) -> None:
        self.pause, self.sent, self.is_closed = pause, 0, False

    async def __aiter__(self):
        while True:
            await asyncio.sleep(self.pause)
            self.sent += 1024
            yield b"x" * 1024

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("status", [200, 500])
def test_of_an_answer_the_status_counts_and_its_body_is_dropped(database, vault, status, pause):
    """However much the receiver sends, or however slowly."""
    outbox, body = Outbox(database, vault, timeout_seconds=0.1 if pause else 5.0), Endless(pause)
    register(outbox)
    add(database.engine, [referral("a")])

    async def main() -> int:
        transport = httpx.MockTransport(lambda _request: httpx.Response(status, stream=body))
        async with httpx.AsyncClient(transport=transport) as client:
            return await outbox.deliver_once(client, NOW_US)

    assert asyncio.run(main()) == (status == 200)
    assert hook(database)[1] == (status != 200)
    assert body.is_closed and body.sent <= 32 * 1024


def test_a_receiver_that_is_slow_does_not_hold_up_the_others(database, vault, monkeypatch):
    """While it takes its time, the others get what happens meanwhile."""
    monkeypatch.setattr(outbox_module, "_IDLE_SECONDS", 0.01)
    outbox, quick, asked, went_on = Outbox(database, vault, timeout_seconds=60), Receiver(), [], asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one.example":
            return quick(request)
        asked.append(request)
        await went_on.wait()
        return response(204)

    async def main() -> None:
        for host in ("one", "two"):
            await outbox.register(ADMIN, f"https://{host}.example/", NOW_US)
        async with asyncio.timeout(30), httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            delivering = asyncio.create_task(outbox.deliver_with(client))
            for count in (1, 2, 3):
                await asyncio.to_thread(add, database.engine, [referral(f"r{count}")])
                while len(quick.requests) < count or not asked:
                    await asyncio.sleep(0.01)
            assert len(asked) == 1
            went_on.set()
            while len(asked) < 3:
                await asyncio.sleep(0.01)
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    asyncio.run(main())
    assert quick.kinds == ["referral.created"] * 3


def test_the_task_delivers_by_itself_and_survives_a_database_that_is_gone(database, vault, monkeypatch):
    """Started, it needs nobody; stopped, it ends."""
    monkeypatch.setattr(outbox_module, "_IDLE_SECONDS", 0.01)
    receiver, outbox = Receiver(), Outbox(database, vault)
    original, calls = outbox._begin, []

    async def shaky(client, now_us):
        calls.append(now_us)
        if len(calls) == 1:
            raise ConnectionError("gone for a while")
        return await original(client, now_us)

    monkeypatch.setattr(outbox, "_begin", shaky)
    client = httpx.AsyncClient(transport=httpx.MockTransport(receiver))
    monkeypatch.setattr(httpx, "AsyncClient", lambda **_given: client)

    async def main() -> None:
        await outbox.register(ADMIN, "https://one.example/", NOW_US)
        outbox.start()
        await asyncio.to_thread(add, database.engine, [referral("a")])
        while not receiver.requests:
            await asyncio.sleep(0.01)
        await outbox.stop()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert receiver.kinds == ["referral.created"]
    assert client.is_closed
