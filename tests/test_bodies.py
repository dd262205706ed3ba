"""Tests of what is read from requests: forms with photos, and the memory that all of them together may take."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.requests import Request

from inference.errors import MalformedError, OverloadedError
from inference.service import bodies
from inference.service.bodies import case_and_photos
from inference.service.byte_budget import ByteBudget
from inference.service.settings import LARGEST_UPLOAD, Settings


def form(*, case: bytes | None = b'{"sex": "male"}', photos: dict[str, bytes] | None = None, **headers: str) -> Request:
    """A request with a form."""
    parts: list[tuple[str, Any]] = [("photos", (name, content)) for name, content in (photos or {}).items()]
    parts += [("case", (None, case))] if case is not None else []
    sent = httpx.Request("POST", "http://nabz/", files=parts, headers={key.replace("_", "-"): value for key, value in headers.items()})
    body = sent.read()
    head = [(name.lower().encode(), value.encode()) for name, value in sent.headers.items()]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": head}, receive)


async def read(request: Request) -> tuple[dict[str, Any], dict[str, bytes], bytes]:
    """What is in it."""
    async with case_and_photos(request) as found:
        return found


def test_a_form_is_a_case_and_its_photos():
    """Names without folders; a second photo of a name gets a number."""
    case, photos, stands_for = asyncio.run(read(form(photos={"a/x.jpg": b"1", "b\\x.jpg": b"2"})))
    assert (case, photos, stands_for) == ({"sex": "male"}, {"x.jpg": b"1", "2-x.jpg": b"2"}, b"")


def test_what_stands_for_an_idempotent_request_tells_each_part_from_the_next():
    """The same form gives the same bytes; a byte that moves from one photo to the next, or into the case, gives others."""
    forms: list[dict[str, Any]] = [
        {"photos": {"a": b"12", "b": b"3"}},
        {"photos": {"a": b"1", "b": b"23"}},
        {"photos": {"a": b"123"}},
        {"photos": {"a": b"12", "b": b"3"}, "case": b'{"sex":"male"}'},
    ]
    marks = [asyncio.run(read(form(**one, idempotency_key="k")))[2] for one in (*forms, forms[0])]
    assert len(set(marks)) == 4 and marks[0] == marks[4]
    assert all(len(mark) == 32 for mark in marks)


def test_a_form_without_a_case_is_refused_and_gives_its_place_back(monkeypatch):
    """The budget is whole again after a refusal, as after an answer."""
    budget = ByteBudget(10_000, wait_seconds=5)
    monkeypatch.setattr(bodies, "_UPLOADS", budget)
    with pytest.raises(MalformedError, match="has no part `case`"):
        asyncio.run(read(form(case=None, photos={"a.jpg": b"1"})))
    assert budget.free == 10_000
    asyncio.run(read(form(photos={"a.jpg": b"1"})))
    assert budget.free == 10_000


def test_the_place_of_an_upload_is_held_until_it_is_dealt_with(monkeypatch):
    """A second upload is read when the first one's photos are kept; a third that waits too long is sent away. JSON needs no place."""

    async def run() -> None:
        budget = ByteBudget(1000, wait_seconds=5)
        monkeypatch.setattr(bodies, "_UPLOADS", budget)
        async with case_and_photos(form(photos={"a.jpg": b"x" * 600})):
            second = asyncio.create_task(read(form(photos={"b.jpg": b"y" * 600})))
            await asyncio.sleep(0.01)
            assert not second.done() and budget.free < 400
            budget._wait_seconds = 0.01
            with pytest.raises(OverloadedError, match="too many photos") as refused:
                await read(form(photos={"c.jpg": b"z" * 600}))
            assert refused.value.retry_after_seconds == 5
        assert (await second)[1] == {"b.jpg": b"y" * 600}
        assert budget.free == 1000

    asyncio.run(run())


def test_the_budget_is_given_out_in_order_and_never_lost():
    """Who came first is served first; one that leaves while it waits, or as it is served, gives its place on."""

    async def run() -> None:
        budget, served = ByteBudget(10, wait_seconds=5), list[str]()
        go_on = asyncio.Event()

        async def hold(name: str, amount: int) -> None:
            async with budget.hold(amount):
                served.append(name)
                await go_on.wait()

        async def begin(name: str, amount: int) -> asyncio.Task[None]:
            task = asyncio.create_task(hold(name, amount))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return task

        first, large, small = [await begin(*one) for one in (("first", 8), ("large", 99), ("small", 2))]
        assert served == ["first"]  # the small one does not pass the large one, which would wait for ever
        first.cancel()
        await asyncio.sleep(0)  # the large one is served now, and cancelled in the same turn
        large.cancel()
        await asyncio.gather(first, large, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert served[-1] == "small" and budget.free == 8
        go_on.set()
        await small
        assert budget.free == 10

    asyncio.run(run())


def test_photos_do_not_lie_in_the_clear_on_the_disk_while_they_are_received(monkeypatch):
    """A large one stays in memory, and no setting allows one that would not."""

    def roll_over(_: Any) -> None:
        raise AssertionError("written to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", roll_over)
    assert len(asyncio.run(read(form(photos={"a.jpg": b"x" * 3_000_000})))[1]["a.jpg"]) == 3_000_000
    Settings(_env_file=None, upload_limit_bytes=LARGEST_UPLOAD)
    with pytest.raises(ValidationError, match="upload_limit_bytes"):
        Settings(_env_file=None, upload_limit_bytes=LARGEST_UPLOAD + 1)
