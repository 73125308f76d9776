"""A database that was put back or copied is noticed; what follows happens once."""

import asyncio

import pytest

from appliance.base.errors import Refused
from appliance.db.wire import Statement
from appliance.sync import incarnation, nodes
from tests.sync.sites import NOBODY, hub_row, site

pytestmark = pytest.mark.anyio
_VECTOR = Statement(
    "INSERT INTO stream_vector (tenant_id, stream, origin, got, hash) VALUES ($1, $2, $3, $4, $5)"
)
_CHANGE = Statement(
    "INSERT INTO change (tenant_id, stream, seq, origin, oseq, tx, hlc, ehlc, kind, record_id, op, "
    "actor, door, schema_rev, change_set, body, hash) VALUES ($1, $2, $3, $4, $5, 1, 1, 1, 'deal', "
    "$1, 'create', $1, 'sync', 1, $1, '', $6)"
)
_PEER = Statement(
    "INSERT INTO peer_stream (tenant_id, peer, stream, cursor, acked) VALUES ($1, $2, $3, 40, 20)"
)
H10, OTHER = b"h" * 32, b"o" * 32


@pytest.fixture
async def one(db, tenant):
    """A site of which the hub has ten entries in one stream."""
    found = await site(db, tenant.id)
    async with db.transaction(tenant.id) as tx:
        await tx.run((_VECTOR, (tenant.id, tenant.units["north"], found.origin, 10, H10)))
    return found


async def told(db, tenant, one, tip):
    peer = await nodes.find_peer(db, one.id)
    tips = {} if tip is None else {tenant.units["north"]: {one.origin: tip}}
    return await incarnation.needs_new_incarnation(db, tenant.id, peer, tips)


@pytest.mark.parametrize(
    ("tip", "found"),
    [
        ((10, H10), None), ((11, OTHER), None), ((9, OTHER), "behind"), (None, "behind"),
        ((10, OTHER), "forked"),
    ],
)  # fmt: skip
async def test_a_site_that_lost_what_it_gave_is_noticed(db, tenant, one, tip, found):
    assert await told(db, tenant, one, tip) == found


async def test_a_new_origin_is_issued_once_however_often_it_is_asked(db, tenant, one):
    before = one.origin
    found = await asyncio.gather(
        *(incarnation.issue_origin(db, one.id, before, tenant=tenant.id) for _ in range(5))
    )
    assert len({f.origin for f in found}) == 1 and found[0].origin != before
    peer = await nodes.find_peer(db, one.id)
    assert (peer.former_origins, peer.incarnation) == ((before,), 2)
    assert peer.origins == {before, peer.origin}
    assert await told(db, tenant, one, None) is None, "under the new origin nothing is missing"
    later = await site(db, tenant.id)
    assert later.origin > peer.origin
    events = await tenant.sql("SELECT action FROM audit WHERE tenant_id = $1 AND action = "
                              "'node.incarnated'", tenant.id)  # fmt: skip
    assert len(events) == 1
    with pytest.raises(Refused):
        await incarnation.issue_origin(db, NOBODY, 1)


async def test_a_site_takes_its_new_origin_and_keeps_the_old(db, dsns, tenant):
    async with hub_row(db, dsns):
        assert await incarnation.take_origin(db, 5_000, 2, [77])
        assert not await incarnation.take_origin(db, 5_000, 2, [77])
        me = await nodes.find_self(db)
        assert (me.origin, me.incarnation, me.former_origins) == (5_000, 2, (1, 77))


async def test_a_site_tells_its_last_entries_of_every_origin(db, tenant, one):
    north = tenant.units["north"]
    tips = await incarnation.read_own_tips(db, tenant.id, [1, one.origin])
    assert tips[north][one.origin] == (10, H10)
    shared = [s for s, by in tips.items() if 1 in by]
    (row,) = await tenant.sql("SELECT count(*) FROM stream WHERE tenant_id = $1 AND oseq > 0",
                              tenant.id)  # fmt: skip
    assert len(shared) == int(row[0])


async def test_a_hub_that_lost_what_it_gave_is_noticed(db, tenant, one):
    north, south = tenant.units["north"], tenant.units["south"]
    async with db.transaction(tenant.id) as tx:
        await tx.run((_CHANGE, (tenant.id, north, 1, one.origin, 10, H10)))

    async def lost(**tips):
        found = {tenant.units[name]: tip for name, tip in tips.items()}
        return await incarnation.hub_went_back(db, tenant.id, found)

    assert await lost() == []
    assert await lost(north=(40, one.origin, 10, H10)) == []
    assert await lost(north=(40, one.origin, 10, b"")) == [], "stripped for the site"
    assert await lost(north=(40, one.origin, 9, OTHER)) == [], "below the floor"
    assert await lost(north=(40, one.origin, 10, OTHER)) == [north]
    assert await lost(north=(40, one.origin, 11, H10), south=(1, 9, 1, H10)) == sorted(
        [north, south]
    )


async def test_a_site_names_the_last_it_took_from_the_hub(db, tenant, one):
    north = tenant.units["north"]
    async with db.transaction(tenant.id) as tx:
        await tx.run(
            (_CHANGE, (tenant.id, north, 1, 3, 7, OTHER)),
            (_CHANGE, (tenant.id, north, 2, one.origin, 10, H10)), (_PEER, (tenant.id, 1, north)),
        )  # fmt: skip
    tips = await incarnation.read_hub_tips(db, tenant.id, 1, [one.origin])
    assert tips == {north: (40, 3, 7, OTHER)}


async def test_a_new_epoch_begins_once_and_brings_a_new_origin(db, dsns):
    async with hub_row(db, dsns):
        known = await incarnation.read_epoch(db)
        found = await asyncio.gather(
            *(incarnation.renew_epoch(db, known, "test") for _ in range(4))
        )
        assert set(found) == {await incarnation.read_epoch(db)} and known not in found
        me = await nodes.find_self(db)
        assert me.former_origins == (1,) and me.incarnation == 2
        ((last,),) = await nodes.run_control(db, "SELECT last FROM origin_issued")
        assert me.origin == last > incarnation.ORIGINS_SKIPPED


async def test_a_restored_tenant_with_sites_begins_an_epoch(db, dsns, tenant):
    async with hub_row(db, dsns):
        known = await incarnation.read_epoch(db)
        assert not await incarnation.note_restored(db, tenant.id)
        await site(db, tenant.id)
        assert await incarnation.note_restored(db, tenant.id)
        assert await incarnation.read_epoch(db) != known


async def test_a_site_that_hears_another_epoch_starts_over_once(db, tenant):
    hub = await site(db, tenant.id)
    north = tenant.units["north"]
    await nodes.run_control(db, "UPDATE node SET role = 'hub' WHERE id = %s", hub.id)
    try:
        async with db.transaction(tenant.id) as tx:
            await tx.run((_PEER, (tenant.id, hub.origin, north)))
        before = await incarnation.read_epoch(db)
        assert not await incarnation.note_hub_epoch(db, [tenant.id], before, hub.origin)
        assert await incarnation.note_hub_epoch(db, [tenant.id], NOBODY, 90_000)
        assert not await incarnation.note_hub_epoch(db, [tenant.id], NOBODY, 90_000)
        (row,) = await tenant.sql("SELECT cursor, acked FROM peer_stream WHERE tenant_id = $1",
                                  tenant.id)  # fmt: skip
        assert row == ["0", "0"]
        assert (await nodes.hub_of(db)).origins == {hub.origin, 90_000}
        await nodes.run_control(db, "UPDATE hub_epoch SET id = %s", before)
    finally:
        await nodes.run_control(db, "UPDATE node SET role = 'site' WHERE id = %s", hub.id)
