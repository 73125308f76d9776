"""`python -m tests.bench`: list, aggregate, search, compile, create and bulk, against their floors.

CPU is user + sys of this process and of the PostgreSQL backends it used, per call; the floor is
one prepared psycopg statement without row security, session or profile that gives the same rows.
"""

import asyncio
import os
import statistics
import time
from pathlib import Path

import msgspec
import psycopg
from psycopg.types.string import TextLoader

from appliance.base.ids import uuid7
from appliance.base.memory import collect_seldom
from appliance.kernel.query import decode_query
from appliance.read import Cursors, plan_query, run
from tests.bench import harness
from tests import cluster, tenants

ROWS = 100_000
ROUNDS = 5
CALLS = 300
TICK = os.sysconf("SC_CLK_TCK")
CURSORS = Cursors(b"c" * 32)
KIND = [
    {"name": "name", "type": "text", "searchable": True},
    ("amount", "money"),
    {"name": "stage", "type": "choice", "options": {"choices": [{"key": "new"}, {"key": "won"}]}},
    ("city", "text"),
    ("closes", "date"),
]


def backend_cpu(cluster_pid):
    """CPU seconds of the server and all its backends, the ended ones too."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == cluster_pid or int(stat.parent.name) == cluster_pid:
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


async def cpu_us(call, pid, count=CALLS):
    """Median over rounds of the CPU microseconds of one call."""
    for _ in range(20):
        await call()
    found = []
    for _ in range(ROUNDS):
        own, server = time.process_time(), backend_cpu(pid)
        for _ in range(count):
            await call()
        found.append((time.process_time() - own + backend_cpu(pid) - server) / count * 1e6)
    return statistics.median(found)


def report(name, ours, floor, target):
    print(
        f"{name:34} {ours:10.0f} µs  floor {floor:10.0f} µs  ratio {ours / floor:5.2f}  target {target}"
    )


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    tenant = await tenants.make_tenant(db, control, "bench")
    await tenant.add_kind("deal", KIND)
    began = time.process_time()
    for start in range(0, ROWS, 10_000):
        await tenant.apply(*(deal(n) for n in range(start, start + 10_000)))
    print(
        f"{ROWS} records written, {(time.process_time() - began) / ROWS * 1e6:.0f} µs of application CPU each"
    )
    floor = await psycopg.AsyncConnection.connect(
        dsns.superuser, autocommit=True, prepare_threshold=0
    )
    floor.adapters.register_loader("jsonb", TextLoader)
    await floor.execute("VACUUM ANALYZE record")
    row = await (
        await floor.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    ).fetchone()
    pid = int(Path(f"/proc/{row[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    ctx = await tenant.ctx()
    asked = {"from": "deal", "sort": ["-amount"], "limit": 50, "select": ["number", "name", "amount", "stage", "city"],
             "where": {"and": [{"field": "stage", "op": "eq", "value": "won"}, {"field": "amount", "op": "gte", "value": "100"}]}}  # fmt: skip
    for name, query, target in (
        ("list of 50, two filters, sort", asked, "2"),
        (
            "aggregate with group",
            {"from": "deal", "group": ["stage"], "select": [{"sum": "amount"}]},
            "1.5",
        ),
        ("full-text search", {"from": "deal", "search": "word77", "select": ["name"]}, "1.5"),
    ):
        await compare(db, ctx, floor, pid, (name, query, target))
    decoded = decode_query(asked)
    began = time.perf_counter()
    for _ in range(2_000):
        plan_query(ctx, decode_query(asked), ["1", str(ctx.actor)])
    print(
        f"{'compile from JSON':34} {(time.perf_counter() - began) / 2_000 * 1e6:10.0f} µs  target 100 µs"
    )
    assert decoded
    await bulk(tenant, floor)
    await floor.close()


def deal(n):
    return tenants.create(
        "deal", name=f"Deal word{n % 1000} {n}", amount=f"{n}.50", stage=("new", "won")[n % 2],
        city=f"City {n % 100}", closes=f"2027-{n % 12 + 1:02}-{n % 28 + 1:02}",
    )  # fmt: skip


async def compare(db, ctx, floor, pid, case):
    """Ours through the read path against the same statement text, prepared, on a bare connection."""
    name, query, target = case
    plan = plan_query(ctx, decode_query(query))
    text, params = plan.call
    bare = floor.cursor
    sql = text.sql.decode()
    for n in range(len(params), 0, -1):
        sql = sql.replace(f"${n}::", f"%(p{n})s::")
    values = {f"p{n}": value for n, value in enumerate(params, 1)}

    async def one():
        cursor = bare()
        await cursor.execute(sql.replace("%'", "%%'"), values)
        return await cursor.fetchall()

    async def other():
        return await run(db, ctx, decode_query(query), CURSORS)

    count = 20 if "group" in query else CALLS
    report(name, await cpu_us(other, pid, count), await cpu_us(one, pid, count), target)


async def bulk(tenant, floor):
    """Ten thousand records in one call against COPY of the same rows into the same table."""
    ours, bare = [], []
    ctx = await tenant.ctx()
    for _ in range(ROUNDS):
        commands = [deal(n) for n in range(10_000)]
        fresh = msgspec.structs.replace(ctx, request_id=uuid7())
        began = time.perf_counter()
        result = await tenant.apply(*commands, ctx=fresh)
        ours.append(time.perf_counter() - began)
        assert result.committed
        await floor.execute(
            "CREATE TEMP TABLE rows AS SELECT * FROM record ORDER BY created_at DESC LIMIT 10000"
        )
        await floor.execute("UPDATE rows SET id = uuidv7()")
        data = []
        async with floor.cursor().copy("COPY rows TO STDOUT") as copy:
            async for block in copy:
                data.append(bytes(block))
        began = time.perf_counter()
        async with floor.cursor().copy("COPY record FROM STDIN") as copy:
            for block in data:
                await copy.write(block)
        bare.append(time.perf_counter() - began)
        await floor.execute("DELETE FROM record WHERE id IN (SELECT id FROM rows)")
        await floor.execute("DROP TABLE rows")
    best, copied = statistics.median(ours), statistics.median(bare)
    print(
        f"{'10 000 records in one call':34} {best:10.2f} s   COPY {copied:10.2f} s   rate {copied / best:5.2f} × COPY  target 0.4"
    )


if __name__ == "__main__":
    asyncio.run(main())
