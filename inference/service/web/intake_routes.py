"""The addresses of the intake page and of what belongs to it."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from inference.service.web import intake_api, intake_more, intake_offline, intake_page, intake_sent, upload_api


def intake_routes() -> list[BaseRoute]:
    """Pages, what their scripts ask for, uploads, and what makes the page open without a connection."""
    return [
        Route("/app/intake", intake_page.show_intake, methods=["GET"]),
        Route("/app/intake", intake_page.use_intake, methods=["POST"]),
        Route("/app/intake/sent/{id}", intake_sent.show_sent, methods=["GET"]),
        Route("/app/intake/slip/{id}", intake_sent.show_slip, methods=["GET"]),
        Route("/app/intake/more/{id}", intake_more.show_more, methods=["GET"]),
        Route("/app/intake/more/{id}", intake_more.send_more, methods=["POST"]),
        Route("/app/api/intake/read", intake_api.read, methods=["POST"]),
        Route("/app/api/intake/send", intake_api.send, methods=["POST"]),
        Route("/app/api/uploads/{id}", upload_api.describe_uploads, methods=["OPTIONS"]),
        Route("/app/api/uploads/{id}", upload_api.create_upload, methods=["POST"]),
        Route("/app/api/uploads/{id}", upload_api.find_upload, methods=["HEAD"]),
        Route("/app/api/uploads/{id}", upload_api.append_upload, methods=["PATCH"]),
        Route("/app/sw.js", intake_offline.serve_worker, methods=["GET"]),
        Route("/app/manifest.webmanifest", intake_offline.serve_manifest, methods=["GET"]),
    ]
