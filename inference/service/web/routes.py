"""The addresses of the pages. What each one may show is asked by its handler; the guard has verified the caller before."""

from __future__ import annotations

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from inference.service.web import (
    case_actions,
    case_page,
    dashboard_page,
    events_page,
    intake_api,
    intake_more,
    intake_offline,
    intake_page,
    intake_sent,
    photo_page,
    sign_in,
    upload_api,
    worklist_page,
)
from inference.service.web.assets import serve_asset

_CASE = "/app/cases/{id}"
_UPLOAD = "/app/api/uploads/{id}"


class PageRoute(Route):
    """A route that says in the request which one it is: the access log and the metrics name requests by it, as FastAPI's do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is this route's, and what it adds to the request."""
        match, child = super().matches(scope)
        return match, child if match is Match.NONE else {**child, "route": self}


def page_routes() -> list[BaseRoute]:
    """Every page, for the app's router."""
    table = (
        ("GET", "/", sign_in.enter),
        ("GET", "/app", sign_in.home),
        ("GET", "/app/sign-in", sign_in.show_sign_in),
        ("POST", "/app/sign-in", sign_in.sign_in),
        ("POST", "/app/sign-out", sign_in.sign_out),
        ("GET", "/app/options", sign_in.show_options),
        ("POST", "/app/choices", sign_in.set_choices),
        ("GET", "/app/static/{name}", serve_asset),
        ("GET", "/app/worklist", worklist_page.show_worklist),
        ("POST", "/app/worklist/find", worklist_page.find),
        ("POST", "/app/worklist/next", case_actions.claim_next),
        ("GET", "/app/events", events_page.listen),
        ("GET", _CASE, case_page.show_case),
        ("POST", f"{_CASE}/{{action}}", case_actions.act),
        ("GET", f"{_CASE}/photos/{{sha256}}/{{kind}}", photo_page.show_photo),
        ("GET", "/app/dashboard", dashboard_page.show_dashboard),
        ("GET", "/app/intake", intake_page.show_intake),
        ("POST", "/app/intake", intake_page.use_intake),
        ("GET", "/app/intake/sent/{id}", intake_sent.show_sent),
        ("GET", "/app/intake/slip/{id}", intake_sent.show_slip),
        ("GET", "/app/intake/more/{id}", intake_more.show_more),
        ("POST", "/app/intake/more/{id}", intake_more.send_more),
        ("POST", "/app/api/intake/read", intake_api.read),
        ("POST", "/app/api/intake/send", intake_api.send),
        ("OPTIONS", _UPLOAD, upload_api.describe_uploads),
        ("POST", _UPLOAD, upload_api.create_upload),
        ("HEAD", _UPLOAD, upload_api.find_upload),
        ("PATCH", _UPLOAD, upload_api.append_upload),
        ("GET", "/app/sw.js", intake_offline.serve_worker),
        ("GET", "/app/manifest.webmanifest", intake_offline.serve_manifest),
    )
    return [PageRoute(path, handler, methods=[method]) for method, path, handler in table]
