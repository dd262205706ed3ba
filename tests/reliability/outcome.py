"""What a row of the reliability table found. Knows no service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postgres import PostgresServer

_SHOWN = 20


@dataclass
class Outcome:
    """`done` says what was done and measured; `violations` what must not have happened, the first few of each kind in words."""

    name: str
    done: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    violation_count: int = 0
    seconds: float = 0.0
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it was done and nothing happened that must not."""
        return self.skipped is None and not self.violation_count

    def require(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless `holds`."""
        if not holds:
            self.violation_count += 1
            if len(self.violations) < _SHOWN:
                self.violations.append(otherwise)

    def count(self, name: str, by: float = 1) -> None:
        """Add to a figure of what was done."""
        self.done[name] = self.done.get(name, 0) + by


@dataclass(frozen=True)
class Ground:
    """Where a row runs: an empty folder of its own, an empty database, and the PostgreSQL server where the database is one of its.

    Times are judged only where `is_timed`: a short form may run on a machine that has other things to do.
    """

    folder: Path
    database_url: str
    postgres: PostgresServer | None = None
    is_timed: bool = True

    @property
    def is_postgres(self) -> bool:
        """Whether the database is PostgreSQL's."""
        return self.postgres is not None
