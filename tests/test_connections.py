"""Tests of the connections' bounds, against uvicorn on a port of its own: long heads, late ones, too many connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from inference.service.connections import FLUSH_SECONDS, HEAD_BYTES, HEAD_SECONDS, IDLE_SECONDS, BoundedProtocol, connections_limit

GET = b"GET /x HTTP/1.1\r\nhost: nabz\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nhost: nabz\r\ntransfer-encoding: chunked\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of the body's bytes; `/early` does not wait for them."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def serving(most: int = 10) -> AsyncIterator[tuple[int, set[BoundedProtocol]]]:
    """A server's port and its connections."""

    class Protocol(BoundedProtocol):
        most_open = most

    config = uvicorn.Config(app, http=Protocol, log_config=None, lifespan="off", ws="none")
    config.load()
    state = ServerState()
    listening = await asyncio.get_running_loop().create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], state.connections
    finally:
        listening.close()
        for one in list(state.connections):
            one.transport.abort()
        await asyncio.sleep(0)


async def talk(port: int, *parts: bytes) -> bytes:
    """All that the server answers, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            return await reader.read()
    except (ConnectionResetError, BrokenPipeError):
        return b"closed"
    finally:
        writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """One answer with a body of one byte, on a connection that stays open."""
    writer.write(request)
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1)


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET /x HTTP/1.1\r\nlong: " + b"a" * HEAD_BYTES, b"a", b"a" * 300_000, b"a" * 300_000, b"a" * 300_000, b"\r\n\r\n"),
        (b"GET /x HTTP/1.1\r\nlong: " + b"a" * HEAD_BYTES + b"\r\n\r\n",),
        (b"GET /" + b"x" * (HEAD_BYTES + 1) + b" HTTP/1.1\r\nhost: nabz\r\n\r\n",),
        (b"GET /x HTTP/1.1\r\n", *[b"n: %s\r\n" % (b"a" * 8000)] * 30),
        (CHUNKED + b"1\r\nx\r\n0\r\nt: ", *[b"a" * 300_000] * 3, b"\r\n\r\n"),
        (CHUNKED, b"1;" + b"a" * 300_000, b"a" * 300_000, b"a" * 300_000, b"\r\nx\r\n0\r\n\r\n"),
    ],
    ids=["a header that never ends", "one long header", "a long path", "many headers", "trailers", "chunk extensions"],
)
def test_what_is_no_body_has_an_end(parts):
    """431, or an end of the connection while the client still sends; the app never runs."""

    async def run() -> bytes:
        async with serving() as (port, _):
            return await talk(port, *parts)

    answer = asyncio.run(run())
    assert answer == b"closed" or answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
def test_heads_of_a_usual_size_and_chunked_bodies_pass(size):
    """A head just below the bound; a body in chunks of 64 bytes, whose frames are more bytes than a head may have."""

    async def run() -> None:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"x" * min(64, size - at) for at in range(0, size, 64)))
        head = CHUNKED[:-2] + b"long: " + b"a" * (HEAD_BYTES - 200) + b"\r\nconnection: close\r\n\r\n"
        async with serving() as (port, _):
            answer = await talk(port, head, *(chunks[at : at + 50_000] for at in range(0, len(chunks), 50_000)), b"0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n%d" % size)

    asyncio.run(run())


def test_a_connection_that_waits_too_long_for_a_head_is_closed():
    """One that sends nothing, one with half a head, one that sends empty lines after an answer; not one that is being served."""

    async def run() -> None:
        async with serving() as (port, connections):
            pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for (_, writer), sent in zip(pairs, (b"", GET[:-2], b"", CHUNKED), strict=True):
                writer.write(sent)
            assert (await ask(*pairs[2], GET)).endswith(b"0")
            pairs[2][1].write(b"\r\n")
            await asyncio.sleep(0.05)
            now = asyncio.get_running_loop().time()
            for one in list(connections):
                one.close_if_late(now)
            await asyncio.sleep(0.05)
            assert len(connections) == 4
            for one in list(connections):
                one.close_if_late(now + max(HEAD_SECONDS, IDLE_SECONDS))
            async with asyncio.timeout(10):
                assert [await reader.read() for reader, _ in pairs[:3]] == [b"", b"", b""]
            assert len(connections) == 1
            assert (await ask(*pairs[3], b"1\r\nx\r\n0\r\n\r\n")).endswith(b"1")
            for _, writer in pairs:
                writer.close()

    asyncio.run(run())


def test_an_answer_that_is_not_read_is_cut_off_in_the_end():
    """A slow client gets the time for it; one that never reads does not hold its connection for good."""

    async def run() -> None:
        async with serving() as (port, connections):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(10):
                while not connections:
                    await asyncio.sleep(0.001)
            (one,) = connections
            one.transport.write(b"x" * 30_000_000)  # more than the kernel takes
            now = asyncio.get_running_loop().time() + HEAD_SECONDS
            one.close_if_late(now)
            one.close_if_late(now + 1)
            await asyncio.sleep(0.01)
            assert connections == {one}
            one.close_if_late(now + FLUSH_SECONDS)
            async with asyncio.timeout(10):
                while connections:
                    await asyncio.sleep(0.001)
            writer.close()

    asyncio.run(run())


def test_open_connections_are_bounded():
    """One too many is told so and closed, without a request; when another one ends there is room again."""

    async def run() -> None:
        async with serving(most=2) as (port, connections):
            first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            assert (await ask(*first, GET)).endswith(b"0")
            refused = await talk(port)
            assert refused.startswith(b"HTTP/1.1 503 ") and b"retry-after: 5\r\n" in refused
            second[1].close()
            async with asyncio.timeout(10):
                while len(connections) > 1:
                    await asyncio.sleep(0.001)
            third = await asyncio.open_connection("127.0.0.1", port)
            assert (await ask(*third, GET)).endswith(b"0")
            for _, writer in (first, third):
                writer.close()

    asyncio.run(run())


def test_requests_follow_each_other_on_a_connection():
    """Also two at once, and one after a body that the app did not wait for."""

    async def run() -> None:
        async with serving() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            early = b"POST /early HTTP/1.1\r\nhost: nabz\r\ncontent-length: 3\r\n\r\n"
            assert (await ask(reader, writer, GET + GET)).endswith(b"0")
            assert (await ask(reader, writer, b"")).endswith(b"0")
            assert (await ask(reader, writer, early)).endswith(b"0")
            assert (await ask(reader, writer, b"abc" + GET)).endswith(b"0")
            writer.close()

    asyncio.run(run())


def test_there_may_be_more_connections_than_requests(monkeypatch):
    """Four for each request in flight, as far as the process may open files."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
    assert (connections_limit(100), connections_limit(512), connections_limit(1)) == (400, 896, 64)
