"""A page as it is sent: Jinja template, language, who looks, compression, and the headers that keep strangers' scripts out."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from inference.assessment import NOTICE
from inference.service.access import ALLOWED, Action
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.parts import Parts
from inference.service.web.assets import asset_url, compressed_or_not
from inference.service.web.language import N_, Speech, script_of, speech
from inference.service.web.preferences import LANGUAGES, Preferences, preferences_of
from inference.service.web.session import PREFIX
from inference.service.web.vocabulary import Vocabulary

HTML: Final = "text/html; charset=utf-8"
# No inline script, no inline style, nothing from elsewhere: what a stranger writes into a complaint stays text.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
    "worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types nabz"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with no-referrer a browser would not say that a form comes from here
    "Cache-Control": "no-store",
    "Permissions-Policy": "geolocation=(), microphone=()",
}
_NOTICE: Final = N_("Decision support, not a medical device; the models are not clinically validated. A clinician decides.")


@dataclass(frozen=True)
class Page:
    """One request for a page: what templates are rendered with."""

    request: Request
    preferences: Preferences
    speech: Speech
    who: Who | None

    @property
    def parts(self) -> Parts:
        """The running service's parts."""
        parts: Parts = self.request.app.state.parts
        return parts

    @property
    def words(self) -> Vocabulary:
        """The clinic's words in the page's language."""
        return Vocabulary(self.speech)

    @property
    def back(self) -> str:
        """The address of this page, for coming back to it; a form's own address is none to come back to."""
        url = self.request.url
        if self.request.method != "GET":
            return PREFIX
        return f"{url.path}?{url.query}" if url.query else url.path

    def may(self, action: Action) -> bool:
        """Whether the reader's role may do this: what they may not do is not offered."""
        return self.who is not None and self.who.role in ALLOWED[action]


def page_of(request: Request) -> Page:
    """The page's frame. The guard has verified the caller where the path asks for one."""
    chosen = preferences_of(request)
    return Page(request, chosen, speech(chosen.language), request.scope.get(WHO))


def render(page: Page, template: str, status: int = 200, **values: Any) -> Response:
    """The page as an answer."""
    return html_answer(page.request, text_of(page, template, **values), status)


def text_of(page: Page, template: str, **values: Any) -> str:
    """The page's HTML."""
    return templates(page.preferences.language).get_template(template).render(page=page, say=page.speech, words=page.words, **values)


def html_answer(request: Request, text: str, status: int = 200) -> Response:
    """HTML with its headers, compressed for whoever takes it."""
    content = text.encode()
    response = compressed_or_not(request, content, gzip.compress(content, 6, mtime=0), HTML, HEADERS)
    response.status_code = status
    return response


def go_to(path: str) -> Response:
    """Send the browser to another page after a form."""
    return RedirectResponse(path, 303, HEADERS)


def load_pages() -> None:
    """Compile every template in every language now, so that no reader waits for it."""
    for language in LANGUAGES:
        environment = templates(language)
        for name in environment.list_templates():
            environment.get_template(name)


@cache
def templates(language: str) -> Environment:
    """Jinja for a language; undefined names are mistakes."""
    environment = Environment(
        loader=PackageLoader("inference.service.web"),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(speech(language).translations, newstyle=True)  # type: ignore[attr-defined]
    environment.globals |= {"asset": asset_url, "script_of": script_of, "notice": _NOTICE}
    assert _NOTICE == NOTICE
    return environment
