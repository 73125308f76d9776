"""How often another company lets us ask: a bucket of tokens for each account and resource.

A source belongs to one worker, so its buckets live in that process; they outlive the looks of a
source, because the other side counts on between them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from connectors.sdk.retry import Trouble


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `burst` questions at once and `per_s` in a second over time."""

    per_s: float
    burst: int = 1


class Bucket:
    """Tokens of one resource. Threads may share it."""

    def __init__(self, rate: Rate, *, now: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:  # fmt: skip
        self._rate, self._now, self._sleep = rate, now, sleep
        self._tokens, self._at, self._rests_until = float(rate.burst), now(), 0.0
        self._lock = threading.Lock()

    def take(self, end: float) -> None:
        """Wait for a token. Raises Trouble, and takes none, when it cannot come before `end`."""
        with self._lock:
            now = self._now()
            self._fill(now)
            pause = max((1.0 - self._tokens) / self._rate.per_s, self._rests_until - now, 0.0)
            if now + pause > end:
                text = "the other side's limit leaves no room before the deadline"
                raise Trouble("rate-limited", text, after_s=pause)
            self._tokens -= 1.0
        if pause:
            self._sleep(pause)

    def spend(self, tokens: float) -> None:
        """What an answer has cost beyond one token, where the other side says so."""
        with self._lock:
            self._fill(self._now())
            self._tokens -= tokens

    def rest(self, seconds: float) -> None:
        """Nobody asks for so long: the other side wants it."""
        with self._lock:
            self._rests_until = max(self._rests_until, self._now() + seconds)

    def _fill(self, now: float) -> None:
        most = float(self._rate.burst)
        self._tokens = min(most, self._tokens + (now - self._at) * self._rate.per_s)
        self._at = now


_BUCKETS: dict[tuple[str, str], Bucket] = {}
_TURNS: dict[str, threading.BoundedSemaphore] = {}
_LOCK = threading.Lock()


def bucket_of(
    account: str, resource: str, rate: Rate, *, now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Bucket:  # fmt: skip
    """The one bucket of an account's resource in this process."""
    with _LOCK:
        found = _BUCKETS.get((account, resource))
        if found is None:
            found = _BUCKETS[account, resource] = Bucket(rate, now=now, sleep=sleep)
        return found


@contextlib.contextmanager
def turn_of(account: str, at_once: int, wait_s: float) -> Iterator[None]:
    """One of so many questions that an account may have under way; 0: as many as one likes.

    Raises Trouble when no turn comes in time.
    """
    if not at_once:
        yield
        return
    with _LOCK:
        turns = _TURNS.setdefault(account, threading.BoundedSemaphore(at_once))
    if not turns.acquire(timeout=max(0.0, wait_s)):
        raise Trouble("rate-limited", f"{at_once} questions of this account are under way")
    try:
        yield
    finally:
        turns.release()
