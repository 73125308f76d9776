"""`nexus audit …`: prove that nothing was changed behind the node's back."""

from __future__ import annotations

import asyncio

from appliance.audit import verify_audit
from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.cli.node import Opened, opened, read_settings
from appliance.kernel.context import Ctx, Door
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.write import rebuild as replay
from appliance.write import verify_log


def verify(*, tenant: str, data: str | None = None) -> int:
    """Recompute the chains of the audit and of the log."""

    async def go() -> int:
        async with opened(read_settings(data)) as node:
            ident = node.db.routes.by_slug(tenant).tenant
            audit, log = await verify_audit(node.db, ident), await verify_log(node.db, ident)
            print(f"Audit: {audit.events} events in {audit.seals} seals, {audit.unsealed} waiting.")
            print(f"Log: {log.entries} entries in {log.streams} streams.")
            faults = [
                *audit.faults,
                *(f"stream {f.stream} at {f.seq}: {f.detail}" for f in log.faults),
            ]
            print("\n".join(faults) or "Nothing was changed.")
            return 1 if faults else 0

    return asyncio.run(go())


def rebuild(*, tenant: str, data: str | None = None) -> int:
    """Replay the log and compare with the tables, byte for byte."""

    async def go() -> int:
        async with opened(read_settings(data)) as node:
            found = [d async for d in replay(node.db, await _system(node, tenant))]
            for difference in found:
                print(f"{difference.kind} {difference.record_id}: {difference.column} differs")
            print(
                "The tables are what the log says." if not found else f"{len(found)} differences."
            )
            return 1 if found else 0

    return asyncio.run(go())


async def _system(node: Opened, slug: str) -> Ctx:
    tenant = node.db.routes.by_slug(slug).tenant
    return Ctx(
        tenant=tenant, origin=node.origin, actor=uuid7(), profile=Profile(id="", key="system"),
        schema=await load_schema(node.db, tenant), door=Door.SYSTEM, request_id=uuid7(), at=now(),
    )  # fmt: skip
