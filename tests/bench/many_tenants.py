"""A thousand tenants in one placement: what making one costs, and what they cost each other."""

import asyncio
import statistics
import tempfile
import time

import psycopg

from appliance.db.database import Database
from appliance.install import NewTenant, create_tenant
from appliance.tenancy import Servers
from tests import cluster, tenants
from tests.bench import harness, scale
from tests.bench.over_http import firm

TENANTS, ROWS = 1_000, 20_000


async def main():
    await harness.on_cluster(measure)


async def measure(db: Database, dsns):
    servers = Servers(control_dsn=dsns.control_owner, placement_dsn=dsns.pool_owner)
    _, _, token = await firm(db, dsns, "first", ROWS)
    with tempfile.TemporaryDirectory() as folder:
        server = harness.Server("appliance.assemble:asgi", harness.node_env(dsns, folder))
        try:
            client = await server.client()
            pids = {harness.postmaster(dsns.superuser), server.pid}
            scale.vacuum(dsns)
            alone = await scale.cost(client, token, pids)
            took = await fill(db, servers)
            clone_rows(dsns)
            scale.vacuum(dsns)
            harness.figure("create a tenant, median", took * 1000, "ms", "< 1000")
            client = await server.client()
            among = await scale.cost(client, token, pids)
            harness.report("list of one among 1 000 tenants", among, alone, "1.2 (floor: alone)")
        finally:
            server.stop()


async def fill(db, servers):
    """So many tenants, made one after the other; seconds each."""
    found = []
    for n in range(TENANTS):
        began = time.perf_counter()
        new = NewTenant(
            slug=f"t{n}", name=f"Tenant {n}", email="owner@example.org",
            password="seven green umbrellas at dusk", template="blank",
        )  # fmt: skip
        await create_tenant(db, servers, new, origin=1)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def clone_rows(dsns):
    """A thousand deals for each of the others."""
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        conn.execute(
            scale.CLONE.replace("SELECT tenant_id,", "SELECT s.tenant_id,").replace(
                "FROM record, generate_series(1, %s) g WHERE kind = 'deal'",
                "FROM (SELECT * FROM record WHERE kind = 'deal' LIMIT 1000) r, "
                "(SELECT tenant_id FROM tenant_state) s, generate_series(1, 1) g "
                "WHERE s.tenant_id <> r.tenant_id",
            )
        )


if __name__ == "__main__":
    asyncio.run(main())
