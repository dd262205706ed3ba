"""The load client, against a small server on the loopback."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from training.load_client import LoadResult, Source, request_bytes, run, run_load

Reply = Callable[[bytes, bytes], bytes | None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve(reply: Reply, client: Callable[[int], Awaitable[LoadResult]]) -> tuple[LoadResult, int]:
    """Run `client` on the port of a server that answers head and body with `reply` (None hangs up); connections made."""
    made = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                answer = reply(head, await reader.readexactly(length))
                if answer is None:
                    break
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        return await client(server.sockets[0].getsockname()[1]), made


def load(reply: Reply, requests: Source, **options) -> tuple[LoadResult, int]:
    """A run of the client against such a server."""
    return run(serve(reply, lambda port: run_load("127.0.0.1", port, requests, **options)))


def test_a_request_is_written_as_http():
    """Method, path, headers, length and body stand where HTTP/1.1 wants them."""
    assert request_bytes("POST", "/v1/assess", b"{}", {"Authorization": "Bearer x"}, host="nabz") == (
        b"POST /v1/assess HTTP/1.1\r\nHost: nabz\r\nContent-Type: application/json\r\nAuthorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_counts_statuses_and_bodies_are_right():
    """Each request is asked once, in turn, over as many connections as were asked for."""

    def reply(head: bytes, body: bytes) -> bytes:
        status = b"201 Created" if int(body) % 3 else b"503 Service Unavailable"
        return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)

    requests = [request_bytes("POST", "/", b"%d" % number) for number in range(7)]
    result, made = load(reply, requests, count=30, connections=4, keep_answers=True)
    assert (result.requests, result.errors, made) == (30, 0, 4)
    assert result.statuses == {201: 17, 503: 13}
    assert sorted((answer.place, answer.body) for answer in result.answers) == [(place, b"%d" % (place % 7)) for place in range(30)]
    assert all((answer.status == 503) == (int(answer.body) % 3 == 0) for answer in result.answers)
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms
    assert result.per_second == pytest.approx(30 / result.seconds)


def test_a_function_gives_the_requests_and_ends_the_run():
    """Its argument is the place in the order of asking; None ends the run on every connection."""
    seen: list[bytes] = []

    def reply(head: bytes, body: bytes) -> bytes:
        seen.append(body)
        return OK

    result, _ = load(reply, lambda place: request_bytes("POST", "/", b"%d" % place) if place < 12 else None, connections=3)
    assert result.requests == 12
    assert result.answers == ()
    assert sorted(map(int, seen)) == list(range(12))


def test_chunked_and_empty_answers_are_read():
    """An answer without a length, or without a body, does not hold the next one up."""
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnab\r\n1\r\nz\r\n0\r\n\r\n"
    answers = iter([chunked, b"HTTP/1.1 204 No Content\r\n\r\n", OK])
    result, made = load(lambda *_: next(answers), [request_bytes("GET", "/")], count=3, connections=1, keep_answers=True)
    assert [(answer.status, answer.body) for answer in result.answers] == [(200, b"nabz"), (204, b""), (200, b"ok")]
    assert (made, result.errors) == (1, 0)


def test_a_server_that_closes_politely_is_connected_to_again():
    """An answer with "Connection: close" is no error."""
    closing = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    result, made = load(lambda *_: closing, [request_bytes("GET", "/")], count=3, connections=1)
    assert (result.statuses, result.errors, made) == ({413: 3}, 0, 3)


@pytest.mark.parametrize("answer", [None, b"SMTP?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf"])
def test_a_lost_or_unreadable_answer_is_an_error_and_the_run_goes_on(answer):
    """Every second request is answered badly: it is counted as an error, never as an answer, and the rest are right."""
    asked = iter(range(100))
    result, _ = load(lambda *_: OK if next(asked) % 2 else answer, [request_bytes("GET", "/")], count=6, connections=1)
    assert (result.statuses, result.errors) == ({200: 3}, 3)


def test_silence_ends_at_the_timeout():
    """A request that nobody answers is an error."""
    result, _ = load(lambda *_: b"", [request_bytes("GET", "/")], count=2, connections=2, timeout_seconds=0.05)
    assert (result.requests, result.errors) == (0, 2)
    assert math.isnan(result.p99_ms)


def test_nobody_listening_is_an_error_a_request():
    """A refused connection is counted, and the run ends."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refused
        result = run(run_load("127.0.0.1", unused.getsockname()[1], [request_bytes("GET", "/")], count=3, connections=2))
    assert (result.requests, result.errors) == (0, 3)


def test_a_run_without_an_end_is_refused():
    """A list is asked again and again: it needs seconds or a count."""
    with pytest.raises(ValueError, match="needs seconds or count"):
        run(run_load("127.0.0.1", 1, [b""]))


def test_the_command_posts_a_file_of_bodies(tmp_path):
    """As a process of its own, on one core, with headers from a file and a key that never repeats."""
    (tmp_path / "bodies.jsonl").write_bytes(b'{"a":1}\n{"a":2}\n')
    (tmp_path / "headers.json").write_text('{"Authorization": "Bearer x"}')
    heads: list[bytes] = []
    bodies: set[bytes] = set()

    def reply(head: bytes, body: bytes) -> bytes:
        heads.append(head)
        bodies.add(body)
        return OK

    options = f"--seconds 0.2 --connections 2 --core {min(os.sched_getaffinity(0))} --unique-header Idempotency-Key"

    async def client(port: int) -> LoadResult:
        command = [sys.executable, "-m", "training.load_client", "127.0.0.1", str(port), "/v1/referrals"]
        files = [str(tmp_path / "bodies.jsonl"), "--headers", str(tmp_path / "headers.json")]
        process = await asyncio.create_subprocess_exec(*command, *files, *options.split(), stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0
        printed = json.loads(out)
        return LoadResult(**printed | {"statuses": {int(status): n for status, n in printed["statuses"].items()}})

    result, _ = asyncio.run(serve(reply, client))
    assert result.requests > 0
    assert result.statuses == {200: result.requests}
    assert result.errors == 0
    assert bodies == {b'{"a":1}', b'{"a":2}'}
    assert all(head.startswith(b"POST /v1/referrals HTTP/1.1\r\n") and b"\r\nAuthorization: Bearer x\r\n" in head for head in heads)
    keys = [line for head in heads for line in head.split(b"\r\n") if line.startswith(b"Idempotency-Key: ")]
    assert len(set(keys)) == len(heads) == result.requests
