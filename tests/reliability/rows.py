"""The table's rows: what each tries, how often at full size and in `make test`, and on which databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reliability import (
    by_pytest,
    claims,
    histories,
    keys,
    kills,
    long_queue,
    malice,
    memory,
    model_faults,
    overload,
    storage_faults,
    swaps,
    worsening,
)
from reliability.outcome import Ground, Outcome

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
_BOTH = (SQLITE, POSTGRES)


@dataclass(frozen=True)
class Row:
    """`full` and `short` are sizes, in what `unit` says; `short` is None where `make test` runs the same thing anyway.

    `minutes` is how long the full size may take before it is given up; `fixed` sizes do not follow --scale.
    """

    name: str
    what: str
    run: Callable[[float, Ground], Outcome]
    full: float
    unit: str
    short: float | None
    minutes: float
    databases: tuple[str, ...] = (SQLITE,)
    fixed: bool = False


def _short_models(size: float, ground: Ground) -> Outcome:
    """A model that hangs, for as long as the size says is needed to see it."""
    return model_faults.run_models(int(size), ground, model_faults.HANG_SECONDS if ground.is_timed else 4.0)


ROWS = (
    Row("kills", "kill -9 during posts, 20 times", lambda n, g: kills.run(int(n), g, kills.KILLS if g.is_timed else 2), 10_000, "posts", 150, 30, _BOTH),
    Row("keys", "one idempotency key, 50 at once", lambda n, g: keys.run(int(n), g), 200, "keys", 4, 15, _BOTH),
    Row("claims", "two clinicians, one case, 20 workers", lambda n, g: claims.run(int(n), g), 2000, "races", 60, 15, _BOTH),
    Row("histories", "claim, release, complete histories", histories.run, 10_000, "histories", None, 60, _BOTH),
    Row("bundles", "bundles missing, corrupt, wrongly signed", lambda n, g: model_faults.run_bundles(int(n), g), 1000, "cases a fault", 10, 20),
    Row("models", "models that raise, answer NaN, hang 30 s", _short_models, 1000, "cases a fault", 12, 20),
    Row("swaps", "bundles promoted and rolled back under load", lambda n, g: swaps.run(int(n), g), 20, "switches", 2, 20),
    Row("full disk", "a disk that is full", storage_faults.run_full_disk, 20, "seconds", 1, 10),
    Row("read-only disk", "a disk that is read-only", storage_faults.run_read_only, 20, "seconds", 1, 10),
    Row("database gone", "the database gone, frozen, locked", storage_faults.run_gone, 30, "seconds", 2, 10, _BOTH),
    Row("overload", "5 times the capacity", overload.run_overload, 180, "seconds", 3, 20, _BOTH),
    Row("worsening", "a vital that worsens, a red sign more", lambda n, g: worsening.run(int(n), g), 20_000, "cases", 300, 20),
    Row("hostile models", "malicious ONNX through reload", lambda n, g: malice.run_models(int(n), g), 1000, "kinds at most", 16, 20, fixed=True),
    Row("hostile photos", "image bombs, polyglots, truncated files", lambda n, g: malice.run_photos(int(n), g), 1000, "files at most", 20, 20, fixed=True),
    Row("fuzz", "fuzzed JSON and FHIR", by_pytest.run_fuzz, 5000, "requests", None, 60),
    Row("routes", "every route, role and foreign clinic", by_pytest.running("routes", "test_api_access.py", "test_access.py"), 1, "run", None, 20, fixed=True),
    Row("identifiers", "planted identifiers", by_pytest.running("identifiers", "test_api_privacy.py"), 1, "run", None, 20, fixed=True),
    Row("audit", "audit rows edited, deleted, reordered, cut off", by_pytest.running("audit", "test_audit.py"), 1, "run", None, 20, fixed=True),
    Row("long queue", "a page of 50 of a long queue", lambda n, g: long_queue.run(int(n), g, 500 if g.is_timed else 10), 1_000_000, "open referrals", 5000, 45, _BOTH),
    Row("memory", "cases with photos", lambda n, g: memory.run(int(n), g), 10_000, "cases", 40, 60),
)  # fmt: skip
