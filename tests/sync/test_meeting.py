"""From the entries of another node to the inbox, and out of it again."""

import msgspec
import pytest

from appliance.base.clock import now
from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.fields.times import Moment
from appliance.kernel.change import EntryOp
from appliance.kernel.ledger import entry_key
from appliance.sync.conflicts import Filter, find, read_page
from appliance.sync.deciding import What, decide
from appliance.sync.outgoing import PAGE
from appliance.sync.parked import hold, list_parked
from appliance.sync.resolving import Choice, Keep, Rule, resolve, resolve_many
from appliance.sync.showing import show_one
from appliance.write import rebuild, undo
from appliance.write.parked import parked_id
from tests.sync.held import Peer, sale
from tests.sync.test_clashes import firm, made  # noqa: F401
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def peer(firm):  # noqa: F811
    return Peer(firm, await firm.ctx())


async def record(tenant, ident):
    rows = await tenant.sql(
        "SELECT data, stamps, deleted_at FROM record WHERE tenant_id = $1 AND id = $2",
        tenant.id, ident,
    )  # fmt: skip
    return msgspec.json.decode(rows[0][0]), rows[0][1], rows[0][2]


async def inbox(tenant, **asked):
    return (await read_page(tenant.db, await tenant.ctx(), Filter(**asked)))[0]


async def in_order(tenant):
    """The tables are what the log says, conflicts and all."""
    return [d async for d in rebuild(tenant.db, await tenant.ctx())]


async def changed_twice(firm, peer):  # noqa: F811
    (ident,) = await made(firm, create("deal", title="Base"))
    born = (await record(firm, ident))[1]
    await made(firm, update("deal", ident, title="Mine"))
    theirs = peer.writes(
        EntryOp.PUT, "deal", ident, fields={"title": "Theirs"}, base={"title": [born]}
    )
    taken = await peer.sends(theirs)
    assert not taken.parked and taken.applied == 1, taken
    return ident


@pytest.mark.parametrize("title", ["Mine", "Theirs"])
async def test_two_titles_are_shown_with_their_base_and_one_is_chosen(firm, peer, title):  # noqa: F811
    ident = await changed_twice(firm, peer)
    (held,) = await inbox(firm)
    shown = await show_one(firm.db, await firm.ctx(), held)
    (field,) = shown.conflicts
    assert (field.mine, field.theirs, field.base) == ("Mine", "Theirs", "Base")
    assert field.who == peer.person
    (side,) = [s for s in shown.sides if s.values["title"] == title]
    result = await resolve(
        firm.db, await firm.ctx(), held, Choice(choose=side.dot), expect=shown.version
    )
    assert result.committed, result
    values, stamps, _ = await record(firm, ident)
    assert values["title"] == title and "+" not in stamps
    assert not await inbox(firm) and not await firm.sql("SELECT 1 FROM conflict")
    assert not await in_order(firm)
    late = await resolve(firm.db, await firm.ctx(), held, Choice(values={"title": "Late"}))
    assert not late.committed
    assert (await undo(firm.db, await firm.ctx(), result.change_set)).committed
    assert not await in_order(firm)


async def test_a_value_of_ones_own_ends_it(firm, peer):  # noqa: F811
    ident = await changed_twice(firm, peer)
    (held,) = await inbox(firm)
    result = await resolve(firm.db, await firm.ctx(), held, Choice(values={"title": "Both"}))
    assert result.committed and (await record(firm, ident))[0]["title"] == "Both"
    assert not await inbox(firm)


async def test_many_are_decided_by_a_rule(firm, peer):  # noqa: F811
    idents = [await changed_twice(firm, peer) for _ in range(3)]
    batch = await resolve_many(firm.db, await firm.ctx(), Filter(kind="deal"), Rule.HUB)
    assert [d.status for d in batch.decided] == ["resolved"] * 3
    assert {(await record(firm, i))[0]["title"] for i in idents} == {"Mine"}
    assert not await inbox(firm)


async def test_two_owners(firm, peer):  # noqa: F811
    ours, theirs = uuid7(), uuid7()
    (ident,) = await made(firm, create("deal", title="Base"))
    born = (await record(firm, ident))[1]
    await made(firm, update("deal", ident, owner=ours))
    await peer.sends(
        peer.writes(
            EntryOp.PUT, "deal", ident, fields={"@owner": str(theirs)}, base={"@owner": [born]}
        )
    )
    (held,) = await inbox(firm)
    shown = await show_one(firm.db, await firm.ctx(), held)
    assert shown.fields == ["owner"]
    assert {s.values["owner"] for s in shown.sides} == {str(ours), str(theirs)}
    (side,) = [s for s in shown.sides if s.is_shown]
    result = await resolve(firm.db, await firm.ctx(), held, Choice(choose=side.dot))
    assert result.committed, result
    assert not await inbox(firm) and not await in_order(firm)


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize("deleted_by", ["here", "there"])
async def test_deleted_by_one_changed_by_the_other(firm, peer, keep, deleted_by):  # noqa: F811
    (ident,) = await made(firm, create("deal", title="Base"))
    born = (await record(firm, ident))[1]
    if deleted_by == "here":
        await made(firm, delete("deal", ident))
        entry = peer.writes(
            EntryOp.PUT, "deal", ident, fields={"title": "T"}, base={"title": [born]}
        )
    else:
        await made(firm, update("deal", ident, title="Mine"))
        entry = peer.writes(EntryOp.DEL, "deal", ident, base={"!": [born]}, seen=[born])
    await peer.sends(entry)
    (held,) = await inbox(firm)
    assert held.sort == "edit_vs_delete"
    shown = await show_one(firm.db, await firm.ctx(), held)
    assert {"deleted": True} in [s.values for s in shown.sides]
    assert all(s.who and s.at for s in shown.sides)
    edits = [s.values for s in shown.sides if s.values != {"deleted": True}]
    assert edits == [{"title": "T" if deleted_by == "here" else "Mine"}]
    result = await resolve(firm.db, await firm.ctx(), held, Choice(keep=keep))
    assert result.committed, result
    assert ((await record(firm, ident))[2] is not None) == (keep is Keep.DELETED)
    assert not await inbox(firm)
    assert not await in_order(firm)


async def test_one_phone_at_two_branches(firm, peer):  # noqa: F811
    (ours,) = await made(firm, create("customer", name="A", phone="0501"))
    theirs = peer.makes("customer", name="B", phone="0501")
    await peer.sends(theirs)
    (held,) = await inbox(firm)
    assert (held.record, held.sort) == (theirs.entry.record_id, "unique")
    shown = await show_one(firm.db, await firm.ctx(), held)
    assert [(s.record, s.text) for s in shown.sides] == [(held.record, "B"), (ours, "A")]
    result = await resolve(firm.db, await firm.ctx(), held, Choice(values={"phone": "0502"}))
    assert result.committed and not await inbox(firm)


async def test_sold_twice(firm, peer):  # noqa: F811
    product, warehouse = await made(
        firm, create("product", name="Bolt"), create("warehouse", name="Main")
    )
    place = {"product": str(product), "warehouse": str(warehouse)}
    await made(firm, create("stock_move", **place, quantity="1"))
    await made(firm, create("stock_move", **place, quantity="-1"))
    sold = peer.makes("stock_move", **place, quantity="-1.000", moved_at=Moment.format(now()))
    taken = await peer.sends(sold)
    assert not taken.parked
    (held,) = await inbox(firm)
    assert (held.sort, held.register) == ("negative_stock", str(entry_key(list(place.values()))))
    shown = await show_one(firm.db, await firm.ctx(), held)
    assert shown.sides[0].values == {"quantity": "-1.000"}
    assert shown.actions == ["reverse_entry", "count_entry"]
    await made(firm, create("stock_move", reverses=str(sold.entry.record_id)))
    assert not await inbox(firm)


async def test_a_deal_of_a_customer_that_has_not_come(firm, peer):  # noqa: F811
    ghost = uuid7()
    await peer.sends(peer.makes("deal", title="x", customer=str(ghost)))
    assert [h.sort for h in await inbox(firm)] == ["dangling_ref"]
    fields = {"name": "Came", "@unit": str(peer.stream)}
    await peer.sends(peer.writes(EntryOp.NEW, "customer", ghost, fields=fields))
    assert not await inbox(firm) and not await firm.sql("SELECT 1 FROM conflict")


async def test_a_customer_deleted_here_and_sold_to_there(firm, peer):  # noqa: F811
    (customer,) = await made(firm, create("customer", name="A"))
    await made(firm, delete("customer", customer))
    await peer.sends(peer.makes("deal", title="x", customer=str(customer)))
    (held,) = await inbox(firm)
    assert (held.sort, held.register) == ("dangling_ref", "customer")
    (other,) = await made(firm, create("customer", name="B"))
    choice = Choice(values={"customer": str(other)})
    assert (await resolve(firm.db, await firm.ctx(), held, choice)).committed
    assert not await inbox(firm)


@pytest.mark.parametrize("what", list(What))
async def test_what_a_revoked_node_still_sends(firm, peer, what):  # noqa: F811
    ctx = await firm.ctx()
    entries = sale(firm, ctx, origin=9)
    async with firm.db.transaction(firm.id) as tx:
        await hold(tx, ctx, firm.units["north"], 9, entries)
    (found,) = await list_parked(firm.db, ctx)
    told = await decide(firm.db, ctx, found.id, what, reason="Seen.")
    assert told.parked.state == ("released" if what is What.RELEASE else "skipped")
    rows = await firm.sql("SELECT 1 FROM record WHERE id = $1", entries[0].entry.record_id)
    assert len(rows) == (what is What.RELEASE)


async def test_what_was_held_waits_for_what_came_before_it(firm):  # noqa: F811
    ctx = await firm.ctx()
    async with firm.db.transaction(firm.id) as tx:
        await hold(tx, ctx, firm.units["north"], 9, sale(firm, ctx, origin=9, oseq=2))
    (found,) = await list_parked(firm.db, ctx)
    with pytest.raises(Clash):
        await decide(firm.db, ctx, found.id, What.RELEASE)
    (found,) = await list_parked(firm.db, ctx)
    assert (found.state, found.reason) == ("waiting", "gap")


async def test_what_is_skipped_does_not_keep_what_follows_out(firm):  # noqa: F811
    ctx = await firm.ctx()
    made_there = [sale(firm, ctx, origin=9, oseq=n) for n in (1, 2, 3)]
    for entries in made_there:
        async with firm.db.transaction(firm.id) as tx:
            await hold(tx, ctx, firm.units["north"], 9, entries)
    third, second, first = await list_parked(firm.db, ctx)
    await decide(firm.db, await firm.ctx(), first.id, What.SKIP, reason="By hand.")
    for found in (second, third):
        told = await decide(firm.db, await firm.ctx(), found.id, What.RELEASE)
        assert told.parked.state == "released"
    ids = [e[0].entry.record_id for e in made_there]
    rows = await firm.sql("SELECT id::text FROM record WHERE id = ANY($1::uuid[])", ids)
    assert {r[0] for r in rows} == {str(i) for i in ids[1:]}
    assert not await list_parked(firm.db, ctx)
    assert not await in_order(firm)


@pytest.mark.parametrize("what", list(What))
async def test_an_entry_that_nobody_here_knows_how_to_apply(firm, peer, what):  # noqa: F811
    ctx = await firm.ctx()
    taken = await peer.sends(
        peer.writes("from_the_future", "deal", uuid7(), fields={"title": "x"}),
        after := peer.makes("deal", title="Behind"),
    )
    assert len(taken.parked) == 1
    assert await firm.sql("SELECT 1 FROM record WHERE id = $1", after.entry.record_id)
    (found,) = await list_parked(firm.db, ctx)
    assert not found.is_held and found.reason == "poison"
    told = await decide(firm.db, ctx, found.id, what, reason="Seen.")
    assert told.parked.state == ("waiting" if what is What.RELEASE else "skipped")
    assert not await in_order(firm)


@pytest.mark.parametrize("what", list(What))
async def test_a_decision_is_an_entry_that_other_nodes_follow(firm, peer, what):  # noqa: F811
    (ident,) = await made(firm, create("deal", title="Base"))
    born = (await record(firm, ident))[1]
    put = peer.writes(EntryOp.PUT, "deal", ident, fields={"title": "First"}, base={"title": [born]})
    put = msgspec.structs.replace(put, parked="poison: not understood")
    later = peer.writes(
        EntryOp.PUT, "deal", ident, fields={"title": "Second"}, base={"title": [put.entry.dot]}
    )
    await peer.sends(put)
    assert (await record(firm, ident))[0]["title"] == "Base"
    (found,) = await list_parked(firm.db, await firm.ctx())
    await peer.sends(later)
    ctx = await firm.ctx()
    told = await decide(firm.db, ctx, found.id, what, reason="Seen.")
    assert told.parked.state == ("released" if what is What.RELEASE else "skipped")
    (op, body) = (await firm.sql(
        "SELECT op, body FROM change WHERE tenant_id = $1 AND record_id = $2", firm.id, found.id
    ))[0]  # fmt: skip
    assert op == "resolve" and body
    if what is What.RELEASE:
        assert (await record(firm, ident))[0]["title"] == "Second"
        assert not await inbox(firm)
    assert not await in_order(firm)
    with pytest.raises(Clash):
        await decide(firm.db, await firm.ctx(), found.id, what, reason="Again.")


@pytest.mark.parametrize("what", list(What))
async def test_a_decision_of_another_node_is_followed(firm, peer, what):  # noqa: F811
    made_there = msgspec.structs.replace(peer.makes("deal", title="x"), parked="poison: no")
    await peer.sends(made_there)
    (found,) = await list_parked(firm.db, await firm.ctx())
    ext = {"decision": str(what), "reason": "Seen."}
    await peer.sends(peer.writes(EntryOp.DECIDE, "", found.id, ext=ext))
    rows = await firm.sql("SELECT 1 FROM record WHERE id = $1", made_there.entry.record_id)
    assert len(rows) == (what is What.RELEASE)
    assert not await list_parked(firm.db, await firm.ctx())
    assert not await in_order(firm)


async def test_what_comes_together_with_the_word_that_it_was_skipped(firm, peer):  # noqa: F811
    new = msgspec.structs.replace(peer.makes("deal", title="x"), parked="poison: no")
    ident = parked_id(peer.stream, new.entry.origin, new.entry.oseq)
    ext = {"decision": "skip", "reason": "Seen."}
    await peer.sends(new, peer.writes(EntryOp.DECIDE, "", ident, ext=ext))
    assert not await list_parked(firm.db, await firm.ctx())
    (found,) = await list_parked(firm.db, await firm.ctx(), state="skipped")
    assert (found.id, found.detail) == (ident, "Seen.")


async def test_what_was_skipped_goes_out_with_its_mark(firm, peer):  # noqa: F811
    ctx = await firm.ctx()
    new = msgspec.structs.replace(peer.makes("deal", title="x"), parked="poison: no")
    await peer.sends(new)
    (found,) = await list_parked(firm.db, ctx)
    await decide(firm.db, ctx, found.id, What.SKIP, reason="Seen.")
    rows = await firm.sql(PAGE.sql.decode(), firm.id, peer.stream, 0, 99, None, 99)
    marks = {
        row[10]: row[15] for row in rows if row[9] in (str(new.entry.record_id), str(found.id))
    }
    assert marks == {"new": "poison", "resolve": None}, "whoever catches up must not apply it"
