"""A field that is kept from a site: said at the hub, with what follows from it said before."""

import asyncio

import pytest

from appliance.base.ids import uuid7
from appliance.sync import nodes
from appliance.sync.incarnation import read_epoch
from appliance.sync.withdrawal import change_scope
from appliance.write.verify import verify_log
from tests.sync import pair as pairs
from tests.sync.pair import records
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"
assert asyncio and nodes


@pytest.fixture
async def pair(tenant, there, valkey_url, tmp_path):
    await tenant.add_kind(KIND, [("title", "text"), ("margin", "text")])
    given = {KIND: ["margin"]}
    async with pairs.joined(tenant, there, valkey_url, tmp_path, masks=given) as found:
        yield found


async def test_what_is_kept_from_a_site_is_not_there_and_all_else_goes_on(pair):
    deal = uuid7()
    before = await read_epoch(pair.hub.db)
    for n in range(3):
        await pair.hub.apply(create(KIND, title=f"deal {n}", margin="canary"))
    await pair.hub.apply(create(KIND, deal, title="one", margin="canary"))
    await pair.hub.apply(create("sys.person", name="P"))
    for round_ in range(3):
        await pair.sync()
        found = str(await records(pair.site, KIND))
        assert "canary" not in found and "deal 2" in found
        await pair.hub.apply(update(KIND, deal, title=f"one {round_}"))
        await pair.hub.apply(update(KIND, deal, margin=f"canary {round_}"))
        assert (await pair.site.apply(create(KIND, title=f"of the branch {round_}"))).committed
    await pair.sync()
    assert "of the branch 2" in str(await records(pair.hub, KIND))
    assert "one 2" in str(await records(pair.site, KIND))
    assert await read_epoch(pair.hub.db) == before
    assert (await verify_log(pair.site.db, pair.site.id)).faults == ()
    # From the beginning once more: nothing of it contradicts what is here.
    await pair.site.sql("UPDATE peer_stream SET cursor = 0 WHERE tenant_id = $1", pair.site.id)
    await pair.sync()
