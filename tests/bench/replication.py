"""What a hub takes from a site over HTTP, against a bare INSERT of the same rows.

A site sends frames of a thousand entries, as it would after a week alone: signed questions to an
API process of the hub, whose answer comes after the commits. The floor of the same run writes the
same rows of `record` and `change` to tables of the same shape with their indexes, a thousand of
each in a transaction: no merge, no hash, no outbox, no row security.
"""

import asyncio
import os
import time

import psycopg

from appliance.meta import load_schema
from appliance.sync import messages as say
from tests.bench import harness
from tests.bench.author import FRAME, Author
from tests.bench.catch_up import catch_up
from tests.bench.two_nodes import two_nodes

COUNT, TOGETHER = 20_000, 5
TARGET = 15_000
PARTS = os.environ.get("BENCH_PARTS", "take behind").split()


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    async with two_nodes(db, dsns) as nodes:
        if "take" in PARTS:
            await take(nodes)
        if "behind" in PARTS:
            await catch_up(nodes)


async def take(nodes):
    """Inserts, updates and redelivery over HTTP, each beside its floor."""
    pair, tenant = nodes.pair, nodes.made.tenant
    author = Author(
        tenant.units["north"], pair.site.origin, await load_schema(pair.hub.db, tenant.id),
        tenant.people["owner"],
    )  # fmt: skip
    talk = type(pair.talk())(nodes.parts, tenant.id)
    await talk.greet()

    server = harness.postmaster(nodes.dsns.superuser)

    async def send(frames, name=""):
        """Changes in a second; told is the processor time that each took."""
        api, base, began = (
            harness.cpu_of({nodes.hub.pid}),
            harness.cpu_of({server}),
            time.perf_counter(),
        )
        for n in range(0, len(frames), TOGETHER):
            push = say.Push(author.stream, frames[n : n + TOGETHER])
            answer = await talk.client.exchange(say.Exchange([push], [], say.ASK_BYTES_MAX))
            (receipt,) = answer.receipts
            assert not (receipt.problem or receipt.gap or receipt.parked), receipt
        count, took = len(frames) * FRAME, time.perf_counter() - began
        if name:
            spent = harness.cpu_of({nodes.hub.pid}) - api, harness.cpu_of({server}) - base
            for whose, cpu in zip(("API", "PostgreSQL"), spent, strict=True):
                harness.figure(f"{name}: processor time, {whose}", cpu / count * 1e6, "µs", "-")
        return count / took

    await send(author.frames(author.create, 3 * FRAME))
    created = author.frames(author.create, COUNT)
    inserts = await send(created, "inserts")
    raw_new = bare(nodes, author, COUNT)
    edited = author.frames(author.edit, COUNT)
    updates = await send(edited, "updates")
    raw_put = bare(nodes, author, COUNT)
    again = await send(created + edited, "known")
    for name, found, raw in (("inserts", inserts, raw_new), ("updates", updates, raw_put)):
        show(f"{name} taken over HTTP, a second", found, raw, f">= {TARGET} and >= 0.25")
    slower = min(inserts, updates)
    show("known entries again, over updates", again, slower, ">= 10")
    await talk.close()


def bare(nodes, author, count):
    """Rows of both tables that a bare INSERT writes in a second: pairs of the newest ones."""
    with psycopg.connect(nodes.dsns.superuser) as conn:
        conn.execute("DROP TABLE IF EXISTS raw_record, raw_change")
        conn.execute("CREATE TABLE raw_record (LIKE record INCLUDING ALL)")
        conn.execute("CREATE TABLE raw_change (LIKE change INCLUDING ALL)")
        changes = _rows(conn, "change", f"stream = '{author.stream}' ORDER BY seq DESC", count)
        records = _rows(conn, "record", "kind = 'deal' ORDER BY updated_at DESC", count)
        conn.commit()
        server = harness.postmaster(nodes.dsns.superuser)
        base, began = harness.cpu_of({server}), time.perf_counter()
        for n in range(0, count, FRAME):
            for table, (names, rows) in (("raw_record", records), ("raw_change", changes)):
                marks = ", ".join(["%s"] * len(names))
                text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"
                with conn.cursor() as cursor:
                    cursor.executemany(text, rows[n : n + FRAME])
            conn.commit()
        took, cpu = time.perf_counter() - began, harness.cpu_of({server}) - base
        harness.figure("bare: processor time, PostgreSQL", cpu / count * 1e6, "µs", "-")
        return count / took


def _rows(conn, table, where, count):
    """Rows as texts, without columns that hold nothing."""
    (one,) = conn.execute(f"SELECT to_jsonb(t) FROM {table} t WHERE {where} LIMIT 1").fetchone()
    names = [name for name, value in one.items() if value is not None]
    columns = ", ".join(f"{name}::text" for name in names)
    return names, conn.execute(
        f"SELECT {columns} FROM {table} WHERE {where} LIMIT {count}"
    ).fetchall()  # fmt: skip


def show(name, found, floor, target):
    """A rate over its floor."""
    print(
        f"{name:44} {found:9.0f} 1/s  floor {floor:9.0f} 1/s  ratio {found / floor:5.2f}  "
        f"target {target}", flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
