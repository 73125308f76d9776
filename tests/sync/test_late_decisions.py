"""What somebody decides about a parked entry of a record that has moved on reaches its new home."""

from uuid import UUID

import msgspec
import pytest

from appliance.sync.deciding import What, decide
from appliance.sync.mending import park_own
from appliance.sync.messages import Parked
from appliance.write.verify import verify_log
from tests import pair as replicas
from tests.pair import exchange
from tests.sync.test_inbox_of_nodes import person
from tests.sync.test_receive import ROW, made, sound
from tests.tenants import update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def far(site_dsns, tenant, hub):
    """A branch that holds the south alone."""
    async with replicas.opened(site_dsns[1], 3, tenant, ["south"]) as found:
        await exchange(found, hub)
        yield found


async def parked_and_moved(hub, north, far):
    """A change of the north that the hub parked, of a record that went to the south since."""
    ident = await made(hub, title="A")
    for node in (north, far):
        await exchange(node, hub)
    stream = hub.tenant.units["north"]
    before = len(await north.log(stream))
    assert (await north.write(update("deal", ident, title="late"))).committed
    tail = [msgspec.structs.replace(e, parked="poison: x") for _, e in
            (await north.log(stream))[before:]]  # fmt: skip
    assert len((await hub.take(stream, tail, peer=2)).parked) == 1
    there = hub.tenant.units["south"]
    assert (await hub.write(update("deal", ident, unit=there, amount="7"))).committed
    # The author hears it with the receipt.
    receipt = [Parked(2, tail[0].entry.oseq, "poison: x")]
    await park_own(north.db, await north.ctx(), stream, 1, receipt)
    assert await title(north, ident) == "A"
    for node in (north, far):
        await exchange(node, hub)
    ((ident_parked,),) = await hub.tenant_rows("SELECT id::text FROM parked WHERE tenant_id = $1")
    return ident, UUID(ident_parked)


async def title(node, ident):
    ((data, *_),) = await node.tenant_rows(ROW, ident)
    return msgspec.json.decode(data)["title"]


async def test_a_release_at_the_hub_is_told_to_the_new_home(hub, north, far):
    ident, parked = await parked_and_moved(hub, north, far)
    rung = []
    hub.db.announce = rung.append
    told = await decide(hub.db, await person(hub), parked, What.RELEASE)
    assert told.parked.state == "released", told.parked
    assert rung == [hub.tenant.id]
    for node in (north, far):
        await exchange(node, hub)
    assert await title(hub, ident) == await title(far, ident) == "late"
    await sound(hub, far)


async def test_a_release_at_another_branch_is_told_by_the_hub(hub, north, far):
    ident, parked = await parked_and_moved(hub, north, far)
    await decide(north.db, await person(north), parked, What.RELEASE)
    for node in (north, far, north, far):
        await exchange(node, hub)
    assert await title(hub, ident) == await title(far, ident) == "late"
    await sound(hub, far)


async def test_a_skip_wakes_those_who_listen(hub, north, far):
    ident, parked = await parked_and_moved(hub, north, far)
    rung = []
    hub.db.announce = rung.append
    await decide(hub.db, await person(hub), parked, What.SKIP, reason="Not wanted.")
    assert rung == [hub.tenant.id]
    for node in (north, far):
        await exchange(node, hub)
    assert await title(hub, ident) == await title(far, ident) == "A"
    assert (await verify_log(far.db, far.tenant.id)).faults == ()
