"""What a node holds of a tenant, what is kept from it, and what it may not write."""

from uuid import UUID

import msgspec
import psycopg
import pytest

from appliance.base.errors import Clash, Invalid
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.kernel.context import Door
from appliance.kernel.hold import make_mask
from appliance.kernel.stamps import Stamps
from appliance.sync.scope import refuses, streams_for, strip
from appliance.sync.withdrawal import (
    Proof,
    SignedProof,
    change_scope,
    draining_for,
    open_withdrawals,
    take_proof,
    take_told,
    told_for,
    withdraw_node,
)
from appliance.base.clock import now
from appliance.meta import load_schema
from appliance.write.log import common_stream
from tests.sync.nodes import add_site
from tests.tenants import create, update

pytestmark = pytest.mark.anyio

CARD = (
    {"name": "name", "type": "text"},
    {"name": "price", "type": "number"},
    {"name": "margin", "type": "number"},
    {"name": "profit", "type": "number", "options": {"formula": "price * margin"}},
    {"name": "tags", "type": "multi_choice", "options": {"choices": [
        {"key": "vip", "labels": {"en": "VIP"}}, {"key": "late", "labels": {"en": "Late"}}]}},
    {"name": "city", "type": "text", "group": "address"},
    {"name": "street", "type": "text", "group": "address"},
)  # fmt: skip
MASKED = {"card": ["margin", "tags", "street"]}


def common(tenant):
    return {common_stream(tenant.id, n) for n in ("shared", "schema")}


async def as_site(db, tenant, dsns, units, masks=None):
    """Make this very node one that holds a part of the tenant."""
    site, _ = await add_site(dsns, tenant.id, [tenant.units[u] for u in units])
    if masks:
        await change_scope(
            db, site, tenant.id, units=frozenset(tenant.units[u] for u in units), masks=masks
        )
    told = await told_for(db, site, tenant.id)
    assert await take_told(db, tenant.id, msgspec.structs.replace(told, withdrawn=[]), 1)
    return site


def faults(result):
    return [(f.pointer, f.code) for o in result.outcomes for f in getattr(o, "faults", ())]


async def test_units_and_all_below_with_the_common_streams(db, tenant, dsns):
    depot = uuid7()
    await tenant.apply(create("sys.unit", depot, name="depot", parent=str(tenant.units["north"])))
    site, _ = await add_site(dsns, tenant.id, [tenant.units["north"]])
    found = await streams_for(db, site, tenant.id)
    assert set(found) == {tenant.units["north"], depot} | common(tenant)
    assert found[depot].name == "depot"
    assert {g.mode for g in found.values()} == {"rw"} and {g.epoch for g in found.values()} == {1}


async def test_no_units_named_are_all_and_a_stranger_has_none(db, tenant, dsns):
    site, _ = await add_site(dsns, tenant.id)
    assert set(await streams_for(db, site, tenant.id)) == set(tenant.units.values()) | common(
        tenant
    )
    assert await streams_for(db, uuid7(), tenant.id) == {}


async def test_wider_adds_and_narrower_withdraws_until_it_is_proved(db, tenant, dsns):
    north, south = tenant.units["north"], tenant.units["south"]
    site, key = await add_site(dsns, tenant.id, [north])
    wider = await change_scope(db, site, tenant.id, units=frozenset({north, south}))
    assert (wider.epoch, wider.added, wider.withdrawn) == (2, (south,), ())
    narrow = await change_scope(db, site, tenant.id, units=frozenset({south}))
    assert (narrow.epoch, narrow.added, narrow.withdrawn) == (3, (), (north,))
    (waiting,) = await open_withdrawals(db, site, tenant.id)
    assert (waiting.stream, waiting.name, waiting.epoch) == (north, "north", 3)
    assert north not in await streams_for(db, site, tenant.id)
    assert {s: g.mode for s, g in (await draining_for(db, site, tenant.id)).items()} == {north: "w"}
    told = await told_for(db, site, tenant.id)
    assert (told.units, told.withdrawn, told.leaving) == ([south], [(north, 3)], False)

    def signed(epoch, rows=0, signer=key):
        proof = Proof(site, tenant.id, epoch, now(), {north: (rows, 0)}, {north: (7, 1)}, True)
        raw = msgspec.msgpack.encode(proof)
        return SignedProof(raw, signer.sign(raw))

    with pytest.raises(Invalid):
        await take_proof(db, site, tenant.id, signed(3, rows=1))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from appliance.base.errors import Unauthenticated

    with pytest.raises(Unauthenticated):
        await take_proof(db, site, tenant.id, signed(3, signer=Ed25519PrivateKey.generate()))
    assert not await take_proof(db, site, tenant.id, signed(2)), "a proof of an older purge"
    assert await take_proof(db, site, tenant.id, signed(3))
    assert await open_withdrawals(db, site, tenant.id) == []
    assert await draining_for(db, site, tenant.id) == {}
    assert not await take_proof(db, site, tenant.id, signed(3))


async def test_another_mask_purges_the_units_and_grants_them_again(db, tenant, dsns):
    await tenant.add_kind("card", CARD)
    north = tenant.units["north"]
    site, _ = await add_site(dsns, tenant.id, [north])
    changed = await change_scope(
        db, site, tenant.id, units=frozenset({north}), masks={"card": ["margin"]}
    )
    assert changed.withdrawn == (north,)
    assert (await open_withdrawals(db, site, tenant.id))[0].is_again
    assert set(await streams_for(db, site, tenant.id)) == common(tenant)
    with pytest.raises(Invalid):
        await change_scope(db, site, tenant.id, units=None, masks={"card": ["nothing"]})
    with pytest.raises(Invalid):
        await change_scope(db, site, tenant.id, units=None, masks={"sys.person": ["phone"]})


async def test_what_a_site_had_is_withdrawn_whoever_took_it(db, tenant, dsns):
    north, south = tenant.units["north"], tenant.units["south"]
    site, _ = await add_site(dsns, tenant.id, [north, south])
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    with psycopg.connect(control, autocommit=True) as conn:
        (origin,) = conn.execute("SELECT origin FROM node WHERE id = %s", (site,)).fetchone()
        async with db.transaction(tenant.id) as tx:
            pulled = "INSERT INTO peer_stream (tenant_id, peer, stream) SELECT $1, $2, unnest($3::uuid[])"
            await tx.run((Statement(pulled), (tenant.id, origin, [north, south])))
        assert await open_withdrawals(db, site, tenant.id) == []
        conn.execute(
            "UPDATE node_scope SET unit_ids = %s, epoch = 2 WHERE node_id = %s", ([south], site)
        )
        (found,) = await open_withdrawals(db, site, tenant.id)
        assert (found.stream, found.epoch) == (north, 2)
        assert (await told_for(db, site, tenant.id)).withdrawn == [(north, 2)]
        conn.execute(
            "UPDATE node_scope SET unit_ids = %s, epoch = 3 WHERE node_id = %s",
            ([north, south], site),
        )
        assert await open_withdrawals(db, site, tenant.id) == []
        conn.execute(
            "UPDATE node_scope SET state = 'withdrawn', epoch = 4 WHERE node_id = %s", (site,)
        )
        assert {w.stream for w in await open_withdrawals(db, site, tenant.id)} == {north, south}


async def test_a_withdrawn_node_has_nothing(db, tenant, dsns):
    site, _ = await add_site(dsns, tenant.id, [tenant.units["north"]])
    gone = await withdraw_node(db, site, tenant.id)
    assert set(gone.withdrawn) == {tenant.units["north"]} | common(tenant)
    assert await streams_for(db, site, tenant.id) == {}
    assert (await told_for(db, site, tenant.id)).leaving
    assert (await withdraw_node(db, site, tenant.id)).withdrawn == ()
    with pytest.raises(Clash):
        await change_scope(db, site, tenant.id, units=None)


def logged(body, kind="card", op=EntryOp.PUT):
    entry = Entry(
        stream=UUID(int=1), origin=2, oseq=5, tx=5, hlc=1, actor=UUID(int=2), door="http",
        kind=kind, record_id=UUID(int=3), op=op, schema_rev=1, change_set=UUID(int=4), body=body,
    )  # fmt: skip
    return Logged(entry=entry, hash=b"h" * 32, ehlc=1)


async def test_a_mask_takes_the_values_and_leaves_the_dot(db, tenant):
    await tenant.add_kind("card", CARD)
    mask = make_mask(MASKED, (await load_schema(db, tenant.id)).kinds)
    assert mask.kinds["card"].fids == {"margin", "profit", "tags", "street"}
    stamps = Stamps(("1.1",), {"tags/vip": ("1.2",), "name": ("1.3",)})
    body = Body(
        fields={"name": "A", "margin": "SECRET", "profit": "SECRET", "street": "SECRET"},
        base={"name": ["1.1"], "margin": ["1.1"], "tags/SECRET": ["1.1"]},
        sets={"tags": (["SECRET"], [])}, deltas={"margin": "SECRET"},
        ext={"data": {"name": "A", "margin": "SECRET"}, "stamps": str(stamps), "from": "x"},
    )  # fmt: skip
    found = strip(mask, logged(body))
    assert b"SECRET" not in msgspec.msgpack.encode(found)
    assert found.hash == b"" and found.entry.dot == "2.5"
    assert found.entry.body.fields == {"name": "A"} and found.entry.body.ext["from"] == "x"
    assert found.entry.body.base == {"name": ["1.1"], "margin": ["1.1"]}
    assert found.entry.body.ext["stripped"] == ["margin", "profit", "street", "tags"]
    assert Stamps.parse(found.entry.body.ext["stamps"]).live == {"name": ("1.3",)}
    plain = logged(Body(fields={"name": "A"}))
    assert strip(mask, plain) is plain and strip(mask, logged(body, "deal")).hash


async def test_the_hub_refuses_what_a_site_may_not_write(db, tenant):
    await tenant.add_kind("card", CARD)
    await tenant.add_kind("tariff", (("name", "text"),), authority="hub")
    mask = make_mask(MASKED, (await load_schema(db, tenant.id)).kinds)
    assert refuses(mask, logged(Body(fields={"name": "A"}))) is None
    for body in (
        Body(fields={"margin": "1"}),
        Body(sets={"tags": (["vip"], [])}),
        Body(deltas={"margin": "1"}),
        Body(fields={"city": "Lviv"}, base={"address": ["1.1"]}),
        Body(base={"tags/vip": ["1.1"]}),
        Body(ext={"data": {"margin": "1"}}),
    ):
        assert "masked" in refuses(mask, logged(body)), body
    assert "moved" in refuses(mask, logged(Body(), op=EntryOp.ARRIVE))
    for kind in ("tariff", "sys.membership", "sys.grant", "sys.profile", "sys.unit"):
        assert "hub_only" in refuses(mask, logged(Body(), kind)), kind
    assert refuses(mask, logged(Body(), "sys.person")) is None


async def test_a_site_refuses_what_the_hub_would(db, tenant, dsns):
    await tenant.add_kind("card", CARD)
    await tenant.add_kind("tariff", (("name", "text"),), authority="hub", home="shared")
    made = await tenant.apply(create("card", None, name="A", price="2", margin="3", city="Kyiv"))
    card = made.outcomes[0].id
    south = await tenant.apply(create("card", None, name="S"), ctx=await tenant.ctx(unit="south"))
    await as_site(db, tenant, dsns, ["north"], MASKED)

    assert faults(await tenant.apply(create("tariff", None, name="T"))) == [("/kind", "hub_only")]
    owner = await tenant.ctx(door=Door.SYSTEM)
    assert faults(await tenant.apply(create("sys.unit", None, name="x"), ctx=owner))
    for unit in ("south", "head"):
        result = await tenant.apply(create("card", None, unit=tenant.units[unit], name="B"))
        assert faults(result) == [("/unit", "unit_elsewhere")]
    moved = await tenant.apply(update("card", card, unit=tenant.units["south"]))
    assert ("/unit", "unit_elsewhere") in faults(moved)
    away = await tenant.apply(update("card", south.outcomes[0].id, name="T"))
    assert faults(away) == [("/unit", "unit_elsewhere")]
    for field, value in {"margin": "4", "tags": ["vip"], "street": "x", "city": "Lviv"}.items():
        result = await tenant.apply(update("card", card, **{field: value}))
        assert faults(result) == [(f"/fields/{field}", "masked_here")], field
    assert (await tenant.apply(update("card", card, name="B", price="5"))).committed
    ((data,),) = await tenant.sql("SELECT data FROM record WHERE id = $1", card)
    assert msgspec.json.decode(data)["profit"] == "6.00", "the site cannot know what it comes to"
    assert (await tenant.apply(create("card", None, name="C"))).committed


async def test_a_unit_that_is_moved_from_below_leaves_too(db, tenant, dsns):
    await tenant.add_kind("card", CARD)
    depot, north = uuid7(), tenant.units["north"]
    await tenant.apply(create("sys.unit", depot, name="depot", parent=str(north)))
    system = await tenant.ctx(door=Door.SYSTEM)
    assert (await tenant.apply(create("card", None, unit=depot, name="A"), ctx=system)).committed
    site, _ = await add_site(dsns, tenant.id, [north])
    told = await told_for(db, site, tenant.id)
    await take_told(db, tenant.id, told, 1)
    waiting = "SELECT stream::text FROM withdrawal WHERE stream = $1"
    assert await tenant.sql(waiting, depot) == []
    async with db.transaction(tenant.id) as tx:
        moved = "UPDATE record SET r1 = $3::uuid, data = data || jsonb_build_object('parent', $3::uuid) "
        await tx.run((Statement(moved + "WHERE tenant_id = $1 AND id = $2"),
                      (tenant.id, depot, tenant.units["south"])))  # fmt: skip
    assert await take_told(db, tenant.id, told, 1)
    assert await tenant.sql(waiting, depot) == [[str(depot)]]
    assert await tenant.sql(waiting, tenant.units["south"]) == [], "nothing of it was ever here"


async def test_a_unit_that_leaves_takes_no_writes(db, tenant, dsns):
    await tenant.add_kind("card", CARD)
    north, south = tenant.units["north"], tenant.units["south"]
    site, _ = await add_site(dsns, tenant.id, [north, south])
    assert await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    assert (await tenant.apply(create("card", None, name="A"))).committed
    await change_scope(db, site, tenant.id, units=frozenset({south}))
    told = await told_for(db, site, tenant.id)
    assert await take_told(db, tenant.id, told, 1)
    assert not await take_told(db, tenant.id, told, 1), "told twice, done once"
    assert faults(await tenant.apply(create("card", None, name="B"))) == [
        ("/unit", "unit_elsewhere")
    ]
    await change_scope(
        db, site, tenant.id, units=frozenset({north, south}), masks={"card": ["tags"]}
    )
    assert await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    assert faults(await tenant.apply(create("card", None, name="B"))) == [
        ("/unit", "unit_arriving")
    ], "it has to go, and comes again under its mask"
    await change_scope(db, site, tenant.id, units=frozenset({north, south}), masks={})
    assert await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    assert (await tenant.apply(create("card", None, name="C"))).committed, "nothing had gone yet"
    await withdraw_node(db, site, tenant.id)
    assert await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    assert faults(await tenant.apply(create("card", None, name="D"))) == [
        ("/unit", "node_withdrawn")
    ]
