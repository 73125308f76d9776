"""A hub that was put back is found out by its own signature, and by nobody's mere word."""

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.sync import messages as say
from appliance.sync.attesting import Head, Kept, Word, find_loss
from appliance.sync.hello import make_hello
from appliance.sync.incarnation import ORIGINS_SKIPPED, read_epoch, read_era, renew_epoch
from appliance.sync.keys import NodeKey, make_rotation
from appliance.sync.nodes import control_transaction, find_self, keep_rotation, run_control
from appliance.db.values import bytea_of
from tests.sync.backup import hub_stays, keep, put_back
from tests.sync.test_put_back import KIND, at_hub, converse, titles
from tests.tenants import create

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(pair):
    async with hub_stays(pair.hub.db):
        await pair.hub.add_kind(KIND, [("title", "text"), ("note", "text")])
        await pair.sync()
        yield pair


async def words(pair):
    rows = await pair.site.sql(
        "SELECT attested FROM peer_stream WHERE tenant_id = $1 AND peer = $2 "
        "AND attested IS NOT NULL", pair.site.id, pair.parts.hub.origin,
    )  # fmt: skip
    return [bytea_of(raw.encode()) for (raw,) in rows]


async def hello_of(pair, **changes):
    cursors = {pair.hub.units["north"]: 1}
    kept = Kept(pair.site.db, pair.site.id, pair.parts.hub)
    await kept.load()
    made = await make_hello(kept, pair.parts.me, cursors)
    return msgspec.structs.replace(made, **changes)


async def greeted(pair, hello):
    client = pair.talk().client
    try:
        return await client.greet(hello)
    finally:
        await client.close()


async def test_a_hub_put_back_twice_in_an_hour_is_found_out_each_time(pair, dsns):
    for turn in ("one", "two"):
        kept = keep(dsns, pair.hub.id)
        await at_hub(pair, create(KIND, title=turn))
        await converse(pair)
        before = await read_era(pair.hub.db)
        put_back(dsns, pair.hub.id, kept, pair.hub.db)
        await converse(pair)
        after = await read_era(pair.hub.db)
        assert after.number == before.number + 1 and turn in await titles(pair.hub)


async def test_a_site_without_proof_is_not_believed(pair):
    north, epoch = pair.hub.units["north"], await read_epoch(pair.hub.db)
    lie = {north: (10**6, 1, 10**6, b"h" * 32)}
    thief, real = NodeKey(b"t" * 32), await words(pair)
    assert real
    head = say.decode(say.decode(real[0], Word).head, Head)
    later = say.encode(msgspec.structs.replace(head, oseq=10**6, seq=10**6))
    forged = [
        say.encode(Word(later, say.decode(real[0], Word).signature)),
        say.encode(Word(later, thief.sign(b"nexus-stream-head-v1\0" + later))), b"", b"junk",
    ]  # fmt: skip
    welcome = await greeted(pair, await hello_of(pair, taken=lie))
    assert welcome.doubted == [north] and welcome.hub_epoch == epoch
    for shown in (forged, real):
        welcome = await greeted(pair, await hello_of(pair, taken=lie, shown=shown))
        assert welcome.hub_epoch == epoch
        assert say.UNPROVED in [n.code for n in welcome.notices]
    assert not welcome.is_lacking, "nobody may give it what others made"


async def test_a_site_of_an_older_program_is_believed_as_before_until_it_was_given_words(pair):
    north, epoch = pair.hub.units["north"], await read_epoch(pair.hub.db)
    lie = {north: (10**6, 1, 10**6, b"h" * 32)}
    older = await hello_of(pair, taken=lie, unattested=None)
    assert (await greeted(pair, older)).hub_epoch == epoch, "it has been newer"
    await run_control(
        pair.hub.db, "UPDATE node SET attested_at = NULL WHERE id = %s", pair.parts.me.id
    )
    assert (await greeted(pair, older)).hub_epoch != epoch
    assert (await read_era(pair.hub.db)).number > 1


async def test_a_word_holds_in_its_epoch_alone(pair, dsns):
    hub, signer = pair.hub, pair.node.key.current
    kept = keep(dsns, hub.id)
    await at_hub(pair, create(KIND, title="x"))
    await pair.sync()
    shown = await words(pair)
    assert await find_loss(hub.db, signer, hub.id, shown) is None
    put_back(dsns, hub.id, kept, hub.db)
    found = await find_loss(hub.db, signer, hub.id, shown)
    assert found is not None
    assert await find_loss(hub.db, signer, uuid7(), shown) is None, "of another tenant"
    await renew_epoch(hub.db, await read_epoch(hub.db), "test", after=(found.number, found.issued))
    assert await find_loss(hub.db, signer, hub.id, shown) is None


async def test_a_hub_put_back_into_an_earlier_epoch_goes_beyond_what_it_gave_out(pair):
    db = pair.hub.db
    before = await run_control(db, "SELECT id, number FROM hub_epoch")
    issued = await run_control(db, "SELECT last FROM origin_issued")
    await renew_epoch(db, await read_epoch(db), "test")
    await converse(pair)
    lost = await read_era(db)
    await run_control(db, "UPDATE hub_epoch SET id = %s, number = %s", *before[0])
    await run_control(db, "UPDATE origin_issued SET last = %s", *issued[0])
    await converse(pair)
    era = await read_era(db)
    assert era.number == lost.number + 1
    assert era.issued > lost.issued + ORIGINS_SKIPPED


async def test_a_former_key_of_the_hub_counts(pair, dsns):
    hub, key = pair.hub, pair.node.key.current()
    kept = keep(dsns, hub.id)
    await at_hub(pair, create(KIND, title="x"))
    await pair.sync()
    put_back(dsns, hub.id, kept, hub.db)
    shown, new, me = await words(pair), NodeKey(b"n" * 32), await find_self(hub.db)
    assert await find_loss(hub.db, lambda: new, hub.id, shown) is None
    async with control_transaction(hub.db) as conn:
        await keep_rotation(conn, make_rotation(me.id, key, new))
    assert await find_loss(hub.db, lambda: new, hub.id, shown) is not None


async def test_every_stream_has_a_word_also_one_that_is_quiet(pair):
    db, site = pair.site.db, pair.site
    forget = Statement("UPDATE peer_stream SET attested = NULL WHERE tenant_id = $1")
    async with db.transaction(site.id) as tx:
        await tx.run((forget, (site.id,)))
    assert not await words(pair)
    await pair.sync()
    kept = Kept(db, site.id, pair.parts.hub)
    await kept.load()
    streams = [r[0] for r in await site.sql(
        "SELECT stream::text FROM peer_stream WHERE tenant_id = $1 AND cursor > 0", site.id)]  # fmt: skip
    assert len(await words(pair)) == len(streams)
    assert kept.find_lacking(await read_epoch(db), []) == []
