"""One world for the properties of the read path, and a reader of it in one line."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import msgspec
import psycopg
import pytest

from appliance.kernel.query import decode_query
from appliance.read import Cursors, run
from tests import tenants
from tests.read import world as w
from tests.read.reference import Reference

CURSORS = Cursors(b"c" * 32)


@dataclass(repr=False)
class Reader:
    """A reader's context, and the reference's view of the same reader."""

    db: object
    ctx: object
    reference: Reference

    async def page(self, query):
        return await run(self.db, self.ctx, decode_query(query), CURSORS)

    async def rows(self, query):
        return [msgspec.json.decode(r) for r in (await self.page(query)).rows]

    async def all_pages(self, query):
        found, after = [], None
        while True:
            page = await self.page({**query, **({"after": after} if after else {})})
            found += [msgspec.json.decode(r) for r in page.rows]
            after = page.next
            if after is None:
                return found


@dataclass(repr=False)
class Readers:
    world: w.World
    db: object
    base: dict
    go: object

    def reader(self, plan, person=0, unit="north"):
        ctx = msgspec.structs.replace(
            self.base[unit], profile=w.profile_of(plan), actor=UUID(str(self.world.people[person]))
        )
        return Reader(self.db, ctx, Reference(self.world, plan, ctx))

    def everything(self, **changes):
        plan = {
            kind: {
                "scope": "all",
                "restore": "all",
                "export": "all",
                "fields": dict.fromkeys(fields, "read"),
            }
            for kind, fields in w.FIELDS.items()
        }
        for kind, given in changes.items():
            plan[kind] = {
                **plan[kind],
                **given,
                "fields": {**plan[kind]["fields"], **given.get("fields", {})},
            }
        return self.reader(plan)


@pytest.fixture(scope="session")
def loop():
    """One event loop for all properties: hypothesis draws outside of it."""
    found = asyncio.new_event_loop()
    yield found
    found.close()


@pytest.fixture(scope="session")
def readers(dsns, loop):
    """Two tenants with the same kinds and look-alike rows; only the first is asked."""

    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    async def make(db):
        found = [
            await w.build(await tenants.make_tenant(db, control, f"world{n}"), seed=n)
            for n in (1, 2)
        ]
        base = {unit: await found[0].tenant.ctx(unit=unit) for unit in ("head", "north", "south")}
        return Readers(found[0], db, base, loop.run_until_complete)

    opened = tenants.opened(dsns)
    db = loop.run_until_complete(opened.__aenter__())
    yield loop.run_until_complete(make(db))
    loop.run_until_complete(opened.__aexit__(None, None, None))
