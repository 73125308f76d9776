"""Whether the node lives and can work, and its counts."""

from __future__ import annotations

import asyncio

import msgspec
from litestar.response.base import ASGIResponse
from redis.exceptions import RedisError

from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Refused
from appliance.content import ContentPlane
from appliance.db.wire import Statement
from appliance.http.answers import raw, reply
from appliance.http.ask import Ask
from appliance.http.node import Node
from appliance.http.route import PUBLIC, Book
from appliance.http.visit import is_local
from appliance.intake.figures import read_figures
from appliance.sync.status import read_status, shared_tenants
from appliance.sync.waiting import PARKED, read_counts
from appliance.webhooks.views import read_placement
from quarantine.contract import Status

book = Book("health")
_ONE = Statement("SELECT 1")
_WAIT_S = 2.0
# A plane that hangs must not make a scrape of the node's own counts late.
_SCRAPE_WAIT_S = 0.5
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """`ready`: reads and writes work. `degraded`: they work, what is named is late. Else 503."""

    status: str
    checks: dict[str, str]


@book.route("GET", "/health/live", capability=PUBLIC, answers={200: Alive})
async def read_alive(ask: Ask) -> ASGIResponse:
    """The process answers; nothing else is asked."""
    del ask
    return reply(Alive("up"))


@book.route("GET", "/health/ready", capability=PUBLIC, answers={200: Readiness, 503: Readiness})
async def read_ready(ask: Ask) -> ASGIResponse:
    """PostgreSQL, Redis, the worker, the content plane and the scanner, each by name."""
    node = ask.node
    postgresql, redis, workers, (content, scanner) = await asyncio.gather(
        _postgresql(node), _redis(node), _workers(node), _content(node)
    )
    checks = {
        "postgresql": postgresql, "redis": redis, "worker": workers, "content": content,
        "scanner": scanner,
    }  # fmt: skip
    if postgresql != "up" or node.closing.is_set():
        return reply(Readiness("not_ready", checks), 503, {"Retry-After": "2"})
    is_whole = redis == "up" and workers == "up" and content != "down"
    return reply(Readiness("ready" if is_whole else "degraded", checks))


@book.route("GET", "/metrics", capability=PUBLIC, answers={200: bytes}, media=("text/plain",))
async def read_metrics(ask: Ask) -> ASGIResponse:
    """Counts for Prometheus; from this machine only."""
    forwarded = ask.header("x-forwarded-for") or ask.header("forwarded")
    if forwarded or not is_local(ask.scope):
        raise Refused("There is nothing at this address.", code="route.unknown")
    await _collect(ask.node)
    return raw(ask.node.metrics.text(), media=_METRICS_TYPE)


async def _postgresql(node: Node) -> str:
    try:
        async with asyncio.timeout(_WAIT_S):
            async with node.db.control.connection(timeout=_WAIT_S) as conn:
                await conn.execute("SELECT 1")
            for target in sorted({r.target for r in node.db.routes.all()}):
                async with node.db.wire(target) as wire:
                    await wire.run([(_ONE, ())])
    except Exception:  # noqa: BLE001 - whatever it is, it is not up
        return "down"
    return "up"


async def _redis(node: Node) -> str:
    try:
        async with asyncio.timeout(_WAIT_S):
            await node.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "down"
    return "up"


async def _workers(node: Node) -> str:
    try:
        async with asyncio.timeout(_WAIT_S):
            return "up" if await node.jobs.pulses() else "none"
    except (RedisError, OSError, TimeoutError, ApplianceError):
        return "unknown"


async def _content(node: Node) -> tuple[str, str]:
    """The content plane (`none` on a node without one) and what it says of the scanner."""
    if node.content is None:
        return "none", await node.scanner_state() if node.scanner_state else "none"
    status = await _status(node.content, _WAIT_S)
    return ("up", status.scanner) if status else ("down", "unknown")


async def _status(plane: ContentPlane, wait_s: float) -> Status | None:
    try:
        async with asyncio.timeout(wait_s):
            return await plane.status()
    except (ApplianceError, TimeoutError):
        return None


async def _inbox(node: Node) -> None:
    """What waits for people; what is not counted is not shown as it was."""
    try:
        async with asyncio.timeout(_WAIT_S):
            counts = await read_counts(node.redis)
    except (RedisError, OSError, TimeoutError):
        counts = {}
    node.metrics.parked.set(counts.pop(PARKED, 0))
    node.metrics.conflicts.clear()
    for sort, count in counts.items():
        node.metrics.conflicts.labels(sort).set(count)


async def _imports(node: Node) -> None:
    """How imports go; what is not counted is not shown as it was."""
    try:
        async with asyncio.timeout(_WAIT_S):
            node.metrics.imports.tenants = await read_figures(node.redis)
    except (RedisError, OSError, TimeoutError):
        node.metrics.imports.tenants = ()


async def _collect(node: Node) -> None:
    """Bring the gauges up to date."""
    metrics = node.metrics
    metrics.files.has_plane = node.content is not None
    if node.content is not None:
        metrics.files.status = await _status(node.content, _SCRAPE_WAIT_S)
    try:
        async with asyncio.timeout(_WAIT_S):
            pulses = await node.jobs.pulses()
    except (RedisError, OSError, TimeoutError, ApplianceError):
        pulses = []
    await _sync(node)
    await _inbox(node)
    await _imports(node)
    metrics.workers.set(len(pulses))
    for pulse in pulses:
        for placement, waiting in pulse.outbox.items():
            metrics.outbox.labels(placement, "waiting").set(waiting.waiting)
            metrics.outbox.labels(placement, "dead").set(waiting.dead)
            metrics.outbox_age.labels(placement).set(waiting.oldest_s)
    pools = {"control": node.db.control}
    for target in {r.target for r in node.db.routes.all()}:
        pools[target] = await node.db.pool(target)
        await _webhooks(node, target)
    for name, pool in pools.items():
        stats = pool.get_stats()
        for state in ("pool_size", "pool_available", "requests_waiting"):
            metrics.pool.labels(name, state).set(stats.get(state, 0))


async def _webhooks(node: Node, target: str) -> None:
    """How webhooks do; what cannot be read in time keeps its last figures."""
    try:
        async with asyncio.timeout(_WAIT_S):
            node.metrics.webhooks.show(target, await read_placement(node.db, target))
    except (TimeoutError, ApplianceError):
        return


async def _sync(node: Node) -> None:
    """How replication stands; what cannot be read in time keeps its last figures."""
    try:
        async with asyncio.timeout(_WAIT_S):
            shared = await shared_tenants(node.db)
            for route in node.db.routes.all():
                if route.tenant not in shared:
                    continue
                state = await read_status(node.db, node.redis, route.tenant)
                node.metrics.show_sync(route.slug, state.peers, now())
    except (RedisError, OSError, TimeoutError, ApplianceError):
        return
