"""The end of a tenant: erase a closed one, drop a placement that nobody lives in.

Promises: the content plane forgets the key of its files first, then the rows go, then the route; a
crash in between leaves a closed tenant that is erased by the same command. Only what belongs to that tenant goes. A database is dropped only when this program
made it for one tenant and no route leads to it; everything else on the server is untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import psycopg

from appliance.base import logs
from appliance.base.errors import Clash, Invalid, Unavailable
from appliance.content import ContentPlane
from appliance.tenancy import control
from appliance.tenancy.copy import delete_tenant
from appliance.tenancy.files import count_rows, require_plane
from appliance.tenancy.names import DEDICATED_PREFIX
from appliance.tenancy.servers import Servers, connect, drop_database, entered, locked


class Erasure(msgspec.Struct, frozen=True):
    """What went: rows of all tables, files and their bytes in the content plane (each content
    once). `asked` is false when there was no plane to ask, and then no file.
    """

    rows: int
    files: int = 0
    bytes: int = 0
    asked: bool = False


async def erase_tenant(
    servers: Servers,
    tenant: UUID,
    confirm_slug: str,
    *,
    plane: ContentPlane | None = None,
    forget_here: Callable[[UUID], None] | None = None,
) -> Erasure:
    """Delete a closed tenant for good. `confirm_slug` must repeat its short name. `forget_here`
    removes what this machine has of it outside of databases.

    Raises Misconfigured, Unavailable when it has files and no plane answers; nothing is erased
    then. To repeat it after a crash is to go on; it then reports the files as the first time.
    """
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
        erased = await _erase_files(servers, found, plane)
        if forget_here is not None:
            await asyncio.to_thread(forget_here, tenant)
        async with connect(servers.dsn(found.target)) as there, entered(there, tenant):
            count = await delete_tenant(there, tenant)
            await there.execute("DELETE FROM tenant_fence WHERE tenant_id = %s", (tenant,))
        await conn.execute("DELETE FROM tenant WHERE id = %s AND state = 'closed'", (tenant,))
    logs.event("tenant.erased", tenant=tenant, rows=count, count=erased.files, bytes=erased.bytes)
    if found.sort == control.DEDICATED:
        await drop_placement(servers, found.placement)
    return msgspec.structs.replace(erased, rows=count)


async def _erase_files(
    servers: Servers, found: control.Tenant, plane: ContentPlane | None
) -> Erasure:
    """The key first, then the bytes. A plane that is away is let be when there is no file."""
    async with connect(servers.dsn(found.target)) as there, entered(there, found.id):
        count = await count_rows(there, found.id)
    if count:
        plane = await require_plane(plane, f"Tenant {found.slug} has {count} files to erase")
    if plane is None:
        return Erasure(0)
    try:
        gone = await plane.erase(found.id)
    except Unavailable:
        if count:
            raise
        return Erasure(0)
    return Erasure(0, gone.blobs, gone.bytes, asked=True)


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
