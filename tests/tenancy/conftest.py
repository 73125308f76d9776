"""The owner's servers, a second pooled placement, and free short names."""

import itertools

import pytest

from appliance.tenancy import Servers, create_placement

_numbers = itertools.count(1)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def servers(dsns):
    return Servers(control_dsn=dsns.control_owner, placement_dsn=dsns.pool_owner)


@pytest.fixture
async def second(servers):
    """A pooled placement beside `pool`."""
    return await create_placement(servers, "nexus_second")


@pytest.fixture
def slug():
    return f"firm-{next(_numbers)}"
