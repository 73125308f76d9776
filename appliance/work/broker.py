"""Dramatiq over Redis as a bell: a message says which outbox row to look at, and no more.

Promises: a message carries `{tenant, outbox_id, job_kind}` only, anything else is dropped, so
whoever can write to Redis can at most make a worker look at a row; actors run on the node's
own event loop (one colour of I/O, one pool of connections); tries and back-off belong to the
outbox, so the broker retries nothing. `maintenance_chance` is far above the default because a
quiet branch otherwise hands a dead worker's messages on after hours (research/deploy 1.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import redis
from dramatiq import Message, MessageProxy, Middleware, Worker
from dramatiq.actor import Actor
from dramatiq.asyncio import EventLoopThread, set_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import SkipMessage

from appliance.base import logs
from appliance.base.ids import parse_uuid
from appliance.work.node import WorkNode
from appliance.work.perform import perform
from appliance.work.registry import mounted_jobs

R = TypeVar("R")
Task = asyncio.Task[object]

NAMESPACE = "nexus"
HEARTBEAT_TIMEOUT_MS = 15_000
MAINTENANCE_CHANCE = 50_000
DEAD_MESSAGE_TTL_MS = 3_600_000
WORKER_POLL_MS = 250
SOCKET_TIMEOUT_S = 5.0
QUEUE_MESSAGES_MAX = 10_000
KEYS = frozenset({"tenant", "outbox_id", "job_kind"})

BrokerDown = (redis.RedisError, BrokerConnectionError, OSError)


class _NodeLoop(EventLoopThread):
    """Dramatiq's idea of an event loop thread, answered by the loop that runs already."""

    def __init__(self, loop: asyncio.AbstractEventLoop, running: set[Task]) -> None:
        self.loop = loop
        self._running = running

    def run_coroutine(self, coro: Awaitable[R]) -> R:
        """Run an actor on the loop; its thread waits, as Dramatiq wants it."""
        return asyncio.run_coroutine_threadsafe(self._tracked(coro), self.loop).result()

    async def _tracked(self, coro: Awaitable[R]) -> R:
        task = asyncio.current_task()
        assert task is not None, "a coroutine of the loop runs in a task"
        self._running.add(task)
        try:
            return await coro
        finally:
            self._running.discard(task)


class NodeLoop(Middleware):
    """Actors run on the node's loop, where its database pools live; `running` are their tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.running: set[Task] = set()
        self._loop = loop

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Instead of a loop of Dramatiq's own."""
        set_event_loop_thread(_NodeLoop(self._loop, self.running))

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """The loop itself lives on."""
        set_event_loop_thread(None)


class OnlyIds(Middleware):
    """Drop a message that carries anything but the three ids."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Raises SkipMessage; the outbox sends a real job again."""
        given = message.kwargs
        if (
            message.args
            or given.keys() != KEYS
            or parse_uuid(given["tenant"]) is None
            or type(given["outbox_id"]) is not int
            or not isinstance(given["job_kind"], str)
        ):
            logs.event("job.message_refused", level="error", queue=message.queue_name)
            raise SkipMessage("not a message of this node")


def make_broker(node: WorkNode, node_loop: NodeLoop) -> RedisBroker:
    """A broker with one actor per queue of this node's jobs. Connects to nothing yet."""
    client = redis.Redis.from_url(
        node.redis_url, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S
    )
    broker = RedisBroker(  # type: ignore[no-untyped-call]
        client=client,
        middleware=[node_loop, OnlyIds()],
        namespace=NAMESPACE,
        heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
        maintenance_chance=MAINTENANCE_CHANCE,
        dead_message_ttl=DEAD_MESSAGE_TTL_MS,
    )
    sorts = mounted_jobs(node.role)

    async def run_job(tenant: str, outbox_id: int, job_kind: str) -> None:
        sort, owner = sorts.get(job_kind), parse_uuid(tenant)
        if sort is None or owner is None:
            logs.event("job.kind_unknown", level="warning", job_kind=job_kind)
            return
        await perform(node, sort, owner, outbox_id)

    for queue in sorted({s.queue for s in sorts.values()}):
        _: Actor[[str, int, str], None] = Actor(
            run_job, broker=broker, actor_name=f"run_{queue}", queue_name=queue, priority=0,
            options={},
        )  # fmt: skip
    return broker


def message_for(queue: str, tenant: str, outbox_id: int, job_kind: str) -> Message[None]:
    """The bell for one outbox row."""
    return Message(
        queue_name=queue,
        actor_name=f"run_{queue}",
        args=(),
        kwargs={"tenant": tenant, "outbox_id": outbox_id, "job_kind": job_kind},
        options={},
    )


def queue_room(broker: RedisBroker) -> dict[str, int]:
    """How many more messages each queue takes. Raises redis.RedisError."""
    queues = sorted(broker.queues)
    pipe = broker.client.pipeline(transaction=False)
    for queue in queues:
        pipe.hlen(f"{NAMESPACE}:{queue}.msgs")
    lengths = pipe.execute()
    return {q: max(0, QUEUE_MESSAGES_MAX - int(n)) for q, n in zip(queues, lengths, strict=True)}
