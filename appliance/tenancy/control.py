"""The control plane's writes, as the owner role: nodes, placements, tenants and their states.

Promises: each function is one transaction on the control database; a state changes only along
the arrows creating → active ⇄ suspended → closed; every change of routing reaches all processes
within the refresh of the routes, because triggers of the schema count it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import psycopg

from appliance.base import logs
from appliance.base.errors import Clash, Invalid, Refused
from appliance.base.ids import parse_uuid, uuid7
from appliance.base.roles import Role
from appliance.db import migrate
from appliance.tenancy.names import check_name, check_slug, dedicated_database
from appliance.tenancy.servers import (
    Connection,
    Servers,
    check_same_server,
    connect,
    ensure_database,
)

POOLED, DEDICATED = "pooled", "dedicated"


class Node(msgspec.Struct, frozen=True):
    """A node as the control plane knows it."""

    id: UUID
    origin: int
    role: str
    prefix: str
    name: str


class Placement(msgspec.Struct, frozen=True):
    """A database of tenants: `target` is its name on our server or a key of the settings."""

    id: UUID
    name: str
    sort: str
    target: str


class Tenant(msgspec.Struct, frozen=True):
    """One tenant and where it lives."""

    id: UUID
    slug: str
    name: str
    state: str
    created_at: datetime
    placement: str
    sort: str
    target: str


_TENANT = (
    "SELECT t.id, t.slug, t.name, t.state, t.created_at, p.name, p.sort, p.target "
    "FROM tenant t JOIN placement p ON p.id = t.placement_id "
)


async def register_node(
    servers: Servers, *, name: str, role: Role, prefix: str = "", origin: int = 1
) -> Node:
    """The row of this node; repeated calls bring name and role up to date. What a node was given
    when it joined a hub stays: name, role, origin and prefix are the hub's to give.

    Raises Clash when the node is already known under another origin or number prefix: entries
    and record numbers that carry them exist.
    """
    async with connect(servers.control_dsn) as conn:
        try:
            await conn.execute(
                "INSERT INTO node (id, origin, role, prefix, name, is_self) "
                "VALUES (%s, %s, %s, %s, %s, true) ON CONFLICT (is_self) WHERE is_self "
                "DO UPDATE SET name = EXCLUDED.name, role = EXCLUDED.role "
                "WHERE node.joined_at IS NULL",
                (uuid7(), origin, role.value, prefix, name),
            )
        except psycopg.errors.CheckViolation:
            raise Invalid(
                f"Node prefix {prefix!r} or origin {origin} is not acceptable: a prefix has up to 6 "
                "capital Latin letters and digits, an origin is between 1 and 4294967295.",
                code="node.prefix_form",
            ) from None
        except psycopg.errors.UniqueViolation:
            raise Clash(
                f"Another node has prefix {prefix!r} or origin {origin}; choose others.",
                code="node.taken",
            ) from None
        found = await conn.execute(
            "SELECT id, origin, role, prefix, name, joined_at IS NOT NULL, incarnation > 1 FROM node "
            "WHERE is_self"
        )
        *row, has_joined, is_anew = await found.fetchone()  # type: ignore[misc]
        node = Node(*row)
    # A hub that was put back from a backup writes under another origin than its first.
    if has_joined or (is_anew and node.prefix == prefix):
        return node
    if (node.origin, node.prefix) != (origin, prefix):
        raise Clash(
            f"This node is registered with origin {node.origin} and prefix {node.prefix!r}; they "
            "stand in its entries and record numbers and cannot change.",
            code="node.registered",
        )
    return node


async def create_placement(
    servers: Servers, name: str, *, sort: str = POOLED, target: str | None = None
) -> Placement:
    """A placement ready for tenants: database, migrations, row. The same call again is harmless.

    `target` defaults to the name; a key of the settings' placements is only migrated.
    """
    if sort not in (POOLED, DEDICATED):
        raise Invalid(f"A placement is {POOLED} or {DEDICATED}, not {sort!r}.")
    database = target or name
    if database not in servers.placements:
        await ensure_database(servers, database)
    await asyncio.to_thread(migrate.upgrade, servers.dsn(database), migrate.PLACEMENT)
    async with connect(servers.control_dsn) as conn:
        try:
            await conn.execute(
                "INSERT INTO placement (id, name, sort, target) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (name) DO NOTHING",
                (uuid7(), name, sort, database),
            )
        except psycopg.errors.CheckViolation:
            raise Invalid(
                f"Placement name {name!r} is not acceptable: a small Latin letter, then up to 50 "
                "small letters, digits and underscores.",
                code="placement.name_form",
            ) from None
        except psycopg.errors.UniqueViolation:
            raise Clash(
                f"Database {database} already serves another placement.", code="placement.taken"
            ) from None
        placement = await find_placement(conn, name)
    if (placement.sort, placement.target) != (sort, database):
        raise Clash(
            f"Placement {name} exists as {placement.sort} in {placement.target}.",
            code="placement.taken",
        )
    return placement


async def create_dedicated(servers: Servers, slug: str) -> Placement:
    """A database of its own for the tenant with this slug."""
    name = dedicated_database(slug)
    check_same_server(servers, name)
    return await create_placement(servers, name, sort=DEDICATED)


async def create_tenant(
    servers: Servers, slug: str, name: str, placement_name: str, *, tenant: UUID | None = None
) -> Tenant:
    """A tenant in state `creating`: nobody reaches it until `activate`. Clash when it is taken."""
    ident = tenant or uuid7()
    async with connect(servers.control_dsn) as conn:
        placement = await find_placement(conn, placement_name)
        await check_free(conn, placement)
        try:
            await conn.execute(
                "INSERT INTO tenant (id, slug, name, placement_id, state) "
                "VALUES (%s, %s, %s, %s, 'creating')",
                (ident, check_slug(slug), check_name(name), placement.id),
            )
        except psycopg.errors.UniqueViolation as taken:
            what = (
                f"with the short name {slug}"
                if taken.diag.constraint_name == "tenant_slug_key"
                else f"{ident}"
            )
            raise Clash(f"A tenant {what} exists here already.", code="tenant.exists") from None
        return await get_tenant(conn, ident)


async def activate(servers: Servers, tenant: UUID) -> Tenant:
    """Open a tenant that was being created."""
    return await _step(servers, tenant, ("creating",), "active")


async def suspend(servers: Servers, tenant: UUID) -> Tenant:
    """Refuse all access until `resume`; data stays as it is."""
    return await _step(servers, tenant, ("active",), "suspended")


async def resume(servers: Servers, tenant: UUID) -> Tenant:
    """End a suspension."""
    return await _step(servers, tenant, ("suspended",), "active")


async def close_tenant(servers: Servers, tenant: UUID) -> Tenant:
    """End a tenant for good; its rows stay until it is erased."""
    return await _step(servers, tenant, ("active", "suspended"), "closed")


async def rename_tenant(
    servers: Servers, tenant: UUID, *, slug: str | None = None, name: str | None = None
) -> Tenant:
    """Give another short name or display name."""
    async with connect(servers.control_dsn) as conn:
        try:
            await conn.execute(
                "UPDATE tenant SET slug = coalesce(%s, slug), name = coalesce(%s, name) WHERE id = %s",
                (slug and check_slug(slug), name and check_name(name), tenant),
            )
        except psycopg.errors.UniqueViolation:
            raise Clash(f"The short name {slug} is taken.", code="tenant.exists") from None
        return await get_tenant(conn, tenant)


async def list_tenants(servers: Servers) -> list[Tenant]:
    """Every tenant, by short name."""
    async with connect(servers.control_dsn) as conn:
        rows = await (await conn.execute(f"{_TENANT} ORDER BY t.slug".encode())).fetchall()
    return [Tenant(*row) for row in rows]  # type: ignore[arg-type]


async def list_placements(servers: Servers) -> list[Placement]:
    """Every placement, by name."""
    async with connect(servers.control_dsn) as conn:
        found = await conn.execute("SELECT id, name, sort, target FROM placement ORDER BY name")
        return [Placement(*row) for row in await found.fetchall()]  # type: ignore[arg-type]


async def find_tenant(servers: Servers, text: str) -> Tenant:
    """A tenant by short name or id. Refused when unknown."""
    async with connect(servers.control_dsn) as conn:
        found = await conn.execute("SELECT id FROM tenant WHERE slug = %s", (text,))
        row = await found.fetchone()
        ident = row[0] if row else parse_uuid(text)
        return await get_tenant(conn, ident, text)


async def get_tenant(conn: Connection, tenant: object, text: str = "") -> Tenant:
    """A tenant by id on an open control connection. Refused when unknown."""
    found = await conn.execute(f"{_TENANT} WHERE t.id = %s".encode(), (tenant,))
    row = await found.fetchone()
    if row is None:
        raise Refused(
            f"There is no tenant {text or tenant} here; `nexus tenant list` shows them.",
            code="tenant.unknown",
        )
    return Tenant(*row)  # type: ignore[arg-type]


async def find_placement(conn: Connection, name: str) -> Placement:
    """A placement by name on an open control connection. Refused when unknown."""
    found = await conn.execute(
        "SELECT id, name, sort, target FROM placement WHERE name = %s", (name,)
    )
    row = await found.fetchone()
    if row is None:
        raise Refused(f"There is no placement {name} here.", code="placement.unknown")
    return Placement(*row)  # type: ignore[arg-type]


async def check_free(conn: Connection, placement: Placement) -> None:
    """Clash when the placement is dedicated and has its tenant."""
    found = await conn.execute(
        "SELECT FROM tenant WHERE placement_id = %s LIMIT 1", (placement.id,)
    )
    if placement.sort == DEDICATED and await found.fetchone() is not None:
        raise Clash(
            f"Placement {placement.name} is dedicated and has its tenant already.",
            code="placement.taken",
        )


async def _step(servers: Servers, tenant: UUID, allowed: Sequence[str], state: str) -> Tenant:
    async with connect(servers.control_dsn) as conn:
        before = await get_tenant(conn, tenant)
        done = await conn.execute(
            "UPDATE tenant SET state = %s WHERE id = %s AND state = ANY(%s)",
            (state, tenant, list(allowed)),
        )
        after = await get_tenant(conn, tenant)
    if not done.rowcount:
        code = "tenant.busy" if before.state in ("moving", "creating") else "tenant.state"
        raise Clash(
            f"Tenant {before.slug} is {before.state}; expected {' or '.join(allowed)}.", code=code
        )
    logs.event("tenant.state_changed", tenant=tenant, from_state=before.state, to_state=state)
    return after
