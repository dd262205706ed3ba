"""The addresses of the pages. What each one may show is asked by its handler; the guard has verified the caller before."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from inference.service.web import case_actions, case_page, dashboard_page, events_page, photo_page, sign_in, worklist_page
from inference.service.web.assets import serve_asset
from inference.service.web.intake_routes import intake_routes


def page_routes() -> list[BaseRoute]:
    """Every page, for the app's router."""
    return [
        Route("/", sign_in.enter, methods=["GET"]),
        Route("/app", sign_in.home, methods=["GET"]),
        Route("/app/sign-in", sign_in.show_sign_in, methods=["GET"]),
        Route("/app/sign-in", sign_in.sign_in, methods=["POST"]),
        Route("/app/sign-out", sign_in.sign_out, methods=["POST"]),
        Route("/app/options", sign_in.show_options, methods=["GET"]),
        Route("/app/choices", sign_in.set_choices, methods=["POST"]),
        Route("/app/static/{name}", serve_asset, methods=["GET"]),
        Route("/app/worklist", worklist_page.show_worklist, methods=["GET"]),
        Route("/app/worklist/find", worklist_page.find, methods=["POST"]),
        Route("/app/worklist/next", case_actions.claim_next, methods=["POST"]),
        Route("/app/dashboard", dashboard_page.show_dashboard, methods=["GET"]),
        Route("/app/events", events_page.listen, methods=["GET"]),
        Route("/app/cases/{id}", case_page.show_case, methods=["GET"]),
        Route("/app/cases/{id}/{action}", case_actions.act, methods=["POST"]),
        Route("/app/cases/{id}/photos/{sha256}/{kind}", photo_page.show_photo, methods=["GET"]),
        *intake_routes(),
    ]
