"""The end of a tenant's rows: erase a closed tenant, drop a placement that nobody lives in.

Promises: only what belongs to that tenant goes. A database is dropped only when this program
made it for one tenant and no route leads to it; everything else on the server is untouched.
"""

from __future__ import annotations

from uuid import UUID

import psycopg

from appliance.base import logs
from appliance.base.errors import Clash, Invalid
from appliance.tenancy import control
from appliance.tenancy.copy import delete_tenant
from appliance.tenancy.names import DEDICATED_PREFIX
from appliance.tenancy.servers import Servers, connect, drop_database, entered, locked


async def erase_tenant(servers: Servers, tenant: UUID, confirm_slug: str) -> None:
    """Delete a closed tenant for good. `confirm_slug` must repeat its short name."""
    async with locked(servers, tenant) as conn:
        found = await control.get_tenant(conn, tenant)
        if found.slug != confirm_slug:
            raise Invalid(
                f"To erase tenant {found.slug} repeat its short name; found {confirm_slug!r}.",
                code="tenant.unconfirmed",
            )
        if found.state != "closed":
            raise Clash(
                f"Tenant {found.slug} is {found.state}; close it first.", code="tenant.state"
            )
        async with connect(servers.dsn(found.target)) as there, entered(there, tenant):
            count = await delete_tenant(there, tenant)
            await there.execute("DELETE FROM tenant_fence WHERE tenant_id = %s", (tenant,))
        await conn.execute("DELETE FROM tenant WHERE id = %s AND state = 'closed'", (tenant,))
    logs.event("tenant.erased", tenant=tenant, rows=count)
    if found.sort == control.DEDICATED:
        await drop_placement(servers, found.placement)


async def drop_placement(servers: Servers, name: str) -> None:
    """Forget an empty placement; a dedicated one of our own server goes with its database."""
    async with connect(servers.control_dsn) as conn:
        placement = await control.find_placement(conn, name)
        await conn.execute("BEGIN")
        try:
            await conn.execute("DELETE FROM placement WHERE id = %s", (placement.id,))
        except psycopg.errors.ForeignKeyViolation:
            raise Clash(
                f"Placement {name} still has tenants; move or erase them first.",
                code="placement.in_use",
            ) from None
        # Inside the transaction: no tenant can come in while the database goes.
        if (
            placement.sort == control.DEDICATED
            and placement.target.startswith(DEDICATED_PREFIX)
            and placement.target not in servers.placements
        ):
            await drop_database(servers, placement.target)
        await conn.execute("COMMIT")
    logs.event("placement.dropped", placement=name)
