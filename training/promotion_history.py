"""What was live when: a line for each switch of a task's live bundle, in `models/promotions.jsonl`, and what can be gone back to.

A line is written before the switch that it tells of, so that no switch is without one; that one did not happen after all is seen
by what was live at the next. Names bundles and reasons, and no person. Knows no bundle's content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inference.errors import PromotionError
from inference.service.durable import PUBLIC_FILE, write_durably

HISTORY_FILE = "promotions.jsonl"


@dataclass(frozen=True)
class Switch:
    """One switch: from which bundle to which, by version and SHA-256 (None where there was none), when (UTC) and why.

    Of a promotion, `verdict`, `gates`, `data` and `n` are what the comparison found, `gates_sha256` names the limits, and
    `signed_by` the key; a rollback has none of them.
    """

    time: str
    action: Literal["promote", "rollback"]
    task: str
    before: str | None
    after: str
    before_sha256: str | None
    after_sha256: str
    reason: str | None = None
    verdict: str | None = None
    data: str | None = None
    n: int | None = None
    gates: tuple[dict[str, Any], ...] = ()
    gates_sha256: str | None = None
    signed_by: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The line, with `from` and `to` for the versions."""
        plain = asdict(self)
        renamed = {"before": "from", "after": "to", "before_sha256": "from_sha256", "after_sha256": "to_sha256"}
        return {renamed.get(name, name): value for name, value in plain.items()}

    @classmethod
    def of_json(cls, plain: dict[str, Any]) -> Switch:
        """The switch that a line tells of. Raises KeyError, TypeError or ValueError when it is none."""
        renamed = {"from": "before", "to": "after", "from_sha256": "before_sha256", "to_sha256": "after_sha256"}
        found = cls(**{renamed.get(name, name): value for name, value in plain.items()})
        if found.action not in ("promote", "rollback") or not isinstance(found.after, str):
            raise ValueError(found.action)
        return found


def read_history(models: Path) -> list[Switch]:
    """Every switch, in order; empty where there was none. Raises PromotionError naming the line that cannot be read."""
    path = models / HISTORY_FILE
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Switch.of_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PromotionError(f"{path}, line {number} cannot be read: restore the file, or take that line out") from error
    return found


def add_switch(models: Path, switch: Switch) -> None:
    """Append a line; it is on the disk when this returns, and the file is never half written."""
    path = models / HISTORY_FILE
    before = path.read_bytes() if path.is_file() else b""
    line = json.dumps(switch.as_json(), ensure_ascii=False, allow_nan=False) + "\n"
    write_durably(path, before + line.encode(), mode=PUBLIC_FILE)


def versions_back(history: Iterable[Switch], task: str, live: str | None) -> list[str]:
    """The versions of a task that can be gone back to, the most recent first; `live` is the one that serves now, if any does.

    A promotion lies on top of what was live before it, a rollback takes it off. A switch that was announced and never made, or
    that somebody made by hand, shows in what is live at the next one.
    """
    stack: list[str] = []
    for switch in history:
        if switch.task != task:
            continue
        if switch.before is not None:
            _found_live(stack, switch.before)
        if switch.action == "promote" or switch.after not in stack:
            stack.append(switch.after)
        else:
            _cut(stack, switch.after)
    if live is None:
        return stack[::-1]
    _found_live(stack, live)
    return [version for version in reversed(stack[:-1]) if version != live]


def sha256_of(history: Sequence[Switch], task: str, version: str) -> str | None:
    """The hash that a version of a task had when it was last switched to or from; None when no line knows it."""
    for switch in reversed(history):
        if switch.task == task and switch.after == version:
            return switch.after_sha256
        if switch.task == task and switch.before == version and switch.before_sha256:
            return switch.before_sha256
    return None


def _found_live(stack: list[str], version: str) -> None:
    """Make `version` the top: what lies above it never went live or was taken back, and an unknown one was put there by hand."""
    if version in stack:
        _cut(stack, version)
    else:
        stack.append(version)


def _cut(stack: list[str], version: str) -> None:
    last = len(stack) - 1 - stack[::-1].index(version)
    del stack[last + 1 :]
