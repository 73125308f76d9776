"""A field that is kept from a site: said at the hub, with what follows from it said before."""

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.base.errors import Invalid
from appliance.sync import nodes
from appliance.sync.foreseen import foresee, read_masks
from appliance.sync.incarnation import read_epoch
from appliance.sync.purge import Tools, proved, purge
from appliance.sync.scope import find_scope
from appliance.write.verify import verify_log
from tests.sync import pair as pairs
from tests.sync.pair import records
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"


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


async def purged(pair):
    """The site deletes what it has to and proves it; then it has what comes again."""
    talk = pair.talk()
    try:
        await talk.greet()
        assert talk.must_purge
        await talk.catch_up()
        tools = Tools(hub=pair.parts.hub.origin, sign=pair.parts.key.sign)
        proof = await purge(pair.site.db, pair.site.id, tools)
        await talk.greet(msgspec.msgpack.encode(proof))
        await proved(pair.site.db, pair.site.id, proof)
    finally:
        await talk.close()
    await pair.sync()


async def test_another_mask_says_what_it_deletes_and_takes_hold_after_that(pair):
    hub, me = pair.hub, pair.parts.me
    await hub.apply(create(KIND, title="one", margin="canary"))
    await pair.sync()
    masks = read_masks(f"{KIND}.title, {KIND}.margin")
    assert masks == {KIND: ["margin", "title"]} and read_masks("") == {}
    told = await foresee(hub.db, me.id, hub.id, units=None, masks=masks)
    assert told.adds == [] and {p.name for p in told.purges} >= {"north", "south"}
    (north,) = (p for p in told.purges if p.name == "north")
    assert (north.records, north.comes_again) == (1, True)
    before = (await find_scope(hub.db, me.id, hub.id)).epoch
    assert before == 1, "nothing was done"
    await nodes.set_units(hub.db, me.id, hub.id, None, masks=masks)
    again = await nodes.set_units(hub.db, me.id, hub.id, None, masks=masks)
    assert again.epoch == before + 1
    await purged(pair)
    assert "one" not in str(await records(pair.site, KIND))
    await nodes.set_units(hub.db, me.id, hub.id, None, masks={})
    await purged(pair)
    assert await records(pair.site, KIND) == await records(pair.hub, KIND)
    for wrong in ("deal", ".x", "deal."):
        with pytest.raises(Invalid):
            read_masks(wrong)
    with pytest.raises(Invalid):
        await foresee(hub.db, me.id, hub.id, units=None, masks={KIND: ["nothing"]})
