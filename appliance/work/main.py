"""The worker process: relay, scheduler and Dramatiq's threads around one event loop.

Promises: SIGTERM stops taking work at once, lets running jobs finish for GRACE_S and gives the
rest back to the outbox; kill -9 loses nothing, because everything it knew is in PostgreSQL.
The caller opens and closes the node's database.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial

import redis.asyncio as aioredis
from dramatiq import Worker

from appliance.base import logs
from appliance.base.roles import HUB, SITE, is_mounted
from appliance.exchange.box import forget_here
from appliance.files.tickets import Watch
from appliance.files.verdicts import Takes
from appliance.sync.agent import Agent
from appliance.sync.wake import Waker, ringing
from appliance.work import actors
from appliance.work.arrivals import go_on
from appliance.work.broker import SOCKET_TIMEOUT_S, WORKER_POLL_MS, NodeLoop, Task, make_broker
from appliance.work.courier import Courier
from appliance.work.health import beat
from appliance.work.maintain import SCHEDULES
from appliance.work.node import WorkNode, post_of, system_context
from appliance.work.registry import mounted_jobs
from appliance.work.relay import Relay
from appliance.work.schedule import Scheduler

GRACE_S = 20.0
RELEASE_S = 5.0
THREADS = 4

assert actors.__all__, "importing the actors registers their jobs"


async def run_worker(
    node: WorkNode, *, threads: int = THREADS, stop: asyncio.Event | None = None
) -> None:
    """Work until SIGTERM, SIGINT or `stop`. Redis may be away when it starts."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        # Outside the main thread (a test) there are no signals; `stop` is there for that.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(sign, stop.set)
    events = aioredis.Redis.from_url(
        node.redis_url, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S
    )
    node_loop = NodeLoop(loop)
    broker = make_broker(node, node_loop)
    worker = Worker(broker, worker_threads=threads, worker_timeout=WORKER_POLL_MS)
    waker = Waker(events)
    relay = Relay(node.db, broker, events, mounted_jobs(node.role), waker)
    scheduler = Scheduler(node, SCHEDULES)
    worker.start()
    logs.event("worker.started", worker=node.name, count=threads)
    try:
        async with ringing(node.db, events), asyncio.TaskGroup() as group:
            group.create_task(relay.follow(stop), name="relay")
            group.create_task(scheduler.follow(stop), name="schedule")
            if is_mounted(node.role, SITE):
                agent = Agent(
                    db=node.db, redis=events, waker=waker, data=node.data_dir, settings=node.sync,
                    plane=node.content, forget_files=partial(forget_here, node.data_dir),
                )  # fmt: skip
                group.create_task(agent.follow(stop), name="sync")
            if is_mounted(node.role, HUB):
                courier = Courier(post_of(node), waker)
                group.create_task(courier.follow(stop), name="webhooks")
            if node.content is not None:
                contexts = partial(system_context, node)
                takes = Takes(node.db, node.content, contexts, partial(go_on, node))
                group.create_task(takes.follow(stop), name="verdicts")
                watch = Watch(node.db, node.content, events)
                group.create_task(watch.follow(stop), name="downloads")
            group.create_task(beat(node, relay, scheduler, events, stop), name="pulse")
    finally:
        stop.set()
        await _stop(worker, node_loop.running)
        broker.close()
        await waker.close()
        await events.aclose()
        if node.content is not None:
            await node.content.close()
        logs.event("worker.stopped", worker=node.name)


async def _stop(worker: Worker, running: set[Task]) -> None:
    """Finish running jobs for the grace, then give the others back."""
    timeout_ms = int((GRACE_S + RELEASE_S) * 1000)
    ending = asyncio.create_task(asyncio.to_thread(worker.stop, timeout_ms))
    await asyncio.wait({ending}, timeout=GRACE_S)
    left = set(running)
    for task in left:
        # perform() answers a cancel by releasing its job.
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=RELEASE_S)
    await asyncio.wait({ending}, timeout=RELEASE_S)
