"""The pages of a running service, for tests without a browser: signed-in clients, and the text that a page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
from service_app import Service
from starlette.testclient import TestClient

ORIGIN = {"Origin": "http://127.0.0.1"}
_VOID = frozenset({"meta", "link", "input", "img", "br", "use", "path", "circle", "rect", "hr"})


class Reader:
    """Somebody who is signed in, in a browser of their own."""

    def __init__(
        self, service: Service, role: str, name: str | None = None, language: str = "en", *, first_impression: bool = False
    ) -> None:
        # Beside the service's own client, whose lifespan is the service's: same app, own cookies.
        self.client = TestClient(service.client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000), follow_redirects=False)
        self.client.portal = service.client.portal
        clinic = (name or "mithi") if role == "clinic" else None
        self.client.cookies.set("nabz_session", service.issuer.mint(f"{role}-{name or 1}", role, clinic), path="/app")
        self.client.cookies.set("nabz_choices", f"{language}.light.{int(first_impression)}.1", path="/app")

    def get(self, path: str, **given: Any) -> httpx.Response:
        """A page."""
        return self.client.get(path, **given)

    def post(self, path: str, form: dict[str, Any] | None = None, **given: Any) -> httpx.Response:
        """A form, sent from the service's own page."""
        return self.client.post(path, data=form or {}, headers={**ORIGIN, **given.pop("headers", {})}, **given)


class _Text(HTMLParser):
    """The texts of a page with the language that they are marked as."""

    def __init__(self) -> None:
        super().__init__()
        self.languages: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("aria-label", "title", "alt", "placeholder"):
            if given.get(name):
                self.texts.append((given[name] or "", given.get("lang") or self._language()))
        if tag not in _VOID:
            self.languages.append((tag, given.get("lang") or self._language()))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.languages and self.languages.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not any(tag in ("script", "style") for tag, _ in self.languages):
            self.texts.append((" ".join(data.split()), self._language()))

    def _language(self) -> str | None:
        return self.languages[-1][1] if self.languages else None


def texts_of(html: str) -> list[tuple[str, str | None]]:
    """Each text that a reader sees or hears, with the `lang` that it stands in."""
    parser = _Text()
    parser.feed(html)
    return parser.texts


def words_of(html: str) -> str:
    """All of the page's text."""
    return " ".join(text for text, _ in texts_of(html))


# What is written in Latin letters in Urdu too: names, units, codes, keys.
_LATIN = re.compile(r"\b(Nabz|English|NEWS2|IITT|KTAS|SpO2|mmHg|mg|dL|C|EARS|PSI|QR|AVPU|HIV|ECG|Ctrl|Enter|Esc|[A-Z]\d*|[a-z])\b")


def untranslated(html: str) -> Iterator[str]:
    """Texts of a page in Urdu that have Latin words and are not marked as another language."""
    for text, language in texts_of(html):
        if language == "ur" and re.search(r"[A-Za-z]{2,}", _LATIN.sub("", text)):
            yield text
