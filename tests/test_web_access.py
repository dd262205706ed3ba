"""Every page, asked by every role, from the own and from a foreign clinic, and by somebody who is not signed in."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from service_app import CASE, Service, running_service
from starlette.testclient import TestClient
from web_app import ORIGIN, Reader

from inference.service.web.routes import page_routes

SECRET = "planted-words-of-the-own-clinic"
CALLERS = (("clinic", "own"), ("clinic", "foreign"), ("clinician", None), ("data_scientist", None), ("admin", None))
_PHOTO = Path(__file__).resolve().parent.parent / "data/sample/photos/mole.jpg"

# What each caller gets, in the order of CALLERS. A page that is not here fails the test.
EXPECTED: dict[str, tuple[int, int, int, int, int]] = {
    "GET /app": (303, 303, 303, 303, 303),
    "GET /app/options": (200, 200, 200, 200, 200),
    "GET /app/worklist": (200, 200, 200, 403, 403),
    "POST /app/worklist/find": (303, 303, 303, 403, 403),
    "POST /app/worklist/next": (403, 403, 303, 403, 403),
    "GET /app/events": (200, 200, 200, 403, 403),
    "GET /app/cases/{id}": (200, 404, 200, 403, 403),
    "POST /app/cases/{id}/claim": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/release": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/agree": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/override": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/complete": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/note": (403, 403, 303, 403, 403),
    "POST /app/cases/{id}/impression": (403, 403, 303, 403, 403),
    "GET /app/cases/{id}/photos/{sha256}/thumb": (200, 404, 200, 403, 403),
    "GET /app/cases/{id}/photos/{sha256}/heat": (200, 404, 200, 403, 403),
    "GET /app/dashboard": (403, 403, 200, 200, 200),
    "GET /app/intake": (200, 200, 403, 403, 403),
    "POST /app/intake": (303, 303, 403, 403, 403),
    "GET /app/intake/sent/{id}": (200, 404, 403, 403, 403),
    "GET /app/intake/slip/{id}": (200, 404, 403, 403, 403),
    "GET /app/intake/more/{id}": (200, 404, 403, 403, 403),
    "POST /app/intake/more/{id}": (303, 404, 403, 403, 403),
    "POST /app/api/intake/read": (200, 200, 403, 403, 403),
    "POST /app/api/intake/send": (201, 201, 403, 403, 403),
    "OPTIONS /app/api/uploads/{upload}": (204, 204, 403, 403, 403),
    "POST /app/api/uploads/{upload}": (201, 201, 403, 403, 403),  # an id is each clinic's own
    "HEAD /app/api/uploads/{upload}": (200, 404, 403, 403, 403),
    "PATCH /app/api/uploads/{upload}": (204, 404, 403, 403, 403),
}
# What anybody gets: nothing here is a clinic's.
OPEN = {
    "GET /": 303,
    "GET /app/sign-in": 200,
    "POST /app/sign-in": 303,
    "POST /app/sign-out": 303,
    "POST /app/choices": 303,
    "GET /app/static/{name}": 404,
    "GET /app/sw.js": 200,
    "GET /app/manifest.webmanifest": 200,
}
FORMS: dict[str, dict[str, str]] = {
    "override": {"level": "2", "reason": "seen"},
    "complete": {"outcome": "advised"},
    "note": {"text": "called"},
    "impression": {"level": "2"},
    "find": {"number": "no-such"},
    "sign-in": {"role": "clinician"},
    "intake": {"action": "send", "complaint": "bukhar"},
    "more": {"action": "send", "complaint": "saans phool rahi hai"},
}
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service for all tests here: each makes cases of its own."""
    with running_service(tmp_path_factory.mktemp("web-access")) as running:
        yield running


def send(service: Service) -> dict[str, str]:
    """A new case with a photo, of the own clinic."""
    case = {**CASE, "complaint": SECRET, "photos": [{"path": "mole.jpg"}]}
    files = {"case": (None, json.dumps(case)), "photos": ("mole.jpg", _PHOTO.read_bytes(), "image/jpeg")}
    id_ = service.client.post("/v1/referrals", files=files, headers=service.token("clinic", "own")).json()["id"]
    full = service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinician")).json()
    return {"id": id_, "sha256": full["photos"][0]["sha256"]}


def ask(client: TestClient, service: Service, route: str, given: dict[str, str]) -> Any:
    """Send the page's request, as the page itself would."""
    method, path = route.split(" ")
    service.parts.live.closing = path == "/app/events"  # a stream ends at once here
    try:
        address, headers = path.format(name="x", **given), dict(ORIGIN)
        if "/api/intake/" in path:
            key = {"Idempotency-Key": str(uuid.uuid4())}
            return client.request(method, address, json={"case": {"complaint": "bukhar"}}, headers=headers | key)
        if "/api/uploads/" in path:
            more = {"Upload-Length": "5"} if method == "POST" else {}
            if method == "PATCH":
                more = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
            return client.request(method, address, content=b"12345" if method == "PATCH" else None, headers=headers | TUS | more)
        form = FORMS.get(path.removesuffix("/{id}").rpartition("/")[2]) if method == "POST" else None
        return client.request(method, address, data=form, headers=headers)
    finally:
        service.parts.live.closing = False


def _of(route: Any) -> set[str]:
    """The route's methods, without the HEAD that comes with every GET."""
    return route.methods - {"HEAD"} if "GET" in route.methods else route.methods


def test_requests_are_named_by_their_route(service: Service):
    """Log and metrics know a page by its template, never by its address."""
    id_ = send(service)["id"]
    assert Reader(service, "clinician").get(f"/app/cases/{id_}").status_code == 200
    metrics = service.client.get("/metrics", headers=service.token("admin")).text
    assert 'route="/app/cases/{id}"' in metrics and id_ not in metrics


def test_the_table_names_every_page():
    """A page that is added must be added here, with who may see it."""
    served = {f"{method} {route.path}" for route in page_routes() for method in _of(route)}
    named = set()
    for route in EXPECTED.keys() | OPEN.keys():
        method, path = route.split(" ")
        patterns = [one for one in page_routes() if method in one.methods and one.path_regex.match(path.replace("{", "").replace("}", ""))]
        named |= {f"{method} {patterns[0].path}"}
    assert named == served


@pytest.mark.parametrize("route", EXPECTED)
def test_each_role_gets_what_the_table_says(service: Service, route: str):
    """The own clinic's words reach nobody who may not see them."""
    got = []
    for role, name in CALLERS:
        given = send(service) if "{id}" in route else {}
        if "{upload}" in route:
            given = {"upload": str(uuid.uuid4())}
            if not route.startswith("POST"):  # begun by the own clinic
                service.client.post(
                    f"/app/api/uploads/{given['upload']}", headers=service.token("clinic", "own") | TUS | {"Upload-Length": "5"}
                )
        if route.endswith(("release", "complete")):
            service.act(given["id"], "claim")
        answer = ask(Reader(service, role, name).client, service, route, given)
        got.append(answer.status_code)
        if (role, name) == ("clinic", "foreign") or answer.status_code in (403, 404):
            assert SECRET not in answer.text
        for claimed in service.client.get("/v1/worklist", params={"state": "claimed"}, headers=service.token("clinician")).json()["items"]:
            service.act(claimed["id"], "release")
    assert tuple(got) == EXPECTED[route]


@pytest.mark.parametrize("route", EXPECTED)
def test_without_a_session_every_page_leads_to_the_sign_in(service: Service, route: str):
    """No session, or one that has ended: the form, whatever was asked for. Scripts are told 401."""
    given = {"id": f"r-{'0' * 32}", "sha256": "0" * 64, "upload": str(uuid.UUID(int=1))}
    for token in ("", service.issuer.mint("x", "admin", seconds=-3600)):
        client = TestClient(service.client.app, base_url="http://127.0.0.1", follow_redirects=False)
        client.cookies.set("nabz_session", token, path="/app")
        answer = ask(client, service, route, given)
        if "/app/api/" in route:
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        else:
            assert (answer.status_code, answer.headers["location"]) == (303, "/app/sign-in")


@pytest.mark.parametrize("route", OPEN)
def test_open_pages_answer_anybody(service: Service, route: str):
    """They hold nothing of a clinic's."""
    client = TestClient(service.client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 5), follow_redirects=False)
    answer = ask(client, service, route, {})
    assert (answer.status_code, SECRET in answer.text) == (OPEN[route], False)
