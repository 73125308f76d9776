"""`nexus sync …`: how replication stands, now instead of later, not for a while, and on again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import redis.asyncio as aioredis

from appliance.base.clock import now as present
from appliance.base.errors import Clash, Refused
from appliance.cli.node import Opened, opened, read_settings
from appliance.sync.agent import Agent, is_paused, set_paused
from appliance.sync.health import ask_now
from appliance.sync.status import PeerState, SyncState, read_status
from appliance.sync.wake import Waker, wake

Work = Callable[[Opened, aioredis.Redis, list[UUID]], Awaitable[int]]


def status(*, tenant: str | None = None, data: str | None = None, streams: bool = False) -> int:
    """Say of each peer when it was heard, what it lacks, and what went wrong.

    Parameters
    ----------
    tenant: the tenant's short name; all of them when none is named.
    streams: also by stream.
    """

    async def work(node: Opened, redis: aioredis.Redis, tenants: list[UUID]) -> int:
        if is_paused(node.settings.data_dir, node.settings.sync):
            print("Paused: this node asks its hub nothing until `nexus sync resume`.")
        for ident in tenants:
            _print(node, await read_status(node.db, redis, ident), by_stream=streams)
        return 0

    return _run(tenant, data, work)


def now(*, tenant: str | None = None, data: str | None = None, wait: float = 60.0) -> int:
    """Exchange with the hub now, and say when both have all.

    Parameters
    ----------
    tenant: the tenant's short name; all of them when none is named.
    wait: how many seconds to wait for it.
    """

    async def work(node: Opened, redis: aioredis.Redis, tenants: list[UUID]) -> int:
        if is_paused(node.settings.data_dir, node.settings.sync):
            raise Clash("This node is paused; `nexus sync resume` first.", code="sync.paused")
        waker = Waker(redis)
        agent = Agent(
            db=node.db, redis=redis, waker=waker, data=node.settings.data_dir,
            settings=node.settings.sync,
        )  # fmt: skip
        try:
            if await agent.parts() is None:
                raise Refused(
                    "This node has no hub; `nexus node join` it to one.", code="sync.no_hub"
                )
            since_ms = time.time_ns() // 1_000_000
            stop = asyncio.Event()
            # A worker of the running node holds the lock: it is told. Else it is done here.
            following = asyncio.create_task(agent.follow(stop))
            for ident in tenants:
                await ask_now(redis, ident)
                await wake(redis, ident)
            done = await _until_even(node, redis, tenants, since_ms, wait)
            stop.set()
            await following
        finally:
            await waker.close()
        for ident in tenants:
            _print(node, await read_status(node.db, redis, ident), by_stream=False)
        return 0 if done else 1

    return _run(tenant, data, work)


def pause(*, data: str | None = None) -> None:
    """Ask the hub nothing from now on; what is written here waits."""
    set_paused(read_settings(data).data_dir, paused=True)
    print("Paused. `nexus sync resume` goes on.")


def resume(*, data: str | None = None) -> None:
    """Go on after a pause."""
    settings = read_settings(data)
    set_paused(settings.data_dir, paused=False)
    if settings.sync.pause:
        raise Clash("The settings say sync.pause = true; take it out of nexus.toml too.")
    print("Going on within seconds.")


async def _until_even(
    node: Opened, redis: aioredis.Redis, tenants: list[UUID], since_ms: int, wait_s: float
) -> bool:
    """Whether hub and site were heard to be even since then."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        states = [await read_status(node.db, redis, ident) for ident in tenants]
        peers = [peer for state in states for peer in state.peers]
        if all(
            not peer.backlog and not peer.lag and not peer.failures and peer.seen_at is not None
            and peer.seen_at.timestamp() * 1000 >= since_ms
            for peer in peers
        ):  # fmt: skip
            return True
        await asyncio.sleep(0.2)
    return False


def _print(node: Opened, state: SyncState, *, by_stream: bool) -> None:
    slug = next((r.slug for r in node.db.routes.all() if r.tenant == state.tenant), "")
    if not state.peers:
        print(f"{slug}: no other node holds it.")
    for peer in state.peers:
        print(f"{slug}: {_tell(peer)}")
        if not by_stream:
            continue
        for one in peer.streams:
            print(
                f"  {one.name:<20} head {one.head}  cursor {one.cursor}  lag {one.lag}  "
                f"backlog {one.backlog}  parked {one.parked}"
            )


def _tell(peer: PeerState) -> str:
    ago = f"{(present() - peer.seen_at).total_seconds():.0f} s ago" if peer.seen_at else "never"
    parts = [
        f"{peer.role} {peer.name} ({peer.state}) heard {ago}",
        f"lag {peer.lag}", f"backlog {peer.backlog}", f"parked {peer.parked}",
        f"sent {peer.sent} B", f"received {peer.received} B",
    ]  # fmt: skip
    if peer.clock_off_s:
        parts.append(f"clock off by {peer.clock_off_s} s")
    if peer.failures:
        parts.append(f"{peer.failures} failures in a row, last {peer.last_error}")
    if peer.notices:
        parts.append("notices " + " ".join(peer.notices))
    return ", ".join(parts)


def _run(tenant: str | None, data: str | None, work: Work) -> int:
    async def go() -> int:
        async with opened(read_settings(data)) as node, connected(node) as redis:
            routes = node.db.routes
            tenants = (
                [routes.by_slug(tenant).tenant] if tenant else [r.tenant for r in routes.open()]
            )
            if not tenants:
                print("This node holds no tenant.")
            return await work(node, redis, tenants)

    return asyncio.run(go())


@asynccontextmanager
async def connected(node: Opened) -> AsyncIterator[aioredis.Redis]:
    """The node's Redis, for as long as the block lasts."""
    client = aioredis.Redis.from_url(
        node.endpoints.redis_url, socket_timeout=10, socket_connect_timeout=2
    )
    try:
        yield client
    finally:
        await client.aclose()
