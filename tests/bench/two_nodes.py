"""A hub and a site as real processes on one machine: PostgreSQLs, Valkeys and programs of their own.

Each has a server of its own, as it has in life: what one of them writes to its disk holds up nobody
at the other.
"""

import contextlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psycopg

from appliance.assemble import write_endpoints
from appliance.runtime.clamd import ScannerState
from appliance.runtime.services import Endpoints
from tests import cluster
from tests.bench import harness
from tests.bench.live import process, valkey
from tests.bench.over_http import firm
from tests.sync import pair as pairs

WORK = ("-c", "from appliance.cli.up import work; work()")


@dataclass
class Nodes:
    """Both nodes: the hub's API serves; the site's programs are started when they are wanted."""

    made: object
    token: str
    pair: pairs.Pair
    dsns: object
    hub: harness.Server
    hub_env: dict
    site_env: dict
    site_redis: str
    parts: object = None
    running: list = field(default_factory=list)

    @contextlib.contextmanager
    def working(self, env):
        """A worker process."""
        with process(*WORK, **env) as child:
            yield child

    async def url_is(self, url):
        """Where the site finds its hub."""
        control = self.pair.dsns.superuser.replace(pairs.POOL, pairs.CONTROL)
        with psycopg.connect(control, autocommit=True) as conn:
            conn.execute("UPDATE node SET url = %s WHERE role = 'hub'", (url,))
        hub = msgspec.structs.replace(self.pair.parts.hub, url=url)
        self.parts = replace(self.pair.parts, hub=hub, transport=None)


@contextlib.asynccontextmanager
async def two_nodes(db, dsns, rows=0):
    """A hub with `rows` deals, and a site that has joined it and has nothing yet."""
    made, _, token = await firm(db, dsns, "pair", rows)
    with (
        second_server() as there, tempfile.TemporaryDirectory() as folder,
        valkey() as hub_redis, valkey() as site_redis,
    ):  # fmt: skip
        folder = Path(folder)
        folder.chmod(0o755)
        async with pairs.joined(made.tenant, there, hub_redis, folder) as pair:
            hub_env = _env(dsns, folder / "hub", hub_redis, "hub")
            site_env = _env(there, folder / "site", site_redis, "site")
            server = harness.Server("appliance.assemble:asgi", hub_env)
            nodes = Nodes(made, token, pair, dsns, server, hub_env, site_env, site_redis)
            try:
                await nodes.url_is(f"http://127.0.0.1:{server.port}")
                (await server.client()).writer.close()
                yield nodes
            finally:
                server.stop()


@contextlib.contextmanager
def second_server():
    """The site's databases, in a server of their own."""
    dsns, stop = cluster.start()
    try:
        yield pairs.make_databases(dsns)
    finally:
        stop()


def _env(dsns, folder, redis, role):
    env = harness.node_env(dsns, folder)
    write_endpoints(
        Path(env["NEXUS_ENDPOINTS_FILE"]),
        Endpoints(dsns.control_owner, dsns.control_dsn, dsns.pool_owner, dsns.pool_dsn, "", redis,
                  ScannerState("absent", "No scanner.")),
    )  # fmt: skip
    return {**env, "NEXUS_ROLE": role}
