"""`nexus audit …`: prove that nothing was changed behind the node's back."""

from __future__ import annotations

import asyncio

from appliance.audit import verify_audit
from appliance.cli.node import opened, read_settings, system_context
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
            found = [d async for d in replay(node.db, await system_context(node, tenant))]
            for difference in found:
                print(f"{difference.kind} {difference.record_id}: {difference.column} differs")
            print(
                "The tables are what the log says." if not found else f"{len(found)} differences."
            )
            return 1 if found else 0

    return asyncio.run(go())
