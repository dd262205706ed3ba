"""Tests of errors as answers: statuses, forms, and that no identifier gets into an answer or a log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Header
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import _pydantic_core
from starlette.requests import Request
from starlette.responses import Response

from inference import errors
from inference.service.field_errors import REWORDED, SHOWN, InvalidInputError, field_errors, invalid
from inference.service.problem_docs import describe_problems, responses
from inference.service.problems import MEDIA_TYPE, Problem, TooSlowError, describe, install, problem
from inference.service.request_log import SafeFormatter, configure_logging, describe_exception

CNIC = "35202-1234567-1"
PHONE = "+92 300 1234567"
NAME = "احمد خان"
PLANTED = (NAME, CNIC, PHONE, "3001234567", "3520212345671", "Ahmed Khan")


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Body(BaseModel):
    """One field for every way in which pydantic refuses input."""

    model_config = ConfigDict(extra="forbid")

    age_years: int = Field(0, ge=0, le=130)
    sex: Literal["female", "male"] = "male"
    code: str = Field("", pattern="^[A-Z]?$", max_length=3)
    day: date | None = None
    at: datetime | None = None
    spo2: float = 0
    names: dict[str, int] = {}
    numbers: dict[int, int] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    link: AnyUrl | None = None
    id: UUID | None = None
    said: str = ""
    listed: list[int] = []

    @field_validator("said")
    @classmethod
    def says_it(cls, value: str) -> str:
        """A validator that quotes what it got, as validators do."""
        if value:
            raise ValueError(f"{value} is wrong")
        return value


BAD_FIELDS: dict[str, Any] = {
    "age_years": [NAME, 1234567890123, -1, 1.5, None, [NAME]],
    "sex": [NAME, "Ahmed Khan"],
    "code": [CNIC, NAME],
    "day": [NAME, CNIC, "2026-13-45"],
    "at": [PHONE, "Ahmed Khan"],
    "spo2": [NAME],
    "names": [{NAME: CNIC}, {CNIC: NAME}, {"Ahmed Khan": "x"}, NAME],
    "numbers": [{"3520212345671": NAME}, {"3001234567": "x"}],
    "pet": [{"kind": NAME}, {}, NAME],
    "link": [NAME, "http://[" + CNIC],
    "id": [CNIC, NAME],
    "said": [NAME, PHONE],
    "listed": [[1, NAME], {NAME: 1}],
    NAME: [1],
    "Ahmed Khan": [CNIC],
    "3520212345671": [1],
}
BAD_BODIES = [json.dumps({field: value}).encode() for field, values in BAD_FIELDS.items() for value in values]
BAD_BODIES += [
    NAME.encode(),
    f'{{"said": "{CNIC}'.encode(),
    f'["{NAME}"]'.encode(),
    f'"{CNIC}"'.encode(),
    b"[" * 50_000,
    b'{"said": "\xff\xfe' + CNIC.encode() + b'"}',
    b'{"said": "\\ud800"}',
    b"null",
    b"",
]


def app_of_trouble() -> FastAPI:
    """An app whose routes break in every way."""
    app = FastAPI(redirect_slashes=False)
    install(app)
    describe_problems(app)

    @app.post("/body/{number}", responses=responses(400, 401, 422))
    async def body(number: int, given: Body, limit: int = 1, idempotency_key: Annotated[int, Header()] = 1) -> dict[str, int]:
        return {"number": number}

    @app.post("/raw")
    async def raw(request: Request) -> Response:
        content = await request.body()
        try:
            return Response(Body.model_validate_json(content).model_dump_json())
        except ValidationError as error:
            raise invalid(error, Body) from error

    @app.get("/raise/{name}")
    async def raises(name: str) -> None:
        raise RAISED[name]

    @app.get("/answer")
    async def answers() -> Body:
        return {"age_years": NAME}  # type: ignore[return-value]

    return app


RAISED: dict[str, Exception] = {
    "value": ValueError(f"{NAME} {CNIC}"),
    "key": KeyError(NAME),
    "recursion": RecursionError(NAME),
    "unicode": UnicodeDecodeError("utf-8", NAME.encode(), 0, 1, CNIC),
    "json": json.JSONDecodeError(NAME, CNIC, 0),
    "group": ExceptionGroup(NAME, [ValueError(CNIC), OSError(PHONE)]),
    "policy": errors.PolicyError(NAME),
    "storage": errors.StorageError("the database cannot be written: nothing was stored, try again"),
    "busy": errors.BusyError("too fast", 7),
    "unauthenticated": errors.UnauthenticatedError("no token"),
}


def ask(method: str, path: str, **more: Any) -> httpx.Response:
    """One request to the app of trouble."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app_of_trouble(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://nabz.test") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


def clean(text: str) -> bool:
    """Whether no planted identifier is in the text, as it is or escaped as in JSON."""
    return not any(one in text or json.dumps(one)[1:-1] in text for one in PLANTED)


@pytest.mark.parametrize("path", ["/body/1", "/raw"])
@pytest.mark.parametrize("content", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_bad_body_is_refused_without_its_values(path, content, caplog):
    """Pointer, kind and message; no value, no unknown key, nothing in the log."""
    answer = ask("POST", path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == MEDIA_TYPE
    found = answer.json()
    assert found["status"] == answer.status_code and found["type"].startswith("urn:problem-type:nabz:")
    for one in found.get("errors", []):
        assert set(one) == {"pointer", "kind", "message"}
    assert clean(answer.text) and clean(caplog.text)


def test_a_refused_field_is_named():
    """The pointer leads to it; a list's index stays, a caller's own key does not."""
    answer = ask("POST", "/raw", json={"age_years": -1, "listed": [1, "x"], "names": {"Ahmed Khan": "x"}, "sex": "x"})
    assert answer.json()["errors"] == [
        {"pointer": "/body/age_years", "kind": "greater_than_equal", "message": "Input should be greater than or equal to 0"},
        {"pointer": "/body/sex", "kind": "literal_error", "message": "Input should be 'female' or 'male'"},
        {
            "pointer": "/body/names/*",
            "kind": "int_parsing",
            "message": "Input should be a valid integer, unable to parse string as an integer",
        },
        {
            "pointer": "/body/listed/1",
            "kind": "int_parsing",
            "message": "Input should be a valid integer, unable to parse string as an integer",
        },
    ]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", f"/body/{CNIC}", {}, 422),
        ("POST", f"/body/1?limit={CNIC}", {}, 422),
        ("POST", "/body/1", {"idempotency-key": CNIC}, 422),
        ("GET", f"/{CNIC}/{NAME}", {}, 404),
        ("GET", f"/body/{CNIC}", {}, 405),
        ("GET", "/answer", {}, 500),
    ],
)
def test_paths_queries_and_headers_are_not_repeated(method, path, headers, status, caplog):
    """Not in the answer and not in the log."""
    answer = ask(method, path, headers=headers, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert clean(answer.text) and clean(caplog.text)


def test_a_405_names_the_methods_that_are_taken():
    """RFC 9110 asks for the header."""
    assert ask("GET", "/raw").headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("name", "status"),
    [("value", 500), ("key", 500), ("group", 500), ("policy", 500), ("recursion", 400), ("unicode", 400), ("json", 400)],
)
def test_an_exceptions_message_is_never_shown_or_logged(name, status, caplog):
    """An unexpected one is logged with its kind and where it was raised."""
    answer = ask("GET", f"/raise/{name}")
    assert answer.status_code == status
    assert clean(answer.text) and clean(caplog.text)
    if status == 500:
        assert answer.json()["detail"] == "the service failed on this request: try again, and tell its operator the request id"
        assert f"{type(RAISED[name]).__module__}.{type(RAISED[name]).__qualname__} at " in caplog.text
        assert re.search(r"tests/test_problems\.py:\d+ app_of_trouble\.<locals>\.raises", caplog.text)


def test_errors_carry_the_headers_of_their_status():
    """When to come back, and how to sign in."""
    stored, busy, unknown = (ask("GET", f"/raise/{name}") for name in ("storage", "busy", "unauthenticated"))
    assert (stored.status_code, stored.headers["retry-after"]) == (503, "5")
    assert stored.json()["detail"] == "the database cannot be written: nothing was stored, try again"
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, 'Bearer realm="nabz"')


def test_every_error_of_the_service_has_its_status():
    """The table, as the plan of the API says; a subclass follows its parent."""
    statuses = {
        errors.MalformedError: 400,
        errors.UnauthenticatedError: 401,
        errors.NotAllowedError: 403,
        errors.NotFoundError: 404,
        TooSlowError: 408,
        errors.ConflictError: 409,
        errors.TooLargeError: 413,
        errors.WrongTypeError: 415,
        errors.UnprocessableError: 422,
        errors.CaseError: 422,
        errors.PhotoError: 422,
        errors.BusyError: 429,
        errors.OverloadedError: 503,
        errors.StorageError: 503,
        errors.PolicyError: 500,
        errors.NabzError: 500,
    }
    assert {kind: describe(kind("x")).status for kind in statuses} == statuses
    assert {kind for kind in errors.ServiceError.__subclasses__() if kind.__module__ == errors.__name__} <= set(statuses)
    assert describe(InvalidInputError([])).status == 422


def test_the_kinds_whose_message_is_shown_quote_no_input():
    """Pydantic's own templates: what they fill in must be facts of the model; every kind that quotes has words of ours or none."""
    facts = set(
        "gt ge lt le multiple_of min_length max_length actual_length expected_plural field_type expected pattern class class_name "
        "discriminator expected_schemes expected_version method_name max_digits decimal_places whole_digits".split()
    )
    templates = {one["type"]: one["message_template_python"] for one in _pydantic_core.list_all_errors()}
    assert set(templates) >= SHOWN
    assert set(templates) >= set(REWORDED)
    assert {kind: filled for kind in SHOWN if (filled := set(re.findall(r"{(\w+)}", templates[kind])) - facts)} == {}
    assert SHOWN.isdisjoint(REWORDED)


def test_many_refused_fields_are_cut_off():
    """An answer does not grow with the request."""
    raw = [{"type": "missing", "loc": ("body", number), "msg": "Field required"} for number in range(1000)]
    assert len(field_errors(raw, frozenset({"body"}))) == 50


def test_a_part_of_the_service_may_answer_in_its_own_format():
    """FHIR answers with OperationOutcome; status-bound headers stay."""
    app = FastAPI()

    def outcome(found: Problem) -> Response:
        return Response(f"outcome {found.status}", found.status, media_type="application/fhir+json")

    install(app, {"/fhir": outcome})

    @app.get("/fhir/Task")
    @app.get("/fhirst")
    async def task() -> None:
        raise errors.BusyError("too fast", 3)

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://nabz.test") as client:
            answer = await client.get("/fhir/Task")
            assert (answer.text, answer.headers["retry-after"]) == ("outcome 429", "3")
            assert (await client.get("/fhir/None")).text == "outcome 404"
            assert (await client.get("/fhirst")).headers["content-type"] == MEDIA_TYPE

    asyncio.run(run())


def test_a_route_may_give_a_problem_of_its_own():
    """With members of its own beside those of RFC 9457."""
    answer = problem(409, "Held", "somebody holds it", holder="dr-7")
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Held",
        "status": 409,
        "detail": "somebody holds it",
        "request_id": "-",
        "holder": "dr-7",
    }


def test_problems_stand_in_the_openapi_document():
    """One schema, an example for each status, and nothing of FastAPI's own error format."""
    document = app_of_trouble().openapi()
    answers = document["paths"]["/body/{number}"]["post"]["responses"]
    assert {"400", "401", "422"} <= set(answers)
    content = answers["422"]["content"][MEDIA_TYPE]
    assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert Problem.model_validate(content["example"]).errors[0].pointer == "/body/age_years"
    assert "HTTPValidationError" not in json.dumps(document)
    assert list(document["paths"]["/raise/{name}"]["get"]["responses"]["422"]["content"]) == [MEDIA_TYPE]


def raised(error: Exception) -> Exception:
    """The exception with a traceback and a cause."""
    try:
        try:
            raise OSError(PHONE)  # noqa: TRY301 - the cause is made here on purpose
        except OSError as cause:
            raise error from cause
    except type(error) as caught:
        return caught


def test_an_exception_is_described_by_kind_and_place():
    """Its message stays out, and so do those of its cause and of a group's members."""
    text = describe_exception(raised(ExceptionGroup(NAME, [raised(ValueError(CNIC))])))
    assert re.match(
        r"builtins\.ExceptionGroup at .*tests/test_problems\.py:\d+ raised \[builtins\.ValueError at .* raised, from builtins\.OSError",
        text,
    )
    assert clean(text)


def test_the_servers_log_holds_no_messages_of_exceptions():
    """uvicorn and asyncio log whole exceptions; the formatter leaves kinds and places, and web socket lines are dropped."""
    config = configure_logging()
    logging.config.DictConfigurator(config)  # what uvicorn does with it, as far as this: the form is right
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter("%(name)s: %(message)s"))
    other = logging.Handler()
    other.emit = lambda record: logging.Formatter().format(record)  # caches the whole exception in the record
    log = logging.Logger("uvicorn.error")  # noqa: LOG001 - the real one stays as it is
    log.handlers = [other, handler]
    for one in config["loggers"]["uvicorn.error"]["filters"]:
        log.addFilter(one)
    error = raised(ValueError(f"{NAME} {CNIC}"))
    log.error("Exception in ASGI application\n", exc_info=error)
    log.error("failed: %s", error)
    log.error(error)
    log.info('%s - "WebSocket %s" [accepted]', "1.2.3.4", f"/{CNIC}")
    log.name = "asyncio"
    log.error(f"Task exception was never retrieved\nfuture: <Task exception={error!r}>")  # noqa: G004 - asyncio does so
    text = stream.getvalue()
    assert clean(text)
    assert "uvicorn.error: failed: ValueError\n" in text and "WebSocket" not in text
    assert text.count("builtins.ValueError at ") == 1 and text.endswith("asyncio: Task exception was never retrieved\n")
    assert config["loggers"]["uvicorn.access"]["handlers"] == [] and config["loggers"]["uvicorn.access"]["propagate"] is False
