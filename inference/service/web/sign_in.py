"""Signing in and out, and the reader's choices. In a demo anybody on this machine picks a role; else a token of the issuer's is pasted.

Behind a proxy that signs people in and adds the Authorization header, nobody sees these pages.
"""

from __future__ import annotations

import time
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import NabzError, NotAllowedError
from inference.service.caller_check import WHO
from inference.service.callers import ROLES, Who
from inference.service.dev_issuer import TOKEN_SECONDS, from_this_machine
from inference.service.identity import TokenVerifier
from inference.service.web import session
from inference.service.web.preferences import keep, preferences_of
from inference.service.web.render import go_to, page_of, render

_LONGEST_SECONDS = 12 * 3600
_HOMES = {"clinic": "/app/intake", "clinician": "/app/worklist", "data_scientist": "/app/dashboard", "admin": "/app/dashboard"}


def home_of(who: Who) -> str:
    """The first page for a role."""
    return _HOMES[who.role]


async def enter(_: Request) -> Response:
    """`/`, where no session is known yet: to the pages."""
    return go_to(session.PREFIX)


async def home(request: Request) -> Response:
    """`/app`: the reader's first page."""
    return go_to(home_of(request.scope[WHO]))


async def show_sign_in(request: Request) -> Response:
    """The form."""
    return _form(request)


async def sign_in(request: Request) -> Response:
    """Check what was given, keep the session, go to the first page."""
    form = await request.form()
    verifier: TokenVerifier = request.app.state.verifier
    try:
        token, seconds = _token_of(request, form, verifier)
        who = await verifier.who(f"Bearer {token}")
    except NabzError as error:
        return _form(request, str(error))
    response = go_to(home_of(who))
    session.begin(response, request, token, seconds)
    return response


def _token_of(request: Request, form: Any, verifier: TokenVerifier) -> tuple[str, int]:
    """The token, and how long the browser keeps it (it is verified later)."""
    if verifier.dev_issuer is None:
        token = str(form.get("token", "")).strip()
        return token, _seconds_left(token)
    if not from_this_machine(request):
        raise NotAllowedError("the demo's sign-in is for this machine only: open http://127.0.0.1, without a proxy")
    role = str(form.get("role", ""))
    name = str(form.get("name", "")).strip()
    clinic = (name or "mithi") if role == "clinic" else None
    return verifier.dev_issuer.mint(name or f"demo-{role}", role, clinic), TOKEN_SECONDS


def _seconds_left(token: str) -> int:
    try:
        ends = float(jwt.decode(token, options={"verify_signature": False}).get("exp", 0))
    except (jwt.PyJWTError, ValueError, TypeError):
        return 0
    return int(min(max(ends - time.time(), 0), _LONGEST_SECONDS))


def _form(request: Request, problem: str = "") -> Response:
    verifier: TokenVerifier = request.app.state.verifier
    is_demo = verifier.dev_issuer is not None
    return render(page_of(request), "sign_in.html", 422 if problem else 200, is_demo=is_demo, roles=ROLES, problem=problem)


async def sign_out(_: Request) -> Response:
    """Forget the session."""
    response = go_to("/app/sign-in")
    session.end(response)
    return response


async def show_options(request: Request) -> Response:
    """Language, theme, first impression, shortcuts."""
    return render(page_of(request), "options.html")


async def set_choices(request: Request) -> Response:
    """Keep the choices and go back to the page that they were made on."""
    form = await request.form()
    back = str(form.get("back", ""))
    response = go_to(back if session.is_page(back.partition("?")[0]) and "//" not in back and "\\" not in back else "/app")
    keep(response, request, preferences_of(request).with_form(form))
    return response
