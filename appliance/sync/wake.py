"""Wakes: after a commit, whoever waits for it hears of it now instead of at their next look.

A wake is a PUBLISH of tenant ids and nothing else: it carries no fact, needs no answer and is
never inside a transaction (a NOTIFY would lock every commit of the cluster, research/sync 2.10).
Promises: a process sends at most one wake in GAP_S, for however many commits and tenants; a
Redis that is away raises nothing and holds nobody up, it only turns waiting into plain time-outs;
one who listens cannot lose a wake between two waits; after a reconnect everybody is woken once,
for nobody knows what was said meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import RedisError

from appliance.db.database import Database, unheard

CHANNEL = "nexus:wake"
GAP_S = 0.05
# How long a wake may take to leave, where somebody waits for that.
LEAVE_S = 0.2
AWAY_S = 1.0
QUIET_S = 30.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 2.0
_ID_BYTES = 16


async def wake(redis: aioredis.Redis, tenant: UUID) -> None:
    """Say once that `tenant` has something new; call it behind the commit. Raises nothing.

    Commits of `Database.transaction` that leave rows in the outbox ring by themselves (`Bell`).
    """
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            await redis.publish(CHANNEL, tenant.bytes)


class Bell:
    """The sender of one process: `ring` is for `Database.announce`, it costs an entry in a set."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._tenants: set[UUID] = set()
        self._sending: asyncio.Task[None] | None = None

    def ring(self, tenant: UUID) -> None:
        """Wake those who wait for `tenant`: at once, or together with others GAP_S later."""
        self._tenants.add(tenant)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def close(self) -> None:
        """Let what was rung leave, for LEAVE_S at most."""
        sending, self._sending = self._sending, None
        if sending is not None:
            await asyncio.wait({sending}, timeout=LEAVE_S)
            sending.cancel()
            await asyncio.wait({sending})

    async def _send(self) -> None:
        while self._tenants:
            told, self._tenants = self._tenants, set()
            try:
                await self._redis.publish(CHANNEL, b"".join(t.bytes for t in told))
            except (RedisError, OSError):
                # Not kept: what was not heard is found by looking.
                await asyncio.sleep(AWAY_S)
            else:
                await asyncio.sleep(GAP_S)


@contextlib.asynccontextmanager
async def ringing(db: Database, redis: aioredis.Redis) -> AsyncIterator[None]:
    """The commits of `db` ring a bell for as long as the block lasts."""
    bell = Bell(redis)
    db.announce = bell.ring
    try:
        yield
    finally:
        db.announce = unheard
        await bell.close()


class Ear:
    """One who waits. What is rung between two waits ends the next one at once."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._heard: set[UUID] = set()
        self._is_vague = False

    def ring(self, tenant: UUID | None) -> None:
        """End the wait; None when it is not known for which tenants."""
        if tenant is None:
            self._is_vague = True
        else:
            self._heard.add(tenant)
        self._rung.set()

    async def wait(self, timeout_s: float) -> bool:
        """True when woken, false when `timeout_s` passed in silence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._rung.wait()
        woken = self._rung.is_set()
        self._rung.clear()
        return woken

    def take(self) -> set[UUID] | None:
        """The tenants rung for since the last `take`; None: look at all of them."""
        heard, vague = self._heard, self._is_vague
        self._heard, self._is_vague = set(), False
        return None if vague else heard


class Waker:
    """The receiver of one process: one connection, opened when the first one listens."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._ears: dict[UUID | None, set[Ear]] = {}
        self._following: asyncio.Task[None] | None = None

    async def wait(self, tenant: UUID | None, timeout_s: float) -> bool:
        """Wait for a commit of `tenant` (None: of any); false when the time passed.

        It hears what is rung from now on. Where something is looked at between two waits, or
        before the first, use `listen`: its ear hears what comes during the look.
        """
        with self.listen(tenant) as ear:
            return await ear.wait(timeout_s)

    @contextlib.contextmanager
    def listen(self, tenant: UUID | None = None) -> Iterator[Ear]:
        """An ear for `tenant` (None: for all) as long as the block lasts: listen, look, wait."""
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._follow())
        ear = Ear()
        ears = self._ears.setdefault(tenant, set())
        ears.add(ear)
        try:
            yield ear
        finally:
            ears.discard(ear)
            if not ears and self._ears.get(tenant) is ears:
                del self._ears[tenant]

    async def close(self) -> None:
        """Give the connection back; who still waits waits for the time-out."""
        following, self._following = self._following, None
        # More than once: a client that is just connecting may lose the word.
        while following is not None and not following.done():
            following.cancel()
            await asyncio.wait({following}, timeout=1.0)

    async def _follow(self) -> None:
        retry = RETRY_FIRST_S
        while True:
            try:
                async with self._redis.pubsub() as heard:
                    await heard.subscribe(CHANNEL)
                    retry = RETRY_FIRST_S
                    await self._hear(heard)
            except (RedisError, OSError):
                await asyncio.sleep(retry)
                retry = min(retry * 2, RETRY_MAX_S)

    async def _hear(self, heard: Any) -> None:
        """Pass on what comes. Raises RedisError when the line is dead, silently or not."""
        asked = False
        while True:
            message = await heard.get_message(timeout=QUIET_S)
            if message is None:
                if asked:
                    raise RedisGone("no answer to a ping")
                await heard.ping()
                asked = True
                continue
            asked = False
            match message["type"]:
                case "message":
                    self._pass_on(message["data"])
                case "subscribe":
                    # Also after a reconnect of the client's own making.
                    self._ring_all()

    def _pass_on(self, told: bytes) -> None:
        whole = len(told) - len(told) % _ID_BYTES
        for start in range(0, whole, _ID_BYTES):
            tenant = UUID(bytes=told[start : start + _ID_BYTES])
            for listeners in (self._ears.get(tenant), self._ears.get(None)):
                for ear in listeners or ():
                    ear.ring(tenant)

    def _ring_all(self) -> None:
        for ears in self._ears.values():
            for ear in ears:
                ear.ring(None)
