"""What a reader chose for this browser: language, light or dark, first impression, shortcuts. Kept in a cookie, never on the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from starlette.requests import Request
from starlette.responses import Response

from inference.service.web.session import PREFIX, is_secure

Language = Literal["en", "ur"]
Theme = Literal["auto", "light", "dark"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
THEMES: Final[tuple[Theme, ...]] = get_args(Theme)
_COOKIE: Final = "nabz_choices"
_YEAR_SECONDS: Final = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Preferences:
    """`first_impression`: the machine's opinion stays hidden until the clinician has recorded their own; `shortcuts`: single keys act."""

    language: Language = "en"
    theme: Theme = "auto"
    first_impression: bool = False
    shortcuts: bool = True

    def with_form(self, form: Any) -> Preferences:
        """These with what a form of choices says; what it does not say stays."""
        chosen = self
        if form.get("language") in LANGUAGES:
            chosen = replace(chosen, language=form["language"])
        if form.get("theme") in THEMES:
            chosen = replace(chosen, theme=form["theme"])
        if form.get("options"):  # the whole form: an unticked box is not sent
            chosen = replace(chosen, first_impression=bool(form.get("first_impression")), shortcuts=bool(form.get("shortcuts")))
        return chosen


def preferences_of(request: Request) -> Preferences:
    """The choices in the request's cookie; without one, the language that the browser asks for first."""
    parts = request.cookies.get(_COOKIE, "").split(".")
    if len(parts) != 4 or parts[0] not in LANGUAGES or parts[1] not in THEMES:
        asked = request.headers.get("accept-language", "").lower()
        return Preferences(language="ur" if asked.startswith("ur") else "en")
    return Preferences(parts[0], parts[1], parts[2] == "1", parts[3] == "1")


def keep(response: Response, request: Request, chosen: Preferences) -> None:
    """Put the choices in the answer's cookie."""
    value = f"{chosen.language}.{chosen.theme}.{int(chosen.first_impression)}.{int(chosen.shortcuts)}"
    response.set_cookie(_COOKIE, value, _YEAR_SECONDS, path=PREFIX, secure=is_secure(request), httponly=True, samesite="lax")
