"""What goes wrong on the way to other systems: for good or for now, and when to try again.

A `Trouble` is permanent (a changed host key, a wrong password: a person has to do something) or
transient. Transient ones are tried again after full-jitter back-off, or after what the other side
asks for, until the deadline of the source; a source that fails again and again rests.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

T = TypeVar("T")
_random = secrets.SystemRandom()
_FULL = (errno.ENOSPC, errno.EDQUOT)
# RFC 9110, and 420 of Yandex Market (research/connectors 11).
TRANSIENT_STATUSES = frozenset({408, 420, 421, 425, 429, 500, 502, 503, 504, 520, 522, 524})


class Trouble(Exception):
    """Something went wrong at the other side or on the way.

    `code` for programs, `detail` for people; `after_s`: what the other side asked to wait.
    """

    def __init__(
        self, code: str, detail: str, *, is_permanent: bool = False, after_s: float = 0.0
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.is_permanent = is_permanent
        self.after_s = after_s


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long and how often: `deadline_s` bounds all tries of one piece of work together."""

    tries: int = 6
    first_s: float = 1.0
    most_s: float = 120.0
    deadline_s: float = 900.0


def wait_before(policy: Policy, tried: int, after_s: float = 0.0) -> float:
    """Seconds before the next try: full jitter below a doubling bound, never sooner than asked."""
    bound = min(policy.most_s, policy.first_s * 2.0 ** min(tried, 30))
    return max(after_s, _random.uniform(0.0, bound))


async def retry(
    work: Callable[[], Awaitable[T]], policy: Policy, *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:  # fmt: skip
    """Do it until it is done. Raises Trouble: a permanent one at once, the last one in the end."""
    end = now() + policy.deadline_s
    tried = 0
    while True:
        try:
            async with asyncio.timeout(max(0.001, end - now())):
                return await work()
        except (Trouble, OSError, TimeoutError) as error:
            trouble = as_trouble(error)
        pause = wait_before(policy, tried, trouble.after_s)
        tried += 1
        if trouble.is_permanent or tried >= policy.tries or now() + pause >= end:
            raise trouble
        await sleep(pause)


def as_trouble(error: BaseException) -> Trouble:
    """An error of sockets and files in the words of this file."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", "")
        text = f"the server's certificate is not trusted: {why}"
        return Trouble("certificate-untrusted", text, is_permanent=True)
    if isinstance(error, ssl.SSLError):
        return Trouble("tls-failed", f"no TLS connection was made: {error.reason or error}")
    if isinstance(error, socket.gaierror):
        return Trouble("name-unresolved", "the name of the server has no address just now")
    if isinstance(error, TimeoutError):
        return Trouble("timeout", "the other side did not answer in time")
    if isinstance(error, OSError) and error.errno in _FULL:
        return Trouble("disk-full", "there is no room for the file here; free space")
    if isinstance(error, PermissionError):
        return Trouble("not-allowed", f"access is refused: {error.strerror}", is_permanent=True)
    if isinstance(error, OSError):
        return Trouble("connection-failed", error.strerror or str(error)[:100])
    return Trouble("failed", type(error).__name__)


def read_retry_after(value: str, now: datetime | None = None) -> float:
    """Seconds of a Retry-After header, as a number or a date; 0 when it says nothing readable."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), 86_400.0)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()), 86_400.0)


class Breaker:
    """Rests a source that keeps failing: one try after each rest until one succeeds."""

    def __init__(self, failures_most: int = 5, rest_s: float = 600.0) -> None:
        self._most, self._rest_s = failures_most, rest_s
        self._failures = 0
        self._until = 0.0

    def allows(self, now: float) -> bool:
        """Whether a try may be made."""
        return now >= self._until

    def note(self, now: float, trouble: Trouble | None) -> None:
        """How a try ended. A permanent trouble rests the source at once, for longer each time."""
        if trouble is None:
            self._failures, self._until = 0, 0.0
            return
        self._failures = max(self._failures + 1, self._most if trouble.is_permanent else 0)
        if self._failures >= self._most:
            self._until = now + self._rest_s * min(self._failures - self._most + 1, 6)
