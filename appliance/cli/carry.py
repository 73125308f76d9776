"""`nexus sync export|import|digest|compact|regain`: what is carried by hand, compared, let go of,
and asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import redis.asyncio as aioredis

from appliance.base.errors import Misconfigured, Refused, Unavailable
from appliance.cli.node import Opened, opened, read_settings
from appliance.cli.plane import ask_status, reached
from appliance.cli.sync import connected
from appliance.sync.carrier import (
    BYTES_MAX,
    Cargo,
    Carried,
    export_hub,
    export_site,
    import_at_hub,
    import_at_site,
)
from appliance.sync.checking import ask_check, read_checks
from appliance.sync.compaction import KEEP_DAYS, compact
from appliance.sync.health import HealthBook, ask_now
from appliance.sync.hub import Hub
from appliance.sync.incarnation import read_epoch, renew_epoch
from appliance.sync.keys import KeyFile
from appliance.sync.nodes import find_named, find_self, hub_of
from appliance.sync.sealed import Sealed
from appliance.sync.shelf import Shelf
from appliance.sync.site import Parts
from appliance.sync.wake import wake


def carry_out(
    file: Path, /, *, tenant: str, site: str | None = None, max_bytes: int = BYTES_MAX,
    data: str | None = None,
) -> int:  # fmt: skip
    """Write what the other side lacks into a file, signed by this node. The file is not encrypted
    and holds what the tenant's records hold: carry it as you would carry them.

    Parameters
    ----------
    file: where to write it; nothing is left there when it fails.
    tenant: the tenant's short name.
    site: at a hub, the site that it is for.
    max_bytes: of files (attachments) at most so many; 0 leaves them out.
    """

    async def work(node: Opened, redis: aioredis.Redis) -> int:
        ident, key = (
            node.db.routes.by_slug(tenant).tenant,
            KeyFile(node.settings.data_dir).current(),
        )
        is_site = await hub_of(node.db) is not None
        if not is_site and site is None:
            raise Refused("Say which site the file is for: --site NAME.", code="carrier.whose")
        async with AsyncExitStack() as stack:
            cargo = await _cargo(stack, node, ident, max_bytes, is_site=is_site)
            if is_site:
                count = await export_site(node.db, key, ident, file, cargo)
            else:
                peer = await find_named(node.db, site or "", ident)
                count = await export_hub(node.db, _hub(node, redis), key, peer, file, cargo)
        print(f"{file}: {count} messages, {file.stat().st_size} bytes.")
        return 0

    return _run(data, work)


def carry_in(file: Path, /, *, data: str | None = None) -> int:
    """Take a file of the other side. Taken twice it does no harm.

    Parameters
    ----------
    file: what `nexus sync export` wrote there.
    """

    async def work(node: Opened, redis: aioredis.Redis) -> int:
        me, hub = await find_self(node.db), await hub_of(node.db)
        if me is None:
            raise Refused("This node has no name among others yet.", code="sync.no_hub")
        with file.open("rb") as opened_file:
            sealed = Sealed(opened_file)
            async with AsyncExitStack() as stack:
                ident = sealed.head.tenant
                cargo = await _cargo(stack, node, ident, BYTES_MAX, is_site=hub is not None)
                if hub is None:
                    side = _hub(node, redis)
                    done = await import_at_hub(node.db, side, me.origin, sealed, cargo)
                else:
                    key = KeyFile(node.settings.data_dir).current()
                    parts = Parts(db=node.db, me=me, hub=hub, key=key)
                    done = await import_at_site(parts, sealed, cargo)
        await wake(redis, done.tenant)
        return _tell(done)

    return _run(data, work)


def digest(*, tenant: str | None = None, data: str | None = None, wait: float = 60.0) -> int:
    """At a site: compare every stream with the hub's now, mend what is not alike, and say how it
    was. The running node does it in its conversation.

    Parameters
    ----------
    tenant: the tenant's short name; all of them when none is named.
    wait: how many seconds to wait for it.
    """

    async def work(node: Opened, redis: aioredis.Redis) -> int:
        if await hub_of(node.db) is None:
            raise Refused(
                "Sites compare themselves with their hub; this is none.", code="sync.no_hub"
            )
        routes, bad = node.db.routes, 0
        for ident in (
            [routes.by_slug(tenant).tenant] if tenant else [r.tenant for r in routes.open()]
        ):
            await ask_check(node.db, ident)
            await ask_now(redis, ident)
            await wake(redis, ident)
            end = asyncio.get_running_loop().time() + wait
            while asyncio.get_running_loop().time() < end:
                checks = await read_checks(node.db, ident)
                if all(c.state != "asked" for c in checks):
                    break
                await asyncio.sleep(0.2)
            for check in checks:
                more = f", {check.buckets} buckets, {check.records} records" * bool(check.buckets)
                print(f"{check.name:<24} {check.state}{more}")
                bad += check.state != "even"
        return 1 if bad else 0

    return _run(data, work)


def compact_log(*, tenant: str, keep_days: int = KEEP_DAYS, data: str | None = None) -> int:
    """At a hub: let go of old entries that every site has taken. Histories reach back to there, no
    further; a site that was away for longer comes back by states.

    Parameters
    ----------
    tenant: the tenant's short name.
    keep_days: what is younger stays.
    """

    async def work(node: Opened, redis: aioredis.Redis) -> int:
        del redis
        if await hub_of(node.db) is not None:
            raise Refused(
                "A site's log is its own evidence; this is done at the hub.", code="sync.site"
            )
        done = await compact(node.db, node.db.routes.by_slug(tenant).tenant, keep_days=keep_days)
        print(f"{done.entries} entries of {done.streams} streams are gone from the log.")
        return 0

    return _run(data, work)


def regain(*, data: str | None = None) -> int:
    """At a hub that was put back from a backup: begin a new epoch, in which each site offers what
    the hub lacks. Sites prove by themselves what is lost; this is for when none of them can.
    """

    async def work(node: Opened, redis: aioredis.Redis) -> int:
        del redis
        if await hub_of(node.db) is not None:
            raise Refused("A hub that was put back regains; this is a site.", code="sync.site")
        await renew_epoch(node.db, await read_epoch(node.db), "by hand")
        print("A new epoch has begun: sites offer what is lacking when they next speak.")
        return 0

    return _run(data, work)


def _run(data: str | None, work: Callable[[Opened, aioredis.Redis], Awaitable[int]]) -> int:
    async def go() -> int:
        async with opened(read_settings(data)) as node, connected(node) as redis:
            return await work(node, redis)

    return asyncio.run(go())


async def _cargo(
    stack: AsyncExitStack, node: Opened, tenant: UUID, most: int, *, is_site: bool
) -> Cargo | None:
    """Where bytes of files are; None when they are not asked for, or the content plane is away."""
    if not most:
        return None
    try:
        plane = await stack.enter_async_context(reached(node.settings))
        await ask_status(node.settings, plane)
    except (Misconfigured, Unavailable, Refused) as away:
        print(f"Files are left out: {away.detail}")
        return None
    bytes_max = 0 if is_site else node.settings.files.bytes_max
    return Cargo(Shelf(node.db, plane, tenant, from_hub=is_site, bytes_max=bytes_max), most)


def _tell(done: Carried) -> int:
    print(f"{done.messages} messages taken.")
    for problem in done.problems:
        print(f"not taken: {problem}")
    return 1 if done.problems else 0


def _hub(node: Opened, redis: aioredis.Redis) -> Hub:
    key = KeyFile(node.settings.data_dir)
    return Hub(node.db, node.settings.sync, HealthBook(redis), key.current)
