"""A hub behind a real server and a site beside it: two databases, two content planes, one link."""

import asyncio
import contextlib
import random
from hashlib import sha256

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.sync.bloblink import BlobLink
from appliance.sync.blobs import run_lane
from appliance.sync.keys import KeyFile
from appliance.sync.nodes import open_session
from appliance.write.emit import stream_call
from appliance.write.log import common_stream
from quarantine.contract import Policy, ScanJob
from tests import cluster, tenants
from tests.http.test_live import served
from tests.quarantine.planes import pieces, plane
from tests.sync.sites import site
from tests.tenants import NEW_STATE, Tenant

MEBI = 1 << 20
LOTS = 1 << 40


class Link:
    """What stands between site and hub: counts bytes, cuts at will, flips one, dies, is slow."""

    def __init__(self, port):
        self.port, self.up, self.down = port, 0, 0
        self.cut_after = None
        self.flip_at = None
        self._server = None

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()

    async def _serve(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        # What a connection may carry before it is cut: counted both ways.
        left = [self.cut_after() if self.cut_after else LOTS]
        ways = [
            asyncio.create_task(self._pour(reader, back, left, "up")),
            asyncio.create_task(self._pour(there, writer, left, "down")),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, back):
            # A cut, not an end: nothing that is on its way arrives.
            end.transport.abort() if left[0] <= 0 else end.close()

    async def _pour(self, source, target, left, way):
        while data := await source.read(4096):
            data = data[: max(left[0], 0)]
            left[0] -= len(data)
            before = getattr(self, way)
            setattr(self, way, before + len(data))
            if (
                self.flip_at
                and before <= self.flip_at[1] < before + len(data)
                and way == self.flip_at[0]
            ):
                at = self.flip_at[1] - before
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                self.flip_at = None
            target.write(data)
            await target.drain()
            if left[0] <= 0:
                # The other side reads what came before the cut.
                await asyncio.sleep(0.03)
                return


class Node:
    """One side: its database, its plane."""

    def __init__(self, db, dsns, bench, tenant):
        self.db, self.dsns, self.bench, self.plane, self.tenant = (
            db, dsns, bench, bench.client, tenant,
        )  # fmt: skip

    async def sql(self, text, *params):
        async with await psycopg.AsyncConnection.connect(
            self.dsns.superuser, autocommit=True
        ) as conn:
            found = await conn.execute(text, params)
            return await found.fetchall() if found.description else []

    async def put_row(self, ident, body, state="released", *, stream, size=None, origin=2, **more):
        """The record of a file, as replication would have it."""
        digest = sha256(body).hexdigest()
        data = {"name": "plan.txt", "state": state, "size": len(body) if size is None else size,
                "sha256": digest, **more}  # fmt: skip
        await self.sql(
            "INSERT INTO record (tenant_id, id, kind, stream, unit_id, data, stamps, created_at, "
            "created_by, updated_at, updated_by, t1, t2, t4, n1) VALUES (%s, %s, 'sys.file', %s, %s, "
            "%s, %s, now(), %s, now(), %s, 'plan.txt', %s, %s, %s) "
            "ON CONFLICT (tenant_id, id) DO UPDATE SET data = excluded.data, t2 = excluded.t2",
            self.tenant, ident, stream, stream, Jsonb(data), f"{origin}.1", ident, ident, state,
            digest, data["size"],
        )  # fmt: skip

    async def state(self, ident):
        ((state,),) = await self.sql("SELECT data->>'state' FROM record WHERE id = %s", ident)
        return state

    def say(self, ident, verdict="clean"):
        """The plane's word on a blob, as its worker would write it."""
        self.bench.ledger(
            "UPDATE blob SET verdict = ?, judged = strftime('%s', 'now'), todo = 0 WHERE id = ?",
            verdict, ident.hex,
        )  # fmt: skip

    async def read(self, ident):
        async with self.plane.copy(self.tenant, ident) as (_, parts):
            return b"".join([part async for part in parts])

    async def has(self, ident):
        return not await self.bench.is_gone(ident)

    async def bring(self, body, state="released", *, stream, also=(), verdict="clean"):
        """A file that a person brought here; its record is on the other nodes as well."""
        ident = uuid7()
        given = ScanJob(ident, self.tenant, "plan.txt", Policy(), now())
        await self.plane.put(given, pieces(body))
        if verdict:
            self.say(ident, verdict)
        for node in (self, *also):
            await node.put_row(ident, body, state, stream=stream)
        return ident


class Pair:
    """Hub and site of one tenant, with the link between them."""

    def __init__(self, hub, branch, link, app, base, stream, member, key):
        self.hub, self.branch, self.link, self.app = hub, branch, link, app
        self.stream, self.member, self.base, self.key = stream, member, base, key

    @contextlib.asynccontextmanager
    async def talking(self, member=None, base=None):
        member = member or self.member
        session = await open_session(self.hub.db, member.id)
        async with httpx.AsyncClient(base_url=base or self.base, trust_env=False) as http:
            talk = member.conversation(session, self.hub.tenant)
            yield BlobLink(http, talk, self.key.public)

    async def run(self, budget=LOTS, **more):
        async with self.talking() as link:
            return await run_lane(
                self.branch.db,
                link,
                self.branch.plane,
                self.hub.tenant,
                budget_bytes=budget,
                **more,
            )

    async def soon(self, ident=None):
        """Nothing waits for its time any more."""
        await self.branch.sql("UPDATE file_copy SET due = now()")

    async def both(self, body, state="released", **more):
        return await self.branch.bring(body, state, stream=self.stream, also=(self.hub,), **more)

    async def central(self, body, state="released", **more):
        return await self.hub.bring(body, state, stream=self.stream, also=(self.branch,), **more)


async def mirror(db, dsns, tenant):
    """The same tenant in another installation's databases."""
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        await conn.execute(
            "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, 'A tenant', id "
            "FROM placement WHERE name = 'pool'", (tenant.id, f"m{tenant.id.hex[-10:]}"),
        )  # fmt: skip
    await db.routes.refresh()
    names = [(common_stream(tenant.id, n), n) for n in ("shared", "schema")]
    names += [(unit, name) for name, unit in tenant.units.items()]
    async with db.transaction(tenant.id) as tx:
        await tx.run(
            (Statement(NEW_STATE), (tenant.id, b"k" * 32)), stream_call(tenant.id, 2, names),
            commit=True,
        )  # fmt: skip
    return Tenant(db, tenant.id, tenant.units, tenant.people)


@contextlib.asynccontextmanager
async def pair(node, dsns, far, far_dsns, tenant, valkey_url, folder, clamd=""):
    """`node` is the hub's API node; `far` the site's Database."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        start = ("serve", "work") if clamd else ("serve",)
        benches = [
            await enter(plane(valkey_url, clamd, start=start)),
            await enter(plane(valkey_url, start=("serve",))),
        ]
        for bench in benches:
            bench.tenant = tenant.id
        there = await mirror(far, far_dsns, tenant)
        names = [(unit, name) for name, unit in tenant.units.items()]
        async with node.db.transaction(tenant.id) as tx:
            await tx.run(stream_call(tenant.id, 1, names), commit=True)
        node.content, node.key = benches[0].client, KeyFile(folder)
        key = node.key.current()
        base, app = await enter(served(node))
        link = Link(int(base.rpartition(":")[2]))
        port = await link.start()
        stack.push_async_callback(link.stop)
        stream = tenant.units["north"]
        member = await site(node.db, tenant.id, units=[stream])
        hub = Node(node.db, dsns, benches[0], tenant.id)
        branch = Node(far, far_dsns, benches[1], tenant.id)
        hub.world, branch.world = tenant, there
        found = Pair(hub, branch, link, app, f"http://127.0.0.1:{port}", stream, member, key)
        yield found


def body_of(size, seed=1):
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="session")
def far_dsns():
    found, stop = cluster.start()
    yield found
    stop()


@pytest.fixture
async def far(far_dsns):
    async with tenants.opened(far_dsns) as found:
        yield found
