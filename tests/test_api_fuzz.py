"""Requests that nobody would send on purpose: made from the API's own description, and by breaking good ones. None may end in a 5xx."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fhir_examples as fx
import pytest
from loopback import Loopback, served
from service_app import CASE, Service, running_service

FULL = os.environ.get("NABZ_RELIABILITY") == "full"
FULL_CASES, SHORT_CASES = 5_000, 200
_ROUND_SECONDS = 3_000
_USUAL = ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]
_ADMIN = "^/(metrics|v1/(webhooks|models:reload|audit|referrals/[^/]+/erase))"
_CLINICIAN = "^/v1/(worklist|events|referrals/[^/]+/(claim|release|complete|override|note)$)"
_CLINIC = "^/(fhir|v1/(assess|ask|referrals$|referrals:batch|referrals/[^/]+$|referrals/[^/]+/(findings|photos)))"
# What a schema cannot say, so that data of the right form may still be refused with these statuses:
_MAY_BE_REFUSED = {
    "^/v1/worklist$": ["400"],  # a cursor is one that we gave
    "^/v1/referrals(:batch)?$": ["422"],  # a key stands for one body only
}


@dataclass
class FuzzResult:
    """How many cases were sent, how many answers were a 5xx, and every failed check with its route."""

    cases: int = 0
    server_errors: int = 0
    failures: list[str] = field(default_factory=list)


def run_fuzz(cases: int, seed: int) -> FuzzResult:
    """Send at least so many cases made by schemathesis from the API's description, with all of its checks, to a service of its own."""
    result = FuzzResult()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "service") as service:
        settings = Path(folder) / "schemathesis.toml"
        settings.write_text(_settings(service), encoding="utf-8")
        while result.cases < cases:
            _round(service, settings, cases - result.cases, seed + result.cases, result)
        result.server_errors = _server_errors(service)
    return result


def _settings(service: Service) -> str:
    """Who asks for what, and which data may be refused although its form is right."""
    roles = {_ADMIN: "admin", _CLINICIAN: "clinician", _CLINIC: "clinic"}
    lines = []
    for routes, role in roles.items():
        token = service.token(role)["Authorization"]
        lines.append(f"[[operations]]\ninclude-path-regex = {json.dumps(routes)}\nheaders = {{ Authorization = {json.dumps(token)} }}\n")
    for routes, statuses in _MAY_BE_REFUSED.items():
        lines.append(
            f"[[operations]]\ninclude-path-regex = {json.dumps(routes)}\n"
            f"checks.positive_data_acceptance.expected-statuses = {json.dumps(_USUAL + statuses)}\n"
        )
    # FHIR's resources are described as objects with a resourceType only: most of what is made from that is no FHIR.
    lines.append('[[operations]]\ninclude-path-regex = "^/fhir"\nchecks.positive_data_acceptance.enabled = false\n')
    return "\n".join(lines)


def _round(service: Loopback, settings: Path, cases: int, seed: int, result: FuzzResult) -> None:
    """One run of schemathesis; a long one covers every keyword of the schemas before it draws at random."""
    is_long = cases > 1000
    routes = f"^/({'v1|fhir' if is_long else 'v1'})(?!/events)"  # an event stream has no end to wait for: see test_api_events.py
    report = settings.with_suffix(".json")
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", f"{service.url}/openapi.json",
        "--include-path-regex", routes, "--phases", "examples,coverage,fuzzing" if is_long else "examples,fuzzing",
        "--max-examples", str(max(5, math.ceil(cases / 40))), "--seed", str(seed), "--continue-on-failure", "--no-shrink", "--no-color",
        "--report", "json", "--report-json-path", str(report), "--warnings", "off",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=settings.parent, capture_output=True, text=True, timeout=_ROUND_SECONDS, check=False)
    assert report.is_file(), f"schemathesis did not run: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["complete"], done.stdout[-2000:]
    result.cases += found["test_cases"]["generated"]
    result.failures += [f"{one['title']}: {', '.join(one['operations'])}" for one in found["failures"]]
    # A refused body is not read: closing its connection may reset it before schemathesis has read the answer.
    result.failures += [str(one) for one in found["errors"] if one["title"] != "Network Error"]
    if found["failures"]:
        result.failures.append(done.stdout)


def _server_errors(service: Service) -> int:
    """Answers with a 5xx, as the service counted them; those before the models were loaded are its own saying that it is not ready."""
    metrics = service.client.get("/metrics", headers=service.token("admin")).text
    counted = re.findall(r'^nabz_http_requests_total\{.*route="([^"]*)",status="5\d\d"\} (\S+)$', metrics, re.MULTILINE)
    return int(sum(float(count) for route, count in counted if route != "/health/ready"))


def test_no_request_made_from_the_description_breaks_the_service():
    """Every check of schemathesis holds: statuses, types, schemas and headers as documented, wrong data and missing tokens refused."""
    wanted = FULL_CASES if FULL else SHORT_CASES
    result = run_fuzz(wanted, seed=3)
    assert (result.failures, result.server_errors) == ([], 0), "\n".join(result.failures)
    assert result.cases >= wanted


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the broken requests."""
    with running_service(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of every value inside."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from _places(value, (*path, key))


_ODD_TEXTS = [
    "\ud800",
    "\x00",
    "\u202e\u200b",
    "9" * 400,
    "A" * 5000,
    "../../etc/passwd",
    "'; DROP TABLE referrals;--",
    "%00",
    "٣",
    "\u0130" * 99,
]
_ODD_VALUES: list[Any] = [
    None, True, [], {}, [[]], -1, 0, 1e308, -1e-308, 2**63, 10**400, 0.1 + 0.2, "", *_ODD_TEXTS,
]  # fmt: skip


def _nested(depth: int, chance: random.Random) -> bytes:
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return opening * depth + b"1" + closing * depth


def broken(content: Any, chance: random.Random) -> bytes:
    """A JSON document with one thing or several wrong with it."""
    content = json.loads(json.dumps(content))
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(list(_places(content)) or [()])
        if not path:
            break
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        match chance.randrange(4):
            case 0 if isinstance(holder, dict):
                holder[chance.choice(_ODD_TEXTS)] = holder.pop(path[-1])
            case 1:
                del holder[path[-1]]
            case 2 if isinstance(holder, list):
                holder.extend([holder[path[-1]]] * chance.randint(1, 300))
            case _:
                holder[path[-1]] = chance.choice(_ODD_VALUES)
    body = json.dumps(content, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    return _broken_bytes(body, chance)


def _broken_bytes(body: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(body) + 1)
    noise = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
    deep = b": " + _nested(chance.choice([5, 200, 3000, 100_000]), chance) + b',"x":'
    number = chance.choice([b"1e999", b"-1E+400", b"NaN", b"Infinity", b"0x1F", b"01", b"1" * 5000])
    found = [
        body[:at],
        body[:at] + noise + body[at + 1 :],
        body.replace(b":", deep, 1),
        body[:-1] + b"," + body[1:],  # of an object: every key twice
        body.replace(b"1", number, 1),
        chance.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b" " * 9]) + body,
    ]
    return chance.choice([*found, *[body] * len(found)])


BASES: dict[str, tuple[Any, ...]] = {
    "/v1/referrals": (CASE, {**CASE, "photos": [{"path": "a.jpg"}], "patient": {"name": "n", "identifiers": [{"value": "1"}]}}),
    "/v1/referrals:batch": ([CASE, {}, CASE],),
    "/v1/assess": ({**CASE, "findings": {"F_078": "present", "F_090": "absent"}, "received_at": "2026-11-22T08:30:00+05:00"},),
    "/v1/ask": (CASE,),
    "/fhir": (fx.transaction(), fx.bundle(*fx.transaction()["entry"], kind="batch")),
    "/fhir/ServiceRequest": ({**fx.request(), "subject": {"display": "x"}},),
    "/fhir/Observation": ({**fx.vitals()[3], "subject": {"display": "x"}},),
    "/cds-services/nabz-patient-view": (
        {
            "hook": "patient-view",
            "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
            "context": {"userId": "Practitioner/1", "patientId": "p1"},
            "prefetch": {
                "patient": fx.patient(id="p1"),
                "observations": {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in fx.vitals()]},
            },
        },
    ),
}


@pytest.mark.parametrize("route", BASES)
def test_no_broken_request_breaks_the_service(service: Service, route: str):
    """Whatever is wrong with a body: it is stored, or refused in the route's own form, and the next good one is answered."""
    chance = random.Random(f"nabz {route}")
    headers = {**service.token("clinician" if route.startswith("/cds") else "clinic"), "Content-Type": "application/json"}
    statuses = set()
    for _ in range(1500 if FULL else 60):
        body = broken(chance.choice(BASES[route]), chance)
        answer = service.client.post(route, content=body, headers=headers)
        assert answer.status_code < 500, (answer.status_code, body[:4000])
        if answer.status_code >= 400:
            kind = "application/fhir+json" if route.startswith("/fhir") else "application/problem+json"
            assert answer.headers["content-type"] == kind, body[:4000]
            shown = answer.json()
            assert shown["resourceType"] == "OperationOutcome" if route.startswith("/fhir") else shown["status"] == answer.status_code
        statuses.add(answer.status_code)
    good = service.client.post(route, json=BASES[route][0], headers=headers)
    assert good.status_code in (200, 201), good.text
    assert 400 in statuses and statuses & {200, 201}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
    ],
)
@pytest.mark.parametrize("route", ["/v1/referrals", "/v1/referrals:batch", "/fhir", "/v1/worklist:claim-next"])
def test_bodies_of_another_type_are_refused(service: Service, route: str, headers: dict[str, str]):
    """Never a 5xx, and never taken for JSON."""
    answer = service.client.post(route, content=b'{"complaint": "x"}', headers={**service.token("clinic"), **headers})
    assert answer.status_code in (400, 415)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/referrals/%00",
        "/v1/referrals/r-%F0%28%8C%28",
        f"/v1/referrals/r-{'f' * 5000}",
        "/v1/worklist?limit=99999999999999999999",
        "/v1/worklist?cursor=%00%FF",
        "/v1/worklist?district=%ED%A0%80",
        "/v1/worklist?specialty=" + "x" * 129,
        "/v1/audit?after=-1",
        "/v1/audit?after=1e9",
        "/v1/events?after=9999999999999999999999",
        "/fhir/Task/%00",
        "/fhir/Task?_id=%ED%A0%80",
        "/fhir/Task?_count=1e9&_cursor=x",
        "//v1/worklist",
        "/v1/WORKLIST",
    ],
)
@pytest.mark.parametrize("role", ["clinic", "clinician", "admin"])
def test_odd_addresses_are_refused_or_find_nothing(service: Service, path: str, role: str):
    """Never a 5xx: a refusal in the route's form or, for a filter that fits nothing, an empty list."""
    answer = service.client.get(path, headers=service.token(role))
    if answer.status_code == 200:
        assert not answer.json().get("items") and not answer.json().get("entry")
        return
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] in ("application/problem+json", "application/fhir+json")
