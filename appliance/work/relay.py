"""The relay: moves outbox rows to Redis, in order, and again when Redis has lost them.

Promises: `changes` rows reach the stream `events:{tenant}` in id order, at least once, with
their outbox id as `o` so that a reader can tell a repeat; a `job.*` row stays until its effect
is committed, so killing or wiping Redis delays a job and loses none. One relay at a time works
on a tenant (advisory lock), any number of workers may run one. Redis or a placement away: rows
stay, one warning a minute, it goes on alone.

A wake (sync/wake) makes a round for the tenants it names within milliseconds of their commit; a
round over all of them comes every POLL seconds whatever happens, so a lost wake only delays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import redis.asyncio as aioredis
from dramatiq.brokers.redis import RedisBroker
from redis.exceptions import OutOfMemoryError

from appliance.base import logs
from appliance.base.errors import ApplianceError
from appliance.base.pause import pause
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.sync.wake import GAP_S, Ear, Waker
from appliance.work.broker import BrokerDown, message_for, queue_room
from appliance.work.registry import TOPIC_PREFIX, JobSort

BATCH_ROWS = 500
STREAM_ENTRIES_MAX = 10_000
STREAM_ENTRIES_SCARCE = 500
STREAM_TTL_S = 3_600
RESEND_S = 30
POLL_BUSY_S, POLL_IDLE_S = 0.2, 1.0
DOWN_WAIT_MAX_S = 5.0
WARN_EVERY_S = 60.0
# A job kind of a newer worker may wait this long for one while an upgrade rolls on.
UNKNOWN_AFTER_S = 600

_WITH_WORK = Statement("SELECT tenant_id::text FROM tenants_with_work()")
_MINE = "(SELECT pg_try_advisory_xact_lock($2::bigint))"
_EVENTS = Statement(
    "SELECT id, payload FROM outbox WHERE tenant_id = $1 AND topic = 'changes' "
    f"AND dead_reason IS NULL AND due_at <= now() AND {_MINE} "
    "ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED"
)
_MOVED = Statement("DELETE FROM outbox WHERE tenant_id = $1 AND id = ANY($2::bigint[])")
_SEND = Statement(
    "WITH due AS (SELECT id FROM outbox WHERE tenant_id = $1 AND topic = ANY($3::text[]) "
    f"AND dead_reason IS NULL AND due_at <= now() AND {_MINE} "
    "ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED), "
    "sent AS (UPDATE outbox SET sent_at = now(), due_at = now() + make_interval(secs => $5) "
    "FROM due WHERE outbox.tenant_id = $1 AND outbox.id = due.id "
    "RETURNING outbox.id, substr(outbox.topic, 5) AS job_kind), "
    "shown AS (INSERT INTO job (tenant_id, id, outbox_id, job_kind) "
    "SELECT $1, gen_random_uuid(), id, job_kind FROM sent "
    "ON CONFLICT (tenant_id, outbox_id) WHERE outbox_id IS NOT NULL DO NOTHING) "
    "SELECT id, job_kind FROM sent ORDER BY id"
)
_UNSENT = Statement(
    "UPDATE outbox SET sent_at = NULL, due_at = now() "
    "WHERE tenant_id = $1 AND id = ANY($2::bigint[]) AND dead_reason IS NULL"
)
_RESEND = Statement(
    "UPDATE outbox o SET sent_at = NULL, due_at = now() FROM job j WHERE o.tenant_id = $1 "
    "AND j.tenant_id = $1 AND j.outbox_id = o.id AND o.sent_at IS NOT NULL "
    "AND o.dead_reason IS NULL AND (j.lease_until IS NULL OR j.lease_until < now())"
)
_UNKNOWN = Statement(
    "UPDATE outbox SET dead_reason = 'job.kind_unknown: no worker of this node knows the topic ' "
    "|| topic WHERE tenant_id = $1 AND topic <> 'changes' AND NOT topic = ANY($2::text[]) "
    "AND dead_reason IS NULL AND due_at <= now() "
    "AND created_at < now() - make_interval(secs => $3)"
)
# Nothing waits longer by intent, but for a clock that was ahead when the row was written.
AHEAD_S = 3_600
_NOT_AHEAD = (
    Statement(
        "UPDATE job SET lease_until = now() WHERE tenant_id = $1 "
        "AND lease_until > now() + make_interval(secs => $2)"
    ),
    Statement(
        "UPDATE outbox SET sent_at = NULL, due_at = now() WHERE tenant_id = $1 "
        "AND dead_reason IS NULL AND due_at > now() "
        "+ CASE topic WHEN 'changes' THEN interval '0' ELSE make_interval(secs => $2) END"
    ),
)
# The clock of the machine was set back when it lost so much against one that only runs.
SET_BACK_S = 5.0
# After that one looks for so long, so often: what was being written then is committed later, and a
# database may be away just then.
SETTLE_S, LOOK_S = 150.0, 10.0


@dataclass
class Tally:
    """What this relay has done, for /health."""

    moved: int = 0
    sent: int = 0
    state: str = "starting"
    redis_run: str = field(default="", repr=False)


class Relay:
    """One per worker process."""

    def __init__(
        self,
        db: Database,
        broker: RedisBroker,
        events: aioredis.Redis,
        jobs: dict[str, JobSort],
        waker: Waker,
    ) -> None:
        self.tally = Tally()
        self._db = db
        self._waker = waker
        self._broker = broker
        self._events = events
        self._queues = {TOPIC_PREFIX + kind: sort.queue for kind, sort in jobs.items()}
        self._warned: dict[str, float] = {}
        # By how much the clock is before the monotonic one; at the start any is less.
        self._ahead = float("inf")
        self._settled_at = self._look_at = 0.0

    async def follow(self, stop: asyncio.Event) -> None:
        """Relay until `stop`: when woken, and by itself, seldom while there is nothing to do."""
        with self._waker.listen() as ear:
            ending = asyncio.create_task(_ring_at(stop, ear))
            try:
                await self._follow(ear, stop)
            finally:
                ending.cancel()

    async def _follow(self, ear: Ear, stop: asyncio.Event) -> None:
        clock = time.monotonic
        wait, due = POLL_BUSY_S, clock()
        named: Collection[UUID] | None = None
        while not stop.is_set():
            began = clock()
            try:
                moved = await self.relay_once(named)
            except (*BrokerDown, ApplianceError) as error:
                self._note_down(error)
                wait = min(wait * 2, DOWN_WAIT_MAX_S)
                # Not to be woken from: what is away stays away, however much is committed.
                await pause(stop, wait)
                named = None
                continue
            self.tally.state = "up"
            if named is None:
                wait = POLL_BUSY_S if moved else min(wait * 1.5, POLL_IDLE_S)
                due = clock() + wait
            if moved >= BATCH_ROWS:
                named = named if clock() < due else None
                continue
            if named is not None:
                # However many commits there are, so many rounds and no more.
                await pause(stop, began + GAP_S - clock())
            is_woken = await ear.wait(due - clock())
            heard = ear.take()
            named = heard if is_woken and clock() < due else None

    def _note_down(self, error: Exception) -> None:
        if isinstance(error, ApplianceError):
            self.tally.state = "database_down"
            self._warn("relay.database_down", "PostgreSQL", error)
        else:
            self.tally.state = "redis_down"
            self._warn("relay.redis_down", "Redis", error)

    async def relay_once(self, named: Collection[UUID] | None = None) -> int:
        """One round over the named tenants, or over every placement; how many rows left. Raises
        what Redis raises.
        """
        room = await asyncio.to_thread(queue_room, self._broker)
        if named is not None:
            # A wake is a hint from outside: only tenants of this node are looked for.
            known = [t for t in named if self._db.routes.knows(t)]
            return sum([await self._relay_tenant(t, room) for t in known])
        await self._notice_restart()
        await self._notice_clock()
        moved = 0
        for target in sorted({r.target for r in self._db.routes.all()}):
            try:
                async with self._db.wire(target) as wire:
                    (rows,) = await wire.run([(_WITH_WORK, ())])
            except ApplianceError as error:
                # One database away must not hold up the tenants of the others.
                self._warn("relay.placement_down", target, error)
                continue
            for tenant in rows.column():
                moved += await self._relay_tenant(UUID((tenant or b"").decode()), room)
        return moved

    async def _relay_tenant(self, tenant: UUID, room: dict[str, int]) -> int:
        try:
            moved = await self._move_events(tenant)
            sent = await self._send_jobs(tenant, room)
        except ApplianceError as error:
            # Suspended or moving: its rows wait where they are.
            self._warn("relay.tenant_skipped", str(tenant), error)
            return 0
        self.tally.moved += moved
        self.tally.sent += sent
        return moved + sent

    async def _move_events(self, tenant: UUID) -> int:
        async with self._db.transaction(tenant) as tx:
            call: Call = (_EVENTS, (tenant, _lock_key(tenant), BATCH_ROWS))
            (rows,) = await tx.run(call)
            found = [(int(ident or 0), payload or b"{}") for ident, payload in rows]
            if found:
                await self._publish(tenant, found)
                await tx.run((_MOVED, (tenant, [i for i, _ in found])), commit=True)
        return len(found)

    async def _publish(self, tenant: UUID, found: Sequence[tuple[int, bytes]]) -> None:
        key = f"events:{tenant}"
        pipe = self._events.pipeline(transaction=False)
        for ident, payload in found:
            pipe.xadd(
                key, {"o": ident, "data": payload}, maxlen=STREAM_ENTRIES_MAX, approximate=True
            )
        pipe.expire(key, STREAM_TTL_S)
        try:
            await pipe.execute()
        except OutOfMemoryError:
            # What is in PostgreSQL still comes; readers of a trimmed stream read afresh.
            await self._events.xtrim(key, maxlen=STREAM_ENTRIES_SCARCE, approximate=False)
            raise

    async def _send_jobs(self, tenant: UUID, room: dict[str, int]) -> int:
        open_topics = [t for t, q in self._queues.items() if room.get(q, 0) > 0]
        limit = min([BATCH_ROWS, *(room[self._queues[t]] for t in open_topics)])
        unknown: Call = (_UNKNOWN, (tenant, sorted(self._queues), UNKNOWN_AFTER_S))
        call: Call = (_SEND, (tenant, _lock_key(tenant), open_topics, limit, RESEND_S))
        async with self._db.transaction(tenant) as tx:
            buried, rows = await tx.run(unknown, call, commit=True)
        if buried.affected:
            logs.event("relay.topic_unknown", level="error", tenant=tenant, count=buried.affected)
        # Only now: an actor that looks before the commit would find nothing and go away.
        return await self._ring(tenant, rows, room)

    async def _ring(self, tenant: UUID, rows: Rows, room: dict[str, int]) -> int:
        due = [(int(ident or 0), (kind or b"").decode()) for ident, kind in rows]
        if not due:
            return 0
        for _, kind in due:
            room[self._queues[TOPIC_PREFIX + kind]] -= 1
        try:
            await asyncio.to_thread(self._enqueue, tenant, due)
        except BrokerDown:
            async with self._db.transaction(tenant) as tx:
                await tx.run((_UNSENT, (tenant, [i for i, _ in due])), commit=True)
            raise
        return len(due)

    def _enqueue(self, tenant: UUID, due: Sequence[tuple[int, str]]) -> None:
        for ident, kind in due:
            queue = self._queues[TOPIC_PREFIX + kind]
            self._broker.enqueue(message_for(queue, str(tenant), ident, kind))

    async def _notice_clock(self) -> None:
        """What was written while the clock was ahead would wait until then: it is due now. Looked
        for after the start and whenever the clock was set back.
        """
        at = time.monotonic()
        ahead = time.time() - at
        if self._ahead - ahead > SET_BACK_S:
            self._settled_at, self._look_at = at + SETTLE_S, at
        if self._look_at <= at < self._settled_at:
            self._look_at = at + LOOK_S
            for route in self._db.routes.all():
                try:
                    async with self._db.transaction(route.tenant) as tx:
                        calls: list[Call] = [(s, (route.tenant, AHEAD_S)) for s in _NOT_AHEAD]
                        await tx.run(*calls, commit=True)
                except ApplianceError as error:
                    self._warn("relay.tenant_skipped", str(route.tenant), error)
        self._ahead = ahead

    async def _notice_restart(self) -> None:
        """A Redis that was started anew may have lost messages: send what is not being run."""
        run = str((await self._events.info("server")).get("run_id", ""))
        if run == self.tally.redis_run:
            return
        if self.tally.redis_run:
            logs.event("relay.redis_restarted", level="warning")
            for route in self._db.routes.all():
                try:
                    async with self._db.transaction(route.tenant) as tx:
                        await tx.run((_RESEND, (route.tenant,)), commit=True)
                except ApplianceError as error:
                    self._warn("relay.tenant_skipped", str(route.tenant), error)
        self.tally.redis_run = run

    def _warn(self, event: str, about: str, error: Exception) -> None:
        at = time.monotonic()
        if at - self._warned.get(event, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned[event] = at
            logs.event(event, level="warning", dependency=about, error_type=type(error).__name__)


async def _ring_at(stop: asyncio.Event, ear: Ear) -> None:
    await stop.wait()
    ear.ring(None)


def _lock_key(tenant: UUID) -> int:
    """The tenant's own advisory lock: bits of its id, made to fit a signed bigint."""
    return int.from_bytes(tenant.bytes[8:], "big", signed=True)
