"""Reads what the dashboard is made from out of the database: in many short transactions, each of some milliseconds, beside the writer.

No query walks a whole table: events are numbered as time goes, so that a window's first event is found by halving, and from there
on they are read by their numbers; open cases are counted along the indexes of the queue. Knows no page and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, bindparam, exists, func, literal_column, select, tuple_

from inference.policy import LEVELS
from inference.service import store
from inference.service.tables import ORDER_COLUMNS, events, referrals, to_us
from inference.service.telemetry import review_kind
from inference.service.vault import Vault
from inference.service.web.dashboard_history import (
    DAY_US,
    MOST_CASES,
    OFFSET_US,
    CaseFacts,
    Decision,
    History,
    Window,
    day_of,
    start_us,
)
from inference.service.web.dashboard_pieces import Pieces, first_sequence

MOST_LATE: Final = 10_000  # of a level
_MOST_UNSWEPT: Final = 1000
_MOST_DISTRICTS: Final = 1000
_DECIDED: Final = ("overridden", "agreed", "completed")
_MOVING: Final = ("overridden", "reassessed")
# Written out, not bound, so that PostgreSQL sees that what is selected is what is grouped by.
_DAY: Final[ColumnElement[int]] = (events.c.at_us + literal_column(str(OFFSET_US), BigInteger)) // literal_column(str(DAY_US), BigInteger)
_LATE_ORDER: Final = tuple(referrals.c[name] for name in ORDER_COLUMNS[2:])  # within one level, past the cap
_earlier = events.alias("earlier")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one window. `policy` is not asked: whether a wait was too long, the figures decide."""

    pieces: Pieces
    vault: Vault
    window: Window

    def history(self) -> History:
        """Everything, in pieces. Raises StorageError when the database cannot be read."""
        found = History()
        first, first_read, last = self.pieces.run(self._bounds)
        found.first_day_ever = self.pieces.run(_first_day)
        found.first_whole_day = self.window.first_read
        self._count_open(found)
        self._read_late(found)
        for low, high in self.pieces.stretches(first, last):
            self._add_window(found, low, high)
        found.is_cut = self._read_cases(found.cases, first, last)
        found.is_cut_before = self._read_cases(found.cases_before, first_read, first - 1)
        if found.is_cut or found.is_cut_before:
            found.first_whole_day = (found.cases if found.is_cut else found.cases_before)[-1].day + 1
        return found

    def _bounds(self, connection: Connection) -> tuple[int, int, int]:
        """The first event of the window, the first one of which cases are read, and the last one there is."""
        last = connection.execute(select(func.max(events.c.sequence))).scalar() or 0
        first = first_sequence(connection, start_us(self.window.first_day), last)
        return first, first_sequence(connection, start_us(self.window.first_read), first - 1), last

    def _here(self, query: Select[Any], table: Any = events) -> Select[Any]:
        return query if self.window.district is None else query.where(table.c.district == self.window.district)

    def _count_open(self, found: History) -> None:
        """Open cases by level and by district, as of now."""
        is_open = referrals.c.is_open == store.ONE
        for level in LEVELS:
            query = self._here(select(func.count()).where(is_open, referrals.c.level == level), referrals)
            found.open_by_level[level] = self.pieces.number(query)
        if self.window.district is not None:
            found.open_by_district[self.window.district] = sum(found.open_by_level.values())
            return
        nowhere = select(func.count()).where(is_open, referrals.c.district.is_(None))
        found.open_by_district[None] = self.pieces.number(nowhere)
        last = ""
        while len(found.open_by_district) <= _MOST_DISTRICTS:
            one = self.pieces.run(lambda connection, last=last: _next_district(connection, last))  # type: ignore[misc]
            if one is None:
                return
            last = one[0]
            found.open_by_district[last] = one[1]

    def _read_late(self, found: History) -> None:
        """The open cases past their cap that nobody ever claimed."""
        now_us = to_us(self.window.now)
        columns = referrals.c.level, referrals.c.claimed_us, *_LATE_ORDER
        is_open = referrals.c.is_open == store.ONE
        unswept = self._here(select(*columns).where(is_open, referrals.c.on_time == store.ONE, referrals.c.cap_us < now_us), referrals)
        rows = list(self.pieces.rows(unswept.limit(_MOST_UNSWEPT)))
        for level in LEVELS:
            swept = self._here(select(*columns).where(is_open, referrals.c.level == level, referrals.c.on_time == 0), referrals)
            swept = swept.order_by(*_LATE_ORDER)
            query, of_level = swept, 0
            while of_level < MOST_LATE:
                size = max(self.pieces.size // 2, 1)
                page = self.pieces.rows(query.limit(size))
                rows += page
                of_level += len(page)
                if len(page) < size:
                    break
                place = tuple_(*(bindparam(None, page[-1]._mapping[one.name], one.type) for one in _LATE_ORDER))
                query = swept.where(tuple_(*_LATE_ORDER) > place)
            else:
                found.is_cut_late = True
        for row in rows:
            if row.claimed_us is None and row.received_us <= now_us:
                found.late[row.level].append(now_us - row.received_us)

    def _add_window(self, found: History, low: int, high: int) -> None:
        """What happened between two events: how the queue changed, who was seen, what was decided."""
        in_piece = (events.c.sequence > low, events.c.sequence <= high)
        is_claims, is_decisions = sum(map(len, found.claims.values())) < MOST_CASES, len(found.decisions) < MOST_CASES

        def work(connection: Connection) -> tuple[Any, ...]:
            run = connection.execute
            return (
                run(self._here(_by_level(in_piece))).all(),
                run(self._here(_by_district(in_piece))).all(),
                run(self._here(_first_claims(in_piece))).all() if is_claims else (),
                run(self._here(_decisions(in_piece))).all() if is_decisions else (),
            )

        by_level, by_district, claims, decisions = self.pieces.run_sized(work)
        for day, kind, before, level, count in by_level:
            if kind in _MOVING:
                found.change_by_level[day, before] -= count
            if kind == "created":
                found.arrivals[day] += count
            found.change_by_level[day, level] += -count if kind == "completed" else count
        for day, kind, district, count in by_district:
            found.change_by_district[day, district] += count if kind == "created" else -count
        for row in claims:
            found.claims[row.level].append(row.at_us - row.received_us)
        found.decisions += [
            Decision(row.sequence, day_of(row.at_us), row.referral_id, row.kind, row.level_before or row.level, row.level)
            for row in decisions
        ]
        found.is_cut_claims |= not is_claims
        found.is_cut_decisions |= not is_decisions

    def _read_cases(self, cases: list[CaseFacts], first: int, last: int) -> bool:
        """The cases that came in between two events, newest first. True when there are more of them than are read."""
        for low, high in self.pieces.stretches(first, last):
            if len(cases) >= MOST_CASES:
                return True
            query = self._here(_arrivals((events.c.sequence > low, events.c.sequence <= high)))
            cases += [self._opened(row) for row in self.pieces.rows(query)]
        return False

    def _opened(self, row: Row[Any]) -> CaseFacts:
        """A case with what its summary says, as codes."""
        facts = (day_of(row.at_us), row.district, row.level, -row.neg_risk, row.scored_by, bool(row.needs_review), row.specialty)
        if row.summary is None:
            return CaseFacts(*facts)
        summary = orjson.loads(self.vault.unseal(row.summary, f"referrals.summary:{row.id}"))
        kinds = _kinds(tuple(summary.get("review", ())))
        is_known = summary.get("age_years") is not None and summary.get("sex") in ("female", "male")
        syndromes = summary.get("syndromes")
        return CaseFacts(*facts, is_known, kinds, None if syndromes is None else tuple(syndromes))


@lru_cache(maxsize=1024)
def _kinds(reasons: tuple[str, ...]) -> frozenset[str]:
    return frozenset(review_kind(why) for why in reasons)


def _first_day(connection: Connection) -> int | None:
    at_us = connection.execute(select(events.c.at_us).where(events.c.sequence > 0).order_by(events.c.sequence).limit(1)).scalar()
    return None if at_us is None else day_of(at_us)


def _next_district(connection: Connection, last: str) -> tuple[str, int] | None:
    """The next district with open cases, in the alphabet's order, and how many."""
    is_open = referrals.c.is_open == store.ONE
    query = select(referrals.c.district).where(is_open, referrals.c.district > last).order_by(referrals.c.district).limit(1)
    district = connection.execute(query).scalar()
    if district is None:
        return None
    return district, connection.execute(select(func.count()).where(is_open, referrals.c.district == district)).scalar_one()


def _by_level(in_piece: tuple[Any, ...]) -> Select[Any]:
    columns = _DAY.label("day"), events.c.kind, events.c.level_before, events.c.level
    moved = events.c.kind.in_(_MOVING) & (events.c.level_before != events.c.level)
    return select(*columns, func.count()).where(*in_piece, events.c.kind.in_(("created", "completed")) | moved).group_by(*columns)


def _by_district(in_piece: tuple[Any, ...]) -> Select[Any]:
    columns = _DAY.label("day"), events.c.kind, events.c.district
    return select(*columns, func.count()).where(*in_piece, events.c.kind.in_(("created", "completed"))).group_by(*columns)


def _first_claims(in_piece: tuple[Any, ...]) -> Select[Any]:
    """Claims of cases that nobody had claimed before, with when the case had arrived."""
    same, before = _earlier.c.referral_id == events.c.referral_id, _earlier.c.sequence < events.c.sequence
    is_first = ~exists(select(1).where(same, before, _earlier.c.kind == "claimed"))
    query = select(events.c.level, events.c.at_us, referrals.c.received_us).join(referrals, referrals.c.id == events.c.referral_id)
    return query.where(*in_piece, events.c.kind == "claimed", is_first)


def _decisions(in_piece: tuple[Any, ...]) -> Select[Any]:
    columns = ("sequence", "at_us", "referral_id", "kind", "level_before", "level")
    return select(*(events.c[name] for name in columns)).where(*in_piece, events.c.kind.in_(_DECIDED)).order_by(events.c.sequence.desc())


def _arrivals(in_piece: tuple[Any, ...]) -> Select[Any]:
    of_event = events.c.at_us, events.c.district, events.c.level
    of_case = (referrals.c[name] for name in ("id", "neg_risk", "scored_by", "needs_review", "specialty", "summary"))
    query = select(*of_event, *of_case).join(referrals, referrals.c.id == events.c.referral_id)
    return query.where(*in_piece, events.c.kind == "created").order_by(events.c.sequence.desc())
