"""What is known of a conversation beside its positions: when, how much, what went wrong last.

Kept in Redis for some weeks, because nothing follows from it but what a person reads in a status:
positions are in PostgreSQL (sync.positions), and a Redis that is away takes only this with it.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import RedisError

KEPT_S = 30 * 86_400
NOW_KEPT_S = 300
# An idle conversation is noted this often.
SELDOM_S = 20.0


class Health(msgspec.Struct, frozen=True):
    """Of one peer and tenant. Bytes are those of bodies and heads, since the key was made."""

    seen_ms: int = 0
    protocol: int = 0
    lag: int = 0
    clock_off_s: int = 0
    sent: int = 0
    received: int = 0
    failures: int = 0
    last_error: str = ""
    last_error_ms: int = 0
    notices: str = ""


class HealthBook:
    """Where a process notes how its conversations go; a Redis that is away is passed over."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._seen: dict[tuple[UUID, int], float] = {}

    async def note(
        self, tenant: UUID, peer: int, *, sent: int = 0, received: int = 0, **facts: str | int
    ) -> None:
        """The peer was heard: add bytes, replace `facts` (fields of Health)."""
        place, at = (tenant, peer), time.monotonic()
        if not (sent or received or facts) and at - self._seen.get(place, -SELDOM_S) < SELDOM_S:
            return
        self._seen[place] = at
        noted: dict[str, str | int] = {"seen_ms": _now_ms(), **facts}
        await self._write(tenant, peer, noted, sent, received)

    async def fail(self, tenant: UUID, peer: int, code: str, failures: int) -> None:
        """Nothing was heard; why, and how often in a row."""
        facts: dict[str, str | int] = {
            "last_error": code, "last_error_ms": _now_ms(), "failures": failures
        }  # fmt: skip
        await self._write(tenant, peer, facts, 0, 0)

    async def _write(
        self, tenant: UUID, peer: int, facts: dict[str, str | int], sent: int, received: int
    ) -> None:
        key = _key(tenant, peer)
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(key, mapping=dict(facts.items()))
                for name, count in (("sent", sent), ("received", received)):
                    if count:
                        pipe.hincrby(key, name, count)
                pipe.expire(key, KEPT_S)
                await pipe.execute()


async def read_health(redis: aioredis.Redis, tenant: UUID, peer: int) -> Health:
    """What was noted last; empty when nothing was, or when Redis is away."""
    try:
        found: Any = await redis.hgetall(_key(tenant, peer))
    except (RedisError, OSError, TimeoutError):
        return Health()
    told = {name.decode(): value.decode() for name, value in found.items()}
    return msgspec.convert(told, Health, strict=False)


async def ask_now(redis: aioredis.Redis, tenant: UUID) -> None:
    """Leave word that a conversation should not wait any longer; `wake` says that it is there."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await redis.set(f"nexus:sync:now:{tenant}", b"1", ex=NOW_KEPT_S)


async def take_now(redis: aioredis.Redis, tenant: UUID) -> bool:
    """Whether such a word was left; it is taken."""
    try:
        return await redis.getdel(f"nexus:sync:now:{tenant}") is not None
    except (RedisError, OSError, TimeoutError):
        return False


def _key(tenant: UUID, peer: int) -> str:
    return f"nexus:sync:{tenant}:{peer}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
