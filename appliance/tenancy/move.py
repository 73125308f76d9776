"""Move a tenant to another placement while it is at work, and heal what a killed move left.

Promises: from the fence to the switch nothing is written, so what was acknowledged is in the
snapshot; reads go on all the time. Rows are deleted in the old placement only after the route
has changed and every process has had time to see it. Whatever happens before the switch ends in
the old placement, active; whatever happens after it ends in the new one. `heal` knows which from
the route and the fences alone, so a killed process loses nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from uuid import UUID

import msgspec
import psycopg

from appliance.base import logs
from appliance.base.errors import ApplianceError, Clash
from appliance.db.placement import REFRESH_S
from appliance.tenancy import control
from appliance.tenancy.control import Placement, Tenant
from appliance.tenancy.copy import TableEnd, delete_tenant, holds_tenant, read_tenant, write_tenant
from appliance.tenancy.fence import (
    ARRIVING,
    LEAVING,
    await_writers,
    find_fence,
    lift_fence,
    raise_fence,
)
from appliance.tenancy.servers import (
    Connection,
    Progress,
    Servers,
    connect,
    entered,
    locked,
    try_lock,
)
from appliance.tenancy.tables import load_revision
from appliance.tenancy.transfer import check_revision, make_room

GRACE_S = REFRESH_S + 1.0
_STALE_CREATING = "1 hour"


class Moved(msgspec.Struct, frozen=True):
    """A finished move; `swept` is false when the old rows wait for `settle`."""

    tenant: UUID
    source: str
    target: str
    tables: dict[str, TableEnd]
    swept: bool


class Settled(msgspec.Struct, frozen=True):
    """One thing that was healed: `opened`, `swept`, `removed`, or `missing` rows (look at it)."""

    tenant: UUID
    placement: str
    action: str


async def move_tenant(
    servers: Servers,
    tenant: UUID,
    placement_name: str,
    *,
    progress: Progress | None = None,
    grace_s: float = GRACE_S,
) -> Moved:
    """Move online. Clash when the tenant is busy, closed, or there already."""
    async with locked(servers, tenant) as conn:
        found = await control.get_tenant(conn, tenant)
        placement = await _check_move(conn, found, placement_name)
        old = await control.find_placement(conn, found.placement)
        try:
            async with (
                connect(servers.dsn(found.target)) as source,
                connect(servers.dsn(placement.target)) as target,
            ):
                await check_revision(target, await load_revision(source))
                await _stop_writes(conn, source, tenant)
                tables = await _copy(source, target, tenant, progress)
                await _switch(conn, found, placement)
                await lift_fence(target, tenant)
        except BaseException:
            await _back_out(servers, tenant, (placement, old))
            raise
        logs.event("tenant.moved", tenant=tenant, placement=placement.name)
        await asyncio.sleep(grace_s)
        swept = await _sweep(servers, tenant, old)
    return Moved(tenant, old.name, placement.name, tables, swept)


async def _check_move(conn: Connection, found: Tenant, placement_name: str) -> Placement:
    placement = await control.find_placement(conn, placement_name)
    if found.state not in ("active", "suspended"):
        raise Clash(
            f"Tenant {found.slug} is {found.state}; expected active or suspended. After an "
            "interrupted move run `nexus tenant settle`.",
            code="tenant.state",
        )
    if placement.name == found.placement:
        raise Clash(f"Tenant {found.slug} is in {placement.name} already.", code="tenant.placed")
    await control.check_free(conn, placement)
    return placement


async def _stop_writes(conn: Connection, source: Connection, tenant: UUID) -> None:
    await conn.execute(
        "UPDATE tenant SET state = 'moving' WHERE id = %s AND state = 'active'", (tenant,)
    )
    async with entered(source, tenant):
        await raise_fence(source, tenant, LEAVING)
    await await_writers(source)


async def _copy(
    source: Connection, target: Connection, tenant: UUID, progress: Progress | None
) -> dict[str, TableEnd]:
    async with entered(source, tenant, snapshot=True), entered(target, tenant):
        await make_room(target, tenant)
        await raise_fence(target, tenant, ARRIVING)
        async with contextlib.aclosing(read_tenant(source, tenant, progress)) as parts:
            return await write_tenant(target, tenant, parts)


async def _switch(conn: Connection, found: Tenant, placement: Placement) -> None:
    done = await conn.execute(
        "UPDATE tenant SET placement_id = %s, state = CASE state WHEN 'moving' THEN 'active' "
        "ELSE state END WHERE id = %s AND state IN ('moving', 'suspended') AND placement_id = "
        "(SELECT id FROM placement WHERE name = %s)",
        (placement.id, found.id, found.placement),
    )
    if done.rowcount != 1:
        raise Clash(
            f"The state of tenant {found.slug} changed during the move; it stays where it was.",
            code="tenant.state",
        )


async def _back_out(servers: Servers, tenant: UUID, placements: Sequence[Placement]) -> None:
    try:
        async with connect(servers.control_dsn) as conn:
            await heal(servers, conn, tenant, placements)
    except (ApplianceError, psycopg.Error) as error:
        # The caller hears of the first error; `settle` finishes this at the next start.
        logs.event(
            "tenant.undo_failed", level="error", tenant=tenant, error_type=type(error).__name__
        )


async def _sweep(servers: Servers, tenant: UUID, old: Placement) -> bool:
    try:
        async with connect(servers.dsn(old.target)) as source, entered(source, tenant):
            count = await delete_tenant(source, tenant)
    except (ApplianceError, psycopg.Error) as error:
        logs.event(
            "tenant.sweep_failed", level="error", tenant=tenant, error_type=type(error).__name__
        )
        return False
    logs.event("tenant.swept", tenant=tenant, placement=old.name, rows=count)
    return True


async def heal(
    servers: Servers, conn: Connection, tenant: UUID, placements: Sequence[Placement]
) -> list[Settled]:
    """Bring one tenant's fences in line with its route. The caller holds the tenant's lock."""
    # First of all: this waits for a switch whose commit is still under way, then the route is sure.
    await conn.execute(
        "UPDATE tenant SET state = 'active' WHERE id = %s AND state = 'moving'", (tenant,)
    )
    found = await conn.execute(
        "SELECT placement_id FROM tenant WHERE id = %s FOR UPDATE", (tenant,)
    )
    row = await found.fetchone()
    healed = []
    for placement in placements:
        is_home = row is not None and row[0] == placement.id
        async with connect(servers.dsn(placement.target)) as there, entered(there, tenant):
            if action := await _heal_in(there, tenant, is_home=is_home):
                healed.append(Settled(tenant, placement.name, action))
    return healed


async def _heal_in(conn: Connection, tenant: UUID, *, is_home: bool) -> str | None:
    reason = await find_fence(conn, tenant)
    if reason is None:
        return None
    if is_home and not await holds_tenant(conn, tenant):
        return "missing"
    count = 0 if is_home else await delete_tenant(conn, tenant)
    if is_home or reason == ARRIVING:
        await conn.execute("DELETE FROM tenant_fence WHERE tenant_id = %s", (tenant,))
    # A fence stays where a tenant has left: a process that never saw the new route finds it.
    return "opened" if is_home else "swept" if count or reason == ARRIVING else None


async def settle(servers: Servers) -> list[Settled]:
    """Heal everything that killed moves and imports left; tenants at work elsewhere are passed."""
    placements = await control.list_placements(servers)
    fenced: set[UUID] = set()
    for placement in placements:
        async with connect(servers.dsn(placement.target)) as conn:
            rows = await (await conn.execute("SELECT tenant_id FROM tenant_fence")).fetchall()
            fenced |= {UUID(str(row[0])) for row in rows}
    async with connect(servers.control_dsn) as conn:
        rows = await (
            await conn.execute("SELECT id FROM tenant WHERE state IN ('moving', 'creating')")
        ).fetchall()
    healed = []
    for tenant in sorted(fenced | {UUID(str(row[0])) for row in rows}):
        async with connect(servers.control_dsn) as conn:
            if await try_lock(conn, tenant):
                healed += await _settle_creating(servers, conn, tenant)
                healed += await heal(servers, conn, tenant, placements)
    for one in healed:
        level = "error" if one.action == "missing" else "warning"
        logs.event("tenant.settled", level=level, tenant=one.tenant, outcome=one.action)
    return healed


async def _settle_creating(servers: Servers, conn: Connection, tenant: UUID) -> list[Settled]:
    """An import that was killed: complete it when its load was committed, else remove its row."""
    found = await conn.execute(
        "SELECT p.id, p.name, p.sort, p.target, t.created_at < now() - %s::interval FROM tenant t "
        "JOIN placement p ON p.id = t.placement_id WHERE t.id = %s AND t.state = 'creating'",
        (_STALE_CREATING, tenant),
    )
    row = await found.fetchone()
    if row is None:
        return []
    placement = Placement(*row[:4])  # type: ignore[arg-type]
    async with connect(servers.dsn(placement.target)) as there, entered(there, tenant):
        holds, reason = await holds_tenant(there, tenant), await find_fence(there, tenant)
    if holds and reason == ARRIVING:
        await conn.execute("UPDATE tenant SET state = 'active' WHERE id = %s", (tenant,))
        return []
    if holds or not row[4]:
        return []
    await conn.execute("DELETE FROM tenant WHERE id = %s AND state = 'creating'", (tenant,))
    return [Settled(tenant, placement.name, "removed")]
