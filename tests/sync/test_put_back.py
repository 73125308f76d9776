"""A hub or a site that was put back from a backup: whatever was acknowledged is there afterwards."""

import dataclasses

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.sync.nodes import find_peer, find_self, hub_of
from appliance.sync.site import Begun
from appliance.write.verify import verify_log
from tests.sync.backup import hub_stays, keep, put_back
from tests.sync.pair import records
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"


@pytest.fixture
async def pair(pair):
    async with hub_stays(pair.hub.db):
        await pair.hub.add_kind(KIND, [("title", "text"), ("note", "text")])
        await pair.sync()
        yield pair


async def converse(pair, times=8):
    """Conversations until one ends well; who begins anew reads what it is first."""
    for _ in range(times):
        db = pair.site.db
        pair.parts = dataclasses.replace(pair.parts, me=await find_self(db), hub=await hub_of(db))
        pair.site.origin = pair.parts.me.origin
        pair.node.origin = (await find_self(pair.hub.db)).origin
        try:
            return await pair.sync()
        except Begun:
            continue
    raise AssertionError("it goes on beginning anew")


async def titles(tenant):
    rows = await tenant.sql(
        "SELECT data->>'title' FROM record WHERE tenant_id = $1 AND kind = $2 "
        "AND deleted_at IS NULL ORDER BY 1", tenant.id, KIND,
    )  # fmt: skip
    return [row[0] for row in rows]


async def at_hub(pair, *commands):
    """Commands at the hub under the origin it has now."""
    ctx = await pair.hub.ctx()
    me = await find_self(pair.hub.db)
    done = await pair.hub.apply(*commands, ctx=msgspec.structs.replace(ctx, origin=me.origin))
    assert done.committed, done


async def alike(pair):
    ours, theirs = await records(pair.hub, KIND), await records(pair.site, KIND)
    assert ours == theirs
    for one in (pair.hub, pair.site):
        report = await verify_log(one.db, one.id)
        assert report.faults == ()
    ((count, distinct),) = await pair.site.sql(
        "SELECT count(*), count(DISTINCT (stream, origin, oseq)) FROM change WHERE tenant_id = $1",
        pair.site.id,
    )
    assert count == distinct
    return sorted(await titles(pair.hub))


async def test_a_hub_that_was_put_back_regains_its_own_and_what_others_made(pair, dsns):
    kept = keep(dsns, pair.hub.id)
    deal = uuid7()
    await at_hub(pair, create(KIND, deal, title="of the hub"))
    await pair.site.apply(create(KIND, title="of the branch"))
    await pair.sync()
    assert (await pair.site.apply(update(KIND, deal, note="seen at the branch"))).committed
    await pair.sync()
    before = await alike(pair)
    put_back(dsns, pair.hub.id, kept, pair.hub.db)
    assert await titles(pair.hub) == []
    talk = await converse(pair)
    assert await alike(pair) == before == ["of the branch", "of the hub"]
    assert not talk.notices
    # From then on the site speaks for itself alone.
    await at_hub(pair, update(KIND, deal, title="goes on"))
    await pair.site.apply(create(KIND, title="later"))
    await converse(pair)
    assert await alike(pair) == ["goes on", "later", "of the branch"]
    welcome = await pair.talk().greet()
    assert not welcome.is_lacking and welcome.hub_origin != 1


async def test_what_a_hub_wrote_under_names_it_had_lost_stands_and_the_lost_is_made_anew(
    pair, dsns
):
    deal, gone = uuid7(), uuid7()
    await at_hub(pair, create(KIND, deal, title="first"))
    await pair.sync()
    kept = keep(dsns, pair.hub.id)
    await at_hub(pair, create(KIND, gone, title="lost"), create(KIND, title="also lost"))
    await pair.sync()
    assert (await pair.site.apply(update(KIND, gone, note="upon the lost"))).committed
    put_back(dsns, pair.hub.id, kept, pair.hub.db)
    # It was not noticed at once: the same names are given again.
    await at_hub(pair, create(KIND, title="since"))
    await converse(pair)
    assert await alike(pair) == ["also lost", "first", "lost", "since"]
    ((note,),) = await pair.hub.sql("SELECT data->>'note' FROM record WHERE id = $1", gone)
    assert note == "upon the lost"
    assert await pair.hub.sql("SELECT 1 FROM conflict WHERE tenant_id = $1", pair.hub.id) == []
    remade = await pair.site.sql(
        "SELECT count(*) FROM audit WHERE tenant_id = $1 AND action = 'sync.remade'", pair.site.id
    )
    assert remade == [["1"]]


@pytest.mark.parametrize("more", [0, 1, 5])
async def test_what_a_site_wrote_between_a_restore_and_its_notice_is_made_anew(pair, dsns, more):
    deal = uuid7()
    await pair.site.apply(create(KIND, deal, title="first"))
    await pair.sync()
    kept = keep(pair.dsns, pair.site.id)
    for n in range(3):
        await pair.site.apply(create(KIND, title=f"sent {n}"))
    await pair.site.apply(update(KIND, deal, note="sent"))
    await pair.sync()
    put_back(pair.dsns, pair.site.id, kept, pair.site.db)
    for n in range(more):
        await pair.site.apply(create(KIND, title=f"again {n}"))
    assert (await pair.site.apply(update(KIND, deal, title="first, again"))).committed
    before = pair.parts.me.origin
    await converse(pair)
    found = await alike(pair)
    assert found == sorted(
        [*(f"again {n}" for n in range(more)), "first, again", "sent 0", "sent 1", "sent 2"]
    )
    peer = await find_peer(pair.hub.db, pair.parts.me.id)
    assert peer.origin == pair.parts.me.origin != before and before in peer.former_origins
    ((note,),) = await pair.hub.sql("SELECT data->>'note' FROM record WHERE id = $1", deal)
    assert note == "sent"
    # Both goes on.
    await pair.site.apply(create(KIND, title="onwards"))
    await converse(pair)
    assert "onwards" in await alike(pair)
