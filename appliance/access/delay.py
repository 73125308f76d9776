"""The brake on guessing: a failed attempt delays the next one, longer each time, never for good.

Nothing is ever locked by guessing, because that would let anybody lock anybody out (research/
security 4.3). Attempts on one account take turns within a process, so that parallel guesses do
not slip past the count; failures of addresses nobody has are counted like all others, so that
the brake does not tell which addresses exist.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from hashlib import sha256
from uuid import UUID
from weakref import WeakKeyDictionary

from appliance.base.errors import Limited
from appliance.base.settings import Login
from appliance.db.wire import Call, Rows, Statement

DELAY_MAX_S = 900
# Failures are forgotten after a day without one.
FORGET_S = 86_400
_STRIPES = 256
_UNKNOWN_MAX = 10_000

_READ = Statement(
    "SELECT failures, extract(epoch FROM now() - failed_at)::float8 FROM sign_in_delay "
    "WHERE tenant_id = $1 AND address_hash = $2 AND failed_at > now() - interval '1 day'"
)
_FAILED = Statement(
    "INSERT INTO sign_in_delay AS d (tenant_id, address_hash, failures) VALUES ($1, $2, 1) "
    "ON CONFLICT (tenant_id, address_hash) DO UPDATE SET failed_at = now(), failures = "
    "CASE WHEN d.failed_at > now() - interval '1 day' THEN least(d.failures, 1000) + 1 ELSE 1 END"
)
_PASSED = Statement("DELETE FROM sign_in_delay WHERE tenant_id = $1 AND address_hash = $2")
_FORGET = Statement(
    "DELETE FROM sign_in_delay WHERE tenant_id = $1 AND address_hash IN (SELECT address_hash "
    "FROM sign_in_delay WHERE tenant_id = $1 AND failed_at < now() - interval '1 day' LIMIT 1000)"
)


def address_hash(tenant: UUID, email: str) -> bytes:
    """What an address is counted under; the table holds no addresses of strangers."""
    return sha256(tenant.bytes + email.encode("utf-8", "replace")).digest()


def read_call(tenant: UUID, address: bytes) -> Call:
    """Ask for the failures of an address."""
    return _READ, (tenant, address)


def failed_call(tenant: UUID, address: bytes) -> Call:
    """Count a failure."""
    return _FAILED, (tenant, address)


def passed_calls(tenant: UUID, address: bytes) -> list[Call]:
    """Forget the failures of an address, and all that are old."""
    return [(_PASSED, (tenant, address)), (_FORGET, (tenant,))]


def check_rows(rows: Rows, policy: Login) -> None:
    """Refuse an attempt that comes too soon. Raises Limited."""
    row = rows.first()
    if row is not None:
        check(int(row[0] or 0), float(row[1] or 0), policy)


def check(failures: int, age_s: float, policy: Login) -> None:
    """Refuse an attempt `age_s` after the last of so many failures. Raises Limited."""
    wait = wait_s(failures, policy) - age_s
    if wait > 0:
        raise Limited(
            "Too many failed attempts for this account; wait and try again.",
            code="session.delayed",
            retry_after_s=int(wait) + 1,
        )


def wait_s(failures: int, policy: Login) -> int:
    """The delay after so many failures: none, then 1, 2, 4 … seconds up to a quarter of an hour."""
    beyond = failures - policy.failures_before_delay
    return 0 if beyond < 0 else min(DELAY_MAX_S, 2 ** min(beyond, 20))


class Turns:
    """One attempt at a time for one account; a stripe is shared by a few."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Lock]] = (
            WeakKeyDictionary()
        )

    def of(self, key: bytes) -> asyncio.Lock:
        """The lock of an account; locks belong to an event loop."""
        loop = asyncio.get_running_loop()
        locks = self._locks.setdefault(loop, [])
        if not locks:
            locks += [asyncio.Lock() for _ in range(_STRIPES)]
        return locks[key[0]]


class Strangers:
    """Failures where there is no row to count them in: unknown tenants, unknown staff."""

    def __init__(self) -> None:
        self._failures: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def check(self, key: bytes, policy: Login) -> None:
        """See `check`. Raises Limited."""
        failures, at = self._failures.get(key, (0, 0.0))
        if time.monotonic() - at < FORGET_S:
            check(failures, time.monotonic() - at, policy)

    def note_failure(self, key: bytes) -> None:
        """Count a failure; the oldest of very many are forgotten."""
        failures, _ = self._failures.pop(key, (0, 0.0))
        self._failures[key] = (failures + 1, time.monotonic())
        if len(self._failures) > _UNKNOWN_MAX:
            self._failures.popitem(last=False)
