"""How the dashboard writes its numbers: shares with intervals, days, districts, features and how an index reads. Knows no plot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Final

from markupsafe import Markup, escape

from inference.service.syndromes import syndromes
from inference.service.telemetry import OTHER as OTHER_REASON
from inference.service.web.dashboard_drift import OTHER, RISK_BINS, Reading, Shift
from inference.service.web.dashboard_history import date_of
from inference.service.web.dashboard_rises import ALL
from inference.service.web.language import N_, Speech, script_of
from inference.service.web.rates import Rate
from inference.service.web.vocabulary import REVIEW_KINDS, Vocabulary

NONE: Final = "–"
FEATURES: Final = {
    "level": N_("Level given by the machine"),
    "risk": N_("Emergency probability"),
    "scored_by": N_("What scored the case"),
    "review": N_("Case needs review"),
    "unknown": N_("Age or sex not given"),
    "no_district": N_("District not given"),
    "specialty": N_("Specialty"),
}
READINGS: Final[dict[Reading, str]] = {
    "few": N_("too few to tell"),
    "stable": N_("stable"),
    "look": N_("look at it"),
    "act": N_("act on it"),
}
_YES_NO: Final = {"yes": N_("yes"), "no": N_("no")}


@dataclass(frozen=True, slots=True)
class Wording:
    """Numbers in one language. A figure that is undefined is written as a dash."""

    speech: Speech

    @property
    def words(self) -> Vocabulary:
        """The clinic's words."""
        return Vocabulary(self.speech)

    def share(self, one: Rate) -> str:
        """A share with its interval: `74% (65–81%)`."""
        if one.n == 0:
            return NONE
        percent = self.speech.percent
        return self.plain(f"{percent(one.share)} ({percent(one.low).removesuffix('%')}–{percent(one.high)})")

    def plain(self, numbers: str) -> str:
        """Numbers that stay together, and are read from left to right among words that are not (in Unicode's isolates)."""
        return f"\u2066{_whole(numbers)}\u2069" if self.speech.code == "ur" else _whole(numbers)

    def of_n(self, one: Rate) -> str:
        """The counts behind a share: `74 of 100`."""
        return self.speech.t("%(k)s of %(n)s", k=one.k, n=one.n)

    def share_of_n(self, one: Rate) -> str:
        """A share with its interval and its counts: `74% (65–81%) · 74 of 100`; only the counts where there are none."""
        return f"{self.share(one)} · {self.of_n(one)}" if one.n else self.of_n(one)

    def duration(self, minutes: float) -> str:
        """A time, or a dash."""
        return NONE if minutes != minutes else _whole(self.speech.duration(minutes))

    def number(self, value: float, digits: int = 1) -> str:
        """A number with decimals, or a dash."""
        return NONE if value != value else f"{value:.{digits}f}"

    def day(self, day: int) -> str:
        """A day, without its year."""
        return _whole(self.speech.moment(datetime.combine(date_of(day), time(7), UTC), "d MMM"))

    def level(self, level: int) -> str:
        """A level's number and name."""
        return _whole(f"{level} {self.words.level(level)}")

    def district(self, name: str | None) -> Markup:
        """A district's name, marked as in its own script."""
        if name == ALL:
            return escape(self.speech.t("all districts"))
        if name is None:
            return escape(self.speech.t("not named"))
        script = script_of(name)
        return Markup('<bdi lang="{}" dir="{}">{}</bdi>').format(script["lang"], script["dir"], name.title())

    def syndrome(self, code: str) -> str:
        """A syndrome's name; a code that is not known any more as it is."""
        known = syndromes().get(code)
        return self.speech.pick(known.name_en, known.name_ur) if known else code.replace("_", " ")

    def review(self, kind: str) -> str:
        """A kind of review reason."""
        return self.words.of(REVIEW_KINDS, kind if kind in REVIEW_KINDS else OTHER_REASON)

    def feature(self, name: str) -> str:
        """What a drift signal watches."""
        return self.speech.t(FEATURES[name])

    def reading(self, reading: Reading) -> str:
        """How an index reads."""
        return self.speech.t(READINGS[reading])

    def category(self, feature: str, code: str) -> str:
        """One category of a feature."""
        if feature == "level":
            return self.level(int(code))
        if feature == "risk":
            ends = [*(f"{low:g}" for low in RISK_BINS), "1"]
            return self.plain(f"{code}–{ends[ends.index(code) + 1]}")
        if feature == "scored_by":
            return self.words.scorer(code)
        if feature == "specialty":
            return self.speech.t("others") if code == OTHER else self.words.specialty(code)
        return self.speech.t(_YES_NO[code])

    def moved(self, shift: Shift) -> str:
        """The category that moved most: `3 urgent: 20% → 35%`; the sign is written in words' order, so that it reads either way."""
        if shift.moved is None:
            return NONE
        code, before, now = shift.moved
        return self.speech.t(
            "%(what)s: from %(before)s to %(now)s",
            what=self.category(shift.feature, code),
            before=self.speech.percent(before),
            now=self.speech.percent(now),
        )


def _whole(text: str) -> str:
    """Words that are not broken over two lines."""
    return text.replace(" ", "\u00a0")
