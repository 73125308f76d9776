"""A site that comes back after a long time, through its real worker, while people go on writing.

The hub's API and the site's worker are processes of their own; people write at the hub over HTTP,
and at the site beside its worker. Then, with both at rest: from a commit at the hub to the frame on
an open list of the site, and what the two say to each other when nothing happens.
"""

import asyncio
import contextlib
import os
import random
import time
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
import redis.asyncio as aioredis

from appliance.base.ids import uuid7
from appliance.meta import load_schema
from appliance.sync.agent import set_paused
from appliance.sync.health import read_health
from tests.bench import harness
from tests.bench.author import Author
from tests.bench.in_process import deal
from tests.bench.live import Listener, at, editor, latency
from tests.sync.pair import until
from tests.tenants import update

BEHIND = int(os.environ.get("BENCH_BEHIND", "100000"))
# Entries of one transaction travel in one frame, whatever its size: this is what people do at once.
TOGETHER, AT_ONCE, TOLD_EACH = 200, 20_000, 50_000
EDITS, PAUSE_S, IDLE_S = 100, (0.02, 0.08), 60.0
PARTIES = "worker", "hub's API", "hub's PostgreSQL", "site's PostgreSQL"
HEADS = "SELECT sum(head)::text FROM stream WHERE tenant_id = $1"


async def catch_up(nodes):
    """Seconds, memory, and what the writes of people take meanwhile."""
    tenant, site = nodes.made.tenant, nodes.pair.site
    data = Path(nodes.site_env["NEXUS_DATA"])
    await tenant.apply(*(deal(n) for n in range(200)))
    with nodes.working(nodes.site_env) as worker:
        await until(lambda: is_level(nodes), 60)
        set_paused(data, paused=True)
        await asyncio.sleep(5)
        at_rest = memory(worker.pid, "VmRSS")
        await asyncio.to_thread(fall_behind, nodes, await load_schema(tenant.db, tenant.id))
        normal = [await times(write, EDITS) for write in await writers(nodes)]
        first, cpu = await heads(site), harness.cpu_of({worker.pid})
        servers = [harness.postmaster(d.superuser) for d in (nodes.dsns, nodes.pair.dsns)]
        pids = {nodes.hub.pid}, {servers[0]}, {servers[1]}
        others = [harness.cpu_of(p) for p in pids]
        set_paused(data, paused=False)
        while await heads(site) == first:
            await asyncio.sleep(0.02)
        began, done = time.perf_counter(), asyncio.Event()
        writing = [
            asyncio.create_task(times(write, None, done)) for write in await writers(nodes)
        ]  # fmt: skip
        left = BEHIND
        while (now_left := await behind(nodes)) > 1_000:
            if left - now_left >= TOLD_EACH:
                left = now_left
                tell(BEHIND - left, time.perf_counter() - began, worker.pid, nodes.hub.pid)
            await asyncio.sleep(0.2)
        took = time.perf_counter() - began
        cpu = harness.cpu_of({worker.pid}) - cpu
        others = [harness.cpu_of(p) - before for p, before in zip(pids, others, strict=True)]
        done.set()
        meanwhile = [await w for w in writing]
        harness.figure(f"{BEHIND} changes behind, until level", took, "s", BEHIND / 1e6 * 120)
        harness.figure("changes taken in a second", BEHIND / took, "1/s", "-")
        for name, spent in zip(PARTIES, (cpu, *others), strict=True):
            harness.figure(f"processor time a change, {name}", spent / BEHIND * 1e6, "µs", "-")
        harness.figure("worker's memory at rest", at_rest, "MB", "-")
        harness.figure("worker's memory, most", memory(worker.pid, "VmHWM"), "MB", "< 150")
        harness.figure("hub's API, most", memory(nodes.hub.pid, "VmHWM"), "MB", "< 150")
        harness.figure("load of the machine, a minute", os.getloadavg()[0], "", "-")
        for name, before, during in zip(("hub", "site"), normal, meanwhile, strict=True):
            p95 = at(during, 0.95), at(before, 0.95)
            harness.report(f"a person's write at the {name}, p95", *p95, "<= 2")
        await until(lambda: is_level(nodes), 60)
        if "list" in os.environ.get("BENCH_PARTS", "list"):
            await to_the_list(nodes)
            await idle(nodes)


def fall_behind(nodes, schema):
    """Records made at the hub, in its log alone: nothing else of it is read by a site."""
    tenant = nodes.made.tenant
    author = Author(tenant.units["north"], 1, schema, tenant.people["owner"])
    author.together = TOGETHER
    with psycopg.connect(nodes.dsns.superuser) as conn:
        (author.log_key,) = conn.execute(
            "SELECT log_key FROM tenant_state WHERE tenant_id = %s", (tenant.id,)
        ).fetchone()
        for _ in range(0, BEHIND, AT_ONCE):
            author.put_down(conn, tenant.id, min(BEHIND, AT_ONCE))


def tell(taken, seconds, worker, hub):
    """How it goes: whether memory grows with what was taken."""
    sizes = memory(worker, "VmRSS"), memory(hub, "VmRSS")
    print(
        f"  {taken:8} taken after {seconds:6.1f} s, worker {sizes[0]:5.0f} MB, hub's API "
        f"{sizes[1]:5.0f} MB, load {os.getloadavg()[0]:.1f}", flush=True,
    )  # fmt: skip


async def heads(tenant):
    """How many entries a node has."""
    ((found,),) = await tenant.sql(HEADS, tenant.id)
    return int(found)


async def behind(nodes):
    """How many entries the site lacks, or the hub."""
    return abs(await heads(nodes.made.tenant) - await heads(nodes.pair.site))


async def is_level(nodes):
    return await behind(nodes) == 0


def memory(pid, line):
    """Megabytes of a process, by a line of its status."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(line):
            return int(text.split()[1]) / 1024
    raise AssertionError(line)


async def writers(nodes):
    """Edits of one field at the hub, over HTTP, and at the site."""
    site = nodes.pair.site
    rows = await site.sql("SELECT id::text FROM record WHERE kind = 'deal' LIMIT 2")
    hub_edit = editor(await nodes.hub.client(), nodes.token, rows[0][0])
    ctx, record = await site.ctx(), UUID(rows[1][0])

    async def here():
        fresh = msgspec.structs.replace(ctx, request_id=uuid7())
        done = await site.apply(update("deal", record, city=f"City {time.time_ns()}"), ctx=fresh)
        assert done.committed, done

    return hub_edit, here


async def times(write, count, done=None):
    """µs of each of `count` writes, or until `done`, with a person's pauses between."""
    found, chance = [], random.Random(5)
    while len(found) < count if count else not done.is_set():
        began = time.perf_counter()
        await write()
        found.append((time.perf_counter() - began) * 1e6)
        await asyncio.sleep(chance.uniform(*PAUSE_S))
    return found


async def to_the_list(nodes):
    """From a commit at the hub to the frame on a list that is open at the site."""
    site = nodes.pair.site
    ((record,),) = await site.sql("SELECT id::text FROM record WHERE kind = 'deal' LIMIT 1")
    _, token = await nodes.made.enter("owner", db=site.db)
    edit = editor(await nodes.hub.client(), nodes.token, record)
    server = harness.Server("appliance.assemble:asgi", nodes.site_env)
    try:
        live = Listener(await server.client(), "/api/v1/live?query=deal", token)
        await live.open()
        await asyncio.sleep(2)
        found, chance = [], random.Random(5)
        for _ in range(EDITS + 5):
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            found.append((await latency(live, edit))[1])
        for label, part in (("p50", 0.5), ("p95", 0.95)):
            value = at(found[5:], part) / 1e3
            harness.figure(f"commit at the hub to the site's list, {label}", value, "ms", "< 400")
        live.close()
    finally:
        server.stop()


async def idle(nodes):
    """Bytes both ways of a site at rest, heads of HTTP included."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: is_level(nodes), 10)
    async with aioredis.Redis.from_url(nodes.site_redis) as client:
        before = await carried(client, nodes)
        await asyncio.sleep(IDLE_S)
        after = await carried(client, nodes)
    harness.figure("an idle site, bytes a minute", (after - before) * 60 / IDLE_S, "B", "< 2000")


async def carried(client, nodes):
    health = await read_health(client, nodes.made.id, nodes.pair.parts.hub.origin)
    return health.sent + health.received
