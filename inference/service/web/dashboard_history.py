"""What the dashboard's figures are made from: counts and cases of a stretch of days, without a word of any patient. No SQL, no page.

Days are Pakistan's (UTC+5 all year round), counted from 1 January 1970.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from inference.service.tables import to_us
from inference.service.web.ears import HISTORY_DAYS

OFFSET_US: Final = 5 * 3600 * 1_000_000
DAY_US: Final = 24 * 3600 * 1_000_000
RISE_DAYS: Final = 7  # the latest days that are looked at for unusual rises
# A busy service's oldest cases are left out: this many of the window are opened, and as many of the one before.
MOST_CASES: Final = 20_000
MODELS: Final = "models and rules"


@dataclass(frozen=True, slots=True)
class Window:
    """The days that the figures are of: `days` of them up to that of `now`, in one district or (None) in all."""

    now: datetime
    days: int
    district: str | None = None

    @property
    def last_day(self) -> int:
        """Today."""
        return day_of(to_us(self.now))

    @property
    def first_day(self) -> int:
        """The first day of the window."""
        return self.last_day - self.days + 1

    @property
    def first_before(self) -> int:
        """The first day of the window before, which is as long."""
        return self.first_day - self.days

    @property
    def first_for_rises(self) -> int:
        """The first day that a judgement of the latest days needs."""
        return self.last_day - RISE_DAYS - HISTORY_DAYS + 2

    @property
    def first_read(self) -> int:
        """The first day of which cases are read."""
        return min(self.first_before, self.first_for_rises)

    @property
    def all_days(self) -> range:
        """The window's days, oldest first."""
        return range(self.first_day, self.last_day + 1)


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that a clinician decided of a case: `kind` is overridden, agreed or completed."""

    sequence: int
    day: int
    referral_id: str
    kind: str
    level_before: int
    level: int


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """A case as it came in. `syndromes` and what else is sealed is None where it was erased, or stored before there were any.

    `risk` in [0, 1] counts where models scored. `review_kinds` are of telemetry.REVIEW_KINDS.
    """

    day: int
    district: str | None
    level: int
    risk: float
    scored_by: str
    needs_review: bool
    specialty: str
    is_patient_known: bool | None = None  # age and sex were given
    review_kinds: frozenset[str] | None = None
    syndromes: tuple[str, ...] | None = None


@dataclass
class History:
    """What was read. Counters are by (day, level) and (day, district): open cases gained and lost on that day.

    `claims` are waits in microseconds until the first claim of a case, by its level then; `late` are those so far of the open
    cases past their cap that nobody ever claimed. `cases` of the window and `cases_before` are the newest first; `is_cut` and `is_cut_before`: older ones were left out.
    `is_cut_claims` and `is_cut_decisions` say the same of claims and decisions.
    """

    open_by_level: dict[int, int] = field(default_factory=dict)
    open_by_district: dict[str | None, int] = field(default_factory=dict)
    change_by_level: Counter[tuple[int, int]] = field(default_factory=Counter)
    change_by_district: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    arrivals: Counter[int] = field(default_factory=Counter)
    claims: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    late: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    decisions: list[Decision] = field(default_factory=list)
    cases: list[CaseFacts] = field(default_factory=list)
    cases_before: list[CaseFacts] = field(default_factory=list)
    first_day_ever: int | None = None  # of the service's first event
    first_whole_day: int = 0  # cases of this day and later are all among the cases
    is_cut: bool = False
    is_cut_before: bool = False
    is_cut_claims: bool = False
    is_cut_decisions: bool = False
    is_cut_late: bool = False


def day_of(at_us: int) -> int:
    """The day of a moment."""
    return (at_us + OFFSET_US) // DAY_US


def start_us(day: int) -> int:
    """When a day begins, in microseconds since 1970 in UTC."""
    return day * DAY_US - OFFSET_US


def date_of(day: int) -> date:
    """A day as a date."""
    return date(1970, 1, 1) + timedelta(days=day)
