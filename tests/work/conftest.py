"""A PostgreSQL and a Valkey for the worker's tests, and ways to kill both."""

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis

from appliance.base.ids import uuid7
from appliance.db import migrate
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.runtime import postgres as pg
from appliance.runtime import valkey as vk
from appliance.runtime.account import child_setup, service_account
from appliance.runtime.engines import locate
from appliance.work.node import WorkNode


class Part:
    """One of the runtime's servers, to be killed and started by a test."""

    def __init__(self, server):
        self.server, self.child = server, None
        server.prepare()
        self.start()

    def start(self):
        self.child = subprocess.Popen(
            self.server.argv(), env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"},
            preexec_fn=child_setup(self.server.account), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        end = time.monotonic() + 30
        while not self.server.is_ready():
            if self.child.poll() is not None and time.monotonic() < end:
                # After kill -9 the old server's children may hold the folder for a moment.
                return self.start()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        return None

    def kill(self):
        self.child.kill()
        self.child.wait()


class Postgres(Part):
    def dsn(self, database, user="nexus_app"):
        return self.server.dsn(user, database)


class Valkey(Part):
    @property
    def url(self):
        return self.server.url

    def client(self):
        return redis.Redis.from_url(self.url)

    def kill(self):
        """Killed and wiped: it forgets everything."""
        super().kill()
        shutil.rmtree(self.server.folder / "appendonlydir", ignore_errors=True)


@pytest.fixture(scope="session")
def home():
    folder = Path(tempfile.mkdtemp(prefix="nexus-work-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(home):
    account = service_account()
    server = Postgres(pg.Postgres(locate(home, account).postgres_bin, home, account, durable=False))
    server.server.bootstrap()
    migrate.upgrade(server.dsn("nexus_control", "nexus_owner"), "control")
    migrate.upgrade(server.dsn("nexus_pool", "nexus_owner"), "placement")
    with psycopg.connect(server.dsn("nexus_control", "postgres"), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement (id, name, sort, target) VALUES (%s, 'pool', 'pooled', 'nexus_pool')",
            (uuid7(),),
        )
    # Effects of the tests' jobs: the proof of "exactly once".
    with psycopg.connect(server.dsn("nexus_pool", "nexus_owner"), autocommit=True) as conn:
        conn.execute("CREATE TABLE effect (tenant_id uuid, no int)")
        conn.execute("GRANT ALL ON effect TO nexus_app")
    yield server
    server.kill()


@pytest.fixture
def valkey(home):
    account = service_account()
    server = Valkey(vk.Valkey(locate(home, account).valkey, home, account))
    yield server
    server.kill()


class Place:
    """A tenant, its database handle and SQL in one line."""

    def __init__(self, db, tenant, url, dsn):
        self.db, self.tenant, self.url, self.dsn = db, tenant, url, dsn
        self.sealed = []

    async def run(self, text, *params):
        async with self.db.transaction(self.tenant) as tx:
            (rows,) = await tx.run((Statement(text), params))
        return [[v.decode() if v is not None else None for v in row] for row in rows]

    async def one(self, text, *params):
        return (await self.run(text, *params))[0][0]

    def node(self, name="test"):
        async def seal(db, tenant):
            self.sealed.append(tenant)
            await self.run("DELETE FROM audit_unsealed WHERE tenant_id = $1", tenant)
            return 1

        return WorkNode(db=self.db, redis_url=self.url, name=name, origin=1, seal=seal)

    async def until(self, check, seconds=20.0):
        """Wait until `await check()` is true; how long it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if await check():
                return time.monotonic() - begun
            await asyncio.sleep(0.05)
        raise AssertionError("it did not come to this in time")


@pytest.fixture
def place(postgres, valkey):
    """`run(test)` opens a database on a new tenant and runs the async test in it."""

    def run(test):
        async def body():
            tenant = uuid7()
            with psycopg.connect(postgres.dsn("nexus_pool", "postgres"), autocommit=True) as conn:
                conn.execute("TRUNCATE outbox, job, effect, audit_unsealed, tenant_state")
            with psycopg.connect(
                postgres.dsn("nexus_control", "postgres"), autocommit=True
            ) as conn:
                conn.execute("TRUNCATE tenant, schedule_run")
                conn.execute(
                    "INSERT INTO tenant (id, slug, name, placement_id) "
                    "SELECT %s, %s, 'Demo', id FROM placement", (tenant, f"t{tenant.hex[-12:]}"),
                )  # fmt: skip
            db = Database(postgres.dsn("nexus_control"), postgres.dsn("nexus_pool"))
            await db.start()
            try:
                await test(Place(db, tenant, valkey.url, postgres.dsn("nexus_pool", "postgres")))
            finally:
                await db.stop()

        asyncio.run(body())

    return run
