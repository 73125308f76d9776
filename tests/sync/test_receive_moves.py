"""Records that leave what a node holds, and come back: the node's tables say what the hub's do."""

import pytest

from appliance.write.refold import fold_early, recount
from tests.pair import exchange
from tests.sync.test_receive import ROW, made, same, sound
from tests.tenants import update

pytestmark = pytest.mark.anyio


async def moved(hub, ident, unit, **fields):
    done = await hub.write(update("deal", ident, unit=hub.tenant.units[unit], **fields))
    assert done.committed, done


async def test_a_record_that_went_and_came_back_is_what_it_became_there(hub, north, south):
    """In one frame, or with each step heard of by itself."""
    ident = await made(hub, title="Lamp", amount="1")
    steps = (("south", {"title": "Lantern"}), ("south", {"amount": "5"}), ("north", {}))
    for unit, fields in steps:
        await moved(hub, ident, unit, **fields)
    await exchange(north, hub)
    await same(ident, hub, north)
    for unit, fields in (("south", {"amount": "6"}), ("north", {"title": "Torch"})):
        await moved(hub, ident, unit, **fields)
        await exchange(north, hub)
    await same(ident, hub, north)
    await moved(hub, ident, "south", amount="7")
    await moved(hub, ident, "north", note="back again")
    await exchange(north, hub)
    await same(ident, hub, north)
    await sound(hub, north)


async def test_a_record_that_left_stays_away_whatever_comes_late(hub, north, south):
    ident = await made(hub, title="Lamp", amount="1")
    for site in (north, south):
        await exchange(site, hub)
    await moved(hub, ident, "south")
    # The south has not heard of it and writes through the former home.
    await south.write(update("deal", ident, title="Lantern"))
    await exchange(south, hub)
    await exchange(north, hub)
    await exchange(south, hub)
    assert not await north.tenant_rows(ROW, ident)
    ctx = await north.ctx()
    await fold_early(north.db, ctx)
    assert not await north.tenant_rows(ROW, ident), "its new home is none of ours"
    await recount(north.db, ctx, [(hub.tenant.units["north"], 1, 1)])
    assert not await north.tenant_rows(ROW, ident)
    await sound(north)
    await same(ident, hub, south)
    await moved(hub, ident, "north")
    for site in (north, south):
        await exchange(site, hub)
    await same(ident, hub, north, south)
    await sound(hub, north, south)
