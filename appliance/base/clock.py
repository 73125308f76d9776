"""Time: aware moments, and the hybrid logical clock that every log entry carries.

HLC is 48 bit milliseconds and a 16 bit counter (Kulkarni et al. 2014). It orders entries for
display and for the few newest-wins fields; causality never comes from it (docs/write-path.md).
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

RECEIVE_CAP_MS = 60_000


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class HybridClock:
    """One per process; `wall_ms` is injectable so that tests can skew it."""

    def __init__(self, wall_ms: object = None) -> None:
        self._wall = wall_ms if callable(wall_ms) else (lambda: time.time_ns() // 1_000_000)
        self._lock = threading.Lock()
        self._last = 0

    def tick(self) -> int:
        """The next HLC: never lower than any given out or received before."""
        with self._lock:
            self._last = max(self._last + 1, int(self._wall()) << 16)
            return self._last

    def receive(self, remote: int) -> None:
        """Move on past a peer's HLC, but never more than a minute ahead of the wall clock."""
        with self._lock:
            cap = (int(self._wall()) + RECEIVE_CAP_MS) << 16
            self._last = max(self._last, min(remote, cap))


def hlc_moment(hlc: int) -> datetime:
    """The wall time inside an HLC, millisecond precision."""
    return datetime.fromtimestamp((hlc >> 16) / 1000, UTC)
