"""Errors as pages: what was wrong and what to do, in both languages, because what failed may be anything. 401 leads to the sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import RedirectResponse, Response

from inference.service.problems import Problem, Renderer, render_json
from inference.service.web.core_texts import CANNOT_SHOW
from inference.service.web.language import speech
from inference.service.web.render import HEADERS, HTML, templates
from inference.service.web.session import PREFIX

_UNAUTHENTICATED: Final = 401


def render_page(problem: Problem) -> Response:
    """The problem for a person."""
    if problem.status == _UNAUTHENTICATED:
        return RedirectResponse(f"{PREFIX}/sign-in", 303, HEADERS)
    text = templates("en").get_template("error.html").render(problem=problem, urdu=speech("ur"), cannot_show=CANNOT_SHOW)
    return Response(text, problem.status, HEADERS, HTML)


# What scripts ask for gets JSON. The first prefix that fits counts.
PAGE_RENDERERS: Final[Mapping[str, Renderer]] = {f"{PREFIX}/api": render_json, PREFIX: render_page}
