"""What of the worklist is asked for: a view, filters, a way to sort what is shown, a page. Reads and writes addresses, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from inference.errors import MalformedError
from inference.policy import LEVELS
from inference.service.callers import Who
from inference.service.pages import STATES
from inference.service.store import CLAIMED, COMPLETED, WAITING
from inference.service.web.language import N_

# Each view: its name, the state that pages.py knows it by.
VIEWS: Final[Mapping[str, tuple[str, str]]] = {
    "open": (N_("All open"), "open"),
    "unclaimed": (N_("Unclaimed"), WAITING),
    "mine": (N_("Mine"), CLAIMED),
    "review": (N_("Needs review"), "review"),
    "late": (N_("Past cap"), "open"),
    "completed": (N_("Completed"), COMPLETED),
}
assert {state for _, state in VIEWS.values()} <= set(STATES)
SORTS: Final = ("rank", "level", "wait", "age", "complaint", "place", "status")
PAGE_ROWS: Final = 50
_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class WorklistFilters:
    """One address of the worklist. `sort` orders the rows that are shown; which rows these are, the queue alone decides."""

    view: str = "open"
    level: int | None = None
    specialty: str = ""
    district: str = ""
    sort: str = "rank"
    is_descending: bool = False
    cursor: str = ""
    first: int = 1

    def columns(self, who: Who) -> dict[str, Any]:
        """The filters as columns of `referrals` and their values."""
        found: dict[str, Any] = {"level": self.level, "specialty": self.specialty, "district": self.district.casefold()}
        if self.view == "mine":
            found["holder"] = who.subject
        if self.view == "late":
            found["on_time"] = 0
        return {name: value for name, value in found.items() if value not in (None, "")}

    @property
    def state(self) -> str:
        """The state as `pages.read_page` takes it."""
        return VIEWS[self.view][1]

    @property
    def is_filtered(self) -> bool:
        """Whether anything but all open cases is asked for."""
        return bool(self.view != "open" or self.level or self.specialty or self.district)

    def url(self, **changes: Any) -> str:
        """The address of the list with something changed; any change but of the sort starts from the first page."""
        start = self if "cursor" in changes else replace(self, cursor="", first=1)
        changed = replace(start, **changes)
        given = {
            "view": changed.view if changed.view != "open" else "",
            "level": changed.level or "",
            "specialty": changed.specialty,
            "district": changed.district,
            "sort": changed.sort if changed.sort != "rank" else "",
            "dir": "down" if changed.is_descending else "",
            "cursor": changed.cursor,
            "first": changed.first if changed.first > 1 else "",
        }
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/app/worklist?{query}" if query else "/app/worklist"

    def sorted_by(self, sort: str) -> str:
        """The address that a header leads to: sort by it, or the other way round."""
        return self.url(sort=sort, is_descending=self.sort == sort and not self.is_descending)


def read_filters(query: Mapping[str, str]) -> WorklistFilters:
    """The filters in an address. Raises MalformedError for one that no page has made."""
    try:
        level = int(query["level"]) if query.get("level") else None
        first = int(query.get("first") or 1)
    except ValueError as error:
        raise MalformedError("the list's address has a number that is none: open the worklist anew") from error
    filters = WorklistFilters(
        view=query.get("view") or "open",
        level=level,
        specialty=query.get("specialty", "")[:_NAME_LENGTH],
        district=" ".join(query.get("district", "")[:_NAME_LENGTH].split()),
        sort=query.get("sort") or "rank",
        is_descending=query.get("dir") == "down",
        cursor=query.get("cursor", ""),
        first=min(max(first, 1), 10_000_000),
    )
    if filters.view not in VIEWS or filters.sort not in SORTS or filters.level not in (None, *LEVELS):
        raise MalformedError("the list's address names a view, a level or a column that there is not: open the worklist anew")
    return filters
