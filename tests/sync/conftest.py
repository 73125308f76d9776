"""Nodes of one tenant beside the one of the run, each with databases of its own."""

import pytest

from appliance.write.log import CLOCK
from tests import pair as replicas
from tests.http.conftest import valkey_url
from tests.sync import pair as pairs

__all__ = ["valkey_url"]


@pytest.fixture(autouse=True)
def clock_of_today():
    """What another test has told this process of the time."""
    CLOCK._last = 0


@pytest.fixture(scope="session")
def there(dsns):
    return pairs.make_databases(dsns)


@pytest.fixture
async def pair(tenant, there, valkey_url, tmp_path):
    async with pairs.joined(tenant, there, valkey_url, tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def site_dsns(dsns):
    return [replicas.make_databases(dsns, n) for n in (2, 3)]


@pytest.fixture
async def hub(db, tenant):
    await tenant.add_kind(
        "deal",
        [
            ("title", "text"), ("note", "long_text"), ("amount", "number"),
            {"name": "city", "type": "text", "group": "address"},
            {"name": "street", "type": "text", "group": "address"},
            {"name": "tags", "type": "multi_choice", "options": {"choices": [
                {"key": k, "labels": {"en": k}} for k in ("red", "blue", "green")]}},
        ],
    )  # fmt: skip
    return replicas.Replica(db, 1, tenant, is_hub=True)


@pytest.fixture
async def north(site_dsns, tenant, hub):
    async with replicas.opened(site_dsns[0], 2, tenant, ["north"]) as found:
        await replicas.exchange(found, hub)
        yield found


@pytest.fixture
async def south(site_dsns, tenant, hub):
    async with replicas.opened(site_dsns[1], 3, tenant, ["north", "south"]) as found:
        await replicas.exchange(found, hub)
        yield found
