"""The application over real parts: a PostgreSQL, a Valkey, tenants with people who sign in."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
import redis.asyncio as aioredis

from appliance.access.session import Sessions
from appliance.assemble import TenantJobs
from appliance.base.roles import Role
from appliance.base.settings import Settings
from appliance.http.app import create_app
from appliance.http.node import Node
from appliance.read import Cursors
from appliance.runtime.account import child_setup, service_account
from appliance.runtime.engines import locate
from appliance.runtime.valkey import Valkey
from tests.http import world
from tests.plane import PlaneProcesses


@pytest.fixture(scope="session")
def valkey_url():
    folder = Path(tempfile.mkdtemp(prefix="nexus-http-"))
    folder.chmod(0o755)
    account = service_account()
    server = Valkey(locate(folder, account).valkey, folder, account)
    server.prepare()
    child = subprocess.Popen(
        server.argv(), env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}, cwd="/",
        preexec_fn=child_setup(account), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 20
    while not server.is_ready():
        assert time.monotonic() < end, "valkey did not start"
        time.sleep(0.05)
    yield server.url
    child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)


def make_node(db, url, **changes):
    client = aioredis.Redis.from_url(url)
    parts = dict(
        settings=Settings(), role=Role.SOLO, db=db, redis=client, cursors=Cursors(b"k" * 32),
        sessions=Sessions(db, origin=1, node_prefix="", idle_minutes=60), jobs=TenantJobs(db, client),
        version="0.0.0",
    )  # fmt: skip
    return Node(**{**parts, **changes})


@pytest.fixture(scope="session")
def holding(valkey_url):
    """A content plane without a scanner: it takes files and holds them."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-content-"))
    found = PlaneProcesses(folder, valkey_url)
    found.start("serve")
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def node(db, valkey_url, holding, tmp_path):
    content = holding.client()
    found = make_node(db, valkey_url, settings=Settings(data=str(tmp_path)), content=content)
    yield found
    await content.close()
    await found.redis.aclose()


@pytest.fixture
def app(node):
    return create_app(node)


def client_of(app, *, address="127.0.0.1", base="http://node"):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=base)


@pytest.fixture
async def client(app):
    async with client_of(app) as found:
        yield found


@pytest.fixture(scope="session")
def shared():
    """Tenants are dear: one world for a whole module's reading tests."""
    return {}


@pytest.fixture
async def firm(db, dsns, shared):
    """The first tenant: people of several profiles, two branches, deals and customers."""
    return await _firm(db, dsns, shared, "firm")


@pytest.fixture
async def rival(db, dsns, shared):
    """A second tenant of the same shape."""
    return await _firm(db, dsns, shared, "rival")


async def _firm(db, dsns, shared, slug):
    if slug not in shared:

        def control():
            return psycopg.AsyncConnection.connect(
                dsns.superuser.replace("nexus_pool", "nexus_control")
            )

        shared[slug] = await world.build(db, control, f"{slug}{len(shared)}")
    await db.routes.refresh()
    found = shared[slug]
    found.tenant.db = db
    return found


@pytest.fixture
def sign_in(client):
    """A client with the bearer token of a person."""

    async def signed(firm, who):
        token = firm.tokens.get(who)
        if token is None:
            answer = await client.post("/api/v1/session", json=firm.credentials(who))
            assert answer.status_code == 201, answer.text
            token = firm.tokens[who] = answer.json()["token"]
        found = httpx.AsyncClient(transport=client._transport, base_url="http://node")
        found.headers["Authorization"] = f"Bearer {token}"
        return found

    return signed


@pytest.fixture
def redis_sync(valkey_url):
    with redis.Redis.from_url(valkey_url) as found:
        yield found
