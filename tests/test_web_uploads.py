"""Photos in pieces: the store on the disk, and the tus protocol in front of it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from service_app import Service, running_service

from inference.errors import BusyError, ConflictError, NotFoundError, TooLargeError, UnprocessableError
from inference.service.vault import Vault
from inference.service.web import uploads
from inference.service.web.uploads import KEPT_SECONDS, LARGEST_BYTES, MOST_OF_A_CLINIC, UploadStore

PIECE = b"zafrani photo of a left forearm " * 1024
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", Vault.open(tmp_path / "keys.json", create=True))


def new_id() -> str:
    return str(uuid.uuid4())


def test_pieces_come_together_in_order(store: UploadStore):
    """Each piece says where the next one belongs; the whole is what was sent."""
    id_ = new_id()
    assert store.create("mithi", id_, 2 * len(PIECE)).offset == 0
    assert store.append("mithi", id_, 0, PIECE).offset == len(PIECE)
    assert store.content("mithi", id_) is None
    assert store.find("mithi", id_).offset == len(PIECE)
    assert store.append("mithi", id_, len(PIECE), PIECE).is_whole
    assert store.content("mithi", id_) == 2 * PIECE


def test_nothing_lies_in_the_clear(store: UploadStore, tmp_path: Path):
    """Neither the photo nor the clinic's name is in any file or file name."""
    id_ = new_id()
    store.create("mithi", id_, len(PIECE))
    store.append("mithi", id_, 0, PIECE)
    files = [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(b"zafrani" in path.read_bytes() or "mithi" in str(path.relative_to(tmp_path)) for path in files)


def test_creating_twice_finds_the_first(store: UploadStore):
    """A repeated creation keeps what came; with another size it is another photo."""
    id_ = new_id()
    store.create("mithi", id_, 2 * len(PIECE))
    store.append("mithi", id_, 0, PIECE)
    assert store.create("mithi", id_, 2 * len(PIECE)).offset == len(PIECE)
    with pytest.raises(ConflictError, match="begun with another size"):
        store.create("mithi", id_, 1)


@pytest.mark.parametrize("offset", [0, 1, len(PIECE) + 1])
def test_only_the_next_bytes_fit(store: UploadStore, offset: int):
    """A piece before or after the next one changes nothing."""
    id_ = new_id()
    store.create("mithi", id_, 3 * len(PIECE))
    store.append("mithi", id_, 0, PIECE)
    with pytest.raises(ConflictError, match=rf"the next byte is number {len(PIECE)}, not {offset}"):
        store.append("mithi", id_, offset, PIECE)
    assert store.find("mithi", id_).offset == len(PIECE)


def test_more_than_was_announced_is_refused(store: UploadStore):
    """Bytes beyond the size are not kept."""
    id_ = new_id()
    store.create("mithi", id_, 10)
    with pytest.raises(TooLargeError, match="has 10 bytes, and these would be 11"):
        store.append("mithi", id_, 0, b"x" * 11)
    assert store.find("mithi", id_).offset == 0


@pytest.mark.parametrize("size", [0, -1, LARGEST_BYTES + 1])
def test_a_size_must_be_one_of_a_photo(store: UploadStore, size: int):
    with pytest.raises(TooLargeError):
        store.create("mithi", new_id(), size)


@pytest.mark.parametrize(
    "id_", ["../../etc/passwd", "", "X" * 36, "9d0c4f0e-3a55-4f7c-9d63-0d4b4d2a8c1/", "9D0C4F0E-3A55-4F7C-9D63-0D4B4D2A8C11"]
)
def test_a_forged_id_reaches_no_file(store: UploadStore, id_: str, tmp_path: Path):
    """What is no UUID is neither made nor found nor removed."""
    with pytest.raises(UnprocessableError):
        store.create("mithi", id_, 5)
    with pytest.raises(NotFoundError):
        store.append("mithi", id_, 0, b"x")
    store.remove("mithi", [id_])
    assert not [path for path in tmp_path.rglob("*") if path.name == "size"]


def test_a_clinic_has_uploads_of_its_own(store: UploadStore):
    """Another clinic neither sees nor adds to it, and under the same id has another one."""
    id_ = new_id()
    store.create("mithi", id_, len(PIECE))
    with pytest.raises(NotFoundError):
        store.find("chachro", id_)
    with pytest.raises(NotFoundError):
        store.append("chachro", id_, 0, PIECE)
    store.create("chachro", id_, 1)
    assert store.find("mithi", id_).size == len(PIECE)


def test_a_piece_moved_to_another_place_is_not_read(store: UploadStore, tmp_path: Path):
    """A sealed piece belongs to its upload, clinic and place."""
    first, second = new_id(), new_id()
    for id_ in (first, second):
        store.create("mithi", id_, len(PIECE))
        store.append("mithi", id_, 0, PIECE)
    [piece] = (tmp_path / "uploads").glob(f"*/{first}/*.sealed")
    [other] = (tmp_path / "uploads").glob(f"*/{second}/*.sealed")
    other.write_bytes(piece.read_bytes())
    assert store.content("mithi", second) is None
    assert store.content("mithi", first) == PIECE


def test_two_at_once_cannot_both_append(store: UploadStore):
    """Of two pieces for one place one is kept."""
    id_, outcomes = new_id(), list[str]()
    store.create("mithi", id_, 2 * len(PIECE))

    def append() -> None:
        try:
            store.append("mithi", id_, 0, PIECE)
            outcomes.append("kept")
        except ConflictError:
            outcomes.append("refused")

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "refused", "refused", "refused"]


def test_a_clinic_has_so_many_and_the_idle_ones_make_room(store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One too many is refused while the others are young; after an hour the oldest gives way."""
    ids = [new_id() for _ in range(MOST_OF_A_CLINIC)]
    for id_ in ids:
        store.create("mithi", id_, 5)
    with pytest.raises(BusyError, match="photos of this clinic are on their way"):
        store.create("mithi", new_id(), 5)
    store.create("chachro", new_id(), 5)
    later = time.time() + 3700
    monkeypatch.setattr(uploads.time, "time", lambda: later)
    store.create("mithi", new_id(), 5)
    assert len(list((tmp_path / "uploads").glob("*/*"))) == MOST_OF_A_CLINIC + 1


def test_the_sweep_forgets_what_was_left(store: UploadStore):
    """After two days without a byte it goes, not before."""
    id_ = new_id()
    assert store.sweep() == 0
    store.create("mithi", id_, 5)
    assert store.sweep(time.time() + KEPT_SECONDS - 60) == 0
    assert store.sweep(time.time() + KEPT_SECONDS + 60) == 1
    with pytest.raises(NotFoundError):
        store.find("mithi", id_)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("uploads")) as running:
        yield running


def begin(service: Service, size: int, clinic: str = "mithi") -> str:
    """A new upload's address."""
    path = f"/app/api/uploads/{new_id()}"
    answer = service.client.post(path, headers={**service.token("clinic", clinic), **TUS, "Upload-Length": str(size)})
    assert (answer.status_code, answer.headers["location"], answer.headers["upload-offset"]) == (201, path, "0")
    return path


def patch(service: Service, path: str, offset: int, content: bytes, clinic: str = "mithi", **headers: str):
    given = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream", **headers}
    return service.client.patch(path, content=content, headers={**service.token("clinic", clinic), **given})


def test_the_protocol_end_to_end(service: Service):
    """OPTIONS, POST, HEAD, PATCH as tus 1.0.0 has them; every answer names the version, and none may be cached."""
    headers = service.token("clinic")
    path = begin(service, 2 * len(PIECE))
    described = service.client.options(path, headers=headers)
    assert (described.status_code, described.headers["tus-version"], described.headers["tus-extension"]) == (204, "1.0.0", "creation")
    assert described.headers["tus-max-size"] == str(LARGEST_BYTES)
    first = patch(service, path, 0, PIECE)
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(len(PIECE)))
    found = service.client.head(path, headers={**headers, **TUS})
    assert (found.status_code, found.headers["upload-offset"], found.headers["upload-length"]) == (
        200,
        str(len(PIECE)),
        str(2 * len(PIECE)),
    )
    last = patch(service, path, len(PIECE), PIECE)
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(2 * len(PIECE)))
    for answer in (first, found, last):
        assert (answer.headers["tus-resumable"], answer.headers["cache-control"]) == ("1.0.0", "no-store")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Upload-Offset": "7"}, 409),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "x"}, 400),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Tus-Resumable": "0.2.2"}, 412),
    ],
)
def test_a_wrong_piece_changes_nothing(service: Service, change: dict[str, str], status: int):
    path = begin(service, len(PIECE))
    answer = patch(service, path, 0, b"{}", **change)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert service.client.head(path, headers={**service.token("clinic"), **TUS}).headers["upload-offset"] == "0"


def test_errors_speak_the_protocol_too(service: Service):
    """What is not there has no offset; a wrong version is told the right one; too large is too large."""
    headers = {**service.token("clinic"), **TUS}
    missing = service.client.head(f"/app/api/uploads/{new_id()}", headers=headers)
    assert (missing.status_code, missing.headers["tus-resumable"], "upload-offset" in missing.headers) == (404, "1.0.0", False)
    old = service.client.post(f"/app/api/uploads/{new_id()}", headers={**headers, "Tus-Resumable": "0.1", "Upload-Length": "5"})
    assert (old.status_code, old.headers["tus-version"]) == (412, "1.0.0")
    large = service.client.post(f"/app/api/uploads/{new_id()}", headers={**headers, "Upload-Length": str(LARGEST_BYTES + 1)})
    assert (large.status_code, large.headers["tus-resumable"]) == (413, "1.0.0")
    assert service.client.post(f"/app/api/uploads/{new_id()}", headers=headers).status_code == 400


def test_uploads_are_the_own_clinics(service: Service):
    """A foreign clinic finds nothing, and other roles may not even ask."""
    path = begin(service, len(PIECE))
    assert patch(service, path, 0, PIECE, clinic="foreign").status_code == 404
    assert service.client.head(path, headers={**service.token("clinic", "foreign"), **TUS}).status_code == 404
    for role in ("clinician", "data_scientist", "admin"):
        asked = {
            **service.token(role),
            **TUS,
            "Upload-Length": "5",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
        }
        assert [service.client.request(method, path, headers=asked).status_code for method in ("OPTIONS", "POST", "HEAD", "PATCH")] == [
            403
        ] * 4
    assert service.client.head(path, headers=TUS).status_code == 401


def test_what_came_before_the_line_broke_is_kept(service: Service):
    """A body that ends in the middle: its bytes need not come again."""
    path, sent = begin(service, len(PIECE)), list[Any]()
    given = {**service.token("clinic"), **TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    headers = [(name.lower().encode(), value.encode()) for name, value in {**given, "Content-Length": str(len(PIECE))}.items()]
    scope = {
        "type": "http", "method": "PATCH", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "root_path": "", "state": {},
    }  # fmt: skip
    coming = iter([{"type": "http.request", "body": PIECE[:1000], "more_body": True}, {"type": "http.disconnect"}])

    async def broken_off() -> None:
        async def receive() -> Any:
            return next(coming)

        async def send(message: Any) -> None:
            sent.append(message)

        await service.client.app(scope, receive, send)

    service.client.portal.call(broken_off)
    found = service.client.head(path, headers={**service.token("clinic"), **TUS})
    assert found.headers["upload-offset"] == "1000"
    assert patch(service, path, 1000, PIECE[1000:]).headers["upload-offset"] == str(len(PIECE))


def test_the_hourly_round_forgets_old_uploads(service: Service):
    """What retention does once an hour sweeps them too."""
    path = begin(service, 5)
    service.client.portal.call(service.parts._retain)
    assert service.client.head(path, headers={**service.token("clinic"), **TUS}).status_code == 200
    service.clock.ahead = timedelta(days=3)
    try:
        service.client.portal.call(service.parts._retain)
    finally:
        service.clock.ahead = timedelta()
    assert service.client.head(path, headers={**service.token("clinic"), **TUS}).status_code == 404
