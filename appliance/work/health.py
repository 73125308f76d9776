"""The worker's pulse: a Redis key that says who works, what was moved and what waits.

Promises: the key expires by itself, so a dead worker is seen as missing within PULSE_TTL_S;
it holds counts only. The API reads it for /health and /metrics.
"""

from __future__ import annotations

import asyncio
import os
from datetime import datetime

import msgspec
import redis.asyncio as aioredis

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError
from appliance.base.pause import pause
from appliance.db.wire import Statement
from appliance.work.broker import BrokerDown
from appliance.work.node import WorkNode
from appliance.work.relay import Relay
from appliance.work.schedule import Scheduler

PULSE_S = 5.0
PULSE_TTL_S = 15
PREFIX = "nexus:worker:"

_STATE = Statement("SELECT waiting, dead, oldest_s FROM outbox_state()")


class Waiting(msgspec.Struct, frozen=True):
    """One placement's outbox: rows waiting, dead letters, age of the oldest waiting row."""

    waiting: int
    dead: int
    oldest_s: float


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process, as it was at `at`."""

    at: datetime
    name: str
    pid: int
    is_leader: bool
    state: str
    moved: int
    sent: int
    outbox: dict[str, Waiting]


async def beat(
    node: WorkNode, relay: Relay, scheduler: Scheduler, client: aioredis.Redis, stop: asyncio.Event
) -> None:
    """Write the pulse until `stop`, then take it away."""
    key = f"{PREFIX}{node.name}:{os.getpid()}"
    while not stop.is_set():
        pulse = Pulse(
            at=now(), name=node.name, pid=os.getpid(), is_leader=scheduler.is_leader,
            state=relay.tally.state, moved=relay.tally.moved, sent=relay.tally.sent,
            outbox=await outbox_state(node),
        )  # fmt: skip
        try:
            await client.set(key, msgspec.json.encode(pulse), ex=PULSE_TTL_S)
        except BrokerDown as error:
            logs.event("worker.pulse_missed", error_type=type(error).__name__)
        await pause(stop, PULSE_S)
    try:
        await client.delete(key)
    except BrokerDown as error:
        logs.event("worker.pulse_missed", error_type=type(error).__name__)


async def outbox_state(node: WorkNode) -> dict[str, Waiting]:
    """What waits in each placement; one that does not answer is left out."""
    found: dict[str, Waiting] = {}
    for target in sorted({r.target for r in node.db.routes.all()}):
        try:
            async with node.db.wire(target) as wire:
                (rows,) = await wire.run([(_STATE, ())])
        except ApplianceError as error:
            logs.event("worker.placement_down", dependency=target, code=error.code)
            continue
        row = rows.first()
        assert row is not None, "an aggregate answers one row"
        found[target] = Waiting(int(row[0] or 0), int(row[1] or 0), float(row[2] or 0))
    return found


async def workers_alive(client: aioredis.Redis) -> list[Pulse]:
    """The pulses of all workers on this Redis. Raises redis.RedisError."""
    found: list[Pulse] = []
    async for key in client.scan_iter(match=PREFIX + "*"):
        raw = await client.get(key)
        if raw is not None:
            found.append(msgspec.json.decode(raw, type=Pulse))
    return sorted(found, key=lambda p: (p.name, p.pid))
