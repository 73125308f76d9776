"""Real parts for every test: one PostgreSQL and one Valkey for the run, a tenant in one line."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "nexus",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("nexus")

import psycopg
import pytest

from tests import cluster, tenants


@pytest.fixture(scope="session")
def dsns():
    found, stop = cluster.start()
    yield found
    stop()


@pytest.fixture
def anyio_backend():
    return "asyncio"


_count = iter(range(1, 10**9))


@pytest.fixture
async def db(dsns):
    async with tenants.opened(dsns) as found:
        yield found


@pytest.fixture
async def tenant(db, dsns):
    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    return await tenants.make_tenant(db, control, f"t{next(_count)}")


@pytest.fixture
def as_owner(dsns):
    async def run(tenant, text, *params):
        async with await psycopg.AsyncConnection.connect(dsns.superuser, autocommit=True) as conn:
            await conn.execute(text, params)

    return run
