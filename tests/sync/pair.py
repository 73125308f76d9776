"""A hub and a site that joined it: two control planes and two pools on one server, one process.

The site speaks to the hub's application itself, over httpx without sockets. A `Line` between them
can lose an answer after the hub's commit, or be down.
"""

import asyncio
import contextlib
from dataclasses import dataclass


import httpx
import psycopg

from appliance.base.ids import uuid7
from appliance.base.settings import Settings, SyncSettings
from appliance.db import migrate
from appliance.db.database import Database
from appliance.kernel.context import Door
from appliance.http.app import create_app
from appliance.http.node import Node
from appliance.sync import enrol, joining
from appliance.sync.agent import Agent
from appliance.sync.keys import load_key
from appliance.sync.nodes import find_self, hub_of, run_control
from appliance.sync.site import Parts, Talk
from appliance.sync.wake import Waker
from tests.cluster import Dsns
from tests.http.conftest import make_node
from tests.tenants import Tenant, create

CONTROL, POOL = "site_control", "site_pool"


def make_databases(dsns):
    """The databases of a second node, empty but for their tables."""
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        for name in (CONTROL, POOL):
            if not conn.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone():
                conn.execute(f'CREATE DATABASE "{name}" OWNER nexus_owner')
    there = Dsns(
        dsns.superuser.replace("nexus_pool", POOL),
        dsns.control_owner.replace("nexus_control", CONTROL),
        dsns.pool_owner.replace("nexus_pool", POOL),
        dsns.control_dsn.replace("nexus_control", CONTROL),
        dsns.pool_dsn.replace("nexus_pool", POOL),
    )
    migrate.upgrade(there.control_owner, migrate.CONTROL)
    migrate.upgrade(there.pool_owner, migrate.PLACEMENT)
    return there


class Line(httpx.AsyncBaseTransport):
    """The link. `lose` answers are lost after the hub has done its work; `is_down` loses all."""

    def __init__(self, app):
        self.inner = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.lose = 0
        self.is_down = False
        self.asked = []
        self.bodies = []
        # What came back by verb, in bytes, and after how many more pieces one is lost.
        self.carried = []
        self.lose_after = None
        # Awaited before a question is answered: what happens meanwhile.
        self.meanwhile = None

    async def handle_async_request(self, request):
        if self.is_down:
            raise httpx.ConnectError("down")
        self.asked.append(request.url.path.rpartition("/")[2])
        self.bodies.append(request)
        if self.meanwhile is not None:
            await self.meanwhile(self.asked[-1])
        answer = await self.inner.handle_async_request(request)
        verb = self.asked[-1]
        self.carried.append((verb, len(await answer.aread())))
        if self.lose_after is not None and verb == "chunk":
            self.lose_after -= 1
            if not self.lose_after:
                raise httpx.ReadError("lost")
        if self.lose:
            self.lose -= 1
            await answer.aread()
            raise httpx.ReadError("lost")
        return answer


@dataclass
class Pair:
    """Both nodes. `site` is the tenant as it is there."""

    hub: Tenant
    site: Tenant
    node: Node
    line: Line
    parts: Parts
    dsns: Dsns

    def talk(self):
        return Talk(self.parts, self.hub.id)

    async def sync(self):
        """One whole conversation."""
        talk = self.talk()
        try:
            await talk.greet()
            await talk.catch_up()
        finally:
            await talk.close()
        return talk

    def agent(self, data, **settings):
        found = Agent(
            db=self.site.db, redis=self.node.redis, waker=Waker(self.node.redis), data=data,
            settings=SyncSettings(**settings), transport=self.line,
        )  # fmt: skip
        return found


async def records(tenant, kind):
    """What a node has of a kind: data by id."""
    rows = await tenant.sql(
        "SELECT id::text, data::text, stamps FROM record WHERE tenant_id = $1 AND kind = $2 "
        "AND deleted_at IS NULL ORDER BY id", tenant.id, kind,
    )  # fmt: skip
    return {row[0]: (row[1], row[2]) for row in rows}


async def _clear(dsns):
    """Forget the site of another test."""
    control = dsns.superuser.replace(POOL, CONTROL)
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        await conn.execute("DELETE FROM node")
        await conn.execute("DELETE FROM tenant")
        await conn.execute("DELETE FROM placement")
        await conn.execute(
            "INSERT INTO placement VALUES (gen_random_uuid(), 'pool', 'pooled', %s, now())", [POOL]
        )
        await conn.execute(
            "INSERT INTO node (id, origin, role, prefix, name, is_self) VALUES "
            "(gen_random_uuid(), 1, 'site', '', 'site', true)"
        )


async def _own_row(db):
    """The hub's own row, once for a run."""
    if await find_self(db) is None:
        await run_control(
            db, "INSERT INTO node (id, origin, role, prefix, name, is_self) VALUES "
            "(gen_random_uuid(), 1, 'hub', '', 'hub', true)",
        )  # fmt: skip


async def let_act(tenant):
    """The people of a tenant belong everywhere in it: a hub believes a site of no others."""
    role, ctx = uuid7(), await tenant.ctx(door=Door.INSTALL)
    members = [
        create("sys.membership", person=str(p), profile=str(role)) for p in tenant.people.values()
    ]
    profile = create("sys.profile", role, key="all", capabilities=[])
    done = await tenant.apply(profile, *members, ctx=ctx)
    assert done.committed, done


@contextlib.asynccontextmanager
async def joined(tenant, there, valkey_url, tmp_path, *, units=None, name="branch", masks=None):
    """A pair: `tenant` at its hub, and a site that holds `units` of it (None: all)."""
    db = tenant.db
    await _clear(there)
    await _own_row(db)
    await let_act(tenant)
    hub_data, site_data = tmp_path / "hub", tmp_path / "site"
    hub_data.mkdir()
    site_data.mkdir()
    node = make_node(db, valkey_url, settings=Settings(data=str(hub_data)))
    hub_key, site_key = node.key.current(), load_key(site_data)
    letter = f"B{tenant.id.hex[-5:].upper()}"
    code = await enrol.invite(
        db,
        tenant.id,
        f"{name} {letter}",
        letter,
        hub_key=hub_key.public,
        units=units,
        masks=masks,
    )
    told = await enrol.join(
        db, enrol.prove_joining(site_key, code.code, "1"), hub_key=hub_key, version="1",
        address="127.0.0.1", policy=Settings().login,
    )  # fmt: skip
    site_db = Database(there.control_dsn, there.pool_dsn)
    await site_db.start()
    try:
        await joining.take_node(site_db, told, "http://hub", site_key)
        control = there.superuser.replace(POOL, CONTROL)
        async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
            await conn.execute(
                "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, %s, id "
                "FROM placement", (told.tenant, told.slug, told.tenant_name),
            )  # fmt: skip
            await conn.execute("UPDATE routing SET rev = rev + 1")
        await site_db.routes.refresh()
        await joining.take_tenant(site_db, told)
        line = Line(create_app(node))
        hub, me = await hub_of(site_db), await find_self(site_db)
        parts = Parts(db=site_db, me=me, hub=hub, key=site_key, transport=line)
        site = SiteTenant(site_db, tenant.id, tenant.units, tenant.people)
        site.origin = me.origin
        yield Pair(tenant, site, node, line, parts, there)
    finally:
        await node.waker.close()
        await node.redis.aclose()
        await site_db.stop()


@dataclass
class SiteTenant(Tenant):
    """The same tenant on the other node: its contexts write under the site's origin."""

    origin: int = 0

    async def ctx(self, *given, **extra):
        import msgspec

        found = await super().ctx(*given, **extra)
        return msgspec.structs.replace(found, origin=self.origin)


async def until(check, seconds=10.0):
    """Wait for something that comes by itself."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, "it did not come"
        await asyncio.sleep(0.02)
