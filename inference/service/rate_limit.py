"""How often one caller may ask: `limits`' fixed window over a bounded table of callers.

It knows no request: a caller is a text. `limits`' own memory storage starts a thread for nearly every request at a
clinic's pace (0.6 ms of CPU each) and has no bound; this one sweeps when it must and keeps at most CALLERS_LIMIT.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from inference.errors import BusyError

CALLERS_LIMIT: Final = 50_000
SWEEP_PAUSE_SECONDS: Final = 1.0
_OTHERS: Final = "others"


class BoundedStorage(Storage):
    """Counters with an end. When the table is full of running ones, all further callers share one counter."""

    STORAGE_SCHEME = None

    def __init__(self, callers_limit: int = CALLERS_LIMIT, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._limit = callers_limit
        self._clock = clock
        self._swept_at = 0.0
        self._counts: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        """What `limits` may wrap; nothing here fails."""
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count a request; a new or ended counter starts again and runs for `expiry` seconds."""
        now = self._clock()
        if key not in self._counts and len(self._counts) >= self._limit and not self._sweep(now):
            key = _OTHERS
        count, ends_at = self._counts.get(key, (0, 0.0))
        if ends_at <= now:
            count, ends_at = 0, now + expiry
        self._counts[key] = (count + amount, ends_at)
        return count + amount

    def get(self, key: str) -> int:
        """The count of a running counter, else 0."""
        count, ends_at = self._counts.get(key, (0, 0.0))
        return count if ends_at > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        """When a counter ends (Unix seconds); now, when there is none."""
        now = self._clock()
        return self._counts.get(key, self._counts.get(_OTHERS, (0, now)))[1]

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget every counter."""
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one counter."""
        self._counts.pop(key, None)

    def _sweep(self, now: float) -> bool:
        """Drop ended counters, once a second at most; whether there is room now."""
        if now - self._swept_at >= SWEEP_PAUSE_SECONDS:
            self._swept_at = now
            self._counts = {key: kept for key, kept in self._counts.items() if kept[1] > now}
        return len(self._counts) < self._limit


class _PerMinute(RateLimitItemPerMinute):
    """So many a minute. The caller alone is the key: there is one limit, and this is asked for every request."""

    def key_for(self, *identifiers: str | float | bytes) -> str:
        return str(identifiers[0])


class RateLimit:
    """At most so many requests of one caller in a minute."""

    def __init__(self, requests_per_minute: int, storage: Storage | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._storage = storage or BoundedStorage(clock=clock)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._item = _PerMinute(requests_per_minute)

    def count(self, caller: str) -> None:
        """Count one request. Raises BusyError with the seconds until this caller's minute ends."""
        if not self._limiter.hit(self._item, caller):
            raise self._busy(caller)

    def check(self, caller: str) -> None:
        """Raises BusyError where `count` would; counts nothing."""
        if not self._limiter.test(self._item, caller):
            raise self._busy(caller)

    def _busy(self, caller: str) -> BusyError:
        seconds = self._storage.get_expiry(self._item.key_for(caller)) - self._clock()
        return BusyError(
            f"more than {self._item.amount} requests in a minute: send the next one after the time in Retry-After",
            retry_after_seconds=max(1, min(60, int(seconds) + 1)),
        )


@lru_cache(maxsize=4096)
def caller_of(address: str | None) -> str:
    """The caller behind a client's address. A site is given a whole /64 of IPv6, so that is one caller."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "address:unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if isinstance(parsed, ipaddress.IPv6Address):
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False).network_address}"
    return f"address:{parsed}"
