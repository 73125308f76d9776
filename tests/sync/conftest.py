"""A hub and two sites of one tenant, each with databases of its own."""

import pytest

from tests import pair

_sites = {}


@pytest.fixture(scope="session")
def site_dsns(dsns):
    return [pair.make_databases(dsns, n) for n in (2, 3)]


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
    return pair.Replica(db, 1, tenant, is_hub=True)


@pytest.fixture
async def north(site_dsns, tenant, hub):
    async with pair.opened(site_dsns[0], 2, tenant, ["north"]) as found:
        await pair.exchange(found, hub)
        yield found


@pytest.fixture
async def south(site_dsns, tenant, hub):
    async with pair.opened(site_dsns[1], 3, tenant, ["north", "south"]) as found:
        await pair.exchange(found, hub)
        yield found
