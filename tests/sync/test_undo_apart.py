"""Taking back, and deciding, where a node has no more of a record's past than how it came there."""

import json

import pytest

from appliance.base.errors import Clash
from appliance.sync.conflicts import find
from appliance.sync.resolving import Choice, resolve
from appliance.write import Conflict, history, undo
from tests import tenants
from tests.pair import exchange
from tests.sync.pair import records
from tests.sync.test_receive import made, same, sound
from tests.sync.test_receive_moves import moved
from tests.sync.test_snapshot import KIND, add_deals, by_states, fill
from tests.tenants import delete, update

pytestmark = pytest.mark.anyio


async def actor(node):
    """A context of the owner in the north."""
    from appliance.kernel.context import Door
    from appliance.meta import load_schema

    units = node.tenant.units
    return await node.ctx(
        Door.HTTP, profile=tenants.everything(await load_schema(node.db, node.tenant.id)),
        unit=units["north"], units=frozenset(units.values()), subtree=frozenset(units.values()),
        unit_tree=(await node.tenant.ctx()).unit_tree,
    )  # fmt: skip


async def data_of(node, ident):
    ((data,),) = await node.tenant_rows(
        "SELECT data::text FROM record WHERE tenant_id = $1 AND id = $2", ident
    )
    return json.loads(data)


async def came(hub, north):
    """A record that came to the north from a unit that its site does not hold, and came back."""
    ident = await made(hub, title="first", amount="1")
    await exchange(north, hub)
    await moved(hub, ident, "south", title="elsewhere", amount="2")
    back = await hub.write(update("deal", ident, unit=hub.tenant.units["north"], amount="3"))
    await exchange(north, hub)
    return ident, back.change_set


async def test_an_edit_here_is_taken_back_to_what_the_move_brought(hub, north):
    ident, _ = await came(hub, north)
    done = await north.write(update("deal", ident, title="edited", amount="9", tags=["red"]))
    result = await undo(north.db, await actor(north), done.change_set)
    assert result.committed, result
    assert await data_of(north, ident) == {"title": "elsewhere", "amount": "3.00"}
    page = await history(north.db, await actor(north), "deal", ident)
    steps = {s.field: (s.before, s.after) for s in page.entries[1].fields}
    assert steps["title"] == ("elsewhere", "edited") and steps["amount"] == ("3.00", "9.00")
    await exchange(north, hub)
    await same(ident, hub, north)
    await sound(hub, north)


async def test_a_move_is_taken_back_where_both_units_are(hub, north):
    ident, change_set = await came(hub, north)
    with pytest.raises(Clash) as refused:
        await undo(north.db, await actor(north), change_set)
    assert refused.value.code == "change.beyond_node" and "hub" in refused.value.detail
    assert (await data_of(north, ident))["title"] == "elsewhere"
    result = await undo(hub.db, await actor(hub), change_set)
    assert result.committed
    await exchange(north, hub)
    assert not await north.tenant_rows(
        "SELECT id FROM record WHERE tenant_id = $1 AND id = $2", ident
    )
    with pytest.raises(Clash) as refused:
        await undo(north.db, await actor(north), change_set)
    assert refused.value.code == "change.beyond_node"


async def test_what_came_late_from_elsewhere_is_taken_back_at_the_hub(hub, north, south):
    ident = await made(hub, title="first", amount="1")
    await exchange(south, hub)
    late = await south.write(update("deal", ident, amount="5"))
    ident_of = ident
    await moved(hub, ident, "south", title="moved")
    await exchange(north, hub)
    await moved(hub, ident, "head", title="again")
    await moved(hub, ident, "north")
    # Through the north and the south; the north's site hears of the south's part by the hub.
    elsewhere = await south.write(update("deal", ident_of, note="late"))
    await exchange(south, hub)
    await exchange(north, hub)
    await same(ident, hub, north)
    for change in (late, elsewhere):
        result = await undo(north.db, await actor(north), change.change_set)
        assert result.committed, result
    await exchange(north, hub)
    (data, *_), _ = await same(ident, hub, north)
    assert json.loads(data) == {"title": "again", "amount": "1.00"}


async def test_a_conflict_is_decided_where_only_the_new_home_is_held(hub, north, south):
    ident = await made(hub, title="first", amount="1")
    await exchange(south, hub)
    await moved(hub, ident, "south", title="hub")
    assert (await south.write(update("deal", ident, title="south", amount="7"))).committed
    await exchange(south, hub)
    await moved(hub, ident, "head")
    await moved(hub, ident, "north")
    await exchange(north, hub)
    ctx = await actor(north)
    held = await find(north.db, ctx, ident, "field", "title")
    assert {s.values["title"] for s in held.sides} == {"hub", "south"}
    assert all(s.at and s.actor for s in held.sides)
    (chosen,) = [s.dot for s in held.sides if s.values["title"] == "south"]
    done = await resolve(north.db, ctx, held, Choice(choose=chosen))
    assert done.committed, done
    await exchange(north, hub)
    (data, *_), waiting = await same(ident, hub, north)
    assert json.loads(data)["title"] == "south" and waiting == []
    # What the decision wrote over was two values: there is no one value to go back to.
    await undo(north.db, await actor(north), done.change_set)
    await exchange(north, hub)
    await same(ident, hub, north)
    await sound(hub, north)


async def test_of_a_record_that_came_as_a_state_what_is_in_the_log_is_taken_back(pair):
    await add_deals(pair.hub)
    ids = await fill(pair.hub)
    by_states(pair)
    await pair.sync()
    site, ident = pair.site, ids[7]
    before = (await records(site, KIND))[str(ident)][0]
    first = await site.apply(update(KIND, ident, title="over the state"))
    with pytest.raises(Clash) as refused:
        await undo(site.db, await site.ctx(), first.change_set)
    assert refused.value.code == "change.below_floor" and "hub" in refused.value.detail
    second = await site.apply(update(KIND, ident, title="once more"))
    assert (await undo(site.db, await site.ctx(), second.change_set)).committed
    assert "over the state" in (await records(site, KIND))[str(ident)][0]
    gone = await site.apply(delete(KIND, ident))
    assert (await undo(site.db, await site.ctx(), gone.change_set)).committed
    assert str(ident) in await records(site, KIND)
    # What somebody has written over since is a conflict, as everywhere.
    third = await site.apply(update(KIND, ident, title="third"))
    await site.apply(update(KIND, ident, title="fourth"))
    result = await undo(site.db, await site.ctx(), third.change_set)
    assert not result.committed
    assert "fourth" in (await records(site, KIND))[str(ident)][0]
    # At the hub the log reaches back to the beginning.
    await pair.sync()
    assert (await pair.hub.apply(update(KIND, ident, title="hub"))).committed
    assert before


async def test_an_edit_of_the_new_home_is_not_taken_for_one_of_the_old(hub):
    """Entries of two streams have the same numbers; a form that was open meanwhile is told apart."""
    ident = await made(hub, title="first")
    ((seen,),) = await hub.tenant_rows(
        "SELECT stamps FROM record WHERE tenant_id = $1 AND id = $2", ident
    )
    await moved(hub, ident, "south", title="moved")
    done = await hub.write(update("deal", ident, seen, title="from the form"))
    assert not done.committed and isinstance(done.outcomes[0], Conflict), done
    assert (await hub.write(update("deal", ident, seen, amount="2"))).committed
