"""The same list at 100 000 and at 2 000 000 records, and at any depth: the cost stays flat."""

import asyncio
import json
import statistics
import tempfile

import psycopg

from tests import cluster, tenants
from tests.bench import harness
from tests.bench.over_http import ASKED, firm

SMALL, LARGE = 100_000, 2_000_000
CLONE = """INSERT INTO record SELECT tenant_id, uuidv7() AS id, kind, stream, unit_id, owner_id, number, data,
  stamps, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, search,
  t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, n1 + g, n2, n3, n4, n5, n6, n7, n8,
  d1, d2, d3, d4, d5, d6, r1, r2, r3, r4, r5, r6, r7, r8
  FROM record, generate_series(1, %s) g WHERE kind = 'deal'"""


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    _, _, token = await firm(db, dsns, "scale", SMALL)
    with tempfile.TemporaryDirectory() as folder:
        server = harness.Server("appliance.assemble:asgi", harness.node_env(dsns, folder))
        try:
            client = await server.client()
            pids = {harness.postmaster(dsns.superuser), server.pid}
            vacuum(dsns)
            small = await cost(client, token, pids)
            with psycopg.connect(dsns.superuser, autocommit=True) as conn:
                conn.execute("SET max_parallel_workers_per_gather = 0")
                conn.execute(CLONE, [LARGE // SMALL - 1])
            vacuum(dsns)
            client = await server.client()
            large = await cost(client, token, pids)
            harness.report("list of 50 of 2 000 000", large, small, "1.3 (floor: of 100 000)")
            deep = await cost(client, token, pids, await cursor_at(client, token, 200))
            harness.report("its page 200 by keyset", deep, large, "1.3 (floor: first page)")
        finally:
            server.stop()


def vacuum(dsns):
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE record")


async def cursor_at(client, token, pages):
    """The cursor behind so many pages of 500."""
    after = None
    for _ in range(pages):
        asked = {**ASKED, "limit": 500, **({"after": after} if after else {})}
        status, body = await client.ask(harness.request("POST", "/api/v1/query", token, asked))
        assert status == 200, body
        after = json.loads(body)["next"]
    return after


async def cost(client, token, pids, after=None):
    """Median CPU in µs of one page."""
    asked = {**ASKED, **({"after": after} if after else {})}
    sent = harness.request("POST", "/api/v1/query", token, asked)
    found = []
    for _ in range(harness.ROUNDS + 1):
        began = harness.cpu_of(pids)
        for _ in range(400):
            status, body = await client.ask(sent)
            assert status == 200, body
        found.append((harness.cpu_of(pids) - began) / 400 * 1e6)
    return statistics.median(found[1:])


if __name__ == "__main__":
    asyncio.run(main())
