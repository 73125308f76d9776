"""A second node in the same PostgreSQL: its own control plane and placement, one tenant on both."""

import contextlib
from dataclasses import dataclass, field

import psycopg

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db import migrate
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.change import Logged
from appliance.kernel.context import Ctx, Door
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.write.emit import stream_call
from appliance.write.log import common_stream
from appliance.write.receive import receive
from appliance.write.trail import COLUMNS, read_entry
from tests import cluster, tenants

_LOG = Statement(
    f"SELECT {COLUMNS}, ehlc FROM change WHERE tenant_id = $1 AND stream = $2 AND seq > $3 ORDER BY seq"
)


def make_databases(dsns, number):
    """Empty databases of another node, migrated."""
    names = {"nexus_control": f"nexus_control_{number}", "nexus_pool": f"nexus_pool_{number}"}
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        for name in names.values():
            conn.execute(f"CREATE DATABASE {name} OWNER nexus_owner TEMPLATE template0")

    def other(dsn):
        for old, new in names.items():
            dsn = dsn.replace(f"dbname={old}", f"dbname={new}")
        return dsn

    found = cluster.Dsns(
        other(dsns.superuser), other(dsns.control_owner), other(dsns.pool_owner),
        other(dsns.control_dsn), other(dsns.pool_dsn),
    )  # fmt: skip
    migrate.upgrade(found.control_owner, migrate.CONTROL)
    migrate.upgrade(found.pool_owner, migrate.PLACEMENT)
    with psycopg.connect(found.control_owner, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement VALUES (gen_random_uuid(), 'pool', 'pooled', %s, now())",
            [names["nexus_pool"]],
        )
    return found


@dataclass
class Replica:
    """One node's copy of a tenant: what a test writes there, and what it takes from others."""

    db: Database
    origin: int
    tenant: tenants.Tenant
    is_hub: bool = False
    sent: dict = field(default_factory=dict)

    async def ctx(self, door=Door.SYNC, **more):
        """A context of this node; `door` HTTP acts as the owner."""
        schema = await load_schema(self.db, self.tenant.id)
        plain = {
            "tenant": self.tenant.id, "origin": self.origin, "actor": self.tenant.people["owner"],
            "profile": Profile(id="", key=""), "schema": schema, "door": door,
            "request_id": uuid7(), "at": now(),
        }  # fmt: skip
        return Ctx(**(plain | more))

    async def write(self, *commands, unit="north", **options):
        """Commands of the owner at this node."""
        from appliance.write import apply

        ctx = await self.ctx(
            Door.HTTP, profile=tenants.everything(await load_schema(self.db, self.tenant.id)),
            unit=self.tenant.units[unit], units=frozenset(self.tenant.units.values()),
            subtree=frozenset(self.tenant.units.values()), tz="Europe/Kyiv",
            unit_tree=(await self.tenant.ctx()).unit_tree,
        )  # fmt: skip
        return await apply(self.db, ctx, commands, **options)

    async def log(self, stream, after=0):
        """The entries of a stream behind a place, as they go out, with their places."""
        (rows,) = await self.db.read(self.tenant.id, (_LOG, (self.tenant.id, stream, after)))
        return [
            (
                int(row[13]),
                Logged(
                    entry=read_entry(row), hash=bytes.fromhex(row[14][2:].decode()),
                    ehlc=int(row[15]),
                ),
            )
            for row in rows
        ]  # fmt: skip

    async def streams(self):
        rows = await self.tenant_rows("SELECT id::text FROM stream WHERE tenant_id = $1")
        from uuid import UUID

        return sorted(UUID(r[0]) for r in rows)

    async def tenant_rows(self, text, *params):
        (rows,) = await self.db.read(self.tenant.id, (Statement(text), (self.tenant.id, *params)))
        return [[v.decode() if v is not None else None for v in row] for row in rows]

    async def take(self, stream, entries, *, peer=0, cursor=None):
        return await receive(
            self.db, await self.ctx(), stream, entries, peer=peer, cursor=cursor,
            from_hub=not self.is_hub,
        )  # fmt: skip


async def exchange(site, hub):
    """Everything both ways, by `receive` alone: own entries up, the hub's order down."""
    held = await site.streams()
    names = {common_stream(hub.tenant.id, "schema"): 0, common_stream(hub.tenant.id, "shared"): 1}
    for stream in sorted(held, key=lambda s: names.get(s, 2)):
        own = [e for _, e in await site.log(stream) if e.entry.origin == site.origin]
        await hub.take(stream, own, peer=site.origin)
        down = [(seq, e) for seq, e in await hub.log(stream) if e.entry.origin != site.origin]
        if down:
            await site.take(stream, [e for _, e in down], peer=hub.origin, cursor=down[-1][0])


@contextlib.asynccontextmanager
async def opened(dsns, origin, tenant, units):
    """A site's replica of `tenant`, empty, that holds the streams of `units`."""
    async with tenants.opened(dsns) as db:
        async with await psycopg.AsyncConnection.connect(dsns.control_owner) as conn:
            await conn.execute(
                "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, 'T', id "
                "FROM placement WHERE name = 'pool'",
                (tenant.id, f"t-{tenant.id.hex[:12]}-{tenant.id.hex[20:]}"),
            )
        await db.routes.refresh()
        streams = [(common_stream(tenant.id, n), n) for n in ("shared", "schema")]
        streams += [(tenant.units[u], u) for u in units]
        async with db.transaction(tenant.id) as tx:
            await tx.run(
                (Statement(tenants.NEW_STATE), (tenant.id, b"k" * 32)),
                stream_call(tenant.id, origin, streams),
            )
        yield Replica(db, origin, tenants.Tenant(db, tenant.id, tenant.units, tenant.people))
