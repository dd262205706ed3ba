"""English and Urdu: the translated texts, and how numbers, times and ages are written. Knows no page and no case.

The texts stand in `locale/ur/LC_MESSAGES/messages.po` (`make translations` brings it up to date). Numbers have Latin digits in
both languages: doses and vitals are read from devices that have them.
"""

from __future__ import annotations

import gettext
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from inference.service.web.preferences import Language

PAKISTAN: Final = ZoneInfo("Asia/Karachi")
_MINUTES_PER_HOUR, _MINUTES_PER_DAY = 60, 1440


def N_(text: str) -> str:  # noqa: N802 (gettext's own name for it)
    """Mark a text for translation; it is translated where it is shown."""
    return text


@dataclass(frozen=True)
class Speech:
    """One language. `t` and `tn` translate, with `%(name)s` filled in."""

    code: Language
    direction: str
    translations: gettext.NullTranslations

    def t(self, text: str, **values: Any) -> str:
        """A text in this language."""
        said = self.translations.gettext(text) if text else ""
        return said % values if values else said

    def tn(self, one: str, many: str, n: int, **values: Any) -> str:
        """A text that depends on a number, which it may show as `%(n)s`."""
        return self.translations.ngettext(one, many, n) % {"n": n, **values}

    def pick(self, english: str | None, urdu: str | None) -> str:
        """The one of two texts that is in this language; the other where it is missing."""
        return (urdu or english or "") if self.code == "ur" else (english or urdu or "")

    def has(self, text: str) -> bool:
        """Whether a text can be shown in this language."""
        return self.code == "en" or self.translations.gettext(text) != text

    def duration(self, minutes: float) -> str:
        """Minutes in the unit that a reader would use: `40 min`, `6 h`, `14 d`."""
        if minutes < _MINUTES_PER_HOUR:
            return self.t("%(n)s min", n=f"{max(minutes, 0):.0f}")
        if minutes < 2 * _MINUTES_PER_DAY:
            return self.tn("%(n)s h", "%(n)s h", round(minutes / _MINUTES_PER_HOUR))
        return self.t("%(n)s d", n=f"{minutes / _MINUTES_PER_DAY:.0f}")

    def moment(self, at: datetime | str, pattern: str = "d MMM yyyy, HH:mm") -> str:
        """A time as Pakistan's clocks show it."""
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        return str(format_datetime(moment, pattern, tzinfo=PAKISTAN, locale=self.code))

    def percent(self, share: float | None) -> str:
        """A share in [0, 1] as a whole percentage; below 1 % with one decimal, and never a zero for what is none."""
        if share is None or share != share:
            return "–"
        if 0 < share < 0.0005:
            return "<0.1%"
        return f"{100 * share:.1f}%" if 0 < share < 0.01 else f"{100 * share:.0f}%"

    def age(self, years: float | None) -> str:
        """An age: in days for the newborn, in months below two years."""
        if years is None:
            return self.t("age unknown")
        if years < 1 / 12:
            return self.t("%(n)s days old", n=f"{365 * years:.0f}")
        return self.t("%(n)s months", n=f"{12 * years:.0f}") if years < 2 else self.t("%(n)s years", n=f"{years:.0f}")


@cache
def speech(code: Language) -> Speech:
    """The speech of a language."""
    return Speech(code, "rtl" if code == "ur" else "ltr", _translations(code))


def _translations(code: Language) -> gettext.NullTranslations:
    if code == "en":
        return gettext.NullTranslations()
    source = resources.files(__package__).joinpath(f"locale/{code}/LC_MESSAGES/messages.po").read_bytes()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(source), locale=code))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def script_of(text: str) -> Mapping[str, str]:
    """`lang` and `dir` for words in a script of their own: a complaint may be in either language on a page in either."""
    arabic = sum("\u0600" <= letter <= "\u06ff" or "\ufb50" <= letter <= "\ufeff" for letter in text)
    letters = sum(letter.isalpha() for letter in text)
    return {"lang": "ur", "dir": "rtl"} if letters and 2 * arabic >= letters else {"lang": "en", "dir": "ltr"}
