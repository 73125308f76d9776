"""A site that was tampered with: what it pushes under ids and kinds that are not its own is held."""

from uuid import UUID

import msgspec
import pytest

from appliance.base.clock import now
from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.kernel.change import EntryOp
from appliance.kernel.context import Door
from appliance.sync import messages as say
from appliance.sync.deciding import What, decide
from appliance.sync.frames import encode_frame
from appliance.sync.nodes import revoke
from appliance.write.parked import parked_id
from tests.sync.thief import thief_of
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "deal"


@pytest.fixture
async def thief(tenant, there, valkey_url, tmp_path):
    async with thief_of(tenant, there, valkey_url, tmp_path, KIND, [("title", "text")]) as found:
        yield found


async def of_the_south(thief):
    hub = thief.pair.hub
    ident = uuid7()
    done = await hub.apply(create(KIND, ident, title="Secret"), ctx=await hub.ctx(unit="south"))
    assert done.committed
    return ident


def moved(thief, ident, **ext):
    data = {"title": "Stolen"}
    ext = {"from": str(thief.south), "data": data, "stamps": "1.1", "number": None,
           "@unit": None, "@owner": None, "born": [now().isoformat(), str(uuid7())],
           "touched": [now().isoformat(), str(uuid7())], **ext}  # fmt: skip
    return thief.says(
        EntryOp.ARRIVE, KIND, ident, fields={"@unit": str(thief.north), **data}, ext=ext
    )


async def test_a_record_of_another_unit_is_neither_written_nor_fetched(thief):
    ident = await of_the_south(thief)
    before = await thief.row(ident)
    unit = {"@unit": str(thief.north)}
    for entry in (
        thief.says(EntryOp.PUT, KIND, ident, fields={"title": "Mine"}),
        thief.says(EntryOp.NEW, KIND, ident, fields={"title": "Mine", **unit}),
        thief.says(EntryOp.DEL, KIND, ident),
        thief.says(EntryOp.MOVE, KIND, ident, ext={"to": str(thief.north)}),
        moved(thief, ident),
        moved(thief, ident, got={}),
        thief.says(EntryOp.PUT, KIND, ident, stream=thief.shared, fields={"title": "Mine"}),
    ):
        assert await thief.pushes(entry) == ["foreign"], entry.entry.op
    assert await thief.row(ident) == before
    ((told,),) = await thief.pair.hub.sql(
        "SELECT count(*) FROM change WHERE tenant_id = $1 AND record_id = $2 AND stream <> $3 "
        "AND position('Secret'::bytea in body) > 0", thief.pair.hub.id, ident, thief.south,
    )  # fmt: skip
    assert told == "0", "nothing of it may go to a stream that the site reads"


async def test_rights_are_not_widened_under_the_name_of_another_kind(thief):
    hub = thief.pair.hub
    ident = uuid7()
    made = await hub.apply(create("sys.profile", ident, key="clerk", capabilities=[]))
    assert made.committed, made
    more = {"capabilities": ["people.manage"]}
    for stream in (thief.shared, thief.north):
        for kind in (KIND, "sys.person"):
            entry = thief.says(EntryOp.PUT, kind, ident, stream=stream, fields=more)
            assert await thief.pushes(entry) == ["foreign"]
    assert await thief.pushes(
        thief.says(EntryOp.PUT, "sys.profile", ident, stream=thief.shared, fields=more)
    ) == ["hub_only"]
    ((held,),) = await hub.sql(
        "SELECT data->>'capabilities' FROM record WHERE tenant_id = $1 AND id = $2", hub.id, ident
    )
    assert "people.manage" not in held


async def test_what_was_held_back_is_not_released_by_whoever_sent_it(thief):
    more = {"key": "god", "capabilities": ["people.manage"]}
    ident = uuid7()
    entry = thief.says(EntryOp.NEW, "sys.profile", ident, stream=thief.shared, fields=more)
    assert await thief.pushes(entry) == ["hub_only"]
    parked = parked_id(thief.shared, thief.origin, entry.entry.oseq)
    for stream in (thief.shared, thief.north):
        word = thief.says(
            EntryOp.DECIDE, "", parked, stream=stream, ext={"decision": "release", "reason": ""}
        )
        assert await thief.pushes(word) == ["foreign"]
    assert await thief.row(ident) is None


async def test_a_record_lives_in_the_stream_it_comes_by(thief):
    ident = uuid7()
    here, there = {"@unit": str(thief.north)}, {"@unit": str(thief.south)}
    assert await thief.pushes(thief.says(EntryOp.NEW, KIND, ident, fields=here)) == []
    for entry in (
        thief.says(EntryOp.NEW, KIND, uuid7(), fields=there),
        thief.says(EntryOp.NEW, KIND, uuid7(), fields={"title": "of nobody"}),
        thief.says(EntryOp.NEW, KIND, uuid7(), stream=thief.shared, fields=here),
        thief.says(EntryOp.NEW, "sys.person", uuid7(), fields={"name": "Nobody"}),
        thief.says(EntryOp.PUT, KIND, ident, fields=there),
        thief.says(EntryOp.MOVE, KIND, ident, ext={"to": str(thief.south)}),
        thief.says(EntryOp.MOVE, KIND, ident, ext={"to": str(uuid7())}),
    ):
        assert await thief.pushes(entry) == ["foreign"], entry.entry.op
    assert (await thief.row(ident))[:3] == [KIND, str(thief.north), str(thief.north)]


async def test_a_transaction_is_held_whole(thief):
    """Also where the site says itself that a part of it was not applied."""
    good, bad = uuid7(), uuid7()
    unit = {"@unit": str(thief.north)}
    first = thief.says(EntryOp.NEW, KIND, good, tx=1, fields=unit)
    second = thief.says(EntryOp.NEW, KIND, bad, tx=1, fields=unit)
    second = msgspec.structs.replace(second, parked="poison: not here")
    assert await thief.pushes(first, second) == ["poison"]
    assert await thief.row(good) is None
    rows = await thief.pair.hub.sql(
        "SELECT entries FROM parked WHERE tenant_id = $1", thief.pair.hub.id
    )
    assert rows == [["2"]]


async def test_what_is_written_late_of_a_record_that_has_left_still_counts(thief):
    """The site made it in its own unit; the hub moved it away before it heard the last word."""
    pair, ident = thief.pair, uuid7()
    await pair.site.apply(create(KIND, ident, title="Lamp"))
    await pair.sync()
    ctx = await pair.hub.ctx(unit="head")
    (row,) = await pair.hub.sql("SELECT stamps FROM record WHERE id = $1", ident)
    done = await pair.hub.apply(update(KIND, ident, row[0], unit=thief.south), ctx=ctx)
    assert done.committed, done
    done = await pair.site.apply(update(KIND, ident, row[0], title="Lantern"))
    assert done.committed, done
    await pair.sync()
    assert await thief.row(ident) == [KIND, str(thief.south), str(thief.south), "Lantern"]
    assert not await pair.hub.sql("SELECT 1 FROM parked WHERE tenant_id = $1", pair.hub.id)


async def test_a_revoked_node_hands_in_nothing_of_streams_that_it_never_had(thief):
    pair = thief.pair
    await revoke(pair.hub.db, pair.parts.me.id, "stolen")
    entries = [thief.says(EntryOp.NEW, KIND, uuid7(), stream=s) for s in (thief.south, uuid7())]
    talk = pair.talk()
    await talk.greet()
    pushes = [say.Push(e.entry.stream, [encode_frame(e.entry.stream, [e])]) for e in entries]
    answer = await talk.client.exchange(say.Exchange(pushes, [], 1 << 20))
    await talk.close()
    assert [r.problem for r in answer.receipts] == [say.NOT_GRANTED] * 2
    assert not await pair.hub.sql("SELECT 1 FROM parked WHERE tenant_id = $1", pair.hub.id)


async def test_what_is_released_after_a_theft_is_judged_like_anything_else(thief):
    pair, good = thief.pair, uuid7()
    hub, unit = pair.hub, {"@unit": str(thief.north)}
    secret = await of_the_south(thief)
    await revoke(hub.db, pair.parts.me.id, "stolen")
    talk = pair.talk()
    await talk.greet()
    entries = [
        thief.says(EntryOp.NEW, KIND, good, fields={"title": "Sold", **unit}),
        thief.says(EntryOp.PUT, KIND, secret, fields={"title": "Mine"}),
    ]
    push = say.Push(thief.north, [encode_frame(thief.north, entries)])
    (receipt,) = (await talk.client.exchange(say.Exchange([push], [], 1 << 20))).receipts
    await talk.close()
    assert not receipt.problem
    held = await hub.sql(
        "SELECT id::text FROM parked WHERE tenant_id = $1 ORDER BY oseq DESC", hub.id
    )
    for (ident,) in held:
        told = await decide(hub.db, await hub.ctx(), UUID(ident), What.RELEASE)
    assert (told.parked.state, told.parked.reason) == ("waiting", "foreign")
    assert (await thief.row(good))[3] == "Sold"
    assert (await thief.row(secret))[3] == "Secret"


async def test_a_site_does_not_decide_what_its_hub_held_back(thief):
    pair = thief.pair
    await thief.pushes(
        thief.says(EntryOp.NEW, "sys.profile", uuid7(), stream=thief.shared, fields={"key": "god"})
    )
    row = await pair.hub.sql("SELECT * FROM parked WHERE tenant_id = $1", pair.hub.id)
    async with pair.site.db.transaction(pair.site.id) as tx:
        await tx.run(
            (Statement(
                "INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, "
                "body, is_logged) VALUES ($1, $2, $3, $4, 1, 1, 1, 'hub_only', '', true)"
            ), (pair.site.id, UUID(row[0][1]), thief.shared, thief.origin))
        )  # fmt: skip
    with pytest.raises(Clash) as refused:
        await decide(pair.site.db, await pair.site.ctx(), UUID(row[0][1]), What.RELEASE)
    assert refused.value.code == "parked.elsewhere"


async def test_nobody_is_named_who_could_not_act_at_the_site(thief):
    """Its own people are; those of another branch, and whoever is not known, are not."""
    hub, site = thief.pair.hub, thief.pair.parts.me.id
    far, once = uuid7(), uuid7()
    (role,) = [r[0] for r in await hub.sql(
        "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.profile'", hub.id)]  # fmt: skip
    ctx = await hub.ctx(door=Door.INSTALL)
    one, south = uuid7(), [str(thief.south)]
    done = await hub.apply(
        create("sys.person", far, name="Far", email="far@example.org"),
        create("sys.person", once, name="Once", email="once@example.org"),
        create("sys.membership", person=str(far), profile=role, units=south),
        create("sys.membership", one, person=str(once), profile=role, units=[str(thief.north)]),
        ctx=ctx,
    )
    assert done.committed, done
    (row,) = await hub.sql("SELECT stamps FROM record WHERE id = $1", one)
    assert (await hub.apply(update("sys.membership", one, row[0], units=south), ctx=ctx)).committed
    unit = {"@unit": str(thief.north)}

    async def said(actor, door="http", kind=KIND, **fields):
        thief.actor, thief.door = actor, door
        return await thief.pushes(thief.says(EntryOp.NEW, kind, uuid7(), fields={**unit, **fields}))

    owner = hub.people["owner"]
    assert await said(owner) == await said(once) == await said(owner, "intake") == []
    assert await said(UUID(int=0), "system") == await said(site, "system") == []
    for actor, door in (
        (far, "http"), (far, "system"), (uuid7(), "http"), (site, "http"), (UUID(int=0), "http"),
        (owner, "install"), (owner, "sync"), (owner, "hub"),
    ):  # fmt: skip
        assert await said(actor, door) == ["foreign"], (actor, door)
    file = {"name": "a.txt", "state": "released"}
    assert await said(owner, kind="sys.file", **file) == ["foreign"]
    assert await said(far, "system", kind="sys.file", **file) == []
