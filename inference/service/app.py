"""The web application: parts, routes and guards, put together. `create_app` is what a server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from inference.errors import OverloadedError, ServiceError
from inference.service import api
from inference.service.access import require
from inference.service.api_models import Health
from inference.service.caller_check import OPEN
from inference.service.cds_backend import Backend
from inference.service.cds_hooks import cds_router
from inference.service.drain import Drain
from inference.service.fhir_api import PREFIX as FHIR_PREFIX
from inference.service.fhir_api import fhir_router
from inference.service.fhir_database import DatabaseFhirStore
from inference.service.fhir_http import render_problem
from inference.service.guards import Guard, guard
from inference.service.hot_routes import HotRoutes
from inference.service.identity import TokenVerifier
from inference.service.parts import Parts, open_parts
from inference.service.problem_docs import describe_problems, responses
from inference.service.problems import Renderer, install
from inference.service.settings import Settings
from inference.service.web.error_page import PAGE_RENDERERS
from inference.service.web.routes import page_routes
from inference.triage import package_version

DESCRIPTION = (
    "Cases in, a ranked referral queue out. Decision support, not a medical device; the shipped models are not clinically "
    "validated. The machine may raise a case's urgency and never lowers it below the rules; a clinician decides."
)
_DATABASE_SECONDS = 2.0
_TOKEN = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "roles: clinic, clinician, data_scientist, admin"}
_PROBE_SECONDS = 1.0


def create_app(settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Guard:
    """The whole service. Opens the database when the server starts it, and closes it when it stops.

    Raises PolicyError for settings that cannot be used and StorageError when keys or database cannot be opened.
    """
    verifier = TokenVerifier(settings)
    parts = open_parts(settings, clock)
    drain = Drain()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await parts.start()
        try:
            with suppress(OverloadedError):  # an issuer that is away must not keep a clinic from its own queue
                await verifier.warm_up()
            yield
        finally:
            await parts.stop()

    app = FastAPI(
        title="Nabz", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.parts, app.state.verifier = parts, verifier
    app.include_router(api.router)
    if verifier.dev_issuer:
        app.router.routes.append(verifier.dev_issuer.route())
    app.router.routes.extend(page_routes())
    _add_health(app, parts, drain)
    renderers = _add_standards(app, parts)
    install(app, renderers)
    describe_problems(app)
    _describe_security(app)
    hot = HotRoutes(app, {"/v1/assess": api.assess, "/v1/referrals": api.create_referral})
    return guard(hot, settings, verifier, drain=drain, observe=parts.telemetry.observe_http, renderers=renderers)


def _add_standards(app: FastAPI, parts: Parts) -> Mapping[str, Renderer]:
    """FHIR and CDS Hooks; returns how they and the pages show errors."""
    app.include_router(fhir_router(DatabaseFhirStore(parts.referrals), api.who_asks, package_version(), clock=parts.clock))
    app.include_router(cds_router(Backend(parts.referrals), api.who_asks, clock=parts.clock))
    return {FHIR_PREFIX: render_problem, **PAGE_RENDERERS}


def _add_health(app: FastAPI, parts: Parts, drain: Drain) -> None:
    has_database = _shared_probe(parts)

    @app.get("/health/live", summary="Is the process alive?", response_model=dict[str, str])
    async def live() -> Response:
        """Answers as long as the process can answer at all."""
        return JSONResponse({"status": "alive"})

    @app.get(
        "/health/ready", summary="Can it take cases?", response_model=Health, responses={503: {"model": Health, "description": "not now"}}
    )
    async def ready() -> Response:
        """Ready, or degraded while some model is not in use; 503 while starting, draining or without a database."""
        health = parts.scorer.health()
        bundles = {task: name.model_dump() for task, name in health.bundles.items()}
        status = "degraded" if health.degraded else "ready"
        if drain.begun:
            status = "draining"
        elif not health.ready:
            status = "starting"
        elif not await has_database():
            status = "no database"
        return JSONResponse({"status": status, "bundles": bundles}, 200 if status in ("ready", "degraded") else 503)

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses(401, 403)},
    )
    async def metrics(request: Request) -> Response:
        """Queue depth and age by level, waits against caps, model latency, review reasons, overrides."""
        require(await api.who_asks(request), "metrics.read")
        content, kind = parts.telemetry.render()
        return Response(content, media_type=kind)


def _shared_probe(parts: Parts) -> Callable[[], Awaitable[bool]]:
    """Asks the database once a second at most, whoever and however many want to know."""
    asked: asyncio.Task[bool] | None = None
    asked_at = 0.0

    async def has_database() -> bool:
        nonlocal asked, asked_at
        now = asyncio.get_running_loop().time()
        if asked is None or (asked.done() and now - asked_at >= _PROBE_SECONDS):
            asked, asked_at = asyncio.create_task(_has_database(parts)), now
        return await asyncio.shield(asked)

    return has_database


async def _has_database(parts: Parts) -> bool:
    try:
        async with asyncio.timeout(_DATABASE_SECONDS):
            await parts.database.run(lambda unit: unit.connection.exec_driver_sql("SELECT 1").scalar())
    except (ServiceError, TimeoutError):
        return False
    return True


def _describe_security(app: FastAPI) -> None:
    """Say in the OpenAPI document which routes need a token."""
    original = app.openapi

    def openapi() -> dict[str, object]:
        document = original()
        document.setdefault("components", {}).setdefault("securitySchemes", {})["bearer"] = _TOKEN
        for path, operations in document.get("paths", {}).items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN else [{"bearer": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
