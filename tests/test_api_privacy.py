"""Planted identifiers through every route and failure: none in logs, metrics, errors, headers, or in the clear on the disk."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fhir_examples as fx
import pytest
from PIL import Image
from service_app import CASE, MILD, Service, running_service
from sqlalchemy import event, text

from inference.errors import PhotoError
from inference.service import intake, store
from inference.service.request_log import SafeFormatter, configure_logging

CNIC, PHONE = "35202-1234567-1", "+92 300 1234567"
NAME, NAME_UR = "Muhammad Aslam Khanzada", "محمد اسلم خانزادہ"
WORDS, WORDS_UR = "zafrani burning under the left rib", "بائیں پسلی کے نیچے زعفرانی جلن"
PLANTED = (CNIC, PHONE, NAME, NAME_UR, WORDS, WORDS_UR)
ALL = " / ".join(PLANTED)
PATIENT = {"name": NAME_UR, "phone": PHONE, "identifiers": [{"system": "cnic", "value": CNIC}], "also": NAME}
SENT = {**CASE, "case_id": f"{CNIC} {NAME}", "complaint": ALL, "patient": PATIENT}


def _forms(planted: str) -> Iterator[bytes]:
    """The ways in which a text could be written: as it is, in lower case, escaped for URLs or JSON, in UTF-16, or digits alone."""
    for one in {
        planted,
        planted.casefold(),
        quote(planted),
        quote(planted, safe="+"),
        json.dumps(planted)[1:-1],
        planted.replace(" ", "+"),
    }:
        yield one.encode()
        yield one.encode("utf-16-le")
    digits = "".join(filter(str.isdigit, planted))
    if digits:
        yield digits.encode()


FORMS = {form: planted for planted in PLANTED for form in _forms(planted)}


def planted_in(content: bytes | str) -> set[str]:
    """Which of the planted texts are in there, in any form."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return {planted for form, planted in FORMS.items() if form in raw}


class Lines(logging.Handler):
    """Keeps every line as the service would write it, and every message of its own as it is."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(SafeFormatter("%(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        if record.name.startswith("nabz"):
            self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps everything."""
    return tmp_path_factory.mktemp("privacy")


@pytest.fixture(scope="module")
def journal() -> set[str]:
    """What was planted and seen in a rollback journal, just before a commit."""
    return set()


@pytest.fixture(scope="module")
def service(folder: Path, journal: set[str]) -> Iterator[Service]:
    """One service for this file; its temporary files go into a folder of their own."""
    with pytest.MonkeyPatch.context() as patch, running_service(folder, body_limit_bytes=64 * 1024) as running:
        (folder / "tmp").mkdir()
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))

        def look(_: Any) -> None:
            for file in folder.glob("*-journal"):
                journal.update(planted_in(file.read_bytes()))

        event.listen(running.parts.database.engine, "commit", look)
        yield running


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that is logged, by the levels of the service's own configuration, and its own and uvicorn's lines from DEBUG on."""
    handler, levels = Lines(), {}
    for name, configured in configure_logging()["loggers"].items():
        levels[name] = logging.getLogger(name).level
        logging.getLogger(name).setLevel("DEBUG" if name.startswith(("nabz", "uvicorn")) else configured["level"])
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def photo() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((400, 300), 60).convert("RGB").save(content, "JPEG")
    return content.getvalue()


def check(answer: Any, *statuses: int) -> None:
    """The answer's status, and that a refusal's body and every header hold nothing planted."""
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    assert planted_in(str(answer.headers)) == set()
    if answer.status_code >= 300:
        assert planted_in(answer.content) == set()


def test_stored_cases_and_what_is_done_with_them(service: Service, lines: list[str], capfd: pytest.CaptureFixture[str]):
    """Referrals by JSON, form and batch, new findings, notes, completion: only the case's own readers get the words."""
    headers = {**service.token("clinic"), "Idempotency-Key": CNIC, "User-Agent": NAME, "Referer": f"https://x.example/{CNIC}"}
    sent = service.client.post("/v1/referrals", json=SENT, headers=headers)
    check(sent, 201)
    id_ = sent.json()["id"]
    files = [("photos", (f"{NAME} {CNIC}.jpg", photo(), "image/jpeg")), ("photos", (f"{NAME_UR}.jpg", b"no photo", "image/jpeg"))]
    check(service.client.post("/v1/referrals", data={"case": json.dumps(SENT)}, files=files, headers=service.token("clinic")), 201)
    batch = [SENT, ALL, {**SENT, NAME: CNIC, "findings": {WORDS: PHONE}, "vitals": {NAME: PHONE, "spo2_percent": CNIC}}]
    check(service.client.post("/v1/referrals:batch", json=batch, headers=service.token("clinic")), 201)
    new = {"complaint": f"{ALL} again", "vitals": {"spo2_percent": 91}, NAME_UR: CNIC}
    check(service.client.post(f"/v1/referrals/{id_}/findings", json=new, headers=service.token("clinic")), 200)
    for route in ("/v1/assess", "/v1/ask"):
        check(service.client.post(route, json=SENT, headers=service.token("clinic")), 200)
    for action, body in (
        ("claim", None),
        ("note", {"text": ALL}),
        ("override", {"level": 1, "reason": ALL}),
        ("complete", {"outcome": "other", "note": ALL}),
    ):
        answer = service.act(id_, action, body)
        check(answer, 200)
        assert planted_in(answer.content) == set()
    assert any("nabz.access" in line and "/v1/referrals/{id}/findings" in line for line in lines)
    seen = service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinician"))
    assert planted_in(seen.content) == set(PLANTED)
    assert planted_in("\n".join(lines)) == set()
    assert planted_in("".join(capfd.readouterr())) == set()


def test_fhir_resources(service: Service, lines: list[str], capfd: pytest.CaptureFixture[str]):
    """Transactions and single resources, and every way to refuse them: an OperationOutcome quotes nothing."""
    patient = fx.patient(name=[{"text": NAME_UR}, {"text": NAME}], telecom=[{"system": "phone", "value": PHONE}])
    patient["identifier"] = [{"system": "urn:cnic", "value": CNIC}]
    asked = fx.request(reasonCode=[{"text": ALL}])
    headers = service.token("clinic")
    bundle = fx.bundle(fx.entry(patient, fx.PATIENT_URL, f"identifier=urn:cnic|{CNIC}"), fx.entry(asked, fx.REQUEST_URL))
    check(service.client.post("/fhir", json=bundle, headers=headers), 200)
    check(service.client.post("/fhir/Patient", json=patient, headers={**headers, "If-None-Exist": f"identifier=urn:cnic|{CNIC}"}), 200)
    wrong: list[dict[str, Any]] = [
        {**patient, "birthDate": ALL},
        {**patient, "gender": NAME},
        {**patient, NAME: CNIC},
        {**patient, "resourceType": NAME},
        {**patient, "identifier": ALL},
        {**asked, "resourceType": "Patient"},
    ]
    for resource in wrong:
        check(service.client.post("/fhir/Patient", json=resource, headers=headers), 400, 422)
    for request in ({**asked, "priority": NAME}, {**asked, "status": CNIC}, {**asked, "authoredOn": WORDS}, {**asked, "subject": NAME}):
        check(service.client.post("/fhir", json=fx.bundle(fx.entry(request)), headers=headers), 400, 422)
    bad_entry = fx.bundle(fx.entry(patient, NAME, f"identifier={CNIC}"), {"fullUrl": ALL, "request": {"method": NAME, "url": CNIC}})
    check(service.client.post("/fhir", json=bad_entry, headers=headers), 400, 422)
    check(service.client.post("/fhir/Patient", json=patient, headers={**headers, "If-None-Exist": f"{NAME}={CNIC}"}), 400, 412, 422)
    check(service.client.get(f"/fhir/Patient/{quote(ALL, safe='')}", headers=headers), 404)
    check(service.client.get("/fhir/Patient", params={"name": NAME_UR, "identifier": CNIC}, headers=headers), 404, 405, 422)
    check(service.client.get("/fhir/Task", params={NAME: CNIC}, headers=headers), 200, 400, 422)
    assert planted_in("\n".join(lines)) == set()
    assert planted_in("".join(capfd.readouterr())) == set()


def test_cds_hooks(service: Service, lines: list[str]):
    """Cards and feedback, right and wrong ones."""
    headers = service.token("clinician")
    patient = fx.patient(id="p1", name=[{"text": NAME_UR}])
    call = {
        "hook": "patient-view",
        "hookInstance": CNIC,
        "context": {"userId": NAME, "patientId": "p1"},
        "prefetch": {"patient": patient, "observations": {"resourceType": "Bundle", "type": "searchset"}},
    }
    said = {"card": CNIC, "outcome": "overridden", "overrideReason": {"userComment": ALL}, "outcomeTimestamp": "2026-11-23T10:00:00Z"}
    check(service.client.post("/cds-services/nabz-patient-view", json=call, headers=headers), 200)
    check(service.client.post("/cds-services/nabz-patient-view", json={**call, "hook": NAME}, headers=headers), 422)
    check(service.client.post("/cds-services/nabz-patient-view", json={**call, "prefetch": {NAME: CNIC}}, headers=headers), 412)
    check(service.client.post(f"/cds-services/{quote(NAME)}", json=call, headers=headers), 404)
    check(service.client.post("/cds-services/nabz-patient-view/feedback", json={"feedback": [said]}, headers=headers), 200)
    wrong = {"feedback": [{**said, "outcome": NAME, "outcomeTimestamp": WORDS}]}
    check(service.client.post("/cds-services/nabz-patient-view/feedback", json=wrong, headers=headers), 422)
    assert planted_in("\n".join(lines)) == set()


def test_requests_that_are_refused(service: Service, lines: list[str], capfd: pytest.CaptureFixture[str]):
    """Wrong JSON, types, sizes, methods, paths, queries, headers, tokens and fields: no answer and no line quotes them."""
    client, headers = service.client, {**service.token("clinic"), "Content-Type": "application/json"}
    spoken = json.dumps(ALL, ensure_ascii=False).encode()
    for body in (b'{"complaint": ' + spoken, spoken, b"[" + spoken + b"]", spoken * 2, b"\xff" + spoken, b'{"a":' + spoken + b"}" + spoken):
        check(client.post("/v1/referrals", content=body, headers=headers), 400)
    check(client.post("/v1/referrals", content=spoken * 600, headers=headers), 413)
    check(client.post("/v1/referrals", content=iter([spoken] * 600), headers=headers), 413)
    for kind in ("text/plain", f"text/{quote(NAME)}", "application/json; charset=utf-16", f"multipart/form-data; boundary={quote(NAME)}"):
        check(client.post("/v1/referrals", content=spoken, headers={**headers, "Content-Type": kind}), 400, 415)
    form = {"case": json.dumps(ALL), NAME: CNIC}
    check(client.post("/v1/referrals", data=form, files=[("p", (NAME, b"x"))], headers=service.token("clinic")), 400)
    too_many = [("photos", (f"{NAME}-{place}.jpg", b"x")) for place in range(20)]
    check(client.post("/v1/referrals", data={"case": json.dumps(SENT)}, files=too_many, headers=service.token("clinic")), 400)
    check(client.post("/v1/referrals", json={**SENT, "patient": {"name": NAME * 2000}}, headers=headers), 413, 422)
    clinician = service.token("clinician")
    id_ = service.send(MILD)["id"]
    for action, wrong in (
        ("note", {"text": ALL, NAME: CNIC}),
        ("override", {"level": CNIC, "reason": NAME}),
        ("complete", {"outcome": NAME, "final_level": PHONE}),
        ("note", [ALL]),
    ):
        check(client.post(f"/v1/referrals/{id_}/{action}", json=wrong, headers=clinician), 422)
    check(client.post("/v1/webhooks", json={"url": f"https://{NAME}@{CNIC}/"}, headers=service.token("admin")), 422)
    hidden = quote(ALL, safe="")
    for path in (f"/v1/referrals/{hidden}", f"/v1/{hidden}", f"/{hidden}", f"/v1/referrals/{CNIC}/photos/{quote(NAME)}"):
        check(client.get(path, headers=clinician), 404, 422)
        check(client.delete(path, headers=clinician), 404, 405)
        check(client.request("ASLAM", path, headers=clinician), 404, 405)
    for query in ({"level": NAME}, {"cursor": CNIC}, {"state": NAME_UR}, {"limit": PHONE}):
        check(client.get("/v1/worklist", params=query, headers=clinician), 400, 422)
    check(client.get("/v1/worklist", params={"clinic": NAME}, headers=service.token("clinic")), 404)
    check(client.get("/v1/worklist", params={"district": NAME, "specialty": CNIC, NAME: CNIC}, headers=clinician), 200)
    check(client.get("/v1/events", headers={**clinician, "Last-Event-ID": CNIC}), 422)
    check(client.get("/v1/audit", params={"referral": CNIC, "after": NAME}, headers=service.token("admin")), 422)
    odd = {"X-Request-ID": CNIC, "Cookie": f"a={CNIC}", "X-Forwarded-For": CNIC, "Accept": quote(NAME), "Origin": f"https://{CNIC}"}
    check(client.get("/v1/worklist", headers={**clinician, **odd, "If-None-Match": CNIC}), 200)
    for token in (f"Bearer {CNIC}", f"Basic {CNIC}", CNIC, f"Bearer {quote(NAME)}.x.y"):
        check(client.get("/v1/worklist", headers={"Authorization": token}), 401)
    check(client.post("/dev/token", data={"role": NAME, "subject": CNIC, "clinic": PHONE}), 422)
    assert planted_in("\n".join(lines)) == set()
    assert planted_in("".join(capfd.readouterr())) == set()


def test_failures_inside(service: Service, lines: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Models, rules, database, photo folder and code that break with the patient's words in the exception."""

    def fail(kind: type[Exception]) -> Any:
        def raises(*_: object, **__: object) -> None:
            raise kind(ALL)

        return raises

    headers = service.token("clinic")
    live = service.parts.scorer._live
    with monkeypatch.context() as patch:
        for watched in live.watched.values():
            patch.setattr(watched._model, "score", fail(RuntimeError), raising=False)
            patch.setattr(watched._model, "score_cases", fail(RuntimeError), raising=False)
        check(service.client.post("/v1/referrals", json=SENT, headers=headers), 201)
        for triage in (live.triage, live.without_photos, live.bare):
            for name in ("assess", "assess_each", "by_rules"):
                patch.setattr(triage, name, fail(ValueError))
        check(service.client.post("/v1/referrals", json=SENT, headers=headers), 201)
        check(service.client.post("/v1/ask", json=SENT, headers=headers), 200, 500, 503)
    assert service.send(MILD)["scored_by"] == "models and rules"
    with monkeypatch.context() as patch:
        patch.setattr(store, "insert_referral", fail(RuntimeError))
        check(service.client.post("/v1/referrals", json=SENT, headers=headers), 500, 503)
        patch.setattr(store, "find_referral", fail(KeyError))
        check(service.client.get(f"/v1/referrals/r-{'0' * 32}", headers=headers), 500)
    files = [("photos", (f"{NAME} {CNIC}.jpg", photo(), "image/jpeg"))]
    for broken, kind in (("clean_photo", OSError), ("clean_photo", PhotoError), ("read_case", RuntimeError), ("what_changed", TypeError)):
        with monkeypatch.context() as patch:
            patch.setattr(intake, broken, fail(kind))
            check(service.client.post("/v1/referrals", data={"case": json.dumps(SENT)}, files=files, headers=headers), 201, 500, 503)
    assert planted_in("\n".join(lines)) == set()
    assert planted_in("".join(capfd.readouterr())) == set()


def test_a_database_that_cannot_be_written(service: Service, lines: list[str], capfd: pytest.CaptureFixture[str]):
    """503 with when to come back, nothing stored, nothing quoted; it recovers by itself."""
    engine, headers = service.parts.database.engine, service.token("clinic")

    def read_only(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")

    event.listen(engine, "begin", read_only)
    try:
        for answer in (
            service.client.post("/v1/referrals", json=SENT, headers=headers),
            service.client.post("/v1/referrals:batch", json=[SENT] * 3, headers=headers),
            service.client.post("/fhir/Patient", json=fx.patient(name=[{"text": NAME_UR}]), headers=headers),
        ):
            check(answer, 503)
            assert answer.headers["retry-after"].isdigit()
    finally:
        event.remove(engine, "begin", read_only)
        engine.dispose()
    assert service.send(SENT)["state"] == "waiting"
    assert planted_in("\n".join(lines)) == set()
    assert planted_in("".join(capfd.readouterr())) == set()


def test_large_uploads_are_never_written_in_the_clear(service: Service, monkeypatch: pytest.MonkeyPatch):
    """A photo of megabytes stays in memory while it is received: no temporary file is made."""
    made: list[str] = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda *_: made.append("rolled over"))
    form = {"case": json.dumps(MILD)}
    padded = photo() + b"\0" * 3_000_000
    answer = service.client.post("/v1/referrals", data=form, files=[("photos", ("a.jpg", padded))], headers=service.token("clinic"))
    assert (answer.status_code, made) == (201, [])


def test_nothing_is_left_anywhere(service: Service, folder: Path, journal: set[str], lines: list[str]):
    """Metrics, audit rows and the events of all that was sent; and every byte of the data folder, the database and the temporary files."""
    service.send(SENT, **{"Idempotency-Key": CNIC})
    admin = service.token("admin")
    assert planted_in(service.client.get("/metrics", headers=admin).content) == set()
    assert planted_in(service.client.get("/v1/audit", headers=admin).content) == set()
    assert planted_in(service.client.get("/openapi.json").content) == set()
    tables = service.parts.database.run_now(
        lambda unit: unit.connection.execute(text("SELECT count(*) FROM referrals WHERE patient IS NOT NULL")).scalar()
    )
    assert tables > 3
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"nabz.db", "keys.json"} <= {file.name for file in files} and any("photos" in file.parts for file in files)
    assert {file.name: found for file in files if (found := planted_in(file.read_bytes()))} == {}
    assert not list((folder / "tmp").iterdir())
    assert journal == set()
    assert planted_in("\n".join(lines)) == set()


def test_the_search_would_find_what_was_planted():
    """Each planted text is found in each of its forms, so that an empty result means something."""
    for planted in PLANTED:
        assert planted in planted_in(f"x {planted} y")
        assert planted in planted_in(json.dumps({"a": planted}))
        assert planted in planted_in(quote(planted))
